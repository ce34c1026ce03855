use burn::tensor::{Int, Tensor};

/// Keys and values of one layer for the columns seen so far.
#[derive(Debug, Default)]
pub(crate) struct LayerCache {
    keys: Buffer,
    values: Buffer,
}

impl LayerCache {
    /// Adds new columns and answers all of them.
    ///
    /// # Shapes
    ///
    /// `[b, g, s, n] -> [b, g, t, n]`, twice
    pub(crate) fn append(&mut self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        (self.keys.append(keys), self.values.append(values))
    }

    /// Keeps some rows only.
    pub(super) fn keep(&mut self, rows: &Tensor<1, Int>) {
        self.keys.keep(rows);
        self.values.keep(rows);
    }
}

/// A tensor `[b, g, capacity, n]` of which the first `len` columns are in use. New ones are written in place, where the backend can.
#[derive(Debug, Default)]
struct Buffer {
    tensor: Option<Tensor<4>>,
    len: usize,
}

impl Buffer {
    fn append(&mut self, new: Tensor<4>) -> Tensor<4> {
        let [b, g, s, n] = new.dims();
        let end = self.len + s;
        let empty = |columns: usize| Tensor::zeros([b, g, columns, n], (&new.device(), new.dtype()));
        // Half as much again at a time, so that copies stay rare and shapes few.
        let roomy = |columns: usize| (columns + columns / 2).next_multiple_of(64);
        let tensor = match self.tensor.take() {
            None => empty(roomy(end)),
            Some(tensor) => match tensor.dims()[2] {
                capacity if capacity < end => Tensor::cat(vec![tensor, empty(roomy(end) - capacity)], 2),
                _ => tensor,
            },
        };
        let tensor = tensor.slice_assign([0..b, 0..g, self.len..end, 0..n], new);
        self.tensor = Some(tensor.clone());
        self.len = end;
        tensor.narrow(2, 0, end)
    }

    fn keep(&mut self, rows: &Tensor<1, Int>) {
        self.tensor = self.tensor.take().map(|tensor| tensor.select(0, rows.clone()));
    }
}

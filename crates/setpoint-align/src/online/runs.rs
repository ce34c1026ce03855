//! Values of the tokens of several responses, response after response.

use burn::tensor::{Int, Tensor, TensorData};

use crate::aggregate::constant_like;

/// The number of tokens of each response of a flat vector of tokens.
pub(super) struct Runs<'a>(pub(super) &'a [usize]);

impl Runs<'_> {
    /// Returns the number of tokens of all responses.
    pub(super) fn total(&self) -> usize {
        self.0.iter().sum()
    }

    /// Sums up the values of each response's tokens; 0 for a response without tokens.
    ///
    /// # Shapes
    /// `[Σ N] -> [n]`
    ///
    /// # Panics
    /// If `values` does not have a value per token.
    pub(super) fn sum(&self, values: Tensor<1>) -> Tensor<1> {
        let (responses, tokens) = (self.0.len(), self.total());
        assert_eq!(values.dims(), [tokens], "one value per token");
        let width = self.0.iter().copied().max().unwrap_or(0).max(1);
        // A zero at the end fills the places of responses that are shorter than the longest.
        let mut places = vec![tokens as i64; responses * width];
        let mut next = 0;
        for (row, &count) in self.0.iter().enumerate() {
            for place in &mut places[row * width..row * width + count] {
                *place = next;
                next += 1;
            }
        }
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [responses * width]), &values.device());
        let zero = constant_like(&[0.0], &values);
        let padded = Tensor::cat(vec![values, zero], 0).select(0, places);
        // [n * width] -> [n, width] -> [n, 1] -> [n]
        padded.reshape([responses, width]).sum_dim(1).reshape([responses])
    }

    /// Gives every token its response's value.
    ///
    /// # Shapes
    /// `[n] -> [Σ N]`
    pub(super) fn spread(&self, values: Tensor<1>) -> Tensor<1> {
        let of: Vec<i64> =
            self.0.iter().enumerate().flat_map(|(row, &count)| std::iter::repeat_n(row as i64, count)).collect();
        let of = Tensor::<1, Int>::from_data(TensorData::new(of, [self.total()]), &values.device());
        values.select(0, of)
    }

    /// Cuts a vector of tokens into the vectors of the responses.
    ///
    /// # Panics
    /// If `values` does not have a value per token.
    pub(super) fn cut<'v>(&self, values: &'v [f64]) -> Vec<&'v [f64]> {
        assert_eq!(values.len(), self.total(), "one value per token");
        let mut rest = values;
        let take = |&count: &usize| {
            let (own, other) = rest.split_at(count);
            rest = other;
            own
        };
        self.0.iter().map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn host(values: Tensor<1>) -> Vec<f64> {
        values.into_data().iter::<f64>().collect()
    }

    #[test]
    fn tokens_are_summed_and_spread_by_response() {
        let device = Device::flex();
        let runs = Runs(&[2, 1, 3]);
        let values = Tensor::<1>::from_floats([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], &device);
        assert_eq!(host(runs.sum(values)), [3.0, 4.0, 56.0]);
        let of = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &device);
        assert_eq!(host(runs.spread(of)), [1.0, 1.0, 2.0, 3.0, 3.0, 3.0]);
        assert_eq!(runs.cut(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]), [&[1.0, 2.0][..], &[4.0], &[8.0, 16.0, 32.0]]);
    }
}

//! Values of the two sides of preference pairs.

use burn::tensor::{Int, Tensor, TensorData};

/// One value per pair for the chosen and for the rejected response: log-probs, log-ratios, token
/// counts. What it holds is said by the name of the parameter it is passed as.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The chosen (preferred) responses, `[b]`.
    pub chosen: Tensor<1>,
    /// The rejected responses, `[b]`.
    pub rejected: Tensor<1>,
}

impl Pair {
    /// Picks pairs out of per-response values; a response may stand in several pairs.
    ///
    /// # Shapes
    /// `[n], b pairs -> [b] and [b]`
    ///
    /// # Panics
    /// Where a pair names a response that is not there.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use setpoint_align::Pair;
    ///
    /// let logps = Tensor::<1>::from_floats([-1.0, -2.0, -3.0], &Device::flex());
    /// // (chosen, rejected)
    /// let pairs = Pair::gather(logps, &[(0, 1), (0, 2)]);
    /// assert_eq!(pairs.chosen.to_data().to_vec::<f32>().unwrap(), [-1.0, -1.0]);
    /// assert_eq!(pairs.rejected.to_data().to_vec::<f32>().unwrap(), [-2.0, -3.0]);
    /// ```
    pub fn gather(values: Tensor<1>, pairs: &[(usize, usize)]) -> Self {
        let [n] = values.dims();
        let pick = |side: fn(&(usize, usize)) -> usize| {
            let indices: Vec<i64> = pairs
                .iter()
                .map(|pair| {
                    let index = side(pair);
                    assert!(index < n, "a pair names response {index} of {n}");
                    index as i64
                })
                .collect();
            let indices = TensorData::new(indices, [pairs.len()]);
            let indices = Tensor::<1, Int>::from_data(indices, &values.device());
            values.clone().select(0, indices) // [n] -> [b]
        };
        Self { chosen: pick(|pair| pair.0), rejected: pick(|pair| pair.1) }
    }

    /// Side by side difference: of the policy's log-probs and the reference's it is the log-ratios.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { chosen: self.chosen - other.chosen, rejected: self.rejected - other.rejected }
    }

    /// Side by side quotient: of log-probs and token counts it is the mean log-probs.
    #[must_use]
    pub fn divided_by(self, other: Self) -> Self {
        Self { chosen: self.chosen / other.chosen, rejected: self.rejected / other.rejected }
    }

    /// Both sides times a number.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { chosen: self.chosen.mul_scalar(factor), rejected: self.rejected.mul_scalar(factor) }
    }

    /// Both sides without their graph.
    #[must_use]
    pub fn without_graph(self) -> Self {
        Self { chosen: self.chosen.inner(), rejected: self.rejected.inner() }
    }

    /// Chosen minus rejected, `[b]`.
    pub fn margin(self) -> Tensor<1> {
        self.chosen - self.rejected
    }
}

/// What a pairwise objective returns.
#[derive(Debug, Clone)]
pub struct PairLoss {
    /// The loss of each pair, unreduced, with its graph, `[b]`. The objective is its mean over the
    /// global batch.
    pub losses: Tensor<1>,
    /// The implicit rewards of the two sides as trl logs them (`rewards/chosen`,
    /// `rewards/rejected`), without a graph.
    pub rewards: Pair,
}

//! Values of the two sides of preference pairs.

use std::ops::{Div, Mul, Sub};

use burn::tensor::{Int, Tensor, TensorData};

/// One value per pair for the chosen and for the rejected response: log-probs, log-ratios, token
/// counts. The name of the parameter says which.
///
/// Differences, quotients and multiples are taken on both sides, so that `logps - ref_logps` is the
/// log-ratios `h`, `logps / tokens` the mean log-probs and `beta * h` the implicit rewards.
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
    /// If a pair names a response that does not exist.
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

    /// Returns both sides without their graph.
    #[must_use]
    pub fn without_graph(&self) -> Self {
        Self { chosen: self.chosen.clone().inner(), rejected: self.rejected.clone().inner() }
    }

    /// Returns chosen minus rejected, `[b]`.
    pub fn margin(self) -> Tensor<1> {
        self.chosen - self.rejected
    }
}

impl Sub for Pair {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { chosen: self.chosen - other.chosen, rejected: self.rejected - other.rejected }
    }
}

impl Div for Pair {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        Self { chosen: self.chosen / other.chosen, rejected: self.rejected / other.rejected }
    }
}

impl Mul<Pair> for f64 {
    type Output = Pair;

    fn mul(self, pair: Pair) -> Pair {
        Pair { chosen: self * pair.chosen, rejected: self * pair.rejected }
    }
}

/// The result of a pairwise objective.
#[derive(Debug, Clone)]
pub struct PairLoss {
    /// The loss of each pair, unreduced, with its graph, `[b]`. The objective is its mean over the
    /// global batch.
    pub losses: Tensor<1>,
    /// The implicit rewards of the two sides as trl logs them (`rewards/chosen`,
    /// `rewards/rejected`), without a graph.
    pub rewards: Pair,
}

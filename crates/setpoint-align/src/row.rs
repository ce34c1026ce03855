//! What objectives on single rows, a prompt and one response each, have in common.

use burn::tensor::Tensor;

/// What an objective on single rows returns.
#[derive(Debug, Clone)]
pub struct RowLoss {
    /// The loss of each row, unreduced, with its graph, `[n]`. The objective is its mean over the global batch.
    pub losses: Tensor<1>,
    /// The implicit rewards `β·h`, without a graph, `[n]`.
    pub rewards: Tensor<1>,
}

//! From unreduced errors to one loss, in a way that gradient accumulation cannot change.

use burn::tensor::{Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::prompt_index::PromptIndex;

/// The way in which the errors of a global batch are averaged when prompts have unequal numbers of responses.
///
/// Both are weighted sums `L = Σ_j w_j·err_j` whose denominator belongs to the **global** batch:
/// each micro-batch, on each device, contributes `Σ_j w_j·err_j` over its own responses, and the
/// sum of the contributions (and of their gradients) is the loss of the global batch, however it
/// was cut. Cut it between prompts, never between the responses of one.
///
/// The third way of the paper, `update = per_prompt` (Algorithm 1 to the letter: an optimizer step
/// after every prompt), is no aggregation but a batch of one prompt; the training loop does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// Mean over prompts of the mean over their responses (Algorithm 1, lines 8–11): every prompt
    /// counts the same.
    #[default]
    PerPrompt,
    /// Mean over all responses: a prompt counts as often as it has responses.
    PerResponse,
}

impl Aggregate {
    /// Returns the amount that a prompt with this many responses adds to the denominator of its global batch.
    pub fn weight(self, responses: usize) -> f64 {
        match self {
            Self::PerPrompt => 1.0,
            Self::PerResponse => responses as f64,
        }
    }

    /// The denominator of a global batch from the number of responses of each of its prompts.
    ///
    /// ```
    /// use setpoint_align::Aggregate;
    ///
    /// assert_eq!(Aggregate::PerPrompt.denominator(&[2, 1, 3]), 3.0);
    /// assert_eq!(Aggregate::PerResponse.denominator(&[2, 1, 3]), 6.0);
    /// ```
    pub fn denominator(self, counts: &[usize]) -> f64 {
        counts.iter().map(|&responses| self.weight(responses)).sum()
    }

    /// The weight `w_j` of each response of a micro-batch, `n` entries:
    /// `1/(n_prompt(j)·denominator)` per prompt, `1/denominator` per response.
    ///
    /// `denominator` is [`Aggregate::denominator`] of the global batch, not of this micro-batch.
    pub fn response_weights(self, prompts: &PromptIndex, denominator: f64) -> Vec<f64> {
        let weight = |&prompt: &usize| match self {
            Self::PerPrompt => 1.0 / (prompts.counts()[prompt] as f64 * denominator),
            Self::PerResponse => 1.0 / denominator,
        };
        prompts.prompt_of().iter().map(weight).collect()
    }
}

/// `Σ_j weights[j]·values[j]`, with the graph of `values`.
///
/// # Shapes
/// `[n], n weights -> [1]`
///
/// # Panics
/// If the two differ in length.
pub fn weighted_sum(values: Tensor<1>, weights: &[f64]) -> Tensor<1> {
    assert_eq!(values.dims(), [weights.len()], "one weight per value");
    let weights = constant_like(weights, &values);
    // `sum_dim`, not `sum`: the latter may add in any order on CUDA.
    (values * weights).sum_dim(0) // [n] -> [1]
}

/// Host numbers as a constant of the same device and dtype as `like`: how rewards and stored
/// reference log-probs meet the log-probs of a forward pass.
///
/// # Shapes
/// `k values -> [k]`
pub fn constant_like(values: &[f64], like: &Tensor<1>) -> Tensor<1> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    Tensor::from_data(data, (&like.device(), like.dtype()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_to_one_over_the_global_batch() {
        let counts = [2, 1, 3, 5];
        for aggregate in [Aggregate::PerPrompt, Aggregate::PerResponse] {
            let denominator = aggregate.denominator(&counts);
            let total: f64 = counts
                .chunks(2)
                .flat_map(|micro| {
                    let prompts = PromptIndex::from_counts(micro).unwrap();
                    aggregate.response_weights(&prompts, denominator)
                })
                .sum();
            assert!((total - 1.0).abs() < 1e-12, "{aggregate:?}: {total}");
        }
    }

    #[test]
    fn names_in_config_files() {
        let parse = |text: &str| serde_json::from_str::<Aggregate>(text).unwrap();
        assert_eq!(parse("\"per_prompt\""), Aggregate::PerPrompt);
        assert_eq!(parse("\"per_response\""), Aggregate::PerResponse);
    }
}

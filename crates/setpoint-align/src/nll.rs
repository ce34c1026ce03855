//! The likelihood term that objectives may add.

use burn::tensor::{Int, Tensor, TensorData};

/// Each pair's share of the chosen responses' negative log-likelihood.
///
/// ```text
/// nll_i = −logp_i·pairs/tokens,      so that  mean_i nll_i = −Σ logp/tokens
/// ```
///
/// Both numbers are those of the whole global batch: the term is the mean over its tokens, not a mean of means (trl's `sft` beside another
/// loss, `nll_loss` of its ORPO; RPO of Pang et al. 2024 with a length-normalised term is a mean of means and no special case of this).
///
/// # Shapes
/// `[b] -> [b]`
///
/// # Units
/// `logps`: log-probabilities in nats, summed over the tokens that count, of which the batch has `tokens`.
pub fn token_mean_nll(logps: Tensor<1>, pairs: f64, tokens: f64) -> Tensor<1> {
    logps.mul_scalar(-pairs / tokens)
}

/// Each prompt's share of the token-mean NLL of best responses, one per prompt.
///
/// ```text
/// nll_x = −logp(best response of x)·prompts/tokens,      so that  mean_x nll_x = −Σ logp/tokens
/// ```
///
/// `best` names the responses in `logps`. Both numbers are those of the whole global batch, as in [`token_mean_nll`]. DRO adds
/// it with the weight `w·β²` (Liu et al. 2024, arXiv 2405.16436: it takes the pessimistic view of responses without a reward).
///
/// # Shapes
/// `[n], b places -> [b]`
///
/// # Units
/// Nats.
pub fn best_nll(logps: Tensor<1>, best: &[usize], prompts: f64, tokens: f64) -> Tensor<1> {
    let places: Vec<i64> = best.iter().map(|&place| place as i64).collect();
    let places = Tensor::<1, Int>::from_data(TensorData::new(places, [best.len()]), &logps.device());
    token_mean_nll(logps.select(0, places), prompts, tokens)
}

/// Several objectives at once: `Σ_k weight_k · losses_k`, unreduced.
///
/// # Shapes
/// `k times [b] -> [b]`
///
/// # Panics
/// Where there is none.
pub fn mixed(parts: impl IntoIterator<Item = (f64, Tensor<1>)>) -> Tensor<1> {
    let weighted = |(weight, losses): (f64, Tensor<1>)| if weight == 1.0 { losses } else { losses.mul_scalar(weight) };
    parts.into_iter().map(weighted).reduce(|sum, losses| sum + losses).expect("at least one objective")
}

//! The likelihood term that any pairwise objective may have beside it.

use burn::tensor::Tensor;

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

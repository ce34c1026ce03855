//! The loss of PPO's value network.

use burn::tensor::Tensor;

use super::runs::Runs;
use crate::aggregate::constant_like;
use crate::metrics::Metrics;
use crate::stable::square;
use crate::summary::mean_std;
use crate::unread::Unread;

/// The values of a micro-batch of `n` responses, slots one after the other.
///
/// A slot is a token; with [`super::RewardAt::AfterEnd`] there is one more behind the stop token.
#[derive(Debug, Clone)]
pub struct ValueBatch {
    /// `v_t`, units of reward, with its graph, `[slots]`.
    pub values: Tensor<1>,
    /// `V_t` of the rollout, as many entries.
    pub old_values: Vec<f64>,
    /// The targets ([`super::Prepared::returns`]), as many entries.
    pub returns: Vec<f64>,
    /// The number of slots of each response, `n` entries.
    pub slots: Vec<usize>,
}

/// The loss of the values.
#[derive(Debug)]
pub struct ValueOutput {
    /// The sum over each response's slots, with its graph, `[n]`. The loss is the sum of these over the batch, divided by the
    /// number of slots of the **whole** batch.
    pub losses: Tensor<1>,
    /// `loss/value_avg` and `val/clipfrac_avg` over slots.
    pub metrics: Unread<Metrics>,
}

/// Computes the clipped value loss (trl 1.12 `PPOTrainer`, after OpenAI's baselines).
///
/// ```text
/// loss_t = ½·max((v − ret)², (clip(v, V − ε_v, V + ε_v) − ret)²)
/// ```
///
/// Where moving further than ε_v from the rollout's value would lower the loss, the gradient is 0.
///
/// # Units
/// Values and returns in units of reward, so the loss in their square: with rewards of a large scale it outweighs the
/// policy's loss, unless they are normalised or `value_weight` is lower.
///
/// # Panics
/// If a vector does not have a number per slot.
pub fn clipped_value(batch: &ValueBatch, value_clip: f64) -> ValueOutput {
    let runs = Runs(&batch.slots);
    let ValueBatch { values, old_values, returns, .. } = batch;
    assert_eq!(values.dims(), [runs.total()], "a value per slot");
    assert!(old_values.len() == runs.total() && returns.len() == runs.total(), "a number per slot");
    let targets = constant_like(returns, values);
    let limit = |offset: f64| constant_like(&old_values.iter().map(|value| value + offset).collect::<Vec<_>>(), values);
    let clipped = values.clone().max_pair(limit(-value_clip)).min_pair(limit(value_clip));
    let (free, clipped) = (square(values.clone() - targets.clone()), square(clipped - targets));

    let metrics = Unread::new([&free, &clipped], |[free, clipped]| {
        let mut metrics = Metrics::default();
        for (free, clipped) in free.into_iter().zip(clipped) {
            metrics.record("loss/value_avg", 0.5 * free.max(clipped));
            metrics.record("val/clipfrac_avg", f64::from(u8::from(clipped > free)));
        }
        metrics
    });
    ValueOutput { losses: runs.sum(0.5 * free.max_pair(clipped)), metrics }
}

/// Computes the share of the returns' variance that the values explain, `1 − Var(ret − V)/Var(ret)`: 1 for perfect values, 0 for
/// constant ones, negative for worse. `None` if the returns do not differ.
///
/// # Panics
/// If the two differ in length.
///
/// ```
/// use setpoint_align::online::explained_variance;
///
/// assert_eq!(explained_variance(&[1.0, 2.0], &[1.0, 2.0]), Some(1.0));
/// assert_eq!(explained_variance(&[0.0, 0.0], &[1.0, 2.0]), Some(0.0));
/// assert_eq!(explained_variance(&[0.0, 1.0], &[2.0, 2.0]), None);
/// ```
pub fn explained_variance(values: &[f64], returns: &[f64]) -> Option<f64> {
    assert_eq!(values.len(), returns.len(), "a return per value");
    let errors: Vec<f64> = returns.iter().zip(values).map(|(target, value)| target - value).collect();
    let spread = mean_std(returns).1;
    (spread > 0.0).then(|| 1.0 - (mean_std(&errors).1 / spread).powi(2))
}

//! The tasks that the engine trains: each task turns some examples into a loss with a graph. The objectives themselves are pure functions in
//! `setpoint-align`; a task brings them together with the model.

pub mod dro_v;
pub mod logps;
pub mod nll;
pub mod pairwise;
pub mod policy;
pub mod ppo;
pub mod prompts;
pub mod rolling;
pub mod rows;
pub mod sft;
pub mod single;
pub mod stages;

use burn::tensor::Tensor;
use setpoint_align::{Metric, Metrics, weighted_sum};
use setpoint_train::{Forward, MetricSums, MicroBatch, ResponseValues, SequenceLogps};

/// A prompt of a task and one of its responses.
pub type Place = (usize, usize);

/// Tokens of the sequences that are in memory at once where a whole data set is scored.
pub const PART_TOKENS: usize = 1 << 22;

/// The mean of some examples' losses, of which the batch has `denominator`, with its metrics and the numbers of the responses.
fn mean_loss(
    losses: Tensor<1>,
    denominator: f64,
    mut metrics: MetricSums,
    responses: ResponseValues,
    logps: SequenceLogps,
) -> Forward {
    let loss = weighted_sum(losses.clone(), &vec![1.0 / denominator; losses.dims()[0]]);
    record_entropy(&mut metrics, &logps);
    let per_example = losses.into_data().iter::<f32>().collect();
    Forward { loss, metrics, per_example, responses, tape: logps.tape, second_tape: None }
}

/// A tensor's numbers on the host.
fn host(values: Tensor<1>) -> Vec<f64> {
    values.into_data().iter::<f64>().collect()
}

/// Adds trl's `entropy`: the mean over the responses' tokens of the policy's entropy, nats.
fn record_entropy(sums: &mut MetricSums, logps: &SequenceLogps) {
    let total: f64 = logps.entropy.clone().into_data().iter::<f64>().sum();
    sums.mean("entropy", total, logps.response_tokens.iter().sum::<usize>() as f64);
}

/// Hands the objective's metrics over to the engine, which adds those of the micro-batches up.
fn metric_sums(metrics: &Metrics) -> MetricSums {
    let mut sums = MetricSums::new();
    for (name, Metric { moments, has_spread }) in metrics.iter() {
        sums.mean(name, moments.mean * moments.count, moments.count);
        if has_spread {
            sums.std_of(&format!("{name}_std"), moments.count, moments.mean, moments.std());
            sums.max(&format!("{name}_max"), moments.max);
        }
    }
    sums
}

/// Tokens of a forward pass without a graph beside micro-batches of this size.
pub(crate) fn pass_tokens(micro_batch: MicroBatch) -> usize {
    match micro_batch {
        MicroBatch::Tokens(tokens) => tokens,
        MicroBatch::Examples(_) => 8192,
    }
}

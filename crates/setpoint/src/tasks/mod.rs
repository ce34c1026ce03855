//! What the engine trains: each task turns some examples into a loss with a graph. The objectives themselves are pure functions in
//! `setpoint-align`; a task brings them together with the model.

pub mod dro_v;
pub mod pairwise;
pub mod prompts;
pub mod rows;
pub mod sft;
pub mod single;

use burn::tensor::Tensor;
use setpoint_align::{Metrics, Role, weighted_sum};
use setpoint_train::{Forward, MetricSums, MicroBatch, ResponseValues, Sequence, SequenceLogps};

/// A prompt of a task and one of its responses.
pub type Place = (usize, usize);

/// A prompt with its scored responses, as tokens.
#[derive(Debug, Clone)]
pub struct ScoredPrompt {
    /// File and row, for messages.
    pub name: String,
    /// Prompt and response, one per response.
    pub sequences: Vec<Sequence>,
    /// The reward of each response, transformed and scaled; empty for methods that use none.
    pub rewards: Vec<f64>,
    /// The rewards that other reward models give each response, model by model; for RPO's ensemble.
    pub ensemble: Vec<Vec<f64>>,
    /// The side each response stands on.
    pub roles: Vec<Option<Role>>,
    /// Whether the sides are the data's labels, not taken from the rewards.
    pub labelled: bool,
    /// Chosen and rejected responses: the pairs that pairwise methods train on, or the one that stands for the prompt in pairwise metrics.
    pub pairs: Vec<(usize, usize)>,
    /// `log π_ref(y|x)` of each response, nats.
    pub ref_logps: Vec<f64>,
    /// `log π_ref` of the prompt's tokens after t0, nats.
    pub ref_prompt_logp: f64,
}

impl ScoredPrompt {
    /// Tokens of all its sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.ids.len()).sum()
    }

    /// Number of reward models that scored the responses.
    pub fn reward_models(&self) -> usize {
        usize::from(self.rewards.len() == self.sequences.len()) + self.ensemble.len()
    }

    /// What is logged of a response that needs no model: its place, the side it stands on, its reward as the loss sees it and its length in
    /// tokens. NaN: there is none.
    pub fn known(&self, response: usize, role: Option<Role>) -> [(&'static str, f64); 4] {
        let sequence = &self.sequences[response];
        // Rewards of which some are missing say nothing of the others' places.
        let rewarded = self.rewards.len() == self.sequences.len();
        [
            ("response", response as f64),
            ("chosen", role.map_or(f64::NAN, |role| f64::from(u8::from(role == Role::Chosen)))),
            ("reward", if rewarded { self.rewards[response] } else { f64::NAN }),
            ("tokens", (sequence.ids.len() - sequence.prompt_len) as f64),
        ]
    }

    /// The reward that a model gives a response; the first model is the data's own.
    pub fn reward(&self, model: usize, response: usize) -> f64 {
        match model {
            0 => self.rewards[response],
            other => self.ensemble[other - 1][response],
        }
    }
}

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
    Forward { loss, metrics, per_example: losses.into_data().iter::<f32>().collect(), responses, tape: logps.tape }
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
    for (name, moments) in metrics.moments() {
        sums.mean(name, moments.mean * moments.count, moments.count);
        if name.starts_with("dro/") && name != "dro/infeasible_frac" {
            sums.std_of(&format!("{name}_std"), moments.count, moments.mean, moments.std());
            sums.max(&format!("{name}_max"), moments.max);
        }
    }
    sums
}

/// Tokens of a forward pass without a graph beside micro-batches of this size.
pub fn pass_tokens(micro_batch: MicroBatch) -> usize {
    match micro_batch {
        MicroBatch::Tokens(tokens) => tokens,
        MicroBatch::Examples(_) => 8192,
    }
}

//! Any objective on responses that the policy sampled, token by token, as a task of the engine.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use setpoint_align::online::{OnlineObjective, PolicyBatch, PolicyMetrics};
use setpoint_align::weighted_sum;
use setpoint_train::{
    BatchContext, Error, Forward, HeadOptions, MetricSums, Order, PassNumbers, PromptLogps, ResponseValues, Sequence,
    Task, Unread, sequence_logps_with,
};
use setpoint_transformer::{CausalLm, Tape};

use super::{in_f32, metric_sums, unread};

/// The mean distance of a token's log-probability between the generator and training, nats (trl's name).
pub const SAMPLING_DIFFERENCE: &str = "sampling/sampling_logp_difference/mean";

/// A sampled response with everything that its loss is made of.
#[derive(Debug, Clone)]
pub struct SampledResponse {
    /// File and row, for messages.
    pub name: String,
    /// Its number among the responses of its prompt.
    pub index: usize,
    /// Prompt and response as tokens.
    pub sequence: Sequence,
    /// The log-probability of each token under the policy that sampled, nats.
    pub old: Vec<f64>,
    /// The same under the reference; nothing if the loss does not look at it.
    pub reference: Vec<f64>,
    /// The advantage of each token.
    pub advantages: Vec<f64>,
    /// The weight in the mean that the loss is.
    pub weight: f64,
    /// The reward.
    pub reward: f64,
}

/// Sampled responses, and the objective that they are trained by.
#[derive(Debug)]
pub struct PolicyTask {
    objective: Arc<dyn OnlineObjective>,
    responses: Vec<SampledResponse>,
    /// The responses of each prompt.
    prompts: Vec<Range<usize>>,
    max_new_tokens: usize,
    head: HeadOptions,
    /// True if the policy is the one that sampled in every step, so that the ratio is 1.
    is_on_policy: bool,
}

impl PolicyTask {
    /// Creates a task of the responses of each prompt. `max_new_tokens`: the most tokens that a response may have.
    pub fn new(objective: Arc<dyn OnlineObjective>, prompts: Vec<Vec<SampledResponse>>, max_new_tokens: usize) -> Self {
        let mut start = 0;
        let range = |responses: &Vec<SampledResponse>| {
            let range = start..start + responses.len();
            start = range.end;
            range
        };
        let ranges = prompts.iter().map(range).collect();
        let responses = prompts.into_iter().flatten().collect();
        Self {
            objective,
            prompts: ranges,
            responses,
            max_new_tokens,
            head: HeadOptions::default(),
            is_on_policy: false,
        }
    }

    /// The same for the only step of a round, whose policy is the one that sampled: `old` are the generator's log-probabilities, and their
    /// distance is measured.
    #[must_use]
    pub fn on_policy(self, is_on_policy: bool) -> Self {
        Self { is_on_policy, ..self }
    }

    /// The same with log-probabilities of the logits divided by a temperature: that at which the responses were sampled.
    #[must_use]
    pub fn at_temperature(self, temperature: f64) -> Self {
        Self { head: HeadOptions::at_temperature(temperature), ..self }
    }

    /// Returns a response.
    pub(super) fn response(&self, example: usize) -> &SampledResponse {
        &self.responses[example]
    }

    /// Returns the numbers of a response for `responses.jsonl` that are known before its pass.
    pub(super) fn logged(&self, example: usize) -> LoggedResponse {
        let SampledResponse { index, reward, old, advantages, .. } = &self.responses[example];
        let known = [
            ("response", *index as f64),
            ("reward", *reward),
            ("tokens", old.len() as f64),
            ("advantage", advantages.first().copied().unwrap_or_default()),
        ];
        LoggedResponse { example, known, old_logp: old.iter().sum() }
    }

    /// Runs some responses through the policy, and `further` sequences in the same pass.
    ///
    /// # Errors
    /// When a sequence is wrong.
    pub(super) fn pass(
        &self,
        policy: &CausalLm,
        examples: &[usize],
        further: &[&Sequence],
    ) -> Result<PolicyPass, Error> {
        let responses: Vec<&SampledResponse> = examples.iter().map(|&example| &self.responses[example]).collect();
        let own = responses.iter().map(|response| &response.sequence);
        let sequences: Vec<&Sequence> = own.chain(further.iter().copied()).collect();
        let found = sequence_logps_with(policy, &sequences, PromptLogps::Skip, &self.head)?;
        let (rows, tokens) = (responses.len(), found.response_tokens[..responses.len()].to_vec());
        let count: usize = tokens.iter().sum();
        let others: usize = found.response_tokens[rows..].iter().sum();
        let flat = |values: fn(&SampledResponse) -> &Vec<f64>| -> Vec<f64> {
            responses.iter().flat_map(|response| values(response).iter().copied()).collect()
        };
        let output = self.objective.losses(&PolicyBatch {
            logps: match others {
                0 => found.tokens.clone(),
                _ => found.tokens.clone().narrow(0, 0, count), // [all tokens] -> [tokens of the responses]
            },
            old_logps: (!self.is_on_policy).then(|| flat(|response| &response.old)),
            ref_logps: self.objective.reference_in_loss().then(|| flat(|response| &response.reference)),
            advantages: flat(|response| &response.advantages),
            tokens,
            max_new_tokens: self.max_new_tokens,
        });
        let entropy_name = self.objective.entropy_name();
        let sampled = self.is_on_policy.then(|| flat(|response| &response.old));
        let own = Unread::all(sampled.is_some().then(|| Unread::of(found.tokens.clone())));
        let seen = unread(output.metrics).and(Unread::of(found.entropy)).and(Unread::of(found.response)).and(own);
        let numbers = seen.map(move |(((PolicyMetrics { metrics, minima, maxima }, entropy), mut logps), own)| {
            let mut metrics = metric_sums(&metrics);
            minima.iter().for_each(|(name, value)| metrics.min(name, *value));
            maxima.iter().for_each(|(name, value)| metrics.max(name, *value));
            for (own, sampled) in own.iter().zip(&sampled) {
                let distances = own.iter().zip(sampled).map(|(own, sampled)| (own - sampled).abs());
                let (sum, most) =
                    distances.fold((0.0, 0.0_f64), |(sum, most), distance| (sum + distance, most.max(distance)));
                metrics.mean(SAMPLING_DIFFERENCE, sum, count as f64);
                metrics.max("sampling/sampling_logp_difference/max", most);
            }
            let entropy: f64 = entropy[..rows].iter().sum();
            metrics.mean("entropy", entropy, count as f64);
            if entropy_name != "entropy" {
                metrics.mean(entropy_name, entropy, count as f64);
            }
            logps.truncate(rows);
            (metrics, logps)
        });
        Ok(PolicyPass {
            losses: output.losses,
            numbers,
            further: (others > 0).then(|| found.tokens.narrow(0, count, others)), // [all tokens] -> [the other tokens]
            tape: found.tape,
        })
    }
}

/// The numbers of a response for `responses.jsonl` that are known before its pass.
#[derive(Clone, Copy)]
pub(super) struct LoggedResponse {
    pub(super) example: usize,
    known: [(&'static str, f64); 4],
    /// Its log-probability under the policy that sampled, nats.
    old_logp: f64,
}

impl LoggedResponse {
    /// Returns all numbers. `logp`: the response's log-probability, nats, if it was computed.
    pub(super) fn with(self, logp: Option<f64>) -> impl Iterator<Item = (&'static str, f64)> {
        self.known.into_iter().chain(logp.map(|logp| ("logp", logp))).chain([("old_logp", self.old_logp)])
    }
}

/// Responses that went through the policy.
pub(super) struct PolicyPass {
    /// The loss of each response times its weight, with its graph, `[n]`.
    pub(super) losses: Tensor<1>,
    /// Metrics of the responses, and the log-probability of each, nats.
    pub(super) numbers: Unread<(MetricSums, Vec<f64>)>,
    /// The log-probabilities of the further sequences' tokens, nats, with their graph.
    pub(super) further: Option<Tensor<1>>,
    /// The decoder's part of the backward pass.
    pub(super) tape: Option<Tape>,
}

impl Task for PolicyTask {
    type Model = CausalLm;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        self.responses.len()
    }

    fn weight(&self, example: usize) -> f64 {
        self.responses[example].weight
    }

    fn cost(&self, example: usize) -> usize {
        self.responses[example].sequence.ids.len()
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<()>) -> Result<Forward, Error> {
        let PolicyPass { losses, numbers, tape, .. } = self.pass(model, examples, &[])?;
        let loss = weighted_sum(losses.clone(), &vec![1.0 / batch.denominator; examples.len()]);
        let logged: Vec<LoggedResponse> = examples.iter().map(|&example| self.logged(example)).collect();
        let numbers = numbers.and(Unread::of(losses)).map(move |((metrics, logps), losses)| {
            let mut responses = ResponseValues::default();
            for (logged, logp) in logged.into_iter().zip(logps) {
                responses.push(logged.example, logged.with(Some(logp)));
            }
            PassNumbers { metrics, per_example: in_f32(&losses), responses }
        });
        Ok(Forward { loss, numbers, tape, second_tape: None })
    }

    /// Returns the responses of one prompt after those of another, so that they share its forward pass.
    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        Order::new(seed)
            .epoch(epoch, self.prompts.len())
            .into_iter()
            .flat_map(|prompt| self.prompts[prompt].clone())
            .collect()
    }

    fn describe(&self, example: usize) -> String {
        let response = &self.responses[example];
        format!("{}, response {}", response.name, response.index)
    }
}

//! Any objective on responses that the policy sampled, token by token, as a task of the engine.

use std::ops::Range;
use std::sync::Arc;

use setpoint_align::online::{OnlineObjective, PolicyBatch};
use setpoint_train::{
    BatchContext, Error, Forward, Order, PromptLogps, ResponseValues, Sequence, Task, sequence_logps,
};
use setpoint_transformer::CausalLm;

use super::{host, mean_loss, metric_sums};

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
        Self { objective, prompts: ranges, responses: prompts.into_iter().flatten().collect(), max_new_tokens }
    }
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
        let responses: Vec<&SampledResponse> = examples.iter().map(|&example| &self.responses[example]).collect();
        let sequences: Vec<&Sequence> = responses.iter().map(|response| &response.sequence).collect();
        let found = sequence_logps(model, &sequences, PromptLogps::Skip)?;
        let flat = |values: fn(&SampledResponse) -> &Vec<f64>| -> Vec<f64> {
            responses.iter().flat_map(|response| values(response).iter().copied()).collect()
        };
        let output = self.objective.losses(&PolicyBatch {
            logps: found.tokens.clone(),
            old_logps: Some(flat(|response| &response.old)),
            ref_logps: self.objective.reference_in_loss().then(|| flat(|response| &response.reference)),
            advantages: flat(|response| &response.advantages),
            tokens: found.response_tokens.clone(),
            max_new_tokens: self.max_new_tokens,
        });
        let mut sums = metric_sums(&output.metrics);
        output.minima.iter().for_each(|(name, value)| sums.min(name, *value));
        output.maxima.iter().for_each(|(name, value)| sums.max(name, *value));
        let logps = host(found.response.clone());
        let mut values = ResponseValues::default();
        for ((&example, response), logp) in examples.iter().zip(&responses).zip(logps) {
            let (tokens, old) = (response.old.len() as f64, response.old.iter().sum::<f64>());
            let advantage = response.advantages.first().copied().unwrap_or_default();
            let logged = [
                ("response", response.index as f64),
                ("reward", response.reward),
                ("tokens", tokens),
                ("advantage", advantage),
                ("logp", logp),
                ("old_logp", old),
            ];
            values.push(example, logged);
        }
        Ok(mean_loss(output.losses, batch.denominator, sums, values, found))
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

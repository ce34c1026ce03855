//! Maximum likelihood of each prompt's best response: supervised fine-tuning with the log of an alignment.

use setpoint_train::{BatchContext, Error, Forward, OnDemand, ResponseValues, Task};
use setpoint_transformer::CausalLm;

use super::sft::{SftExample, SftTask};
use super::stages::BestPrompt;

/// The best response of each prompt. Loss and gradient are those of [`SftTask`] on these conversations.
#[derive(Debug)]
pub struct NllTask {
    prompts: OnDemand<BestPrompt>,
    inner: SftTask,
}

impl NllTask {
    /// Makes a task of the best responses.
    ///
    /// # Errors
    /// When a prompt cannot be read.
    pub fn new(prompts: impl Into<OnDemand<BestPrompt>>) -> Result<Self, Error> {
        let prompts = prompts.into();
        let conversation = |_, BestPrompt { mut prompt, best, .. }: BestPrompt| {
            let sequence = prompt.sequences.swap_remove(best);
            let counted = (0..sequence.ids.len()).map(|i| i >= sequence.prompt_len).collect();
            Ok(SftExample { name: prompt.name, set: prompt.set, ids: sequence.ids, counted })
        };
        let inner = SftTask::new(prompts.clone().map(conversation))?;
        Ok(Self { prompts, inner })
    }
}

impl Task for NllTask {
    type Model = CausalLm;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn weight(&self, example: usize) -> f64 {
        self.inner.weight(example)
    }

    fn cost(&self, example: usize) -> usize {
        self.inner.cost(example)
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<()>) -> Result<Forward, Error> {
        let logged = |&example: &usize| {
            let BestPrompt { prompt, roles, best } = self.prompts.get(example)?;
            let logged = prompt.logged(best, roles[best], prompt.rewards[best]);
            Ok((example, self.inner.weight(example), logged))
        };
        let known = examples.iter().map(logged).collect::<Result<Vec<_>, Error>>()?;
        let mut forward = self.inner.forward(model, examples, batch)?;
        forward.numbers = forward.numbers.map(move |mut numbers| {
            numbers.responses = ResponseValues::default();
            for ((example, tokens, logged), &mean) in known.into_iter().zip(&numbers.per_example) {
                let logp = -f64::from(mean) * tokens;
                numbers.responses.push(example, logged.into_iter().chain([("logp", logp)]));
                numbers.metrics.mean("logps/chosen", logp, 1.0);
            }
            numbers
        });
        Ok(forward)
    }

    fn describe(&self, example: usize) -> String {
        self.inner.describe(example)
    }
}

//! The parts that tasks on single responses have in common.

use setpoint_align::Role;
use setpoint_train::{Error, PromptLogps, Sequence, SequenceLogps, sequence_logps};
use setpoint_transformer::CausalLm;

use super::Place;
use super::stages::{RowPrompt, WithReference};

/// Prompts with responses, each of which is an example of its own.
#[derive(Debug)]
pub struct SingleResponses {
    /// The data.
    pub prompts: Vec<WithReference<RowPrompt>>,
    /// The place of each example.
    pub places: Vec<Place>,
}

impl SingleResponses {
    /// Takes those responses of each prompt for examples that `rows` returns.
    pub fn new(prompts: Vec<WithReference<RowPrompt>>, rows: impl Fn(&RowPrompt) -> Vec<usize>) -> Self {
        let places = prompts.iter().enumerate().flat_map(|(i, prompt)| rows(prompt).into_iter().map(move |j| (i, j)));
        Self { places: places.collect(), prompts }
    }

    /// Returns the number of examples.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// An example as tokens.
    pub fn sequence(&self, example: usize) -> &Sequence {
        let (prompt, response) = self.places[example];
        &self.prompts[prompt].prompt.sequences[response]
    }

    /// The side an example stands on.
    pub fn role(&self, example: usize) -> Option<Role> {
        let (prompt, response) = self.places[example];
        self.prompts[prompt].roles[response]
    }

    /// Returns the reward of an example, if every response of its prompt has one.
    pub fn reward(&self, example: usize) -> Option<f64> {
        let (prompt, response) = self.places[example];
        self.prompts[prompt].reward(response)
    }

    /// Returns the reference's log-probability of an example's response, nats.
    pub fn ref_logp(&self, example: usize) -> f64 {
        let (prompt, response) = self.places[example];
        self.prompts[prompt].ref_logps[response]
    }

    /// Lists what is logged of an example and needs no model.
    pub fn logged(&self, example: usize) -> [(&'static str, f64); 4] {
        let (prompt, response) = self.places[example];
        self.prompts[prompt].prompt.logged(response, self.role(example), self.reward(example))
    }

    /// The policy's log-probs of some examples' responses, `[n]`, with their graph.
    pub fn logps(&self, policy: &CausalLm, examples: &[usize]) -> Result<SequenceLogps, Error> {
        let sequences: Vec<&Sequence> = examples.iter().map(|&example| self.sequence(example)).collect();
        sequence_logps(policy, &sequences, PromptLogps::Skip)
    }

    /// Returns the name of an example in messages.
    pub fn describe(&self, example: usize) -> String {
        let (prompt, response) = self.places[example];
        format!("{}, response {response}", self.prompts[prompt].prompt.name)
    }
}

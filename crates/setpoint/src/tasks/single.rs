//! What tasks on single responses have in common.

use setpoint_align::Role;
use setpoint_train::{Error, PromptLogps, Sequence, SequenceLogps, sequence_logps};
use setpoint_transformer::CausalLm;

use super::{Place, ScoredPrompt};

/// Prompts with responses, each of which is an example of its own.
#[derive(Debug)]
pub struct SingleResponses {
    /// The data.
    pub prompts: Vec<ScoredPrompt>,
    /// Where each example stands.
    pub places: Vec<Place>,
}

impl SingleResponses {
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
        &self.prompts[prompt].sequences[response]
    }

    /// The side an example stands on.
    pub fn role(&self, example: usize) -> Option<Role> {
        let (prompt, response) = self.places[example];
        self.prompts[prompt].roles[response]
    }

    /// What is logged of an example that needs no model.
    pub fn known(&self, example: usize) -> [(&'static str, f64); 4] {
        let (prompt, response) = self.places[example];
        self.prompts[prompt].known(response, self.role(example))
    }

    /// A number for each of some examples.
    pub fn each(&self, examples: &[usize], value: fn(&ScoredPrompt, usize) -> f64) -> Vec<f64> {
        let of = |&example: &usize| {
            let (prompt, response) = self.places[example];
            value(&self.prompts[prompt], response)
        };
        examples.iter().map(of).collect()
    }

    /// The policy's log-probs of some examples' responses, `[n]`, with their graph.
    pub fn logps(&self, policy: &CausalLm, examples: &[usize]) -> Result<SequenceLogps, Error> {
        let sequences: Vec<&Sequence> = examples.iter().map(|&example| self.sequence(example)).collect();
        sequence_logps(policy, &sequences, PromptLogps::Skip)
    }

    /// How messages name an example.
    pub fn describe(&self, example: usize) -> String {
        let (prompt, response) = self.places[example];
        format!("{}, response {response}", self.prompts[prompt].name)
    }
}

//! The parts that tasks on single responses have in common.

use std::collections::HashMap;
use std::sync::Arc;

use setpoint_align::Role;
use setpoint_train::{Error, OnDemand, PromptLogps, Sequence, SequenceLogps, sequence_logps};
use setpoint_transformer::CausalLm;

use super::Place;
use super::stages::{RowPrompt, WithReference};

/// Prompts with responses, each of which is an example of its own.
#[derive(Debug)]
pub struct SingleResponses {
    prompts: OnDemand<WithReference<RowPrompt>>,
    index: Vec<Entry>,
}

/// The place of an example, and what is known of it without its tokens.
#[derive(Debug, Clone, Copy)]
struct Entry {
    prompt: u32,
    response: u32,
    tokens: u32,
    prompt_tokens: u32,
}

/// An example with its prompt.
#[derive(Debug, Clone)]
pub struct Single {
    /// The prompt with all its responses.
    pub prompt: Arc<WithReference<RowPrompt>>,
    /// Where the example stands.
    pub place: Place,
}

impl SingleResponses {
    /// Takes those responses of each prompt for examples that `rows` returns. Each prompt is made once here.
    ///
    /// # Errors
    /// When a prompt cannot be read.
    pub fn new(
        prompts: impl Into<OnDemand<WithReference<RowPrompt>>>,
        rows: impl Fn(&RowPrompt) -> Vec<usize>,
    ) -> Result<Self, Error> {
        let prompts = prompts.into();
        let mut index = Vec::new();
        for (number, prompt) in prompts.iter().enumerate() {
            let prompt = prompt?;
            index.extend(rows(&prompt).into_iter().map(|response| {
                let Sequence { ids, prompt_len, .. } = &prompt.prompt.sequences[response];
                Entry {
                    prompt: number as u32,
                    response: response as u32,
                    tokens: ids.len() as u32,
                    prompt_tokens: *prompt_len as u32,
                }
            }));
        }
        Ok(Self { prompts, index })
    }

    /// Returns the number of examples.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Returns where an example stands.
    pub fn place(&self, example: usize) -> Place {
        let Entry { prompt, response, .. } = self.index[example];
        (prompt as usize, response as usize)
    }

    /// Counts the tokens of an example, its prompt's included, and those of its prompt.
    pub fn tokens(&self, example: usize) -> (usize, usize) {
        let Entry { tokens, prompt_tokens, .. } = self.index[example];
        (tokens as usize, prompt_tokens as usize)
    }

    /// Reads some examples, the prompt of several once.
    ///
    /// # Errors
    /// When a prompt cannot be read.
    pub fn read(&self, examples: &[usize]) -> Result<Vec<Single>, Error> {
        let mut known: HashMap<usize, Arc<WithReference<RowPrompt>>> = HashMap::new();
        let mut single = |&example: &usize| {
            let place = self.place(example);
            let prompt = match known.get(&place.0) {
                Some(prompt) => prompt.clone(),
                None => known.entry(place.0).or_insert(Arc::new(self.prompts.get(place.0)?)).clone(),
            };
            Ok(Single { prompt, place })
        };
        examples.iter().map(&mut single).collect()
    }

    /// Returns the name of an example in messages.
    pub fn describe(&self, example: usize) -> String {
        let (prompt, response) = self.place(example);
        let name =
            self.prompts.get(prompt).map_or_else(|_| format!("prompt {prompt}"), |found| found.prompt.name.clone());
        format!("{name}, response {response}")
    }
}

impl Single {
    /// Returns the example as tokens.
    pub fn sequence(&self) -> &Sequence {
        &self.prompt.prompt.sequences[self.place.1]
    }

    /// Returns the side that the example stands on.
    pub fn role(&self) -> Option<Role> {
        self.prompt.roles[self.place.1]
    }

    /// Returns the reward, if every response of the prompt has one.
    pub fn reward(&self) -> Option<f64> {
        self.prompt.reward(self.place.1)
    }

    /// Returns the reference's log-probability of the response, nats.
    pub fn ref_logp(&self) -> f64 {
        self.prompt.ref_logps[self.place.1]
    }

    /// Lists what is logged of the example and needs no model.
    pub fn logged(&self) -> [(&'static str, f64); 4] {
        self.prompt.prompt.logged(self.place.1, self.role(), self.reward())
    }
}

/// Returns the policy's log-probs of some examples' responses, `[n]`, with their graph.
///
/// # Errors
/// When a sequence is wrong.
pub fn logps(policy: &CausalLm, examples: &[Single]) -> Result<SequenceLogps, Error> {
    let sequences: Vec<&Sequence> = examples.iter().map(Single::sequence).collect();
    sequence_logps(policy, &sequences, PromptLogps::Skip)
}

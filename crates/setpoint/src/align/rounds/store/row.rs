//! A row of the responses of a round.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A prompt with the responses that the policy sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutRow {
    /// The prompt: text or messages.
    pub prompt: Value,
    /// The responses as text.
    pub responses: Vec<String>,
    /// Their rewards; none where the source has none.
    pub rewards: Vec<Option<f64>>,
    /// The rewards of each source by its name, if they have weights.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_rewards: BTreeMap<String, Vec<Option<f64>>>,
    /// The place of the prompt in the data, from 0.
    pub row: usize,
    /// The tokens of the responses, their stop tokens included.
    pub tokens: Vec<Vec<u32>>,
    /// True where a response ended with a stop token.
    pub stopped: Vec<bool>,
    /// `log π(y|x)` of the policy that sampled, as training computes it, nats: at the temperature of the samples if the method asks how probable
    /// they were.
    pub logps: Vec<f64>,
    /// The same as the generator computed it; nothing if a server did not tell.
    pub sampling_logps: Vec<f64>,
    /// The distance between the two, token by token; nothing if a server did not tell, or from an older build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sampling_distances: Vec<Distance>,
    /// The generator's log-probs, token by token, if the loss is corrected for the sampler. A token that a server is silent about has the
    /// policy's number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sampling_token_logps: Vec<Vec<f64>>,
    /// `log π_ref(y|x)`, nats; nothing without a reference.
    pub ref_logps: Vec<f64>,
    /// `log π_ref` of the prompt's tokens that are scored, nats.
    pub ref_prompt_logp: f64,
    /// `log π(y_t|x, y_<t)` of each token of the responses, for methods that look at tokens, nats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_logps: Vec<Vec<f64>>,
    /// The same under the reference; nothing without a reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ref_token_logps: Vec<Vec<f64>>,
    /// The value of each slot of the responses, units of reward, for methods with a value network: one for each token, or one more behind
    /// the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Vec<f64>>,
    /// Columns of the data that the template is given.
    #[serde(flatten)]
    pub template: Map<String, Value>,
}

/// The distance of a response's log-probabilities between what sampled it and training, over the tokens that both tell of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Distance {
    /// The number of these tokens.
    pub tokens: usize,
    /// The sum of the absolute differences, nats.
    pub sum: f64,
    /// The greatest of them, nats.
    pub max: f64,
}

impl Distance {
    /// Returns the distance between two lists of log-probabilities.
    pub fn of(one: &[f32], other: &[f32]) -> Self {
        one.iter().zip(other).map(|(one, other)| (f64::from(*one) - f64::from(*other)).abs()).fold(
            Self::default(),
            |found, difference| Self {
                tokens: found.tokens + 1,
                sum: found.sum + difference,
                max: found.max.max(difference),
            },
        )
    }
}

impl RolloutRow {
    /// Returns whether there is something for each response.
    pub(super) fn is_whole(&self) -> bool {
        let count = self.tokens.len();
        let lengths = [self.responses.len(), self.rewards.len(), self.stopped.len(), self.logps.len()];
        lengths.iter().all(|&length| length == count)
            && self.source_rewards.values().all(|rewards| rewards.len() == count)
            && (self.sampling_logps.is_empty() || self.sampling_logps.len() == count)
            && (self.sampling_distances.is_empty() || self.sampling_distances.len() == count)
            && (self.ref_logps.is_empty() || self.ref_logps.len() == count)
            && [&self.token_logps, &self.ref_token_logps, &self.sampling_token_logps]
                .into_iter()
                .all(|logps| self.fits(logps))
            && self.has_slots()
            && self.tokens.iter().all(|ids| !ids.is_empty())
    }

    /// Returns whether there is a number for each token, or none at all.
    fn fits(&self, numbers: &[Vec<f64>]) -> bool {
        let lengths = numbers.iter().map(Vec::len);
        numbers.is_empty() || lengths.eq(self.tokens.iter().map(Vec::len))
    }

    /// Returns whether there is a value for each slot, or none at all.
    fn has_slots(&self) -> bool {
        let fits = |(values, ids): (&Vec<f64>, &Vec<u32>)| (ids.len()..=ids.len() + 1).contains(&values.len());
        self.values.is_empty()
            || self.values.len() == self.tokens.len() && self.values.iter().zip(&self.tokens).all(fits)
    }
}

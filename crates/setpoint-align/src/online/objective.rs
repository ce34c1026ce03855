//! The form that every online method has for the training loop.

use std::collections::BTreeMap;
use std::fmt;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::runs::Runs;
use crate::aggregate::constant_like;
use crate::error::Error;
use crate::metrics::{Metrics, Moments};
use crate::prompt_index::PromptIndex;
use crate::settings::Problem;
use crate::unread::Unread;

/// A sampled response, with the numbers that its advantage follows from. `N` is the number of its tokens, the stop token
/// included.
#[derive(Debug, Clone, Copy)]
pub struct Sampled<'a> {
    /// The reward of the whole text; NaN if its source gave none.
    pub reward: f64,
    /// True if the response ends with a stop token, false if it was cut.
    pub stopped: bool,
    /// `old_t` by the training path, nats, `N` entries.
    pub old_logps: &'a [f64],
    /// `ref_t`, nats, `N` entries; empty if [`OnlineObjective::uses_reference`] is false.
    pub ref_logps: &'a [f64],
    /// `V_t` at the token before `y_t`, units of reward, `N` entries, or one more for the slot behind the end
    /// ([`super::RewardAt::AfterEnd`]); empty for methods without a value network.
    pub values: &'a [f64],
}

impl Sampled<'_> {
    /// Returns the number of tokens.
    pub fn tokens(&self) -> usize {
        self.old_logps.len()
    }
}

/// The numbers that go from one round to the next. A resumed run reads those of the round that it goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct OnlineState {
    /// The coefficient of the KL divergence.
    pub kl_coef: f64,
    /// The moments of all rewards so far, if the settings normalise rewards by them.
    pub rewards: Option<Moments>,
}

/// The numbers of a round that its steps train on.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// `A_t` of each token, response by response; zeros for responses of weight 0.
    pub advantages: Vec<Vec<f64>>,
    /// The target of each value, response by response, with as many entries as [`Sampled::values`].
    pub returns: Vec<Vec<f64>>,
    /// The weight of each response in the mean that the loss is; 0 for responses that take no part.
    pub weights: Vec<f64>,
    /// Metrics of the round.
    pub metrics: BTreeMap<String, f64>,
    /// The state of the next round.
    pub next: OnlineState,
}

/// A micro-batch of `n` responses, tokens one after the other.
#[derive(Debug, Clone)]
pub struct PolicyBatch {
    /// `lp_t`, nats, with its graph, `[Σ N]`.
    pub logps: Tensor<1>,
    /// `old_t`, `Σ N` entries; `None` in the only pass over a round, where the policy is the one that sampled.
    pub old_logps: Option<Vec<f64>>,
    /// `ref_t`, `Σ N` entries, if [`OnlineObjective::reference_in_loss`] is true.
    pub ref_logps: Option<Vec<f64>>,
    /// `A_t`, `Σ N` entries.
    pub advantages: Vec<f64>,
    /// `N` of each response, `n` entries, at least 1 each.
    pub tokens: Vec<usize>,
    /// The most tokens that a response may have.
    pub max_new_tokens: usize,
}

impl PolicyBatch {
    /// Returns the responses' runs of tokens.
    ///
    /// # Panics
    /// If a vector does not have a number per token.
    pub(super) fn runs(&self) -> Runs<'_> {
        let runs = Runs(&self.tokens);
        let lengths = [Some(&self.advantages), self.old_logps.as_ref(), self.ref_logps.as_ref()];
        assert_eq!(self.logps.dims(), [runs.total()], "a log-probability per token");
        assert!(lengths.into_iter().flatten().all(|values| values.len() == runs.total()), "a number per token");
        runs
    }

    /// Returns `lp_t − old_t`, nats, with its graph, `[Σ N]`.
    pub(super) fn log_ratios(&self) -> Tensor<1> {
        let old = match &self.old_logps {
            Some(old) => constant_like(old, &self.logps),
            None => self.logps.clone().inner(),
        };
        self.logps.clone() - old
    }

    /// Returns `A_t` as a constant, `[Σ N]`.
    pub(super) fn advantages(&self) -> Tensor<1> {
        constant_like(&self.advantages, &self.logps)
    }
}

/// The loss of a micro-batch.
#[derive(Debug)]
pub struct PolicyOutput {
    /// The loss of each response times its weight, with its graph, `[n]`. The loss of a step is their sum, divided by the
    /// sum of [`Prepared::weights`] over its **whole** batch.
    pub losses: Tensor<1>,
    /// Metrics of the micro-batch.
    pub metrics: Unread<PolicyMetrics>,
}

/// The metrics of a micro-batch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyMetrics {
    /// Metrics of the tokens or responses.
    pub metrics: Metrics,
    /// Metrics of which the smallest of all micro-batches is reported.
    pub minima: Vec<(&'static str, f64)>,
    /// Metrics of which the largest of all micro-batches is reported.
    pub maxima: Vec<(&'static str, f64)>,
}

/// An online method with its settings.
pub trait OnlineObjective: fmt::Debug + Send + Sync {
    /// Returns how many responses are sampled per prompt, unless set.
    fn samples(&self) -> usize;

    /// Returns the fewest responses per prompt that it can train on.
    fn least_samples(&self) -> usize {
        1
    }

    /// Returns how many passes are made over the responses of a round, unless set.
    fn epochs_per_round(&self) -> usize {
        1
    }

    /// Returns whether there is a value network.
    fn has_value(&self) -> bool {
        false
    }

    /// Returns how many values a response of `tokens` tokens has, of which there may be at most `max_new_tokens`: one per
    /// token, or one more for a slot behind the end.
    fn value_slots(&self, tokens: usize, _max_new_tokens: usize) -> usize {
        tokens
    }

    /// Returns whether it looks at the reference at all.
    fn uses_reference(&self) -> bool;

    /// Returns whether its loss looks at the reference, and not the rewards alone.
    fn reference_in_loss(&self) -> bool {
        false
    }

    /// Returns the state of the first round.
    fn start(&self) -> OnlineState {
        OnlineState::default()
    }

    /// Returns what is wrong with settings that do not fit together.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Returns the name under which the mean entropy of the tokens is logged.
    fn entropy_name(&self) -> &'static str {
        "entropy"
    }

    /// Computes the advantages of a round from its responses, those of all devices.
    ///
    /// # Errors
    /// [`Error::Rollout`] for a number that is not finite, [`Error::NoRewards`] if no response has a reward.
    ///
    /// # Panics
    /// If a response's vectors do not have a number per token, or `prompts` does not have these responses.
    fn prepare(&self, sampled: &[Sampled<'_>], prompts: &PromptIndex, state: &OnlineState) -> Result<Prepared, Error>;

    /// Computes the loss of a micro-batch.
    ///
    /// # Panics
    /// If a vector of the batch does not have a number per token, or the reference is missing.
    fn losses(&self, batch: &PolicyBatch) -> PolicyOutput;
}

/// Checks the numbers of a round's responses.
///
/// # Errors
/// As [`OnlineObjective::prepare`].
///
/// # Panics
/// As [`OnlineObjective::prepare`].
pub(super) fn check(
    objective: &dyn OnlineObjective,
    sampled: &[Sampled<'_>],
    prompts: &PromptIndex,
) -> Result<(), Error> {
    assert_eq!(sampled.len(), prompts.responses(), "a prompt for each response");
    let mut seen = vec![0; prompts.prompts()];
    for (one, &prompt) in sampled.iter().zip(prompts.prompt_of()) {
        let response = seen[prompt];
        seen[prompt] += 1;
        assert!(one.tokens() > 0, "a response has at least its stop token");
        let optional = one.ref_logps.is_empty() && !objective.uses_reference();
        assert!(optional || one.ref_logps.len() == one.tokens(), "a reference log-probability per token");
        let numbers = [
            ("log-probability under the policy", one.old_logps),
            ("log-probability under the reference", one.ref_logps),
            ("value", one.values),
        ];
        for (what, values) in numbers {
            if let Some(&found) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::Rollout { prompt, response, what, found });
            }
        }
        if one.reward.is_infinite() {
            return Err(Error::Rollout { prompt, response, what: "reward", found: one.reward });
        }
    }
    if sampled.iter().all(|one| one.reward.is_nan()) {
        return Err(Error::NoRewards { responses: sampled.len() });
    }
    Ok(())
}

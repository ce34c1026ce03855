//! A method together with the data that it trains on, before and after the reference model has scored it.

use std::sync::Arc;

use setpoint_align::{
    DroVSettings, LogZ0, PairwiseMethod, PromptObjective, PromptRewards, RowObjective, check_targets,
};
use setpoint_data::ExampleStore;
use setpoint_train::{Error, OnDemand};

use super::prepare::named;
use crate::failure::Outcome;
use crate::tasks::logps::Logps;
use crate::tasks::stages::{
    BestPrompt, PairedPrompt, PreparedPrompt, PromptList, RewardedPrompt, RowPrompt, WithReference, unscored,
};

/// A method as its task needs it, with prompts that have what it looks at.
pub enum TrainingData {
    /// All responses of a prompt at once.
    Prompts {
        /// The objective.
        objective: Arc<dyn PromptObjective>,
        /// The data.
        sets: Sets<RewardedPrompt>,
    },
    /// Pairs of responses.
    Pairs {
        /// The objectives and how they are added up.
        method: PairwiseMethod,
        /// The data.
        sets: Sets<PairedPrompt>,
    },
    /// Single responses.
    Rows {
        /// The objective.
        objective: Arc<dyn RowObjective>,
        /// The data.
        sets: Sets<RowPrompt>,
    },
    /// Single responses, and a network that learns the value of their prompts.
    RowsWithValue {
        /// The objective's settings.
        settings: DroVSettings,
        /// The data.
        sets: Sets<RowPrompt>,
    },
    /// The best response of each prompt.
    Best {
        /// The data.
        sets: Sets<BestPrompt>,
    },
}

impl TrainingData {
    /// Returns the training data and the held-out data, whatever the method trains on.
    pub fn sets(&self) -> (SetView<'_>, Option<SetView<'_>>) {
        match self {
            Self::Prompts { sets, .. } => sets.view(),
            Self::Pairs { sets, .. } => sets.view(),
            Self::Rows { sets, .. } | Self::RowsWithValue { sets, .. } => sets.view(),
            Self::Best { sets } => sets.view(),
        }
    }

    /// Returns the objective if it has targets.
    pub fn with_targets(&self) -> Option<&dyn PromptObjective> {
        match self {
            Self::Prompts { objective, .. } => Some(&**objective).filter(|objective| objective.level().is_some()),
            Self::Pairs { .. } | Self::Rows { .. } | Self::RowsWithValue { .. } | Self::Best { .. } => None,
        }
    }

    /// Lists the examples that the method makes of the training data (prompts, pairs or single responses) in the order of its task: the data
    /// set of each.
    ///
    /// # Errors
    /// When a row cannot be read back.
    pub fn examples(&self) -> Outcome<Vec<usize>> {
        fn each<P: PreparedPrompt>(sets: &Sets<P>, examples: impl Fn(&P) -> usize) -> Outcome<Vec<usize>> {
            let mut found = Vec::new();
            for prompt in sets.train.prompts.iter() {
                let prompt = prompt?;
                found.extend(std::iter::repeat_n(prompt.prompt().set, examples(&prompt)));
            }
            Ok(found)
        }
        match self {
            Self::Prompts { sets, .. } => each(sets, |_| 1),
            Self::Pairs { sets, .. } => each(sets, |prompt| prompt.pairs.len()),
            Self::Rows { objective, sets } => each(sets, |prompt| rows_of(&**objective, prompt).len()),
            Self::RowsWithValue { sets, .. } => each(sets, |prompt| prompt.prompt.sequences.len()),
            Self::Best { sets } => each(sets, |_| 1),
        }
    }
}

/// Returns the responses of a prompt that are rows: if the objective's rows are good or bad, those that are either.
pub fn rows_of(objective: &dyn RowObjective, prompt: &RowPrompt) -> Vec<usize> {
    let all = objective.desirable().is_none();
    (0..prompt.roles.len()).filter(|&j| all || prompt.roles[j].is_some()).collect()
}

/// Training data and held-out data.
pub struct Sets<P> {
    /// The training set.
    pub train: PreparedSet<P>,
    /// The held-out set.
    pub eval: Option<PreparedSet<P>>,
}

/// One data set without the reference's log-probabilities.
pub struct PreparedSet<P> {
    /// The prompts.
    pub prompts: OnDemand<P>,
    /// The prompts with another prompt's responses, for objectives with a baseline.
    pub mismatched: Option<OnDemand<P>>,
    /// Hash of the examples as tokens.
    pub hash: String,
    /// The rows as they were read.
    pub rows: Arc<ExampleStore>,
}

/// One data set, whatever the method trains on.
pub struct SetView<'a> {
    /// The prompts.
    pub prompts: &'a dyn PromptList,
    /// The prompts with another prompt's responses.
    pub mismatched: Option<&'a dyn PromptList>,
    /// Hash of the examples as tokens.
    pub hash: &'a str,
    /// The rows as they were read.
    pub rows: &'a ExampleStore,
}

impl SetView<'_> {
    /// Returns rewards and roles of each prompt for the objectives' crate, which numbers prompts from 0.
    pub fn rewards(&self) -> impl Iterator<Item = Outcome<PromptRewards>> + '_ {
        self.prompts.iter().enumerate().map(|(row, prompt)| Ok(prompt?.prompt_rewards(row)))
    }

    /// Returns all rewards, in the order of the prompts and their responses.
    ///
    /// # Errors
    /// When a row cannot be read back.
    pub fn all_rewards(&self) -> Outcome<Vec<f64>> {
        let mut all = Vec::new();
        for prompt in self.rewards() {
            all.extend(prompt?.rewards);
        }
        Ok(all)
    }

    /// Returns the level of targets, nats.
    ///
    /// # Errors
    /// When the rewards do not allow it.
    pub fn level(&self, beta: f64, level: LogZ0) -> Outcome<f64> {
        let mut basis = Vec::new();
        for prompt in self.rewards().filter(|_| level.needs_rewards()) {
            basis.extend(level.basis(&[prompt?]));
        }
        Ok(level.resolve(beta, &basis)?)
    }

    /// Checks that the targets can be computed with.
    ///
    /// # Errors
    /// When a reward or the level is too large.
    pub fn check_targets(&self, beta: f64, log_z0: f64) -> Outcome {
        for prompt in self.rewards() {
            check_targets(&[prompt?], beta, 0.0).map_err(|error| named(error, |row| self.name(row)))?;
        }
        Ok(check_targets(&[], beta, log_z0)?)
    }

    /// Returns whether a response has a token.
    ///
    /// # Errors
    /// When a row cannot be read back.
    pub fn teaches(&self, token: u32) -> Outcome<bool> {
        for prompt in self.prompts.iter() {
            let prompt = prompt?;
            let prompt = prompt.prompt();
            if (0..prompt.sequences.len()).any(|j| prompt.response_ids(j).contains(&token)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn name(&self, prompt: usize) -> Option<String> {
        Some(self.prompts.get(prompt).ok()?.prompt().name.clone())
    }
}

impl<P: PreparedPrompt + 'static> Sets<P> {
    fn view(&self) -> (SetView<'_>, Option<SetView<'_>>) {
        (self.train.view(), self.eval.as_ref().map(PreparedSet::view))
    }

    /// Adds the reference's log-probabilities.
    pub fn with_reference(self, reference: Reference) -> (ReferencedSet<P>, Option<ReferencedSet<P>>) {
        let eval = self.eval.zip(reference.eval);
        let eval = eval.map(|(set, reference)| set.with_reference(reference));
        (self.train.with_reference(reference.train), eval)
    }
}

impl<P: PreparedPrompt + 'static> PreparedSet<P> {
    /// Returns the set as one whatever the method trains on.
    pub fn view(&self) -> SetView<'_> {
        let mismatched = self.mismatched.as_ref().map(|prompts| prompts as &dyn PromptList);
        SetView { prompts: &self.prompts, mismatched, hash: &self.hash, rows: &self.rows }
    }

    /// Adds the reference's log-probabilities.
    pub fn with_reference(self, reference: SetReference) -> ReferencedSet<P> {
        let mismatched = self.mismatched.zip(reference.mismatched);
        ReferencedSet {
            prompts: with_reference(self.prompts, reference.prompts),
            mismatched: mismatched.map(|(prompts, logps)| with_reference(prompts, logps)),
        }
    }
}

fn with_reference<P: PreparedPrompt + 'static>(prompts: OnDemand<P>, logps: Logps) -> OnDemand<WithReference<P>> {
    prompts.map(move |number, prompt| {
        let responses = prompt.prompt().sequences.len();
        let name = prompt.prompt().name.clone();
        WithReference::new(prompt, logps.get(number, responses)).ok_or_else(|| Error::task(unscored(&name)))
    })
}

/// The reference's log-probabilities of training and held-out data.
pub struct Reference {
    /// Of the training data.
    pub train: SetReference,
    /// Of the held-out data.
    pub eval: Option<SetReference>,
}

/// The reference's log-probabilities of one data set, prompt by prompt.
pub struct SetReference {
    /// Of the prompts.
    pub prompts: Logps,
    /// Of the mismatched ones.
    pub mismatched: Option<Logps>,
}

/// One data set that a task can be made of.
pub struct ReferencedSet<P> {
    /// The prompts.
    pub prompts: OnDemand<WithReference<P>>,
    /// The prompts with another prompt's responses.
    pub mismatched: Option<OnDemand<WithReference<P>>>,
}

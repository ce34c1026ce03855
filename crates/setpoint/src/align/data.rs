//! A method together with the data that it trains on, before and after the reference model has scored it.

use std::sync::Arc;

use setpoint_align::{DroVSettings, PairwiseMethod, PromptObjective, PromptRewards, RowObjective};

use crate::failure::{Failure, Outcome};
use crate::identity::Row;
use crate::tasks::stages::{
    BestPrompt, PairedPrompt, PreparedPrompt, ReferenceLogps, RewardedPrompt, RowPrompt, WithReference,
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
    pub fn examples(&self) -> Vec<usize> {
        fn each<P: PreparedPrompt>(sets: &Sets<P>, examples: impl Fn(&P) -> usize) -> Vec<usize> {
            let of_prompt = |prompt: &P| std::iter::repeat_n(prompt.prompt().set, examples(prompt));
            sets.train.prompts.iter().flat_map(of_prompt).collect()
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
    pub prompts: Vec<P>,
    /// The prompts with another prompt's responses, for objectives with a baseline.
    pub mismatched: Option<Vec<P>>,
    /// Hash of the examples as tokens.
    pub hash: String,
    /// The rows as they were read, for the identity of the run.
    pub rows: Vec<Row>,
}

/// One data set, whatever the method trains on.
pub struct SetView<'a> {
    /// The prompts.
    pub prompts: Vec<&'a dyn PreparedPrompt>,
    /// The prompts with another prompt's responses.
    pub mismatched: Option<Vec<&'a dyn PreparedPrompt>>,
    /// Hash of the examples as tokens.
    pub hash: &'a str,
    /// The rows as they were read.
    pub rows: &'a [Row],
}

impl SetView<'_> {
    /// Returns rewards and roles for the objectives' crate, which numbers prompts from 0.
    pub fn rewards(&self) -> Vec<PromptRewards> {
        self.prompts.iter().enumerate().map(|(row, prompt)| prompt.prompt_rewards(row)).collect()
    }

    /// Returns the tokens of all responses.
    pub fn responses(&self) -> impl Iterator<Item = &[u32]> {
        self.prompts.iter().flat_map(|prompt| {
            let prompt = prompt.prompt();
            (0..prompt.sequences.len()).map(|j| prompt.response_ids(j))
        })
    }
}

impl<P: PreparedPrompt> Sets<P> {
    fn view(&self) -> (SetView<'_>, Option<SetView<'_>>) {
        (self.train.view(), self.eval.as_ref().map(PreparedSet::view))
    }

    /// Adds the reference's log-probabilities.
    ///
    /// # Errors
    /// When one is missing.
    pub fn with_reference(self, reference: Reference) -> Outcome<(ReferencedSet<P>, Option<ReferencedSet<P>>)> {
        let eval = self.eval.zip(reference.eval);
        let eval = eval.map(|(set, reference)| set.with_reference(reference)).transpose()?;
        Ok((self.train.with_reference(reference.train)?, eval))
    }
}

impl<P: PreparedPrompt> PreparedSet<P> {
    /// Returns the set as one whatever the method trains on.
    pub fn view(&self) -> SetView<'_> {
        fn each<P: PreparedPrompt>(prompts: &[P]) -> Vec<&dyn PreparedPrompt> {
            prompts.iter().map(|prompt| prompt as &dyn PreparedPrompt).collect()
        }
        let mismatched = self.mismatched.as_deref().map(each);
        SetView { prompts: each(&self.prompts), mismatched, hash: &self.hash, rows: &self.rows }
    }

    /// Adds the reference's log-probabilities.
    ///
    /// # Errors
    /// When one is missing.
    pub fn with_reference(self, reference: SetReference) -> Outcome<ReferencedSet<P>> {
        let mismatched = self.mismatched.zip(reference.mismatched);
        Ok(ReferencedSet {
            prompts: with_reference(self.prompts, reference.prompts)?,
            mismatched: mismatched.map(|(prompts, logps)| with_reference(prompts, logps)).transpose()?,
        })
    }
}

fn with_reference<P: PreparedPrompt>(
    prompts: Vec<P>,
    reference: Vec<ReferenceLogps>,
) -> Outcome<Vec<WithReference<P>>> {
    let add = |(prompt, logps): (P, ReferenceLogps)| {
        let name = prompt.prompt().name.clone();
        WithReference::new(prompt, logps).ok_or_else(|| unscored(&name))
    };
    prompts.into_iter().zip(reference).map(add).collect()
}

/// Names a prompt with a response that the reference model has not scored.
pub fn unscored(name: &str) -> Failure {
    Failure::run(format!("{name}: a response without a log-probability of the reference model"))
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
    pub prompts: Vec<ReferenceLogps>,
    /// Of the mismatched ones.
    pub mismatched: Option<Vec<ReferenceLogps>>,
}

/// One data set that a task can be made of.
pub struct ReferencedSet<P> {
    /// The prompts.
    pub prompts: Vec<WithReference<P>>,
    /// The prompts with another prompt's responses.
    pub mismatched: Option<Vec<WithReference<P>>>,
}

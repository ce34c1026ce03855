//! Rewards: models that learn them from preferences, and other sources of them.
//!
//! - [`RewardModel`] is a decoder with a scalar head, in the layout of Hugging Face's `*ForSequenceClassification`.
//! - [`bradley_terry`] is its loss, a pure function; [`PreferenceTask`] trains it with [`setpoint_train::fit`].
//! - [`RewardSource`] is what gives a response a number: a model ([`ModelSource`]), a [`Rule`] ([`RuleSource`]), a column of the
//!   file ([`ColumnSource`]), or an implementation of your own.
//! - [`Normalization`] is the mean and standard deviation of a model's rewards, stored with the model.

mod bradley_terry;
mod column;
mod error;
mod model;
mod model_source;
mod normalization;
mod rows;
mod rules;
mod source;
mod task;
#[cfg(test)]
mod testing;

pub use bradley_terry::{BradleyTerry, bradley_terry};
pub use column::ColumnSource;
pub use error::{Error, RuleProblem};
pub use model::{HeadInit, RewardModel, score_rows, value_rows};
pub use model_source::ModelSource;
pub use normalization::Normalization;
pub use rules::{
    ContainsRule, JsonRule, LengthRule, LengthUnit, MathAnswerRule, NumericAnswerRule, Quantifier, RegexRule,
    RepetitionRule, Rule, RuleSource, StartsWithRule, SumRule, TagsRule, Term,
};
pub use source::{RewardSource, Scored};
pub use task::{Preference, PreferenceTask};

//! The examples of tasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::task::Task;

/// The way in which a model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskMode {
    /// The likeliest choice counts; GSM8K, which has none, is generated after few-shot examples.
    #[default]
    Likelihood,
    /// "Let's think step by step", greedy, and the answer is read from the text.
    Cot,
}

/// The right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gold {
    /// The choice of this index.
    Choice(usize),
    /// The choices of these indices, in ascending order: the share of the probability that they have counts.
    Choices(Vec<usize>),
    /// A worked solution that ends in `#### number`.
    Solution(String),
}

/// An example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDoc {
    /// Its number in its file, from 0.
    pub index: usize,
    /// The subject, for MMLU.
    pub subject: Option<String>,
    /// The question as it stands in the data; for SocialIQA the situation before it.
    pub question: String,
    /// The choices; none for GSM8K.
    pub choices: Vec<String>,
    /// The right answer.
    pub gold: Gold,
}

impl TaskDoc {
    /// Names the example among all: `arc_easy/12`, `mmlu/anatomy/3`.
    pub fn id(&self, task: Task) -> String {
        match &self.subject {
            Some(subject) => format!("{}/{subject}/{}", task.name(), self.index),
            None => format!("{}/{}", task.name(), self.index),
        }
    }

    /// Returns whether both ask the same, whatever their place.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.question == other.question && self.choices == other.choices && self.gold == other.gold
    }
}

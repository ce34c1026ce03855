//! Tasks and their examples.

use serde::{Deserialize, Serialize};

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Massive multitask language understanding (Hendrycks et al. 2021): 57 subjects, four choices.
    Mmlu,
    /// Grade-school mathematics (Cobbe et al. 2021): a number.
    Gsm8k,
    /// Science questions of the easy set (Clark et al. 2018).
    ArcEasy,
    /// Science questions of the challenge set.
    ArcChallenge,
    /// Word problems (Amini et al. 2019): five choices.
    Mathqa,
    /// Social situations (Sap et al. 2019): three choices.
    SocialIqa,
}

impl Task {
    /// All of them.
    pub const ALL: [Task; 6] =
        [Task::Mmlu, Task::Gsm8k, Task::ArcEasy, Task::ArcChallenge, Task::Mathqa, Task::SocialIqa];

    /// The name in lm-evaluation-harness.
    pub fn name(self) -> &'static str {
        match self {
            Task::Mmlu => "mmlu",
            Task::Gsm8k => "gsm8k",
            Task::ArcEasy => "arc_easy",
            Task::ArcChallenge => "arc_challenge",
            Task::Mathqa => "mathqa",
            Task::SocialIqa => "social_iqa",
        }
    }

    /// Few-shot examples unless told otherwise, as in the harness.
    pub fn default_shots(self, mode: TaskMode) -> usize {
        match (self, mode) {
            (Task::Gsm8k, TaskMode::Likelihood) => 5,
            _ => 0,
        }
    }

    /// Whether `acc_norm` is reported beside `acc`.
    pub fn has_normalized_accuracy(self) -> bool {
        matches!(self, Task::ArcEasy | Task::ArcChallenge | Task::Mathqa)
    }
}

/// How a model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskMode {
    /// The likeliest choice counts; GSM8K, which has none, is generated after few-shot examples.
    #[default]
    Likelihood,
    /// "Let's think step by step", greedy, and the answer is read from the text.
    Cot,
}

/// What is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gold {
    /// The choice of this index.
    Choice(usize),
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
    /// What is right.
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

    /// Whether both ask the same, wherever they stand.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.question == other.question && self.choices == other.choices && self.gold == other.gold
    }
}

//! The task benchmarks MMLU, GSM8K, ARC-Easy, ARC-Challenge, MathQA and SocialIQA, as lm-evaluation-harness (0.4) asks and grades them.
//!
//! Nothing here runs a model: [`TaskSet::read`] and [`TaskSet::read_published`] read the examples, [`TaskSet::requests`] says what to ask, [`grade_choice`] and
//! [`grade_text`] say whether the outcome is right, and [`TaskScore::of`] sums up.

mod doc;
mod extract;
mod grade;
mod prompt;
mod published;
mod read;
mod rows;

pub use doc::{Gold, Task, TaskDoc, TaskMode};
pub use extract::{Extracted, extract_answer};
pub use grade::{ChoiceGrade, MeanScore, TaskScore, TextGrade, grade_choice, grade_text, pooled_mean};
pub use prompt::{TaskRequest, cut_at_stop};
pub use read::TaskSet;

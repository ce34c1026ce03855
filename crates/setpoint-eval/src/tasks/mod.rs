//! The task benchmarks, such as MMLU and GSM8K, as lm-evaluation-harness (0.4) asks and grades them.
//!
//! Each task is a file with a [`Definition`](definition::Definition) and a line in the list below. Names in settings, reading,
//! prompts, grades, the help of `setpoint eval tasks` and the table of docs/EVALUATION.md follow from the list.
//!
//! Nothing here runs a model: [`TaskSet::read`] and [`TaskSet::read_published`] read the examples, [`TaskSet::requests`] says what to ask, [`grade_choice`],
//! [`grade_mass`] and [`grade_text`] say how right the outcome is, and [`TaskScore::of`] sums up.

mod definition;
mod doc;
mod extract;
mod grade;
mod prompt;
mod published;
mod read;
mod task;

use self::definition::Definition;
pub use self::doc::{Gold, TaskDoc, TaskMode};
pub use self::extract::{Extracted, extract_answer};
pub use self::grade::{
    ChoiceGrade, MeanScore, TaskScore, TextGrade, grade_choice, grade_mass, grade_text, pooled_mean,
};
pub use self::prompt::{TaskRequest, cut_at_stop};
pub use self::read::{TaskSet, question_of};
pub use self::task::Task;

/// Declares the files of the tasks and lists their definitions.
macro_rules! tasks {
    ($($file:ident: $($task:ident),+;)*) => {
        $(mod $file;)*

        /// Every task, in the order of results and docs.
        const TASKS: &[&dyn Definition] = &[$($(&$file::$task,)+)*];
    };
}

tasks! {
    mmlu: Mmlu;
    gsm8k: Gsm8k;
    arc: EASY, CHALLENGE;
    mathqa: Mathqa;
    social_iqa: SocialIqa;
    hellaswag: HellaSwag;
    winogrande: WinoGrande;
    truthfulqa: MC1, MC2;
}

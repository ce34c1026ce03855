//! GSM8K: grade-school mathematics (Cobbe et al. 2021).

use std::sync::LazyLock;

use regex::Regex;
use setpoint_data::Row;

use super::definition::{Definition, Files, Parsed, Published, text};
use super::doc::{Gold, TaskDoc, TaskMode};
use super::extract::{Extracted, first_match, last_match};

pub(super) struct Gsm8k;

impl Definition for Gsm8k {
    fn name(&self) -> &'static str {
        "gsm8k"
    }

    fn title(&self) -> &'static str {
        "GSM8K"
    }

    fn about(&self) -> &'static str {
        "grade-school mathematics, a number (Cobbe et al. 2021)"
    }

    fn by_default(&self) -> bool {
        true
    }

    fn published(&self) -> Published {
        Published { id: "openai/gsm8k", folders: &["gsm8k"], subset: Some("main"), split: "test", shots: "train" }
    }

    fn files(&self) -> Files {
        Files::Split { stem: "gsm8k", split: "test" }
    }

    fn columns(&self) -> &'static [&'static str] {
        &["question", "answer"]
    }

    fn parse(&self, row: &Row) -> Result<Option<Parsed>, String> {
        let answer = text(row, "answer")?;
        if !answer.contains("#### ") {
            return Err("expected `answer` to end in `#### number`".to_owned());
        }
        let (question, gold) = (text(row, "question")?.to_owned(), Gold::Solution(answer.to_owned()));
        Ok(Some(Parsed { question, choices: Vec::new(), gold }))
    }

    fn default_shots(&self, mode: TaskMode) -> usize {
        match mode {
            TaskMode::Likelihood => 5,
            TaskMode::Cot => 0,
        }
    }

    fn ask_step_by_step(&self, doc: &TaskDoc) -> String {
        format!("Q: {}\nA: Let's think step by step.", doc.question)
    }

    /// The filters of `gsm8k` and of `gsm8k_cot_zeroshot`.
    fn extract(&self, mode: TaskMode, _choices: &[String], text: &str) -> Extracted {
        static MARKED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"#### (-?[0-9.,]+)").ok());
        static ANNOUNCED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"The answer is (-?[0-9.,]+).").ok());
        static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"-?[$0-9.,]{2,}|-?[0-9]+").ok());
        let strict = match mode {
            TaskMode::Likelihood => &MARKED,
            TaskMode::Cot => &ANNOUNCED,
        };
        Extracted { strict: first_match(strict, text), flexible: last_match(&NUMBER, text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marked_or_the_last_number_counts() {
        let found = |mode, text| {
            let Extracted { strict, flexible } = Gsm8k.extract(mode, &[], text);
            (strict, flexible)
        };
        let some = |strict: &str, flexible: &str| (Some(strict.to_owned()), Some(flexible.to_owned()));
        let (few, cot) = (TaskMode::Likelihood, TaskMode::Cot);
        assert_eq!(found(few, "2+2=4\n#### 1,204\nand 7"), some("1,204", "7"));
        assert_eq!(found(few, "It costs $18.50."), (None, Some("$18.50.".into())));
        assert_eq!(found(cot, "So 3. The answer is -12."), some("-12", "-12."));
        assert_eq!(found(cot, "none"), (None, None));
    }
}

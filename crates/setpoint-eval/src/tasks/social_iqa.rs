//! SocialIQA: social situations with three choices (Sap et al. 2019).

use setpoint_data::Row;

use super::definition::{Definition, Files, Parsed, Published, position, text, texts};
use super::doc::{Gold, TaskDoc};

pub(super) struct SocialIqa;

impl Definition for SocialIqa {
    fn name(&self) -> &'static str {
        "social_iqa"
    }

    fn title(&self) -> &'static str {
        "SocialIQA"
    }

    fn about(&self) -> &'static str {
        "social situations, three choices (Sap et al. 2019)"
    }

    fn by_default(&self) -> bool {
        true
    }

    fn published(&self) -> Published {
        // A copy as Parquet of allenai/social_i_qa, which is a script.
        Published {
            id: "lighteval/siqa",
            folders: &["social_i_qa", "siqa"],
            subset: None,
            split: "validation",
            shots: "train",
        }
    }

    fn files(&self) -> Files {
        Files::Split { stem: "socialiqa", split: "dev" }
    }

    fn columns(&self) -> &'static [&'static str] {
        &["context", "question", "answerA", "answerB", "answerC", "label"]
    }

    fn is_rewrapped(&self, row: &Row) -> bool {
        row.contains_key("instruction") || row.contains_key("options")
    }

    /// `context`, `question`, and `answerA` … with `label` from 1 as published, or `options` with the right one in `answer`.
    fn parse(&self, row: &Row) -> Result<Option<Parsed>, String> {
        let question = format!("{} {}", text(row, "context")?, text(row, "question")?);
        if row.contains_key("options") {
            let choices = texts(row.get("options"), "options")?;
            let gold = position(&choices, text(row, "answer")?)?;
            return Ok(Some(Parsed { question, choices, gold: Gold::Choice(gold) }));
        }
        let choices: Vec<String> = ["answerA", "answerB", "answerC"]
            .iter()
            .map(|k| text(row, k).map(str::to_owned))
            .collect::<Result<_, _>>()?;
        match text(row, "label")?.trim() {
            label @ ("1" | "2" | "3") => {
                let gold = Gold::Choice(usize::from(label.as_bytes()[0] - b'1'));
                Ok(Some(Parsed { question, choices, gold }))
            }
            other => Err(format!("expected `label` to be 1, 2 or 3, found {other}")),
        }
    }

    fn ask(&self, doc: &TaskDoc) -> String {
        format!("Q: {}\nA:", doc.question)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: serde_json::Value) -> Row {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn published_and_re_wrapped_rows_are_the_same_example() {
        let published = row(
            json!({"context": "A met B.", "question": "Why?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"}),
        );
        let wrapped =
            row(json!({"context": "A met B.", "question": "Why?", "options": ["x", "y", "z"], "answer": "z"}));
        assert_eq!(SocialIqa.parse(&published), SocialIqa.parse(&wrapped));
    }
}

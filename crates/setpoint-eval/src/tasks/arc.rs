//! ARC: science questions, an easy set and a challenge set (Clark et al. 2018).

use setpoint_data::Row;

use super::definition::{Definition, Files, Parsed, Published, position, text, texts};
use super::doc::Gold;

/// One of the two sets.
pub(super) struct Arc {
    name: &'static str,
    about: &'static str,
    /// Its subset on the hub, and the beginning of its files' names.
    set: &'static str,
}

pub(super) const EASY: Arc =
    Arc { name: "arc_easy", about: "science questions of the easy set (Clark et al. 2018)", set: "ARC-Easy" };
pub(super) const CHALLENGE: Arc = Arc {
    name: "arc_challenge",
    about: "science questions of the challenge set (Clark et al. 2018)",
    set: "ARC-Challenge",
};

impl Definition for Arc {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        "ARC"
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn by_default(&self) -> bool {
        true
    }

    fn published(&self) -> Published {
        Published {
            id: "allenai/ai2_arc",
            folders: &["ai2_arc"],
            subset: Some(self.set),
            split: "test",
            shots: "train",
        }
    }

    fn files(&self) -> Files {
        Files::Split { stem: self.set, split: "test" }
    }

    fn columns(&self) -> &'static [&'static str] {
        &["question", "choices", "answerKey"]
    }

    /// As published: `question`, `choices.text`, `choices.label`, `answerKey`. Re-wrapped: one text in `instruction`, `answer3` in `answer`.
    fn parse(&self, row: &Row) -> Result<Option<Parsed>, String> {
        if let Some(choices) = row.get("choices") {
            let options = texts(choices.get("text"), "choices.text")?;
            let labels = texts(choices.get("label"), "choices.label")?;
            if labels.len() != options.len() {
                let (labels, options) = (labels.len(), options.len());
                return Err(format!("expected a label for each choice, found {labels} labels and {options} choices"));
            }
            let at = position(&labels, text(row, "answerKey")?)?;
            return Ok(Some(Parsed {
                question: text(row, "question")?.to_owned(),
                choices: options,
                gold: Gold::Choice(at),
            }));
        }
        let wrapped = text(row, "instruction")?;
        let expected = || "expected `question: …`, then `Answer1: … Answer2: …`, then `Answer format: …`".to_owned();
        let (_, rest) = wrapped.split_once("the correct answer to the question: ").ok_or_else(expected)?;
        let (question, rest) = rest.rsplit_once("\n\nAnswer1: ").ok_or_else(expected)?;
        let (mut rest, format) = rest.rsplit_once("\n\nAnswer format: ").ok_or_else(expected)?;
        let mut choices = Vec::new();
        for number in 2..=format.split('/').count() {
            let (choice, after) = rest.split_once(&format!(" Answer{number}: ")).ok_or_else(expected)?;
            choices.push(choice.to_owned());
            rest = after;
        }
        choices.push(rest.to_owned());
        let number = text(row, "answer")?.strip_prefix("answer").and_then(|n| n.parse::<usize>().ok());
        match number.filter(|n| (1..=choices.len()).contains(n)) {
            Some(number) => Ok(Some(Parsed { question: question.to_owned(), choices, gold: Gold::Choice(number - 1) })),
            None => Err(format!("expected `answer` to be answer1 to answer{}", choices.len())),
        }
    }

    fn has_normalized_accuracy(&self) -> bool {
        true
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
            json!({"question": "Why: so?", "choices": {"text": ["one", "two."], "label": ["A", "B"]}, "answerKey": "B"}),
        );
        let wrapped = row(json!({
            "instruction": "Please choose the correct answer to the question: Why: so?\n\nAnswer1: one Answer2: two.\n\nAnswer format: answer1/answer2",
            "answer": "answer2"
        }));
        assert_eq!(EASY.parse(&published), EASY.parse(&wrapped));
        assert_eq!(EASY.parse(&wrapped).unwrap().unwrap().gold, Gold::Choice(1));
        assert!(EASY.parse(&row(json!({"instruction": "?", "answer": "answer1"}))).is_err());
    }

    #[test]
    fn each_choice_has_a_label() {
        // Otherwise the right answer could be a choice that does not exist, and no model would be right.
        for (choices, labels) in
            [(&["a", "b"][..], &["A", "B", "C"][..]), (&["a", "b", "c"], &["A", "B"]), (&[], &["A"])]
        {
            let last = labels[labels.len() - 1];
            let found = json!({"question": "?", "choices": {"text": choices, "label": labels}, "answerKey": last});
            let said = EASY.parse(&row(found)).unwrap_err();
            let expected = format!("found {} labels and {} choices", labels.len(), choices.len());
            assert!(said.contains(&expected), "{said}");
        }
    }
}

//! WinoGrande: which of two names fills a blank (Sakaguchi et al. 2019).

use setpoint_data::Row;

use super::definition::{Definition, Files, Parsed, Published, text};
use super::doc::{Gold, TaskDoc};

pub(super) struct WinoGrande;

/// The blank of a sentence. If there are several, the first counts.
const BLANK: char = '_';

impl Definition for WinoGrande {
    fn name(&self) -> &'static str {
        "winogrande"
    }

    fn title(&self) -> &'static str {
        "WinoGrande"
    }

    fn about(&self) -> &'static str {
        "a blank in a sentence, two options (Sakaguchi et al. 2019)"
    }

    fn published(&self) -> Published {
        Published {
            id: "allenai/winogrande",
            folders: &["winogrande"],
            subset: Some("winogrande_xl"),
            // The answers of the test split are not published.
            split: "validation",
            shots: "train",
        }
    }

    fn files(&self) -> Files {
        Files::Split { stem: "winogrande", split: "val" }
    }

    fn columns(&self) -> &'static [&'static str] {
        &["sentence", "option1", "option2", "answer"]
    }

    fn parse(&self, row: &Row) -> Result<Option<Parsed>, String> {
        let question = text(row, "sentence")?.to_owned();
        if !question.contains(BLANK) {
            return Err("expected a blank, `_`, in `sentence`".to_owned());
        }
        let choices = vec![text(row, "option1")?.to_owned(), text(row, "option2")?.to_owned()];
        let gold = match text(row, "answer")?.trim() {
            "" => return Ok(None),
            "1" => Gold::Choice(0),
            "2" => Gold::Choice(1),
            other => return Err(format!("expected `answer` to be 1 or 2, found {other}")),
        };
        Ok(Some(Parsed { question, choices, gold }))
    }

    /// The beginning of a few-shot example, up to its right option.
    fn ask(&self, doc: &TaskDoc) -> String {
        match &doc.gold {
            Gold::Choice(index) => filled(doc, &doc.choices[*index]),
            Gold::Choices(_) | Gold::Solution(_) => doc.question.clone(),
        }
    }

    /// Partial evaluation (Trinh and Le 2018): the options end the contexts, and the rest of the sentence is scored behind
    /// each.
    fn contexts(&self, doc: &TaskDoc) -> Option<Vec<String>> {
        Some(doc.choices.iter().map(|option| filled(doc, option)).collect())
    }

    fn target(&self, doc: &TaskDoc, _index: usize) -> String {
        doc.question.split_once(BLANK).map_or("", |(_, rest)| rest).trim().to_owned()
    }
}

/// Returns the sentence up to its blank, with an option in it.
fn filled(doc: &TaskDoc, option: &str) -> String {
    let before = doc.question.split_once(BLANK).map_or(doc.question.as_str(), |(before, _)| before);
    format!("{before}{option}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::read::TaskSet;
    use super::super::task::Task;
    use super::*;

    fn row(sentence: &str, answer: &str) -> Row {
        let row = json!({"sentence": sentence, "option1": "Ann", "option2": "Bo", "answer": answer});
        row.as_object().unwrap().clone()
    }

    #[test]
    fn the_rest_of_the_sentence_follows_each_option() {
        let Parsed { question, choices, gold } = WinoGrande.parse(&row("So  _ left, not_me. ", "2")).unwrap().unwrap();
        let doc = TaskDoc { index: 0, subject: None, question, choices, gold };
        assert_eq!(WinoGrande.contexts(&doc).unwrap(), ["So  Ann", "So  Bo"]);
        assert_eq!((WinoGrande.ask(&doc).as_str(), WinoGrande.target(&doc, 0).as_str()), ("So  Bo", "left, not_me."));
    }

    #[test]
    fn a_file_without_answers_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let read = |rows: &[Row]| {
            let lines: String = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
            std::fs::write(dir.path().join("winogrande_val.jsonl"), lines).unwrap();
            TaskSet::read(Task::named("winogrande").unwrap(), dir.path(), false)
        };
        let message = read(&[row("_ left.", ""), row("_ ran.", "")]).unwrap_err().to_string();
        assert!(message.contains("winogrande_val.jsonl: no row tells which choice is right"), "{message}");
        let set = read(&[row("_ left.", ""), row("_ ran.", "1")]).unwrap();
        assert_eq!((set.docs.len(), set.undecided), (1, 1));
    }

    #[test]
    fn rows_need_a_blank_and_an_answer() {
        assert_eq!(WinoGrande.parse(&row("_ left.", "")), Ok(None), "the test split");
        assert_eq!(WinoGrande.parse(&row("Ann left.", "1")).unwrap_err(), "expected a blank, `_`, in `sentence`");
        assert_eq!(WinoGrande.parse(&row("_ left.", "3")).unwrap_err(), "expected `answer` to be 1 or 2, found 3");
    }
}

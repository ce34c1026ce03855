//! HellaSwag: which of four endings continues a text (Zellers et al. 2019).

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;
use setpoint_data::Row;

use super::definition::{Definition, Files, Parsed, Published, text, texts};
use super::doc::{Gold, TaskDoc};

pub(super) struct HellaSwag;

impl Definition for HellaSwag {
    fn name(&self) -> &'static str {
        "hellaswag"
    }

    fn title(&self) -> &'static str {
        "HellaSwag"
    }

    fn about(&self) -> &'static str {
        "how a text goes on, four endings (Zellers et al. 2019)"
    }

    fn published(&self) -> Published {
        Published {
            id: "Rowan/hellaswag",
            folders: &["hellaswag"],
            subset: None,
            // The labels of the test split are not published.
            split: "validation",
            shots: "train",
        }
    }

    fn files(&self) -> Files {
        Files::Split { stem: "hellaswag", split: "val" }
    }

    fn columns(&self) -> &'static [&'static str] {
        &["activity_label", "ctx_a", "ctx_b", "endings", "label"]
    }

    /// The hub's `label` is a text, that of the authors' own file a number; the test split's is empty.
    fn parse(&self, row: &Row) -> Result<Option<Parsed>, String> {
        let context = format!("{} {}", text(row, "ctx_a")?, capitalized(text(row, "ctx_b")?));
        let question = cleaned(&format!("{}: {context}", text(row, "activity_label")?));
        let choices: Vec<String> = texts(row.get("endings"), "endings")?.iter().map(|ending| cleaned(ending)).collect();
        let label = row.get("label").unwrap_or(&Value::Null);
        let index = match label {
            Value::String(label) if label.trim().is_empty() => return Ok(None),
            Value::String(label) => label.trim().parse().ok(),
            label => label.as_u64().and_then(|label| usize::try_from(label).ok()),
        };
        let index = index.filter(|index| *index < choices.len());
        let index = index.ok_or_else(|| {
            format!("expected `label` to be the index of one of the {} `endings`, found {label}", choices.len())
        })?;
        Ok(Some(Parsed { question, choices, gold: Gold::Choice(index) }))
    }

    fn ask(&self, doc: &TaskDoc) -> String {
        doc.question.clone()
    }

    fn has_normalized_accuracy(&self) -> bool {
        true
    }
}

/// Removes what WikiHow's pages leave in a text: the harness's `preprocess`.
fn cleaned(text: &str) -> String {
    static BRACKETS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[.*?\]").ok());
    let text = text.trim().replace(" [title]", ". ");
    let text = BRACKETS.as_ref().map_or_else(|| text.clone(), |regex| regex.replace_all(&text, "").into_owned());
    text.replace("  ", " ")
}

/// Returns a text with a capital first letter and small ones behind it, as Python's `str.capitalize` does.
fn capitalized(text: &str) -> String {
    let Some(first) = text.chars().next() else { return String::new() };
    // `ß` becomes `Ss`: of several capitals only the first stays one.
    let mut capitals = first.to_uppercase();
    let first_capital: String = capitals.next().into_iter().chain(capitals.flat_map(char::to_lowercase)).collect();
    // The whole text is made small, because the form of a sigma depends on the letter before it.
    let small = text.to_lowercase();
    let skipped: usize = first.to_lowercase().map(char::len_utf8).sum();
    format!("{first_capital}{}", &small[skipped..])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(ctx_b: &str, label: &Value) -> Row {
        let row = json!({
            "ind": 4, "activity_label": "Food and Entertaining", "ctx_a": "[header] How to eat [title] Sit  down. [step] Wait.",
            "ctx_b": ctx_b, "ctx": "", "endings": [" [substeps] Eat.", "Go [title] Home", "c", "d"], "label": label
        });
        row.as_object().unwrap().clone()
    }

    #[test]
    fn texts_are_cleaned() {
        let parsed = HellaSwag.parse(&row("the Dog", &json!("1"))).unwrap().unwrap();
        assert_eq!(parsed.question, "Food and Entertaining: How to eat. Sit down. Wait. The dog");
        // As in the harness, a space that a bracket leaves at the beginning stays.
        assert_eq!(parsed.choices, [" Eat.", "Go. Home", "c", "d"]);
        assert_eq!(parsed.gold, Gold::Choice(1));
        let parsed = HellaSwag.parse(&row("", &json!(3))).unwrap().unwrap();
        assert_eq!(
            (parsed.question.as_str(), parsed.gold),
            ("Food and Entertaining: How to eat. Sit down. Wait.", Gold::Choice(3))
        );
    }

    #[test]
    fn letters_become_capital_and_small_as_in_python() {
        for (text, expected) in
            [("", ""), ("aBC d", "Abc d"), ("ÉA", "Éa"), ("ßA", "Ssa"), ("ΑΣ", "Ας"), ("1A", "1a"), ("İI", "İi")]
        {
            assert_eq!(capitalized(text), expected);
        }
    }

    #[test]
    fn labels_are_indices() {
        assert_eq!(HellaSwag.parse(&row("b", &json!(""))), Ok(None), "the test split");
        for label in [json!("4"), json!(4), json!(-1), json!("x"), Value::Null] {
            let message = HellaSwag.parse(&row("b", &label)).unwrap_err();
            assert_eq!(message, format!("expected `label` to be the index of one of the 4 `endings`, found {label}"));
        }
    }
}

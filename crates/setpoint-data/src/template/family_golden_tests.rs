//! The templates of the model families, rendered, against transformers' `apply_chat_template`. The templates are part of the repository.

use std::path::Path;

use chrono::NaiveDateTime;
use serde_json::Value;

use super::golden_tests::{read_json, variables};
use super::{ChatTemplate, TemplateError};

/// Compares every row of a family; returns how many rows were rendered and how many were refused by both.
fn compare(name: &str) -> (usize, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/family_templates");
    let expected = read_json(folder.join(format!("{name}.json")));
    let conversations = read_json(folder.join("conversations.json"));
    let now: NaiveDateTime = expected["strftime_now"].as_str().unwrap().parse().unwrap();
    let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
    let template = ChatTemplate::with_clock(name, source, now).unwrap();
    let (mut rendered, mut refused) = (0, 0);
    let mut differing = Vec::new();
    for row in expected["rows"].as_array().unwrap() {
        let key = row["conversation"].as_str().unwrap();
        let conversation = &conversations[key];
        let messages = conversation["messages"].as_array().unwrap();
        let prompt = row["add_generation_prompt"].as_bool().unwrap();
        let ours = template.render_json(messages, prompt, &variables(&expected, conversation));
        let same = match (row.get("text").and_then(Value::as_str), &ours) {
            (Some(text), Ok(ours)) => {
                rendered += 1;
                text == ours
            }
            (None, Err(error)) => {
                refused += 1;
                let raised = || TemplateError::Raised(row["error"].as_str().unwrap().into());
                row["error_type"] != "TemplateError" || *error == raised()
            }
            _ => false,
        };
        if !same {
            differing.push(format!("{key}, add_generation_prompt {prompt}\n  expected {row}\n  found    {ours:?}"));
        }
    }
    assert!(differing.is_empty(), "{name}: {} differ:\n{}", differing.len(), differing.join("\n"));
    (rendered, refused)
}

macro_rules! family_tests {
    ($($name:ident: $refused:literal),*) => {$(
        #[test]
        fn $name() {
            assert_eq!(compare(stringify!($name)), (118 - $refused, $refused));
        }
    )*};
}

family_tests!(
    qwen3: 4, smollm3: 4, granite3_3: 16, phi3_5: 16, phi4_mini: 16, gemma3: 22, olmo2: 16, mistral_nemo: 28, ministral3: 18
);

//! Every template of the test data, rendered and tokenised, against transformers' `apply_chat_template`.

use std::path::{Path, PathBuf};

use chrono::NaiveDateTime;
use serde_json::Value;

use super::{ChatTemplate, TemplateError, TemplateVariables};
use crate::encode::{EncoderOptions, TextEncoder};
use crate::test_data::test_data;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/templates")
}

pub(super) fn read_json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

fn source(data: &Path, name: &str) -> String {
    if name == "tinyllama" {
        let config = read_json(data.join("tokenizers/tinyllama/tokenizer_config.json"));
        return config["chat_template"].as_str().unwrap().to_owned();
    }
    std::fs::read_to_string(data.join("chat_templates").join(format!("{name}.jinja"))).unwrap()
}

pub(super) fn variables(golden: &Value, conversation: &Value) -> TemplateVariables {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    TemplateVariables {
        special_tokens: golden["special_tokens"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), text(v)))
            .collect(),
        tools: conversation.get("tools").cloned(),
        extra: conversation.get("kwargs").and_then(Value::as_object).cloned().unwrap_or_default(),
    }
}

/// Compares a template with its golden file; returns how many rows rendered and how many were refused.
fn compare(data: &Path, name: &str) -> (usize, usize) {
    let expected = read_json(golden().join(format!("{name}.json")));
    let conversations = read_json(golden().join("conversations.json"));
    let now: NaiveDateTime = expected["strftime_now"].as_str().unwrap().parse().unwrap();
    let template = ChatTemplate::with_clock(name, source(data, name), now).unwrap();
    let own = data.join("tokenizers").join(if name.starts_with("llama3") { "llama3" } else { name });
    let encoder = own.is_dir().then(|| TextEncoder::from_dir(&own, &EncoderOptions::default()).unwrap());
    let (mut rendered, mut refused) = (0, 0);
    for row in expected["rows"].as_array().unwrap() {
        let key = row["conversation"].as_str().unwrap();
        let conversation = &conversations[key];
        let messages = conversation["messages"].as_array().unwrap();
        let prompt = row["add_generation_prompt"].as_bool().unwrap();
        let ours = template.render_json(messages, prompt, &variables(&expected, conversation));
        let place = format!("{name}, {key}, add_generation_prompt {prompt}");
        match row.get("text").and_then(Value::as_str) {
            Some(text) => {
                assert_eq!(ours.as_deref(), Ok(text), "{place}");
                rendered += 1;
            }
            None => {
                let error = ours.expect_err(&place);
                if row["error_type"] == "TemplateError" {
                    assert_eq!(error, TemplateError::Raised(row["error"].as_str().unwrap().into()), "{place}");
                }
                refused += 1;
            }
        }
        if let Some(ids) = row.get("ids").and_then(Value::as_array) {
            let ids: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let ours = encoder.as_ref().unwrap().encode_text(row["text"].as_str().unwrap()).unwrap();
            assert_eq!(ours, ids, "{place}");
        }
    }
    (rendered, refused)
}

macro_rules! template_tests {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            let Some(data) = test_data("chat_templates") else { return };
            let (rendered, _) = compare(data.parent().unwrap(), stringify!($name));
            assert!(rendered >= 20, "{rendered} rows rendered");
        }
    )*};
}

template_tests!(llama3, llama3_1, llama3_2, qwen2_5, qwen3_instruct_2507, gemma, phi3, tinyllama);

//! What templates do, one thing at a time, against transformers' Jinja environment.

use std::path::Path;

use serde_json::Value;

use super::golden_tests::read_json;
use super::{ChatTemplate, TemplateVariables};

#[test]
fn small_templates_render_as_in_transformers() {
    let golden = read_json(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/jinja.json"));
    let variables =
        TemplateVariables { extra: golden["variables"].as_object().unwrap().clone(), ..TemplateVariables::default() };
    let messages = golden["messages"].as_array().unwrap();
    let mut differing = Vec::new();
    for row in golden["rows"].as_array().unwrap() {
        let source = row["template"].as_str().unwrap();
        let rendered = ChatTemplate::new("test", source)
            .map_err(|e| e.to_string())
            .and_then(|t| t.render_json(messages, true, &variables).map_err(|e| e.to_string()));
        let same = match (row.get("text").and_then(Value::as_str), &rendered) {
            (Some(expected), Ok(text)) => expected == text,
            (None, Err(_)) => true,
            _ => false,
        };
        if !same {
            differing.push(format!(
                "{source:?}\n  expected {:?}\n  found    {rendered:?}",
                row.get("text").unwrap_or(&row["error"])
            ));
        }
    }
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
}

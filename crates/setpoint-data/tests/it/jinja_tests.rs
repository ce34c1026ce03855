//! Every test and filter of jinja2 on every kind of value, against transformers' environment.

use std::path::Path;

use serde_json::{Map, Value};
use setpoint_data::{ChatTemplate, Message, TemplateVariables};

use crate::common::read_json;

/// Expressions whose results differ, for one of the values or for all (`*`), with the reason.
const DIFFERENT: [(&str, &str, &str); 5] = [
    ("x | urlize", "*", "links have no place in a prompt: always an error"),
    ("x | urlize(10)", "*", "links have no place in a prompt: always an error"),
    ("x | urlize(nofollow=true,target='_blank')", "*", "links have no place in a prompt: always an error"),
    ("x | pprint", "long", "a value of more than 80 characters is not broken into lines"),
    ("x | pprint", "rows", "a value of more than 80 characters is not broken into lines"),
];

fn render(expression: &str, x: Option<&Value>) -> Result<String, String> {
    let template = ChatTemplate::new("t", format!("{{{{ [{expression}] }}}}")).map_err(|e| e.to_string())?;
    let extra: Map<String, Value> = x.map(|x| ("x".to_owned(), x.clone())).into_iter().collect();
    let variables = TemplateVariables { extra, ..TemplateVariables::default() };
    template.render(&[Message::user("hi")], false, &variables).map_err(|e| e.to_string())
}

#[test]
fn tests_and_filters_give_jinja2s_results() {
    let golden = read_json(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/jinja_tests.json"));
    let names: Vec<&str> = golden["names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let (mut differing, mut compared) = (Vec::new(), 0);
    for row in golden["rows"].as_array().unwrap() {
        let expression = row["expression"].as_str().unwrap();
        for (name, expected) in names.iter().zip(row["results"].as_array().unwrap()) {
            let found = render(expression, golden["values"].get(*name));
            let known = |(e, v, _): &(&str, &str, &str)| *e == expression && (*v == "*" || v == name);
            if DIFFERENT.iter().any(known) {
                continue;
            }
            compared += 1;
            if expected.as_str() != found.as_deref().ok() {
                differing.push(format!("{expression} with {name}\n  expected {expected}\n  found    {found:?}"));
            }
        }
    }
    assert!(compared > 15_000, "{compared}");
    assert!(differing.is_empty(), "{} of {compared} differ:\n{}", differing.len(), differing.join("\n"));
}

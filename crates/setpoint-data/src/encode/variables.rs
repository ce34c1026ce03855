//! What a row gives its template besides the messages: tools and arguments.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::TextEncoder;
use crate::error::EncodeProblem;
use crate::record::Record;
use crate::template::{ChatTemplate, OWN_VARIABLES, TemplateVariables};

const TOOLS: &str = "a list of objects, one JSON schema for each tool";

impl TextEncoder {
    /// The template of a conversation: with tools it may be another one.
    pub(super) fn template_for(&self, variables: &TemplateVariables) -> Result<&ChatTemplate, EncodeProblem> {
        let for_tools = self.tool_template.as_ref().filter(|_| variables.tools.is_some());
        for_tools.or(self.template.as_ref()).ok_or_else(|| match self.template_names.as_slice() {
            [] => EncodeProblem::NoTemplate { fitting: self.fitting_templates() },
            names => EncodeProblem::NoDefaultTemplate { names: names.join(", ") },
        })
    }

    /// The template's variables for a record, with its own tools and arguments.
    ///
    /// # Errors
    /// [`EncodeProblem::BadColumn`] when tools or arguments are not what a template can use.
    pub(crate) fn variables_of(&self, record: &Record) -> Result<Cow<'_, TemplateVariables>, EncodeProblem> {
        let tools = tools(record.extra.get("tools"))?;
        let kwargs = kwargs(record.extra.get("chat_template_kwargs"))?;
        if tools.is_none() && kwargs.is_none() {
            return Ok(Cow::Borrowed(&self.variables));
        }
        let mut variables = self.variables.clone();
        variables.tools = tools;
        variables.extra.extend(kwargs.into_iter().flatten());
        Ok(Cow::Owned(variables))
    }
}

/// The tools of a row: a list, or the list as JSON text. None, an empty list and an empty text mean that there are none.
///
/// # Errors
/// [`EncodeProblem::BadColumn`] when it is anything else.
fn tools(value: Option<&Value>) -> Result<Option<Value>, EncodeProblem> {
    let Some(value) = value else { return Ok(None) };
    let Some(value) = parsed("tools", value, TOOLS)? else { return Ok(None) };
    let Value::Array(items) = value else { return Err(bad("tools", TOOLS, kind(&value))) };
    let mut tools = Vec::with_capacity(items.len());
    for (i, item) in items.into_iter().enumerate() {
        let column = format!("tools[{i}]");
        match parsed(&column, &item, "an object")? {
            Some(tool @ Value::Object(_)) => tools.push(tool),
            other => return Err(bad(&column, "an object", other.as_ref().map_or("nothing".into(), kind))),
        }
    }
    Ok(if tools.is_empty() { None } else { Some(Value::Array(tools)) })
}

/// The variables that a row sets, also as JSON text.
///
/// # Errors
/// [`EncodeProblem::BadColumn`] when they are no object, or one of them is not the row's to set.
fn kwargs(value: Option<&Value>) -> Result<Option<Map<String, Value>>, EncodeProblem> {
    const KWARGS: &str = "an object with the template's variables";
    let Some(value) = value else { return Ok(None) };
    match parsed("chat_template_kwargs", value, KWARGS)? {
        None => Ok(None),
        Some(Value::Object(fields)) if fields.is_empty() => Ok(None),
        Some(Value::Object(fields)) => match OWN_VARIABLES.iter().find(|name| fields.contains_key(**name)) {
            Some(name) => Err(bad("chat_template_kwargs", KWARGS, format!("`{name}`, which the conversation gives"))),
            None => Ok(Some(fields)),
        },
        Some(other) => Err(bad("chat_template_kwargs", KWARGS, kind(&other))),
    }
}

/// A value, or the one that a JSON text holds; `None` for null and for an empty text.
fn parsed(column: &str, value: &Value, expected: &'static str) -> Result<Option<Value>, EncodeProblem> {
    let parsed = match value {
        Value::String(text) if text.trim().is_empty() => Value::Null,
        Value::String(text) => serde_json::from_str(text).map_err(|_| {
            let start: String = text.chars().take(40).collect();
            bad(column, expected, format!("text that is not JSON, {start:?}"))
        })?,
        other => other.clone(),
    };
    Ok(Some(parsed).filter(|v| !v.is_null()))
}

fn bad(column: &str, expected: &'static str, found: String) -> EncodeProblem {
    EncodeProblem::BadColumn { column: column.to_owned(), expected, found }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
    .into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_means_no_tools() {
        for empty in [json!(null), json!(""), json!("  "), json!("[]"), json!("null"), json!([])] {
            assert_eq!(tools(Some(&empty)).unwrap(), None, "{empty}");
        }
        assert_eq!(tools(None).unwrap(), None);
    }

    #[test]
    fn tools_as_text_are_parsed() {
        let list = json!([{"type": "function", "function": {"name": "add"}}]);
        let item = list[0].to_string();
        for same in [list.clone(), json!(list.to_string()), json!([item])] {
            assert_eq!(tools(Some(&same)).unwrap(), Some(list.clone()), "{same}");
        }
    }

    #[test]
    fn anything_else_names_its_column() {
        for (wrong, column) in [
            (json!("add(a, b): adds"), "`tools`"),
            (json!({"name": "add"}), "`tools`"),
            (json!("{\"name\": \"add\"}"), "`tools`"),
            (json!(3), "`tools`"),
            (json!("3"), "`tools`"),
            (json!(["add(a, b)"]), "`tools[0]`"),
            (json!([{"name": "add"}, 7]), "`tools[1]`"),
            (json!([{"name": "add"}, null]), "`tools[1]`"),
        ] {
            let error = tools(Some(&wrong)).unwrap_err().to_string();
            assert!(error.contains(column), "{wrong}: {error}");
        }
        assert!(kwargs(Some(&json!("on"))).unwrap_err().to_string().contains("`chat_template_kwargs`"));
        assert_eq!(kwargs(Some(&json!("{\"a\": 1}"))).unwrap().unwrap()["a"], 1);
        for name in OWN_VARIABLES {
            let error = kwargs(Some(&json!({"a": 1, name: []}))).unwrap_err().to_string();
            assert!(error.contains("`chat_template_kwargs`") && error.contains(&format!("found `{name}`")), "{error}");
        }
    }
}

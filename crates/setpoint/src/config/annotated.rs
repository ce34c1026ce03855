//! A file of settings in which every setting has a comment, and those that are not set are commented out.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::schema::{about, example, kind, variant, variants};
use super::table::value_of;

/// The longest line of a comment.
const WIDTH: usize = 100;

/// Writes settings as TOML, each below its description. The file has the same meaning as the table alone.
pub fn annotated(schema: &Json, settings: &Table) -> String {
    let mut file = String::new();
    write(schema, Some(settings), "", &[], &mut file);
    file.trim_start().to_owned()
}

/// Writes the settings of a table, then the tables in it. Without a table all of it is commented out. `names`: the values of the setting
/// that chose the schema, if one did.
fn write(schema: &Json, table: Option<&Table>, path: &str, names: &[String], file: &mut String) {
    let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return };
    let (sections, leaves): (Vec<_>, Vec<_>) = properties.iter().partition(|(_, property)| is_section(property));
    for (key, property) in leaves {
        let (meaning, values) = match property.get("const") {
            // Its description would be that of one of its values.
            Some(_) => (
                format!("The {key}, which decides what other settings there are."),
                format!("\"{}\"", names.join("\", \"")),
            ),
            None => (about(property), kind(property).values),
        };
        comment(&meaning, file);
        if !values.is_empty() {
            comment(&format!("Values: {values}"), file);
        }
        let value = table.and_then(|table| table.get(key));
        let mark = if value.is_some() { "" } else { "# " };
        let has_value = value.is_some() || ["default", "const"].iter().any(|key| property.get(key).is_some());
        let remark = if has_value { "" } else { "  # an example: there is no default" };
        let value = value.cloned().or_else(|| Value::try_from(example(property)).ok());
        if let Some(value) = value {
            let text = match &value {
                // What is commented out has one line; TOML reads JSON's escapes.
                Value::String(text) if !mark.is_empty() => Json::from(text.as_str()).to_string(),
                value => inline(value),
            };
            file.push_str(&format!("{mark}{} = {text}{remark}\n", written_key(key)));
        }
    }
    for (key, property) in sections {
        let path = if path.is_empty() { written_key(key) } else { format!("{path}.{}", written_key(key)) };
        let inner = table.and_then(|table| table.get(key)).and_then(Value::as_table);
        let inner = inner.filter(|inner| is_on(property, inner));
        let mark = if inner.is_some() { "" } else { "# " };
        file.push('\n');
        comment(&about(property), file);
        file.push_str(&format!("{mark}[{path}]\n"));
        let names = variants(property).map(|(_, names)| names).unwrap_or_default();
        write(chosen(property, inner), inner, &path, &names, file);
    }
}

/// Returns whether a section does anything: one with the key `x-chosen-by` does if the setting that this names is set.
fn is_on(schema: &Json, table: &Table) -> bool {
    let chosen_by = schema.get("x-chosen-by").and_then(Json::as_str);
    chosen_by.is_none_or(|key| value_of(table, key).is_some())
}

/// Returns the schema of a section: of several variants the one that the settings choose, or the first.
fn chosen<'s>(schema: &'s Json, table: Option<&Table>) -> &'s Json {
    let Some((tag, names)) = variants(schema) else { return schema };
    let name = table.and_then(|table| table.get(&tag)).and_then(Value::as_str).or(names.first().map(String::as_str));
    name.and_then(|name| variant(schema, &tag, name)).unwrap_or(schema)
}

fn is_section(schema: &Json) -> bool {
    schema.get("properties").is_some() || variants(schema).is_some()
}

/// Writes a text as a comment, broken into lines.
fn comment(text: &str, file: &mut String) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            file.push_str(&format!("# {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        file.push_str(&format!("# {line}\n"));
    }
}

/// Returns a value on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Table(table) => {
            let entries: Vec<String> =
                table.iter().map(|(key, value)| format!("{} = {}", written_key(key), inline(value))).collect();
            if entries.is_empty() { "{}".into() } else { format!("{{ {} }}", entries.join(", ")) }
        }
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// Returns a key as TOML has it: quoted unless it is a bare key.
fn written_key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { key.to_owned() } else { Value::String(key.to_owned()).to_string() }
}

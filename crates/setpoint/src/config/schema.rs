//! The settings of a job as a JSON schema, from their types and doc comments. The reference, the schema for editors and the file that
//! `setpoint inspect config` prints follow from it.
//!
//! Settings carry keys of their own: `x-unit`, `x-values` for values that a schema cannot tell, and `x-chosen-by` for the setting without
//! which a section does nothing.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};
use toml::{Table, Value};

use super::Config;
use super::table::insert;

/// Returns the schema of a job's settings with their defaults. Every setting may be left out.
pub(crate) fn schema_of<C: Config + JsonSchema>() -> Json {
    // Sections that belong to the table around them are read by code of their own, and written by derived code.
    let mut settings = SchemaSettings::draft07().for_serialize();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<C>().to_value();
    simplify(&mut schema, true);
    let defaults = C::defaults(&Table::new()).unwrap_or_default();
    set_defaults(&mut schema, Some(&defaults), "", &|user: &Table| C::defaults(user).ok());
    schema
}

/// Lets a schema take lists of data sets in place of their section: `[[data]]`.
pub fn with_lists(schema: &mut Json) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(with_lists),
        Json::Object(object) => {
            object.values_mut().for_each(with_lists);
            let items = object.get("properties").and_then(|properties| properties.pointer("/sources/items"));
            let Some(items) = items.filter(|items| items.pointer("/properties/weight").is_some()) else { return };
            let path = items.pointer("/properties/path").cloned().unwrap_or_default();
            let list = json!({ "type": "array", "items": { "anyOf": [items.clone(), path] } });
            let mut choice = Map::new();
            choice.extend(object.get("description").map(|about| ("description".to_owned(), about.clone())));
            let section = Json::Object(std::mem::take(object));
            choice.insert("anyOf".into(), json!([section, list]));
            *object = choice;
        }
        _ => {}
    }
}

/// Removes what TOML does not have (null), and what is not meant for users: formats of numbers, and that a setting is required.
fn simplify(schema: &mut Json, is_table: bool) {
    let Json::Object(object) = schema else { return };
    without_null(object);
    // Later paragraphs are for readers of the code.
    let text = about_object(object);
    if object.contains_key("description") {
        object.insert("description".into(), text.clone().into());
    }
    let is_number = |format: &Json| format.as_str().is_some_and(|format| format != "date");
    if object.get("format").is_some_and(is_number) {
        object.remove("format");
    }
    if object.get("default").is_some_and(Json::is_null) {
        object.remove("default");
    }
    let required = required(object, is_table);
    object.remove("required");
    if !required.is_empty() {
        object.insert("required".into(), required.into());
    }
    for key in ["properties", "definitions"] {
        if let Some(Json::Object(inner)) = object.get_mut(key) {
            inner.values_mut().for_each(|inner| {
                simplify(inner, true);
                // The only value of a choice, or an entry of a table with given keys, has no description of its own.
                if let Some(inner) = inner.as_object_mut().filter(|_| key == "properties" && !text.is_empty()) {
                    inner.entry("description").or_insert_with(|| text.clone().into());
                }
            });
        }
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(Json::Array(inner)) = object.get_mut(key) {
            inner.iter_mut().for_each(|inner| simplify(inner, false));
        }
    }
    match object.get_mut("items") {
        Some(Json::Array(items)) => items.iter_mut().for_each(|inner| simplify(inner, true)),
        Some(items) => simplify(items, true),
        None => {}
    }
}

/// Replaces a choice between a value and null by the value.
fn without_null(object: &mut Map<String, Json>) {
    if let Some(Json::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Json::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let is_null = |choice: &Json| choice.get("type").is_some_and(|name| name == "null");
    if let Some(Json::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| !is_null(choice));
        if let [Json::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            // The description of the setting goes before that of its type.
            only.into_iter().for_each(|(key, value)| _ = object.entry(key).or_insert(value));
        }
    }
}

/// Returns the keys that an object must have: of a choice the one that tells it from others, of a table none.
fn required(object: &Map<String, Json>, is_table: bool) -> Vec<String> {
    let Some(Json::Object(properties)) = object.get("properties") else { return Vec::new() };
    let tags = properties.iter().filter(|(_, property)| property.get("const").is_some());
    let tags: Vec<String> = tags.map(|(key, _)| key.clone()).collect();
    match (tags.is_empty(), is_table, properties.len()) {
        (false, ..) => tags,
        (true, false, 1) => properties.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// Replaces the defaults of types by those of the job, which are in `table` if the job sets the section by default.
fn set_defaults(schema: &mut Json, table: Option<&Table>, path: &str, of: &dyn Fn(&Table) -> Option<Table>) {
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        for (key, property) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let value = table.and_then(|table| table.get(key));
            if property.get("properties").is_some() || variants(property).is_some() {
                if let Some(property) = property.as_object_mut() {
                    property.remove("default");
                }
                set_defaults(property, value.and_then(Value::as_table), &path, of);
            } else if let (Some(_), Some(property)) = (table, property.as_object_mut()) {
                property.remove("default");
                if let Some(value) = value.and_then(|value| serde_json::to_value(value).ok()) {
                    property.insert("default".into(), value);
                }
            }
        }
    } else if table.is_some()
        && let Some((tag, names)) = variants(schema)
    {
        // The defaults of a section may depend on the setting that its others depend on.
        for (i, name) in names.iter().enumerate() {
            let mut user = Table::new();
            insert(&mut user, &format!("{path}.{tag}"), name.as_str().into());
            let defaults = of(&user);
            let section = defaults.as_ref().and_then(|all| super::table::value_of(all, path)).and_then(Value::as_table);
            let Some(variant) = schema.get_mut("oneOf").and_then(|variants| variants.get_mut(i)) else { continue };
            set_defaults(variant, section, path, of);
        }
    }
}

/// Returns the key that other settings of a section depend on, and its values, if there is one.
pub fn variants(schema: &Json) -> Option<(String, Vec<String>)> {
    let variants = schema.get("oneOf")?.as_array()?;
    let tag_of = |variant: &Json| {
        let properties = variant.get("properties")?.as_object()?;
        let (tag, property) = properties.iter().find(|(_, property)| property.get("const").is_some())?;
        Some((tag.clone(), property.get("const")?.as_str()?.to_owned()))
    };
    let tags: Vec<(String, String)> = variants.iter().map(tag_of).collect::<Option<_>>()?;
    let tag = tags.first()?.0.clone();
    Some((tag, tags.into_iter().map(|(_, name)| name).collect()))
}

/// Returns the schema of the section that a tag chooses.
pub fn variant<'s>(schema: &'s Json, tag: &str, name: &str) -> Option<&'s Json> {
    let has_name = |variant: &&Json| variant["properties"][tag]["const"] == name;
    schema.get("oneOf")?.as_array()?.iter().find(has_name)
}

/// The kind and the values of a setting, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// The kind: `number`, `text`, `choice` and so on.
    pub name: String,
    /// The values that it takes, if not all of its kind.
    pub values: String,
}

/// Describes the values that a setting takes.
pub fn kind(schema: &Json) -> Kind {
    let forms = forms(schema);
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in &forms {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let own = schema.get("x-values").and_then(Json::as_str).map(str::to_owned);
    let written = || {
        let forms: Vec<&str> = forms.iter().map(|(_, form)| form.as_str()).collect();
        match forms.as_slice() {
            [only] if names == ["choice"] => (*only).to_owned(),
            [_] => bounds(schema).unwrap_or_default(),
            many => many.join(", "),
        }
    };
    let values = match (own, forms.len()) {
        (Some(own), 1) => own,
        (Some(own), _) => format!("{}, each {own}", written()),
        (None, _) => written(),
    };
    Kind { name: names.join(" or "), values }
}

/// Returns how a value may be written: each form with the name of its kind.
fn forms(schema: &Json) -> Vec<(&'static str, String)> {
    if let Some(value) = schema.get("const") {
        return vec![("choice", value.to_string())];
    }
    if let Some(values) = schema.get("enum").and_then(Json::as_array) {
        return values.iter().map(|value| ("choice", value.to_string())).collect();
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(choices) = schema.get(key).and_then(Json::as_array) {
            return choices.iter().flat_map(forms).collect();
        }
    }
    if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
        let entry = |(key, property): (&String, &Json)| format!("{key} = {}", placeholder(property));
        let entries: Vec<String> = properties.iter().map(entry).collect();
        return vec![("choice", format!("{{ {} }}", entries.join(", ")))];
    }
    match schema.get("type").and_then(Json::as_str) {
        Some("integer") => vec![("whole number", "a whole number".into())],
        Some("number") => vec![("number", "a number".into())],
        Some("boolean") => vec![("true or false", String::new())],
        Some("array") => vec![("list", placeholder(schema))],
        Some("object") => vec![("table", String::new())],
        Some("string") if schema.get("format").is_some() => vec![("date", String::new())],
        _ => vec![("text", "text".into())],
    }
}

/// Returns the bounds of a number.
fn bounds(schema: &Json) -> Option<String> {
    let bound = |key: &str, words: &str| Some(format!("{words} {}", schema.get(key)?));
    let low = bound("exclusiveMinimum", "above").or_else(|| bound("minimum", "at least"));
    let high = bound("exclusiveMaximum", "below").or_else(|| bound("maximum", "at most"));
    // A whole number of settings is never negative.
    let low = low.filter(|low| low != "at least 0" || schema["type"] == "number");
    match (low, high) {
        (Some(low), Some(high)) => Some(format!("{low}, {high}")),
        (low, high) => low.or(high),
    }
}

/// Returns a word in the place of a value.
fn placeholder(schema: &Json) -> String {
    let joined =
        |values: &[Json], word: &dyn Fn(&Json) -> String| values.iter().map(word).collect::<Vec<_>>().join(" or ");
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(values) = schema.get("enum").and_then(Json::as_array) {
        return joined(values, &Json::to_string);
    }
    if let Some(choices) = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Json::as_array) {
        return joined(choices, &placeholder);
    }
    match schema.get("type").and_then(Json::as_str) {
        Some("integer") => "WHOLE_NUMBER".into(),
        Some("number") => "NUMBER".into(),
        Some("boolean") => "true".into(),
        Some("array") => match &schema["items"] {
            Json::Array(items) => format!("[{}]", items.iter().map(placeholder).collect::<Vec<_>>().join(", ")),
            items => match schema.get("maxItems").and_then(Json::as_u64) {
                Some(count) if schema.get("minItems") == schema.get("maxItems") && count <= 4 => {
                    format!("[{}]", vec![placeholder(items); count as usize].join(", "))
                }
                _ => format!("[{}, …]", placeholder(items)),
            },
        },
        Some("object") => "{ … }".into(),
        Some("string") => "TEXT".into(),
        _ => "…".into(),
    }
}

/// Returns a value that a setting takes: its default, an example, or the first choice.
pub fn example(schema: &Json) -> Json {
    let first = |key: &str| schema.get(key).and_then(Json::as_array).and_then(|values| values.first());
    if let Some(value) = schema.get("default").or_else(|| first("examples")).or_else(|| schema.get("const")) {
        return value.clone();
    }
    if let Some(value) = first("enum") {
        return value.clone();
    }
    if let Some(choice) = first("oneOf").or_else(|| first("anyOf")) {
        return example(choice);
    }
    match schema.get("type").and_then(Json::as_str) {
        // A count of 0 is mostly out of range, and never what somebody sets.
        Some("integer") => json!(schema.get("minimum").and_then(Json::as_u64).unwrap_or(1).max(1)),
        Some("number") => {
            let below = schema.get("exclusiveMaximum").and_then(Json::as_f64);
            json!(below.filter(|&below| below <= 1.0).map_or(1.0, |below| below / 2.0))
        }
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("…"),
    }
}

/// Returns the description of a setting, on one line.
pub fn about(schema: &Json) -> String {
    schema.as_object().map(about_object).unwrap_or_default()
}

/// Returns the first paragraph of a description, on one line.
fn about_object(object: &Map<String, Json>) -> String {
    let text = object.get("description").and_then(Json::as_str).unwrap_or_default();
    text.split("\n\n").next().unwrap_or_default().replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_a_file_has_them() {
        let pair = json!({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2});
        let range = json!({"anyOf": [{"type": "number"}, pair], "x-values": "a finite number"});
        assert_eq!(kind(&range).values, "a number, [NUMBER, NUMBER], each a finite number");
        let clip = json!({"type": "object", "properties": {"clip": range}});
        let choice = json!({"oneOf": [{"type": "string", "const": "none"}, clip]});
        assert_eq!(kind(&choice).values, "\"none\", { clip = NUMBER or [NUMBER, NUMBER] }");
        let names = json!({"type": "array", "items": {"type": "string", "enum": ["a", "b"]}});
        assert_eq!(placeholder(&names), "[\"a\" or \"b\", …]");
    }

    #[test]
    fn examples_are_in_range() {
        assert_eq!(example(&json!({"type": "integer", "minimum": 0})), json!(1));
        assert_eq!(example(&json!({"type": "integer", "minimum": 2})), json!(2));
        assert_eq!(example(&json!({"type": "number"})), json!(1.0));
        assert_eq!(example(&json!({"type": "number", "minimum": 0, "exclusiveMaximum": 1})), json!(0.5));
    }

    #[test]
    fn a_schema_for_editors_takes_lists_of_data_sets() {
        let mut schema = schema_of::<crate::sft::SftConfig>();
        with_lists(&mut schema);
        for section in ["data", "eval_data"] {
            let choices = schema["properties"][section]["anyOf"].as_array().unwrap();
            assert_eq!(choices[0]["properties"]["max_rows"]["type"], "integer", "{section}");
            let entry = &choices[1]["items"]["anyOf"][0];
            assert_eq!(entry["properties"]["weight"]["type"], "number", "{entry}");
        }
        assert!(schema["properties"]["train"].get("anyOf").is_none());
    }
}

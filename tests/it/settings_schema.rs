//! The schema of settings for editors holds for every example, and refuses what the program refuses.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use setpoint::config::Given;
use setpoint::jobs::{AnyJob, JOBS};
use toml::Table;

use super::fixture::root;
use super::settings_page::jobs;

/// Notes where a value does not fit a schema, as far as these schemas go.
fn validate(schema: &Json, value: &Json, all: &Json, path: &str, wrong: &mut Vec<String>) {
    if let Some(name) = schema.get("$ref").and_then(Json::as_str) {
        let target = all.pointer(name.trim_start_matches('#')).expect("a reference leads somewhere");
        return validate(target, value, all, path, wrong);
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(choices) = schema.get(key).and_then(Json::as_array) {
            let errors = |choice: &Json| {
                let mut errors = Vec::new();
                validate(choice, value, all, path, &mut errors);
                errors
            };
            let fitting = choices.iter().filter(|choice| errors(choice).is_empty()).count();
            if fitting == 0 {
                wrong.push(format!("{path} fits none of {key}: {value}"));
            }
            if key == "oneOf" && fitting > 1 {
                wrong.push(format!("{path} fits several of oneOf: {value}"));
            }
            return;
        }
    }
    if schema.get("const").is_some_and(|only| only != value) {
        wrong.push(format!("{path} is {value}, not {}", schema["const"]));
    }
    if let Some(values) = schema.get("enum").and_then(Json::as_array)
        && !values.contains(value)
    {
        wrong.push(format!("{path} is {value}, none of {values:?}"));
    }
    let is_of = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("{path}: unknown type {other}"),
    };
    if let Some(name) = schema.get("type").and_then(Json::as_str)
        && !is_of(name)
    {
        wrong.push(format!("{path} is {value}, no {name}"));
    }
    if let (Some(value), Some(least)) = (value.as_f64(), schema.get("minimum").and_then(Json::as_f64))
        && value < least
    {
        wrong.push(format!("{path} is {value}, below {least}"));
    }
    if let Some(object) = value.as_object() {
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap()) {
                wrong.push(format!("{path} lacks {name}"));
            }
        }
        for (key, value) in object {
            let path = format!("{path}.{key}");
            match (schema["properties"].get(key), schema.get("additionalProperties")) {
                (Some(property), _) => validate(property, value, all, &path, wrong),
                (None, Some(Json::Bool(false))) => wrong.push(format!("{path} is not in the schema")),
                (None, Some(inner @ Json::Object(_))) => validate(inner, value, all, &path, wrong),
                _ => {}
            }
        }
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        for (i, item) in items.iter().enumerate() {
            let inner = schema.as_array().map_or(schema, |schemas| &schemas[i.min(schemas.len() - 1)]);
            validate(inner, item, all, &format!("{path}[{i}]"), wrong);
        }
    }
}

/// Returns every TOML file below a folder.
fn toml_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(toml_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Returns the jobs that know the settings of an example.
fn jobs_of(table: &Table, schemas: &[(&'static dyn AnyJob, Json)]) -> Vec<&'static dyn AnyJob> {
    let value = serde_json::to_value(table).unwrap();
    let knows = |schema: &Json| {
        let mut wrong = Vec::new();
        validate(schema, &value, schema, "", &mut wrong);
        wrong.is_empty()
    };
    schemas.iter().filter(|(_, schema)| knows(schema)).map(|(job, _)| *job).collect()
}

#[test]
fn the_schema_knows_the_settings_of_every_example() {
    let schemas: Vec<_> = jobs().into_iter().map(|job| (job, job.schema())).collect();
    let mut checked = 0;
    for path in toml_files(&root().join("examples")) {
        let table: Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let fitting = jobs_of(&table, &schemas);
        assert!(!fitting.is_empty(), "{} fits the schema of no job", path.display());
        // The schema and the program agree: what one takes, the other does.
        let loads = |job: &&'static dyn AnyJob| {
            job.load_unchecked(&Given { file: Some(path.clone()), ..Given::default() }).is_ok()
        };
        let names = |jobs: Vec<&'static dyn AnyJob>| jobs.iter().map(|job| job.settings()).collect::<Vec<_>>();
        assert_eq!(names(fitting), names(jobs().into_iter().filter(loads).collect()), "{}", path.display());
        checked += 1;
    }
    assert!(checked > 10, "{checked} examples");
}

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let schema = JOBS.iter().find(|job| job.settings() == "align").unwrap().schema();
    for text in [
        "algin.method = 'dpo'",
        "align.method = 'xpo'",
        "align = { method = 'dpo', log_z0 = 50 }",
        "train.batch_size = 'many'",
        "train.batch_size = -1",
        "train.schedule.kind = 'cosin'",
        "data.path = 3",
        "model.template_date = 2026",
    ] {
        let mut wrong = Vec::new();
        let table: Table = text.parse().unwrap();
        validate(&schema, &serde_json::to_value(table).unwrap(), &schema, "", &mut wrong);
        assert!(!wrong.is_empty(), "{text}");
    }
}

//! The reference of settings, docs/SETTINGS.md, follows from their types and doc comments.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use setpoint::config::schema::{about, kind, variants};
use setpoint::jobs::{AnyJob, JOBS};
use setpoint_align::METHODS;
use toml::Value;

use super::fixture::root;

/// A section of settings, wherever it is: sections of one type are described once.
struct Section {
    /// Its schema without defaults.
    plain: Json,
    /// Each place: the job, the path, and the schema with defaults.
    places: Vec<(&'static str, String, Json)>,
}

/// Returns the jobs, one for each set of settings.
pub fn jobs() -> Vec<&'static dyn AnyJob> {
    let mut jobs: Vec<&'static dyn AnyJob> = Vec::new();
    for job in JOBS {
        if jobs.iter().all(|other| other.settings() != job.settings()) {
            jobs.push(*job);
        }
    }
    jobs
}

/// Returns the schema without what differs between the places of a type.
fn plain(schema: &Json) -> Json {
    match schema {
        Json::Object(object) => {
            let kept = object.iter().filter(|(key, _)| key.as_str() != "default");
            kept.map(|(key, value)| (key.clone(), plain(value))).collect::<serde_json::Map<_, _>>().into()
        }
        Json::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

/// Returns whether a setting is a table of settings.
pub fn is_section(schema: &Json) -> bool {
    schema.get("properties").is_some() || variants(schema).is_some()
}

/// Collects a table and the tables in it.
fn collect(job: &'static str, path: &str, schema: &Json, sections: &mut Vec<Section>) {
    let mut key = plain(schema);
    if let Some(object) = key.as_object_mut() {
        // What a section is for depends on its place.
        object.remove("description");
        ["$schema", "title", "definitions"].iter().for_each(|name| _ = object.remove(*name));
    }
    let place = (job, path.to_owned(), schema.clone());
    match sections.iter_mut().find(|section| !path.is_empty() && section.plain == key) {
        Some(section) => section.places.push(place),
        None => sections.push(Section { plain: key, places: vec![place] }),
    }
    if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
        for (key, property) in properties.iter().filter(|(_, property)| is_section(property)) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            collect(job, &path, property, sections);
        }
    }
}

/// Returns the heading of a section and its anchor, as GitHub makes it.
fn heading(section: &Section) -> (String, String) {
    let (job, path, _) = &section.places[0];
    let title = match path.is_empty() {
        true => format!("`setpoint {}`", command(job)),
        false => format!("`[{path}]`"),
    };
    let anchor = title.chars().filter(|c| c.is_ascii_alphanumeric() || "-_ ".contains(*c));
    let anchor = anchor.map(|c| if c == ' ' { '-' } else { c }).collect();
    (title, anchor)
}

/// Returns the commands that have a job's settings.
fn command(settings: &str) -> String {
    let commands = JOBS.iter().filter(|job| job.settings() == settings).map(|job| job.command());
    commands.collect::<Vec<_>>().join("` and `setpoint ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn code(value: &Json) -> String {
    let toml = Value::try_from(value).map_or_else(|_| value.to_string(), |value| inline(&value));
    format!("`{toml}`")
}

fn inline(value: &Value) -> String {
    match value {
        Value::Table(table) if table.is_empty() => "{}".into(),
        Value::Table(table) => {
            let entries: Vec<String> = table.iter().map(|(key, value)| format!("{key} = {}", inline(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::String(text) if text.contains('\n') => "…".into(),
        other => other.to_string(),
    }
}

/// Returns the default of a setting: one, or one for each group of jobs.
fn default(key: &str, places: &[(String, &Json)]) -> String {
    let mut groups: Vec<(Option<&Json>, Vec<&str>)> = Vec::new();
    for (name, schema) in places {
        let value = schema["properties"][key].get("default");
        match groups.iter_mut().find(|(other, _)| *other == value) {
            Some((_, names)) => names.push(name),
            None => groups.push((value, vec![name])),
        }
    }
    let text = |value: Option<&Json>| value.map_or_else(|| "none".to_owned(), code);
    match groups.as_slice() {
        [(value, _)] => value.map_or_else(String::new, code),
        many => {
            // The commonest comes first, without names.
            let mut many: Vec<&(Option<&Json>, Vec<&str>)> = many.iter().collect();
            many.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
            let others = many[1..].iter().map(|(value, names)| format!("{}: {}", names.join(", "), text(*value)));
            format!("{}; {}", text(many[0].0), others.collect::<Vec<_>>().join("; "))
        }
    }
}

/// Adds the table of a section's settings.
fn rows(properties: &Json, places: &[(String, &Json)], sections: &[Section], skip: Option<&str>, page: &mut String) {
    page.push_str("| setting | type | default | unit | values | meaning |\n|---|---|---|---|---|---|\n");
    for (key, property) in properties.as_object().into_iter().flatten() {
        if skip == Some(key) {
            continue;
        }
        if is_section(property) {
            let bare = {
                let mut bare = plain(property);
                bare.as_object_mut().unwrap().remove("description");
                bare
            };
            let section = sections.iter().find(|section| section.plain == bare).unwrap();
            let (title, anchor) = heading(section);
            page.push_str(&format!(
                "| `{key}` | table | | | see [{title}](#{anchor}) | {} |\n",
                cell(&about(property))
            ));
            continue;
        }
        let kind = kind(property);
        let unit = property.get("x-unit").and_then(Json::as_str).unwrap_or_default();
        let values = if kind.values.is_empty() { String::new() } else { quoted(&kind.values) };
        let default = default(key, places);
        page.push_str(&format!(
            "| `{key}` | {} | {} | {unit} | {} | {} |\n",
            kind.name,
            cell(&default),
            cell(&values),
            cell(&about(property))
        ));
    }
}

/// Marks the choices in a list of values as code.
fn quoted(values: &str) -> String {
    let marked = |value: &str| {
        if value.starts_with(['"', '{', '[']) { format!("`{value}`") } else { value.to_owned() }
    };
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (i, c) in values.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(marked(values[start..i].trim()));
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(marked(values[start..].trim()));
    parts.join(", ")
}

fn page() -> String {
    let mut sections = Vec::new();
    let schemas: Vec<(&str, Json)> = jobs().iter().map(|job| (job.settings(), job.schema())).collect();
    for (job, schema) in &schemas {
        collect(job, "", schema, &mut sections);
    }
    let mut page = String::from(
        "# Settings\n\n\
         Every job reads its settings from a TOML file, from flags and from `--set KEY=VALUE`; later ones win. This page lists\n\
         all of them. It follows from the program's own description, and a test keeps it current (`just settings` writes it).\n\n\
         * `setpoint inspect config JOB` prints a file with every setting, its meaning and its default.\n\
         * `setpoint inspect schema JOB` prints a JSON schema, with which editors complete and check settings.\n\n\
         A setting without a default may be left out unless its job asks for it. Where jobs differ, the default names them.\n\n",
    );
    page.push_str("| job | settings |\n|---|---|\n");
    let (tops, inner): (Vec<&Section>, Vec<&Section>) =
        sections.iter().partition(|section| section.places[0].1.is_empty());
    for section in &tops {
        let (title, anchor) = heading(section);
        page.push_str(&format!("| {title} | [{}](#{anchor}) |\n", section.places[0].0));
    }
    for section in tops.iter().chain(&inner) {
        page.push_str(&format!("\n## {}\n\n", heading(section).0));
        let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        section.places.iter().for_each(|(job, path, _)| names.entry(path).or_default().push(job));
        if !section.places[0].1.is_empty() {
            let places: Vec<String> =
                names.iter().map(|(path, jobs)| format!("`{path}` of {}", jobs.join(", "))).collect();
            page.push_str(&format!("{}\n\n", wrapped(&format!("It is {}.", places.join("; ")))));
        }
        let several_paths = names.len() > 1;
        let place = |(job, path, schema): &(&str, String, Json)| {
            let name = if several_paths { format!("{job} `{path}`") } else { (*job).to_owned() };
            (name, schema.clone())
        };
        let places: Vec<(String, Json)> = section.places.iter().map(place).collect();
        let first = &section.places[0].2;
        match variants(first) {
            None => {
                let places: Vec<(String, &Json)> = places.iter().map(|(name, schema)| (name.clone(), schema)).collect();
                rows(&section.plain["properties"], &places, &sections, None, &mut page);
            }
            Some((tag, names)) => {
                page.push_str(&format!("`{tag}` decides which other settings there are.\n"));
                for (i, name) in names.iter().enumerate() {
                    let variant = &section.plain["oneOf"][i];
                    let title = METHODS.iter().find(|method| method.name == name).map(|method| method.title);
                    let title = title.map_or_else(|| about(variant), |title| format!("{title}."));
                    page.push_str(&format!("\n### `{tag} = \"{name}\"`\n\n{}\n\n", wrapped(&title)));
                    let places: Vec<(String, &Json)> =
                        places.iter().map(|(name, schema)| (name.clone(), &schema["oneOf"][i])).collect();
                    if variant["properties"].as_object().is_some_and(|properties| properties.len() > 1) {
                        rows(&variant["properties"], &places, &sections, Some(&tag), &mut page);
                    } else {
                        page.push_str("It has no settings of its own.\n");
                    }
                }
            }
        }
    }
    page
}

/// Breaks a paragraph into lines.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 116 => {
                lines.push(word.to_owned());
            }
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => *line += &format!(" {word}"),
            None => {}
        }
    }
    lines.join("\n")
}

#[test]
fn the_reference_is_current() {
    let path = root().join("docs/SETTINGS.md");
    let page = page();
    if std::env::var_os("SETPOINT_WRITE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(found.lines()).find(|(new, old)| new != old);
    assert!(page == found, "docs/SETTINGS.md is not current (`just settings` writes it): {differs:#?}");
}

#[test]
fn every_setting_says_what_it_does_in_a_sentence() {
    fn check(path: &str, schema: &Json, wrong: &mut Vec<String>) {
        let properties = schema.get("properties").and_then(Json::as_object);
        for (key, property) in properties.into_iter().flatten() {
            let path = format!("{path}.{key}");
            let text = about(property);
            // A key that tells variants apart is described by them.
            if property.get("const").is_none() && !(text.ends_with(['.', ':']) && text.len() > 5) {
                wrong.push(format!("{path}: {text:?}"));
            }
            let first = text.split(' ').next().unwrap_or_default();
            if ["Whether", "What", "How", "Which", "Where", "When", "Those", "That"].contains(&first) {
                wrong.push(format!("{path} begins with a clause, neither with a verb nor with a noun: {text}"));
            }
            if text.contains("](") || text.contains("[`") {
                wrong.push(format!("{path} has a link that only rustdoc knows: {text}"));
            }
            check(&path, property, wrong);
        }
        for variant in schema.get("oneOf").and_then(Json::as_array).into_iter().flatten() {
            check(path, variant, wrong);
        }
    }
    let mut wrong = Vec::new();
    for job in jobs() {
        check(job.settings(), &job.schema(), &mut wrong);
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! The settings that `setpoint inspect config` prints are all that there are, and load as those that it was given.

use serde_json::Value as Json;
use setpoint::config::Given;
use setpoint::config::schema::variants;
use setpoint_align::METHODS;
use toml::Value;

use super::settings_page::{is_section, jobs};

/// Returns the keys of all settings, for every value that others depend on.
fn keys(schema: &Json, path: &str, found: &mut Vec<String>) {
    if let Some((tag, names)) = variants(schema) {
        found.push(format!("{path}{tag}={}", names[0]));
        return;
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        match is_section(property) {
            true => keys(property, &format!("{path}{key}."), found),
            false => found.push(format!("{path}{key}")),
        }
    }
}

#[test]
fn a_printed_file_has_every_setting_and_loads_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    for job in jobs() {
        let sets: Vec<Vec<String>> = match job.settings() {
            "align" => METHODS.iter().map(|method| vec![format!("align.method={}", method.name)]).collect(),
            _ => vec![Vec::new()],
        };
        for set in sets {
            let given = Given { set: set.clone(), ..Given::default() };
            let settings = job.load_unchecked(&given).unwrap();
            let text = job.annotated(&given).unwrap();
            let file = folder.path().join("settings.toml");
            std::fs::write(&file, &text).unwrap();
            let again =
                job.load_unchecked(&Given { file: Some(file), ..Given::default() }).unwrap_or_else(|problems| {
                    panic!("{} {set:?}: {problems:?}\n{text}", job.settings());
                });
            assert_eq!(again, settings, "{} {set:?}", job.settings());
            let mut all = Vec::new();
            keys(&job.schema(), "", &mut all);
            for key in all.iter().filter(|key| !key.contains('=')) {
                let name = key.rsplit('.').next().unwrap();
                let is_written = text.lines().any(|line| {
                    line.trim_start_matches("# ").strip_prefix(name).is_some_and(|rest| rest.starts_with(" = "))
                });
                assert!(is_written, "{}: {key} is missing in\n{text}", job.settings());
            }
        }
    }
}

#[test]
fn every_commented_setting_has_an_example_that_its_job_takes() {
    let mut found = Vec::new();
    for job in jobs() {
        let text = job.annotated(&Given::default()).unwrap();
        let mut section = String::new();
        for line in text.lines() {
            let bare = line.trim_start_matches("# ");
            let heading = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            // A prompt that is a default has headings of its own, such as `[Response]`.
            let is_section = |name: &&str| name.chars().all(|c| c.is_ascii_lowercase() || "_.".contains(c));
            if let Some(name) = heading.filter(is_section) {
                section = format!("{name}.");
                continue;
            }
            let Some((key, value)) = bare.split_once(" = ").filter(|_| line.starts_with("# ")) else { continue };
            if key.contains(' ') || value.parse::<Value>().is_err() {
                // A comment.
                continue;
            }
            let given = Given { set: vec![format!("{section}{key}={value}")], ..Given::default() };
            let problems = job.load_unchecked(&given).err().unwrap_or_default();
            // Another setting may be missing next to it.
            let wrong = problems.iter().filter(|problem| !problem.message.contains("is missing"));
            found.extend(wrong.map(|wrong| format!("{}: {section}{key} = {value}: {wrong}", job.settings())));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

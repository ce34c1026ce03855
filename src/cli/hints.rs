//! Every flag, setting and command that a message names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use regex::Regex;

use super::Cli;
use setpoint::config::Given;
use setpoint::jobs::{AnyJob, JOBS};

/// The long flags of each command, by its path.
pub(super) fn flags() -> BTreeMap<String, BTreeSet<String>> {
    fn visit(command: &clap::Command, path: &str, all: &mut BTreeMap<String, BTreeSet<String>>) {
        let own = command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned);
        all.insert(path.to_owned(), own.chain(["help".to_owned(), "version".to_owned()]).collect());
        for inner in command.get_subcommands() {
            visit(inner, format!("{path} {}", inner.get_name()).trim(), all);
        }
    }
    let mut all = BTreeMap::new();
    visit(&Cli::command(), "", &mut all);
    all
}

/// The sources of the program, without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    fn visit(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "tests" {
                    visit(&path, found);
                }
            } else if name.ends_with(".rs")
                && !name.contains("test")
                && !["hints.rs", "documents.rs"].contains(&name.as_str())
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
                found.push((path, text[..end].to_owned()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    visit(&root.join("src"), &mut found);
    for entry in std::fs::read_dir(root.join("crates")).unwrap() {
        visit(&entry.unwrap().path().join("src"), &mut found);
    }
    assert!(found.len() > 100, "{} files", found.len());
    found
}

/// The string literals of a source, escapes of line breaks and quotes undone.
fn literals(source: &str) -> Vec<String> {
    // Comments and characters are skipped so that quotes in them open nothing.
    let token = Regex::new(r##"(?s)//[^\n]*|'(?:\\.|[^\\'\n])'|r#"(.*?)"#|r"([^"]*)"|"((?:\\.|[^"\\])*)""##).unwrap();
    let next_line = Regex::new(r"\\\n\s*").unwrap();
    token
        .captures_iter(source)
        .filter_map(|found| found.get(1).or(found.get(2)).or(found.get(3)))
        .map(|text| next_line.replace_all(text.as_str(), "").replace("\\n", "\n").replace("\\\"", "\""))
        .collect()
}

/// Returns whether a job knows the setting, under one of the methods if it has any.
fn is_setting(key: &str) -> bool {
    let knows = |job: &dyn AnyJob, method: Option<&str>| {
        let method = method.map(|name| format!("align.method={name}"));
        let set = method.into_iter().chain([format!("{key}=0")]).collect();
        let problems = job.load_unchecked(&Given { set, ..Given::default() }).err();
        let is_unknown = |message: &str| message.contains("not a setting") || message.contains("not a section");
        problems.is_none_or(|problems| problems.iter().all(|problem| !is_unknown(&problem.message)))
    };
    // Most settings belong to no method, and only jobs that have one know more under it: the others need not be asked about each.
    let offline = setpoint_align::METHODS.iter().map(|about| about.name);
    let mut methods = offline.chain(setpoint_align::SAMPLED_METHODS.iter().copied());
    let by_method: Vec<_> = JOBS.iter().filter(|job| job.has_setting("align.method")).collect();
    JOBS.iter().any(|job| knows(*job, None))
        || methods.any(|method| by_method.iter().any(|job| knows(**job, Some(method))))
}

#[test]
fn messages_name_flags_settings_and_commands_that_exist() {
    let flags = flags();
    let any: BTreeSet<&String> = flags.values().flatten().collect();
    let flag = Regex::new(r"(?:^|[^\w-])--([a-z][a-z-]*[a-z])").unwrap();
    let command = Regex::new(r"(?:\n\s*|`)setpoint ([a-z][a-z-]+)").unwrap();
    let built = Regex::new(r"(?:^|[^\w-])--\{").unwrap();
    let keys = [
        Regex::new(r"--set ([a-z_]+(?:\.[a-z0-9_]+)*)").unwrap(),
        Regex::new(r"\bsetting ([a-z_]+(?:\.[a-z0-9_]+)+)").unwrap(),
        Regex::new(
            r"\b((?:model|data|encode|train|align|generate|judge|generative|reward|baseline|sweep|compare|samples|length_control|eval_data|pairs)\.[a-z_][a-z0-9_.]*[a-z0-9])",
        )
        .unwrap(),
    ];
    let file = Regex::new(r"\.(?:weight|json|jsonl|toml|csv|safetensors|rs|md|txt|jinja|gz|html|parquet)$").unwrap();
    let mut wrong = Vec::new();
    let (mut flags_seen, mut keys_seen) = (0, BTreeMap::new());
    for (path, source) in sources() {
        for text in literals(&source) {
            let mut complain = |what: &str| wrong.push(format!("{}: {what} in {text:?}", path.display()));
            // A style sheet has names of its own.
            if text.contains("var(--") {
                continue;
            }
            if built.is_match(&text) {
                complain("a flag that is put together");
            }
            for found in flag.captures_iter(&text) {
                flags_seen += 1;
                // What cargo and other programs are told is not ours.
                if !any.contains(&found[1].to_owned())
                    && !text.contains("cargo")
                    && !text.contains("hf download")
                    && !text.contains("build it with")
                {
                    complain(&format!("--{}", &found[1]));
                }
            }
            for found in command.captures_iter(&text) {
                if !flags.contains_key(&found[1]) {
                    complain(&format!("setpoint {}", &found[1]));
                }
            }
            for found in keys.iter().flat_map(|key| key.captures_iter(&text)) {
                let key = found[1].to_owned();
                let end = found.get(1).unwrap().end();
                // The rest is put together, or it is a file, a tensor or the beginning of a tensor's name.
                if text[end..].starts_with(['{', '/', '_']) || file.is_match(&key) || text == format!("{key}.") {
                    continue;
                }
                if !*keys_seen.entry(key.clone()).or_insert_with(|| is_setting(&key)) {
                    complain(&format!("the setting {key}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(flags_seen > 50 && keys_seen.len() > 30, "{flags_seen} flags and {} settings are too few", keys_seen.len());
}

#[test]
fn messages_tell_to_set_what_set_takes() {
    let told = Regex::new(r"(?i)\b(?:set|setting|raise|lower|or|with) `([a-z][a-z0-9_]*)(?: = [^`]*)?`").unwrap();
    let (mut wrong, mut named) = (Vec::new(), BTreeMap::new());
    // A rule may be a term of another one, so its settings have no dotted key of their own.
    let is_rule = |path: &Path| path.parent().is_some_and(|folder| folder.ends_with("rules"));
    for (path, source) in sources().into_iter().filter(|(path, _)| !is_rule(path)) {
        for text in literals(&source) {
            for found in told.captures_iter(&text) {
                let of_jobs =
                    || JOBS.iter().flat_map(|job| job.settings_named(&found[1])).collect::<BTreeSet<String>>();
                let keys = named.entry(found[1].to_owned()).or_insert_with(of_jobs);
                if !keys.is_empty() && !keys.contains(&found[1]) {
                    wrong.push(format!("{}: `{}` is {keys:?} in {text:?}", path.display(), &found[1]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_job_without_settings_names_flags_of_its_own_command() {
    let known = flags();
    let flag = Regex::new(r"(?:^|[^\w-])--([a-z][a-z-]*[a-z])").unwrap();
    for job in JOBS {
        let command = job.command();
        for problem in job.load(&Given::default()).err().unwrap_or_default() {
            let text = problem.to_string();
            for found in flag.captures_iter(&text) {
                assert!(known[command].contains(&found[1]), "setpoint {command}: {text}");
            }
        }
    }
}

#[test]
fn literals_are_found_where_they_are() {
    let source = "let a = \"one\"; // \"no\"\nlet c = '\"'; let r = r\"two\"; let l = \"th\\\n    ree \\\"x\\\"\"; fn f<'a>(x: &'a str) {}";
    assert_eq!(literals(source), ["one", "two", "three \"x\""]);
}

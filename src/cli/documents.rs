//! Every command, flag and setting that a document shows exists.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use regex::Regex;

use super::Cli;
use super::hints::flags;
use setpoint::config::Given;
use setpoint::failure::Problem;
use setpoint::jobs::{self, AnyJob, JOBS};

/// Commands that take settings without being jobs, and jobs that have those settings.
const OTHERS: [(&str, &str); 2] = [("chat", "generate"), ("inspect data", "sft")];

/// Returns the problems of settings. A document may show a part of them, so that settings may be missing.
fn read(job: &dyn AnyJob, given: &Given) -> Vec<Problem> {
    let found = job.load_unchecked(given).err().unwrap_or_default();
    found.into_iter().filter(|problem| !problem.message.contains("missing")).collect()
}

/// Returns the documents for users and contributors.
fn documents() -> Vec<PathBuf> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(|name| root.join(name)).to_vec();
    visit(&root.join("docs"), &mut found);
    visit(&root.join("examples"), &mut found);
    assert!(found.len() > 20, "{found:?}");
    found
}

/// Returns the code blocks of a language, each with the number of its first line.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, bool, String)> = None;
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(name)) => open = Some((at + 2, name == language, String::new())),
            (Some(_), Some(_)) => found.extend(open.take().filter(|(_, is_wanted, _)| *is_wanted)),
            (Some((_, _, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    found.into_iter().map(|(at, _, block)| (at, block)).collect()
}

/// Returns the words of a shell's line: quotes keep words together, `#` begins a comment.
fn words(line: &str) -> Vec<String> {
    let token = Regex::new(r#"(?:[^\s"'#]|"[^"]*"|'[^']*'|[^\s"']#)+|#.*"#).unwrap();
    let found = token.find_iter(line).map(|word| word.as_str()).take_while(|word| !word.starts_with('#'));
    found.map(|word| word.replace(['"', '\''], "")).collect()
}

/// Returns the arguments of the commands of this program in a block of a shell's lines.
fn commands(block: &str) -> Vec<Vec<String>> {
    let lines = block.replace("\\\n", " ");
    let all = lines.lines().map(words);
    let ours = all.filter_map(|words| {
        // Variables may be set before the command.
        let start = words.iter().position(|word| !word.contains('='))?;
        (words[start] == "setpoint").then(|| words[start + 1..].to_vec())
    });
    ours.collect()
}

/// Returns the values of an argument that may be repeated.
fn values<'w>(words: &'w [String], flag: &str) -> Vec<&'w str> {
    words.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1].as_str()).collect()
}

/// Returns the problems of a command.
fn problems(words: &[String]) -> Vec<String> {
    let line = words.join(" ");
    let all = std::iter::once("setpoint").chain(words.iter().map(String::as_str));
    if let Err(error) = Cli::command().try_get_matches_from(all) {
        // To ask for help is no mistake.
        if error.use_stderr() {
            return vec![format!("setpoint {line}: {error}")];
        }
    }
    let set: Vec<String> = values(words, "--set").into_iter().map(str::to_owned).collect();
    let name = match words {
        [first, ..] if first == "plan" => values(words, "--job").first().copied().unwrap_or("align"),
        _ => &line,
    };
    let begins = |command: &str| name == command || name.starts_with(&format!("{command} "));
    let other = OTHERS.iter().find(|(command, _)| begins(command)).and_then(|(_, job)| jobs::of_command(job));
    let job = JOBS.iter().copied().filter(|job| begins(job.command())).max_by_key(|job| job.command().len());
    match job.or(other) {
        Some(job) => {
            let found =
                read(job, &Given { set, neighbours: Some(jobs::neighbours(job.command())), ..Given::default() });
            found.into_iter().map(|problem| format!("setpoint {line}: {problem}")).collect()
        }
        None if set.is_empty() => vec![],
        None => vec![format!("setpoint {line}: has no settings")],
    }
}

#[test]
fn commands_in_blocks_can_be_given() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, block) in blocks(&text, "sh") {
            for command in commands(&block) {
                checked += 1;
                wrong.extend(problems(&command).into_iter().map(|text| format!("{}:{at}: {text}", path.display())));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 40, "only {checked} commands were found");
}

#[test]
fn commands_in_sentences_have_flags_that_exist() {
    let flags = flags();
    let quoted = Regex::new(r"`setpoint ([^`]+)`").unwrap();
    let flag = Regex::new(r"(?:^|\s)--([a-z][a-z-]*)").unwrap();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap().replace('\n', " ");
        for found in quoted.captures_iter(&text) {
            let words: Vec<&str> = found[1].split_whitespace().collect();
            // `eval tasks`, or `align` with a file after it.
            let own_flag = words.first().is_some_and(|word| word.starts_with("--"));
            let command = [2, 1]
                .into_iter()
                .map(|count| words[..count.min(words.len())].join(" "))
                .chain(own_flag.then(String::new))
                .find(|name| flags.contains_key(name));
            checked += 1;
            match command {
                None => wrong.push(format!("{}: {}", path.display(), &found[0])),
                Some(name) => {
                    let unknown = flag.captures_iter(&found[1]).filter(|flag| !flags[&name].contains(&flag[1]));
                    wrong.extend(unknown.map(|flag| format!("{}: --{} in {}", path.display(), &flag[1], &found[0])));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 60, "only {checked} commands were found");
}

#[test]
fn settings_in_blocks_are_those_of_a_job() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, block) in blocks(&text, "toml") {
            let place = format!("{}:{at}", path.display());
            let table = match block.parse::<toml::Table>() {
                Ok(table) => table,
                Err(error) => {
                    wrong.push(format!("{place}: {}", error.message()));
                    continue;
                }
            };
            // A manifest of cargo's.
            if table.contains_key("dependencies") {
                continue;
            }
            checked += 1;
            let file = folder.path().join(format!("{checked}.toml"));
            std::fs::write(&file, &block).unwrap();
            let given = Given { file: Some(file), ..Given::default() };
            let best = JOBS.iter().map(|job| read(*job, &given)).min_by_key(Vec::len);
            wrong.extend(best.unwrap_or_default().into_iter().map(|problem| format!("{place}: {problem}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 10, "only {checked} blocks of settings were found");
}

#[test]
fn commands_are_found_and_wrong_ones_are_told() {
    let text =
        "```sh\nKEY=1 setpoint sft --set a.b=\"c d\" \\\n  --run r   # said\ncargo build\n```\n```toml\na = 1\n```\n";
    let found: Vec<Vec<String>> = blocks(text, "sh").iter().flat_map(|(_, block)| commands(block)).collect();
    assert_eq!(found, [["sft", "--set", "a.b=c d", "--run", "r"]]);
    assert_eq!(blocks(text, "toml"), [(7, "a = 1\n".to_owned())]);
    let told = |line: &str| problems(&words(line)).join("\n");
    assert_eq!(told("align --set train.epochs=1 --run r"), "");
    assert_eq!(told("plan --job sft --set data.responses=best"), "");
    assert!(told("align --set train.epoch=1").contains("not a setting"));
    assert!(told("align --runs r").contains("--runs"));
    assert!(told("aline --run r").contains("aline"));
    assert!(told("sft --set align.beta=1").contains("`align.beta` is a setting of "));
}

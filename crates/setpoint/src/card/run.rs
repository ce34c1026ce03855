//! The card of a run's model, from the settings, the data's rows and the metrics in the run folder.

use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use serde_json::{Value as Json, json};
use setpoint_data::{Push, hex};
use setpoint_train::RunDir;
use sha2::{Digest, Sha256};
use toml::Value;

use super::base::{Base, name_of};
use super::{Card, Kind, table};
use crate::failure::Outcome;
use crate::identity::{Row, is_place};
use crate::model_folder::is_adapter;

/// Settings of `[train]` and others that a card shows, besides all of `[align]` and `[adapter]`.
const SHOWN: [&str; 16] = [
    "center",
    "rounds",
    "encode.max_length",
    "encode.max_prompt_length",
    "train.epochs",
    "train.max_steps",
    "train.batch_size",
    "train.drop_last",
    "train.seed",
    "train.learning_rate",
    "train.max_grad_norm",
    "train.clip_by",
    "train.best.metric",
    "train.best.restore",
    "train.best.patience",
    "stop.max_kl",
];
/// The same, by their beginnings.
const SHOWN_PREFIXES: [&str; 4] = ["align.", "adapter.", "train.schedule.", "train.optimizer."];
/// The longest value that a card shows, in characters.
const LONGEST: usize = 200;

/// The settings of a run, each with its dotted key.
type Settings = [(String, Value)];

/// Writes the card of a finished run into `folder`, which holds its model. `job`: the command that carried it out.
///
/// # Errors
/// When the card cannot be written.
pub fn write_of_run(run: &Path, job: &str, settings: &Settings, steps: u64, folder: &str) -> Outcome {
    let dir = run.join(folder);
    of_run(run, job, settings, steps, &dir).write(&dir)
}

fn of_run(run: &Path, job: &str, settings: &Settings, steps: u64, dir: &Path) -> Card {
    let text = |key: &str| value(settings, key).and_then(Value::as_str).map(str::to_owned);
    let kind = if job == "reward" { Kind::Reward } else { Kind::Language };
    let (method, tag) = match job {
        "sft" => ("SFT".to_owned(), "sft".to_owned()),
        "reward" => ("Bradley–Terry reward model".to_owned(), "reward-model".to_owned()),
        _ => {
            // A list of losses has no method.
            let name = text("align.method").unwrap_or_else(|| "losses".to_owned());
            (name.to_uppercase().replace('_', "-"), name)
        }
    };
    let has_adapter = is_adapter(dir);
    let mut tags = vec![tag];
    tags.extend(has_adapter.then(|| "lora".to_owned()));
    let sets: Vec<DataSet> =
        ["data", "eval_data"].into_iter().flat_map(|section| DataSet::all(run, settings, section)).collect();
    let mut datasets: Vec<String> = sets.iter().filter(|set| set.on_hub).map(|set| set.name.clone()).collect();
    datasets.dedup();
    Card {
        kind,
        is_adapter: has_adapter,
        has_template: dir.join("chat_template.jinja").is_file(),
        base: text("model.path").map(|path| Base::of(&path)).unwrap_or_default(),
        datasets,
        tags,
        body: format!("{}{}{}", method_part(job, settings, steps), data_part(&sets), results_part(run, settings)),
        method,
    }
}

/// Returns the setting of a dotted key.
fn value<'a>(settings: &'a Settings, key: &str) -> Option<&'a Value> {
    settings.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn method_part(job: &str, settings: &Settings, steps: u64) -> String {
    let shown = |key: &str| SHOWN.contains(&key) || SHOWN_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    let rows: Vec<Vec<String>> = settings
        .iter()
        .filter(|(key, _)| shown(key) && !is_place(key))
        .filter_map(|(key, value)| Some(vec![key.clone(), cell(value)?]))
        .collect();
    let steps = setpoint_data::counted(usize::try_from(steps).unwrap_or(usize::MAX), "step");
    format!("\n## Method\n\n`setpoint {job}`, {steps}, with these settings:\n\n{}", table(&["setting", "value"], &rows))
}

/// Returns a value as a card shows it, or `None` for one that may name a place of this machine or is too long.
fn cell(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    (!text.contains(['/', '\\']) && text.chars().count() <= LONGEST).then_some(text)
}

/// A data set of a run.
struct DataSet {
    section: &'static str,
    /// Its id on the hub, or the last part of its path.
    name: String,
    on_hub: bool,
    /// Its weight, if the data sets have weights.
    weight: Option<f64>,
    /// The number of its rows, and a hash of their tokens, if the run has kept them.
    rows: Option<(usize, String)>,
}

impl DataSet {
    /// Returns the data sets of a section.
    fn all(run: &Path, settings: &Settings, section: &'static str) -> Vec<Self> {
        let text = |value: &Value| value.as_str().filter(|path| !path.is_empty()).map(str::to_owned);
        let path = value(settings, &format!("{section}.path")).and_then(text);
        let sources = value(settings, &format!("{section}.sources")).and_then(Value::as_array);
        let source = |source: &Value| {
            let weight = source.get("weight");
            let weight =
                weight.and_then(|weight| weight.as_float().or(weight.as_integer().map(|weight| weight as f64)));
            source.get("path").and_then(text).map(|path| (path, weight))
        };
        let named: Vec<(String, Option<f64>)> = match sources {
            Some(sources) => sources.iter().filter_map(source).collect(),
            None => path.into_iter().map(|path| (path, None)).collect(),
        };
        let kept = rows(&run.join(format!("rows-{section}.jsonl")), named.len());
        let set = |(i, (path, weight)): (usize, (String, Option<f64>))| {
            let on_hub = !Path::new(&path).exists() && Push::id_problem(&path).is_none();
            let name = if on_hub { path } else { name_of(Path::new(&path))? };
            let rows = kept.as_ref().and_then(|kept| kept.get(i).cloned());
            Some(Self { section, name, on_hub, weight, rows })
        };
        named.into_iter().enumerate().filter_map(set).collect()
    }
}

/// Counts the rows of each of `sets` data sets in a file that a run has kept, and hashes their tokens as the run's identity does.
fn rows(path: &Path, sets: usize) -> Option<Vec<(usize, String)>> {
    let mut found = vec![(0, Sha256::new()); sets];
    let file = setpoint_files::open(path).ok()?;
    for line in BufReader::new(file.take(setpoint_files::LARGE)).lines() {
        let row: Row = serde_json::from_str(&line.ok()?).ok()?;
        let (count, hash) = found.get_mut(row.set)?;
        hash.update(serde_json::to_vec(&json!(row.tokens)).ok()?);
        hash.update(b"\n");
        *count += 1;
    }
    Some(found.into_iter().map(|(count, hash)| (count, hex(&hash.finalize()))).collect())
}

fn data_part(sets: &[DataSet]) -> String {
    if sets.is_empty() {
        return String::new();
    }
    let weighted = sets.iter().any(|set| set.weight.is_some());
    let row = |set: &DataSet| {
        let (rows, hash) = match &set.rows {
            Some((rows, hash)) => (rows.to_string(), hash.clone()),
            None => (String::new(), String::new()),
        };
        let what = if set.section == "data" { "training" } else { "evaluation" };
        let weight = weighted.then(|| set.weight.map_or_else(String::new, |weight| weight.to_string()));
        [what.to_owned(), set.name.clone()].into_iter().chain(weight).chain([rows, hash]).collect()
    };
    let rows: Vec<Vec<String>> = sets.iter().map(row).collect();
    let names: Vec<&str> = match weighted {
        true => vec!["for", "name", "weight", "rows", "SHA-256 of the tokens"],
        false => vec!["for", "name", "rows", "SHA-256 of the tokens"],
    };
    format!("\n## Data\n\n{}", table(&names, &rows))
}

/// The numbers of the evaluation that the model was saved after: the best one if the run restores it, else the last one.
fn results_part(run: &Path, settings: &Settings) -> String {
    let restored = value(settings, "train.best.restore").and_then(Value::as_bool) == Some(true);
    let more = value(settings, "train.best.greater_is_better").and_then(Value::as_bool) == Some(true);
    let metric = value(settings, "train.best.metric").and_then(Value::as_str).unwrap_or("eval_loss").to_owned();
    let mut found: Option<(u64, serde_json::Map<String, Json>)> = None;
    let Ok(file) = setpoint_files::open(&run.join(RunDir::METRICS)) else { return String::new() };
    for line in BufReader::new(file.take(setpoint_files::LARGE)).lines().map_while(Result::ok) {
        let Ok(Json::Object(line)) = serde_json::from_str::<Json>(&line) else { continue };
        let Some(step) = line.get("step").and_then(Json::as_u64) else { continue };
        let number = |line: &serde_json::Map<String, Json>| line.get(&metric).and_then(Json::as_f64);
        if !line.keys().any(|key| key.starts_with("eval_")) {
            continue;
        }
        let better = match (&found, restored) {
            (Some((_, best)), true) => match (number(best), number(&line)) {
                (Some(best), Some(now)) => {
                    if more {
                        now > best
                    } else {
                        now < best
                    }
                }
                (None, now) => now.is_some(),
                (Some(_), None) => false,
            },
            _ => true,
        };
        if better {
            found = Some((step, line));
        }
    }
    let Some((step, line)) = found else { return String::new() };
    let rows: Vec<Vec<String>> = line
        .iter()
        .filter(|(name, _)| name.starts_with("eval_"))
        .filter_map(|(name, value)| Some(vec![name.clone(), format!("{:.4}", value.as_f64()?)]))
        .collect();
    format!(
        "\n## Results\n\nThe evaluation after step {step}, on the evaluation data:\n\n{}",
        table(&["metric", "value"], &rows)
    )
}

#[cfg(test)]
mod tests {
    use toml::Table;

    use super::*;

    /// Settings with their dotted keys.
    fn settings(more: &str) -> Vec<(String, Value)> {
        fn walk(prefix: &str, table: Table, into: &mut Vec<(String, Value)>) {
            for (key, value) in table {
                match value {
                    Value::Table(inner) => walk(&format!("{prefix}{key}."), inner, into),
                    value => into.push((format!("{prefix}{key}"), value)),
                }
            }
        }
        let mut found = Vec::new();
        walk("", format!("{SETTINGS}\n[train.best]\n{more}").parse().unwrap(), &mut found);
        found
    }

    const SETTINGS: &str = r#"
        [model]
        path = "/home/someone/secret place/base"
        [data]
        path = "someone/pairs"
        [eval_data]
        path = "/home/someone/secret place/held-out.jsonl"
        [align]
        method = "cal_dpo"
        beta = 0.1
        ensemble = "/home/someone/secret place/rewards.jsonl"
        [reward]
        key = "hf_secret"
        [train]
        learning_rate = 1e-6
        mirror = "/home/someone/secret place/mirror"
        [train.schedule]
        kind = "cosine"
    "#;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "rows-data.jsonl",
            "{\"name\": \"a:1\", \"tokens\": [\"01\", \"02\"]}\n{\"name\": \"a:2\", \"tokens\": [\"03\"]}\n",
        );
        write(
            RunDir::METRICS,
            "{\"step\":2,\"loss\":0.5,\"step_seconds\":1.5}\n{\"step\":2,\"eval_loss\":0.25,\"eval_rewards/accuracies\":0.5}\n\
             {\"step\":4,\"eval_loss\":0.75,\"eval_rewards/accuracies\":0.625}\n",
        );
        std::fs::create_dir(dir.path().join("model")).unwrap();
        std::fs::write(dir.path().join("model/chat_template.jinja"), "x").unwrap();
        dir
    }

    #[test]
    fn the_card_of_a_run_names_no_place_and_no_secret() {
        let run = folder();
        write_of_run(run.path(), "align", &settings(""), 4, "model").unwrap();
        let text = std::fs::read_to_string(run.path().join("model/README.md")).unwrap();
        for expected in [
            "datasets:\n- someone/pairs\n",
            "tags:\n- setpoint\n- cal_dpo\n",
            "# base, CAL-DPO\n",
            "Its base is `base`.",
            "`setpoint align`, 4 steps",
            "| align.beta | 0.1 |",
            "| train.schedule.kind | cosine |",
            "| training | someone/pairs | 2 | ",
            "| evaluation | held-out.jsonl |  |  |",
            "after step 4",
            "| eval_rewards/accuracies | 0.6250 |",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        for secret in ["/home", "secret", "step_seconds", "mirror", "ensemble"] {
            assert!(!text.contains(secret), "{secret}\n{text}");
        }
        // `printf '["01","02"]\n["03"]\n' | sha256sum`
        let expected = hex(&Sha256::digest("[\"01\",\"02\"]\n[\"03\"]\n"));
        assert!(text.contains(&expected), "{text}");
        write_of_run(run.path(), "align", &settings(""), 4, "model").unwrap();
        assert_eq!(std::fs::read_to_string(run.path().join("model/README.md")).unwrap(), text);
    }

    #[test]
    fn the_card_lists_every_data_set() {
        let run = folder();
        let kept = "{\"name\": \"a:1\", \"tokens\": [\"01\", \"02\"]}\n{\"name\": \"b:1\", \"set\": 1, \"tokens\": [\"03\"]}\n\
                    {\"name\": \"b:2\", \"set\": 1, \"tokens\": [\"04\"]}\n";
        std::fs::write(run.path().join("rows-data.jsonl"), kept).unwrap();
        let sources = r#"[{ path = "someone/chats", weight = 0.75 }, { path = "/home/someone/secret place/math.jsonl", weight = 1 }]"#;
        let mut settings = settings("");
        settings.retain(|(key, _)| key != "data.path");
        settings.push(("data.path".to_owned(), "".into()));
        settings.push(("data.sources".to_owned(), sources.parse().unwrap()));
        write_of_run(run.path(), "sft", &settings, 4, "model").unwrap();
        let text = std::fs::read_to_string(run.path().join("model/README.md")).unwrap();
        let hash = |rows: &str| hex(&Sha256::digest(rows));
        for expected in [
            "datasets:\n- someone/chats\n".to_owned(),
            format!("| training | someone/chats | 0.75 | 1 | {} |", hash("[\"01\",\"02\"]\n")),
            format!("| training | math.jsonl | 1 | 2 | {} |", hash("[\"03\"]\n[\"04\"]\n")),
        ] {
            assert!(text.contains(&expected), "{expected}\n{text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn the_results_are_those_of_the_model_that_was_saved() {
        let run = folder();
        let part = |more: &str| results_part(run.path(), &settings(more));
        assert!(part("metric = \"eval_loss\"").contains("after step 4"));
        assert!(part("metric = \"eval_loss\"\nrestore = true").contains("after step 2"));
        let accuracy = "metric = \"eval_rewards/accuracies\"\nrestore = true\ngreater_is_better = true";
        assert!(part(accuracy).contains("after step 4"));
        std::fs::write(run.path().join(RunDir::METRICS), "{\"step\":1,\"loss\":0.5}\n").unwrap();
        assert_eq!(part(""), "");
    }
}

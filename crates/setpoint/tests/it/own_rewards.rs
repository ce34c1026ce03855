//! A source of rewards that this program defines, wherever rewards are needed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use serde_json::{Value, json};
use setpoint::annotate::{self, AnnotateConfig, RewardError, RewardSource, Scored};
use setpoint::config::DatasetConfig;
use setpoint::eval::alpaca::{self, AlpacaConfig};
use setpoint::eval::{self, EvalConfig};
use setpoint::session::Existing;
use setpoint::sources::Sources;
use setpoint::{Failure, Session};

/// One for each letter `e` of a response, less a tenth for each of its tokens, if it asks for them. It can fail at a row.
#[derive(Default)]
struct Es {
    reads_tokens: bool,
    fails_at: Option<usize>,
    part: Option<usize>,
    scored: AtomicUsize,
    finished: AtomicUsize,
}

impl RewardSource for Es {
    fn describe(&self) -> String {
        "the letters e".to_owned()
    }

    fn needs_tokens(&self) -> bool {
        self.reads_tokens
    }

    fn part_size(&self) -> Option<usize> {
        self.part
    }

    fn rate(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, RewardError> {
        let rate = |item: &Scored<'_>| {
            if Some(item.row) == self.fails_at {
                let source = "it had to".into();
                return Err(RewardError::Source { source_name: self.describe(), row: item.row, response: 0, source });
            }
            self.scored.fetch_add(1, Ordering::Relaxed);
            let tokens = if self.reads_tokens { item.response_ids.len() } else { 0 };
            Ok(item.response.matches('e').count() as f64 - tokens as f64 / 10.0)
        };
        progress(items.len());
        items.iter().map(rate).collect()
    }

    fn finish(&self) -> Result<(), RewardError> {
        self.finished.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn session(existing: Existing) -> Session {
    Session { existing, ..Session::on(Device::flex()) }
}

/// A tiny model with its tokenizer.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/runs-4bb4a63/base")
}

fn write(path: &Path, rows: &[Value]) {
    let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn rows(folder: &Path) -> DatasetConfig {
    let row = |i: usize| json!({"prompt": format!("Tell me {i}."), "responses": ["a tree", "eee", "no"], "rewards": [9, 9, 9]});
    let path = folder.join("rows.jsonl");
    write(&path, &(0..3).map(row).collect::<Vec<_>>());
    DatasetConfig::new(path.display().to_string())
}

fn rewards(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["rewards"].clone()).collect()
}

#[test]
fn it_annotates() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("rewards.jsonl");
    let config =
        AnnotateConfig { data: rows(folder.path()), output: Some(output.clone()), ..AnnotateConfig::default() };
    let source = Es::default();
    annotate::run_with(&session(Existing::Refuse), &config, &source).unwrap();
    assert_eq!(rewards(&output), vec![json!([2.0, 3.0, 0.0]); 3]);
    assert_eq!(source.finished.into_inner(), 1);

    // The settings may not bring another one.
    let mut both = config.clone();
    both.sources.column.0 = Some("rewards".to_owned());
    let refused = annotate::run_with(&session(Existing::Overwrite), &both, &Es::default()).unwrap_err();
    assert!(matches!(&refused, Failure::Usage(_)) && refused.to_string().contains("column"), "{refused}");

    // Tokens are those of the tokenizer in the settings.
    let tokens = Es { reads_tokens: true, ..Es::default() };
    let refused = annotate::run_with(&session(Existing::Overwrite), &config, &tokens).unwrap_err().to_string();
    assert!(refused.contains("this source reads tokens: set `model.tokenizer`"), "{refused}");
    let mut config = config;
    config.model.tokenizer = Some(model());
    annotate::run_with(&session(Existing::Overwrite), &config, &tokens).unwrap();
    assert!(rewards(&output)[0][2].as_f64().unwrap() < 0.0);
}

#[test]
fn it_goes_on_where_it_failed() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("rewards.jsonl");
    let config =
        AnnotateConfig { data: rows(folder.path()), output: Some(output.clone()), ..AnnotateConfig::default() };
    let failing = Es { fails_at: Some(2), part: Some(3), ..Es::default() };
    let failure = annotate::run_with(&session(Existing::Refuse), &config, &failing).unwrap_err().to_string();
    assert!(failure.contains(".jsonl:3, response 0: the letters e failed: it had to"), "{failure}");
    let cured = Es { part: Some(3), ..Es::default() };
    annotate::run_with(&session(Existing::Continue), &config, &cured).unwrap();
    assert_eq!(cured.scored.into_inner(), 3, "two rows were kept");
    assert_eq!(rewards(&output), vec![json!([2.0, 3.0, 0.0]); 3]);
}

#[test]
fn it_judges_samples() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = EvalConfig { data: rows(folder.path()), ..EvalConfig::default() };
    config.model.path = Some(model());
    config.baseline.path = Some(model());
    config.generate.max_new_tokens = Some(6);
    let source = Es { reads_tokens: true, ..Es::default() };
    let report = eval::report_with(&session(Existing::Refuse), &config, &source).unwrap();
    assert_eq!(report.prompts, 3);
    // A model against itself, with the same seed. Every answer has tokens.
    assert_eq!(report.rewards, report.baseline_rewards);
    assert!(report.rewards.iter().any(|reward| reward.fract() != 0.0), "{:?}", report.rewards);
    assert_eq!(report.manifest.unwrap().judge, json!({"source": "the letters e"}));
    assert_eq!((source.scored.into_inner(), source.finished.into_inner()), (6, 1));

    config.reward.path = Some(model());
    let refused = eval::report_with(&session(Existing::Refuse), &config, &Es::default()).unwrap_err().to_string();
    assert!(refused.contains("reward.path"), "{refused}");
}

#[test]
fn it_judges_alpaca_eval() {
    let folder = tempfile::tempdir().unwrap();
    let outputs = |name: &str, outputs: [&str; 3]| {
        let row = |(i, output): (usize, &&str)| json!({"instruction": format!("Say {i}."), "output": output, "generator": name});
        let path = folder.path().join(format!("{name}.json"));
        let rows: Vec<Value> = outputs.iter().enumerate().map(row).collect();
        std::fs::write(&path, json!(rows).to_string()).unwrap();
        Some(path)
    };
    let config = AlpacaConfig {
        baseline: outputs("plain", ["eee", "no", "e"]),
        outputs: outputs("rich", ["e", "eee", "eeee"]),
        output: Some(folder.path().join("result")),
        ..AlpacaConfig::default()
    };
    let evaluated = alpaca::run_with(&session(Existing::Overwrite), &config, &Es::default()).unwrap();
    let preferences: Vec<f64> = evaluated.items.iter().map(|item| item.value).collect();
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (found, difference) in preferences.iter().zip([-2.0, 3.0, 3.0]) {
        assert!((found - logistic(difference)).abs() < 1e-12, "{preferences:?}");
    }
    assert_eq!(evaluated.manifest.judge, json!({"source": "the letters e"}));
    let tokens = Es { reads_tokens: true, ..Es::default() };
    let refused = alpaca::run_with(&session(Existing::Overwrite), &config, &tokens).unwrap_err().to_string();
    assert!(refused.contains("the letters e reads tokens"), "{refused}");
}

#[test]
fn the_docs_have_every_source_of_the_settings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/REWARDS.md");
    let text = std::fs::read_to_string(path).unwrap();
    for (key, _) in Sources::default().entries() {
        let named = [format!("(`[{key}]`"), format!("(`--set {key}=")];
        assert!(named.iter().any(|name| text.contains(name)), "docs/REWARDS.md does not describe `{key}`");
    }
}

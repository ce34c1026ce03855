//! One trial: its settings as files, and the process that trains and evaluates it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use setpoint_eval::Trend;
use setpoint_files::words;
use setpoint_train::{Error, RunDir};
use toml::Value;

use super::figures::Figures;
use super::loss::{loss_trend, sampled_tokens};
use super::space::Point;
use crate::align::AlignConfig;
use crate::config::load::to_table;
use crate::config::{Given, Problem, load};
use crate::eval::{self, EvalConfig};
use crate::failure::{Failure, Outcome};
use crate::frontier::{KL, REWARD};
use crate::session::Cost;
use crate::session::{Session, Shared};
use crate::training::{finished_steps, kept_model, kept_steps};
use crate::{align, setup};

/// A training: a folder's name, and the settings of `setpoint align`.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Its folder in `RUN/trials`.
    pub name: String,
    /// The settings that are tried.
    pub point: Point,
    /// All settings.
    pub config: AlignConfig,
}

/// The shared settings with those of a point.
pub fn with_point(base: &AlignConfig, point: &Point) -> Result<AlignConfig, Vec<Problem>> {
    let mut table = to_table(base);
    if let Some(Value::Table(section)) = table.get_mut("align") {
        let of_point = |key: &str| point.iter().find(|(k, _)| k.strip_prefix("align.") == Some(key)).map(|(_, v)| v);
        align::adapt(&base.align.about(), section, of_point);
    }
    load::from_table(table, point)
}

/// The setting of a point that a problem is about: the one it names; where it names a whole section, the one its message names, else the
/// first of that section.
pub fn blamed(problem: &Problem, point: &Point) -> Option<String> {
    let place = problem.place.trim_matches('`');
    let inside = |key: &&String| key.starts_with(&format!("{place}.")) || place.starts_with(&format!("{key}."));
    let named = |key: &&String| {
        let last = key.rsplit('.').next().unwrap_or(key);
        problem.message.contains(&format!("`{last}`"))
    };
    let keys = || point.iter().map(|(key, _)| key);
    let exact = keys().find(|key| *key == place);
    exact.or_else(|| keys().find(|key| inside(key) && named(key))).or_else(|| keys().find(inside)).cloned()
}

/// The cost of a training, written when it is over: as if the trial had computed itself what another did for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trained {
    /// Seconds of the process that finished the training, its start and the reference's log-probabilities included, whoever computed them.
    pub seconds: f64,
    /// Greatest resident memory of that process, or of the one that computed the reference's log-probabilities if that is more, bytes; the
    /// device's own memory is not in it. Where the system tells.
    pub peak_memory: Option<u64>,
    /// True if that process went on from a checkpoint of another, whose seconds are not counted.
    pub resumed: bool,
}

/// The settings of `setpoint align`.
pub const ALIGN: &str = "align.toml";
/// The mark of a finished training.
pub const TRAINED: &str = "trained.json";

/// The settings of an evaluation on a part of the held-out rows.
pub fn eval_settings(part: &str) -> String {
    format!("eval-{part}.toml")
}

/// Its figures.
pub fn eval_figures(part: &str) -> String {
    format!("eval-{part}.json")
}

/// Trains and evaluates the trial in `folder`, as far as that has not been done.
pub fn carry_out(session: &Session, folder: &Path, part: &str) -> Outcome {
    let given = |name: &str| Given { file: Some(folder.join(name)), ..Given::default() };
    let config: AlignConfig = load::load_written(&given(ALIGN))?;
    if !folder.join(TRAINED).is_file() {
        wait_for(folder);
        let started = Instant::now();
        let resumed = folder.join("checkpoints").is_dir();
        align::run(session, &config, folder, true)?;
        let saved = session.shared.as_ref().map(Shared::saved).unwrap_or_default();
        let Cost { seconds, peak_memory } = Cost::since(started).and(saved);
        let trained = Trained { seconds, peak_memory, resumed };
        setup::write_text(&folder.join(TRAINED), &(serde_json::to_string_pretty(&trained)? + "\n"))?;
    }
    let config: EvalConfig = load::load_written(&given(&eval_settings(part)))?;
    for (_, dir) in measured_steps(folder, part) {
        let mut config = config.clone();
        config.model.path = Some(dir.join("model"));
        measure(session, &config, &dir.join(eval_figures(part)))?;
    }
    measure(session, &config, &folder.join(eval_figures(part)))
}

/// The mark of a trial whose earlier models are measured on a part of the held-out rows, too.
pub fn steps_mark(part: &str) -> String {
    format!("steps-{part}")
}

/// Returns the steps before the last one whose models are measured on a part of the held-out rows, with their folders.
fn measured_steps(folder: &Path, part: &str) -> Vec<(u64, PathBuf)> {
    if !folder.join(steps_mark(part)).is_file() {
        return Vec::new();
    }
    let last = finished_steps(folder).unwrap_or(u64::MAX);
    let steps = kept_steps(folder).into_iter().filter(|step| *step < last);
    steps.filter_map(|step| Some((step, kept_model(folder, step).parent()?.to_owned()))).collect()
}

/// Evaluates a model, unless that has been done.
fn measure(session: &Session, config: &EvalConfig, output: &Path) -> Outcome {
    if !output.is_file() {
        let report = eval::report(session, config)?;
        let wins = wins(&report);
        let by_prompt = json!({ KL: report.kls, REWARD: report.rewards, "win_rate": wins, "tokens": report.lengths });
        let written =
            json!({ "figures": Figures::of(&report), "wins": wins, "by_prompt": by_prompt, "report": report });
        setup::write_text(output, &(serde_json::to_string_pretty(&written)? + "\n"))?;
    }
    Ok(())
}

/// Waits a while for the trial of a search that was killed, which may still be saving its last step.
fn wait_for(folder: &Path) {
    let started = Instant::now();
    while matches!(RunDir::open(folder), Err(Error::Locked { .. })) && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Prompt by prompt: 1 where the policy's reward is greater, ½ where both are equal.
fn wins(report: &eval::EvalReport) -> Vec<f64> {
    let win = |(own, other): (&f64, &f64)| match own.total_cmp(other) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    report.rewards.iter().zip(&report.baseline_rewards).map(win).collect()
}

/// The files of a finished trial, read back.
#[derive(Debug, Clone, Deserialize)]
struct Written {
    figures: Figures,
    wins: Vec<f64>,
    /// Evaluations of older versions have none.
    #[serde(default)]
    by_prompt: BTreeMap<String, Vec<f64>>,
}

/// The results of the model of an earlier step.
#[derive(Debug, Clone)]
pub struct Earlier {
    /// The step.
    pub step: u64,
    /// The measured figures.
    pub figures: Figures,
    /// Prompt by prompt, against the baseline.
    pub wins: Vec<f64>,
    /// The value of each prompt, by metric.
    pub by_prompt: BTreeMap<String, Vec<f64>>,
}

/// The cost and the results of a trial.
#[derive(Debug, Clone)]
pub struct Done {
    /// The cost of the training.
    pub trained: Trained,
    /// The measured figures.
    pub figures: Figures,
    /// Prompt by prompt, against the baseline.
    pub wins: Vec<f64>,
    /// The value of each prompt, by metric, the KL among them; none if an older version measured it.
    pub by_prompt: BTreeMap<String, Vec<f64>>,
    /// The same of the models of earlier steps, as far as they were kept and measured.
    pub earlier: Vec<Earlier>,
    /// The slope of the training loss at the end, if there were enough steps.
    pub trend: Option<Trend>,
    /// The tokens that the policy sampled while it trained, if it did.
    pub sampled_tokens: Option<f64>,
}

/// The results of a trial, or the reason for which it failed.
pub type Reached = Result<Done, String>;

/// Reads the results of a trial, when it is finished.
pub fn done(folder: &Path, part: &str) -> Outcome<Option<Done>> {
    let read = |path: &Path| -> Outcome<Option<String>> {
        match path.is_file() {
            false => Ok(None),
            true => Ok(Some(setpoint_files::read_text_up_to(path, setpoint_files::LARGE)?)),
        }
    };
    let bad = |path: &Path, e: serde_json::Error| {
        Failure::run(format!("{}: {}", path.display(), words::json(&e)))
            .hint("remove the file: the step is then done again")
    };
    let (trained_path, measured_path) = (folder.join(TRAINED), folder.join(eval_figures(part)));
    let (Some(trained), Some(measured)) = (read(&trained_path)?, read(&measured_path)?) else { return Ok(None) };
    let trained: Trained = serde_json::from_str(&trained).map_err(|e| bad(&trained_path, e))?;
    let Written { figures, wins, by_prompt } = serde_json::from_str(&measured).map_err(|e| bad(&measured_path, e))?;
    let mut earlier = Vec::new();
    for (step, dir) in measured_steps(folder, part) {
        let path = dir.join(eval_figures(part));
        let Some(text) = read(&path)? else { return Ok(None) };
        let Written { figures, wins, by_prompt } = serde_json::from_str(&text).map_err(|e| bad(&path, e))?;
        earlier.push(Earlier { step, figures, wins, by_prompt });
    }
    let (trend, sampled_tokens) = (loss_trend(folder), sampled_tokens(folder));
    Ok(Some(Done { trained, figures, wins, by_prompt, earlier, trend, sampled_tokens }))
}

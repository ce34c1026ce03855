//! `[eval]` of a sweep or comparison: on what and by what trials are measured, and how held-out prompts are divided.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::{DatasetConfig, Record, Response, Uses, load_records, pointwise_row, write_pointwise};
use setpoint_train::Order;

use crate::config::Problems;
use crate::config::flat::flat_section;
use crate::config::sections::{ModelSection, validate_data};
use crate::eval::EvalConfig;
use crate::failure::{Failure, Outcome};
use crate::generate::SamplingSection;
use crate::sources::{self, Judges, ModelSettings};
use crate::{annotate, setup};

/// `[eval]`: as the settings of `setpoint eval`, but for the models that are compared.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(rename = "HeldOut")]
pub struct HeldOut {
    /// Rows whose prompts are answered by the trained and by the SFT model.
    pub data: DatasetConfig,
    /// Held-out pairs, for the accuracy of the implicit reward and the log-ratios.
    pub pairs: Option<DatasetConfig>,
    /// The reward model that judges; or another source of rewards.
    pub reward: ModelSection,
    /// The other sources that can judge, `rule` and so on.
    #[serde(flatten, skip_deserializing)]
    pub judges: Judges,
    /// The sampling of both models.
    pub generate: SamplingSection,
    /// The number of resamples of the bootstrap.
    #[schemars(range(min = 100))]
    pub resamples: usize,
    /// Confidence level of the intervals.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub level: f64,
    /// Tokens in one forward pass.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub batch_tokens: usize,
}

flat_section!(HeldOut, judges: Judges, after "reward");

impl Default for HeldOut {
    fn default() -> Self {
        let EvalConfig { data, pairs, reward, judges, generate, resamples, level, batch_tokens, .. } =
            EvalConfig::default();
        Self { data, pairs, reward, judges, generate, resamples, level, batch_tokens }
    }
}

impl HeldOut {
    /// Notes what is wrong.
    pub fn validate(&self, problems: &mut Problems<'_>) {
        let model = ModelSettings::raw(&self.reward);
        let entries = sources::with_model("reward", &model, self.judges.entries());
        sources::require_chosen("judge", "eval.", "eval.reward.path", &entries, problems);
        sources::validate("eval.", &entries, ("give one judge", None), problems);
        validate_data(&self.data, "eval.data", problems);
        if let Some(pairs) = &self.pairs {
            validate_data(pairs, "eval.pairs", problems);
        }
        self.generate.validate("eval.generate", problems);
        problems.require(self.resamples >= 100, "eval.resamples", "must be at least 100");
        problems.require(self.level > 0.0 && self.level < 1.0, "eval.level", "must lie between 0 and 1");
        problems.require(self.batch_tokens > 0, "eval.batch_tokens", "must be at least 1");
    }

    /// Reads the held-out rows, the judge's tokenizer and the sampling settings of the model that is trained: what is wrong with them is
    /// found before anything is trained.
    pub fn check(&self, model: &ModelSection) -> Outcome {
        let encoder = setup::encoder(model)?;
        let config = setup::model_config(model, &encoder)?;
        self.generate.resolve(model, &config, &encoder)?;
        let prompts = setup::looking_at(&self.data, Uses::PROMPT);
        for data in std::iter::once(prompts).chain(self.pairs.as_ref().map(|p| setup::looking_at(p, Uses::PAIRS))) {
            if load_records(&data)?.0.is_empty() {
                return Err(Failure::run(format!("{} holds no rows", data.name())));
            }
        }
        if self.reward.path.is_some() {
            setup::model_config(&self.reward, &setup::encoder(&self.reward)?)?;
        }
        Ok(())
    }

    /// The evaluation of the model in `trained` against the one it was trained from, on a part of the held-out rows.
    pub fn config(&self, base: &ModelSection, trained: PathBuf, part: &Part) -> EvalConfig {
        let Self { reward, judges, generate, resamples, level, batch_tokens, .. } = self.clone();
        let model = ModelSection { path: Some(trained), tokenizer: None, ..base.clone() };
        let (data, pairs) = (part.data.clone(), part.pairs.clone());
        let baseline = base.clone();
        EvalConfig {
            model,
            baseline,
            reward,
            judges,
            data,
            pairs,
            generate,
            resamples,
            level,
            batch_tokens,
            ..EvalConfig::default()
        }
    }

    /// All held-out rows as one part.
    pub fn whole(&self) -> Part {
        Part { name: "all", data: self.data.clone(), pairs: self.pairs.clone() }
    }
}

/// Held-out rows that are evaluated on together.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name, in file names.
    pub name: &'static str,
    /// Prompts.
    pub data: DatasetConfig,
    /// Pairs.
    pub pairs: Option<DatasetConfig>,
}

/// Divides the held-out prompts into those that settings are selected on and those that are reported on, and writes both to `folder`.
/// No prompt is on both sides, whether it stands in several rows or among the pairs as well.
pub fn split(held_out: &HeldOut, share: f64, seed: u64, folder: &Path) -> Outcome<[Part; 2]> {
    let (prompts, _) = load_records(&setup::looking_at(&held_out.data, Uses::PROMPT))?;
    let pairs = match &held_out.pairs {
        Some(pairs) => load_records(&setup::looking_at(pairs, Uses::PAIRS))?.0,
        None => Vec::new(),
    };
    let selected = selected(&prompts, &pairs, share, seed);
    let part = |name: &'static str, selecting: bool| -> Outcome<Part> {
        let here = |record: &&Record| selected.contains(&annotate::prompt_text(&record.prompt)) == selecting;
        let prompts: Vec<&Record> = prompts.iter().filter(here).collect();
        let mine: Vec<&Record> = pairs.iter().filter(here).collect();
        if prompts.is_empty() || (mine.is_empty() && !pairs.is_empty()) {
            let (what, path) = match (prompts.is_empty(), &held_out.pairs) {
                (false, Some(pairs)) => ("pairs", pairs.name()),
                _ => ("prompts", held_out.data.name()),
            };
            return Err(Failure::run(format!(
                "{path}: too few different prompts to divide: no {what} are left to {name} on"
            ))
            .hint("give more held-out rows, or try a single choice of settings per method, which needs no selection"));
        }
        let file = |kind: &str| folder.join(format!("{name}-{kind}.jsonl"));
        let lines: Vec<String> = prompts.iter().map(|record| prompt_line(record)).collect::<Outcome<_>>()?;
        setup::write_text(&file("prompts"), &(lines.join("\n") + "\n"))?;
        // Prompts of plain text are written as such: what they become stays a setting.
        let dataset = |path: PathBuf, read: &DatasetConfig| DatasetConfig {
            text_prompts: read.text_prompts,
            system: read.system.clone(),
            ..DatasetConfig::new(path.to_string_lossy())
        };
        let mut part = Part { name, data: dataset(file("prompts"), &held_out.data), pairs: None };
        if let Some(read) = held_out.pairs.as_ref().filter(|_| !mine.is_empty()) {
            write_pointwise(&file("pairs"), mine)?;
            part.pairs = Some(dataset(file("pairs"), read));
        }
        Ok(part)
    };
    Ok([part("select", true)?, part("report", false)?])
}

/// The prompts to select on: this share of those that are answered, and of those that stand among the pairs alone.
fn selected(prompts: &[Record], pairs: &[Record], share: f64, seed: u64) -> HashSet<String> {
    let mut seen = HashSet::new();
    let mut drawn = HashSet::new();
    for (stream, records) in [prompts, pairs].into_iter().enumerate() {
        let texts = records.iter().map(|record| annotate::prompt_text(&record.prompt));
        let distinct: Vec<String> = texts.filter(|text| seen.insert(text.clone())).collect();
        let count = (share * distinct.len() as f64).round() as usize;
        let order = Order::new(seed).epoch(stream as u64, distinct.len());
        drawn.extend(order.into_iter().take(count).map(|i| distinct[i].clone()));
    }
    drawn
}

/// A row of the prompt alone, with the columns that a rule may read.
fn prompt_line(record: &Record) -> Outcome<String> {
    // The format has responses; what stands in for them is taken out again.
    let mut record = record.clone();
    record.responses = vec![Response::new("-")];
    let mut row = pointwise_row(&record)?;
    row.remove("responses");
    Ok(serde_json::to_string(&row)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prompt_is_on_both_sides_and_every_row_on_one() {
        let folder = tempfile::tempdir().unwrap();
        let demo =
            |name: &str| DatasetConfig::new(format!("{}/../../examples/demo/{name}", env!("CARGO_MANIFEST_DIR")));
        let held_out = HeldOut {
            data: demo("eval_prompts.jsonl"),
            pairs: Some(demo("eval_preferences.jsonl")),
            ..HeldOut::default()
        };
        let parts = split(&held_out, 0.4, 3, folder.path()).unwrap();
        let texts = |data: &DatasetConfig| -> Vec<String> {
            load_records(data).unwrap().0.iter().map(|r| annotate::prompt_text(&r.prompt)).collect()
        };
        let all = texts(&held_out.data);
        let [select, report] = [&parts[0], &parts[1]].map(|part| texts(&part.data));
        assert_eq!(select.len() + report.len(), all.len());
        let distinct = |texts: &[String]| texts.iter().cloned().collect::<HashSet<_>>();
        let share = distinct(&select).len() as f64 / distinct(&all).len() as f64;
        assert!((share - 0.4).abs() < 0.02, "{share}");
        let [select_pairs, report_pairs] = [&parts[0], &parts[1]].map(|part| texts(part.pairs.as_ref().unwrap()));
        assert_eq!(select_pairs.len() + report_pairs.len(), 180);
        let side = |a: &[String], b: &[String]| distinct(a).union(&distinct(b)).cloned().collect::<HashSet<_>>();
        assert!(side(&select, &select_pairs).is_disjoint(&side(&report, &report_pairs)));
        // A pair keeps its sides.
        let (pairs, _) = load_records(parts[1].pairs.as_ref().unwrap()).unwrap();
        assert!(pairs.iter().all(|pair| pair.chosen().is_some() && pair.rejected().is_some()));
    }

    #[test]
    fn too_few_prompts_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.jsonl");
        std::fs::write(&path, "{\"prompt\": \"One?\"}\n{\"prompt\": \"One?\"}\n").unwrap();
        let held_out = HeldOut { data: DatasetConfig::new(path.to_string_lossy()), ..HeldOut::default() };
        let failure = split(&held_out, 0.5, 0, folder.path()).unwrap_err().to_string();
        assert!(failure.contains("one.jsonl") && failure.contains("too few"), "{failure}");
    }
}

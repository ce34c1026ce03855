//! `[frontier]` of a comparison: the methods at equal KL.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_eval::Bootstrap;
use setpoint_train::RunDir;

use super::Measured;
use super::contender::Contender;
use super::settings::CompareConfig;
use crate::config::Problems;
use crate::failure::Outcome;
use crate::frontier::{Frontier, KL, Model, further_metrics};
use crate::search::written;

/// `[frontier]`: reward against KL, a line for each method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FrontierSection {
    /// KLs from the SFT model at which the methods are compared.
    #[schemars(extend("x-unit" = "nats"))]
    pub kl: Vec<f64>,
    /// The method that the others are compared with; by default the first of `compare.methods`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// The number of models on the way of each training that are kept and measured as well, in equal distances.
    pub checkpoints: usize,
    /// Trains every choice of settings with every seed, and measures all of them on the prompts of the report. By default the lines are those
    /// of the selection: the first seed, on the prompts that settings are selected on.
    pub every_seed: bool,
}

impl FrontierSection {
    /// Returns whether methods with a single choice of settings take part in the selection's stage, to be on the same prompts as the others.
    pub(crate) fn is_asked(&self) -> bool {
        !self.kl.is_empty()
    }

    /// Returns the method that the others are compared with.
    pub fn baseline(&self, methods: &[Contender]) -> Option<String> {
        let named = self.baseline.as_deref().and_then(Contender::named);
        named.as_ref().or_else(|| methods.first()).map(Contender::name)
    }

    /// Notes what is wrong. `has_choice`: whether a method is tried with several settings.
    pub fn validate(&self, methods: &[Contender], has_choice: bool, problems: &mut Problems<'_>) {
        problems.require(
            self.kl.iter().all(|kl| kl.is_finite() && *kl > 0.0),
            "frontier.kl",
            "a KL must be above 0 nats per response",
        );
        problems.require(
            self.kl.is_empty() || has_choice || self.checkpoints > 0,
            "frontier.kl",
            "no method has several choices of settings, so there is no line to read: set `compare.grids`, `compare.search = \"preset\"` or \
             `frontier.checkpoints`",
        );
        if let Some(name) = &self.baseline {
            let found = Contender::named(name).filter(|named| methods.contains(named));
            problems.require(found.is_some(), "frontier.baseline", format!("`{name}` is not among `compare.methods`"));
        }
    }
}

/// Draws the lines through the trials that were measured on a part of the held-out rows.
pub fn draw(config: &CompareConfig, run: &RunDir, measured: &[Measured], part: &str) -> Outcome<Frontier> {
    let mut models = Vec::new();
    let mut older = 0;
    for Measured { trial, outcome } in measured {
        let Ok(done) = outcome else { continue };
        if done.by_prompt.is_empty() {
            older += 1;
            continue;
        }
        let settings = written(&trial.point);
        let last = Model {
            method: Contender::of(&trial.config).name(),
            settings: settings.clone(),
            name: trial.name.clone(),
            values: done.by_prompt.clone(),
            trend: done.trend,
        };
        let between = if settings.is_empty() { "" } else { ", " };
        let earlier = done.earlier.iter().map(|earlier| Model {
            settings: format!("{settings}{between}step {}", earlier.step),
            name: format!("{}/steps/{:06}", trial.name, earlier.step),
            values: earlier.by_prompt.clone(),
            // The loss is that of the training, which went on.
            trend: None,
            ..last.clone()
        });
        for mut model in earlier.chain([last.clone()]) {
            let prompts = model.values.get(KL).map_or(0, Vec::len);
            model.values.extend(further_metrics(&run.join("trials").join(&model.name), part, prompts)?);
            models.push(model);
        }
    }
    if older > 0 {
        log::info!(
            "{older} of {} trials were measured by an older version, without the KL of each prompt, and are not on the lines: remove \
             eval-{part}.json from their folders to measure them again",
            measured.len()
        );
    }
    let bootstrap = Bootstrap { resamples: config.eval.resamples, level: config.eval.level, ..Bootstrap::default() };
    let methods = config.methods()?;
    let baseline = config.frontier.baseline(&methods).unwrap_or_default();
    let frontier = Frontier::of(&models, &config.frontier.kl, &baseline, &bootstrap)?;
    Ok(Frontier { part: part.to_owned(), ..frontier })
}

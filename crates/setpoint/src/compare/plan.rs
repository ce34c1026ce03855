//! The trainings of a comparison.

use setpoint_align::Method;
use setpoint_data::Uses;
use toml::Value;

use super::Measured;
use super::contender::Contender;
use super::presets;
use super::settings::{CompareConfig, CompareRollout, Search};
use crate::adapter::{self, with_tokenizer};
use crate::align::AlignConfig;
use crate::align::rounds::RolloutSection;
use crate::align::rounds::settings::most_examples;
use crate::failure::Outcome;
use crate::search::{Figures, Point, Rule, Space, Trial, steps, with_point};
use crate::session::Session;
use crate::setup;

/// More combinations than anybody can mean.
const MOST_POINTS: usize = 1_000_000;

/// A method and the settings it is tried with.
pub struct Candidate {
    /// The method with its defaults.
    pub method: Contender,
    /// The points that are tried; one empty point where its defaults are.
    pub points: Vec<Point>,
    /// All settings, point by point.
    configs: Vec<AlignConfig>,
}

impl Candidate {
    /// The training of a point with a seed.
    pub fn trial(&self, point: usize, seed: u64) -> Trial {
        let mut config = self.configs[point].clone();
        config.train.seed = seed;
        let name = format!("{}-{point:03}-seed{seed}", self.method.name());
        Trial { name, point: self.points[point].clone(), config }
    }

    /// Every point with a seed.
    pub fn trials(&self, seed: u64) -> Vec<Trial> {
        (0..self.points.len()).map(|point| self.trial(point, seed)).collect()
    }

    /// The best choice by what was measured; the only one where there was nothing to select; none where every training failed or is too far
    /// from the SFT model.
    pub fn best(&self, searched: &[Measured], rule: Rule) -> Option<Choice> {
        if self.points.len() == 1 {
            return Some(Choice { point: 0, step: None });
        }
        let measured = self.measured(searched, rule).into_iter().filter(|(_, _, figures)| rule.allows(figures));
        measured.min_by(|a, b| rule.order(a.2, b.2)).map(|(choice, _, _)| choice)
    }

    /// Says that no choice is near enough to the SFT model, if that is so.
    pub fn none_allowed(&self, searched: &[Measured], rule: Rule) -> Option<String> {
        if self.points.len() == 1 {
            return None;
        }
        rule.none_of(self.measured(searched, rule).into_iter().map(|(_, name, figures)| (name, figures)))
    }

    /// Returns the choices that were measured, with the name and the figures of the model. Models of earlier steps are a choice if there is a
    /// limit on the KL: they are nearer to the SFT model.
    fn measured<'m>(&self, searched: &'m [Measured], rule: Rule) -> Vec<(Choice, String, &'m Figures)> {
        let mut found = Vec::new();
        for point in 0..self.points.len() {
            let prefix = format!("{}-{point:03}-seed", self.method.name());
            let measured = searched.iter().find(|measured| measured.trial.name.starts_with(&prefix));
            let Some((name, Ok(done))) = measured.map(|measured| (&measured.trial.name, &measured.outcome)) else {
                continue;
            };
            found.push((Choice { point, step: None }, name.clone(), &done.figures));
            for earlier in done.earlier.iter().filter(|_| rule.max_kl.is_some()) {
                let choice = Choice { point, step: Some(earlier.step) };
                found.push((choice, format!("{name} at step {}", earlier.step), &earlier.figures));
            }
        }
        found
    }
}

/// The selected model of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The number of the settings.
    pub point: usize,
    /// The step whose model is taken, if it is not the last.
    pub step: Option<u64>,
}

/// The trainings of a comparison.
pub struct Plan {
    /// Method by method.
    pub methods: Vec<Candidate>,
    /// Optimizer steps of every training.
    pub steps: u64,
    /// The most memory that one is estimated to need, bytes.
    pub memory: f64,
}

impl Plan {
    /// Reads the data, and checks it for every method.
    pub fn of(session: &Session, config: &CompareConfig) -> Outcome<Self> {
        let encoder = setup::encoder(&with_tokenizer(&config.model, config.adapter.as_ref()))?;
        let encode = setup::within(&config.encode, &setup::model_config(&config.model, &encoder)?);
        let data = setup::looking_at(&config.data, Uses::TEXT);
        let read = setup::examples(&data, &encode, &encoder, "training data", session)?;
        let steps_of_all = config.train.plan(read.examples.len())?.total_steps;
        let mut plan = Self { methods: Vec::new(), steps: steps_of_all, memory: 0.0 };
        let mut config = config.clone();
        let rollout = config.compare.rollout.get_or_insert_default();
        // Rounds leave out the prompts that are cut otherwise.
        let prompts = read.examples.len().saturating_sub(read.report.cut).max(1);
        rollout.prompts.get_or_insert_with(|| RolloutSection::default_prompts(prompts));
        let config = &config;
        for method in config.methods()? {
            let base = base(config, &method, Some(steps_of_all));
            let points = points(config, &method).map_err(|wrong| {
                wrong.into_iter().map(|(place, message)| crate::config::Problem { place, message }).collect::<Vec<_>>()
            })?;
            let configs: Vec<AlignConfig> =
                points.iter().map(|point| with_point(&base, point)).collect::<Result<_, _>>()?;
            plan.memory = plan.memory.max(steps(session, &configs[0])?.1);
            plan.methods.push(Candidate { method, points, configs });
        }
        Ok(plan)
    }

    /// Returns whether settings are selected.
    pub fn searches(&self) -> bool {
        self.methods.iter().any(|method| method.points.len() > 1)
    }
}

/// A method's settings without those of a point. Every method makes the same number of steps, whatever it counts as an example.
pub fn base(config: &CompareConfig, contender: &Contender, steps: Option<u64>) -> AlignConfig {
    let mut align = AlignConfig {
        model: config.model.clone(),
        adapter: config.adapter.clone(),
        data: config.data.clone(),
        encode: config.encode.clone(),
        align: contender.method.clone(),
        train: config.train.clone(),
        ..AlignConfig::default()
    };
    align.train.max_steps = steps.or(align.train.max_steps);
    align.samples.prompts = 0;
    if let (Some(steps), 1..) = (align.train.max_steps, config.frontier.checkpoints) {
        align.keep_models = true;
        align.train.sample_steps = Some((steps / (config.frontier.checkpoints as u64 + 1)).max(1));
    }
    if contender.samples {
        sample_in_rounds(config, &contender.method, &mut align);
    }
    align
}

/// Gives a method that samples as many rounds as its steps need.
fn sample_in_rounds(config: &CompareConfig, method: &Method, align: &mut AlignConfig) {
    let CompareRollout { prompts, max_new_tokens } = config.compare.rollout.clone().unwrap_or_default();
    let rollout = RolloutSection { prompts, max_new_tokens, ..RolloutSection::of(method) };
    let (examples, batch) = (most_examples(method, &rollout), align.train.batch_size.max(1));
    let of_pass = if align.train.drop_last { examples / batch } else { examples.div_ceil(batch) };
    let of_round = (of_pass.max(1) as u64).saturating_mul(rollout.epochs_per_round.max(1));
    align.rounds = Some(align.train.max_steps.unwrap_or(1).div_ceil(of_round).max(1));
    align.train.epochs = 1.0;
    align.rollout = Some(rollout);
    align.reward = config.reward.clone();
}

/// Returns the points that a method is tried with: its own grid, else the search that was asked for; at most `compare.points` of it, drawn
/// at random.
///
/// # Errors
/// Every entry of its grid that cannot be tried, with its key.
pub fn points(config: &CompareConfig, contender: &Contender) -> Result<Vec<Point>, Vec<(String, String)>> {
    let compare = &config.compare;
    let (name, about) = (contender.name(), contender.method.about());
    let (mut space, preset) = match (compare.grid(&name), compare.search) {
        (Some(grid), _) => {
            let at = |key: &str| format!("compare.grids.{name}.{key}");
            let space = Space::read(grid).map_err(|wrong| {
                wrong.into_iter().map(|(key, message)| (at(&key), format!("`{key}`: {message}"))).collect::<Vec<_>>()
            })?;
            if let Some(key) = space.keys().iter().find(|key| !key.starts_with("align.") && *key != presets::RATE) {
                let message = format!(
                    "`{key}`: budgets are equal, so a method is tried with its own settings (`align.…`) and `{}`",
                    presets::RATE
                );
                return Err(vec![(at(key), message)]);
            }
            if space.keys().iter().any(|key| key == "align.method") {
                return Err(vec![(at("align.method"), "the methods stand in `compare.methods`".into())]);
            }
            (space, false)
        }
        (None, Search::Preset) => (presets::preset(&about), true),
        (None, Search::Defaults) => (Space::default(), false),
    };
    if !compare.learning_rates.is_empty() {
        let rates = compare.learning_rates.iter().copied().map(Value::Float).collect();
        match preset {
            true => space.replace(presets::RATE, rates),
            false => space.add(presets::RATE, rates),
        }
    }
    if space.size() > MOST_POINTS {
        let message = format!("more than {MOST_POINTS} combinations: shorten the lists");
        return Err(vec![(format!("compare.grids.{name}"), message)]);
    }
    let mut points = space.sample(compare.points, compare.seed);
    if preset {
        points.iter_mut().for_each(|point| presets::resolve(&about, point));
        if config.adapter.is_some() && compare.learning_rates.is_empty() {
            points.iter_mut().flatten().filter(|(key, _)| key == presets::RATE).for_each(|(_, rate)| {
                if let Value::Float(rate) = rate {
                    *rate *= adapter::RATE;
                }
            });
        }
    }
    Ok(points)
}

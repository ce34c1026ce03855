//! Which trainings a comparison consists of.

use setpoint_align::Method;
use setpoint_data::Uses;
use toml::Value;

use super::Measured;
use super::presets;
use super::settings::{CompareConfig, Search};
use crate::adapter::{self, with_tokenizer};
use crate::align::AlignConfig;
use crate::failure::Outcome;
use crate::search::{Figures, Point, Rule, Space, Trial, steps, with_point};
use crate::session::Session;
use crate::setup;

/// More combinations than anybody can mean.
const MOST_POINTS: usize = 1_000_000;

/// A method and the settings it is tried with.
pub struct Candidate {
    /// The method with its defaults.
    pub method: Method,
    /// What is tried; one empty point where its defaults are.
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

    /// The best point by what was measured; the only one where there was nothing to select; none where every training failed or is too far
    /// from the SFT model.
    pub fn best(&self, searched: &[Measured], rule: Rule) -> Option<usize> {
        if self.points.len() == 1 {
            return Some(0);
        }
        let measured = self.measured(searched).into_iter().filter(|(_, _, figures)| rule.allows(figures));
        measured.min_by(|a, b| rule.order(a.2, b.2)).map(|(point, _, _)| point)
    }

    /// Says that no point is near enough to the SFT model, if that is so.
    pub fn none_allowed(&self, searched: &[Measured], rule: Rule) -> Option<String> {
        if self.points.len() == 1 {
            return None;
        }
        rule.none_of(self.measured(searched).into_iter().map(|(_, name, figures)| (name, figures)))
    }

    /// Returns the points that were measured: number, name of the trial and figures.
    fn measured<'m>(&self, searched: &'m [Measured]) -> Vec<(usize, &'m str, &'m Figures)> {
        let of = |point: usize| {
            let prefix = format!("{}-{point:03}-seed", self.method.name());
            let measured = searched.iter().find(|measured| measured.trial.name.starts_with(&prefix))?;
            Some((point, measured.trial.name.as_str(), &measured.outcome.as_ref().ok()?.figures))
        };
        (0..self.points.len()).filter_map(of).collect()
    }
}

/// What is trained.
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

    /// Whether settings are selected.
    pub fn searches(&self) -> bool {
        self.methods.iter().any(|method| method.points.len() > 1)
    }
}

/// A method's settings without those of a point. Every method makes the same number of steps, whatever it counts as an example.
pub fn base(config: &CompareConfig, method: &Method, steps: Option<u64>) -> AlignConfig {
    let mut align = AlignConfig {
        model: config.model.clone(),
        adapter: config.adapter.clone(),
        data: config.data.clone(),
        encode: config.encode.clone(),
        align: method.clone(),
        train: config.train.clone(),
        ..AlignConfig::default()
    };
    align.train.max_steps = steps.or(align.train.max_steps);
    align.samples.prompts = 0;
    align
}

/// What a method is tried with: its own grid, else the search that was asked for; at most `compare.points` of it, drawn at random.
///
/// # Errors
/// Every entry of its grid that cannot be tried, with its key.
pub fn points(config: &CompareConfig, method: &Method) -> Result<Vec<Point>, Vec<(String, String)>> {
    let compare = &config.compare;
    let (mut space, preset) = match (compare.grid(method.name()), compare.search) {
        (Some(grid), _) => {
            let at = |key: &str| format!("compare.grids.{}.{key}", method.name());
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
        (None, Search::Preset) => (presets::preset(&method.about()), true),
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
        return Err(vec![(format!("compare.grids.{}", method.name()), message)]);
    }
    let mut points = space.sample(compare.points, compare.seed);
    if preset {
        points.iter_mut().for_each(|point| presets::resolve(&method.about(), point));
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

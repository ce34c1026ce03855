//! A metric against KL: the models of each method as a line, and what the methods reach at given KLs.
//!
//! A method that moves further from the SFT model gets more of any reward, so methods are compared at equal KL (Tang et al. 2024,
//! <https://arxiv.org/abs/2405.08448>).

mod model;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use setpoint_eval::{Bootstrap, Estimate, FrontierPoint, Trend, at_kl, difference_at_kl, mean};

pub use self::model::{Model, REWARD, further_metrics};
use crate::failure::{Failure, Outcome};

/// The name of the KL among the values of a model.
pub const KL: &str = "kl";

/// Every metric against KL.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Frontier {
    /// The method that the others are compared with.
    pub baseline: String,
    /// The part of the held-out rows that the models were measured on, if they belong to a comparison.
    #[serde(default)]
    pub part: String,
    /// The metrics that were measured, the reward first.
    pub metrics: Vec<MetricLines>,
    /// The losses of the methods when they stopped.
    pub losses: Vec<MethodLoss>,
}

/// A metric against KL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricLines {
    /// Its name.
    pub metric: String,
    /// A line for each method.
    pub lines: Vec<MethodLine>,
    /// The results of the methods, KL by KL.
    pub at: Vec<AtKl>,
}

/// A method's models in the order of their KL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodLine {
    /// The method.
    pub method: String,
    /// Its models, one for each choice of settings.
    pub points: Vec<Point>,
}

/// The models that were trained with one choice of settings, whatever their seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The settings.
    pub settings: String,
    /// The names of the models.
    pub models: Vec<String>,
    /// Mean KL from the SFT model, nats per response.
    pub kl: f64,
    /// Mean of the metric.
    pub value: f64,
}

/// The results of a method at a KL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AtKl {
    /// The KL, nats per response.
    pub kl: f64,
    /// The method.
    pub method: String,
    /// The metric with its interval over prompts; none outside of the KLs that were measured of the method.
    pub estimate: Option<Estimate>,
    /// Its excess over the baseline's at the same KL, with a paired interval over prompts; none outside of the KLs that were
    /// measured of either, and for the baseline itself.
    pub difference: Option<Estimate>,
}

/// Tells whether the loss of a method's trainings was still falling when they stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodLoss {
    /// The method.
    pub method: String,
    /// Trainings whose loss was still falling over their last fifth.
    pub falling: usize,
    /// Trainings with enough steps to tell.
    pub told: usize,
}

impl Frontier {
    /// Draws the lines through models that were measured on the same prompts, and reads them at some KLs. Models of one method with the same
    /// settings count as one: each prompt's values are averaged.
    ///
    /// # Errors
    /// When models were measured on different numbers of prompts, or a value is not finite.
    pub fn of(models: &[Model], kls: &[f64], baseline: &str, bootstrap: &Bootstrap) -> Outcome<Self> {
        let mut methods: Vec<&str> = Vec::new();
        for model in models {
            if !methods.contains(&model.method.as_str()) {
                methods.push(&model.method);
            }
        }
        let metrics = metric_names(models)
            .into_iter()
            .map(|metric| MetricLines::of(models, &methods, metric, (kls, baseline), bootstrap))
            .collect::<Outcome<_>>()?;
        let loss = |method: &&str| {
            let mine = models.iter().filter(|model| model.method == **method);
            let trends: Vec<Trend> = mine.filter_map(|model| model.trend).collect();
            let falling = trends.iter().filter(|trend| trend.is_falling()).count();
            MethodLoss { method: (*method).to_owned(), falling, told: trends.len() }
        };
        let losses = methods.iter().map(loss).collect();
        Ok(Self { baseline: baseline.to_owned(), part: String::new(), metrics, losses })
    }

    /// Returns whether there is a line to draw: a method with models at two KLs.
    pub fn has_lines(&self) -> bool {
        self.metrics.iter().flat_map(|metric| &metric.lines).any(|line| line.points.len() > 1)
    }
}

/// Returns the metrics of some models, the reward first and the length last.
fn metric_names(models: &[Model]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in models.iter().filter(|model| model.values.contains_key(KL)).flat_map(|model| model.values.keys()) {
        if name != KL && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let place = |name: &str| match name {
        REWARD => 0,
        "win_rate" => 2,
        "tokens" => 3,
        _ => 1,
    };
    names.sort_by_key(|&name| (place(name), name.to_owned()));
    names
}

impl MetricLines {
    fn of(
        models: &[Model],
        methods: &[&str],
        metric: &str,
        (kls, baseline): (&[f64], &str),
        bootstrap: &Bootstrap,
    ) -> Outcome<Self> {
        let mut measured: BTreeMap<&str, Vec<FrontierPoint>> = BTreeMap::new();
        let mut lines = Vec::new();
        for &method in methods {
            let mut points = Vec::new();
            for (settings, group) in by_settings(models, method, metric) {
                let names = group.iter().map(|model| model.name.clone()).collect();
                let averaged = average(&group, metric)?;
                let (kl, value) = (mean(&averaged.kl), mean(&averaged.value));
                points.push(Point { settings: settings.to_owned(), models: names, kl, value });
                measured.entry(method).or_default().push(averaged);
            }
            points.sort_by(|a, b| a.kl.total_cmp(&b.kl));
            if !points.is_empty() {
                lines.push(MethodLine { method: method.to_owned(), points });
            }
        }
        let none = Vec::new();
        let of = |method: &str| measured.get(method).unwrap_or(&none).as_slice();
        let mut at = Vec::new();
        for &kl in kls {
            for line in &lines {
                let points = of(&line.method);
                let difference = match line.method == baseline {
                    true => None,
                    false => difference_at_kl(points, of(baseline), kl, bootstrap)?,
                };
                at.push(AtKl { kl, method: line.method.clone(), estimate: at_kl(points, kl, bootstrap)?, difference });
            }
        }
        Ok(Self { metric: metric.to_owned(), lines, at })
    }
}

/// Returns the models of a method that have a metric, by their settings, in the order of their first appearance.
fn by_settings<'m>(models: &'m [Model], method: &str, metric: &str) -> Vec<(&'m str, Vec<&'m Model>)> {
    let mut groups: Vec<(&str, Vec<&Model>)> = Vec::new();
    let has = |model: &&Model| [KL, metric].iter().all(|name| model.values.contains_key(*name));
    for model in models.iter().filter(|model| model.method == method).filter(has) {
        match groups.iter_mut().find(|(settings, _)| *settings == model.settings) {
            Some((_, group)) => group.push(model),
            None => groups.push((model.settings.as_str(), vec![model])),
        }
    }
    groups
}

/// Averages some models prompt by prompt.
fn average(group: &[&Model], metric: &str) -> Outcome<FrontierPoint> {
    let of = |name: &str| -> Outcome<Vec<f64>> {
        let columns: Vec<&Vec<f64>> = group.iter().filter_map(|model| model.values.get(name)).collect();
        let n = columns.first().map_or(0, |column| column.len());
        if let Some((other, found)) = group.iter().zip(&columns).find(|(_, column)| column.len() != n) {
            let message = format!(
                "{} has `{name}` for {n} prompts, and {} for {}: measure both on the same prompts",
                group[0].name,
                other.name,
                found.len()
            );
            return Err(Failure::run(message));
        }
        Ok((0..n).map(|i| columns.iter().map(|column| column[i]).sum::<f64>() / columns.len() as f64).collect())
    };
    Ok(FrontierPoint { kl: of(KL)?, value: of(metric)? })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

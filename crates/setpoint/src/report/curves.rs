//! The charts of training: runs of one kind share them, and different losses do not.

use serde::Serialize;

use super::chart::{self, Chart, Key, Line, Look, Words};
use super::facts;
use super::metrics;
use super::number::number;
use super::read::Run;

/// The title of every x-axis.
const STEP: &str = "optimizer step";

/// The charts of runs of one job.
#[derive(Debug, Serialize)]
pub struct Family {
    /// The heading.
    pub title: &'static str,
    /// The runs with their colours.
    pub legend: Vec<Key>,
    /// The charts that a reader looks at first.
    pub charts: Vec<Chart>,
    /// Spread, extremes and speed.
    pub more: Vec<Chart>,
    /// Metrics with a single value for each run.
    pub numbers: Vec<Number>,
}

/// A metric with a single value for each run.
#[derive(Debug, PartialEq, Serialize)]
pub struct Number {
    /// Its title.
    pub title: String,
    /// Its unit.
    pub unit: String,
    /// The values.
    pub singles: Vec<Single>,
}

/// A value of a run.
#[derive(Debug, PartialEq, Serialize)]
pub struct Single {
    /// The number of the run.
    pub subject: usize,
    /// The name of the run, and the step and the data of the value.
    pub name: String,
    /// The value.
    pub value: String,
}

/// Returns the charts of all runs, family by family.
pub fn families(runs: &[Run]) -> Vec<Family> {
    let titles = [("sft", "Supervised fine-tuning"), ("reward", "Reward models"), ("align", "Alignment")];
    let known = |run: &Run| titles.iter().any(|(job, _)| run.job == *job);
    let mut families = Vec::new();
    for (job, title) in titles.into_iter().chain([("", "Other runs")]) {
        let members: Vec<(usize, &Run)> = runs
            .iter()
            .enumerate()
            .filter(|(_, run)| if job.is_empty() { !known(run) } else { run.job == job })
            .collect();
        if !members.is_empty() {
            families.push(family(title, &members));
        }
    }
    families
}

fn family(title: &'static str, members: &[(usize, &Run)]) -> Family {
    let key = |(i, run): &(usize, &Run)| Key { subject: Some(*i), look: Look::Solid, name: run.name.clone() };
    let legend = members.iter().map(key).collect();
    let mut family = Family { title, legend, charts: Vec::new(), more: Vec::new(), numbers: Vec::new() };
    let mut losses: Vec<String> = Vec::new();
    for (_, run) in members {
        let loss = facts::loss(run);
        if !losses.contains(&loss) {
            losses.push(loss);
        }
    }
    for loss in losses {
        let same: Vec<(usize, &Run)> = members.iter().copied().filter(|(_, run)| facts::loss(run) == loss).collect();
        let settings = |run: &Run| run.settings.get("align").cloned();
        let differ = same.iter().any(|(_, run)| settings(run) != settings(same[0].1));
        let good = match differ {
            true => {
                "Good: falls and levels off; these runs differ in the settings of the loss, so compare shapes, not heights."
            }
            false => "Good: falls and levels off, and the evaluation loss falls with the training loss.",
        };
        let words = metrics::Words {
            title: format!("Loss: {loss}"),
            axis: same.first().map_or("loss", |(_, run)| facts::loss_unit(run)).to_owned(),
            good: good.to_owned(),
            place: 0,
            main: true,
        };
        family.add("loss", &words, &same);
    }
    let mut names: Vec<&str> = Vec::new();
    for name in members.iter().flat_map(|(_, run)| &run.order) {
        let name = name.strip_prefix("eval_").unwrap_or(name);
        if name != "loss" && !names.contains(&name) {
            names.push(name);
        }
    }
    let mut words: Vec<(&str, metrics::Words)> = names.into_iter().map(|name| (name, metrics::words(name))).collect();
    // Charts that are unknown keep the order of their appearance.
    words.sort_by_key(|(_, words)| words.place);
    for (name, words) in words {
        family.add(name, &words, members);
    }
    family
}

impl Family {
    /// Adds the chart of a metric, or its numbers if no curve has two points.
    fn add(&mut self, metric: &str, words: &metrics::Words, members: &[(usize, &Run)]) {
        let eval = format!("eval_{metric}");
        let mut lines = Vec::new();
        for &(subject, run) in members {
            for (name, look) in [(metric, Look::Solid), (eval.as_str(), Look::Dashed)] {
                let points = run.points(name);
                if points.iter().any(|point| point.1.is_finite()) {
                    lines.push(Line { subject, name: &run.name, look, points });
                }
            }
        }
        if lines.iter().any(|line| line.points.len() > 1) {
            let chart = Words { title: &words.title, x: STEP, y: &words.axis, good: &words.good };
            let charts = if words.main { &mut self.charts } else { &mut self.more };
            charts.extend(chart::lines(&chart, &lines));
        } else if !lines.is_empty() {
            let value = |line: &Line<'_>| {
                let (step, value) = line.points[0];
                let what = if line.look == Look::Dashed { "evaluation" } else { "training" };
                let name = format!("{}, {what} at step {}", line.name, number(step));
                Single { subject: line.subject, name, value: number(value) }
            };
            self.numbers.push(Number {
                title: words.title.clone(),
                unit: words.axis.clone(),
                singles: lines.iter().map(value).collect(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, job: &str, settings: &str, metrics: &[(&str, &[f64])]) -> Run {
        let mut run = Run { name: name.into(), job: job.into(), settings: settings.parse().unwrap(), ..Run::default() };
        for (metric, values) in metrics {
            run.order.push((*metric).to_owned());
            let points = values.iter().enumerate().map(|(i, value)| (1.0 + i as f64, *value)).collect();
            run.metrics.insert((*metric).to_owned(), points);
        }
        run
    }

    fn titles(charts: &[Chart]) -> Vec<&str> {
        charts.iter().map(|chart| chart.title.as_str()).collect()
    }

    #[test]
    fn different_losses_have_charts_of_their_own_and_other_metrics_share_theirs() {
        let metrics: &[(&str, &[f64])] =
            &[("loss", &[2.0, 1.0]), ("eval_loss", &[1.5, 1.2]), ("rewards/accuracies", &[0.5, 0.9])];
        let families = families(&[
            run("sft", "sft", "", metrics),
            run("dro", "align", "align.method = 'dro'", metrics),
            run("dpo", "align", "align.method = 'dpo'", metrics),
        ]);
        assert_eq!(
            families.iter().map(|family| family.title).collect::<Vec<_>>(),
            ["Supervised fine-tuning", "Alignment"]
        );
        assert_eq!(titles(&families[1].charts), ["Loss: DRO", "Loss: DPO", "Pairs in the right order"]);
        // Training and evaluation share a chart, in the run's colour.
        let loss = serde_json::to_value(&families[1].charts[1]).unwrap();
        let looks: Vec<_> = loss["lines"].as_array().unwrap().iter().map(|l| (&l["subject"], &l["look"])).collect();
        assert_eq!(format!("{looks:?}"), r#"[(Number(2), String("solid")), (Number(2), String("dashed"))]"#);
        assert_eq!(families[1].charts[2].legend.len(), 2);
    }

    #[test]
    fn a_single_number_is_printed() {
        let families =
            families(&[run("one", "sft", "", &[("loss", &[2.5]), ("grad_norm", &[1.0]), ("eval_loss", &[2.25])])]);
        assert!(families[0].charts.is_empty() && families[0].more.is_empty());
        let loss = &families[0].numbers[0];
        assert_eq!((loss.title.as_str(), loss.unit.as_str()), ("Loss: SFT", "nats per token"));
        assert_eq!(
            loss.singles[1],
            Single { subject: 0, name: "one, evaluation at step 1".into(), value: "2.25".into() }
        );
    }

    #[test]
    fn spread_and_speed_are_folded_and_strangers_follow() {
        let two: &[f64] = &[1.0, 2.0];
        let metrics = [("<odd>", two), ("tokens_per_second", two), ("dro/residual_std", two), ("grad_norm", two)];
        let families = families(&[run("run", "align", "", &metrics)]);
        assert_eq!(titles(&families[0].charts), ["Norm of the gradient"]);
        assert_eq!(titles(&families[0].more), ["Speed", "Distance from the target: standard deviation", "<odd>"]);
    }

    #[test]
    fn runs_that_differ_in_the_loss_are_not_compared_by_height() {
        let metrics: &[(&str, &[f64])] = &[("loss", &[2.0, 1.0])];
        let of = |beta: f64| run("dro", "align", &format!("align = {{ method = 'dro', beta = {beta} }}"), metrics);
        assert!(families(&[of(0.1), of(0.5)])[0].charts[0].good.contains("not heights"));
        assert!(!families(&[of(0.1), of(0.1)])[0].charts[0].good.contains("not heights"));
    }
}

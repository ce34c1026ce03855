//! Reward and other metrics against KL: the lines of a comparison, and those through the runs and results of a report.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use setpoint_eval::{Bootstrap, Estimate, Trend};
use setpoint_files::words;

use super::chart::{self, Chart, Key, Line, Look, Words};
use super::number::{number, signed};
use super::read::{Measured, Run};
use crate::failure::{Failure, Outcome};
use crate::frontier::{Frontier, KL, MetricLines, Model, REWARD, further_metrics};

/// The title of every x-axis.
const X: &str = "KL from the SFT model, nats per response";

/// Methods at equal KL.
#[derive(Debug, Serialize)]
pub struct Section {
    title: String,
    /// The methods.
    pub legend: Vec<Key>,
    /// A chart for each metric.
    charts: Vec<Chart>,
    /// Sentences about the losses.
    losses: Vec<String>,
    /// A table for each metric, if KLs were asked for.
    tables: Vec<Table>,
}

/// The results of methods at some KLs.
#[derive(Debug, Serialize)]
struct Table {
    metric: String,
    baseline: String,
    /// KL, method, metric, difference.
    rows: Vec<[String; 4]>,
}

impl Section {
    fn of(title: String, frontier: &Frontier) -> Self {
        let methods: Vec<&str> = frontier.losses.iter().map(|loss| loss.method.as_str()).collect();
        let key = |(i, name): (usize, &&str)| Key { subject: Some(i), look: Look::Solid, name: (*name).to_owned() };
        let told = frontier.losses.iter().filter(|loss| loss.told > 0);
        let losses = told.map(|loss| match loss.falling {
            0 => format!("{}: the loss was level when training stopped", loss.method),
            falling => format!(
                "{}: the loss was still falling over the last fifth of {falling} of {} trainings",
                loss.method, loss.told
            ),
        });
        let tables = frontier.metrics.iter().filter(|metric| !metric.at.is_empty());
        Self {
            title,
            legend: methods.iter().enumerate().map(key).collect(),
            charts: frontier.metrics.iter().filter_map(|metric| chart_of(metric, &methods)).collect(),
            losses: losses.collect(),
            tables: tables.map(|metric| table(metric, &frontier.baseline)).collect(),
        }
    }
}

fn chart_of(metric: &MetricLines, methods: &[&str]) -> Option<Chart> {
    let (title, y) = match metric.metric.as_str() {
        REWARD => ("Reward against KL".to_owned(), REWARD),
        "win_rate" => ("Win rate against KL".to_owned(), "win rate to SFT"),
        "tokens" => ("Length against KL".to_owned(), "tokens"),
        other => (format!("`{other}` against KL"), other),
    };
    let good = match metric.metric.as_str() {
        "tokens" => "For comparison: a reward may only be one of length.",
        _ => "Good: high at a small KL. Compare methods at the same KL, and no further than their lines go.",
    };
    let points = |line: &crate::frontier::MethodLine| line.points.iter().map(|p| (p.kl, p.value)).collect::<Vec<_>>();
    let all: Vec<Vec<(f64, f64)>> = metric.lines.iter().map(points).collect();
    let lines: Vec<Line<'_>> = metric
        .lines
        .iter()
        .zip(&all)
        .filter_map(|(line, points)| {
            let subject = methods.iter().position(|method| *method == line.method)?;
            Some(Line { subject, name: &line.method, look: Look::Solid, points })
        })
        .collect();
    chart::against(&Words { title: &title, x: X, y, good }, &lines)
}

fn table(metric: &MetricLines, baseline: &str) -> Table {
    let none = || "—".to_owned();
    let value = |e: &Estimate| format!("{} [{}, {}]", number(e.value), number(e.low), number(e.high));
    let difference = |e: &Estimate| format!("{} [{}, {}]", signed(e.value), signed(e.low), signed(e.high));
    let rows = metric.at.iter().map(|at| {
        [
            number(at.kl),
            at.method.clone(),
            at.estimate.as_ref().map_or_else(none, value),
            match at.method == baseline {
                true => String::new(),
                false => at.difference.as_ref().map_or_else(none, difference),
            },
        ]
    });
    Table { metric: metric.metric.clone(), baseline: baseline.to_owned(), rows: rows.collect() }
}

/// Reads the lines of the comparison in a folder, at other KLs than its own if some are given.
///
/// # Errors
/// When the folder has no lines, because an older version made it, or a file cannot be read.
pub fn of_comparison(folder: &Path, kls: &[f64]) -> Outcome<Section> {
    let path = folder.join("compare.json");
    let text = setpoint_files::read_text_up_to(&path, setpoint_files::LARGE)?;
    let damaged = |e: serde_json::Error| Failure::run(format!("{}: {}", path.display(), words::json(&e)));
    let mut data: Value = serde_json::from_str(&text).map_err(damaged)?;
    let Some(lines) = data.get_mut("frontier").map(Value::take) else {
        return Err(Failure::run(format!("{} has no lines of reward against KL", path.display())).hint(format!(
            "`setpoint compare --run {} --resume` adds them; or name the trials: {}/*",
            folder.display(),
            folder.join("trials").display()
        )));
    };
    let mut frontier: Frontier = serde_json::from_value(lines).map_err(damaged)?;
    if !kls.is_empty() {
        let models = models_of(folder, &frontier)?;
        let losses = std::mem::take(&mut frontier.losses);
        let part = std::mem::take(&mut frontier.part);
        let read = Frontier::of(&models, kls, &frontier.baseline, &Bootstrap::default())?;
        frontier = Frontier { losses, part, ..read };
    }
    let name = folder.file_name().map_or_else(|| "comparison".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(Section::of(name, &frontier))
}

/// Reads what was measured of the models on the lines of a comparison.
fn models_of(folder: &Path, frontier: &Frontier) -> Outcome<Vec<Model>> {
    let mut models: Vec<Model> = Vec::new();
    for line in frontier.metrics.iter().flat_map(|metric| &metric.lines) {
        for (point, name) in line.points.iter().flat_map(|p| p.models.iter().map(move |name| (p, name))) {
            if models.iter().any(|model| model.name == *name) {
                continue;
            }
            let trial = folder.join("trials").join(name);
            let mut values = by_prompt(&trial, &frontier.part).unwrap_or_default();
            let prompts = values.get(KL).map_or(0, Vec::len);
            if prompts == 0 {
                let file = trial.join(format!("eval-{}.json", frontier.part));
                return Err(Failure::run(format!("{} has no KL of each prompt", file.display()))
                    .hint(format!("`setpoint compare --run {} --resume` measures what is missing", folder.display())));
            }
            values.extend(further_metrics(&trial, &frontier.part, prompts)?);
            models.push(Model {
                method: line.method.clone(),
                settings: point.settings.clone(),
                name: name.clone(),
                values,
                trend: None,
            });
        }
    }
    Ok(models)
}

/// Reads the values of each prompt that the evaluation in a trial's folder has left.
pub fn by_prompt(trial: &Path, part: &str) -> Option<BTreeMap<String, Vec<f64>>> {
    let path = trial.join(format!("eval-{part}.json"));
    let text = setpoint_files::read_text_up_to(&path, setpoint_files::LARGE).ok()?;
    let mut data: Value = serde_json::from_str(&text).ok()?;
    serde_json::from_value(data.get_mut("by_prompt")?.take()).ok()
}

/// Draws lines through the runs of a report that were measured on the same prompts, a line for each method. `numbers`: the run of each result.
/// `None` if fewer than two were.
///
/// # Errors
/// When a value is not finite.
pub fn of_runs(runs: &[Run], results: &[Measured], numbers: &[usize], kls: &[f64]) -> Outcome<Option<Section>> {
    let mut groups: BTreeMap<String, Vec<Model>> = BTreeMap::new();
    let mut add = |on: String, run: &Run, values: BTreeMap<String, Vec<f64>>| {
        if run.job == "align" && values.contains_key(KL) && values.contains_key(REWARD) {
            groups.entry(on).or_default().push(Model {
                method: run.text("align.method").unwrap_or("dro").to_owned(),
                settings: run.name.clone(),
                name: run.name.clone(),
                values,
                trend: Trend::of_last_fifth(run.points("loss")),
            });
        }
    };
    for run in runs {
        for (part, values) in &run.by_prompt {
            add(format!("{part}, {} prompts", values.get(KL).map_or(0, Vec::len)), run, values.clone());
        }
    }
    for (result, &number) in results.iter().zip(numbers) {
        let measured = &result.run;
        let (Some(run), "reward") = (runs.get(number), measured.manifest.benchmark.as_str()) else { continue };
        let prompts = measured.items.len();
        let of_prompts = measured.distributions.iter().filter(|(_, values)| values.len() == prompts);
        // Metrics beside those of every evaluation are called `metric.NAME`.
        let metric = |name: &str| match name {
            KL | "tokens" => Some(name.to_owned()),
            name => name.strip_prefix("metric.").map(str::to_owned),
        };
        let mut values: BTreeMap<String, Vec<f64>> =
            of_prompts.filter_map(|(name, values)| Some((metric(name)?, values.clone()))).collect();
        values.insert(REWARD.to_owned(), measured.items.iter().map(|item| item.value).collect());
        let manifest = &measured.manifest;
        add(format!("{} {} {}", manifest.data, manifest.judge, manifest.decoding), run, values);
    }
    // The prompts that most models were measured on.
    let Some(models) = groups.into_values().filter(|group| group.len() > 1).max_by_key(Vec::len) else {
        return Ok(None);
    };
    let baseline = models[0].method.clone();
    let frontier = Frontier::of(&models, kls, &baseline, &Bootstrap::default())?;
    Ok(Some(Section::of("The runs of this report".to_owned(), &frontier)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(name: &str, method: &str, kl: f64) -> Run {
        let values = BTreeMap::from([(KL.to_owned(), vec![kl; 4]), (REWARD.to_owned(), vec![kl, 0.0, 1.0, kl])]);
        Run {
            name: name.into(),
            job: "align".into(),
            settings: format!("align.method = '{method}'").parse().unwrap(),
            by_prompt: vec![("all", values)],
            ..Run::default()
        }
    }

    #[test]
    fn runs_of_a_method_are_a_line() {
        let runs = [run("a", "dro", 2.0), run("b", "dpo", 1.0), run("c", "dro", 1.0)];
        let section = of_runs(&runs, &[], &[], &[1.5]).unwrap().unwrap();
        let names: Vec<&str> = section.legend.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["dro", "dpo"]);
        let chart = serde_json::to_value(&section.charts[0]).unwrap();
        assert_eq!((chart["lines"].as_array().unwrap().len(), chart["dots"].as_array().unwrap().len()), (1, 3));
        // Means 1.25 at KL 2 and 0.75 at KL 1; DPO has a single model.
        let rows = &section.tables[0].rows;
        assert!(rows[0][2].starts_with("1 [") && rows[0][..2] == ["1.5", "dro"], "{rows:?}");
        assert_eq!(rows[1], ["1.5", "dpo", "—", "—"]);
        assert!(of_runs(&runs[..1], &[], &[], &[]).unwrap().is_none());
        let sft = Run { job: "sft".into(), ..run("d", "dro", 3.0) };
        assert!(of_runs(&[run("a", "dro", 2.0), sft], &[], &[], &[]).unwrap().is_none());
    }

    #[test]
    fn a_comparison_is_read_at_other_kls() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        let mut models = Vec::new();
        for (name, kl) in [("dro-000-seed0", 1.0), ("dro-001-seed0", 3.0)] {
            let trial = folder.join("trials").join(name);
            std::fs::create_dir_all(&trial).unwrap();
            let values = run(name, "dro", kl).by_prompt.remove(0).1;
            std::fs::write(trial.join("eval-select.json"), json!({ "by_prompt": values }).to_string()).unwrap();
            models.push(Model { method: "dro".into(), settings: name.into(), name: name.into(), values, trend: None });
        }
        let frontier = Frontier::of(&models, &[2.0], "dro", &Bootstrap::default()).unwrap();
        let frontier = Frontier { part: "select".to_owned(), ..frontier };
        let path = folder.join("compare.json");
        std::fs::write(&path, json!({ "frontier": frontier }).to_string()).unwrap();
        let rows = |kls: &[f64]| of_comparison(&folder, kls).unwrap().tables.remove(0).rows;
        assert_eq!((rows(&[]).len(), rows(&[])[0][0].as_str()), (1, "2"));
        let read = rows(&[1.5, 9.0]);
        // Means 0.75 and 1.75, a quarter of the way.
        assert!(read[0][2].starts_with("1 ["), "{read:?}");
        assert_eq!(read[1], ["9", "dro", "—", ""]);

        std::fs::write(folder.join("trials/dro-000-seed0/eval-select.json"), "{\"wins\": []}").unwrap();
        let failure = of_comparison(&folder, &[1.5]).unwrap_err().to_string();
        assert!(failure.contains("eval-select.json has no KL of each prompt"), "{failure}");
        std::fs::write(&path, "{\"methods\": []}").unwrap();
        let failure = of_comparison(&folder, &[]).unwrap_err().to_string();
        assert!(failure.contains("compare.json has no lines of reward against KL"), "{failure}");
        std::fs::write(&path, "{").unwrap();
        assert!(of_comparison(&folder, &[]).unwrap_err().to_string().contains("compare.json"));
    }
}

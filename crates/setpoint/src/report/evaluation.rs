//! The results of evaluations: the figures that matter, comparisons, and distributions.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use setpoint_eval::{Bootstrap, compare, differences};

use super::chart::{Chart, Key, Look};
use super::distributions::distributions;
use super::number::{count, number, p_value, percent, signed, with_error};
use super::read::Measured;
use crate::failure::Outcome;

/// Figures that are shown at once.
const SHOWN: usize = 6;
/// The most further figures.
const MOST: usize = 300;

/// The results of a benchmark.
#[derive(Debug, Serialize)]
pub struct Benchmark {
    /// Its title.
    pub title: String,
    /// The results with their colours, in the order of the columns.
    pub legend: Vec<Key>,
    /// The figures that matter.
    pub figures: Vec<Row>,
    /// All others.
    pub rest: Vec<Row>,
    /// The name of the first result, if others are compared with it.
    pub against: Option<String>,
    /// The comparisons.
    pub compared: Vec<Compared>,
    /// Distributions over the examples.
    pub charts: Vec<Chart>,
}

/// A row of a table of figures.
#[derive(Debug, PartialEq, Serialize)]
pub struct Row {
    /// The name of the figure, with its unit.
    pub name: String,
    /// A value for each result; empty if it has none.
    pub cells: Vec<String>,
}

/// A comparison of a result with the first.
#[derive(Debug, Serialize)]
pub struct Compared {
    /// The result.
    pub name: String,
    /// The task.
    pub task: String,
    /// Examples that both measured.
    pub n: String,
    /// The difference of the means with its interval.
    pub difference: String,
    /// The p-value.
    pub p: String,
    /// The reason for which the two are not comparable.
    pub problem: Option<String>,
}

/// The way in which a figure is written.
#[derive(Clone, Copy)]
enum Form {
    Plain,
    Signed,
    /// A share, written as a percentage.
    Share,
    /// A percentage already.
    Percent,
}

/// A figure that matters: where it is in the scores, what it is called, how it is written, and where its standard error is.
struct Figure {
    path: &'static str,
    name: &'static str,
    form: Form,
    error: Option<&'static str>,
}

const fn figure(path: &'static str, name: &'static str, form: Form) -> Figure {
    Figure { path, name, form, error: None }
}

/// The figures that matter of each benchmark, with its title.
const BENCHMARKS: &[(&str, &str, &[Figure])] = &[
    (
        "reward",
        "Against the baseline, by reward",
        &[
            figure("/win_rate/rate", "win rate against the baseline (50 %: no difference)", Form::Share),
            figure("/win_rate/difference", "difference of the mean rewards", Form::Signed),
            figure("/kl/exact", "KL from the baseline, nats per response", Form::Plain),
            figure("/pairs/accuracy/accuracy", "held-out pairs in the right order", Form::Share),
            figure("/tokens", "length of a response, tokens", Form::Plain),
            figure("/truncated", "responses cut at the length limit", Form::Share),
            // Shown where an older version did not sum over the vocabulary.
            figure("/kl/k1", "KL from the baseline by the sampled tokens alone, nats per response", Form::Plain),
        ],
    ),
    (
        "alpaca_eval",
        "AlpacaEval 2",
        &[
            Figure {
                error: Some("/lc_standard_error"),
                ..figure("/length_controlled_winrate", "length-controlled win rate", Form::Percent)
            },
            Figure { error: Some("/standard_error"), ..figure("/win_rate", "win rate", Form::Percent) },
            figure("/discrete_win_rate", "win rate, each preference rounded", Form::Percent),
            figure("/avg_length", "length of an output, characters", Form::Plain),
            figure("/n_total", "instructions judged", Form::Plain),
            figure("/n_failed", "instructions without a judgment", Form::Plain),
        ],
    ),
    (
        "mt_bench",
        "MT-Bench",
        &[
            figure("/single/0/average", "mean rating, 1 to 10", Form::Plain),
            figure("/single/0/first_turn", "first turn, 1 to 10", Form::Plain),
            figure("/single/0/second_turn", "second turn, 1 to 10", Form::Plain),
            figure("/single/0/errors", "judgments that never came", Form::Plain),
            figure("/single/0/unrated", "judgments without a rating", Form::Plain),
            figure("/pairs/0/win_rate_adjusted", "win rate against the baseline, ties count half", Form::Share),
            figure("/pairs/0/win", "won in both orders", Form::Plain),
            figure("/pairs/0/loss", "lost in both orders", Form::Plain),
            figure("/pairs/0/tie", "ties", Form::Plain),
            figure("/failed", "judgments without a verdict", Form::Plain),
        ],
    ),
    (
        "arena_hard",
        "Arena-Hard 2",
        &[
            figure("/categories/hard_prompt/0/score", "hard prompts, battles won", Form::Share),
            figure("/categories/creative_writing/0/score", "creative writing, battles won", Form::Share),
        ],
    ),
    (
        "ifeval",
        "IFEval",
        &[
            figure("/prompt_level_strict_acc", "prompts followed, strictly", Form::Share),
            figure("/inst_level_strict_acc", "instructions followed, strictly", Form::Share),
            figure("/prompt_level_loose_acc", "prompts followed, loosely", Form::Share),
            figure("/inst_level_loose_acc", "instructions followed, loosely", Form::Share),
        ],
    ),
    ("reward_bench", "RewardBench", &[figure("/score", "score over all sections or subsets", Form::Share)]),
];

/// Returns the results, benchmark by benchmark. `subjects`: the colour of each result.
///
/// # Errors
/// When the numbers of two results cannot be compared because some are not finite.
pub fn benchmarks(results: &[Measured], subjects: &[usize]) -> Outcome<Vec<Benchmark>> {
    let names: BTreeSet<&str> = results.iter().map(|r| r.run.manifest.benchmark.as_str()).collect();
    let group = |name: &str| -> Vec<(usize, &Measured)> {
        let of = results.iter().zip(subjects).filter(|(result, _)| result.run.manifest.benchmark == name);
        of.map(|(result, subject)| (*subject, result)).collect()
    };
    names.into_iter().map(|name| benchmark(name, &group(name))).collect()
}

fn benchmark(name: &str, group: &[(usize, &Measured)]) -> Outcome<Benchmark> {
    let known = BENCHMARKS.iter().find(|(benchmark, ..)| *benchmark == name);
    let title = match (known, name) {
        (Some((_, title, _)), _) => (*title).to_owned(),
        (None, "tasks") => "Tasks".to_owned(),
        (None, other) => other.to_owned(),
    };
    let scores: Vec<&Value> = group.iter().map(|(_, result)| &result.run.scores).collect();
    let mut figures: Vec<Row> = Vec::new();
    let mut used: Vec<String> = Vec::new();
    for Figure { path, name, form, error } in known.iter().flat_map(|(_, _, figures)| figures.iter()) {
        let cells: Vec<String> = scores.iter().map(|scores| written(scores, path, *form, *error)).collect();
        if cells.iter().any(|value| !value.is_empty()) && figures.len() < SHOWN {
            figures.push(Row { name: (*name).to_owned(), cells });
            used.extend([path.to_string()].into_iter().chain(error.map(str::to_owned)));
        }
    }
    if name == "tasks" {
        for (path, name) in tasks(&scores).into_iter().take(SHOWN) {
            let cells = scores.iter().map(|scores| written(scores, &path, Form::Share, None)).collect();
            figures.push(Row { name, cells });
            used.push(path);
        }
    }
    let mut rest = all_numbers(&scores);
    rest.retain(|(path, _)| !used.iter().any(|used| path == used || path.starts_with(&format!("{used}/"))));
    let mut rest: Vec<Row> = rest
        .into_iter()
        .take(MOST)
        .map(|(path, cells)| Row { name: path.trim_start_matches('/').replace('/', "."), cells })
        .collect();
    if figures.is_empty() {
        // A benchmark that is not known here shows its first figures.
        figures = rest.drain(..rest.len().min(SHOWN)).collect();
    }
    let key = |(subject, result): &(usize, &Measured)| Key {
        subject: Some(*subject),
        look: Look::Solid,
        name: result.name.clone(),
    };
    Ok(Benchmark {
        title,
        legend: group.iter().map(key).collect(),
        figures,
        rest,
        against: (group.len() > 1).then(|| group[0].1.name.clone()),
        compared: compared(group)?,
        charts: distributions(group),
    })
}

/// Writes a figure of one result: a number, an estimate with its interval, or a mean with its error.
fn written(scores: &Value, path: &str, form: Form, error: Option<&str>) -> String {
    let Some(value) = scores.pointer(path) else { return String::new() };
    let inner = |key: &str| value.get(key).and_then(Value::as_f64);
    let text = |value: f64| match form {
        Form::Plain => number(value),
        Form::Signed => signed(value),
        Form::Share => percent(value),
        Form::Percent => percent(value / 100.0),
    };
    if let Some(plain) = value.as_f64() {
        return match error.and_then(|path| scores.pointer(path)?.as_f64()) {
            Some(error) => format!("{} ± {}", text(plain), text(error)),
            None => text(plain),
        };
    }
    if let (Some(value), Some(low), Some(high)) = (inner("value"), inner("low"), inner("high")) {
        return format!("{} [{}, {}]", text(value), text(low), text(high));
    }
    let middle = ["value", "mean", "score"].iter().find_map(|key| inner(key));
    match (middle, inner("std_error")) {
        (Some(middle), Some(error)) => match form {
            Form::Plain | Form::Signed => with_error(middle, error),
            Form::Share | Form::Percent => format!("{} ± {}", text(middle), text(error)),
        },
        (Some(middle), None) => text(middle),
        _ => String::new(),
    }
}

/// Returns the mean of the tasks, and of each task the metric that counts.
fn tasks(scores: &[&Value]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if scores.iter().any(|scores| scores.get("average").is_some_and(Value::is_object)) {
        found.push(("/average".to_owned(), "mean of the tasks".to_owned()));
    }
    for scores in scores {
        let Some(tasks) = scores.get("tasks").and_then(Value::as_object) else { continue };
        for (task, metrics) in tasks {
            let Some(metrics) = metrics.as_object() else { continue };
            let first = metrics.keys().next().map(String::as_str);
            let Some(metric) = ["acc_norm", "acc"].into_iter().find(|m| metrics.contains_key(*m)).or(first) else {
                continue;
            };
            let escaped = |part: &str| part.replace('~', "~0").replace('/', "~1");
            let path = format!("/tasks/{}/{}/overall", escaped(task), escaped(metric));
            if !found.iter().any(|(earlier, _)| *earlier == path) {
                found.push((path, format!("{task}, {metric}")));
            }
        }
    }
    found
}

/// Returns every number of the scores with its path, a value for each result. Lists (a task's subjects) are left out.
fn all_numbers(scores: &[&Value]) -> Vec<(String, Vec<String>)> {
    fn walk(path: &str, value: &Value, take: &mut dyn FnMut(&str, f64)) {
        match value {
            Value::Number(number) => {
                if let Some(number) = number.as_f64() {
                    take(path, number);
                }
            }
            Value::Object(fields) => fields.iter().for_each(|(key, value)| walk(&format!("{path}/{key}"), value, take)),
            Value::Array(list) if list.len() == 1 => walk(&format!("{path}/0"), &list[0], take),
            _ => {}
        }
    }
    let mut order: Vec<String> = Vec::new();
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (i, scores) in scores.iter().enumerate() {
        walk("", scores, &mut |path, value| {
            let row = rows.entry(path.to_owned()).or_insert_with(|| {
                order.push(path.to_owned());
                Vec::new()
            });
            row.resize(i, String::new());
            row.push(number(value));
        });
    }
    let columns = scores.len();
    let mut row = |path: String| {
        let mut values = rows.remove(&path).unwrap_or_default();
        values.resize(columns, String::new());
        (path, values)
    };
    order.into_iter().map(&mut row).collect()
}

/// Compares every result with the first, if the two are comparable.
fn compared(group: &[(usize, &Measured)]) -> Outcome<Vec<Compared>> {
    let Some((first, others)) = group.split_first() else { return Ok(Vec::new()) };
    let first = &first.1.run;
    let mut rows = Vec::new();
    for (_, other) in others {
        let row = |task: &str| Compared {
            name: other.name.clone(),
            task: task.to_owned(),
            n: String::new(),
            difference: String::new(),
            p: String::new(),
            problem: None,
        };
        let reasons = differences(first, &other.run);
        if !reasons.is_empty() {
            rows.push(Compared { problem: Some(reasons.join("; ")), ..row("") });
            continue;
        }
        for found in compare(first, &other.run, &Bootstrap::default())? {
            let d = &found.difference;
            rows.push(Compared {
                n: count(found.n as u64),
                difference: format!("{} [{}, {}]", signed(d.value), signed(d.low), signed(d.high)),
                p: p_value(found.test.p_value()),
                ..row(&found.task)
            });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(name: &str, benchmark: &str, scores: Value, values: &[f64]) -> Measured {
        let items: Vec<Value> =
            values.iter().enumerate().map(|(i, v)| json!({"id": format!("{benchmark}/{i}"), "value": v})).collect();
        let run = json!({
            "manifest": {
                "benchmark": benchmark, "setpoint": "0", "model": {"name": name, "hash": null, "template": null},
                "baseline": null, "decoding": null, "data": "d", "judge": null, "scoring": null
            },
            "scores": scores, "items": items,
        });
        Measured { name: name.into(), run: serde_json::from_value(run).unwrap(), samples: Vec::new() }
    }

    fn rows(rows: &[Row]) -> Vec<(&str, &str)> {
        rows.iter().map(|row| (row.name.as_str(), row.cells[0].as_str())).collect()
    }

    #[test]
    fn six_figures_matter_and_the_rest_is_folded() {
        let mut scores = json!({
            "prompts": 60, "tokens": 12.5, "truncated": 0.25, "reward": 1.5,
            "win_rate": {"wins": 40, "rate": {"value": 0.7, "low": 0.6, "high": 0.8, "std_error": 0.1},
                         "difference": {"value": 0.5, "low": -0.25, "high": 1.0}},
            "kl": {"k1": {"mean": 3.0, "std_error": 0.25}, "k3": null},
            "pairs": {"accuracy": {"accuracy": {"value": 0.75, "low": 0.7, "high": 0.8}}},
        });
        let found = benchmarks(&[result("dro", "reward", scores.clone(), &[])], &[0]).unwrap();
        assert_eq!(
            rows(&found[0].figures),
            [
                ("win rate against the baseline (50 %: no difference)", "70.0\u{a0}% [60.0\u{a0}%, 80.0\u{a0}%]"),
                ("difference of the mean rewards", "+0.5 [−0.25, +1]"),
                ("held-out pairs in the right order", "75.0\u{a0}% [70.0\u{a0}%, 80.0\u{a0}%]"),
                ("length of a response, tokens", "12.5"),
                ("responses cut at the length limit", "25.0\u{a0}%"),
                ("KL from the baseline by the sampled tokens alone, nats per response", "3.00 ± 0.25"),
            ]
        );
        assert_eq!(rows(&found[0].rest), [("prompts", "60"), ("reward", "1.5"), ("win_rate.wins", "40")]);
        scores["kl"]["exact"] = json!({"mean": 3.25, "std_error": 0.05});
        let found = benchmarks(&[result("dro", "reward", scores, &[])], &[0]).unwrap();
        assert_eq!(rows(&found[0].figures)[2], ("KL from the baseline, nats per response", "3.250 ± 0.050"));
        assert!(rows(&found[0].rest).contains(&("kl.k1.mean", "3")), "{:?}", rows(&found[0].rest));
    }

    #[test]
    fn tasks_show_the_mean_and_one_metric_each() {
        let score = |value: f64| json!({"overall": {"value": value, "std_error": 0.01, "n": 100}, "subjects": []});
        let scores = json!({
            "tasks": {"arc_easy": {"acc": score(0.5), "acc_norm": score(0.6)}, "gsm8k": {"strict": score(0.1)}},
            "average": {"value": 0.35, "std_error": 0.01, "n": 200},
        });
        let found = benchmarks(&[result("dro", "tasks", scores, &[1.0, 0.0])], &[0]).unwrap();
        assert_eq!(
            rows(&found[0].figures),
            [
                ("mean of the tasks", "35.0\u{a0}% ± 1.0\u{a0}%"),
                ("arc_easy, acc_norm", "60.0\u{a0}% ± 1.0\u{a0}%"),
                ("gsm8k, strict", "10.0\u{a0}% ± 1.0\u{a0}%"),
            ]
        );
        // Right and wrong answers need no histogram.
        assert!(found[0].charts.is_empty());
    }

    #[test]
    fn an_unknown_benchmark_shows_its_first_figures() {
        let scores = json!({"a": 1, "b": {"c": 2.5}, "d": "text"});
        let found = benchmarks(&[result("x", "later", scores, &[])], &[0]).unwrap();
        assert_eq!(rows(&found[0].figures), [("a", "1"), ("b.c", "2.5")]);
        assert!(found[0].rest.is_empty() && found[0].compared.is_empty());
    }

    #[test]
    fn results_keep_their_colours_and_are_compared_with_the_first() {
        let of = |name: &str, shift: f64| {
            result(
                name,
                "mt_bench",
                json!({"single": [{"model": name, "average": {"score": 5.0 + shift, "std_error": 0.1, "n": 4}}]}),
                &[2.0 + shift, 4.0 + shift, 6.0 + shift, 8.0],
            )
        };
        let found = benchmarks(&[of("one", 0.0), of("two", 1.0)], &[3, 1]).unwrap();
        let benchmark = &found[0];
        assert_eq!(benchmark.legend.iter().map(|key| key.subject).collect::<Vec<_>>(), [Some(3), Some(1)]);
        assert_eq!(benchmark.against.as_deref(), Some("one"));
        assert!(benchmark.compared[0].difference.starts_with("+0.75 ["), "{:?}", benchmark.compared);
        assert_eq!(benchmark.figures[0].cells, ["5.00 ± 0.10", "6.00 ± 0.10"]);
        assert_eq!(benchmark.charts[0].legend.len(), 2);
    }
}

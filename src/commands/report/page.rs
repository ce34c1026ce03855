//! The page: sections of tables, charts and samples, without a script and without anything from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;
use setpoint_eval::{Bootstrap, EvalRun, compare, differences};

use super::chart;
use super::collect::{Collected, Measured, Run};
use setpoint::Outcome;

/// Prompts shown side by side.
const SAMPLES: usize = 20;

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
h1{font-size:1.5rem}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .75rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
td.n{text-align:right}.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:1rem}
figure{margin:0}figcaption{font-family:ui-monospace,monospace;font-size:.85rem}
svg{width:100%;height:auto}svg text{font-size:10px;fill:currentColor}svg .grid{stroke:var(--line)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}.legend span{margin-right:1.2rem}
.samples td{white-space:pre-wrap;min-width:14rem}.wide{overflow-x:auto}
pre{background:var(--soft);padding:1rem;overflow-x:auto}summary{cursor:pointer}";

/// The report as HTML.
pub fn html(collected: &Collected) -> Outcome<String> {
    let mut body = String::from("<h1>Setpoint report</h1>");
    training(&mut body, &collected.runs);
    evaluation(&mut body, &collected.results)?;
    samples(&mut body, collected);
    details(&mut body, collected)?;
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Setpoint report</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    ))
}

/// Text as HTML shows it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Names with their colours.
pub fn legend(names: &[&str]) -> String {
    let entry = |(i, name): (usize, &&str)| {
        format!("<span><i class=\"key\" style=\"background:{}\"></i>{}</span>", chart::colour(i), escape(name))
    };
    format!("<p class=\"legend\">{}</p>", names.iter().enumerate().map(entry).collect::<String>())
}

/// Spread and extremes of a metric, which are of less interest than its mean.
fn is_minor(metric: &str) -> bool {
    ["_std", "_max", "_min"].iter().any(|ending| metric.ends_with(ending))
        || matches!(metric, "step_seconds" | "tokens_per_second")
}

fn training(body: &mut String, runs: &[Run]) {
    if runs.is_empty() {
        return;
    }
    let names: Vec<&str> = runs.iter().map(|r| r.name.as_str()).collect();
    let _ = write!(body, "<h2>Training</h2>{}", legend(&names));
    let mut order: Vec<&str> = Vec::new();
    for metric in runs.iter().flat_map(|r| &r.order) {
        if !order.contains(&metric.as_str()) {
            order.push(metric);
        }
    }
    let charts = |minor: bool| -> String {
        let wanted = order.iter().filter(|m| is_minor(m) == minor);
        wanted
            .map(|metric| {
                let lines: Vec<chart::Line<'_>> = runs
                    .iter()
                    .enumerate()
                    .filter_map(|(i, run)| Some((i, run.metrics.get(*metric)?.as_slice())))
                    .collect();
                chart::lines(metric, &lines)
            })
            .collect()
    };
    let _ = write!(body, "<div class=\"charts\">{}</div>", charts(false));
    let minor = charts(true);
    if !minor.is_empty() {
        let _ = write!(
            body,
            "<details><summary>Spread, extremes and speed</summary><div class=\"charts\">{minor}</div></details>"
        );
    }
    for run in runs {
        body.push_str(&run.responses.section(&run.name));
    }
}

fn evaluation(body: &mut String, results: &[Measured]) -> Outcome {
    if results.is_empty() {
        return Ok(());
    }
    body.push_str("<h2>Evaluation</h2>");
    let benchmarks: BTreeSet<&str> = results.iter().map(|r| r.run.manifest.benchmark.as_str()).collect();
    for benchmark in benchmarks {
        let group: Vec<&Measured> = results.iter().filter(|r| r.run.manifest.benchmark == benchmark).collect();
        let names: Vec<&str> = group.iter().map(|r| r.name.as_str()).collect();
        let _ = write!(body, "<h3>{}</h3>{}", escape(benchmark), legend(&names));
        scores_table(body, &group);
        compared(body, &group)?;
        distributions(body, &group);
    }
    Ok(())
}

/// Every number of the scores, result beside result.
fn scores_table(body: &mut String, group: &[&Measured]) {
    let mut rows: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    for (i, result) in group.iter().enumerate() {
        let mut found = Vec::new();
        flatten("", &result.run.scores, &mut found);
        for (key, value) in found {
            if !rows.contains_key(&key) {
                order.push(key.clone());
            }
            rows.entry(key).or_insert_with(|| vec![None; group.len()])[i] = Some(value);
        }
    }
    let head: String = group.iter().map(|r| format!("<th>{}</th>", escape(&r.name))).collect();
    let _ = write!(body, "<div class=\"wide\"><table><tr><th></th>{head}</tr>");
    for key in order {
        let cells: String = rows[&key]
            .iter()
            .map(|v| format!("<td class=\"n\">{}</td>", v.map(chart::number).unwrap_or_default()))
            .collect();
        let _ = write!(body, "<tr><td>{}</td>{cells}</tr>", escape(&key));
    }
    body.push_str("</table></div>");
}

/// Numbers of nested objects by dotted path; lists (a task's subjects, several models) are left to the result's own file.
fn flatten(path: &str, value: &Value, found: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => found.extend(number.as_f64().map(|v| (path.to_owned(), v))),
        Value::Object(fields) => {
            for (key, value) in fields {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&inner, value, found);
            }
        }
        Value::Array(list) if list.len() == 1 => flatten(path, &list[0], found),
        _ => {}
    }
}

/// Every result against the first, where the two are comparable.
fn compared(body: &mut String, group: &[&Measured]) -> Outcome {
    let Some((first, others)) = group.split_first().filter(|(_, others)| !others.is_empty()) else { return Ok(()) };
    let mut rows = String::new();
    for other in others {
        let reasons = differences(&first.run, &other.run);
        if !reasons.is_empty() {
            let _ = write!(
                rows,
                "<tr><td>{}</td><td colspan=\"4\">not comparable with {}: {}</td></tr>",
                escape(&other.name),
                escape(&first.name),
                escape(&reasons.join("; "))
            );
            continue;
        }
        for row in compare(&first.run, &other.run, &Bootstrap::default())? {
            let d = &row.difference;
            let _ = write!(
                rows,
                "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:+.4} [{:+.4}, {:+.4}]</td><td class=\"n\">{:.4}</td></tr>",
                escape(&other.name),
                escape(&row.task),
                row.n,
                d.value,
                d.low,
                d.high,
                row.test.p_value()
            );
        }
    }
    let _ = write!(
        body,
        "<table><tr><th>against {}</th><th>task</th><th>n</th><th>difference [95 %]</th><th>p</th></tr>{rows}</table>",
        escape(&first.name)
    );
    Ok(())
}

/// Histograms of rewards, ratings and preferences, task by task (right and wrong answers need none), and of what else was measured of each
/// example, such as log-ratios.
fn distributions(body: &mut String, group: &[&Measured]) {
    let task = |id: &str| id.split('/').next().unwrap_or(id).to_owned();
    let tasks: BTreeSet<String> = group.iter().flat_map(|r| r.run.items.iter().map(|i| task(&i.id))).collect();
    let mut charts = String::new();
    for name in tasks {
        let values =
            |run: &EvalRun| -> Vec<f64> { run.items.iter().filter(|i| task(&i.id) == name).map(|i| i.value).collect() };
        let series: Vec<(usize, Vec<f64>)> =
            group.iter().enumerate().map(|(i, r)| (i, values(&r.run))).filter(|(_, v)| !v.is_empty()).collect();
        if series.iter().flat_map(|(_, v)| v).any(|v| *v != 0.0 && *v != 1.0) {
            charts += &chart::histogram(&format!("{name}, example by example"), &series);
        }
    }
    let further: BTreeSet<&String> = group.iter().flat_map(|r| r.run.distributions.keys()).collect();
    for name in further {
        let values = |r: &&Measured| r.run.distributions.get(name).cloned().unwrap_or_default();
        let series: Vec<(usize, Vec<f64>)> =
            group.iter().map(values).enumerate().filter(|(_, v)| !v.is_empty()).collect();
        let unit = if name.ends_with("log_ratio") { ", nats" } else { "" };
        charts += &chart::histogram(&format!("{name}{unit}, example by example"), &series);
    }
    if !charts.is_empty() {
        let _ = write!(body, "<div class=\"charts\">{charts}</div>");
    }
}

fn samples(body: &mut String, collected: &Collected) {
    let runs = collected.runs.iter().map(|r| (r.name.as_str(), &r.samples));
    let results = collected.results.iter().map(|r| (r.name.as_str(), &r.samples));
    let columns: Vec<(&str, &Vec<(String, String)>)> = runs.chain(results).filter(|(_, s)| !s.is_empty()).collect();
    let mut prompts: Vec<&str> = Vec::new();
    for (prompt, _) in columns.iter().flat_map(|(_, samples)| samples.iter()) {
        if !prompts.contains(&prompt.as_str()) && prompts.len() < SAMPLES {
            prompts.push(prompt);
        }
    }
    if prompts.is_empty() {
        return;
    }
    let head: String = columns.iter().map(|(name, _)| format!("<th>{}</th>", escape(name))).collect();
    let _ = write!(body, "<h2>Samples</h2><div class=\"wide\"><table class=\"samples\"><tr><th>prompt</th>{head}</tr>");
    for prompt in prompts {
        let cell = |samples: &Vec<(String, String)>| {
            let found = samples.iter().find(|(p, _)| p == prompt);
            format!("<td>{}</td>", found.map(|(_, text)| escape(text)).unwrap_or_default())
        };
        let cells: String = columns.iter().map(|(_, samples)| cell(samples)).collect();
        let _ = write!(body, "<tr><td>{}</td>{cells}</tr>", escape(prompt));
    }
    body.push_str("</table></div>");
}

/// Settings and manifests, folded away.
fn details(body: &mut String, collected: &Collected) -> Outcome {
    body.push_str("<h2>Settings</h2>");
    let mut fold = |name: &str, text: &str| {
        let _ = write!(body, "<details><summary>{}</summary><pre>{}</pre></details>", escape(name), escape(text));
    };
    for run in &collected.runs {
        fold(&run.name, run.config.as_deref().unwrap_or("no config.toml"));
    }
    for result in &collected.results {
        let manifest = &result.run.manifest;
        fold(&format!("{}: {}", manifest.benchmark, result.name), &serde_json::to_string_pretty(manifest)?);
    }
    Ok(())
}

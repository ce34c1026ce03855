//! `setpoint eval compare`: results side by side, with paired significance.

use std::path::{Path, PathBuf};

use serde_json::json;
use setpoint::eval::write_json;
use setpoint_eval::{Bootstrap, Comparison, EvalRun, PairedTest, compare, differences, p_value_text};

use crate::progress;
use setpoint::config::output::{Target, require_target};
use setpoint::session::{Existing, TextTable};
use setpoint::{Failure, Outcome};

/// Compares every run with the first.
pub fn run(paths: &[PathBuf], force: bool, output: Option<&Path>, existing: Existing) -> Outcome {
    if let Some(path) = output {
        require_target(path, Target::File, "--output")?;
        existing.require_new(path)?;
    }
    let runs: Vec<EvalRun> = paths.iter().map(|p| EvalRun::read(p)).collect::<Result<_, _>>()?;
    let Some((first, others)) = runs.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err(Failure::usage("RESULT", "give at least two results to compare"));
    };
    for (run, path) in others.iter().zip(&paths[1..]) {
        let reasons = differences(first, run);
        if reasons.is_empty() {
            continue;
        }
        let message =
            format!("{} and {} are not comparable: {}", paths[0].display(), path.display(), reasons.join("; "));
        if !force {
            return Err(Failure::run(message).hint("--force puts them side by side all the same"));
        }
        progress::warn(message);
    }
    let bootstrap = Bootstrap::default();
    let compared: Vec<Vec<Comparison>> =
        others.iter().map(|run| compare(first, run, &bootstrap)).collect::<Result<_, _>>()?;
    if compared.iter().all(Vec::is_empty) {
        return Err(Failure::run("the results have no examples in common"));
    }
    progress::say(table(first, others, &compared));
    if let Some(path) = output {
        let rows: Vec<_> = others
            .iter()
            .zip(&compared)
            .map(|(run, rows)| json!({ "model": run.manifest.model, "tasks": rows }))
            .collect();
        write_json(path, &json!({ "against": first.manifest.model, "runs": rows }))?;
        progress::note(format!("written to {}", path.display()));
    }
    Ok(())
}

fn table(first: &EvalRun, others: &[EvalRun], compared: &[Vec<Comparison>]) -> String {
    let columns = ["task", "run", "n", "mean", "difference [95 %]", "p", "test"];
    let mut table = TextTable { keys: 2, ..TextTable::plain(columns) };
    let mut shown = Vec::new();
    for row in compared.iter().flatten() {
        if shown.contains(&&row.task) {
            continue;
        }
        shown.push(&row.task);
        let blank = || String::new();
        let name = first.manifest.model.name.clone();
        table.push([row.task.clone(), name, row.n.to_string(), format!("{:.4}", row.a), blank(), blank(), blank()]);
        for (run, rows) in others.iter().zip(compared) {
            let Some(other) = rows.iter().find(|r| r.task == row.task) else { continue };
            let test = match other.test {
                PairedTest::McNemar(_) => "McNemar",
                PairedTest::Sign(_) => "sign",
            };
            let d = &other.difference;
            table.push([
                blank(),
                run.manifest.model.name.clone(),
                other.n.to_string(),
                format!("{:.4}", other.b),
                format!("{:+.4} [{:+.4}, {:+.4}]", d.value, d.low, d.high),
                p_value_text(other.test.p_value(), 4).trim_start_matches("= ").to_owned(),
                test.to_owned(),
            ]);
        }
    }
    let table = progress::drawn(&table);
    let unpaired = compared.iter().flatten().map(|r| r.unpaired).max().unwrap_or(0);
    match unpaired {
        0 => table,
        n => format!("{table}\nup to {n} examples of a task were measured in one run alone and are left out"),
    }
}

//! `setpoint sweep`: one method under many settings, a grid or drawn at random; each trial is trained, evaluated and put in a table.

mod settings;
mod table;

use std::borrow::Cow;
use std::path::Path;

use setpoint_data::counted;

pub use self::settings::{SweepConfig, SweepSection};
use self::table::{rows, table};
use crate::adapter::starting_model;
use crate::config::Problem;
use crate::failure::Outcome;
use crate::job::{ADAPTER, DATA, DryRun, Flag, Job, MODEL, Work, word};
use crate::search::{
    Crew, Entry, Point, Rule, Select, Trial, TrialJob, csv, failures, open, steps, still_falling, with_point, written,
};
use crate::session::{Session, memory};
use crate::setup;

/// `setpoint sweep`.
#[derive(Debug)]
pub struct Sweep;

impl Job for Sweep {
    type Config = SweepConfig;

    const COMMAND: &'static str = "sweep";
    const FLAGS: &'static [Flag] = &[MODEL, DATA, ADAPTER];
    const WORK: Work<SweepConfig> = Work::Run(run_and_show);
    const DRY_RUN: DryRun<SweepConfig> = DryRun::Text(dry_run);
    const NEXT: Option<fn(&Path) -> String> = Some(|run| format!("setpoint report {}/*", word(&run.join("trials"))));

    fn about() -> Cow<'static, str> {
        "One alignment method under many settings: a grid or drawn at random, each trained and evaluated".into()
    }

    fn help() -> Cow<'static, str> {
        "Example:\n  setpoint sweep sweep.toml --run runs/sweep\n  \
         setpoint sweep --run runs/sweep --resume\n\n\
         sweep.toml:\n  model.path = \"runs/sft/model\"\n  data.path = \"rewards.jsonl\"\n  align.method = \"dpo\"\n  \
         [eval]\n  data.path = \"prompts.jsonl\"\n  reward.path = \"runs/reward/model\"\n  \
         [sweep.settings]\n  \"align.beta\" = [0.05, 0.1, 0.5]\n  \"train.learning_rate\" = [2e-7, 5e-7]\n\n\
         With sweep.trials = 20 so many are drawn at random, also from ranges: { low = 1e-7, high = 1e-5, log = true }.\n\
         All settings with their defaults: setpoint inspect config sweep"
            .into()
    }
}

/// The trials of a sweep, the best first.
#[derive(Debug)]
pub struct SweepReport {
    /// The figures of each trial; failed ones come last.
    pub entries: Vec<Entry>,
    /// The rule by which they are sorted.
    pub rule: Rule,
}

/// Runs every trial, and writes `sweep.json` and `sweep.csv`.
///
/// # Errors
/// When the data do not suit the method, a file cannot be written, or the host asks to stop. Trials that fail are in the report.
pub fn run(session: &Session, config: &SweepConfig, folder: &Path, resume: bool) -> Outcome<SweepReport> {
    let mut config = config.clone();
    setup::fix_template_date(&mut config.model, folder, resume)?;
    let config = &config;
    config.eval.check(&config.model)?;
    let trials = trials(config)?;
    let quiet = Session { quiet: true, ..session.clone() };
    // Everything that can be wrong with the data is found before anything is written.
    let mut memory = steps(&quiet, &trials[0].config)?.1;
    if config.sweep.parallel > 1 {
        for trial in &trials[1..] {
            memory = memory.max(steps(&quiet, &trial.config)?.1);
        }
    }
    let run = open(folder, resume, config)?;
    let crew = Crew::new(session, config.sweep.parallel, memory);
    let whole = config.eval.whole();
    let start = starting_model(&config.model, config.adapter.as_ref());
    let jobs: Vec<TrialJob> = trials
        .iter()
        .map(|t| {
            TrialJob::new(&run, t, format!("{} {}", t.name, written(&t.point)), &config.eval, &start, (&whole, false))
        })
        .collect::<Outcome<_>>()?;
    let outcomes = crew.carry_out(&jobs)?;

    let mut entries: Vec<Entry> =
        trials.iter().zip(&outcomes).map(|(trial, outcome)| Entry::new(trial, outcome)).collect();
    let rule = Select::rule(config.sweep.select, config.sweep.metric);
    // Stable: failed trials come last, in their order.
    entries.sort_by(|a, b| match (&a.figures, &b.figures) {
        (Some(a), Some(b)) => rule.order(a, b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    });
    let (method, metric) = (config.align.name(), rule.metric.name());
    let data = serde_json::json!({ "method": method, "metric": metric, "max_kl": rule.max_kl, "trials": entries });
    setup::write_text(&run.join("sweep.json"), &(serde_json::to_string_pretty(&data)? + "\n"))?;
    setup::write_text(&run.join("sweep.csv"), &csv(&rows(&entries)))?;
    Ok(SweepReport { entries, rule })
}

/// Runs a sweep and prints the trials.
fn run_and_show(session: &Session, config: &SweepConfig, folder: &Path, resume: bool) -> Outcome {
    let report = run(session, config, folder, resume)?;
    session.show(&table(&report.entries));
    still_falling(&report.entries).into_iter().for_each(|sentence| session.say(sentence));
    let measured = report.entries.iter().filter_map(|entry| Some((entry.trial.clone(), entry.figures.as_ref()?)));
    let first = report.rule.none_of(measured).unwrap_or_else(|| {
        format!("the first is the best of {} tries, so measure it again on other prompts", report.entries.len())
    });
    session.say(format!(
        "sorted by {} on the held-out prompts; {first}\nwritten to {}: sweep.json, sweep.csv, trials/",
        report.rule.text(),
        folder.display()
    ));
    failures(&report.entries, folder)
}

/// Checks everything and returns the trials with their steps, a line for each.
///
/// # Errors
/// Everything of [`run`] that can be found without a training.
pub fn dry_run(session: &Session, config: &SweepConfig) -> Outcome<String> {
    let quiet = Session { quiet: true, ..session.clone() };
    config.eval.check(&config.model)?;
    let trials = trials(config)?;
    let mut lines = Vec::new();
    let mut total = 0;
    let mut most = 0f64;
    for trial in &trials {
        let (steps, needed) = steps(&quiet, &trial.config)?;
        lines.push(format!("{}  {}  {}", trial.name, counted(steps as usize, "step"), written(&trial.point)));
        total += steps;
        most = most.max(needed);
    }
    lines.push(format!(
        "{} of {}, {} together; each about {}",
        counted(trials.len(), "trial"),
        config.align.name(),
        counted(total as usize, "step"),
        memory::size(most)
    ));
    Ok(lines.join("\n"))
}

fn trials(config: &SweepConfig) -> Outcome<Vec<Trial>> {
    let as_problem = |(place, message)| Problem { place, message };
    let points = config.points().map_err(|wrong| wrong.into_iter().map(as_problem).collect::<Vec<_>>())?;
    let base = config.base();
    let trial = |(i, point): (usize, Point)| {
        let config = with_point(&base, &point)?;
        Ok(Trial { name: format!("{i:03}"), point, config })
    };
    points.into_iter().enumerate().map(trial).collect()
}

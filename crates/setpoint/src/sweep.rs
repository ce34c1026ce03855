//! `setpoint sweep`: one method under many settings, a grid or drawn at random; each trial is trained, evaluated and put in a table.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_align::Method;
use setpoint_data::{DatasetConfig, EncodeOptions, counted};
use setpoint_train::TrainConfig;
use setpoint_transformer::lora::LoraConfig;
use toml::{Table, Value};

use crate::adapter::{adapt_rate, starting_model};
use crate::align::{AlignConfig, StopSection};
use crate::config::load::to_table;
use crate::config::sections::{ModelSection, validate_no_mirror};
use crate::config::{Config, Problem, Problems};
use crate::failure::Outcome;
use crate::job::{ADAPTER, DATA, DryRun, Flag, Job, MODEL, Work, word};
use crate::search::{
    Crew, Entry, HeldOut, Metric, Point, Rule, Select, Space, Trial, TrialJob, blamed, cell, csv, failures, open,
    steps, still_falling, with_point, written,
};
use crate::session::{Session, TextTable, memory};
use crate::setup;
use crate::training::SamplesSection;

/// More points than anybody can mean.
const MOST_TRIALS: usize = 10_000;

/// Settings of `setpoint sweep`: those of `setpoint align`, what is tried, and what is measured.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// The policy to train: the SFT model, against which trials are measured.
    pub model: ModelSection,
    /// A low-rank adapter that is trained instead of the model's own weights, which stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<LoraConfig>,
    /// The reference model, for methods that have one; by default the policy as it is before training.
    pub reference: Option<PathBuf>,
    /// Rows as the method wants them.
    pub data: DatasetConfig,
    /// Rows to evaluate on during training.
    pub eval_data: Option<DatasetConfig>,
    /// The conversion of rows to tokens.
    pub encode: EncodeOptions,
    /// The method, and the settings that all trials share.
    pub align: Method,
    /// Optimizer, schedule, checkpoints.
    pub train: TrainConfig,
    /// Ends a training early if the policy moves too far from the reference.
    pub stop: StopSection,
    /// Keeps the policy of each step at which samples are due (`train.sample_steps`), in `RUN/steps/STEP/model`.
    pub keep_models: bool,
    /// Answers to a few prompts during training.
    pub samples: SamplesSection,
    /// Held-out rows and their judge.
    pub eval: HeldOut,
    /// The settings that are tried.
    pub sweep: SweepSection,
}

/// `[sweep]`: what is tried.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepSection {
    /// Settings, each with a list of values, or with a range `{ low, high, log }` if `trials` is given.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub settings: Table,
    /// The number of trials, drawn at random; without it, every combination of the lists is tried.
    #[schemars(range(min = 1))]
    pub trials: Option<usize>,
    /// Seed of the draws.
    pub seed: u64,
    /// The figure by which the table is sorted.
    pub metric: Metric,
    /// Puts trials near the SFT model first, as in `{ metric = "reward", max_kl = 2.0 }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// Trials that run at once, each in a process of its own; fewer if the CPU's memory does not hold them.
    #[schemars(range(min = 1))]
    pub parallel: usize,
}

impl Default for SweepConfig {
    fn default() -> Self {
        let AlignConfig {
            model,
            adapter,
            reference,
            data,
            eval_data,
            encode,
            align,
            train,
            stop,
            keep_models,
            samples,
            ..
        } = AlignConfig::default();
        let sweep = SweepSection { parallel: 1, ..SweepSection::default() };
        // Trials are looked at by their figures.
        let samples = SamplesSection { prompts: 0, ..samples };
        let eval = HeldOut::default();
        Self {
            model,
            adapter,
            reference,
            data,
            eval_data,
            encode,
            align,
            train,
            stop,
            keep_models,
            samples,
            eval,
            sweep,
        }
    }
}

impl Config for SweepConfig {
    const JOB: &'static str = "sweep";

    fn respell(user: &mut Table) {
        AlignConfig::respell(user);
    }

    fn defaults(user: &Table) -> Result<Table, (String, String)> {
        let mut table = to_table(&Self::default());
        table.extend(AlignConfig::defaults(user)?.into_iter().filter(|(key, _)| key == "align"));
        adapt_rate(&mut table, user);
        Ok(table)
    }

    fn validate(&self, problems: &mut Problems<'_>) {
        self.base().validate(problems);
        validate_no_mirror(&self.train, problems);
        self.eval.validate(problems);
        let sweep = &self.sweep;
        problems.require(sweep.parallel > 0, "sweep.parallel", "must be at least 1");
        problems.require(sweep.trials != Some(0), "sweep.trials", "must be at least 1");
        Select::validate(sweep.select, sweep.metric, "sweep", self.eval.pairs.is_some(), problems);
        match self.points() {
            Ok(points) => {
                let mut said = BTreeSet::new();
                for point in points {
                    for problem in with_point(&self.base(), &point).err().unwrap_or_default() {
                        // What is wrong with the shared settings is said already, at its own place.
                        let Some(key) = blamed(&problem, &point) else { continue };
                        if said.insert((key.clone(), problem.message.clone())) {
                            problems.add(&format!("sweep.settings.{key}"), problem.message);
                        }
                    }
                }
            }
            Err(wrong) => wrong.into_iter().for_each(|(key, message)| problems.add(&key, message)),
        }
    }
}

impl SweepConfig {
    /// The settings that all trials share.
    fn base(&self) -> AlignConfig {
        let Self {
            model, adapter, reference, data, eval_data, encode, align, train, stop, keep_models, samples, ..
        } = self.clone();
        AlignConfig {
            model,
            adapter,
            reference,
            data,
            eval_data,
            encode,
            align,
            train,
            stop,
            keep_models,
            samples,
            tracker: None,
            output: None,
            rounds: None,
            guards: None,
            rollout: None,
            reward: None,
            watch: None,
            sft_data: None,
        }
    }

    /// What is tried, trial by trial; or what is wrong, by key.
    fn points(&self) -> Result<Vec<Point>, Vec<(String, String)>> {
        let at = |key: &str| format!("sweep.settings.{key}");
        let space = Space::read(&self.sweep.settings).map_err(|wrong| {
            wrong.into_iter().map(|(key, message)| (at(&key), format!("`{key}`: {message}"))).collect::<Vec<_>>()
        })?;
        if space.keys().is_empty() {
            return Err(vec![(
                "sweep.settings".into(),
                "nothing to try: name settings and their values, as in \"align.beta\" = [0.1, 0.5]".into(),
            )]);
        }
        if space.keys().iter().any(|key| key == "align.method") {
            return Err(vec![(
                at("align.method"),
                "a sweep is of one method; `setpoint compare` compares several".into(),
            )]);
        }
        match self.sweep.trials {
            Some(trials) if trials <= MOST_TRIALS && space.size() <= 1_000_000 => {
                Ok(space.sample(trials, self.sweep.seed))
            }
            None if !space.ranges().is_empty() => Err(space
                .ranges()
                .into_iter()
                .map(|key| {
                    (
                        at(&key),
                        format!(
                            "`{key}` is a range, of which a grid has no points: set `sweep.trials` to draw from it"
                        ),
                    )
                })
                .collect()),
            None if space.size() <= MOST_TRIALS => Ok(space.grid()),
            _ => Err(vec![(
                "sweep".into(),
                format!("more than {MOST_TRIALS} trials: set `sweep.trials` or shorten the lists"),
            )]),
        }
    }
}

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

/// Returns the trials with their settings and figures.
fn table(entries: &[Entry]) -> TextTable {
    let keys = keys(entries);
    let figures = ["win rate", "reward", "KL", "pair accuracy", "chosen", "rejected", "tokens", "seconds", "memory"]
        .map(str::to_owned);
    let mut table = TextTable::framed([vec!["trial".to_owned()], keys.clone(), figures.to_vec()].concat());
    for entry in entries {
        let mut row = vec![entry.trial.clone()];
        row.extend(keys.iter().map(|key| entry.settings.get(key).map_or_else(String::new, plain)));
        match (&entry.figures, &entry.trained) {
            (Some(f), Some(t)) => row.extend([
                format!("{:.3} [{:.3}, {:.3}]", f.win_rate, f.win_rate_low, f.win_rate_high),
                format!("{:.3}", f.reward),
                format!("{:.2}", f.divergence()),
                f.pair_accuracy.map_or_else(String::new, |v| format!("{v:.3}")),
                f.chosen_log_ratio.map_or_else(String::new, |v| format!("{v:+.2}")),
                f.rejected_log_ratio.map_or_else(String::new, |v| format!("{v:+.2}")),
                format!("{:.1}", f.tokens),
                format!("{}{:.0}", if t.resumed { "over " } else { "" }, t.seconds),
                t.peak_memory.map_or_else(String::new, |bytes| memory::size(bytes as f64)),
            ]),
            _ => row.push("failed".to_owned()),
        }
        table.push(row);
    }
    table
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

/// Returns the settings that trials differ in.
fn keys(entries: &[Entry]) -> Vec<String> {
    entries.first().map(|entry| entry.settings.keys().cloned().collect()).unwrap_or_default()
}

fn rows(entries: &[Entry]) -> Vec<Vec<String>> {
    let keys = keys(entries);
    let figures = [
        "seed",
        "win_rate",
        "win_rate_low",
        "win_rate_high",
        "reward",
        "baseline_reward",
        "kl",
        "kl_exact",
        "pair_accuracy",
        "chosen_log_ratio",
        "rejected_log_ratio",
        "tokens",
        "truncated",
        "seconds",
        "resumed",
        "peak_memory_bytes",
        "error",
    ];
    let mut rows = vec![[vec!["trial".to_owned()], keys.clone(), figures.map(str::to_owned).to_vec()].concat()];
    for entry in entries {
        let mut row = vec![entry.trial.clone()];
        row.extend(keys.iter().map(|key| entry.settings.get(key).map_or_else(String::new, plain)));
        row.push(entry.seed.to_string());
        let f = entry.figures.as_ref();
        row.extend([
            cell(f.map(|f| f.win_rate)),
            cell(f.map(|f| f.win_rate_low)),
            cell(f.map(|f| f.win_rate_high)),
            cell(f.map(|f| f.reward)),
            cell(f.map(|f| f.baseline_reward)),
            cell(f.map(|f| f.kl)),
            cell(f.and_then(|f| f.kl_exact)),
            cell(f.and_then(|f| f.pair_accuracy)),
            cell(f.and_then(|f| f.chosen_log_ratio)),
            cell(f.and_then(|f| f.rejected_log_ratio)),
            cell(f.map(|f| f.tokens)),
            cell(f.map(|f| f.truncated)),
        ]);
        let t = entry.trained.as_ref();
        row.push(cell(t.map(|t| t.seconds)));
        row.push(t.map_or_else(String::new, |t| t.resumed.to_string()));
        row.push(t.and_then(|t| t.peak_memory).map_or_else(String::new, |bytes| bytes.to_string()));
        row.push(entry.error.clone().unwrap_or_default());
        rows.push(row);
    }
    rows
}

/// Returns a value without the quotes of a string.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

//! `setpoint compare`: several methods from one SFT model and one annotated file, with equal budgets, in one table.
//!
//! Each method's settings are selected on one part of the held-out prompts, with the first seed; the table is measured on the other part,
//! with every seed. What a table reports is thus never what its settings were chosen by.

mod contender;
mod frontier;
mod plan;
mod presets;
mod results;
mod settings;

use std::borrow::Cow;
use std::path::Path;

use setpoint_align::Method;
use setpoint_data::counted;
use setpoint_train::RunDir;

pub use self::frontier::FrontierSection;
use self::plan::{Candidate, Choice, Plan};
pub use self::results::{MethodResult, Results};
use self::settings::Search;
use crate::adapter::starting_model;
use crate::failure::{Failure, Outcome};
use crate::job::{ADAPTER, DATA, DryRun, Flag, Form, Job, MODEL, Work, word};
use crate::report::Report;
use crate::search::{Crew, Entry, Part, Reached, Trial, TrialJob, failures, open, split, still_falling, written};
use crate::session::{Session, memory};
use crate::setup;

pub use self::settings::CompareConfig;

/// `setpoint compare`.
#[derive(Debug)]
pub struct Compare;

impl Job for Compare {
    type Config = CompareConfig;

    const COMMAND: &'static str = "compare";
    const FLAGS: &'static [Flag] = &[MODEL, DATA, ADAPTER, AT_KL];
    const WORK: Work<CompareConfig> = Work::Run(run_and_show);
    const DRY_RUN: DryRun<CompareConfig> = DryRun::Text(dry_run);
    const NEXT: Option<fn(&Path) -> String> =
        Some(|run| format!("setpoint report {} {}/*", word(run), word(&run.join("trials"))));

    fn about() -> Cow<'static, str> {
        "Train several alignment methods from one model and one annotated file with equal budgets, in one table (`eval compare` puts \
         results side by side that exist)"
            .into()
    }

    fn help() -> Cow<'static, str> {
        "Example:\n  setpoint compare compare.toml --run runs/compare\n  \
         setpoint compare --run runs/compare --resume\n\n\
         compare.toml:\n  model.path = \"runs/sft/model\"\n  data.path = \"rewards.jsonl\"\n  \
         [eval]\n  data.path = \"prompts.jsonl\"\n  pairs.path = \"held-out-pairs.jsonl\"\n  \
         reward.path = \"runs/reward/model\"\n  \
         [compare]\n  methods = [\"dro\", \"dpo\", \"simpo\"]\n  search = \"preset\"\n  seeds = [0, 1, 2]\n  \
         [frontier]\n  kl = [1.0, 2.0]\n\n\
         Settings are selected on one part of the held-out prompts, the table is measured on the other.\n\
         A finished run is read at other KLs with --resume --at-kl 0.5,1.5.\n\
         All settings with their defaults: setpoint inspect config compare"
            .into()
    }
}

/// `--at-kl`.
const AT_KL: Flag = Flag {
    form: Form::Numbers,
    ..Flag::text(
        "at-kl",
        "NATS",
        "frontier.kl",
        "KLs at which methods are compared, separated by commas (setting frontier.kl)",
    )
};

/// The methods of a comparison.
#[derive(Debug)]
pub struct CompareReport {
    /// The methods side by side.
    pub results: Results,
    /// The figures of every trial.
    pub entries: Vec<Entry>,
}

/// Trains every method, selects its settings, measures, and writes `compare.json`, `compare.csv` and, if there is a line to draw,
/// `frontier.html`.
///
/// # Errors
/// When the data do not suit a method, a file cannot be written, or the host asks to stop. Trials that fail are in the report.
pub fn run(session: &Session, config: &CompareConfig, folder: &Path, resume: bool) -> Outcome<CompareReport> {
    let mut config = config.clone();
    setup::fix_template_date(&mut config.model, folder, resume)?;
    let config = &config;
    let quiet = Session { quiet: true, ..session.clone() };
    // Everything that can be wrong with the data is found before anything is written.
    config.eval.check(&config.model)?;
    let plan = Plan::of(&quiet, config)?;
    let run = open(folder, resume, config)?;
    let crew = Crew::new(session, config.compare.parallel, plan.memory);
    let (selecting, reporting) = match plan.searches() {
        true => {
            let data = run.join("data");
            std::fs::create_dir_all(&data)
                .map_err(|e| Failure::run(format!("cannot create {}: {e}", data.display())))?;
            let [select, report] = split(&config.eval, config.compare.selection_share, config.compare.seed, &data)?;
            (Some(select), report)
        }
        false => (None, config.eval.whole()),
    };
    let stage = Stage { config, run: &run, crew: &crew };
    let (every, earlier) = (config.frontier.every_seed, config.frontier.checkpoints > 0);

    let mut searched = Vec::new();
    if let Some(part) = &selecting {
        introduce(session, config);
        note(session, "selecting settings");
        let first = config.compare.seeds[0];
        let asked = config.frontier.is_asked() && !every;
        let trials: Vec<Trial> =
            plan.methods.iter().filter(|m| asked || m.points.len() > 1).flat_map(|m| m.trials(first)).collect();
        searched = stage.carry_out(&trials, part, earlier && !every)?;
    }
    let rule = config.compare.rule();
    let chosen: Vec<(&Candidate, Option<Choice>)> =
        plan.methods.iter().map(|method| (method, method.best(&searched, rule))).collect();

    note(session, "training the selected settings with every seed, and measuring on the rest of the held-out rows");
    let mut trials = Vec::new();
    for (method, choice) in &chosen {
        for &seed in &config.compare.seeds {
            trials.extend(choice.map(|choice| method.trial(choice.point, seed)));
        }
    }
    let on_the_way = chosen.iter().any(|(_, choice)| choice.is_some_and(|choice| choice.step.is_some()));
    let steps = earlier && (every || on_the_way || !plan.searches());
    let reported = stage.carry_out(&trials, &reporting, steps)?;

    let methods: Vec<MethodResult> = chosen
        .iter()
        .map(|(method, choice)| {
            MethodResult::new(method, *choice, method.none_allowed(&searched, rule), &reported, &config.eval)
        })
        .collect::<Outcome<_>>()?;
    let frontier = if every && plan.searches() {
        note(session, "training every choice of settings with every seed, for the lines of reward against KL");
        let seeds = &config.compare.seeds;
        let all: Vec<Trial> =
            seeds.iter().flat_map(|&seed| plan.methods.iter().flat_map(move |m| m.trials(seed))).collect();
        frontier::draw(config, &run, &stage.carry_out(&all, &reporting, earlier)?, reporting.name)?
    } else if let Some(part) = &selecting {
        frontier::draw(config, &run, &searched, part.name)?
    } else {
        frontier::draw(config, &run, &reported, reporting.name)?
    };
    let selected_by = plan.searches().then_some(rule);
    let results = Results { methods, steps: plan.steps, selected_by, frontier };
    let searched: Vec<Entry> = searched.iter().map(Measured::entry).collect();
    let reported: Vec<Entry> = reported.iter().map(Measured::entry).collect();
    let data = results.json(&searched, &reported);
    setup::write_text(&run.join("compare.json"), &(serde_json::to_string_pretty(&data)? + "\n"))?;
    setup::write_text(&run.join("compare.csv"), &results.csv())?;
    if results.frontier.has_lines() {
        setup::write_text(&run.join("frontier.html"), &Report::read(&[folder.to_owned()])?.html()?)?;
    }
    Ok(CompareReport { results, entries: [searched, reported].concat() })
}

/// Runs a comparison and prints the methods side by side.
fn run_and_show(session: &Session, config: &CompareConfig, folder: &Path, resume: bool) -> Outcome {
    let CompareReport { results, entries } = run(session, config, folder, resume)?;
    session.show(&results.table());
    session.say(results.legend());
    results.sampled().into_iter().for_each(|sentence| session.say(sentence));
    results
        .methods
        .iter()
        .filter_map(|m| Some(format!("{}: {}", m.name, m.too_far.as_ref()?)))
        .for_each(|s| session.say(s));
    still_falling(&entries).into_iter().for_each(|sentence| session.say(sentence));
    let has_lines = results.frontier.has_lines();
    if has_lines {
        results.frontier.tables().iter().for_each(|table| session.show(table));
        session.say(results.frontier.legend(match (config.frontier.every_seed, results.selected_by.is_some()) {
            (false, true) => "the prompts of the selection, with the first seed",
            _ => "the prompts of the report, seeds averaged",
        }));
    }
    let page = if has_lines { "frontier.html, " } else { "" };
    session.say(format!("written to {}: compare.json, compare.csv, {page}trials/", folder.display()));
    failures(&entries, folder)
}

/// Says that the paper's ranges of DRO leave out this program's default level, unless the user has given ranges.
fn introduce(session: &Session, config: &CompareConfig) {
    if config.compare.search != Search::Preset {
        return;
    }
    for contender in config.methods().unwrap_or_default() {
        let name = contender.name();
        if matches!(contender.method, Method::Dro(_)) && config.compare.grid(&name).is_none() {
            note(
                session,
                &format!(
                    "{name} is tried in the ranges of its paper, at log_z0 = -50, 50 and 500; to try it around the default of \
                     `setpoint align`, set compare.grids.{name} = {{ \"align.log_z0\" = [\"mean\"], \"align.beta\" = \
                     [0.05, 0.1, 0.5, 1.0] }}"
                ),
            );
        }
    }
}

fn note(session: &Session, text: &str) {
    if !session.quiet {
        log::info!("{text}");
    }
}

/// A trial and what became of it.
pub struct Measured {
    trial: Trial,
    outcome: Reached,
}

impl Measured {
    fn entry(&self) -> Entry {
        Entry::new(&self.trial, &self.outcome)
    }
}

/// The place and the way in which trials are run.
struct Stage<'a> {
    config: &'a CompareConfig,
    run: &'a RunDir,
    crew: &'a Crew<'a>,
}

impl Stage<'_> {
    /// Trains and measures trials; `steps`: the models that they keep of earlier steps as well.
    fn carry_out(&self, trials: &[Trial], part: &Part, steps: bool) -> Outcome<Vec<Measured>> {
        let title = |trial: &Trial| {
            let settings = written(&trial.point);
            format!("{}{}{settings}", trial.name, if settings.is_empty() { "" } else { ": " })
        };
        let start = starting_model(&self.config.model, self.config.adapter.as_ref());
        let job = |trial| TrialJob::new(self.run, trial, title(trial), &self.config.eval, &start, (part, steps));
        let jobs: Vec<TrialJob> = trials.iter().map(job).collect::<Outcome<_>>()?;
        let outcomes = self.crew.carry_out(&jobs)?;
        Ok(trials.iter().cloned().zip(outcomes).map(|(trial, outcome)| Measured { trial, outcome }).collect())
    }
}

/// Checks everything and returns the trials with their steps, a line for each.
///
/// # Errors
/// Everything of [`run`] that can be found without a training.
pub fn dry_run(session: &Session, config: &CompareConfig) -> Outcome<String> {
    let quiet = Session { quiet: true, ..session.clone() };
    config.eval.check(&config.model)?;
    let plan = Plan::of(&quiet, config)?;
    introduce(session, config);
    let mut lines = Vec::new();
    let seeds = config.compare.seeds.len();
    let mut trainings = 0;
    for method in &plan.methods {
        for (i, point) in method.points.iter().enumerate() {
            lines.push(format!("{:<14} {i:03}  {} steps  {}", method.method.name(), plan.steps, written(point)));
        }
        // The first seed of the selected settings is trained already where there was a search.
        trainings += match method.points.len() {
            1 => seeds,
            points if config.frontier.every_seed => points * seeds,
            points => points + seeds - 1,
        };
    }
    lines.push(format!(
        "{}, {} of {} with batches of {}; {} of the selected settings; at most about {} each",
        counted(plan.methods.len(), "method"),
        counted(trainings, "training"),
        counted(plan.steps as usize, "step"),
        config.train.batch_size,
        counted(seeds, "seed"),
        memory::size(plan.memory)
    ));
    Ok(lines.join("\n"))
}

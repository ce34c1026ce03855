//! RewardBench as a job.

use std::borrow::Cow;

use setpoint_eval::RewardBenchScores;

use super::{RewardBenchConfig, dry_run, run};
use crate::eval::job::{OUTPUT_FOLDER, write};
use crate::job::{DryRun, Flag, Job, MODEL, Work};
use crate::session::TextTable;

/// `setpoint eval reward-bench`.
#[derive(Debug)]
pub struct RewardBench;

impl Job for RewardBench {
    type Config = RewardBenchConfig;

    const COMMAND: &'static str = "eval reward-bench";
    const SETTINGS: &'static str = "eval-reward-bench";
    const FLAGS: &'static [Flag] = &[
        Flag { help: "Folder or hub id of the reward model (setting model.path)", ..MODEL },
        Flag::text(
            "data",
            "DATA",
            "data",
            "Rows in the published columns: a file, a folder or a hub id, or `hub` (setting data)",
        ),
        OUTPUT_FOLDER,
    ];
    const WORK: Work<RewardBenchConfig> = Work::Result(|session, config| {
        let evaluated = run(session, config)?;
        session.show(&table(&evaluated.scores));
        write(evaluated, config.output.as_deref())
    });
    const DRY_RUN: DryRun<RewardBenchConfig> = DryRun::Text(dry_run);

    fn about() -> Cow<'static, str> {
        "RewardBench 1 and 2: how often a reward model prefers the right response".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint eval reward-bench --model runs/reward/model --data hub --output runs/reward-bench\n  \
         setpoint eval reward-bench --model runs/reward/model --data filtered.parquet --set version=v1\n\n\
         All settings: setpoint inspect config eval-reward-bench"
            .into()
    }
}

/// Returns the scores of subsets and sections as a table.
fn table(scores: &RewardBenchScores) -> TextTable {
    let mut table = TextTable::plain(["subset", "score", "rows"]);
    let figure = |score: f64| format!("{score:.4}");
    for (subset, score) in &scores.subsets {
        table.push([subset.clone(), figure(score.score), score.rows.to_string()]);
    }
    for (section, score) in &scores.sections {
        table.push([format!("section {section}"), figure(*score), String::new()]);
    }
    if let Some(score) = scores.score {
        table.push(["score".to_owned(), figure(score), scores.rows.len().to_string()]);
    }
    table
}

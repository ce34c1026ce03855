//! IFEval as a job.

use std::borrow::Cow;

use setpoint_eval::{IfEvalScores, InstructionScore};

use super::{IfEvalConfig, dry_run, run};
use crate::eval::job::{ANSWERING_MODEL, OUTPUT_FOLDER, write};
use crate::job::{DryRun, Flag, Job, Work};
use crate::session::{Session, TextTable};

/// `setpoint eval ifeval`.
#[derive(Debug)]
pub struct IfEval;

impl Job for IfEval {
    type Config = IfEvalConfig;

    const COMMAND: &'static str = "eval ifeval";
    const SETTINGS: &'static str = "eval-ifeval";
    const FLAGS: &'static [Flag] = &[
        ANSWERING_MODEL,
        Flag::text(
            "data",
            "DATA",
            "data",
            "Rows in the published columns: a file, a folder or a hub id, or `hub` (setting data)",
        ),
        Flag::path(
            "responses",
            "FILE",
            "responses",
            "Responses that exist: JSON lines with prompt and response (setting responses)",
        ),
        OUTPUT_FOLDER,
    ];
    const WORK: Work<IfEvalConfig> = Work::Result(|session, config| {
        let evaluated = run(session, config)?;
        show(session, &evaluated.scores);
        write(evaluated, config.output.as_deref())
    });
    const DRY_RUN: DryRun<IfEvalConfig> = DryRun::Text(dry_run);

    fn about() -> Cow<'static, str> {
        "IFEval: how often a model follows instructions that a program can verify".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint eval ifeval --model DIR --data hub --output runs/ifeval\n  \
         setpoint eval ifeval --responses responses.jsonl --data input_data.jsonl\n\n\
         All settings: setpoint inspect config eval-ifeval"
            .into()
    }
}

/// Prints the four accuracies, and both of each kind of instruction.
fn show(session: &Session, scores: &IfEvalScores) {
    let mut table = TextTable::plain(["metric", "value", "stderr", "n"]);
    for (name, score) in [
        ("prompt_level_strict_acc", scores.prompt_level_strict_acc),
        ("inst_level_strict_acc", scores.inst_level_strict_acc),
        ("prompt_level_loose_acc", scores.prompt_level_loose_acc),
        ("inst_level_loose_acc", scores.inst_level_loose_acc),
    ] {
        let figures = [score.value, score.std_error].map(|figure| format!("{figure:.4}"));
        table.push([name.to_owned()].into_iter().chain(figures).chain([score.n.to_string()]));
    }
    session.show(&table);
    let mut table = TextTable::plain(["instruction", "strict", "loose", "n"]);
    for (name, InstructionScore { strict, loose, n }) in &scores.instructions {
        table.push([(*name).to_owned(), format!("{strict:.4}"), format!("{loose:.4}"), n.to_string()]);
    }
    session.show(&table);
}

//! AlpacaEval 2 as a job.

use std::borrow::Cow;

use setpoint_eval::AlpacaWinRate;

use super::{AlpacaConfig, AlpacaReport, dry_run, run};
use crate::eval::job::{ANSWERING_MODEL, OUTPUT_FOLDER, write};
use crate::job::{DryRun, Flag, Job, Work};

/// `setpoint eval alpaca`.
#[derive(Debug)]
pub struct Alpaca;

impl Job for Alpaca {
    type Config = AlpacaConfig;

    const COMMAND: &'static str = "eval alpaca";
    const SETTINGS: &'static str = "eval-alpaca";
    const FLAGS: &'static [Flag] = &[
        Flag::path(
            "annotations",
            "FILE",
            "annotations",
            "Annotations to score as they are: annotations.json, or CSV (setting annotations)",
        ),
        ANSWERING_MODEL,
        Flag::path("outputs", "FILE", "outputs", "Answers that exist: model_outputs.json (setting outputs)"),
        Flag::path("baseline", "FILE", "baseline", "The baseline's model_outputs.json (setting baseline)"),
        OUTPUT_FOLDER,
    ];
    const WORK: Work<AlpacaConfig> = Work::Result(|session, config| {
        let evaluated = run(session, config)?;
        session.say(figures(&evaluated.scores));
        write(evaluated, config.output.as_deref())
    });
    const DRY_RUN: DryRun<AlpacaConfig> = DryRun::Text(dry_run);

    fn about() -> Cow<'static, str> {
        "AlpacaEval 2: win rate and length-controlled win rate over a baseline's outputs".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint eval alpaca --annotations annotations.json --set length_control.difficulty=instruction_difficulty.csv\n  \
         setpoint eval alpaca --model DIR --baseline gpt4_outputs.json --output runs/alpaca\n  \
         setpoint eval alpaca --outputs model_outputs.json --baseline gpt4_outputs.json --output runs/alpaca --set reward.path=runs/reward/model\n\n\
         The judge's key is read from OPENAI_API_KEY (setting judge.api_key_env). All settings: setpoint inspect config eval-alpaca"
            .into()
    }
}

/// Returns the figures of AlpacaEval, one a line.
fn figures(report: &AlpacaReport) -> String {
    let AlpacaWinRate {
        win_rate,
        standard_error,
        discrete_win_rate,
        n_wins,
        n_wins_base,
        n_draws,
        n_total,
        n_failed,
        avg_length,
    } = report.win_rate;
    let mut lines = vec![
        format!("model              {}", report.model),
        format!("win rate           {win_rate:.4} % ± {standard_error:.4}"),
    ];
    if let Some(lc) = &report.length_controlled {
        let c = lc.c.map_or("no penalty".to_owned(), |c| format!("C = {c:.4}"));
        // All predictions are equal without difficulties, so there is no error to give.
        let error = if lc.lc_standard_error > 0.0 { format!(" ± {:.4}", lc.lc_standard_error) } else { String::new() };
        lines.push(format!("length-controlled  {:.4} %{error}  ({}, {c})", lc.length_controlled_winrate, lc.glm));
        let missing: Vec<&str> = lc.missing().iter().map(|(file, _)| *file).collect();
        if let Some((_, setting)) = lc.missing().first() {
            lines.push(format!(
                "                   not the leaderboard's length-controlled win rate: without {} (--set {setting}=FILE)",
                missing.join(" and ")
            ));
        }
    }
    lines.push(format!("discrete win rate  {discrete_win_rate:.4} %"));
    lines.push(format!(
        "wins               {n_wins}, losses {n_wins_base}, draws {n_draws} of {n_total}; {n_failed} failed"
    ));
    lines.push(format!("average length     {avg_length} characters"));
    lines.join("\n")
}

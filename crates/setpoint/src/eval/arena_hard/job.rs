//! Arena-Hard as a job.

use std::borrow::Cow;

use setpoint_eval::Estimate;

use super::{ArenaHardConfig, ArenaHardReport, dry_run, run};
use crate::eval::job::{ANSWERING_MODEL, OUTPUT_FOLDER, write};
use crate::job::{DryRun, Flag, Job, Work};
use crate::session::TextTable;

/// `setpoint eval arena-hard`.
#[derive(Debug)]
pub struct ArenaHard;

impl Job for ArenaHard {
    type Config = ArenaHardConfig;

    const COMMAND: &'static str = "eval arena-hard";
    const SETTINGS: &'static str = "eval-arena-hard";
    const FLAGS: &'static [Flag] = &[
        Flag::path("judgments", "PATH", "judgments", "Judgments to score as they are (setting judgments)"),
        ANSWERING_MODEL,
        Flag::path("answers", "FILE", "answers", "Answers that exist (setting answers)"),
        Flag::path("questions", "FILE", "questions", "Arena-Hard's question.jsonl (setting questions)"),
        Flag::path("baselines", "DIR", "baselines", "Folder with the baselines' answers (setting baselines)"),
        OUTPUT_FOLDER,
    ];
    const WORK: Work<ArenaHardConfig> = Work::Result(|session, config| {
        let evaluated = run(session, config)?;
        session.show(&table(&evaluated.scores));
        write(evaluated, config.output.as_deref())
    });
    const DRY_RUN: DryRun<ArenaHardConfig> = DryRun::Text(dry_run);

    fn about() -> Cow<'static, str> {
        "Arena-Hard 2: hard prompts and creative writing, judged against a baseline in both orders".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint eval arena-hard --judgments model_judgment/gpt-4.1 --baselines model_answer\n  \
         setpoint eval arena-hard --model DIR --questions question.jsonl --baselines model_answer --output runs/arena\n\n\
         The judge's key is read from OPENAI_API_KEY (setting judge.api_key_env). All settings: setpoint inspect config eval-arena-hard"
            .into()
    }
}

/// Returns the scores of all categories as a table.
fn table(report: &ArenaHardReport) -> TextTable {
    let mut table =
        TextTable::plain(["category", "model", "score, %", "interval, 90 %", "equal styles, %", "judgments", "failed"]);
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let interval = |estimate: &Estimate| {
        let Estimate { value, low, high, .. } = estimate;
        format!("(-{} / +{})", percent(value - low), percent(high - value))
    };
    for (category, scores) in &report.categories {
        let styled = report.style_control.get(category);
        for score in scores {
            let styled = styled.and_then(|styled| styled.models.get(&score.model));
            table.push([
                category.clone(),
                score.model.clone(),
                percent(score.score.value),
                interval(&score.score),
                styled.map_or_else(String::new, |s| format!("{} {}", percent(s.value), interval(s))),
                score.judgments.to_string(),
                score.failed.to_string(),
            ]);
        }
    }
    table
}

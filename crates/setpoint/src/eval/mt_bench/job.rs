//! MT-Bench as a job.

use std::borrow::Cow;

use setpoint_data::counted;
use setpoint_eval::{MtModelScores, MtPairScores, MtScore};

use super::{MtBenchConfig, MtBenchReport, dry_run, run};
use crate::eval::job::{ANSWERING_MODEL, OUTPUT_FOLDER, write};
use crate::job::{DryRun, Flag, Job, Work};
use crate::session::{Session, TextTable};

/// `setpoint eval mt-bench`.
#[derive(Debug)]
pub struct MtBench;

impl Job for MtBench {
    type Config = MtBenchConfig;

    const COMMAND: &'static str = "eval mt-bench";
    const SETTINGS: &'static str = "eval-mt-bench";
    const FLAGS: &'static [Flag] = &[
        Flag::path("judgments", "FILE", "judgments", "Judgments to score as they are (setting judgments)"),
        ANSWERING_MODEL,
        Flag::path("answers", "FILE", "answers", "Answers that exist (setting answers)"),
        Flag::path("questions", "FILE", "questions", "MT-Bench's question.jsonl (setting questions)"),
        Flag::path("references", "FILE", "references", "Reference answers (setting references)"),
        OUTPUT_FOLDER,
    ];
    const WORK: Work<MtBenchConfig> = Work::Result(|session, config| {
        let evaluated = run(session, config)?;
        show(session, &evaluated.scores);
        write(evaluated, config.output.as_deref())
    });
    const DRY_RUN: DryRun<MtBenchConfig> = DryRun::Text(dry_run);

    fn about() -> Cow<'static, str> {
        "MT-Bench: two-turn questions, rated by a judge or compared pair by pair".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint eval mt-bench --judgments model_judgment/gpt-4_single.jsonl\n  \
         setpoint eval mt-bench --model DIR --questions question.jsonl --references reference_answer/gpt-4.jsonl --output runs/mt\n\n\
         The judge's key is read from OPENAI_API_KEY (setting judge.api_key_env). All settings: setpoint inspect config eval-mt-bench"
            .into()
    }
}

/// Prints the scores of MT-Bench.
fn show(session: &Session, report: &MtBenchReport) {
    match report {
        MtBenchReport::Single { single } => session.say(single_scores(single)),
        MtBenchReport::Pairs { pairs, failed } => {
            session.show(&pair_table(pairs));
            session.say(format!("{} without a verdict", counted(*failed, "judgment")));
        }
    }
}

fn single_scores(scores: &[MtModelScores]) -> String {
    let figure = |score: &Option<MtScore>| {
        // One rating has no spread.
        let error = |s: &MtScore| if s.n > 1 { format!(" ± {:.3}", s.std_error) } else { String::new() };
        score.as_ref().map_or_else(|| "none".to_owned(), |s| format!("{:.6}{} ({})", s.score, error(s), s.n))
    };
    let mut lines = Vec::new();
    for model in scores {
        lines.push(format!("model        {}", model.model));
        lines.push(format!("first turn   {}", figure(&model.first_turn)));
        lines.push(format!("second turn  {}", figure(&model.second_turn)));
        lines.push(format!("average      {}", figure(&model.average)));
        for (category, score) in &model.categories {
            lines.push(format!("  {category:<11}{:.3} ({})", score.score, score.n));
        }
        lines.push(format!(
            "failed       {} judgments never came, {} hold no rating or were cut off",
            model.errors, model.unrated
        ));
    }
    lines.join("\n")
}

fn pair_table(scores: &[MtPairScores]) -> TextTable {
    let mut table = TextTable::plain(["model", "win", "loss", "tie", "win_rate", "loss_rate", "win_rate_adjusted"]);
    for s in scores {
        table.push([
            s.model.clone(),
            s.win.to_string(),
            s.loss.to_string(),
            s.tie.to_string(),
            format!("{:.6}", s.win_rate),
            format!("{:.6}", s.loss_rate),
            format!("{:.6}", s.win_rate_adjusted),
        ]);
    }
    table
}

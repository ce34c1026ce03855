//! The figures of evaluations, for people.

use setpoint_eval::{AlpacaWinRate, Estimate, MeanScore, MtModelScores, MtPairScores, MtScore};

use super::EvalReport;
use super::alpaca::AlpacaReport;
use super::mt_bench::MtBenchReport;
use super::tasks::TasksReport;
use crate::session::{Session, TextTable};

/// Returns the figures of an evaluation under a reward model, one a line.
pub fn of_rewards(report: &EvalReport) -> String {
    let estimate =
        |e: &Estimate, digits: usize| format!("{:.digits$} [{:.digits$}, {:.digits$}]", e.value, e.low, e.high);
    let mut lines = vec![
        format!("{} prompts, {} samples each", report.prompts, report.samples),
        format!("reward            {:.3}, baseline {:.3}", report.reward, report.baseline_reward),
        format!("difference        {}", estimate(&report.win_rate.difference, 3)),
        format!(
            "win rate          {}  (sign test p = {:.3})",
            estimate(&report.win_rate.rate, 3),
            report.win_rate.p_value
        ),
        format!("KL to baseline    {:.3} ± {:.3} nats per response", report.kl.k1.mean, report.kl.k1.std_error),
        format!("response length   {:.1} tokens, baseline {:.1}", report.tokens, report.baseline_tokens),
        format!("cut at the limit  {:.1} %", 100.0 * report.truncated),
    ];
    if let Some(pairs) = &report.pairs {
        lines.push(format!("chosen log-ratio  {} nats", estimate(&pairs.chosen_log_ratio, 2)));
        lines.push(format!("rejected          {} nats", estimate(&pairs.rejected_log_ratio, 2)));
        let accuracy = &pairs.accuracy.accuracy;
        lines.push(format!("pair accuracy     {:.3} [{:.3}, {:.3}]", accuracy.value, accuracy.low, accuracy.high));
    }
    lines.join("\n")
}

/// Returns the figures of AlpacaEval, one a line.
pub fn of_alpaca(report: &AlpacaReport) -> String {
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

/// Prints the scores of MT-Bench.
pub fn show_mt_bench(session: &Session, report: &MtBenchReport) {
    match report {
        MtBenchReport::Single { single } => session.say(single_scores(single)),
        MtBenchReport::Pairs { pairs, failed } => {
            session.show(&pair_table(pairs));
            session.say(format!("{failed} judgments without a verdict"));
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

/// Returns the scores of the tasks as a table.
pub fn of_tasks(report: &TasksReport) -> TextTable {
    let mut table = TextTable::plain(["task", "metric", "value", "stderr", "examples"]);
    let mut row = |task: &str, metric: &str, score: &MeanScore| {
        let figures = [format!("{:.4}", score.value), format!("{:.4}", score.std_error), score.n.to_string()];
        table.push([task.to_owned(), metric.to_owned()].into_iter().chain(figures));
    };
    for task in &report.order {
        for (metric, score) in &report.tasks[task] {
            row(task, metric, &score.overall);
        }
    }
    if let Some(average) = report.average.filter(|_| report.order.len() > 1) {
        row("average", "", &average);
    }
    table
}

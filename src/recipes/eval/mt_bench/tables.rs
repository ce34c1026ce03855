//! The judgments as items of a result, and the scores as tables.

use setpoint_eval::{EvalItem, MtModelScores, MtPairJudgment, MtPairScores, MtScore, MtSingleJudgment, MtWinner};

pub fn single_items(rows: &[MtSingleJudgment], model: &str) -> Vec<EvalItem> {
    let rated = rows.iter().filter(|r| r.model == model && r.score != -1.0);
    rated.map(|r| EvalItem { id: format!("mt_bench/{}/{}", r.question_id, r.turn), value: r.score }).collect()
}

/// 1 for a win, ½ for a tie.
pub fn pair_items(rows: &[MtPairJudgment], model: &str) -> Vec<EvalItem> {
    rows.iter()
        .filter(|r| r.g1_winner != MtWinner::Error && r.g2_winner != MtWinner::Error)
        .filter(|r| r.model_1 == model || r.model_2 == model)
        .map(|r| {
            let own = if r.model_1 == model { MtWinner::Model1 } else { MtWinner::Model2 };
            let value = match (r.g1_winner == r.g2_winner, r.g1_winner) {
                (true, winner) if winner == own => 1.0,
                (true, MtWinner::Model1 | MtWinner::Model2) => 0.0,
                _ => 0.5,
            };
            let other = if r.model_1 == model { &r.model_2 } else { &r.model_1 };
            EvalItem { id: format!("mt_bench/{}/{}/{other}", r.question_id, r.turn.unwrap_or(1)), value }
        })
        .collect()
}

pub fn single_table(scores: &[MtModelScores]) -> String {
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

pub fn pair_table(scores: &[MtPairScores], failed: usize) -> String {
    let mut table = tabled::builder::Builder::default();
    table.push_record(["model", "win", "loss", "tie", "win_rate", "loss_rate", "win_rate_adjusted"]);
    for s in scores {
        table.push_record([
            s.model.clone(),
            s.win.to_string(),
            s.loss.to_string(),
            s.tie.to_string(),
            format!("{:.6}", s.win_rate),
            format!("{:.6}", s.loss_rate),
            format!("{:.6}", s.win_rate_adjusted),
        ]);
    }
    let mut table = table.build();
    table.with(tabled::settings::Style::blank());
    format!("{table}\n{failed} judgments without a verdict")
}

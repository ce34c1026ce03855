//! The judgments as items of a result.

use setpoint_eval::{EvalItem, MtPairJudgment, MtSingleJudgment, MtWinner};

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

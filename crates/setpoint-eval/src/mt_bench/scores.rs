//! Scores from judgments, as `show_result.py` computes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::files::{MtPairJudgment, MtQuestion, MtSingleJudgment};
use super::verdict::MtWinner;
use crate::summary::mean_and_variance;

/// A mean of ratings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MtScore {
    /// Mean rating, from 1 to 10.
    pub score: f64,
    /// Standard error of the mean, with divisor `n − 1`.
    pub std_error: f64,
    /// Ratings.
    pub n: usize,
}

impl MtScore {
    fn of(ratings: &[f64]) -> Option<Self> {
        if ratings.is_empty() {
            return None;
        }
        let (score, variance) = mean_and_variance(ratings);
        Some(Self { score, std_error: (variance / ratings.len() as f64).sqrt(), n: ratings.len() })
    }
}

/// One model's single-answer scores. `None` where every judgment failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MtModelScores {
    /// The model.
    pub model: String,
    /// Over the first turns.
    pub first_turn: Option<MtScore>,
    /// Over the second turns.
    pub second_turn: Option<MtScore>,
    /// Over all judgments of both turns.
    pub average: Option<MtScore>,
    /// By category, both turns.
    pub categories: BTreeMap<String, MtScore>,
    /// Judgments that the judge never gave (`$ERROR$`).
    pub errors: usize,
    /// Judgments without a rating.
    pub unrated: usize,
}

/// The category of a question: that of `questions`, else MT-Bench's own blocks of ten from question 81 on.
pub fn category_of(question_id: u64, questions: &[MtQuestion]) -> &str {
    const BLOCKS: [&str; 8] =
        ["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"];
    if let Some(question) = questions.iter().find(|q| q.question_id == question_id) {
        return &question.category;
    }
    let block = question_id.checked_sub(81).and_then(|i| usize::try_from(i / 10).ok());
    block.and_then(|i| BLOCKS.get(i)).copied().unwrap_or("other")
}

/// Single-answer grading: the mean rating by model, turn and category, the best model first. A rating of −1 is a failure: it is
/// counted and enters no mean.
pub fn single_scores(judgments: &[MtSingleJudgment], questions: &[MtQuestion]) -> Vec<MtModelScores> {
    let mut models: BTreeMap<&str, Vec<&MtSingleJudgment>> = BTreeMap::new();
    for judgment in judgments {
        models.entry(&judgment.model).or_default().push(judgment);
    }
    let mut scores: Vec<MtModelScores> = models
        .into_iter()
        .map(|(model, rows)| {
            let (failed, rated): (Vec<_>, Vec<_>) = rows.into_iter().partition(|j| j.score == -1.0);
            let ratings = |wanted: &dyn Fn(&MtSingleJudgment) -> bool| -> Option<MtScore> {
                MtScore::of(&rated.iter().filter(|j| wanted(j)).map(|j| j.score).collect::<Vec<_>>())
            };
            let mut categories = BTreeMap::new();
            for judgment in &rated {
                let category = category_of(judgment.question_id, questions);
                if !categories.contains_key(category) {
                    let score = ratings(&|j| category_of(j.question_id, questions) == category);
                    categories.extend(score.map(|s| (category.to_owned(), s)));
                }
            }
            let errors = failed.iter().filter(|j| j.judgment == super::judge::ERROR).count();
            MtModelScores {
                model: model.to_owned(),
                first_turn: ratings(&|j| j.turn == 1),
                second_turn: ratings(&|j| j.turn == 2),
                average: ratings(&|_| true),
                categories,
                errors,
                unrated: failed.len() - errors,
            }
        })
        .collect();
    let mean = |s: &MtModelScores| s.average.map_or(f64::NEG_INFINITY, |a| a.score);
    scores.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    scores
}

/// One model's games against all others, or against the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MtPairScores {
    /// The model.
    pub model: String,
    /// Games that it won in both orders.
    pub win: usize,
    /// Games that it lost in both orders.
    pub loss: usize,
    /// Games tied, or decided by the order of the answers.
    pub tie: usize,
    /// `win / games`.
    pub win_rate: f64,
    /// `loss / games`.
    pub loss_rate: f64,
    /// `(win + tie/2) / games`.
    pub win_rate_adjusted: f64,
}

/// Pairwise grading: wins, losses and ties by model, the best first, and the number of judgments in which one of the two games has no
/// verdict, which count in nothing. With a baseline only its games count, and it has no row of its own.
///
/// A pair of games is won where both orders agree on a model; a tie in the first game, or disagreement, is a tie.
pub fn pair_scores(judgments: &[MtPairJudgment], baseline: Option<&str>) -> (Vec<MtPairScores>, usize) {
    let mut models: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let mut failed = 0;
    for judgment in judgments {
        let players = [judgment.model_1.as_str(), judgment.model_2.as_str()];
        if baseline.is_some_and(|b| !players.contains(&b)) {
            continue;
        }
        if judgment.g1_winner == MtWinner::Error || judgment.g2_winner == MtWinner::Error {
            failed += 1;
            continue;
        }
        let (first, second) = match judgment.g1_winner {
            MtWinner::Model1 if judgment.g2_winner == MtWinner::Model1 => (0, 1),
            MtWinner::Model2 if judgment.g2_winner == MtWinner::Model2 => (1, 0),
            _ => (2, 2),
        };
        models.entry(players[0]).or_default()[first] += 1;
        models.entry(players[1]).or_default()[second] += 1;
    }
    let mut scores: Vec<MtPairScores> = models
        .into_iter()
        .filter(|(model, _)| Some(*model) != baseline)
        .map(|(model, [win, loss, tie])| {
            let games = (win + loss + tie) as f64;
            MtPairScores {
                model: model.to_owned(),
                win,
                loss,
                tie,
                win_rate: win as f64 / games,
                loss_rate: loss as f64 / games,
                win_rate_adjusted: (win as f64 + 0.5 * tie as f64) / games,
            }
        })
        .collect();
    scores.sort_by(|a, b| b.win_rate_adjusted.total_cmp(&a.win_rate_adjusted));
    (scores, failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use MtWinner::{Error, Model1, Model2, Tie};

    fn single(question_id: u64, turn: u8, score: f64, judgment: &str) -> MtSingleJudgment {
        MtSingleJudgment {
            question_id,
            model: "m".into(),
            judge: ("j".into(), "p".into()),
            user_prompt: String::new(),
            judgment: judgment.into(),
            score,
            turn,
            extra: serde_json::Map::new(),
        }
    }

    #[test]
    fn failures_are_counted_and_not_averaged() {
        let rows = [
            single(81, 1, 8.0, "[[8]]"),
            single(81, 2, -1.0, "$ERROR$"),
            single(111, 1, 5.0, "[[5]]"),
            single(111, 2, 2.0, "[[2]]"),
            single(112, 1, -1.0, "no rating"),
        ];
        let got = &single_scores(&rows, &[])[0];
        assert_eq!((got.errors, got.unrated), (1, 1));
        assert_eq!(got.first_turn.map(|s| (s.score, s.n)), Some((6.5, 2)));
        assert_eq!(got.second_turn.map(|s| (s.score, s.n)), Some((2.0, 1)));
        assert_eq!(got.average.map(|s| (s.score, s.n)), Some((5.0, 3)));
        assert_eq!(got.categories["math"].score, 3.5);
        // (3² + 0 + 3²)/2 = 9, over 3.
        assert_eq!(got.average.map(|s| s.std_error), Some(3.0_f64.sqrt()));
        let none = &single_scores(&rows[1..2], &[])[0];
        assert_eq!((none.average, none.errors), (None, 1));
    }

    #[test]
    fn a_pair_is_won_only_where_both_orders_agree() {
        let game = |model_1: &str, model_2: &str, g1_winner, g2_winner| MtPairJudgment {
            question_id: 81,
            model_1: model_1.into(),
            model_2: model_2.into(),
            g1_winner,
            g2_winner,
            judge: ("j".into(), "p".into()),
            g1_user_prompt: String::new(),
            g1_judgment: String::new(),
            g2_user_prompt: String::new(),
            g2_judgment: String::new(),
            turn: Some(1),
            extra: serde_json::Map::new(),
        };
        let games = [
            game("a", "b", Model1, Model1),
            game("a", "b", Model1, Model2),
            game("a", "b", Tie, Model1),
            game("a", "b", Error, Model1),
            game("b", "a", Model1, Model1),
            game("a", "c", Model2, Model2),
        ];
        let (all, failed) = pair_scores(&games, None);
        assert_eq!(failed, 1);
        let of = |name: &str, rows: &[MtPairScores]| rows.iter().find(|r| r.model == name).cloned().unwrap();
        let a = of("a", &all);
        assert_eq!((a.win, a.loss, a.tie), (1, 2, 2));
        assert_eq!(a.win_rate_adjusted, 0.4);
        assert_eq!(all[0].model, "c");
        let (against_b, _) = pair_scores(&games, Some("b"));
        assert_eq!(against_b.len(), 1, "the baseline has no row, and c never met it");
        assert_eq!((of("a", &against_b).win, of("a", &against_b).loss), (1, 1));
    }
}

//! Every model of the shared annotations against AlpacaEval's published leaderboard and GLM coefficients.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use setpoint_eval::{
    AlpacaAnnotation, GlmPenalty, GlmReference, GlmWeights, alpaca_win_rate, implied_penalty, length_controlled,
    read_annotations,
};

use crate::common::test_data;

#[derive(Deserialize)]
struct Published {
    #[serde(rename = "")]
    model: String,
    win_rate: f64,
    standard_error: f64,
    n_wins: usize,
    n_wins_base: usize,
    n_draws: usize,
    n_total: usize,
    discrete_win_rate: f64,
    avg_length: usize,
    length_controlled_winrate: f64,
    lc_standard_error: Option<f64>,
}

#[derive(Deserialize)]
struct Coefficients {
    #[serde(rename = "")]
    model: String,
    t: f64,
    d: f64,
    n: f64,
}

fn csv<T: for<'de> Deserialize<'de>>(path: &Path) -> Vec<T> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

struct Board {
    rows: Vec<(Published, Vec<AlpacaAnnotation>, GlmWeights)>,
    reference: GlmReference,
}

fn board() -> Option<Board> {
    let dir = test_data("alpaca_eval")?;
    let weights: BTreeMap<String, GlmWeights> = csv::<Coefficients>(&dir.join("glm_weights.csv"))
        .into_iter()
        .map(|c| (c.model, GlmWeights { length: c.t, difficulty: c.d, model: c.n }))
        .collect();
    let rows: Vec<_> = csv::<Published>(&dir.join("leaderboard.csv"))
        .into_iter()
        .map(|row| {
            let file = dir.join("annotations_slim").join(format!("{}.csv", row.model));
            let (annotations, weights) = (read_annotations(&file).unwrap(), weights[&row.model]);
            (row, annotations, weights)
        })
        .collect();
    assert_eq!(rows.len(), std::fs::read_dir(dir.join("annotations_slim")).unwrap().count(), "every file has its row");
    let reference = GlmReference::read(
        Some(&dir.join("instruction_difficulty_recovered.csv")),
        Some(&dir.join("df_gamed_reconstructed.csv")),
    );
    Some(Board { rows, reference: reference.unwrap() })
}

#[test]
fn win_rates_are_those_of_the_leaderboard() {
    let Some(board) = board() else { return };
    for (published, annotations, _) in &board.rows {
        let got = alpaca_win_rate(annotations).unwrap();
        let model = &published.model;
        assert!((got.win_rate - published.win_rate).abs() < 5e-5, "{model}: {got:?}");
        assert!((got.standard_error - published.standard_error).abs() < 5e-5, "{model}: {got:?}");
        assert!((got.discrete_win_rate - published.discrete_win_rate).abs() < 1e-9, "{model}: {got:?}");
        assert_eq!(
            (got.n_wins, got.n_wins_base, got.n_draws, got.n_total),
            (published.n_wins, published.n_wins_base, published.n_draws, published.n_total),
            "{model}"
        );
        // The leaderboard's length counts the outputs that were never annotated too.
        if got.n_total == 805 {
            assert_eq!(got.avg_length, published.avg_length, "{model}");
        }
    }
}

#[test]
fn length_controlled_win_rates_are_those_of_the_leaderboard() {
    let Some(Board { rows, reference }) = board() else { return };
    let mut chosen_as_published = 0;
    for (published, annotations, weights) in &rows {
        let (model, expected) = (&published.model, published.length_controlled_winrate);
        let free = length_controlled(annotations, &reference, GlmPenalty::None).unwrap();
        assert_eq!(free.glm, "length_controlled_v1");
        let off = (free.length_controlled_winrate - expected).abs();
        assert!(off < 0.15, "{model}: {off} without penalty");

        let implied = implied_penalty(annotations, &reference, weights).unwrap();
        let penalty = implied.map_or(GlmPenalty::None, GlmPenalty::C);
        let got = length_controlled(annotations, &reference, penalty).unwrap();
        let off = (got.length_controlled_winrate - expected).abs();
        assert!(off < 0.02, "{model}: {off} at C = {implied:?}");
        if let Some(error) = published.lc_standard_error {
            assert!((got.lc_standard_error - error).abs() < 0.01, "{model}: {} against {error}", got.lc_standard_error);
        }

        let searched = length_controlled(annotations, &reference, GlmPenalty::CrossValidated).unwrap();
        let off = (searched.length_controlled_winrate - expected).abs();
        assert!(off < 0.15, "{model}: {off} with the penalty of the search, {:?}", searched.c);
        chosen_as_published += usize::from(searched.c == implied);
    }
    // The rest is undecided between two penalties whose scores differ by hundredths.
    assert!(2 * chosen_as_published > rows.len(), "the search finds {chosen_as_published} of the published penalties");
}

//! Every model of the shared annotations against AlpacaEval's published leaderboard and GLM coefficients.

use std::collections::BTreeMap;
use std::path::Path;

use super::length_control::implied_penalty;
use super::{
    AlpacaAnnotation, GlmPenalty, GlmReference, GlmWeights, alpaca_win_rate, length_controlled, read_annotations,
};
use crate::test_data::test_data;

/// The published rows by model: column by name, absent where empty.
fn published(path: &Path) -> BTreeMap<String, BTreeMap<String, f64>> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|l| l.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    lines
        .map(|row| {
            let numbers = names.iter().zip(&row).skip(1).filter_map(|(n, v)| Some(((*n).to_owned(), v.parse().ok()?)));
            (row[0].to_owned(), numbers.collect())
        })
        .collect()
}

struct Row {
    model: String,
    published: BTreeMap<String, f64>,
    annotations: Vec<AlpacaAnnotation>,
    weights: GlmWeights,
}

struct Board {
    rows: Vec<Row>,
    reference: GlmReference,
}

fn board() -> Option<Board> {
    let dir = test_data("alpaca_eval")?;
    let mut weights = published(&dir.join("glm_weights.csv"));
    let rows: Vec<Row> = published(&dir.join("leaderboard.csv"))
        .into_iter()
        .map(|(model, published)| {
            let file = dir.join("annotations_slim").join(format!("{model}.csv"));
            let w = weights.remove(&model).unwrap();
            let weights = GlmWeights { length: w["t"], difficulty: w["d"], model: w["n"] };
            Row { annotations: read_annotations(&file).unwrap(), model, published, weights }
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
    for Row { model, published, annotations, .. } in &board.rows {
        let got = alpaca_win_rate(annotations).unwrap();
        assert!((got.win_rate - published["win_rate"]).abs() < 5e-5, "{model}: {got:?}");
        assert!((got.standard_error - published["standard_error"]).abs() < 5e-5, "{model}: {got:?}");
        assert!((got.discrete_win_rate - published["discrete_win_rate"]).abs() < 1e-9, "{model}: {got:?}");
        let counts = [
            ("n_wins", got.n_wins),
            ("n_wins_base", got.n_wins_base),
            ("n_draws", got.n_draws),
            ("n_total", got.n_total),
        ];
        for (name, count) in counts {
            assert_eq!(count as f64, published[name], "{model}: {name}");
        }
        // The leaderboard's length counts the outputs that were never annotated too.
        if got.n_total == 805 {
            assert_eq!(got.avg_length as f64, published["avg_length"], "{model}");
        }
    }
}

#[test]
fn length_controlled_win_rates_are_those_of_the_leaderboard() {
    let Some(Board { rows, reference }) = board() else { return };
    let mut chosen_as_published = 0;
    for Row { model, published, annotations, weights } in &rows {
        let expected = published["length_controlled_winrate"];
        let free = length_controlled(annotations, &reference, GlmPenalty::None).unwrap();
        assert_eq!(free.glm, "length_controlled_v1");
        let off = (free.length_controlled_winrate - expected).abs();
        assert!(off < 0.15, "{model}: {off} without penalty");

        let implied = implied_penalty(annotations, &reference, weights).unwrap();
        let penalty = implied.map_or(GlmPenalty::None, GlmPenalty::C);
        let got = length_controlled(annotations, &reference, penalty).unwrap();
        let off = (got.length_controlled_winrate - expected).abs();
        assert!(off < 0.02, "{model}: {off} at C = {implied:?}");
        if let Some(error) = published.get("lc_standard_error") {
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

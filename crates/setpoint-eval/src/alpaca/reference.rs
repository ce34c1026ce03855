//! What the length-controlled GLM is given beside a model's annotations: how hard each instruction is, and two gamed baselines.

use std::path::Path;

use serde::Deserialize;

use super::annotation::read_csv;
use crate::error::Error;

/// A row of `df_gamed.csv`: a preference between the baseline and itself, told to be verbose or concise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GamedRow {
    /// `tanh` of the standardised difference of lengths.
    pub tanh_length: f64,
    /// Difficulty of the instruction.
    pub difficulty: f64,
    /// Probability that the gamed answer is better; `None` where the judge gave none.
    pub target: Option<f64>,
}

/// The inputs of the GLM that do not depend on the model.
///
/// Both files are published with AlpacaEval's data (`tatsu-lab/alpaca_eval` on the hub: `instruction_difficulty.csv`,
/// `df_gamed.csv`). What is left out leaves its term out of the GLM: see [`length_controlled`](super::length_controlled).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GlmReference {
    /// Difficulty of each instruction, by position; empty where unknown.
    pub difficulty: Vec<f64>,
    /// The gamed baselines' rows; empty where unknown.
    pub gamed: Vec<GamedRow>,
}

#[derive(Deserialize)]
struct DifficultyRow {
    instruction_difficulty: f64,
}

#[derive(Deserialize)]
struct GamedColumns {
    index: usize,
    instruction_difficulty: f64,
    /// As published.
    std_delta_len: Option<f64>,
    /// As recovered from published fits, already squashed.
    tanh_std_delta_len: Option<f64>,
    /// As published: the preference less 1.
    preference: Option<f64>,
    /// As recovered: a target with the same sufficient statistics.
    pseudo_preference: Option<f64>,
}

impl GlmReference {
    /// Reads the two files; the difficulties are taken from the gamed rows where only those are given, as alpaca_eval does.
    ///
    /// # Errors
    /// A file that cannot be read, or lacks the columns `instruction_difficulty` or (gamed) `index` and `std_delta_len`.
    pub fn read(difficulty: Option<&Path>, gamed: Option<&Path>) -> Result<Self, Error> {
        let mut reference = Self::default();
        if let Some(path) = difficulty {
            reference.difficulty = read_csv::<DifficultyRow>(path)?.iter().map(|r| r.instruction_difficulty).collect();
        }
        let Some(path) = gamed else { return Ok(reference) };
        for (i, row) in read_csv::<GamedColumns>(path)?.into_iter().enumerate() {
            let tanh_length = match (row.std_delta_len, row.tanh_std_delta_len) {
                (Some(raw), _) => raw.tanh(),
                (None, Some(squashed)) => squashed,
                (None, None) => return Err(Error::row(path, i + 1, "has no `std_delta_len`")),
            };
            reference.gamed.push(GamedRow {
                tanh_length,
                difficulty: row.instruction_difficulty,
                target: row.preference.or(row.pseudo_preference),
            });
            // The first block of rows runs through the instructions in order.
            if difficulty.is_none() && row.index == reference.difficulty.len() {
                reference.difficulty.push(row.instruction_difficulty);
            }
        }
        Ok(reference)
    }
}

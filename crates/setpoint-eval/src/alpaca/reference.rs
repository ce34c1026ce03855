//! Inputs of the length-controlled GLM besides a model's annotations: the difficulty of each instruction, and two gamed baselines.

use std::path::Path;

use crate::csv_table::Table;
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

impl GlmReference {
    /// Reads the two files; the difficulties are taken from the gamed rows where only those are given, as alpaca_eval does.
    ///
    /// # Errors
    /// A file that cannot be read, or lacks the columns `instruction_difficulty` or (gamed) `index` and `std_delta_len`.
    pub fn read(difficulty: Option<&Path>, gamed: Option<&Path>) -> Result<Self, Error> {
        let mut reference = Self::default();
        if let Some(path) = difficulty {
            reference.difficulty = Table::read(path)?.numbers("instruction_difficulty")?;
        }
        let Some(path) = gamed else { return Ok(reference) };
        let table = Table::read(path)?;
        let difficulties = table.numbers("instruction_difficulty")?;
        // As published; or as recovered from published fits: already squashed, with targets of the same sufficient statistics.
        let squashed = match table.optional("std_delta_len")? {
            Some(raw) => raw.into_iter().map(|v| v.map(f64::tanh)).collect(),
            None => table
                .optional("tanh_std_delta_len")?
                .ok_or_else(|| Error::file(path, "has no column `std_delta_len`"))?,
        };
        let targets = match table.optional("preference")? {
            Some(published) => published,
            None => {
                table.optional("pseudo_preference")?.ok_or_else(|| Error::file(path, "has no column `preference`"))?
            }
        };
        for (i, index) in table.numbers("index")?.into_iter().enumerate() {
            let tanh_length = squashed[i].ok_or_else(|| Error::row(path, i + 1, "has no `std_delta_len`"))?;
            reference.gamed.push(GamedRow { tanh_length, difficulty: difficulties[i], target: targets[i] });
            // The first block of rows runs through the instructions in order.
            if difficulty.is_none() && index == reference.difficulty.len() as f64 {
                reference.difficulty.push(difficulties[i]);
            }
        }
        Ok(reference)
    }
}

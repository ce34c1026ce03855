//! The files of AlpacaEval: model outputs and annotations.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use setpoint_files::words;

use crate::csv_table::Table;
use crate::error::Error;
use crate::json_lines::read_unmarked;

/// The numbers of one annotated instruction that the scores need.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlpacaAnnotation {
    /// In `[1, 2]`, 2 for the model; `None` where the judge gave no usable answer.
    pub preference: Option<f64>,
    /// Length of the baseline's output, in characters.
    pub baseline_length: usize,
    /// Length of the model's output, in characters.
    pub model_length: usize,
}

/// A row of `model_outputs.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlpacaOutput {
    /// The instruction.
    pub instruction: String,
    /// The answer.
    pub output: String,
    /// The model's name.
    pub generator: String,
    /// The data set of the five that the instruction is from, and whatever else the file holds.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A row of `annotations.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlpacaExample {
    /// The instruction.
    pub instruction: String,
    /// The baseline's answer.
    pub output_1: String,
    /// The baseline's name.
    pub generator_1: String,
    /// The model's answer.
    pub output_2: String,
    /// The model's name.
    pub generator_2: String,
    /// The judge's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotator: Option<String>,
    /// In `[1, 2]`, 2 for the model; null where the judge gave no usable answer.
    pub preference: Option<f64>,
    /// The judge's raw answer, price, time and whatever else the file holds.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl AlpacaExample {
    /// The numbers that the scores are made of.
    pub fn annotation(&self) -> AlpacaAnnotation {
        AlpacaAnnotation {
            preference: self.preference,
            baseline_length: self.output_1.chars().count(),
            model_length: self.output_2.chars().count(),
        }
    }
}

/// Reads annotations: alpaca_eval's `annotations.json`, or CSV with the columns `len_1`, `len_2` and `preference`.
///
/// Rows stand in the order of the 805 instructions; alpaca_eval takes an instruction's difficulty by position.
///
/// # Errors
/// A file that cannot be read or parsed, or a preference outside of `[1, 2]` that is neither 0 (an old mark of a draw) nor missing.
pub fn read_annotations(path: &Path) -> Result<Vec<AlpacaAnnotation>, Error> {
    let rows: Vec<AlpacaAnnotation> = if path.extension().is_some_and(|e| e == "csv") {
        let table = Table::read(path)?;
        let lengths = table.numbers("len_1")?.into_iter().zip(table.numbers("len_2")?);
        let preferences = table.optional("preference")?;
        let preferences = preferences.ok_or_else(|| Error::file(path, "has no column `preference`"))?;
        let row = |((len_1, len_2), preference): ((f64, f64), Option<f64>)| AlpacaAnnotation {
            preference,
            baseline_length: len_1 as usize,
            model_length: len_2 as usize,
        };
        lengths.zip(preferences).map(row).collect()
    } else {
        read_json_array::<AlpacaExample>(path)?.iter().map(AlpacaExample::annotation).collect()
    };
    for (i, row) in rows.iter().enumerate() {
        match row.preference {
            Some(p) if p != 0.0 && !(1.0..=2.0).contains(&p) => {
                return Err(Error::row(path, i + 1, format!("the preference is {p}, expected a number from 1 to 2")));
            }
            _ => {}
        }
    }
    Ok(rows)
}

/// Reads `annotations.json` with its texts.
///
/// # Errors
/// A file that cannot be read, or is no array of annotated pairs.
pub fn read_examples(path: &Path) -> Result<Vec<AlpacaExample>, Error> {
    read_json_array(path)
}

/// Reads `model_outputs.json`.
///
/// # Errors
/// A file that cannot be read, or is no array of rows with `instruction`, `output` and `generator`.
pub fn read_outputs(path: &Path) -> Result<Vec<AlpacaOutput>, Error> {
    read_json_array(path)
}

/// A JSON array, element by element so that an error names its row.
fn read_json_array<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Vec<T>, Error> {
    let text = read_unmarked(path)?;
    let rows: Vec<Value> = serde_json::from_str(&text)
        .map_err(|e| Error::file(path, format!("expected a JSON array of objects: {}", words::json(&e))))?;
    if rows.is_empty() {
        return Err(Error::file(path, "holds no rows"));
    }
    let parse = |(i, row)| serde_json::from_value(row).map_err(|e| Error::row(path, i + 1, words::json_reason(&e)));
    rows.into_iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_may_begin_with_a_byte_order_mark() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let row = r#"{"instruction": "Sky?", "output": "Blue.", "generator": "a"}"#;
        for text in [format!("[{row}]"), format!("\u{feff}[{row}]\r\n")] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(read_outputs(file.path()).unwrap()[0].output, "Blue.");
        }
    }
}

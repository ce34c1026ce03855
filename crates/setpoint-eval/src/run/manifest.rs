//! The file that every evaluation leaves behind.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_data::hex;
use setpoint_files::{LARGE, read_text_up_to, words};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// The identity of the model that was measured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Its name in tables.
    pub name: String,
    /// Hash of `config.json` and the weights; none where only its answers are known.
    pub hash: Option<String>,
    /// Hash of tokenizer and chat template.
    pub template: Option<String>,
}

/// Everything that decides a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// `alpaca_eval`, `mt_bench`, `arena_hard`, `tasks`, `ifeval`, `reward_bench` or `reward`.
    pub benchmark: String,
    /// Version of this program.
    pub setpoint: String,
    /// Version of Burn, which computed what was computed.
    #[serde(default)]
    pub burn: Option<String>,
    /// The model.
    pub model: ModelIdentity,
    /// The model that it was compared with, where the benchmark compares.
    pub baseline: Option<ModelIdentity>,
    /// The settings of generation; null where answers came from a file or nothing was generated.
    pub decoding: Value,
    /// Hash of the questions, by [`content_digest`].
    pub data: String,
    /// The judge and its prompt; null where nobody judged.
    pub judge: Value,
    /// Settings of the scores: few-shot examples, GLM, …
    pub scoring: Value,
}

/// One measured example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalItem {
    /// `task/number`: the same in every run of the benchmark.
    pub id: String,
    /// A preference, a rating, a reward, or 1 and 0 for right and wrong.
    pub value: f64,
}

/// A result with its manifest, as it is written to `result.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalRun {
    /// The inputs that decided the result.
    pub manifest: Manifest,
    /// The figures, as the benchmark reports them.
    pub scores: Value,
    /// Example by example, what the figures are made of. Examples that failed are absent.
    pub items: Vec<EvalItem>,
    /// Further numbers, one for each example, under what they are: `log_ratio` (nats), `reward`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub distributions: BTreeMap<String, Vec<f64>>,
}

impl EvalRun {
    /// The name of the file of a result in its folder.
    pub const FILE: &str = "result.json";

    /// Reads a result; a folder stands for the `result.json` in it.
    ///
    /// # Errors
    /// A file that cannot be read, or is no result.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let path = if path.is_dir() { path.join(Self::FILE) } else { path.to_owned() };
        let text = read_text_up_to(&path, LARGE)?;
        let wrong = |e: serde_json::Error| {
            Error::file(
                &path,
                format!("expected the result of an evaluation (`manifest`, `scores`, `items`): {}", words::json(&e)),
            )
        };
        serde_json::from_str(&text).map_err(wrong)
    }
}

/// SHA-256 of texts, each with its length before it, in hex.
pub fn content_digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hex(&hash.finalize())
}

//! The table of differences from transformers in `docs/MODELS.md`. With `SETPOINT_WRITE_DOCS=1` it is measured and written.

use std::path::Path;

use burn::tensor::{Device, activation};
use setpoint_transformer::{GenerationConfig, ModelType, generate};

use crate::golden::{Pass, host, logits, rows};
use crate::support::{arrays, golden, ids, json, load, workspace};

const HEADER: &str = "| family | checkpoints | logits | log-probabilities | greedy tokens that are equal |";

/// The largest differences from transformers among the checkpoints of a family, and how many greedy tokens are equal.
#[derive(Debug, Default)]
struct Differences {
    checkpoints: usize,
    logits: f64,
    logps: f64,
    equal: usize,
    tokens: usize,
}

impl Differences {
    /// Measures a checkpoint, in f32 by the kernels for the CPU.
    fn add(&mut self, dir: &Path) {
        #[allow(deprecated)]
        let (model, config) = load(dir, &Device::flex());
        let expected = arrays(&dir.join("expected.safetensors"));
        let (all, logps) = (&expected["logits"], &expected["logps"]);
        let (width, v) = (all.shape[1], all.shape[2]);
        let rows = rows(dir);
        for (i, (row, logits)) in rows.iter().zip(logits(&model, &config, &rows, Pass::Packed)).enumerate() {
            let log_softmax = host(activation::log_softmax(logits.clone(), 1));
            let expected = &all.values[i * width * v..];
            let errors =
                host(logits).into_iter().zip(expected).map(|(found, expected)| (f64::from(found) - expected).abs());
            self.logits = errors.fold(self.logits, f64::max);
            for (t, &next) in row.iter().enumerate().skip(1) {
                let found = f64::from(log_softmax[(t - 1) * v + next as usize]);
                self.logps = self.logps.max((found - logps.values[i * (width - 1) + t - 1]).abs());
            }
        }
        let greedy = json(&dir.join("greedy.json"));
        let max_new_tokens = greedy["max_new_tokens"].as_u64().unwrap() as usize;
        let settings = GenerationConfig { max_new_tokens, ..GenerationConfig::default() };
        for row in greedy["rows"].as_array().unwrap() {
            let (expected, found) =
                (ids(&row["greedy"]), generate(&model, &[ids(&row["prompt"])], &settings, 0).unwrap());
            self.equal += found[0].ids.iter().zip(&expected).take_while(|(found, expected)| found == expected).count();
            self.tokens += expected.len();
        }
        self.checkpoints += 1;
    }

    fn row(&self, family: &str) -> String {
        let Self { checkpoints, logits, logps, equal, tokens } = self;
        format!("| {family} | {checkpoints} | {logits:.1e} | {logps:.1e} | {equal} of {tokens} |")
    }
}

/// Measures every family, and the text part of every model with an image tower.
fn measured() -> Vec<(String, Differences)> {
    let mut found = Vec::new();
    for family in ModelType::all() {
        let mut differences = Differences::default();
        let of_family = |dir: &&std::path::PathBuf| json(&dir.join("config.json"))["model_type"] == family.as_str();
        golden().iter().filter(of_family).for_each(|dir| differences.add(dir));
        found.push((family.to_string(), differences));
    }
    for name in ["gemma3", "mistral3", "ministral3"] {
        let mut differences = Differences::default();
        differences.add(&workspace().join("tests/golden/multimodal").join(name));
        found.push((format!("{name}, text part"), differences));
    }
    found
}

#[test]
fn the_table_of_differences_is_current() {
    let path = workspace().join("docs/MODELS.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(HEADER).expect("docs/MODELS.md has the table");
    let (table, after) = rest.split_once("\n\n").expect("text follows the table");
    let measured = measured();
    for (family, differences) in &measured {
        assert!(differences.logits < 1e-4 && differences.logps < 2e-4, "{family}: {differences:?}");
        assert_eq!(differences.equal, differences.tokens, "{family}");
    }
    if std::env::var_os("SETPOINT_WRITE_DOCS").is_some() {
        let rows: String =
            measured.iter().map(|(family, differences)| format!("\n{}", differences.row(family))).collect();
        std::fs::write(&path, format!("{before}{HEADER}\n|---|---|---|---|---|{rows}\n\n{after}")).unwrap();
        return;
    }
    // The last digits are those of one processor; everything else must be as measured.
    let cells =
        |row: &str| -> Vec<String> { row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    let listed: Vec<Vec<String>> = table.lines().filter(|row| row.starts_with("| ")).map(cells).collect();
    assert_eq!(listed.len(), measured.len(), "`just settings` writes the table of docs/MODELS.md");
    for (listed, (family, differences)) in listed.iter().zip(&measured) {
        let expected = cells(&differences.row(family));
        assert_eq!([&listed[0], &listed[1], &listed[4]], [&expected[0], &expected[1], &expected[4]]);
        for difference in &listed[2..4] {
            assert!(difference.parse::<f64>().is_ok_and(|number| number < 2e-4), "{family}: {difference}");
        }
    }
}

//! The models of a frontier: what was measured of each, prompt by prompt.

use std::collections::BTreeMap;
use std::path::Path;

use setpoint_eval::{EvalRun, Trend};

use super::KL;
use crate::failure::{Failure, Outcome};

/// The name of the reward among the values of a model.
pub const REWARD: &str = "reward";

/// A trained model, measured prompt by prompt.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// The method that it was trained by.
    pub method: String,
    /// The settings that tell it from other models of the method; its seed is not among them.
    pub settings: String,
    /// Its name.
    pub name: String,
    /// The value of each prompt by metric, the [`KL`] among them.
    pub values: BTreeMap<String, Vec<f64>>,
    /// The slope of its loss at the end, if there were enough steps.
    pub trend: Option<Trend>,
}

/// Reads the further metrics of a model: each `eval-PART-NAME.json` in the folder of its run, a result of `setpoint eval` on the same prompts.
///
/// # Errors
/// When such a file cannot be read, is no such result, or has another number of prompts.
pub fn further_metrics(folder: &Path, part: &str, prompts: usize) -> Outcome<BTreeMap<String, Vec<f64>>> {
    let mut found = BTreeMap::new();
    let beginning = format!("eval-{part}-");
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(found) };
    for entry in entries.flatten() {
        let path = entry.path();
        let file = entry.file_name();
        let name = file.to_str().and_then(|name| name.strip_prefix(&beginning)?.strip_suffix(".json"));
        let Some(name) = name.filter(|name| !name.is_empty()) else { continue };
        if [KL, REWARD].contains(&name) {
            return Err(Failure::run(format!("{}: `{name}` is measured already: rename the file", path.display())));
        }
        let run = EvalRun::read(&path)?;
        if run.items.len() != prompts {
            return Err(Failure::run(format!(
                "{} has values of {} examples, and the model was measured on {prompts} prompts",
                path.display(),
                run.items.len()
            ))
            .hint(format!("evaluate with the settings of eval-{part}.toml, and change the judge alone")));
        }
        found.insert(name.to_owned(), run.items.iter().map(|item| item.value).collect());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn further_metrics_are_results_with_as_many_prompts() {
        let dir = tempfile::tempdir().unwrap();
        assert!(further_metrics(dir.path(), "all", 2).unwrap().is_empty());
        let path = dir.path().join("eval-all-gold.json");
        let items: Vec<_> = [1.5, -2.0].iter().map(|v| json!({"id": "reward/0", "value": v})).collect();
        let result = json!({
            "manifest": {
                "benchmark": "reward", "setpoint": "0", "model": {"name": "m", "hash": null, "template": null},
                "baseline": null, "decoding": null, "data": "d", "judge": null, "scoring": null
            },
            "scores": null, "items": items,
        });
        std::fs::write(&path, result.to_string()).unwrap();
        // Other files, among them those of other prompts.
        for name in ["other.json", "eval-all.json", "eval-report-gold.json"] {
            std::fs::write(dir.path().join(name), "{").unwrap();
        }
        assert_eq!(
            further_metrics(dir.path(), "all", 2).unwrap(),
            BTreeMap::from([("gold".to_owned(), vec![1.5, -2.0])])
        );
        let failure = further_metrics(dir.path(), "all", 3).unwrap_err().to_string();
        assert!(failure.contains("eval-all-gold.json has values of 2 examples"), "{failure}");
        std::fs::rename(&path, dir.path().join("eval-all-kl.json")).unwrap();
        let failure = further_metrics(dir.path(), "all", 2).unwrap_err().to_string();
        assert!(failure.contains("`kl` is measured already: rename the file"), "{failure}");
        std::fs::write(dir.path().join("eval-all-kl.json"), "{").unwrap();
        std::fs::rename(dir.path().join("eval-all-kl.json"), dir.path().join("eval-all-bad.json")).unwrap();
        assert!(further_metrics(dir.path(), "all", 2).unwrap_err().to_string().contains("eval-all-bad.json"));
    }
}

//! Models of earlier steps that a run keeps.

use std::path::{Path, PathBuf};

/// The folder of a run with the models of earlier steps.
const STEPS: &str = "steps";

/// Returns the folder of the model that a run keeps of a step.
pub fn kept_model(run: &Path, step: u64) -> PathBuf {
    run.join(STEPS).join(format!("{step:06}")).join("model")
}

/// Returns the steps of which a run has kept the model, in their order.
pub fn kept_steps(run: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(run.join(STEPS)).into_iter().flatten().flatten();
    let mut steps: Vec<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    steps.retain(|step| kept_model(run, *step).is_dir());
    steps.sort_unstable();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_steps_are_folders_with_a_model() {
        let dir = tempfile::tempdir().unwrap();
        assert!(kept_steps(dir.path()).is_empty());
        for step in [40, 5, 1_000_000] {
            std::fs::create_dir_all(kept_model(dir.path(), step)).unwrap();
        }
        std::fs::create_dir_all(dir.path().join("steps/other/model")).unwrap();
        std::fs::create_dir_all(dir.path().join("steps/000007")).unwrap();
        assert_eq!(kept_steps(dir.path()), [5, 40, 1_000_000]);
    }
}

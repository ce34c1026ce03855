//! The scores of RewardBench against the `rewardbench` package, on random rewards.

use std::path::Path;

use serde_json::Value;
use setpoint_eval::{RewardBenchRow, RewardBenchVersion, score_reward_bench};

#[test]
fn scores_are_those_of_the_package() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/reward_bench.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let runs = golden["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for run in runs {
        let version: RewardBenchVersion = serde_json::from_value(run["version"].clone()).unwrap();
        let given = run["rows"].as_array().unwrap();
        let rewards: Vec<Vec<f64>> =
            given.iter().map(|row| serde_json::from_value(row["rewards"].clone()).unwrap()).collect();
        let row = |(row, rewards): (&Value, &Vec<f64>)| RewardBenchRow {
            id: row["id"].as_str().unwrap().to_owned(),
            subset: row["subset"].as_str().unwrap().to_owned(),
            prompt: String::new(),
            responses: vec![String::new(); rewards.len()],
            correct: usize::try_from(row["correct"].as_u64().unwrap()).unwrap(),
        };
        let rows: Vec<RewardBenchRow> = given.iter().zip(&rewards).map(row).collect();
        let scores = score_reward_bench(version, &rows, &rewards).unwrap();
        let near = |name: &str, got: f64, wanted: &Value| {
            assert!((got - wanted.as_f64().unwrap()).abs() < 1e-12, "{version:?}, {name}: {got} against {wanted}");
        };
        let subsets = run["subsets"].as_object().unwrap();
        assert_eq!(scores.subsets.len(), subsets.len());
        for (name, wanted) in subsets {
            near(name, scores.subsets[name].score, wanted);
        }
        let sections = run["sections"].as_object().unwrap();
        assert_eq!(scores.sections.len(), sections.len());
        for (name, wanted) in sections {
            near(name, scores.sections[name.as_str()], wanted);
        }
        near("score", scores.score.unwrap(), &run["score"]);
    }
}

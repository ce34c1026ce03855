//! The first thing that anybody runs.

use std::path::Path;

use super::fixture::setpoint;

fn number(report: &serde_json::Value, path: &str) -> f64 {
    path.split('.').fold(report, |value, key| &value[key]).as_f64().unwrap_or_else(|| panic!("{path} in {report}"))
}

#[test]
fn the_demo_keeps_its_promise() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("demo");
    let ran = setpoint(&["demo", "--quiet", "--device", "flex", "--run", &run.display().to_string()]).ok();
    for name in ["SFT", "DRO", "DPO", "chosen log-ratio"] {
        assert!(ran.stdout.contains(name), "{name} is missing:\n{}", ran.stdout);
    }
    let report = |method: &str| -> serde_json::Value {
        let path = run.join(format!("eval-{method}.json"));
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
            .unwrap()
    };
    let (dro, dpo) = (report("dro"), report("dpo"));
    for (name, method) in [("dro", &dro), ("dpo", &dpo)] {
        assert!(number(method, "win_rate.difference.low") > 0.5, "{name} is far above the SFT model");
        assert!(Path::new(&run).join(name).join("model/model.safetensors").is_file());
    }
    // The mean reward breaks even, so good responses gain. Whatever the processor's rounding, DRO's are not lost and DPO's are.
    let chosen = "pairs.chosen_log_ratio.value";
    assert!(number(&dro, chosen).abs() < 0.75, "DRO's chosen responses moved by {} nats", number(&dro, chosen));
    assert!(number(&dpo, chosen) < -1.0, "DPO's chosen responses moved by {} nats", number(&dpo, chosen));
    assert!(number(&dro, "kl.k1.mean") < number(&dpo, "kl.k1.mean"));
}

//! The first thing that anybody runs.

use serde_json::Value;

use super::fixture::setpoint;

fn number(report: &Value, path: &str) -> f64 {
    path.split('.').fold(report, |value, key| &value[key]).as_f64().unwrap_or_else(|| panic!("{path} in {report}"))
}

#[test]
fn the_demo_keeps_its_promise() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("demo");
    let ran = setpoint(&["demo", "--quiet", "--device", "flex", "--run", &run.display().to_string()]).ok();
    for said in ["SFT", "DRO", "DPO", "NLL", "gold", "from the SFT model", "Samples at temperature 1", "report.html"] {
        assert!(ran.stdout.contains(said), "{said} is missing:\n{}", ran.stdout);
    }
    let (_, results) = ran.stdout.split_once('╭').unwrap();
    let (results, _) = results.split_once("Samples at").unwrap();
    for line in results.lines() {
        assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
    }

    let report = |name: &str| -> Value {
        let path = run.join(format!("eval-{name}.json"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(run.join(name).join("model/model.safetensors").is_file(), "{name} has a model");
        serde_json::from_str(&text).unwrap()
    };
    // Each method goes further from the SFT model where its setting lets it: a line of reward against KL, not a point.
    for line in [["dro-0.5", "dro-0.25"], ["dpo-3", "dpo-1"], ["nll-slow", "nll-fast"]] {
        let reports: Vec<Value> = line.iter().map(|name| report(name)).collect();
        let kls: Vec<f64> = reports.iter().map(|report| number(report, "kl.exact.mean")).collect();
        assert!(kls.is_sorted(), "{line:?}: {kls:?}");
        for (name, report) in line.iter().zip(&reports) {
            assert!(number(report, "win_rate.difference.low") > 0.0, "{name} is above the SFT model");
            assert_eq!(report["distributions"]["metric.gold"].as_array().unwrap().len(), 60);
        }
    }
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    for said in ["At equal KL", "Reward against KL", "`gold` against KL"] {
        assert!(page.contains(said), "{said} is not in the report");
    }
}

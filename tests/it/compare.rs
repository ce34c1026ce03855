//! `setpoint compare`: several methods in one table.

use std::collections::HashSet;
use std::path::Path;

use super::fixture::{Ran, demo, file, model, rewarded_rows, setpoint};

/// The settings of a comparison, in a folder with its data.
fn settings(compare: &str) -> (tempfile::TempDir, String) {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(6));
    let text = format!(
        "model.path = '{}'\ndata.path = '{data}'\n\
         [train]\nmax_steps = 2\nbatch_size = 2\nlearning_rate = 1e-3\n\
         [eval]\ndata.path = '{}'\ndata.max_rows = 8\npairs.path = '{}'\npairs.max_rows = 24\n\
         rule = {{ kind = \"length\", unit = \"chars\", target = 6 }}\ngenerate = {{ max_new_tokens = 4 }}\nresamples = 200\n[compare]\n{compare}",
        model().display(),
        demo("eval_prompts.jsonl").display(),
        demo("eval_preferences.jsonl").display(),
    );
    let config = dir.path().join("compare.toml");
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    (dir, config)
}

fn compare(config: &str, run: &Path, more: &[&str]) -> Ran {
    let run = run.display().to_string();
    setpoint(&[&["compare", config, "--run", &run], more].concat())
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn prompts(path: &Path) -> HashSet<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["prompt"].to_string()).collect()
}

#[test]
fn settings_are_selected_on_other_prompts_than_the_table_is_measured_on() {
    let (dir, config) = settings(
        "methods = [\"dro\", \"simpo\", \"kto\"]\nseeds = [0, 1]\npoints = 2\nlearning_rates = [1e-3]\n\
         [compare.grids.kto]\n\"align.beta\" = 0.1\n",
    );
    let run = dir.path().join("run");
    let ran = compare(&config, &run, &[]).ok();
    for word in ["dro", "simpo", "kto", "SFT", "win rate", "iB", "mean ± deviation"] {
        assert!(ran.stdout.contains(word), "{word}: {ran:#?}");
    }
    let data = |name: &str| prompts(&run.join("data").join(name));
    let (select, report) = (data("select-prompts.jsonl"), data("report-prompts.jsonl"));
    assert!(select.is_disjoint(&report) && !select.is_empty() && !report.is_empty());
    assert!(data("select-pairs.jsonl").is_disjoint(&report) && data("report-pairs.jsonl").is_disjoint(&select));

    let result = json(&run.join("compare.json"));
    // Two points of DRO and SimPO; KTO has one, and nothing to select.
    let (selection, reported) = (result["selection"].as_array().unwrap(), result["report"].as_array().unwrap());
    assert_eq!((selection.len(), reported.len()), (4, 6), "{result}");
    assert_eq!(result["steps"], 2);
    for trial in selection.iter().chain(reported) {
        let folder = run.join("trials").join(trial["trial"].as_str().unwrap());
        let steps = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap().lines().count();
        assert_eq!(steps, 2, "every training has the same budget");
    }
    for method in result["methods"].as_array().unwrap() {
        assert_eq!(method["seeds"], serde_json::json!([0, 1]));
        let name = method["method"].as_str().unwrap();
        let best = |trials: &[serde_json::Value]| {
            let mine = trials.iter().filter(|t| t["trial"].as_str().unwrap().starts_with(name));
            mine.map(|t| t["figures"]["win_rate"].as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max)
        };
        let selected = selection
            .iter()
            .find(|t| t["trial"].as_str().unwrap().starts_with(name) && t["settings"] == method["settings"]);
        assert_eq!(selected.is_some(), name != "kto");
        assert!(selected.is_none_or(|t| t["figures"]["win_rate"].as_f64() == Some(best(selection))), "{name}");
        // The mean over the seeds, and its interval around it.
        let own: Vec<f64> = reported
            .iter()
            .filter(|t| t["trial"].as_str().unwrap().starts_with(name))
            .map(|t| t["figures"]["win_rate"].as_f64().unwrap())
            .collect();
        let mean = method["figures"]["win_rate"]["mean"].as_f64().unwrap();
        assert!((mean - own.iter().sum::<f64>() / 2.0).abs() < 1e-12);
        assert!((method["win_rate"]["value"].as_f64().unwrap() - mean).abs() < 1e-12);
    }
    let csv = std::fs::read_to_string(run.join("compare.csv")).unwrap();
    assert_eq!(csv.lines().count(), 4);

    // Of the reference DRO takes the log-probs of prompts and responses, KTO those of responses (and the same again for its mismatched pairs:
    // all prompts here have the same responses), SimPO none. The baseline answered each part of the held-out prompts once.
    let values = |what: &str| {
        let files = std::fs::read_dir(run.join("shared")).unwrap().map(|entry| entry.unwrap().file_name());
        let is = |name: &std::ffi::OsString| name.to_str().is_some_and(|n| n.starts_with(what) && n.ends_with(".json"));
        files.filter(is).count()
    };
    assert_eq!([values("reference-"), values("baseline-rewards-"), values("baseline-")], [2, 2, 4]);

    // Nothing is done twice.
    let ran = compare(&config, &run, &["--resume"]).ok();
    assert_eq!(ran.stderr.matches("done before").count(), 10, "{ran:#?}");
    let again = json(&run.join("compare.json"));
    assert_eq!(again, result);
}

#[test]
fn defaults_need_no_selection_and_use_all_held_out_rows() {
    let (dir, config) = settings("methods = [\"ipo\"]\nseeds = [4]\nsearch = \"defaults\"\n");
    let run = dir.path().join("run");
    compare(&config, &run, &[]).ok();
    let result = json(&run.join("compare.json"));
    assert_eq!(result["selection"].as_array().unwrap().len(), 0);
    assert_eq!(result["report"][0]["figures"]["prompts"], 8);
    assert_eq!(result["report"][0]["trial"], "ipo-000-seed4");
}

#[test]
fn the_trials_are_listed_before_anything_is_trained() {
    let (dir, config) = settings("methods = [\"dpo\", \"kto\", \"orpo\"]\npoints = 20\n");
    let text = std::fs::read_to_string(&config).unwrap().replace("max_steps = 2\n", "epochs = 2.0\n");
    std::fs::write(&config, text).unwrap();
    let run = dir.path().join("run");
    let listed = compare(&config, &run, &["--dry-run"]).ok().stdout;
    // Two epochs of six rows in batches of two, also for KTO, which counts 18 responses. Table 4: 16 of DPO, 4 of ORPO; KTO has 4 β.
    assert_eq!(listed.lines().filter(|line| line.contains("  6 steps  ")).count(), 24, "{listed}");
    assert!(listed.contains("3 methods, 30 trainings of 6 steps"), "{listed}");
    assert!(!run.exists());
}

#[test]
fn the_ranges_of_dro_that_leave_out_its_default_are_announced() {
    let told = |section: &str| {
        let (dir, config) = settings(section);
        let said = compare(&config, &dir.path().join("run"), &["--dry-run"]).ok().stderr;
        said.contains("log_z0 = -50, 50 and 500")
    };
    assert!(told("methods = [\"dro\", \"dpo\"]\n"));
    assert!(!told("methods = [\"dpo\"]\n"));
    assert!(!told("methods = [\"dro\"]\nsearch = \"defaults\"\n"));
    // The remedy, as it is given.
    let grid = "[compare.grids.dro]\n\"align.log_z0\" = [\"mean\"]\n\"align.beta\" = [0.05, 0.1, 0.5, 1.0]\n";
    assert!(!told(&format!("methods = [\"dro\"]\n{grid}")));
}

#[test]
fn wrong_settings_are_named_with_their_lines() {
    let refused = |section: &str, words: &[&str]| {
        let (dir, config) = settings(section);
        let run = dir.path().join("run");
        compare(&config, &run, &[]).fails(2, words);
        assert!(!run.exists());
    };
    // The settings before are fifteen lines, `[compare]` the last.
    refused("methods = [\"sipmo\", \"dpo\", \"dpo\"]\n", &["compare.toml:16", "did you mean `simpo`?", "twice"]);
    refused(
        "methods = []\nseeds = []\nselection_share = 1.0\n",
        &["compare.toml:16", "compare.toml:17", "compare.toml:18"],
    );
    refused("methods = [\"dpo\"]\nmehtods = 1\n", &["compare.toml:17", "did you mean `compare.methods`?"]);
    refused(
        "methods = [\"dpo\"]\n[compare.grids.dpo]\n\"align.tau\" = [1.0]\n\"align.beta\" = [0.1, -2.0]\n",
        &["compare.toml:18", "align.tau", "compare.toml:19", "-2"],
    );
    refused(
        "methods = [\"dpo\"]\n[compare.grids.dpo]\n\"train.batch_size\" = [1, 2]\n[compare.grids.ipo]\n\"align.beta\" = [1.0]\n",
        &["compare.toml:18", "budgets are equal", "`compare.grids.ipo` is not among"],
    );
    refused("methods = [\"mix\"]\n", &["mix", "at least one loss"]);
    let (dir, config) = settings("methods = [\"dro\"]\npoints = 2\nselection_share = 0.01\n");
    compare(&config, &dir.path().join("run"), &[]).fails(1, &["eval_prompts.jsonl", "too few different prompts"]);
}

#[test]
fn a_method_of_files_is_trained_in_rounds_next_to_itself() {
    let reward = "[reward]\nrule = { kind = \"length\", unit = \"chars\", target = 6 }\n";
    let methods = "methods = [\"dro\", \"online_dro\", \"Online-DPO\"]\nseeds = [0]\nsearch = \"defaults\"\n";
    let grid = "[compare.grids.online_dro]\n\"align.beta\" = [0.5]\n";
    let rollout = "[compare.rollout]\nprompts = 4\nmax_new_tokens = 4\n";
    let (dir, config) = settings(&format!("{methods}{grid}{rollout}{reward}"));
    let listed = compare(&config, &dir.path().join("run"), &["--dry-run"]).ok().stdout;
    assert!(listed.lines().any(|line| line.starts_with("online_dro ") && line.ends_with("beta = 0.5")), "{listed}");
    let run = dir.path().join("run");
    let ran = compare(&config, &run, &[]).ok();
    assert!(ran.stdout.contains("tokens sampled in a training: online_dro "), "{ran:#?}");
    let result = json(&run.join("compare.json"));
    let expected = [("dro", 0), ("online_dro", 1), ("online_dpo", 1)];
    for (method, (name, rounds)) in result["methods"].as_array().unwrap().iter().zip(expected) {
        assert_eq!(method["method"], name);
        assert_eq!(method["seeds"], serde_json::json!([0]), "{name} has its own trial and no other: {method}");
        let trial = run.join("trials").join(format!("{name}-000-seed0"));
        let settings: toml::Table = std::fs::read_to_string(trial.join("config.toml")).unwrap().parse().unwrap();
        assert_eq!(settings.get("rounds").and_then(toml::Value::as_integer), (rounds > 0).then_some(rounds), "{name}");
        assert_eq!(settings["align"]["method"].as_str(), name.strip_prefix("online_").or(Some(name)));
        // Two steps of two prompts or pairs: a round of four prompts.
        let log = std::fs::read_to_string(trial.join("metrics.jsonl")).unwrap();
        assert_eq!(log.lines().filter(|line| !line.contains("\"round\"")).count(), 2, "{name}: {log}");
        assert_eq!(method["figures"]["sampled_tokens"].is_object(), rounds > 0, "{name}: {method}");
    }
    let beta = |name: &str| {
        let text = std::fs::read_to_string(run.join(format!("trials/{name}-000-seed0/config.toml"))).unwrap();
        text.parse::<toml::Table>().unwrap()["align"]["beta"].as_float()
    };
    assert_eq!((beta("dro"), beta("online_dro")), (Some(0.1), Some(0.5)));
    for (text, said) in [
        (
            methods.to_owned(),
            "`online_dro` trains on responses that the policy samples: give a source of their rewards",
        ),
        (format!("methods = [\"online_ppo\"]\n{reward}"), "`online_ppo` is not a method"),
        (format!("methods = [\"online_dpo\", \"online-dpo\"]\n{reward}"), "stands there twice"),
    ] {
        let (_dir, config) = settings(&text);
        setpoint(&["compare", &config, "--dry-run"]).fails(2, &[said]);
    }
}

#[test]
fn methods_that_sample_are_trained_next_to_the_others() {
    let reward = "[reward]\nrule = { kind = \"length\", unit = \"chars\", target = 6 }\n";
    let methods = "methods = [\"dpo\", \"rlhf\", \"rloo\"]\nseeds = [0]\nsearch = \"defaults\"\n";
    let (dir, config) = settings(&format!("{methods}[compare.rollout]\nprompts = 2\nmax_new_tokens = 4\n{reward}"));
    let run = dir.path().join("run");
    let ran = compare(&config, &run, &[]).ok();
    assert!(ran.stdout.contains("tokens sampled in a training: ppo "), "{ran:#?}");
    let result = json(&run.join("compare.json"));
    assert_eq!(result["steps"], 2);
    for (method, name) in result["methods"].as_array().unwrap().iter().zip(["dpo", "ppo", "rloo"]) {
        assert_eq!(method["method"], name);
        let log = run.join("trials").join(format!("{name}-000-seed0")).join("metrics.jsonl");
        let text = std::fs::read_to_string(log).unwrap();
        let lines = || text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        assert_eq!(lines().filter(|line| line.get("round").is_none()).count(), 2, "{name}");
        let sampled: f64 = lines().filter_map(|line| line.get("rollout/tokens")?.as_f64()).sum();
        // One round of two prompts: PPO makes four passes over one response to each, RLOO one over two.
        let most = [("dpo", 0.0), ("ppo", 8.0), ("rloo", 16.0)].iter().find(|(other, _)| *other == name).unwrap().1;
        assert!(sampled <= most && (sampled > 0.0) == (most > 0.0), "{name}: {sampled}");
        assert_eq!(method["figures"]["sampled_tokens"]["mean"].as_f64(), (most > 0.0).then_some(sampled), "{name}");
    }
    for (text, said) in [
        (methods.to_owned(), "give a source of their rewards"),
        (format!("methods = [\"dpo\"]\nseeds = [0]\n{reward}"), "leave `reward` out"),
        (format!("{methods}[reward]\ncolumn = \"reward\"\n"), "rounds sample others"),
        (format!("{methods}[compare.rollout]\nprompts = 0\n{reward}"), "`compare.rollout.prompts` must be at least 1"),
        (format!("{methods}[compare.rollout]\nsamples = 2\n{reward}"), "samples"),
    ] {
        let (_dir, config) = settings(&text);
        setpoint(&["compare", &config, "--dry-run"]).fails(2, &[said]);
    }
}

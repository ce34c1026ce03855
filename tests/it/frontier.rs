//! Methods at equal KL: both estimates of the KL, selection within a KL, and the lines of `compare` and `report`.

use std::path::Path;

use serde_json::Value;

use super::fixture::{Ran, demo, file, model, rewarded_rows, setpoint};

/// The settings of a comparison of two methods, each at two learning rates, in a folder with its data.
fn settings(more: &str) -> (tempfile::TempDir, String) {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(6));
    let text = format!(
        "model.path = '{}'\ndata.path = '{data}'\n\
         [train]\nmax_steps = 6\nbatch_size = 2\nlearning_rate = 1e-3\n\
         [eval]\ndata.path = '{}'\ndata.max_rows = 16\n\
         rule = {{ kind = \"length\", unit = \"chars\", target = 6 }}\n\
         generate = {{ max_new_tokens = 4, temperature = 1.0, samples = 2 }}\nresamples = 200\n{more}",
        model().display(),
        demo("eval_prompts.jsonl").display(),
    );
    let config = dir.path().join("compare.toml");
    std::fs::write(&config, text).unwrap();
    let config = config.display().to_string();
    (dir, config)
}

const TWO_METHODS: &str = "[compare]\nmethods = [\"dro\", \"dpo\"]\nseeds = [0]\n\
    [compare.grids.dro]\n\"train.learning_rate\" = [1e-3, 1e-2]\n\
    [compare.grids.dpo]\n\"train.learning_rate\" = [1e-3, 1e-2]\n";

fn compare(config: &str, run: &Path, more: &[&str]) -> Ran {
    let run = run.display().to_string();
    setpoint(&[&["compare", config, "--run", &run], more].concat())
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

/// The lines of a metric: method, and KL and value of each point.
fn lines(result: &Value, metric: &str) -> Vec<(String, Vec<(f64, f64)>)> {
    let metrics = result["frontier"]["metrics"].as_array().unwrap();
    let found = metrics.iter().find(|m| m["metric"] == metric).unwrap_or_else(|| panic!("no {metric} in {result}"));
    let points = |line: &Value| {
        line["points"].as_array().unwrap().iter().map(|p| (number(&p["kl"]), number(&p["value"]))).collect()
    };
    let all = found["lines"].as_array().unwrap();
    all.iter().map(|line| (line["method"].as_str().unwrap().to_owned(), points(line))).collect()
}

/// The width of the tables from a word on, without the path at the end.
fn widest(text: &str, from: &str) -> usize {
    let lines = text[text.find(from).unwrap()..].lines().take_while(|line| !line.starts_with("written to"));
    lines.map(|line| line.chars().count()).max().unwrap()
}

#[test]
fn methods_are_lines_and_a_finished_run_is_read_at_other_kls() {
    let (dir, config) = settings(TWO_METHODS);
    let run = dir.path().join("run");
    let ran = compare(&config, &run, &[]).ok();
    assert!(
        ran.stdout.contains("KL from") && ran.stdout.contains("seeds averaged") != ran.stdout.contains("first seed")
    );
    let result = json(&run.join("compare.json"));
    let found = lines(&result, "reward");
    assert_eq!(found.iter().map(|line| line.0.as_str()).collect::<Vec<_>>(), ["dro", "dpo"]);
    let dro = &found[0].1;
    assert!(dro.len() == 2 && 0.0 < dro[0].0 && dro[0].0 < dro[1].0, "{dro:?}");

    // Each trial: both estimates of the KL, and the values of each prompt whose means they are.
    for trial in result["selection"].as_array().unwrap() {
        let figures = &trial["figures"];
        let folder = run.join("trials").join(trial["trial"].as_str().unwrap());
        let measured = json(&folder.join("eval-select.json"));
        let kl = &measured["report"]["kl"];
        let (sampled, exact) = (number(&kl["k1"]["mean"]), number(&kl["exact"]["mean"]));
        assert_eq!((number(&figures["kl"]), number(&figures["kl_exact"])), (sampled, exact));
        let error = number(&kl["k1"]["std_error"]);
        assert!(exact > 0.0 && (exact - sampled).abs() < 6.0 * error, "{exact} against {sampled} ± {error}");
        let by_prompt =
            |name: &str| -> Vec<f64> { measured["by_prompt"][name].as_array().unwrap().iter().map(number).collect() };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean(&by_prompt("kl")) - exact).abs() < 1e-9);
        assert!((mean(&by_prompt("reward")) - number(&figures["reward"])).abs() < 1e-9);
    }
    let page = std::fs::read_to_string(run.join("frontier.html")).unwrap();
    assert!(page.contains("Reward against KL") && page.contains("<polyline"), "{page}");

    // Halfway along DRO's line, and beyond all lines; nothing is trained again.
    let middle = (dro[0].0 + dro[1].0) / 2.0;
    let kls = format!("{middle},9999");
    let ran = compare(&config, &run, &["--resume", "--at-kl", &kls]).ok();
    assert_eq!(ran.stderr.matches("done before").count(), 6, "{ran:#?}");
    assert!(ran.stdout.contains("less dro") && ran.stdout.contains('—'), "{ran:#?}");
    assert!(widest(&ran.stdout, "KL from") <= 80, "{}", ran.stdout);
    let again = json(&run.join("compare.json"));
    let at = again["frontier"]["metrics"][0]["at"].as_array().unwrap();
    let row = |kl: f64, method: &str| at.iter().find(|r| r["kl"] == kl && r["method"] == method).unwrap();
    let half = &row(middle, "dro")["estimate"];
    assert!((number(&half["value"]) - (dro[0].1 + dro[1].1) / 2.0).abs() < 1e-9, "{half}");
    assert!(number(&half["low"]) <= number(&half["value"]) && number(&half["value"]) <= number(&half["high"]));
    assert_eq!((&row(9999.0, "dro")["estimate"], &row(9999.0, "dpo")["difference"]), (&Value::Null, &Value::Null));
    let dpo = &found[1].1;
    let reached = dpo[0].0 <= middle && middle <= dpo[1].0;
    let difference = &row(middle, "dpo")["difference"];
    assert_eq!(difference.is_object(), reached, "{difference}");

    // A second judge, by a file in each trial's folder.
    for trial in result["selection"].as_array().unwrap() {
        let folder = run.join("trials").join(trial["trial"].as_str().unwrap());
        let settings = folder.join("eval-select.toml").display().to_string();
        let output = folder.join("eval-select-long.json").display().to_string();
        let rule = "rule={kind=\"length\",unit=\"chars\",target=40}";
        let ran = setpoint(&["eval", &settings, "--quiet", "--set", rule, "--output", &output]).ok();
        assert!(ran.stdout.contains("summed over the vocabulary"), "{ran:#?}");
        assert!(ran.stdout.contains("from the sampled tokens alone"), "{ran:#?}");
    }
    compare(&config, &run, &["--resume"]).ok();
    let again = json(&run.join("compare.json"));
    assert_eq!(lines(&again, "reward"), found);
    let long = lines(&again, "long");
    assert!(long.len() == 2 && long[0].1.iter().zip(dro).all(|(a, b)| a.0 == b.0 && a.1 != b.1), "{long:?}");

    // The report shows the comparison, at its own KLs or at others, and the trials themselves.
    let html = dir.path().join("report.html").display().to_string();
    let folder = run.display().to_string();
    let ran = setpoint(&["report", &folder, "--at-kl", &kls, "--output", &html]).ok();
    assert!(ran.stderr.contains("1 comparison written to"), "{ran:#?}");
    let page = std::fs::read_to_string(&html).unwrap();
    for shown in ["At equal KL", "Reward against KL", "`long` against KL", "less dro at this KL", "—"] {
        assert!(page.contains(shown), "{shown}");
    }
    let trials: Vec<String> =
        ["dro-000", "dro-001", "dpo-000"].map(|n| run.join(format!("trials/{n}-seed0")).display().to_string()).into();
    let trials: Vec<&str> = trials.iter().map(String::as_str).collect();
    setpoint(&[&["report"], trials.as_slice(), &["--output", &html]].concat()).ok();
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("The runs of this report") && page.contains("Win rate against KL"));
    setpoint(&["report", &folder, "--at-kl", "0", "--output", &html]).fails(2, &["--at-kl", "above 0 nats"]);
    setpoint(&["report", &folder, "--at-kl", "x", "--output", &html]).fails(2, &["--at-kl"]);

    // A trial that an older version measured is read, and is not on the line.
    let older = run.join("trials/dpo-000-seed0/eval-select.json");
    let mut measured = json(&older);
    measured.as_object_mut().unwrap().remove("by_prompt");
    measured["figures"].as_object_mut().unwrap().remove("kl_exact");
    std::fs::write(&older, measured.to_string()).unwrap();
    let ran = compare(&config, &run, &["--resume"]).ok();
    assert!(ran.stderr.contains("1 of 4 trials were measured by an older version"), "{ran:#?}");
    assert_eq!(lines(&json(&run.join("compare.json")), "reward")[1].1.len(), 1);
    // A metric of other prompts is refused by name.
    let other = run.join("trials/dro-000-seed0/eval-select-long.json");
    let mut wrong = json(&other);
    wrong["items"].as_array_mut().unwrap().pop();
    std::fs::write(&other, wrong.to_string()).unwrap();
    compare(&config, &run, &["--resume"]).fails(1, &["eval-select-long.json", "change the judge alone"]);
}

#[test]
fn settings_are_selected_among_those_near_the_sft_model() {
    let select = |max_kl: &str| {
        TWO_METHODS
            .replace("seeds = [0]", &format!("seeds = [0]\nselect = {{ metric = \"reward\", max_kl = {max_kl} }}"))
    };
    let (dir, config) = settings(&select("1e-9"));
    let run = dir.path().join("run");
    let ran = compare(&config, &run, &[]).ok();
    assert_eq!(ran.stdout.matches("none near enough").count(), 2, "{ran:#?}");
    assert!(ran.stdout.contains("dpo: no trial has a KL up to 0.000000001 nats: the nearest is dpo-00"), "{ran:#?}");
    let result = json(&run.join("compare.json"));
    assert_eq!((result["selection"].as_array().unwrap().len(), result["report"].as_array().unwrap().len()), (4, 0));
    assert_eq!((&result["selected_by"], number(&result["max_kl"])), (&Value::from("reward"), 1e-9));

    // Between the two KLs of a method, the nearer one is all that is left, whatever its reward.
    let kls: Vec<f64> = result["selection"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|trial| trial["trial"].as_str().unwrap().starts_with("dro"))
        .map(|trial| number(&trial["figures"]["kl_exact"]))
        .collect();
    let (near, middle) = (if kls[0] < kls[1] { 0 } else { 1 }, (kls[0] + kls[1]) / 2.0);
    let (dir, config) = settings(&select(&format!("{middle:?}")).replace("[\"dro\", \"dpo\"]", "[\"dro\"]"));
    let text = std::fs::read_to_string(&config).unwrap();
    let (text, _) = text.split_once("[compare.grids.dpo]").unwrap();
    std::fs::write(&config, text).unwrap();
    let run = dir.path().join("run");
    let ran = compare(&config, &run, &[]).ok();
    assert!(ran.stdout.contains(&format!("selected by reward, KL up to {middle} nats")), "{ran:#?}");
    let result = json(&run.join("compare.json"));
    assert_eq!(result["report"][0]["trial"], format!("dro-00{near}-seed0"));
}

#[test]
fn a_sweep_puts_the_trials_within_a_kl_first() {
    let (dir, config) = settings(
        "[sweep]\nselect = { metric = \"reward\", max_kl = 1e-9 }\n[sweep.settings]\n\"train.learning_rate\" = [1e-2, 1e-3]\n",
    );
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("data.path", "align.method = \"dpo\"\ndata.path", 1)).unwrap();
    let run = dir.path().join("run").display().to_string();
    let ran = setpoint(&["sweep", &config, "--run", &run]).ok();
    assert!(ran.stdout.contains("sorted by reward, KL up to 0.000000001 nats"), "{ran:#?}");
    assert!(ran.stdout.contains("no trial has a KL up to"), "{ran:#?}");
    let result = json(&dir.path().join("run/sweep.json"));
    let kls: Vec<f64> = (0..2).map(|i| number(&result["trials"][i]["figures"]["kl_exact"])).collect();
    assert!(kls[0] <= kls[1], "the nearest first: {kls:?}");
    // The rule only orders: a finished sweep is sorted anew.
    let ran = setpoint(&["sweep", "--run", &run, "--resume", "--set", "sweep.select.max_kl=50.0"]).ok();
    assert!(ran.stdout.contains("the first is the best of 2 tries"), "{ran:#?}");
}

#[test]
fn wrong_settings_are_named() {
    let refused = |more: &str, words: &[&str]| {
        let (dir, config) = settings(more);
        compare(&config, &dir.path().join("run"), &[]).fails(2, words);
    };
    refused(&format!("{TWO_METHODS}[frontier]\nkl = [1.0, -2.0]\n"), &["compare.toml:", "above 0 nats per response"]);
    refused(
        &format!("{TWO_METHODS}[frontier]\nbaseline = \"ipo\"\n"),
        &["compare.toml:", "`ipo` is not among `compare.methods`"],
    );
    refused(
        "[compare]\nmethods = [\"dro\"]\nsearch = \"defaults\"\n[frontier]\nkl = [1.0]\n",
        &["compare.toml:", "no method has several choices of settings", "compare.grids"],
    );
    let select = |text: &str| TWO_METHODS.replace("seeds = [0]", &format!("seeds = [0]\nselect = {{ {text} }}"));
    refused(&select("max_kl = 0.0"), &["compare.toml:", "above 0 nats per response"]);
    refused(&select("metric = \"pair_accuracy\""), &["compare.toml:", "eval.pairs.path"]);
    let (dir, config) = settings(TWO_METHODS);
    compare(&config, &dir.path().join("run"), &["--at-kl", "one"]).fails(2, &["--at-kl"]);
}

#[test]
fn every_choice_is_trained_with_every_seed_if_asked() {
    let more = TWO_METHODS.replace("seeds = [0]", "seeds = [0, 1]");
    let (dir, config) = settings(&format!("{more}[frontier]\nevery_seed = true\nkl = [0.001]\n"));
    let listed = compare(&config, &dir.path().join("run"), &["--dry-run"]).ok().stdout;
    assert!(listed.contains("2 methods, 8 trainings"), "{listed}");
    let run = dir.path().join("run");
    compare(&config, &run, &[]).ok();
    let result = json(&run.join("compare.json"));
    assert_eq!(result["frontier"]["part"], "report");
    let points = &result["frontier"]["metrics"][0]["lines"][0]["points"];
    for point in points.as_array().unwrap() {
        assert_eq!(point["models"].as_array().unwrap().len(), 2, "{points}");
    }
}

#[test]
fn models_on_the_way_of_a_training_are_points_of_the_line() {
    let more = "[compare]\nmethods = [\"dpo\", \"nll\"]\nseeds = [0]\nsearch = \"defaults\"\n[frontier]\ncheckpoints = 2\nkl = [0.001]\n";
    let (dir, config) = settings(more);
    let run = dir.path().join("run");
    compare(&config, &run, &[]).ok();
    let result = json(&run.join("compare.json"));
    let points = result["frontier"]["metrics"][0]["lines"][0]["points"].as_array().unwrap();
    let mut names: Vec<&str> = points.iter().map(|point| point["models"][0].as_str().unwrap()).collect();
    names.sort_unstable();
    // Six steps, two models before the last.
    assert_eq!(names, ["dpo-000-seed0", "dpo-000-seed0/steps/000002", "dpo-000-seed0/steps/000004"]);
    assert!(points.iter().any(|point| point["settings"] == "step 2"), "{points:?}");
    // They are models like any other, and the report reads them at other KLs.
    let kept = run.join("trials/dpo-000-seed0/steps/000002/model/model.safetensors");
    assert!(kept.is_file());
    let html = dir.path().join("report.html").display().to_string();
    setpoint(&["report", &run.display().to_string(), "--at-kl", "0.002", "--output", &html]).ok();
    // The number of models is part of the run.
    compare(&config, &run, &["--resume", "--set", "frontier.checkpoints=1"]).fails(2, &["frontier.checkpoints"]);
    let model = model().display().to_string();
    let data = dir.path().join("rewards.jsonl").display().to_string();
    let ran = ["align", "--model", &model, "--data", &data, "--run", "unused", "--set", "keep_models=true"];
    setpoint(&ran).fails(2, &["keep_models", "train.sample_steps"]);
}

#[test]
fn a_model_on_the_way_is_selected_if_it_alone_is_near_enough() {
    let with = |select: &str| {
        settings(&format!(
            "[compare]\nmethods = [\"dpo\"]\nseeds = [0, 1]\n{select}[compare.grids.dpo]\n\"train.learning_rate\" = [1e-3, 1e-2]\n\
             [frontier]\ncheckpoints = 2\n"
        ))
    };
    let (dir, config) = with("");
    let run = dir.path().join("run");
    compare(&config, &run, &[]).ok();
    let result = json(&run.join("compare.json"));
    assert_eq!(result["methods"][0]["step"], Value::Null);
    let points = result["frontier"]["metrics"][0]["lines"][0]["points"].as_array().unwrap().clone();
    assert_eq!(points.len(), 6, "{points:?}");
    // In the order of their KL; the nearest is one of an earlier step.
    let (name, kl) = (points[0]["models"][0].as_str().unwrap().to_owned(), number(&points[0]["kl"]));
    let step: u64 = name.rsplit('/').next().unwrap().parse().unwrap_or_else(|_| panic!("{name}"));

    let (dir, config) = with(&format!("select = {{ metric = \"reward\", max_kl = {} }}\n", kl * 1.0001));
    let run = dir.path().join("run");
    let ran = compare(&config, &run, &[]).ok();
    assert!(ran.stdout.contains(&format!(", step {step}")), "{ran:#?}");
    let result = json(&run.join("compare.json"));
    let method = &result["methods"][0];
    assert_eq!((method["step"].as_u64(), method["seeds"].as_array().unwrap().len()), (Some(step), 2), "{method}");
    // The figures are those of this step, on the prompts of the report.
    let trial = name.split("-seed0").next().unwrap();
    let kls: Vec<f64> = [0, 1]
        .map(|seed| run.join(format!("trials/{trial}-seed{seed}/steps/{step:06}/eval-report.json")))
        .iter()
        .map(|path| number(&json(path)["figures"]["kl_exact"]))
        .collect();
    let mean = number(&method["figures"]["kl_exact"]["mean"]);
    assert!((mean - (kls[0] + kls[1]) / 2.0).abs() < 1e-12, "{mean} of {kls:?}");
}

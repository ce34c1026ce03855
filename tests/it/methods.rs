//! Every method of `setpoint align`, from one annotated file.

use std::path::Path;

use super::fixture::{file, model, rewarded_rows, setpoint};

fn align(data: &str, run: &Path, settings: &[&str]) -> super::fixture::Ran {
    align_with(data, run, settings, &[])
}

fn align_with(data: &str, run: &Path, settings: &[&str], more: &[&str]) -> super::fixture::Ran {
    let (policy, run) = (model().display().to_string(), run.display().to_string());
    let mut arguments = vec!["align", "--quiet", "--model", &policy, "--data", data, "--run", &run];
    arguments.extend(more);
    let common = ["samples.prompts=0", "train.max_steps=2", "train.batch_size=4", "train.learning_rate=1e-3"];
    for setting in common.iter().chain(settings) {
        arguments.extend(["--set", setting]);
    }
    setpoint(&arguments)
}

fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The tokens of prompts that the reference model scored: none where the method does not look at them.
fn prompt_tokens(run: &Path) -> Vec<u64> {
    let stored = std::fs::read_to_string(run.join("reference-train.jsonl")).unwrap();
    let rows = stored.lines().skip(1).map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.map(|row| row["prompt_tokens"].as_u64().unwrap()).collect()
}

fn catalogue() -> Vec<serde_json::Value> {
    serde_json::from_str(&setpoint(&["methods", "--json"]).ok().stdout).unwrap()
}

#[test]
fn every_method_trains_on_the_same_annotated_file() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    for about in &catalogue() {
        let name = about["name"].as_str().unwrap();
        let run = dir.path().join(name);
        let method = format!("align.method={name}");
        let mut settings = vec![method.as_str()];
        if name == "mix" {
            settings.push("align.losses=[{method='simpo'}, {method='slic_hf', weight=0.5}]");
        }
        if name == "dro" {
            settings.push("align.prompt_term=full");
        }
        align(&data, &run, &settings).ok();
        let steps = metrics(&run);
        assert_eq!(steps.len(), 2, "{name}");
        // Maximum likelihood looks at the best response alone.
        let keys: &[&str] = if name == "nll" { &["logps/chosen"] } else { &["rewards/chosen", "logps/rejected"] };
        for key in ["loss", "grad_norm"].iter().chain(keys) {
            assert!(steps[0][key].as_f64().is_some_and(f64::is_finite), "{name} {key}: {}", steps[0]);
        }
        let pairs = !["dro_v", "nll"].contains(&name);
        assert_eq!(steps[0].get("rewards/margins").is_some(), pairs, "{name}: {}", steps[0]);
        // The reference's log-probs are kept where there is one, and nothing of it is there where there is none.
        let reference = about["reference"].as_bool().unwrap() && name != "mix";
        assert_eq!(run.join("reference-train.jsonl").exists(), reference, "{name}");
        if reference {
            assert!(prompt_tokens(&run).into_iter().all(|tokens| (tokens > 0) == (name == "dro")), "{name}");
        }
        assert_eq!(steps[0].get("logratios/chosen").is_some(), reference, "{name}: {}", steps[0]);
        assert_eq!(run.join("reference-train-mismatched.jsonl").exists(), name == "kto", "{name}");
        assert_eq!(run.join("value/model.safetensors").exists(), name == "dro_v", "{name}");
        // At the reference, before the first step: what only compares log-ratios is at its value for 0.
        let loss = steps[0]["loss"].as_f64().unwrap();
        let expected = match name {
            "dpo" | "dpop" | "dpo_shift" | "beta_dpo" | "sigmoid_norm" | "aot_unpaired" => Some(2f64.ln()),
            "hinge" | "apo_zero" | "apo_down" => Some(1.0),
            "nca_pair" | "bco_pair" => Some(2.0 * 2f64.ln()),
            "kto" => Some(0.5),
            _ => None,
        };
        if let Some(expected) = expected {
            assert!((loss - expected).abs() < 1e-4, "{name}: {loss}, expected {expected}");
        }
        assert!(run.join("model/model.safetensors").is_file(), "{name}");
    }
}

/// `f(t) = from + (to − from)·t/T`: a loss is that of its own step's factor, also after a resume.
#[test]
fn the_factor_of_dpo_shift_follows_the_training() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let run = |name: &str| dir.path().join(name);
    let settings =
        ["align.method=dpo_shift", "align.beta=0.5", "train.batch_size=1", "train.save_steps=1", "train.keep_last=9"];
    let train =
        |name: &str, shift: &str| align(&data, &run(name), &[&settings[..], &[shift, "train.max_steps=4"]].concat());
    train("increases", "align.shift={ from = 0.5, to = 0.9 }").ok();
    let steps = metrics(&run("increases"));
    for (step, factor) in steps.iter().zip([0.5, 0.6, 0.7, 0.8]) {
        let number = |key: &str| step[key].as_f64().unwrap();
        assert!((number("dpo_shift/factor") - factor).abs() < 1e-6, "{step}");
        let logit = number("rewards/chosen") - factor * number("rewards/rejected");
        assert!((number("loss") - (-logit).exp().ln_1p()).abs() < 1e-5, "{step}");
    }
    assert_eq!(steps.len(), 4);
    // Killed after two steps: the same as in one go.
    for gone in ["model", "checkpoints/step-00000003", "checkpoints/step-00000004"] {
        std::fs::remove_dir_all(run("increases").join(gone)).unwrap();
    }
    let resume = ["align.shift={ from = 0.5, to = 0.9 }", "train.max_steps=4"];
    align_with(&data, &run("increases"), &[&settings[..], &resume].concat(), &["--resume"]).ok();
    let again = metrics(&run("increases"));
    for key in ["loss", "grad_norm", "dpo_shift/factor"] {
        assert_eq!(
            again.iter().map(|s| &s[key]).collect::<Vec<_>>(),
            steps.iter().map(|s| &s[key]).collect::<Vec<_>>()
        );
    }
    train("wrong", "align.shift={ from = 0.5, to = 1.2 }").fails(2, &["shift.to", "above 0 and at most 1"]);
    train("wrong", "align.shift={ start = 0.5 }").fails(2, &["expected a number, or { from = …, to = … }"]);
}

#[test]
fn without_its_prompt_term_dro_scores_no_prompt() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let run = |term: &str| {
        let run = dir.path().join(term);
        align(&data, &run, &["align.log_z0=3", &format!("align.prompt_term={term}")]).ok();
        (prompt_tokens(&run), metrics(&run))
    };
    let (tokens, steps) = run("off");
    assert_eq!(tokens, [0; 12]);
    assert!(steps.iter().all(|step| step["dro/log_z"] == 3.0 && step.get("dro/prompt_logratio").is_none()));
    let (tokens, with_term) = run("full");
    assert!(tokens.iter().all(|&tokens| tokens > 0));
    assert!(with_term.iter().all(|step| step["dro/prompt_logratio"].is_number()));
    // At the reference the term is 0 in either.
    let loss = |steps: &[serde_json::Value]| steps[0]["loss"].as_f64().unwrap();
    assert!((loss(&steps) / loss(&with_term) - 1.0).abs() < 1e-5);
}

/// ORPO's NLL is a mean over the tokens of the chosen responses, and of their prompts unless told otherwise.
#[test]
fn orpo_counts_the_prompts_tokens() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let scores = dir.path().join("logps.jsonl").display().to_string();
    setpoint(&["logps", "--model", &model().display().to_string(), "--data", &data, "--output", &scores]).ok();
    let scores: Vec<serde_json::Value> = std::fs::read_to_string(scores)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|row: &serde_json::Value| row["response"] == 0)
        .collect();
    assert_eq!(scores.len(), 4, "the best response of each prompt is its first");
    let sum = |key: &str| scores.iter().map(|row| row[key].as_f64().unwrap()).sum::<f64>();
    for (nll_on, parts) in [("prompt_and_response", &["prompt", "response"][..]), ("response", &["response"])] {
        let total = |what: &str| parts.iter().map(|part| sum(&format!("{part}_{what}"))).sum::<f64>();
        // The first token of a prompt is predicted from nothing.
        let tokens = total("tokens") - if parts.contains(&"prompt") { 4.0 } else { 0.0 };
        let run = dir.path().join(nll_on);
        align(&data, &run, &["align.method=orpo", &format!("align.nll_on={nll_on}")]).ok();
        let (found, expected) = (metrics(&run)[0]["nll_loss"].as_f64().unwrap(), -total("logp") / tokens);
        assert!((found - expected).abs() < 1e-5 * expected, "{nll_on}: {found}, expected {expected}");
    }
}

#[test]
fn pairs_follow_the_rule() {
    // Rewards of the three responses: all different.
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let policy = model().display().to_string();
    let steps = |rule: &str, epochs: &str| {
        let ran = setpoint(&[
            "align",
            "--dry-run",
            "--model",
            &policy,
            "--data",
            &data,
            "--set",
            "align.method=rpo",
            "--set",
            rule,
            "--set",
            epochs,
            "--set",
            "train.batch_size=1",
        ]);
        ran.ok().stdout.lines().find(|line| line.starts_with("steps")).unwrap().to_owned()
    };
    for (rule, pairs) in [("best_worst", 4), ("best_random", 4), ("all", 12)] {
        let line = steps(&format!("align.pairs={rule}"), "train.epochs=1");
        assert!(line.contains(&format!("{pairs} examples")), "{rule}: {line}");
    }
    // The random one follows from the seed.
    let random = |seed: u64, run: &str| {
        let run = dir.path().join(run);
        align(&data, &run, &["align.method=simpo", "align.pairs=best_random", &format!("train.seed={seed}")]).ok();
        metrics(&run).iter().map(|m| m["loss"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(random(3, "a"), random(3, "b"));
}

#[test]
fn an_ensemble_is_the_same_file_annotated_again() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let same = dir.path().join("same.jsonl");
    std::fs::write(&same, rewarded_rows(4)).unwrap();
    let setting = |path: &Path| format!("align.ensemble=['{}']", path.display());
    let run = dir.path().join("run");
    align(&data, &run, &["align.method=rpo", &setting(&same)]).ok();
    let alone = dir.path().join("alone");
    align(&data, &alone, &["align.method=rpo"]).ok();
    assert_eq!(metrics(&run)[1]["loss"], metrics(&alone)[1]["loss"], "the minimum over twice the same");
    let fewer = dir.path().join("fewer.jsonl");
    std::fs::write(&fewer, rewarded_rows(3)).unwrap();
    let refused = align(&data, &dir.path().join("refused"), &["align.method=rpo", &setting(&fewer)]);
    refused.fails(1, &["fewer.jsonl", "rewards.jsonl:4", "another reward model"]);
}

#[test]
fn what_a_method_lacks_is_said() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(2));
    let run = dir.path().join("run");
    let refused = |code, settings: &[&str], words: &[&str]| align(&data, &run, settings).fails(code, words);
    refused(
        2,
        &["align.method=simpo", "align.label_smoothing=0.1"],
        &["align.label_smoothing", "gamma_beta_ratio", "nll_weight"],
    );
    refused(2, &["align.method=kto", "align.pairs=all"], &["align.pairs", "desirable_weight"]);
    refused(2, &["align.method=dpo", "align.lambda=1.0", "align.tau=2"], &["align.lambda", "align.tau"]);
    refused(2, &["align.method=exo_pair", "align.label_smoothing=0"], &["label_smoothing", "above 0"]);
    refused(2, &["align.method=dpo", "align.nll_weight=-1"], &["align.nll_weight"]);
    refused(2, &["align.method=mix"], &["align.losses", "at least one loss"]);
    refused(2, &["align.method=mix", "align.losses=[{method='dpo', tau=1}]"], &["align.losses", "`tau`"]);
    let reference = format!("reference={}", model().display());
    refused(2, &["align.method=orpo", &reference], &["`orpo` has no reference model"]);

    let refused = |rows: &str, method: &str, words: &[&str]| {
        let (_dir, data) = file("rows.jsonl", rows);
        align(&data, &run, &[&format!("align.method={method}")]).fails(1, words);
    };
    let single = "{\"prompt\": \"How much?\", \"responses\": [\"Four.\"], \"rewards\": [1.0]}\n";
    refused(single, "qrpo", &["rows.jsonl:1", "one response alone", "generate.samples"]);
    refused(single, "kto", &["1 of its 1 rows", "KTO needs two prompts"]);
    refused(single, "simpo", &["none of its 1 rows", "`simpo` trains on pairs"]);
    let pair = "{\"prompt\": \"How much?\", \"chosen\": \"Four.\", \"rejected\": \"Saturday.\"}\n";
    for method in ["rpo", "rpo_bwd_kl", "qrpo"] {
        refused(pair, method, &["rows.jsonl:1", "without a reward", "setpoint annotate"]);
    }
    assert!(!run.exists(), "nothing is left of a refused run");
}

#[test]
fn kto_reads_labelled_rows() {
    let rows: String = (0..6)
        .map(|i| {
            let (text, good) = if i % 2 == 0 { ("The sum is four.", true) } else { ("Saturday.", false) };
            // Two rows a prompt, side by side.
            serde_json::json!({ "prompt": format!("How much is {} and two?", i / 2), "completion": text, "label": good }).to_string() + "\n"
        })
        .collect();
    let (dir, data) = file("kto.jsonl", &rows);
    let run = dir.path().join("run");
    align(&data, &run, &["align.method=kto", "align.beta=0.5", "train.batch_size=6", "train.max_steps=4"]).ok();
    let steps = metrics(&run);
    // Six rows, all in the batch: at the reference the loss is ½ and its reference point 0.
    assert_eq!(steps[0]["kl"].as_f64(), Some(0.0), "{}", steps[0]);
    assert!((steps[0]["loss"].as_f64().unwrap() - 0.5).abs() < 1e-5);
    // The rate of the first step is 0.
    assert!(steps[3]["loss"].as_f64().unwrap() < 0.499, "{}", steps[3]);
    // No row is compared with a response of its own prompt.
    let stored = std::fs::read_to_string(run.join("reference-train-mismatched.jsonl")).unwrap();
    assert_eq!(stored.lines().filter(|line| line.contains("response_logp")).count(), 6, "{stored}");
}

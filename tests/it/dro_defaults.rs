//! DRO's defaults, what `align` says before it trains, and the warnings about chosen responses that lose probability.

use std::path::Path;

use serde_json::Value;

use super::fixture::{Ran, file, model, rewarded_rows, setpoint};

const STEPS: usize = 2;

/// The mean reward of `rewarded_rows(4)`: 1.0 to 1.3, four times −1 and four times 0.25.
const MEAN: f64 = (4.6 - 4.0 + 1.0) / 12.0;

fn align(data: &str, run: &Path, settings: &[&str]) -> Ran {
    let (policy, run) = (model().display().to_string(), run.display().to_string());
    let mut arguments = vec!["align", "--quiet", "--model", &policy, "--data", data, "--run", &run];
    let steps = format!("train.max_steps={STEPS}");
    let common = ["samples.prompts=0", "train.batch_size=4", "train.learning_rate=1e-3", &steps];
    for setting in common.iter().chain(settings) {
        arguments.extend(["--set", setting]);
    }
    setpoint(&arguments)
}

fn settings(arguments: &[&str]) -> toml::Table {
    let ran = setpoint(&[&["inspect", "config", "align"], arguments].concat()).ok();
    let table: toml::Table = ran.stdout.parse().unwrap();
    table["align"].as_table().unwrap().clone()
}

fn audit(run: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(run.join("audit.json")).unwrap()).unwrap()
}

fn log_z0(run: &Path) -> f64 {
    audit(run)["log_z0"].as_f64().unwrap()
}

fn first_step(run: &Path) -> Value {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    serde_json::from_str(text.lines().next().unwrap()).unwrap()
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6 * expected.abs().max(1.0), "{found}, expected {expected}");
}

#[test]
fn the_defaults_are_no_prompt_term_and_the_mean_and_a_preset_has_the_papers() {
    let defaults = settings(&[]);
    assert_eq!(defaults["log_z0"].as_str(), Some("mean"));
    assert_eq!(defaults["prompt_term"].as_str(), Some("off"));
    assert_eq!(defaults["beta"].as_float(), Some(0.1));

    let paper = settings(&["--set", "align.preset=paper"]);
    assert_eq!(paper["log_z0"].as_float(), Some(50.0));
    assert_eq!(paper["prompt_term"].as_str(), Some("full"));
    assert_eq!(paper["beta"].as_float(), Some(0.1));
    assert!(!paper.contains_key("preset"), "{paper}");

    // What is given beside the preset wins, wherever it stands.
    let given = ["--set", "align.log_z0=3", "--set", "align.preset=paper", "--set", "align.prompt_term={ clip = 2 }"];
    let table = settings(&given);
    assert_eq!((table["log_z0"].as_float(), table["beta"].as_float()), (Some(3.0), Some(0.1)));
    assert_eq!(table["prompt_term"]["clip"].as_float(), Some(2.0));
    let table = settings(&["--set", "align.preset=paper", "--set", "align.break_even_reward=2.5"]);
    assert!(!table.contains_key("log_z0"), "{table}");
    assert_eq!(table["break_even_reward"].as_float(), Some(2.5));

    let wrong = |set: &[&str]| setpoint(&[&["inspect", "config", "align", "--set"], set].concat());
    wrong(&["align.preset=papr"]).fails(2, &["align.preset", "`papr` is not a preset", "paper"]);
    wrong(&["align.preset=paper", "--set", "align.method=dpo"]).fails(2, &["align.preset"]);
}

#[test]
fn the_level_is_that_of_the_rewards_as_they_are_trained_on() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let run = |name: &str, settings: &[&str]| {
        let run = dir.path().join(name);
        let ran = align(&data, &run, settings).ok();
        let config: toml::Table = std::fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
        // An old or new folder says what it uses.
        assert!(config["align"]["prompt_term"].is_str(), "{config}");
        (run, config["align"].clone(), ran.stderr)
    };
    let (folder, config, said) = run("mean", &[]);
    assert_eq!(config["log_z0"].as_str(), Some("mean"));
    close(log_z0(&folder), MEAN / 0.1);
    close(first_step(&folder)["dro/log_z"].as_f64().unwrap(), MEAN / 0.1);
    assert!(said.contains("log_z0 1.333 nats: break-even reward 0.133; the rewards have mean 0.133"), "{said}");

    // Before training the loss is the mean of (r − β·log_z0)², whatever the level.
    let rewards = [1.0, 1.1, 1.2, 1.3].into_iter().flat_map(|best| [best, -1.0, 0.25]);
    let variance = rewards.map(|r: f64| (r - MEAN).powi(2)).sum::<f64>() / 12.0;
    assert!((first_step(&folder)["loss"].as_f64().unwrap() - variance).abs() < 1e-4);

    // The mean is taken after the transform and the scale.
    close(log_z0(&run("scaled", &["align.reward_scale=3"]).0), 3.0 * MEAN / 0.1);
    close(log_z0(&run("centred", &["align.reward_transform=center"]).0), 0.0);
    let clipped = "align.reward_transform={ clip = [0.25, 9.0] }";
    close(log_z0(&run("clipped", &[clipped, "align.beta=0.5"]).0), (4.6 + 8.0 * 0.25) / 12.0 / 0.5);

    // Under its former name too, and written back as it was read.
    for (name, value) in [("kept", "keep_chosen"), ("auto", "auto")] {
        let (folder, config, _) = run(name, &[&format!("align.log_z0={value}")]);
        assert_eq!(config["log_z0"].as_str(), Some(value));
        close(log_z0(&folder), 1.15 / 0.1);
    }
    close(log_z0(&run("shifted", &["align.log_z0={ keep_chosen = -1.5 }"]).0), 1.15 / 0.1 + 1.5);
    close(log_z0(&run("reward", &["align.break_even_reward=0.5"]).0), 5.0);
}

#[test]
fn the_preset_trains_as_the_settings_it_stands_for() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let (preset, written) = (dir.path().join("preset"), dir.path().join("written"));
    align(&data, &preset, &["align.preset=paper"]).ok();
    align(&data, &written, &["align.log_z0=50", "align.prompt_term=full", "align.beta=0.1"]).ok();
    let files = |name: &str| [&preset, &written].map(|run| std::fs::read(run.join(name)).unwrap());
    for name in ["config.toml", "model/model.safetensors"] {
        let [preset, written] = files(name);
        assert!(preset == written, "{name} differs");
    }
    assert!(first_step(&preset)["dro/prompt_logratio"].is_number());
}

#[test]
fn the_methods_are_listed_with_their_defaults_and_presets() {
    let listed: Vec<Value> = serde_json::from_str(&setpoint(&["methods", "--json"]).ok().stdout).unwrap();
    let of = |name: &str| listed.iter().find(|method| method["name"] == name).unwrap();
    let dro = of("dro");
    assert_eq!((&dro["settings"]["log_z0"], &dro["settings"]["prompt_term"]), (&"mean".into(), &"off".into()));
    assert_eq!(dro["presets"]["paper"], serde_json::json!({"beta": 0.1, "log_z0": 50.0, "prompt_term": "full"}));
    assert_eq!(of("dpo")["presets"], serde_json::json!({}));
    // A cell wraps between words.
    assert!(setpoint(&["methods"]).ok().stdout.contains("\"paper\""));
}

/// Chosen responses of five tokens, asked to fall by 40 nats; the others cannot be reached.
#[test]
fn what_the_targets_ask_is_said_before_training_and_by_the_audit() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let policy = model().display().to_string();
    let steep = "are asked to fall by more than one nat per token";
    let small = "standard deviations of the rewards";
    // (settings, what is said, what is not)
    let cases: [(&[&str], &[&str], &[&str]); 4] = [
        // 1.15/0.1 − 50 = −38.5 nats on average.
        (&["align.log_z0=50"], &["warning: 100.0 % of the 4 best responses", steep, "38.5 nats on average"], &[]),
        (&[], &["None of the 4 best responses has a reward below the break-even reward 0.133"], &[steep, small]),
        // σ is 0.88.
        (&["align.beta=0.05"], &["warning: beta = 0.05 is 0.05", small], &[steep]),
        // exp(1.15/0.01) times anything is more than 1.
        (
            &["align.beta=0.01", "align.log_z0=0"],
            &["4 of 4 prompts (100.0 %) are infeasible at log_z0 = 0", small],
            &[steep],
        ),
    ];
    for (i, (settings, said, unsaid)) in cases.into_iter().enumerate() {
        let trained = align(&data, &dir.path().join(format!("run{i}")), settings).ok();
        let mut arguments = vec!["audit", "--quiet", "--model", &policy, "--data", &data];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let audited = setpoint(&arguments).ok();
        // Its lines are broken at the width of a terminal.
        let audit = audited.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in said {
            assert!(trained.stderr.contains(text), "{settings:?}: {text:?} is missing in {}", trained.stderr);
            // The audit's table has the figures of remarks, and no second sentence about them.
            let text = if text.starts_with("None") { "0.0 % lose it" } else { text.trim_start_matches("warning: ") };
            assert!(audit.contains(text), "{settings:?}: {text:?} is missing in {}", audited.stdout);
        }
        for text in unsaid {
            assert!(!trained.stderr.contains(text), "{settings:?}: {text:?} in {}", trained.stderr);
        }
    }
    // The level next to the rewards is said without a reference, too.
    let plan = setpoint(&["align", "--dry-run", "--model", &policy, "--data", &data]).ok();
    assert!(plan.stderr.contains("break-even reward 0.133; the rewards have mean 0.133"), "{plan:#?}");
}

/// The detector watches what happens to the chosen responses. Its limit was once 38.5 nats a token here.
#[test]
fn chosen_responses_that_lose_probability_under_dro_are_warned_of_and_others_are_not() {
    let (dir, data) = file("rewards.jsonl", &rewarded_rows(4));
    let steps = ["train.max_steps=30", "train.learning_rate=1e-2", "train.schedule.warmup={ steps = 0 }"];
    let warning = "the chosen responses are losing probability";
    let train = |name: &str, settings: &[&str]| {
        align(&data, &dir.path().join(name), &[&steps[..], settings].concat()).ok().stderr
    };
    let said = train("falling", &["align.log_z0=50"]);
    assert!(said.contains(warning) && said.contains("a lower align.log_z0 asks for less"), "{said}");
    let said = train("rising", &[]);
    assert!(!said.contains(warning), "{said}");
    let log_ratio = |name: &str| {
        let text = std::fs::read_to_string(dir.path().join(name).join("metrics.jsonl")).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        last["logratios/chosen"].as_f64().unwrap()
    };
    assert!(log_ratio("falling") < -1.0 && log_ratio("rising") > 0.0);
}

#[test]
fn rewards_that_no_loss_holds_are_refused_before_anything_is_computed() {
    let rows = |scale: f64| -> String {
        let row = |i: usize, rewards: [f64; 2]| {
            serde_json::json!({
                "prompt": [{"role": "user", "content": format!("How much is {i} and two?")}],
                "responses": ["The sum is four.", "Saturday."],
                "rewards": rewards,
            })
        };
        format!("{}\n{}\n", row(1, [1.0, -1.0]), row(2, [scale, -scale]))
    };
    let (dir, data) = file("rewards.jsonl", &rows(1e300));
    let run = dir.path().join("run");
    for settings in [
        &[][..],
        &["align.reward_transform=center"],
        &["align.reward_transform=center_per_prompt"],
        &["align.log_z0=keep_chosen"],
        &["align.log_z0=3", "align.error=mae"],
        &["align.method=dro_v"],
        &["align.method=rpo"],
        &["align.method=rpo_sq"],
    ] {
        align(&data, &run, settings).fails(1, &["rewards.jsonl:2", "1e300", "too large"]);
        assert!(!run.exists(), "{settings:?}");
    }
    align(&data, &run, &["align.reward_scale=1e10"]).fails(1, &["rewards.jsonl:2", "becomes inf"]);
    for level in ["align.log_z0=1e30", "align.break_even_reward=-1e300", "align.log_z0={ keep_chosen = 1e20 }"] {
        align(&data, &run, &[level]).fails(2, &[level.split('=').next().unwrap(), "log_z0", "1e18"]);
    }
    // Brought to deviation 1, and as ranks, they are rewards like others; a pair needs their order alone.
    for (name, settings) in [
        ("zscore", ["align.reward_transform=zscore", "align.method=dro"]),
        ("quantile", ["align.reward_transform=quantile", "align.method=dro"]),
        ("clip", ["align.reward_transform={ clip = 2.0 }", "align.method=dro"]),
        ("dpo", ["align.method=dpo", "align.beta=0.1"]),
        ("qrpo", ["align.method=qrpo", "align.beta=0.1"]),
    ] {
        let run = dir.path().join(name);
        align(&data, &run, &settings).ok();
        assert!(first_step(&run)["loss"].as_f64().is_some_and(f64::is_finite), "{name}");
    }
    // The z-scores of 1, −1, s and −s are 0, 0, √2 and −√2: their mean square is 1, as every z-score's is.
    assert!((first_step(&dir.path().join("zscore"))["loss"].as_f64().unwrap() - 1.0).abs() < 1e-3);
}

/// The first row is too long for the model, so that the places among the rows that are left are other ones.
#[test]
fn the_audit_names_a_row_by_its_place_in_the_file() {
    let long = serde_json::json!({
        "prompt": [{"role": "user", "content": "How much is two and two? ".repeat(60)}],
        "responses": ["The sum is four.", "Saturday."],
        "rewards": [9.0, 0.0],
    });
    let (dir, data) = file("rewards.jsonl", &format!("{long}\n{}", rewarded_rows(3)));
    let policy = model().display().to_string();
    let output = dir.path().join("audit.json").display().to_string();
    let settings = ["--set", "align.beta=0.01", "--set", "align.log_z0=0"];
    let audit = ["audit", "--model", &policy, "--data", &data, "--output", &output];
    let ran = setpoint(&[&audit[..], &settings].concat()).ok();
    // exp(r/β) is largest for the last row, whose reward is 1.2.
    assert!(ran.stdout.contains("rewards.jsonl:4, by "), "{ran:#?}");
    assert!(ran.stdout.contains("rewards.jsonl:4: ") && !ran.stdout.contains("row 2"), "{ran:#?}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&output).unwrap()).unwrap();
    let name = report["feasibility"]["worst"][0]["name"].as_str().unwrap().to_owned();
    assert!(name.ends_with("rewards.jsonl:4"), "{name}");
}

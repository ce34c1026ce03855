//! PPO in rounds: what its value network starts from, learns and leaves, and the settings that go together.

use std::path::Path;

use serde_json::Value;

use super::fixture::{Ran, demo, file, model, setpoint_owned};
use super::rounds::{SHORT, arguments, by_round, lines, metrics, path_of, prompts};

const PPO: &[&str] = &["align.method=rlhf", "rollout.samples=1", "rollout.epochs_per_round=2", "train.batch_size=6"];

fn train(data: &str, run: &Path, rounds: usize, settings: &[&str]) {
    setpoint_owned(&arguments(data, run, rounds, &[PPO, SHORT, settings])).ok();
}

/// The values of all slots of a round's responses.
fn values(run: &Path, round: usize) -> Vec<f64> {
    let of = |row: &serde_json::Map<String, Value>| -> Vec<f64> {
        let responses = row["values"].as_array().unwrap().iter().zip(row["tokens"].as_array().unwrap());
        responses
            .flat_map(|(values, tokens)| {
                let values = values.as_array().unwrap();
                assert_eq!(values.len(), tokens.as_array().unwrap().len());
                values.iter().map(|value| value.as_f64().unwrap()).collect::<Vec<_>>()
            })
            .collect()
    };
    lines(&path_of(run, round)).iter().flat_map(of).collect()
}

/// Returns whether the steps of each round have a number.
fn logged(run: &Path, name: &str) -> Vec<bool> {
    let mut rounds: Vec<bool> = Vec::new();
    for line in metrics(run) {
        match line.contains_key("round") {
            true => rounds.push(false),
            false => *rounds.last_mut().unwrap() |= line.contains_key(name),
        }
    }
    rounds
}

#[test]
fn values_learn_first_and_start_from_what_the_settings_name() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let first = dir.path().join("first");
    train(&data, &first, 3, &["align.value_warmup=1", "align.value_learning_rate=0.01"]);
    // A new head is zeros; the values then move towards the rewards, which are negative.
    assert!(values(&first, 0).iter().all(|&value| value == 0.0));
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    assert!(mean(values(&first, 1)) < -1e-3 && mean(values(&first, 2)) < mean(values(&first, 1)));
    // In the warm-up the policy stays the reference to the bit.
    let kl = by_round(&first, "objective/kl");
    assert!(kl[0] == 0.0 && kl[1] == 0.0 && kl[2] != 0.0, "{kl:?}");
    assert_eq!(logged(&first, "loss/value_avg"), [true, true, true]);
    for name in ["loss/policy_avg", "policy/entropy_avg", "val/ratio"] {
        assert_eq!(logged(&first, name), [false, true, true], "{name}");
    }
    assert_eq!(by_round(&first, "episode"), [6.0, 12.0, 18.0]);

    // The value network is a model like others: another run starts from it, as a folder or as its reward model.
    let network = first.join("value").display().to_string();
    let named = format!("align.value_init={network}");
    let second = dir.path().join("second");
    train(&data, &second, 1, &[&named]);
    assert!(values(&second, 0).iter().all(|&value| value != 0.0));
    let third = dir.path().join("third");
    let reward = format!("reward.model.path={network}");
    let settings: &[&[&str]] = &[PPO, &[&reward]];
    setpoint_owned(&arguments(&data, &third, 1, settings)).ok();
    assert_eq!(values(&third, 0), values(&second, 0), "auto is the reward model");
    let fourth = dir.path().join("fourth");
    setpoint_owned(&arguments(&data, &fourth, 1, &[PPO, &[&reward, "align.value_init=policy"]])).ok();
    assert!(values(&fourth, 0).iter().all(|&value| value == 0.0));
    // With an adapter on the policy, the value network is one on the reward model.
    let fifth = dir.path().join("fifth");
    setpoint_owned(&arguments(&data, &fifth, 2, &[PPO, &[&reward, "adapter.rank=2"]])).ok();
    for (found, expected) in values(&fifth, 0).iter().zip(values(&second, 0)) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
    assert!(fifth.join("value/adapter_model.safetensors").is_file());
    // An adapter cannot be trained further in full, and is left for the policy's decoder.
    let adapter = format!("reward.model.path={}", fifth.join("value").display());
    let sixth = dir.path().join("sixth");
    setpoint_owned(&arguments(&data, &sixth, 1, &[PPO, &[&adapter]])).ok();
    assert!(values(&sixth, 0).iter().all(|&value| value == 0.0));
}

#[test]
fn a_slot_behind_the_end_is_for_responses_that_have_room() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let run = dir.path().join("run");
    // Prompt and response have at most 40 tokens, so no response is as long as it might be.
    let lengths = ["rollout.max_new_tokens=40", "encode.max_length=40"];
    train(&data, &run, 1, &[&["align.reward_at=after_end"], &lengths[..]].concat());
    for row in lines(&path_of(&run, 0)) {
        let count = |name: &str| row[name][0].as_array().unwrap().len();
        assert!(count("tokens") < 40 && count("values") == count("tokens") + 1, "{row:?}");
    }
    let full = dir.path().join("full");
    train(&data, &full, 1, &["align.reward_at=after_end"]);
    for row in lines(&path_of(&full, 0)).iter().filter(|row| row["stopped"][0] == false) {
        let count = |name: &str| row[name][0].as_array().unwrap().len();
        assert_eq!((count("tokens"), count("values")), (8, 8), "{row:?}");
    }
}

#[test]
fn other_rows_are_learned_with_their_weight() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let sft = format!("sft_data.path={}", demo("pretrain/sft.jsonl").display());
    let run = |name: &str, weight: &str| {
        let run = dir.path().join(name);
        let weight = format!("align.ptx_weight={weight}");
        train(
            &data,
            &run,
            3,
            &[&sft, "sft_data.max_rows=4", &weight, "align.value_warmup=1", "train.learning_rate=0.01"],
        );
        run
    };
    let (weak, strong) = (run("weak", "1e-9"), run("strong", "10"));
    for run in [&weak, &strong] {
        assert_eq!(logged(run, "loss/ptx"), [false, true, true]);
    }
    let last = |run: &Path| metrics(run).iter().rev().find_map(|line| line.get("loss/ptx")?.as_f64()).unwrap();
    assert!(last(&strong) < last(&weak) - 0.1, "{} {}", last(&strong), last(&weak));
    // Tokens of these rows go through the model, too.
    let tokens = |run: &Path| metrics(run).last().unwrap()["num_tokens"].as_f64().unwrap();
    let without = dir.path().join("without");
    train(&data, &without, 3, &["align.value_warmup=1"]);
    assert!(tokens(&strong) > tokens(&without), "{} {}", tokens(&strong), tokens(&without));
}

#[test]
fn a_limit_on_the_kl_ends_a_run_in_rounds() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let held_out = format!("eval_data.path={data}");
    let run = |name: &str, limit: &str| {
        let run = dir.path().join(name);
        let limit = format!("align.max_kl={limit}");
        let settings: [&str; 6] = [
            &held_out,
            &limit,
            "train.eval_steps=2",
            "stop.prompts=4",
            "stop.max_new_tokens=8",
            "train.learning_rate=0.03",
        ];
        train(&data, &run, 4, &settings);
        metrics(&run)
    };
    let kls = |lines: &[serde_json::Map<String, Value>]| -> Vec<f64> {
        lines.iter().filter_map(|line| line.get("eval_kl")?.as_f64()).collect()
    };
    let free = kls(&run("free", "1e6"));
    // Two steps in each of four rounds.
    assert!(free.len() == 4 && free[3] > 1e-4, "{free:?}");
    let ended = kls(&run("ended", &(0.5 * free[0]).to_string()));
    assert_eq!(ended, free[..1]);
    assert!(path_of(&dir.path().join("free"), 3).exists() && !path_of(&dir.path().join("ended"), 1).exists());
}

fn try_out(data: &str, run: &Path, settings: &[&[&str]]) -> Ran {
    let mut arguments = arguments(data, run, 2, settings);
    arguments.extend(["--dry-run".to_owned()]);
    setpoint_owned(&arguments)
}

#[test]
fn settings_that_do_not_go_together_are_named() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let run = dir.path().join("run");
    let policy = model().display().to_string();
    let of_policy = format!("align.value_init={policy}");
    let sft = format!("sft_data.path={}", demo("pretrain/sft.jsonl").display());
    for (settings, said) in [
        (&["align.value_init=reward"][..], "`reward.model.path` names none"),
        (&["align.value_init=nowhere"], "`nowhere` does not exist"),
        (&[&of_policy], "holds a causal language model, not a reward model"),
        (&["align.value_warmup=2"], "set fewer, or more `rounds`"),
        (&["align.value_learning_rate=1e-4", "train.learning_rate=0"], "set `align.value_warmup`"),
        (&["align.ptx_weight=1"], "set `sft_data.path`"),
        (&[&sft], "set a weight, or leave `sft_data` out"),
        (&["align.kl_target=6", "align.kl_coef=0"], "`align.kl_target` multiplies `kl_coef`"),
        (&[&sft, "align.ptx_weight=1", "rollout.temperature=0.7"], "learned at temperature 1"),
        (&["align.missing_stop_penalty=1", "reward.missing_stop_penalty=1"], "would both be subtracted"),
        (&[&sft, "align.method=rloo", "rollout.samples=2"], "leave `sft_data` out"),
    ] {
        try_out(&data, &run, &[PPO, SHORT, settings]).fails(2, &[said]);
    }
    assert!(!run.exists(), "nothing was begun");
}

#[test]
fn the_plan_counts_the_value_network() {
    let (_dir, data) = file("prompts.jsonl", &prompts(6));
    let plan = |more: &[&str]| -> Value {
        let mut arguments: Vec<String> = ["plan", "--job", "align", "--json", "--data", &data].map(String::from).into();
        arguments.extend(["--model".to_owned(), model().display().to_string()]);
        let common = [
            "rounds=2",
            "rollout.prompts=6",
            "rollout.samples=2",
            "rollout.epochs_per_round=1",
            "rollout.max_new_tokens=8",
        ];
        for setting in common.iter().chain(SHORT).chain(more) {
            arguments.extend(["--set".to_owned(), (*setting).to_owned()]);
        }
        serde_json::from_str(&setpoint_owned(&arguments).ok().stdout).unwrap()
    };
    let number = |plan: &Value, path: &[&str]| -> f64 {
        path.iter().fold(plan, |value, key| &value[*key]).as_f64().unwrap_or_else(|| panic!("{path:?} in {plan}"))
    };
    let (without, with) = (plan(&["align.method=reinforce_pp"]), plan(&["align.method=ppo"]));
    // The demo's models share head and embeddings: a head of one row is all that is new.
    for path in [&["memory", "weights"][..], &["memory", "optimizer"], &["trained"], &["operations"]] {
        let ratio = number(&with, path) / number(&without, path);
        let expected = if path == ["operations"] { 1.5..2.1 } else { 1.99..2.03 };
        assert!(expected.contains(&ratio), "{path:?}: {ratio}");
    }
    // Two adapters have one base.
    let (without, with) =
        (plan(&["align.method=reinforce_pp", "adapter.rank=2"]), plan(&["align.method=ppo", "adapter.rank=2"]));
    let ratio = |path: &[&str]| number(&with, path) / number(&without, path);
    assert!(ratio(&["memory", "weights"]) < 1.2, "{with} {without}");
    assert!(ratio(&["trained"]) > 1.9, "{with} {without}");
}

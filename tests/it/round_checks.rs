//! Rounds: the signs that are watched, the settings of samples and rewards, and those that are refused.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::fixture::{file, model, setpoint, setpoint_owned};
use super::rounds::{SHORT, arguments, by_round, kill_and_resume, lines, metrics, path_of, prompts};

#[test]
fn the_kl_divergence_of_a_method_without_a_reference_is_logged_and_changes_nothing() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    for (method, more) in [("grpo", &[][..]), ("grpo", &["adapter.rank=4"]), ("orpo", &["rollout.keep=reload"])] {
        let run = |name: &str, log_kl: bool| {
            let run = dir.path().join(format!("{method}-{}-{name}", more.len()));
            let settings = [format!("align.method={method}"), format!("rollout.log_kl={log_kl}")];
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            setpoint_owned(&arguments(&data, &run, 2, &[SHORT, &settings, more])).ok();
            run
        };
        let (with, without) = (run("with", true), run("without", false));
        let kl = by_round(&with, "objective/kl");
        assert!(kl[0].abs() < 1e-6 && kl[1].abs() > 1e-6, "{method}: {kl:?}");
        assert!(metrics(&without).iter().all(|line| !line.contains_key("objective/kl")), "{method}");
        let weights = match more.contains(&"adapter.rank=4") {
            true => "model/adapter_model.safetensors",
            false => "model/model.safetensors",
        };
        assert!(
            std::fs::read(with.join(weights)).unwrap() == std::fs::read(without.join(weights)).unwrap(),
            "{method}"
        );
    }
}

#[test]
fn a_guard_that_stops_leaves_a_run_that_goes_on() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let run = dir.path().join("run");
    // Every response is cut at its first token, or ends there.
    let settings: &[&str] = &["align.method=dpo", "rollout.max_new_tokens=1"];
    let arguments = arguments(&data, &run, 2, &[SHORT, settings]);
    let with = |more: &[&str]| {
        setpoint_owned(&arguments.iter().cloned().chain(more.iter().map(|word| (*word).to_owned())).collect::<Vec<_>>())
    };
    with(&["--set", "guards=stop"]).fails(1, &["round 0: ", "no stop token", "--set guards=warn"]);
    with(&["--resume", "--set", "guards=warn"]).ok();
    assert_eq!(by_round(&run, "completions/max_length"), [1.0, 1.0]);
}

#[test]
fn a_second_source_is_watched_and_told_of_when_it_falls_while_the_reward_rises() {
    let (dir, data) = file("prompts.jsonl", &prompts(12));
    let run = dir.path().join("run");
    // The reward is for short responses; the second source wants them long, by the same amount.
    let watch: &[&str] = &[
        "align.method=dpo",
        "watch.rule.kind=length",
        "watch.rule.unit=chars",
        "watch.rule.min=1000",
        "watch.rule.penalty=0.05",
        "rollout.prompts=12",
        "rollout.epochs_per_round=2",
        "train.learning_rate=0.01",
    ];
    setpoint_owned(&arguments(&data, &run, 25, &[SHORT, watch])).ok();
    let (rewards, watched) = (by_round(&run, "reward"), by_round(&run, "watch/reward"));
    for (reward, watched) in rewards.iter().zip(&watched) {
        assert!((watched + 50.0 + reward).abs() < 1e-9, "{reward} {watched}");
    }
    // Five rounds are an evaluation, and three rises in a row are a sign.
    let means: Vec<f64> = rewards.chunks(5).map(|part| part.iter().sum::<f64>() / 5.0).collect();
    let rises = |at: usize| at >= 3 && means[at - 3..=at].windows(2).all(|pair| pair[1] > pair[0]);
    let expected: Vec<usize> = (0..5).filter(|&at| rises(at)).map(|at| 5 * at + 4).collect();
    let events = lines(&run.join("history.jsonl"));
    let said = events.iter().filter_map(|event| event.get("message")?.as_str());
    let told: Vec<&str> = said.filter(|message| message.contains("the held-out reward has fallen")).collect();
    assert!(!expected.is_empty(), "{means:?}");
    assert!(told[0].starts_with(&format!("round {}: the reward rises", expected[0])), "{told:?}, {means:?}");
    assert_eq!(told.len(), 1, "it is told again only after an evaluation without the sign: {told:?}");
}

#[test]
fn what_rounds_cannot_do_is_said_in_one_sentence_before_any_work() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let run = dir.path().join("run");
    let try_out = |settings: &[&[&str]]| {
        let mut arguments = arguments(&data, &run, 2, settings);
        arguments.push("--dry-run".into());
        setpoint_owned(&arguments)
    };
    let dpo: &[&str] = &["align.method=dpo"];
    let plan = try_out(&[SHORT, dpo]).ok();
    assert!(plan.stdout.contains("rounds    2 of 6 prompts with 4 responses each, of at most 8 tokens"), "{plan:#?}");
    for (settings, said) in [
        (&[dpo][..], "no source of rewards for the sampled responses"),
        (&[dpo, SHORT, &["reward.command.run=[\"sh\"]"]], "give one source of rewards"),
        (&[dpo, &["reward.column=score"]], "rounds sample others"),
        (&[dpo, SHORT, &["reward.normalize=true"]], "only a reward model"),
        (&[dpo, SHORT, &["reward.model.dtype=bf16"]], "`reward.model` has settings and names no reward model"),
        (
            &[SHORT, &["align.method=grpo", "adapter.rank=2", "adapter.dropout=0.1"]],
            "`grpo` trains the policy that samples, and dropout makes it another one",
        ),
        (&[dpo, &["reward.generative.judge.model=j", "reward.generative.pattern=("]], "reward.generative.pattern"),
        (&[dpo, SHORT, &["watch.batch_tokens=64"]], "give a reward model (--set watch.model.path=DIR)"),
        (&[dpo, SHORT, &["watch.column=score"]], "rounds sample others"),
        (&[dpo, SHORT, &["reward.missing_stop_penalty=-1"]], "at least 0"),
        (&[dpo, SHORT, &["rollout.temperature=0"]], "above 0"),
        (&[dpo, SHORT, &["rollout.top_k=1"]], "`rollout.top_k` must be at least 2"),
        (&[dpo, SHORT, &["rollout.top_p=0"]], "above 0 and up to 1"),
        (&[dpo, SHORT, &["rollout.min_p=0.1"]], "min_p"),
        (&[SHORT, &["align.method=ppo", "rollout.top_k=5"]], "leave `rollout.top_k` out"),
        (&[SHORT, &["align.method=rloo", "rollout.top_p=0.9"]], "leave `rollout.top_p` out"),
        (&[SHORT, &["align.method=grpo", "rollout.top_k=5"]], "samples of its likeliest tokens are not"),
        (&[SHORT, &["align.method=reinforce_pp", "rollout.top_p=0.9"]], "leave `rollout.top_p` out"),
        (&[SHORT, &["align.method=qrpo", "rollout.top_p=0.9"]], "leave `rollout.top_p` out"),
        (&[SHORT, &["align.log_z0=per_prompt", "rollout.top_p=0.9"]], "leave `rollout.top_p` out"),
        (&[dpo, SHORT, &["reward.weights.model=1"]], "there are rule"),
        (&[dpo, SHORT, &["reward.weights.rule=inf"]], "at most 1e30 either way; found inf"),
        (
            &[dpo, SHORT, &["reward.command.run=['sh']", "reward.weights.rule=1"]],
            "the source `reward.command` has no weight",
        ),
        (&[dpo, SHORT, &["rollout.samples=1"]], "at least 2"),
        (&[SHORT, &["align.method=kto", "rollout.prompts=1"]], "another prompt of the round: set `rollout.prompts`"),
        (&[dpo, SHORT, &["rollout.chunk_rows=0"]], "`rollout.chunk_rows` must be at least 1"),
        (&[dpo, SHORT, &["rollout.prompts=7"]], "set `rollout.prompts` to at most"),
        (&[dpo, SHORT, &["train.epochs=3"]], "rollout.epochs_per_round"),
        // Six pairs of a round are a step, and there are two rounds.
        (&[dpo, SHORT, &["train.max_steps=3"]], "`train.max_steps` is 3, and the run has 2 in its rounds (2)"),
        (&[dpo, SHORT, &["eval_data.path=rows.jsonl"]], "leave `eval_data` out"),
        (&[dpo, SHORT, &["align.method=orpo", "reference=previous"]], "has no reference model"),
        (&[SHORT, &["align.log_z0=keep_chosen"]], "rounds have none"),
        (&[SHORT, &["align.method=qrpo", "rollout.temperature=0.7"]], "at temperature 1 alone"),
        (&[dpo, SHORT, &["rollout.keep_rounds=0"]], "`rollout.keep_rounds` must be at least 1"),
        (&[dpo, SHORT, &["rollout.server.concurrency=4"]], "give its name as the server knows it"),
        (&[dpo, SHORT, &["rollout.server.model=m", "rollout.server.base_url=gpu1"]], "expected an address"),
        (&[dpo, SHORT, &["rollout.reload.run=['sh']"]], "there is no server to give its weights"),
        (
            &[dpo, SHORT, &["rollout.server.model=m", "rollout.reload.run=['no-such-program']"]],
            "is in no folder of PATH",
        ),
        (&[SHORT, &["align.method=grpo", "rollout.server.model=m"]], "set `rollout.reload` to a command"),
        (&[SHORT, &["align.log_z0=per_prompt", "rollout.server.model=m"]], "set `rollout.reload` to a command"),
        (&[SHORT, &["align.method=grpo", "rollout.samples=1"]], "at least 2"),
        (&[dpo, SHORT, &["rollout.correction=token_mask"]], "leave `rollout.correction` out"),
        (&[SHORT, &["align.method=rloo", "rollout.correction=token_mask"]], "one ratio for a whole response"),
        (
            &[SHORT, &["align.method=grpo", "rollout.correction_max=2"]],
            "without `rollout.correction` nothing is corrected",
        ),
        (&[SHORT, &["align.method=grpo", "rollout.correction=token_mask", "rollout.correction_max=0"]], "above 0"),
        (
            &[
                SHORT,
                &["align.method=grpo", "rollout.correction=token_mask", "rollout.temperature=0.7"],
                &["rollout.server.model=m", "rollout.reload.run=['sh']"],
            ],
            "compared at temperature 1 alone",
        ),
        (&[SHORT, &["align.method=grpo", "reference=previous"]], "has no reference model"),
        (
            &[SHORT, &["align.method=grpo", "align.missing_stop_penalty=1", "reward.missing_stop_penalty=1"]],
            "would both be subtracted",
        ),
    ] {
        try_out(settings).fails(2, &[said]);
    }
    try_out(&[dpo, SHORT, &["encode.max_prompt_length=1"]])
        .fails(1, &["no prompt is left to sample responses to", "encode.max_prompt_length"]);
    assert!(!run.exists(), "nothing was begun");
    let policy = model().display().to_string();
    let offline = ["align", "--dry-run", "--model", &policy, "--data", &data];
    for section in ["rollout.prompts=4", "reward.batch_tokens=64", "watch.batch_tokens=64", "guards=stop"] {
        setpoint(&[&offline[..], &["--set", section]].concat()).fails(2, &["belongs to rounds"]);
    }
    let audit = ["audit", "--model", &policy, "--data", &data, "--set", "rounds=2", "--set", "rollout.prompts=6"];
    let rule: Vec<&str> = SHORT.iter().flat_map(|setting| ["--set", setting]).collect();
    setpoint(&[&audit[..], &rule].concat()).fails(2, &["leave `rounds` out"]);
    setpoint(&[&offline[..], &["--set", "align.method=GRPO"]].concat()).fails(2, &["`grpo`", "set `rounds`"]);
    let without_rounds = ["--set", "align.method=grpo", "--set", "rollout.prompts=4"];
    let refused = setpoint(&[&offline[..], &without_rounds].concat());
    assert!(!refused.stderr.contains("leave it out"), "the section is no mistake: {refused:#?}");
    refused.fails(2, &["`grpo`", "set `rounds`"]);
    let refused = try_out(&[dpo]);
    assert!(!refused.stderr.contains("column"), "a source that would be refused is not advised: {refused:#?}");
    refused.fails(2, &["give a reward model"]);
    setpoint(&["align", "--dry-run", "--set", "align.method=online_dpo"])
        .fails(2, &["`online_dpo` is `dpo` in rounds"]);
}

/// Arguments of a training whose settings name no number of prompts.
fn unnumbered(data: &str, run: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = arguments(data, run, 2, &[SHORT, &["align.method=dpo", "rollout.chunk_rows=8"], more]);
    let at = arguments.iter().position(|word| word == "rollout.prompts=6").unwrap();
    arguments.drain(at - 1..=at);
    arguments
}

#[test]
fn a_round_has_all_prompts_of_small_data_and_a_resumed_run_has_as_many() {
    let (dir, data) = file("prompts.jsonl", &prompts(5));
    let dry = |data: &str| {
        let mut arguments = unnumbered(data, &dir.path().join("dry"), &[]);
        arguments.push("--dry-run".into());
        setpoint_owned(&arguments).ok().stdout
    };
    let plan = dry(&data);
    assert!(plan.contains("rounds    2 of 5 prompts with 4 responses each"), "{plan}");
    assert!(plan.contains("data      5 prompts (tokens: min "), "{plan}");
    assert!(plan.contains("; the rounds ask 10, each 2.00 times on average"), "{plan}");
    let (_other, many) = file("many.jsonl", &prompts(70));
    assert!(dry(&many).contains("rounds    2 of 64 prompts with 4 responses each"));

    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    setpoint_owned(&unnumbered(&data, &whole, &["train.save_steps=1"])).ok();
    let sampled = |run: &Path| run.join("rollouts/round-0000/chunk-0001.jsonl").exists();
    let trained = |run: &Path| run.join("rollouts/round-0001.json").exists();
    let kills = kill_and_resume(&killed, &unnumbered(&data, &killed, &["train.save_steps=1"]), &[&sampled, &trained]);
    assert!(kills > 0);
    let weights = |run: &Path| std::fs::read(run.join("model/model.safetensors")).unwrap();
    assert!(weights(&killed) == weights(&whole) && metrics(&killed) == metrics(&whole));
    for run in [&whole, &killed] {
        let settings: toml::Table = std::fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
        assert_eq!(settings["rollout"]["prompts"].as_integer(), Some(5));
        assert_eq!(lines(&path_of(run, 0)).len(), 5);
    }
    // The run's settings name the number, so data that has become smaller is refused.
    std::fs::write(&data, prompts(4)).unwrap();
    let settings = killed.join("config.toml").display().to_string();
    setpoint(&["align", &settings, "--dry-run"]).fails(2, &["a round has 5 prompts, and", "has 4"]);
}

#[test]
fn the_policy_is_the_one_that_sampled_at_the_first_step_of_a_round() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    for method in ["ppo", "rloo", "grpo", "reinforce_pp"] {
        let run = dir.path().join(method);
        let method = format!("align.method={method}");
        let own: &[&str] = &[&method, "rollout.epochs_per_round=2", "train.batch_size=24", "rollout.samples=4"];
        setpoint_owned(&arguments(&data, &run, 2, &[SHORT, own, &["train.learning_rate=0.03"]])).ok();
        let ratios: Vec<f64> = metrics(&run).iter().filter_map(|line| line.get("val/ratio")?.as_f64()).collect();
        let distances: Vec<f64> = ratios.iter().map(|ratio| (ratio - 1.0).abs()).collect();
        assert!(distances.len() == 4 && distances[0] < 1e-4 && distances[2] < 1e-4, "{method}: {ratios:?}");
        assert!(distances[1] > 1e-4 && distances[3] > 1e-4, "{method}: {ratios:?}");
        // trl's pace is PPO's, and known from the second round on.
        let rounds = lines(&run.join("metrics.jsonl")).into_iter().filter(|line| line.contains_key("round"));
        let paces: Vec<bool> = rounds.map(|line| line.get("eps").is_some_and(|eps| eps.as_f64() > Some(0.0))).collect();
        assert_eq!(paces, [false, method == "align.method=ppo"]);
    }
}

#[test]
fn the_level_of_a_prompt_comes_from_samples_of_the_reference_if_the_data_has_them() {
    let found = [-1.0, 0.5].map(|value| {
        let row = |i: usize| {
            let texts: Vec<String> = (0..8).map(|j| format!("sample {j}")).collect();
            json!({"prompt": format!("How much is {i} and two?"), "reference_responses": texts, "reference_rewards": vec![value; 8]})
        };
        let (dir, data) = file("prompts.jsonl", &(0..6).map(|i| row(i).to_string() + "\n").collect::<String>());
        let run = dir.path().join("run");
        let plain: &[&str] = &["align.level_weight=1", "align.length_normalize=false", "align.update=batch"];
        let own: &[&str] = &["align.method=dro", "align.beta=1", "align.log_z0=per_prompt"];
        setpoint_owned(&arguments(&data, &run, 1, &[SHORT, own, plain])).ok();
        let rewards = |row: &Map<String, Value>| row["rewards"].as_array().unwrap().clone();
        let rewards: Vec<f64> =
            lines(&path_of(&run, 0)).iter().flat_map(rewards).map(|reward| reward.as_f64().unwrap()).collect();
        assert_eq!(rewards.len(), 24);
        // Samples of equal reward have that level, and the policy is still its own reference.
        let squares: f64 = rewards.iter().map(|reward| (reward - value) * (reward - value)).sum();
        let losses: Vec<f64> = metrics(&run).iter().filter_map(|line| line.get("loss")?.as_f64()).collect();
        assert_eq!(losses.len(), 1);
        losses[0] / squares
    });
    assert!(found[0] > 0.0 && (found[0] / found[1] - 1.0).abs() < 1e-4, "{found:?}");
}

/// With one step a round and nothing else that asks for them, the log-probabilities of the policy that samples are not computed before it.
#[test]
fn the_only_step_of_a_round_needs_no_pass_before_it() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let shapes: [(&str, &[&str]); 4] = [
        ("grpo", &[]),
        ("rloo", &["align.beta=0"]),
        ("reinforce_pp", &["align.kl_coef=0", "rollout.temperature=0.7"]),
        ("grpo", &["align.loss=cispo", "align.clip_high=5", "train.micro_batch={examples=7}"]),
    ];
    for (at, (method, own)) in shapes.into_iter().enumerate() {
        let run = |name: &str, log_kl: bool| {
            let run = dir.path().join(format!("{method}-{at}-{name}"));
            let settings = [format!("align.method={method}"), format!("rollout.log_kl={log_kl}")];
            let settings: Vec<&str> = settings.iter().map(String::as_str).chain(["train.batch_size=24"]).collect();
            setpoint_owned(&arguments(&data, &run, 2, &[SHORT, &settings, own])).ok();
            run
        };
        let (scored, at_once) = (run("scored", true), run("at-once", false));
        let steps = |run: &Path, name: &str| -> Vec<f64> {
            metrics(run)
                .iter()
                .filter(|line| line.contains_key("loss"))
                .map(|line| line[name].as_f64().unwrap())
                .collect()
        };
        // Later steps learn from rounding.
        for name in ["loss", "grad_norm", "entropy"] {
            let (found, expected) = (steps(&at_once, name), steps(&scored, name));
            assert_eq!((found.len(), expected.len()), (2, 2));
            let close = (found[0] - expected[0]).abs() < 1e-4 * (0.1 + expected[0].abs());
            assert!(close, "{method} {at}, {name}: {}, with a pass before it {}", found[0], expected[0]);
        }
        assert!(steps(&at_once, "val/ratio").iter().all(|ratio| *ratio == 1.0));
        let difference = "sampling/sampling_logp_difference/mean";
        assert!(steps(&at_once, difference).iter().all(|nats| *nats < 1e-4));
        assert!(by_round(&scored, difference).iter().all(|nats| *nats < 1e-4));
        for line in lines(&at_once.join("metrics.jsonl")).iter().filter(|line| line.contains_key("round")) {
            assert!(!line.contains_key(difference) && line.contains_key("objective/entropy"), "{line:?}");
        }
    }
}

#[test]
fn samples_are_of_the_likeliest_tokens_if_the_settings_say_so() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    for method in ["dpo", "dro", "kto"] {
        let align = format!("align.method={method}");
        // Nats that a sampled token has under the policy, with the opposite sign.
        let nats = |cut: &[&str]| {
            let run = dir.path().join(format!("{method}-{}", cut.join("-")));
            setpoint_owned(&arguments(&data, &run, 1, &[SHORT, &[&align], cut])).ok();
            for row in lines(&path_of(&run, 0)) {
                let [own, sampling] = ["logps", "sampling_logps"].map(|name| row[name].as_array().unwrap());
                let close = |(a, b): (&Value, &Value)| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-3;
                assert!(own.iter().zip(sampling).all(close), "{method} {cut:?}: {row:?}");
            }
            by_round(&run, "objective/entropy")[0] / by_round(&run, "completions/mean_length")[0]
        };
        let all = nats(&[]);
        for cut in ["rollout.top_k=2", "rollout.top_p=0.5"] {
            let found = nats(&[cut]);
            assert!(found < all - 0.1, "{method}, {cut}: {found}, of all tokens {all}");
        }
    }
}

#[cfg(unix)]
#[test]
fn several_sources_of_rewards_are_added_up_by_their_weights() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let run = dir.path().join("run");
    let two = r#"reward.command.run=["sh", "-c", "while read -r line; do echo '{\"score\": 2}'; done"]"#;
    let weights = &[two, "reward.weights={ rule = 0.5, command = 3.0 }", "reward.missing_stop_penalty=1"][..];
    setpoint_owned(&arguments(&data, &run, 2, &[SHORT, &["align.method=grpo"], weights])).ok();
    for row in (0..2).flat_map(|round| lines(&path_of(&run, round))) {
        let of = |list: &Value, j: usize| list[j].as_f64().unwrap();
        for (j, response) in row["responses"].as_array().unwrap().iter().enumerate() {
            let rule = -0.05 * response.as_str().unwrap().chars().count() as f64;
            let cut = if row["stopped"][j] == json!(true) { 0.0 } else { 1.0 };
            assert!((of(&row["source_rewards"]["rule"], j) - rule).abs() < 1e-12, "{row:?}");
            assert_eq!(of(&row["source_rewards"]["command"], j), 2.0);
            assert!((of(&row["rewards"], j) - (0.5 * rule + 6.0 - cut)).abs() < 1e-12, "{row:?}");
        }
    }
    for round in 0..2 {
        let of = |name: &str| by_round(&run, name)[round];
        let shaped = of("reward") + of("completions/clipped_ratio");
        assert_eq!(of("rewards/command/mean"), 2.0);
        assert!((0.5 * of("rewards/rule/mean") + 6.0 - shaped).abs() < 1e-9);
    }
}

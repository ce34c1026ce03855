//! `setpoint align --rounds N`: the policy is trained on its own samples, and a run that is killed at any moment goes on exactly.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::endpoint::{Action, Server};
use super::fixture::{Ran, command, file, model, setpoint, setpoint_owned};
use super::several_devices::close;

/// Prompts alone.
pub fn prompts(count: usize) -> String {
    let row = |i: usize| json!({"prompt": [{"role": "user", "content": format!("How much is {i} and two?")}]});
    (0..count).map(|i| row(i).to_string() + "\n").collect()
}

/// A reward for short responses.
pub const SHORT: &[&str] =
    &["reward.rule.kind=length", "reward.rule.unit=chars", "reward.rule.max=0", "reward.rule.penalty=0.05"];

/// Arguments of a small training in rounds.
pub fn arguments(data: &str, run: &Path, rounds: usize, settings: &[&[&str]]) -> Vec<String> {
    let mut arguments: Vec<String> = ["align", "--quiet", "--data", data].map(String::from).into();
    arguments.extend(["--model".into(), model().display().to_string()]);
    arguments.extend(["--run".into(), run.display().to_string(), "--rounds".into(), rounds.to_string()]);
    let common: &[&str] = &[
        "samples.prompts=0",
        "rollout.prompts=6",
        "rollout.samples=4",
        "rollout.max_new_tokens=8",
        "train.batch_size=6",
        "train.learning_rate=3e-3",
        "train.schedule.kind=constant",
    ];
    for setting in common.iter().chain(settings.iter().copied().flatten()) {
        arguments.extend(["--set".to_owned(), (*setting).to_owned()]);
    }
    arguments
}

pub fn lines(path: &Path) -> Vec<Map<String, Value>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Lines of `metrics.jsonl` without the fields that hold times.
pub fn metrics(run: &Path) -> Vec<Map<String, Value>> {
    let mut lines = lines(&run.join("metrics.jsonl"));
    lines.iter_mut().for_each(|line| line.retain(|key, _| !key.contains("second") && key != "eps"));
    lines
}

/// A number of each round.
pub fn by_round(run: &Path, name: &str) -> Vec<f64> {
    metrics(run).iter().filter(|line| line.contains_key("round")).map(|line| line[name].as_f64().unwrap()).collect()
}

pub fn path_of(run: &Path, round: usize) -> PathBuf {
    run.join(format!("rollouts/round-{round:04}.jsonl"))
}

#[test]
fn online_methods_raise_the_reward_of_a_rule() {
    let (dir, data) = file("prompts.jsonl", &prompts(12));
    for (name, settings) in [
        ("dpo", &["align.method=dpo"][..]),
        // A character is then 2.5 nats.
        ("dro", &["align.method=dro", "align.beta=0.02"]),
        ("astar", &["align.method=dro", "align.beta=0.02", "align.log_z0=per_prompt", "reference=previous"]),
        ("kto", &["align.method=kto"]),
        ("qrpo", &["align.method=qrpo", "reference=previous"]),
        ("rebel", &["align.method=rpo", "reference=previous"]),
        ("rloo", &["align.method=rloo"]),
        ("grpo", &["align.method=grpo"]),
        ("reinforce", &["align.method=reinforce_pp"]),
        ("ppo", &["align.method=ppo", "align.lambda=1", "align.value_learning_rate=1e-3"]),
    ] {
        let run = dir.path().join(name);
        let settings =
            &[settings, SHORT, &["rollout.epochs_per_round=2", "rollout.prompts=12", "train.learning_rate=0.03"]];
        setpoint_owned(&arguments(&data, &run, 12, settings)).ok();
        let rewards = by_round(&run, "reward");
        assert_eq!(rewards.len(), 12, "{name}");
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (before, after) = (mean(&rewards[..2]), mean(&rewards[10..]));
        // Responses have eight tokens of a few characters: a character costs 0.05.
        assert!(after > before + 0.2, "{name}: {rewards:?}");
        assert!(run.join("model/model.safetensors").is_file());
    }
}

#[test]
fn a_round_is_stored_as_rows_that_other_jobs_read() {
    let (dir, data) = file("prompts.jsonl", &prompts(9));
    let run = dir.path().join("run");
    let penalty = &["reward.missing_stop_penalty=3", "align.method=dpo"][..];
    setpoint_owned(&arguments(&data, &run, 2, &[SHORT, penalty])).ok();
    let mut asked: Vec<u64> = Vec::new();
    for round in 0..2 {
        let rows = lines(&path_of(&run, round));
        assert_eq!(rows.len(), 6);
        let mut tokens = 0.0;
        for row in &rows {
            let list = |name: &str| row[name].as_array().unwrap_or_else(|| panic!("{name}")).clone();
            let (responses, stopped) = (list("responses"), list("stopped"));
            for (j, response) in responses.iter().enumerate() {
                let text = response.as_str().unwrap();
                let cut = if stopped[j] == json!(true) { 0.0 } else { 3.0 };
                let reward = -0.05 * text.chars().count() as f64 - cut;
                assert!((list("rewards")[j].as_f64().unwrap() - reward).abs() < 1e-12, "{row:?}");
                let ids = list("tokens")[j].as_array().unwrap().len();
                assert!(ids == 8 || (ids < 8 && cut == 0.0), "{row:?}");
                tokens += ids as f64;
                // The generator and training compute the same log-probabilities, but for rounding.
                let [own, sampling] = ["logps", "sampling_logps"].map(|name| list(name)[j].as_f64().unwrap());
                assert!((own - sampling).abs() < 1e-3 && own < 0.0, "{own} {sampling}");
            }
            asked.push(row["row"].as_u64().unwrap());
        }
        assert_eq!(by_round(&run, "rollout/tokens")[round], tokens);
    }
    // By the names of trl's online DPO, and of the source of the rewards, which knows no penalty.
    for round in 0..2 {
        let of = |name: &str| by_round(&run, name)[round];
        let cut = of("completions/clipped_ratio");
        assert!((of("val/contain_eos_token") - (1.0 - cut)).abs() < 1e-12 && of("objective/scores_margin") > 0.0);
        assert!((of("rewards/rule/mean") - of("reward") - 3.0 * cut).abs() < 1e-9);
    }
    // The policy is its own reference at first, and moves.
    let kl = by_round(&run, "objective/kl");
    assert!(kl[0].abs() < 1e-6 && kl[1] != 0.0, "{kl:?}");
    // The settings of the run have the size of its parts.
    let settings: toml::Table = std::fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(settings["rollout"]["chunk_rows"].as_integer(), Some(64));
    // Nine prompts are asked before one is asked again.
    asked[..9].sort_unstable();
    assert_eq!(asked[..9], [0, 1, 2, 3, 4, 5, 6, 7, 8]);

    let stored = path_of(&run, 1).display().to_string();
    let out = dir.path().join("again.jsonl");
    let rule = ["rule.kind=length", "rule.unit=chars", "rule.max=0", "rule.penalty=0.05"];
    let mut annotate = vec!["annotate", "--quiet", "--data", &stored, "--output", out.to_str().unwrap()];
    rule.iter().for_each(|setting| annotate.extend(["--set", setting]));
    setpoint(&annotate).ok();
    for (row, again) in lines(&path_of(&run, 1)).iter().zip(lines(&out)) {
        assert_eq!(row["responses"], again["responses"]);
    }
    let offline = dir.path().join("offline").display().to_string();
    let policy = model().display().to_string();
    let mut align = vec!["align", "--quiet", "--model", &policy, "--data", &stored, "--run", &offline];
    ["align.method=dpo", "train.max_steps=1", "samples.prompts=0"].iter().for_each(|set| align.extend(["--set", set]));
    setpoint(&align).ok();
}

/// The same numbers in the order of their names: which comes first in a line depends on the first micro-batch.
fn sorted(line: &Map<String, Value>) -> Map<String, Value> {
    let mut entries: Vec<_> = line.clone().into_iter().collect();
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    entries.into_iter().collect()
}

#[test]
fn micro_batches_and_devices_leave_the_numbers_as_they_are() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    for method in ["dpo", "dro", "kto", "rloo", "grpo", "ppo"] {
        let run = |name: &str, more: &[&str], device: &str| {
            let run = dir.path().join(format!("{method}-{name}"));
            let method = format!("align.method={method}");
            // With more passes, rounding is learned from.
            let mut arguments = arguments(&data, &run, 1, &[SHORT, &[&method, "rollout.epochs_per_round=1"], more]);
            arguments.extend(["--device".into(), device.into()]);
            setpoint_owned(&arguments).ok();
            run
        };
        let whole = run("whole", &["train.micro_batch={examples=24}"], "flex");
        let single = run("single", &["train.micro_batch={examples=1}"], "flex");
        let packed = run("packed", &["train.micro_batch={tokens=64}"], "flex");
        let several = run("several", &["train.micro_batch={examples=24}"], "flex,flex");
        let text =
            |run: &Path| lines(&path_of(run, 0)).into_iter().map(|row| row["tokens"].clone()).collect::<Vec<_>>();
        for other in [single, packed, several] {
            assert_eq!(text(&whole), text(&other), "{method}");
            let (expected, found) = (metrics(&whole), metrics(&other));
            assert_eq!(found.len(), expected.len(), "{method}");
            for (found, expected) in found.iter().zip(&expected) {
                close(&format!("{method}, {}", other.display()), &sorted(found), &sorted(expected));
            }
        }
    }
}

/// Starts a run, kills it as soon as a condition holds, goes on, and so forth; how often it was killed.
pub fn kill_and_resume(run: &Path, arguments: &[String], conditions: &[&dyn Fn(&Path) -> bool]) -> usize {
    let mut kills = 0;
    for condition in conditions.iter().copied().map(Some).chain([None]) {
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if run.join("config.toml").exists() {
            arguments.push("--resume");
        }
        let mut child = command(&arguments).spawn().unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "after {kills} kills: {status}");
                break;
            }
            if condition.is_some_and(|holds| holds(run)) {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(300), "it hangs after {kills} kills");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    kills
}

/// Everything that a run leaves and that holds no times, by name.
fn left(run: &Path, weights: &str) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![format!("model/{weights}"), "responses.jsonl".to_owned()];
    let value = format!("value/{weights}");
    names.extend(Some(value).filter(|name| run.join(name).is_file()));
    let rollouts = std::fs::read_dir(run.join("rollouts")).unwrap();
    let mut rounds: Vec<String> = rollouts.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    rounds.sort();
    names.extend(rounds.into_iter().map(|name| format!("rollouts/{name}")));
    names.into_iter().map(|name| (name.clone(), std::fs::read(run.join(&name)).unwrap())).collect()
}

#[test]
fn a_run_that_is_killed_at_any_point_ends_in_the_same_bits() {
    let (dir, data) = file("prompts.jsonl", &prompts(10));
    let part = |run: &Path| run.join("rollouts/round-0000/chunk-0001.jsonl").exists();
    let other_part = |run: &Path| run.join("rollouts/round-0001/chunk-0000.jsonl").exists();
    let whole_round = |run: &Path| run.join("rollouts/round-0001.json").exists();
    // A line of the round and three steps, of which two are in a checkpoint.
    let trained = |run: &Path| lines_so_far(run) >= 4;
    // While the first round is sampled and while it is trained on, while the second is sampled, and once it is whole.
    let conditions: [&dyn Fn(&Path) -> bool; 4] = [&part, &trained, &other_part, &whole_round];
    for (name, settings) in [
        ("dpo", &["align.method=dpo"][..]),
        ("dro", &["align.method=dro", "align.beta_sigma=0.3", "align.reward_transform=center"]),
        ("per-prompt", &["align.method=dro", "align.log_z0=per_prompt"]),
        ("kto", &["align.method=kto", "rollout.keep=reload"]),
        ("qrpo", &["align.method=qrpo"]),
        ("watched", &["align.method=dpo", "watch.rule.kind=contains", "watch.rule.words=[\"e\"]"]),
        ("rebel", &["align.method=rpo", "reference=previous"]),
        ("value", &["align.method=dro_v"]),
        ("rloo", &["align.method=rloo"]),
        ("grpo", &["align.method=grpo", "align.beta=0.05", "align.importance=sequence"]),
        // Its coefficient goes from round to round.
        ("reinforce", &["align.method=reinforce_pp", "align.kl_target=0.5", "align.kl_horizon=100"]),
        ("adapter", &["align.method=dpo", "adapter.rank=4"]),
        ("ppo", &["align.method=ppo", "align.value_warmup=1", "align.kl_target=0.5", "align.kl_horizon=100"]),
        (
            "ppo-adapter",
            &[
                "align.method=ppo",
                "adapter.rank=4",
                "align.reward_normalization=true",
                "align.value_learning_rate=0.01",
            ],
        ),
    ] {
        let own: &[&str] = &[
            "rollout.chunk_rows=8",
            "rollout.max_new_tokens=32",
            "rollout.epochs_per_round=3",
            "train.batch_size=3",
            "train.save_steps=2",
        ];
        let (whole, killed) = (dir.path().join(format!("{name}-whole")), dir.path().join(format!("{name}-killed")));
        let of = |run: &Path| arguments(&data, run, 3, &[settings, SHORT, own]);
        setpoint_owned(&of(&whole)).ok();
        let kills = kill_and_resume(&killed, &of(&killed), &conditions);
        assert!(kills > 1, "{name} was over before it could be killed twice");
        let has_adapter = settings.contains(&"adapter.rank=4");
        let weights = if has_adapter { "adapter_model.safetensors" } else { "model.safetensors" };
        let has_value = ["value", "ppo", "ppo-adapter"].contains(&name);
        assert_eq!(whole.join("value").join(weights).is_file(), has_value, "{name}");
        let (expected, found) = (left(&whole, weights), left(&killed, weights));
        let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{name}");
        for ((file, found), (_, expected)) in found.iter().zip(&expected) {
            assert!(found == expected, "{name}: {file} differs");
        }
        assert_eq!(metrics(&killed), metrics(&whole), "{name}");
    }
}

/// Whole lines of `metrics.jsonl`; none while it is not there.
fn lines_so_far(run: &Path) -> usize {
    std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

#[test]
fn a_judge_is_asked_once_about_each_response() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let server = Server::start(|_, request| {
        let text = request.body["messages"][0]["content"].as_str().unwrap();
        Action::Say(json!({"score": text.len() % 17}).to_string())
    });
    let base = format!("reward.generative.judge.base_url={}", server.base_url);
    let judge: &[&str] = &[
        &base,
        "reward.generative.judge.api_key_env=",
        "reward.generative.judge.model=j",
        "reward.generative.judge.concurrency=1",
        "reward.generative.field=score",
        "align.method=dpo",
        "rollout.chunk_rows=8",
        "train.save_steps=1",
    ];
    let run = dir.path().join("run");
    let first = |run: &Path| run.join("rollouts/round-0000/chunk-0000.jsonl").exists();
    let later = |run: &Path| run.join("rollouts/round-0001.json").exists();
    let conditions: [&dyn Fn(&Path) -> bool; 2] = [&first, &later];
    let kills = kill_and_resume(&run, &arguments(&data, &run, 3, &[judge]), &conditions);
    let asked = server.arrived.lock().unwrap();
    let mut distinct: Vec<String> = asked.iter().map(|request| request.body.to_string()).collect();
    distinct.sort();
    distinct.dedup();
    // An answer that was on its way when the process was killed is lost.
    assert!(asked.len() <= distinct.len() + kills, "{} requests, {} different ones", asked.len(), distinct.len());
    for round in 0..3 {
        for row in lines(&path_of(&run, round)) {
            assert!(row["rewards"].as_array().unwrap().iter().all(Value::is_number), "{row:?}");
        }
    }
}

#[test]
fn a_changed_round_is_refused_and_a_missing_one_named() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let run = dir.path().join("run");
    let settings: &[&str] =
        &["align.method=dpo", "rollout.epochs_per_round=4", "train.batch_size=2", "train.save_steps=1"];
    let arguments = arguments(&data, &run, 2, &[SHORT, settings]);
    let mut child = command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    let started = Instant::now();
    // In the middle of the first round, with a checkpoint.
    while lines_so_far(&run) < 4 {
        assert!(started.elapsed() < Duration::from_secs(300));
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let resume = || -> Ran { setpoint_owned(&[&arguments[..], &["--resume".to_owned()]].concat()) };
    let newest = if path_of(&run, 1).exists() { 1 } else { 0 };
    let path = path_of(&run, newest);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"rewards\":[-", "\"rewards\":[-9", 1)).unwrap();
    resume().fails(1, &["is not as the run left it", "restore the file"]);
    std::fs::write(&path, text).unwrap();
    resume().ok();
}

/// The log-probabilities of the generator and of the path that training takes are those of the policy that sampled, at its temperature.
#[test]
fn responses_are_as_probable_as_the_policy_that_sampled_them_makes_them() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let per_prompt = ["align.method=dro", "align.log_z0=per_prompt"];
    for (name, settings) in [("rloo", &["align.method=rloo"][..]), ("dro", &per_prompt), ("dpo", &["align.method=dpo"])]
    {
        for temperature in ["0.5", "1.0", "2.0"] {
            let run = dir.path().join(format!("{name}-{temperature}"));
            let at = format!("rollout.temperature={temperature}");
            setpoint_owned(&arguments(&data, &run, 2, &[settings, SHORT, &[&at]])).ok();
            for row in (0..2).flat_map(|round| lines(&path_of(&run, round))) {
                let numbers =
                    |name: &str| row[name].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect::<Vec<_>>();
                let (own, sampling) = (numbers("logps"), numbers("sampling_logps"));
                assert!(own.iter().zip(&sampling).all(|(a, b)| (a - b).abs() < 1e-3), "{name} {temperature}: {row:?}");
            }
        }
    }
    // A token of hotter samples has a greater entropy under the policy that drew it.
    let entropy = |t: &str| {
        let run = dir.path().join(format!("rloo-{t}"));
        by_round(&run, "objective/entropy")[0] / by_round(&run, "completions/mean_length")[0]
    };
    assert!(entropy("0.5") < entropy("2.0"), "{} {}", entropy("0.5"), entropy("2.0"));
    // The policy before training is its own reference, at any temperature.
    for temperature in ["0.5", "1.0", "2.0"] {
        assert!(by_round(&dir.path().join(format!("rloo-{temperature}")), "objective/kl")[0].abs() < 1e-6);
    }
}

#[test]
fn chunks_are_dealt_to_devices_and_are_the_same_on_each() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let made = |device: &str| {
        let run = dir.path().join(device);
        let chunks: &[&str] = &["align.method=grpo", "align.beta=0.1", "rollout.chunk_rows=8", "train.max_steps=1"];
        let mut arguments = arguments(&data, &run, 1, &[SHORT, chunks]);
        arguments.extend(["--device".into(), device.into()]);
        setpoint_owned(&arguments).ok();
        std::fs::read(path_of(&run, 0)).unwrap()
    };
    // Three chunks on one, two and four devices.
    let one = made("flex");
    assert!(one == made("flex,flex") && one == made("flex,flex,flex,flex"));
}

#[test]
fn responses_of_old_rounds_go_and_a_resumed_run_ends_in_the_same_bits() {
    let (dir, data) = file("prompts.jsonl", &prompts(10));
    // The coefficient of the KL divergence and the moments of the rewards go from round to round.
    let own: &[&str] = &[
        "align.method=reinforce_pp",
        "align.kl_target=0.5",
        "align.kl_horizon=100",
        "rollout.max_new_tokens=24",
        "train.batch_size=12",
        "train.save_steps=1",
    ];
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    setpoint_owned(&arguments(&data, &whole, 5, &[own, SHORT])).ok();
    let keeps: &[&str] = &["rollout.keep_rounds=1"];
    let third = |run: &Path| run.join("rollouts/round-0002.json").exists();
    let fifth = |run: &Path| run.join("rollouts/round-0004.json").exists();
    let conditions: [&dyn Fn(&Path) -> bool; 2] = [&third, &fifth];
    let kills = kill_and_resume(&killed, &arguments(&data, &killed, 5, &[own, SHORT, keeps]), &conditions);
    assert!(kills > 0, "it was over before it could be killed");
    let weights = |run: &Path| std::fs::read(run.join("model/model.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&killed));
    assert_eq!(metrics(&killed), metrics(&whole));
    assert!(path_of(&killed, 0).exists() && path_of(&killed, 4).exists(), "the first round and the last one stay");
    assert!(!path_of(&killed, 1).exists() && !path_of(&killed, 2).exists(), "no checkpoint needs them");
    assert!((0..5).all(|round| path_of(&whole, round).exists()));
}

#[test]
fn equal_rewards_make_no_response_desirable() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let rewarded = |name: &str, words: &str, more: &[&str]| {
        let run = dir.path().join(name);
        let rule = format!("reward.rule.words=[\"{words}\"]");
        let own: &[&str] = &["align.method=kto", "reward.rule.kind=contains", &rule];
        let ran = setpoint_owned(&arguments(&data, &run, 1, &[own, more])).ok();
        (ran.stderr, by_round(&run, "rollout/examples")[0])
    };
    // No response has the word: the rewards of each prompt are equal.
    let (said, examples) = rewarded("equal", "zzzzzz", &[]);
    assert!(said.contains("round 0 teaches nothing") && examples == 0.0, "{said}, {examples}");
    // A bound says of each alone that it is bad.
    let (said, examples) = rewarded("bound", "zzzzzz", &["align.desirable={ above = 0.5 }"]);
    assert!(!said.contains("teaches nothing") && examples == 24.0, "{said}, {examples}");
}

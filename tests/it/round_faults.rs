//! Rounds when something goes wrong on the way: judges that are away, commands that are slow, prompts without room.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use super::endpoint::{Action, Server};
use super::fixture::{Ran, file, setpoint_owned};
use super::rounds::{SHORT, arguments, by_round, path_of, prompts};

/// Settings of a judge on loopback that scores by a field.
fn judge(server: &Server) -> Vec<String> {
    let settings = ["api_key_env=", "model=j", "concurrency=1"].map(|setting| format!("judge.{setting}"));
    let own = [format!("judge.base_url={}", server.base_url), "field=score".to_owned()];
    settings.into_iter().chain(own).map(|setting| format!("reward.generative.{setting}")).collect()
}

/// Arguments of a run whose rewards come from a judge.
fn judged(data: &str, run: &Path, server: &Server, more: &[&str]) -> Vec<String> {
    let own = judge(server);
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    arguments(data, run, 1, &[&own, &["align.method=dpo", "rollout.chunk_rows=8"], more])
}

/// Goes on with a run, with further settings.
fn resumed(arguments: &[String], settings: &[&str]) -> Ran {
    let further = settings.iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]);
    setpoint_owned(&arguments.iter().cloned().chain(["--resume".to_owned()]).chain(further).collect::<Vec<_>>())
}

#[test]
fn a_judge_that_was_away_is_asked_again_about_what_it_missed() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let (is_back, useless) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (back, missed) = (Arc::clone(&is_back), Arc::clone(&useless));
    let server = Server::start(move |number, request| {
        if number % 2 == 1 && !back.load(Ordering::SeqCst) {
            missed.fetch_add(1, Ordering::SeqCst);
            return Action::Say("It depends.".to_owned());
        }
        let text = request.body["messages"][0]["content"].as_str().unwrap();
        Action::Say(json!({"score": text.len() % 17}).to_string())
    });
    let run = dir.path().join("run");
    let skipping = judged(&data, &run, &server, &["reward.generative.judge.on_failure=skip"]);
    setpoint_owned(&skipping)
        .fails(1, &["have no reward; at most a tenth may have none", "--resume samples these parts"]);
    is_back.store(true, Ordering::SeqCst);
    resumed(&skipping, &[]).ok();

    let asked: Vec<String> =
        server.arrived.lock().unwrap().iter().map(|request| request.body.to_string()).collect::<Vec<_>>();
    let distinct: HashSet<&String> = asked.iter().collect();
    let useless = useless.load(Ordering::SeqCst);
    assert!(useless > 1, "{useless} of {}", asked.len());
    assert_eq!(asked.len(), distinct.len() + useless, "what had a score is not asked about again");
    // The round is that of a judge that was there all the time.
    let whole = dir.path().join("whole");
    setpoint_owned(&judged(&data, &whole, &server, &["reward.generative.judge.on_failure=skip"])).ok();
    assert!(std::fs::read(path_of(&run, 0)).unwrap() == std::fs::read(path_of(&whole, 0)).unwrap());
}

#[test]
fn a_judge_without_its_key_is_told_of_before_anything_is_sampled() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let server = Server::start(|_, _| Action::Say("{\"score\": 1}".to_owned()));
    for (section, more) in [("reward", &[][..]), ("watch", SHORT)] {
        let run = dir.path().join(section);
        let own: Vec<String> = judge(&server).iter().map(|setting| setting.replacen("reward", section, 1)).collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let key = format!("{section}.generative.judge.api_key_env=SETPOINT_TEST_NO_SUCH_KEY");
        let said = format!("--set {section}.generative.judge.api_key_env=");
        setpoint_owned(&arguments(&data, &run, 1, &[&own, &["align.method=dpo", &key], more]))
            .fails(1, &["SETPOINT_TEST_NO_SUCH_KEY is not set", &said]);
        assert!(!run.exists(), "{section}: nothing was begun");
    }
    assert_eq!(server.count(), 0);
}

#[test]
fn the_way_out_of_a_judge_without_a_score_is_one_that_a_run_can_go_on_with() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let server = Server::start(|number, request| {
        let text = request.body["messages"][0]["content"].as_str().unwrap();
        let score = json!({"score": text.len() % 17}).to_string();
        Action::Say(if number == 3 { "It depends.".to_owned() } else { score })
    });
    let run = dir.path().join("run");
    let arguments = judged(&data, &run, &server, &[]);
    setpoint_owned(&arguments).fails(1, &["round 0: ", "--set reward.generative.judge.on_failure=skip"]);
    resumed(&arguments, &["reward.generative.min=0"]).fails(2, &["`reward.generative.min`"]);
    resumed(&arguments, &["reward.generative.judge.on_failure=skip"]).ok();
    assert_eq!(by_round(&run, "rollout/unscored"), [0.0]);
}

#[cfg(unix)]
#[test]
fn a_run_whose_command_was_too_slow_goes_on_with_more_time() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let (run, script, cured) = (dir.path().join("run"), dir.path().join("score.sh"), dir.path().join("cured"));
    // It is quick about the 24 responses of the first round.
    let slow = format!("[ -e {} ] || [ $n -le 24 ] || sleep 60", cured.display());
    let text =
        format!("n=0\nwhile read -r line; do\n  n=$((n+1)); {slow}; echo \"{{\\\"score\\\": $((n % 3))}}\"\ndone\n");
    std::fs::write(&script, text).unwrap();
    let command = format!("reward.command.run=[\"sh\", \"{}\"]", script.display());
    let own: &[&str] = &["align.method=dpo", &command, "reward.command.timeout_seconds=5"];
    let arguments = arguments(&data, &run, 2, &[own]);
    setpoint_owned(&arguments)
        .fails(1, &["round 1: ", "it took longer than 5 s", "set reward.command.timeout_seconds, or reward.command."]);
    let before = std::fs::read(path_of(&run, 0)).unwrap();
    std::fs::write(&cured, "").unwrap();
    // What is asked and how many at once decides the rewards; how long is waited does not.
    resumed(&arguments, &["reward.command.batch=3"]).fails(2, &["`reward.command.batch`"]);
    resumed(&arguments, &["reward.command.timeout_seconds=90", "rollout.keep_rounds=3"]).ok();
    assert!(std::fs::read(path_of(&run, 0)).unwrap() == before, "the first round is not sampled again");
    assert_eq!(by_round(&run, "rollout/tokens").len(), 2);
}

#[test]
fn equal_rewards_are_a_sign_for_methods_that_compare_responses_alone() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let said = |method: &str| {
        let run = dir.path().join(method);
        let method = format!("align.method={method}");
        // No response has the word.
        let rule: &[&str] = &["reward.rule.kind=contains", "reward.rule.words=[\"zzzzzz\"]", "rollout.samples=2"];
        setpoint_owned(&arguments(&data, &run, 1, &[&[&method], rule])).ok().stderr
    };
    const SIGN: &str = "have the reward of all others to their prompt";
    assert!(said("grpo").contains(SIGN));
    for method in ["ppo", "reinforce_pp"] {
        let said = said(method);
        assert!(!said.contains(SIGN), "{method}: {said}");
    }
}

#[test]
fn the_dropout_of_an_adapter_is_left_behind_by_methods_that_train_the_policy_that_samples() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let dpo: &[&str] = &["align.method=dpo", "adapter.rank=2", "adapter.dropout=0.5"];
    setpoint_owned(&arguments(&data, &first, 1, &[SHORT, dpo])).ok();
    let path = format!("adapter.path={}", first.join("model").display());
    let with = |more: &[&str]| {
        let own: &[&str] = &["align.method=rloo", &path, "rollout.epochs_per_round=2", "train.learning_rate=0.03"];
        setpoint_owned(&arguments(&data, &second, 3, &[SHORT, own, more]))
    };
    with(&[]).fails(2, &["`rloo` trains the policy that samples", "set `adapter.dropout` to 0"]);
    let ran = with(&["adapter.dropout=0"]).ok();
    assert!(!ran.stderr.contains("the mean ratio of the policy to itself"), "{ran:#?}");
}

#[test]
fn a_prompt_without_room_for_a_response_is_left_out_or_named() {
    let long = "How much is it? ".repeat(30);
    let row = json!({"prompt": [{"role": "user", "content": long}]});
    let (dir, data) = file("prompts.jsonl", &format!("{}{row}\n", prompts(6)));
    let try_out = |more: &[&str]| {
        let own: &[&str] = &["align.method=dpo", "encode.max_length=40"];
        let mut arguments = arguments(&data, &dir.path().join("run"), 2, &[SHORT, own, more]);
        arguments.push("--dry-run".into());
        setpoint_owned(&arguments)
    };
    let plan = try_out(&[]).ok().stdout;
    assert!(plan.contains("data      6 prompts (tokens: min "), "{plan}");
    try_out(&["encode.long_rows=error"])
        .fails(1, &["prompts.jsonl:7: the prompt has ", "40 tokens (encode.max_length)", "encode.long_rows"]);
}

#[test]
fn settings_without_an_effect_in_rounds_are_named() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let said = |more: &[&str]| {
        let mut arguments = arguments(&data, &dir.path().join("run"), 2, &[SHORT, &["align.method=dpo"], more]);
        arguments.push("--dry-run".into());
        setpoint_owned(&arguments).ok().stderr
    };
    for setting in ["encode.response_end=template", "encode.boundary=rendered"] {
        let (said, name) = (said(&[setting]), setting.split_once('=').unwrap().0);
        assert!(said.contains(&format!("{name} has no effect in rounds")), "{said}");
    }
    assert!(said(&["train.eval_steps=2"]).contains("train.eval_steps has no effect"));
    assert!(!said(&[]).contains("no effect"));
}

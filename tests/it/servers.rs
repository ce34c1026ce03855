//! Servers that generate in place of this program: for `generate`, for the samples of a reference and for rounds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use serde_json::{Value, json};
use setpoint_transformer::{CausalLm, Finish, GenerationConfig, LoadOptions, generate};

use super::endpoint::{Action, Arrived, Server};
use super::fixture::{Ran, command, file, model, rewarded_rows, setpoint, setpoint_owned};
use super::rounds::{SHORT, arguments, by_round, kill_and_resume, lines, path_of, prompts};

/// The key of the server in these tests.
const KEY: (&str, &str) = ("SETPOINT_TEST_SERVER_KEY", "sk-never/write+me=");

/// An answer of a completions endpoint. Every third is cut.
fn answer(request: &Arrived) -> Value {
    let seed = request.body["seed"].as_u64().unwrap();
    let reason = if seed.is_multiple_of(3) { "length" } else { "stop" };
    let text = ["The sum is four.", "Ask me later.", "Monday.", "The sum is six."][seed as usize % 4];
    json!({
        "choices": [{"index": 0, "text": text, "finish_reason": reason, "logprobs": null}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14},
    })
}

/// Settings of the server as arguments.
fn settings(section: &str, server: &Server, more: &[&str]) -> Vec<String> {
    let own = ["model=policy".to_owned(), format!("base_url={}", server.base_url), "retries=1".to_owned()];
    let all = own.into_iter().chain(more.iter().map(|setting| (*setting).to_owned()));
    all.flat_map(|setting| ["--set".to_owned(), format!("{section}.{setting}")]).collect()
}

fn ran(arguments: &[String]) -> Ran {
    let mut command = command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    Ran::of(&command.env(KEY.0, KEY.1).output().unwrap())
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

/// The requests without repetitions.
fn distinct(server: &Server) -> (usize, usize) {
    let asked = server.arrived.lock().unwrap();
    let mut distinct: Vec<String> = asked.iter().map(|request| request.body.to_string()).collect();
    distinct.sort();
    distinct.dedup();
    (asked.len(), distinct.len())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn generate_writes_what_the_server_says_and_asks_nothing_twice() {
    let (dir, data) = file("prompts.jsonl", &prompts(8));
    let begun = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&begun);
    // A request of the second part finds the key refused, as it would be when a budget is used up.
    let server = Server::start(move |_, request| match seen.fetch_add(1, Ordering::SeqCst) {
        20 => Action::Status(401, String::new(), json!({"error": format!("bad key {}", KEY.1)}).to_string()),
        _ => Action::Json(answer(request)),
    });
    let output = dir.path().join("out.jsonl");
    let named = output.display().to_string();
    let policy = model().display().to_string();
    let mut arguments = owned(&["generate", "--model", &policy, "--data", &data, "--output", &named]);
    arguments.extend(owned(&[
        "--set",
        "generate.samples=3",
        "--set",
        "generate.temperature=0.7",
        "--set",
        "generate.batch_size=1",
    ]));
    arguments.extend(settings("server", &server, &["concurrency=1", &format!("api_key_env={}", KEY.0)]));
    let failed = ran(&arguments);
    let said = failed.stderr.clone();
    failed.fails(1, &["the server at http://127.0.0.1", "cannot be asked: status 401"]);
    arguments.push("--continue".to_owned());
    let done = ran(&arguments).ok();
    assert!(done.stderr.contains("server: ") && done.stderr.contains("more from the cache"), "{done:#?}");

    let rows = lines(&output);
    assert_eq!(rows.len(), 8);
    for row in &rows {
        let texts: Vec<&str> = row["responses"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        assert_eq!(texts.len(), 3);
        assert!(texts.iter().all(|text| text.ends_with('.')), "{texts:?}");
    }
    // The first part has six prompts. 24 answers, and the one that was refused, which is asked for again.
    assert_eq!(distinct(&server), (25, 24));
    let asked = server.arrived.lock().unwrap();
    for request in asked.iter() {
        assert!(request.head.starts_with("POST /v1/completions "), "{}", request.head);
        assert!(request.head.contains(&format!("Bearer {}", KEY.1)));
        let body = &request.body;
        assert!(body["prompt"].as_array().is_some_and(|ids| ids.len() > 4 && ids.iter().all(Value::is_u64)), "{body}");
        // Everything that a server has defaults of its own for.
        assert_eq!((&body["temperature"], &body["top_p"], &body["top_k"]), (&json!(0.7), &json!(1.0), &json!(-1)));
        assert_eq!((&body["repetition_penalty"], &body["min_p"]), (&json!(1.0), &json!(0.0)));
    }
    for text in [said, done.stderr, done.stdout] {
        assert!(!text.contains(KEY.1), "{text}");
    }
    for path in files(dir.path()) {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains(KEY.1), "{} holds the key", path.display());
    }
}

#[test]
fn answers_of_no_use_and_missing_keys_are_named() {
    let (dir, data) = file("prompts.jsonl", &prompts(2));
    let policy = model().display().to_string();
    let try_out = |choice: Value, more: &[&str]| {
        let server = Server::start(move |_, _| Action::Json(json!({ "choices": [choice.clone()] })));
        let mut arguments = owned(&["generate", "--overwrite", "--model", &policy, "--data", &data]);
        arguments.extend(owned(&["--output", &dir.path().join("out.jsonl").display().to_string()]));
        arguments.extend(settings("server", &server, more));
        setpoint_owned(&arguments)
    };
    for (choice, said) in [
        (json!({"text": "a", "finish_reason": "abort"}), "ended by `abort`"),
        (json!({"text": "a"}), "does not say why it ended"),
        (json!({"text": "a", "finish_reason": "stop", "token_ids": [4_000_000]}), "the server has another model"),
        (json!({"text": "", "finish_reason": "length"}), "it is empty"),
    ] {
        try_out(choice, &[]).fails(1, &["prompts.jsonl", ": the server at http://127.0.0.1:", said]);
    }
    try_out(json!({}), &["api_key_env=SETPOINT_TEST_UNSET"])
        .fails(1, &["SETPOINT_TEST_UNSET", "the key of the server at http"]);
    // Nothing listens there.
    let gone = &["base_url=http://127.0.0.1:9/v1", "retries=0"];
    try_out(json!({}), gone).fails(1, &["the server at http://127.0.0.1:9/v1"]);
    try_out(json!({}), &["base_url=http://user:pass@host/v1"]).fails(2, &["server.base_url"]);
}

#[test]
fn the_samples_of_a_reference_come_from_a_server() {
    let (dir, data) = file("rows.jsonl", &rewarded_rows(3));
    let server = Server::start(|_, request| Action::Json(answer(request)));
    let output = dir.path().join("sampled.jsonl");
    let (policy, named) = (model().display().to_string(), output.display().to_string());
    let mut arguments = owned(&["annotate", "--data", &data, "--output", &named, "--reference", &policy]);
    arguments.extend(owned(&["--reference-samples", "8"]));
    for rule in ["rule.kind=length", "rule.unit=chars", "rule.target=20"] {
        arguments.extend(owned(&["--set", rule]));
    }
    arguments.extend(settings("reference.server", &server, &[]));
    setpoint_owned(&arguments).ok();
    for row in lines(&output) {
        let texts = row["reference_responses"].as_array().unwrap();
        assert_eq!((texts.len(), row["reference_rewards"].as_array().unwrap().len()), (8, 8));
        assert!(texts.iter().all(|text| text.as_str().unwrap().ends_with('.')), "{row:?}");
        assert_eq!(row["reference_settings"]["server"], json!("policy"));
    }
    assert_eq!(distinct(&server), (24, 24));
    // Other settings of the connection change nothing.
    arguments.extend(owned(&["--continue", "--set", "reference.server.timeout_seconds=7"]));
    assert!(setpoint_owned(&arguments).ok().stderr.contains("nothing is left to do"));
}

#[test]
fn rounds_train_on_the_responses_of_a_server_which_is_asked_once() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let server = Server::start(|_, request| Action::Json(answer(request)));
    let run = dir.path().join("run");
    let own: &[&str] = &["align.method=dpo", "rollout.chunk_rows=8", "rollout.max_new_tokens=24", "train.save_steps=1"];
    let mut arguments = arguments(&data, &run, 3, &[SHORT, own]);
    arguments.extend(settings("rollout.server", &server, &["concurrency=1"]));
    let first = |run: &Path| run.join("rollouts/round-0000/chunk-0000.jsonl").exists();
    let later = |run: &Path| run.join("rollouts/round-0001.json").exists();
    let conditions: [&dyn Fn(&Path) -> bool; 2] = [&first, &later];
    let kills = kill_and_resume(&run, &arguments, &conditions);
    let (asked, distinct) = distinct(&server);
    assert_eq!(distinct, 72, "three rounds of six prompts with four responses each");
    // An answer that was on its way when the process was killed is lost.
    assert!(asked <= distinct + kills, "{asked} requests, {kills} kills");
    let mut cut = 0;
    for row in (0..3).flat_map(|round| lines(&path_of(&run, round))) {
        let list = |name: &str| row[name].as_array().unwrap().clone();
        for ((text, stopped), ids) in list("responses").iter().zip(list("stopped")).zip(list("tokens")) {
            let text = text.as_str().unwrap();
            assert!(["four.", "later.", "Monday.", "six."].iter().any(|end| text.ends_with(end)), "{text:?}");
            // The stop token is there if the server says that the response ended.
            assert!((2..=24).contains(&ids.as_array().unwrap().len()));
            cut += usize::from(stopped == json!(false));
        }
        assert_eq!(list("sampling_logps"), Vec::<Value>::new(), "the server tells none");
        assert_eq!(list("logps").len(), 4);
    }
    assert!(cut > 0 && cut < 72, "{cut} of 72 responses are cut");
    assert!(
        !files(&run.join("rollouts")).iter().any(|path| path.ends_with("server_cache.jsonl")),
        "it goes with the parts"
    );
}

/// A server that has a model, whose folder may get other weights. It names its tokens as vLLM does.
fn live(folder: PathBuf) -> Server {
    let loaded: Mutex<Option<(Vec<u8>, CausalLm)>> = Mutex::new(None);
    Server::start(move |_, request| {
        let mut loaded = loaded.lock().unwrap();
        let weights = std::fs::read(folder.join("model.safetensors")).unwrap();
        if loaded.as_ref().is_none_or(|(known, _)| *known != weights) {
            let model = CausalLm::load(&folder, &LoadOptions::default(), &Device::flex()).unwrap().0;
            *loaded = Some((weights, model));
        }
        let (body, (_, model)) = (&request.body, loaded.as_ref().unwrap());
        let ids = |name: &str| -> Vec<u32> {
            body[name].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let sampling = GenerationConfig {
            do_sample: true,
            temperature: body["temperature"].as_f64().unwrap(),
            max_new_tokens: body["max_tokens"].as_u64().unwrap() as usize,
            stop_token_ids: ids("stop_token_ids"),
            ..GenerationConfig::default()
        };
        let found = generate(model, &[ids("prompt")], &sampling, body["seed"].as_u64().unwrap()).unwrap().remove(0);
        let reason = if found.finish == Finish::Stop { "stop" } else { "length" };
        Action::Json(json!({"choices": [{
            "index": 0, "text": "…", "finish_reason": reason, "token_ids": found.ids, "logprobs": {"token_logprobs": found.logps},
        }]}))
    })
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in files(from) {
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_server_that_is_given_the_weights_samples_from_the_policy() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let with = |name: &str, reload: &str, temperature: &str, more: &[&str]| {
        let served = dir.path().join(format!("{name}-served"));
        copy(model(), &served);
        let server = live(served.clone());
        let script = dir.path().join(format!("{name}.sh"));
        std::fs::write(&script, reload.replace("SERVED", &served.display().to_string())).unwrap();
        let run = dir.path().join(name);
        let reload = format!("rollout.reload.run=['sh', '{}']", script.display());
        let temperature = format!("rollout.temperature={temperature}");
        let own: &[&str] =
            &["align.method=grpo", "rollout.epochs_per_round=2", &reload, &temperature, "train.learning_rate=0.03"];
        let mut arguments = arguments(&data, &run, 3, &[SHORT, own, more]);
        arguments.extend(settings("rollout.server", &server, &[]));
        (setpoint_owned(&arguments), run)
    };
    let run_of = |name: &str, reload: &str, temperature: &str| with(name, reload, temperature, &[]);
    let corrected = |name: &str, mode: &str| {
        let correction = format!("rollout.correction={mode}");
        with(name, "true\n", "1.0", &[&correction, "rollout.correction_max=2"])
    };
    let copies = "cp \"$1\"/* SERVED/ && echo round $SETPOINT_ROUND >> SERVED/rounds.txt\n";
    let (ran, run) = run_of("fresh", copies, "1.0");
    ran.ok();
    let name = "sampling/sampling_logp_difference/mean";
    let fresh = by_round(&run, name);
    assert!(fresh.len() == 3 && fresh.iter().all(|difference| *difference < 1e-3), "{fresh:?}");
    let told = std::fs::read_to_string(dir.path().join("fresh-served/rounds.txt")).unwrap();
    assert_eq!(told, "round 0\nround 1\nround 2\n");
    // The model that was handed over last is the policy of the last round, not the finished one.
    let weights = |path: PathBuf| std::fs::read(path.join("model.safetensors")).unwrap();
    assert!(weights(run.join("rollouts/model")) == weights(dir.path().join("fresh-served")));
    assert!(weights(run.join("rollouts/model")) != weights(run.join("model")));

    // A command that loads nothing leaves a server that is not the policy, and the distance tells.
    let (ran, run) = run_of("stale", "true\n", "1.0");
    ran.ok();
    let stale = by_round(&run, name);
    assert!(stale[0] < 1e-3 && stale[2] > 1e-2, "{stale:?}");

    // The loss of such samples is corrected by the policy's ratio to the server; at first it is the policy.
    let (ran, run) = corrected("corrected", "token_truncate");
    ran.ok();
    let of = |name: &str| by_round(&run, &format!("sampling/importance_sampling_ratio/{name}"));
    let (low, high) = (of("min"), of("max"));
    assert!((low[0] - 1.0).abs() < 1e-3 && (high[0] - 1.0).abs() < 1e-3, "{low:?} {high:?}");
    assert!(low[2] < 0.99 && high[2] <= 2.0, "{low:?} {high:?}");
    let row = &lines(&path_of(&run, 2))[0];
    assert_eq!(row["sampling_token_logps"][0].as_array().unwrap().len(), row["tokens"][0].as_array().unwrap().len());
    assert!(weights(run.join("model")) != weights(dir.path().join("stale/model")), "another loss, another model");
    let (ran, _) = corrected("of-responses", "sequence_mask");
    ran.ok();
    // A limit that every token is above leaves nothing to learn, and a guard says so.
    let (ran, _) = with("masked", "true\n", "1.0", &["rollout.correction=token_mask", "rollout.correction_max=1e-9"]);
    let said = ran.ok().stderr;
    assert!(said.contains("round 0: 100 % of the samples are above the limit of the correction"), "{said}");

    // A server's numbers are those before the temperature: there is nothing to compare them with.
    let (ran, run) = run_of("hot", copies, "1.5");
    ran.ok();
    assert!(lines(&path_of(&run, 0)).iter().all(|row| row["sampling_logps"] == json!([])));

    let (ran, _) = run_of("broken", "echo out of memory >&2; exit 4\n", "1.0");
    ran.fails(1, &["rollout.reload: `sh ", "exit status: 4", "out of memory"]);
}

#[cfg(unix)]
#[test]
fn a_server_without_log_probabilities_cannot_be_corrected_for() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let server = Server::start(|_, request| Action::Json(answer(request)));
    let own: &[&str] = &[
        "align.method=grpo",
        "rollout.reload.run=['true']",
        "rollout.correction=sequence_mask",
        "rollout.max_new_tokens=24",
    ];
    let mut arguments = arguments(&data, &dir.path().join("run"), 1, &[SHORT, own]);
    arguments.extend(settings("rollout.server", &server, &[]));
    setpoint_owned(&arguments)
        .fails(1, &["round 0: the server at http://127.0.0.1:", "tells no log-probabilities", "rollout.correction"]);
}

#[test]
fn settings_of_servers_are_checked_before_any_work() {
    let (dir, data) = file("prompts.jsonl", &prompts(6));
    let run = dir.path().join("run");
    let mut arguments = arguments(&data, &run, 1, &[SHORT, &["align.method=dpo", "rollout.server.model=m"]]);
    arguments.extend(owned(&["--set", "rollout.server.api_key_env=SETPOINT_TEST_UNSET"]));
    setpoint_owned(&arguments)
        .fails(1, &["SETPOINT_TEST_UNSET is not set: it should hold the key of the server at http"]);
    assert!(!run.exists(), "nothing was begun");
    let policy = model().display().to_string();
    setpoint(&["annotate", "--data", &data, "--output", "x", "--set", "reference.server.model=m"])
        .fails(2, &["nothing is drawn from the reference model without a number of samples"]);
    setpoint(&["generate", "--model", &policy, "--data", &data, "--set", "server.concurrency=2"])
        .fails(2, &["server.model", "give its name as the server knows it"]);
}

//! `setpoint eval alpaca | mt-bench | tasks | compare` and the generative reward model, with a judge on loopback.

use std::path::Path;

use serde_json::{Value, json};

use super::endpoint::{Action, Server};
use super::fixture::{command, file, model, root, setpoint, shared};

/// The variable that holds the judge's key in these tests, and the key.
const KEY: (&str, &str) = ("SETPOINT_TEST_JUDGE_KEY", "sk-do-not-write-me");

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Runs a command with the judge's address and key.
#[track_caller]
fn judged(server: &Server, section: &str, arguments: &[&str]) -> super::fixture::Ran {
    let settings = [
        format!("{section}.base_url={}", server.base_url),
        format!("{section}.api_key_env={}", KEY.0),
        format!("{section}.model=judge-1"),
        format!("{section}.backoff_seconds=0.01"),
    ];
    let mut command = command(arguments);
    command.env(KEY.0, KEY.1).arg("--quiet");
    for setting in &settings {
        command.args(["--set", setting]);
    }
    super::fixture::Ran::of(&command.output().unwrap()).ok()
}

fn key_is_nowhere(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            key_is_nowhere(&entry.path());
        } else {
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
            assert!(!text.contains(KEY.1), "{} holds the key", entry.path().display());
        }
    }
}

const QUESTIONS: [&str; 3] =
    ["Which day comes after Friday?", "How much is two and two?", "How much is three and two?"];

/// Prefers the output named `m` by three to one, whatever it is.
fn first_preferred() -> Action {
    let top = json!([{"token": "m", "logprob": 0.75_f64.ln()}, {"token": "M", "logprob": 0.25_f64.ln()}]);
    Action::Json(json!({
        "choices": [{"message": {"content": "m"}, "logprobs": {"content": [{"token": "m", "top_logprobs": top}]}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1}
    }))
}

#[test]
fn alpaca_from_generation_to_a_result_that_can_be_repeated_without_paying() {
    let rows: Vec<Value> = QUESTIONS
        .iter()
        .map(|q| json!({"instruction": q, "output": "The sum is four.", "generator": "base", "dataset": "demo"}))
        .collect();
    let (dir, baseline) = file("baseline.json", &json!(rows).to_string());
    let output = dir.path().join("alpaca");
    let out = output.display().to_string();
    let server = Server::start(|i, _| match i {
        0 => Action::Status(500, String::new(), "busy".into()),
        _ => first_preferred(),
    });
    let policy = model().display().to_string();
    let arguments = [
        "eval",
        "alpaca",
        "--model",
        &policy,
        "--baseline",
        &baseline,
        "--output",
        &out,
        "--set",
        "generate.max_new_tokens=6",
        "--set",
        "generate.temperature=0",
        "--set",
        "name=tiny",
    ];
    let ran = judged(&server, "judge", &arguments);
    assert_eq!(server.count(), 4, "three pairs, one of them asked again");
    assert!(ran.stdout.contains("win rate") && ran.stderr.contains("1 attempts repeated"), "{ran:#?}");
    let annotations = read(&output.join("annotations.json"));
    for row in annotations.as_array().unwrap() {
        let preference = row["preference"].as_f64().unwrap();
        assert!((preference - 1.25).abs() < 1e-9 || (preference - 1.75).abs() < 1e-9, "{row}");
        assert_eq!(
            (&row["generator_1"], &row["generator_2"], &row["dataset"]),
            (&json!("base"), &json!("tiny"), &json!("demo"))
        );
    }
    let first = read(&output.join("result.json"));
    let manifest = &first["manifest"];
    assert_eq!(manifest["model"]["hash"].as_str().unwrap().len(), 64);
    let pinned = format!("burn = {{ version = \"={}\"", manifest["burn"].as_str().unwrap());
    assert!(std::fs::read_to_string(root().join("Cargo.toml")).unwrap().contains(&pinned), "{pinned}");
    assert_eq!((&manifest["decoding"]["temperature"], &manifest["judge"]["model"]), (&json!(0.0), &json!("judge-1")));
    assert_eq!(first["items"].as_array().unwrap().len(), 3);
    key_is_nowhere(dir.path());

    let again = judged(&server, "judge", &arguments);
    assert_eq!(server.count(), 4, "the second run is answered from the cache");
    assert!(again.stderr.contains("answers are taken from"), "{again:#?}");
    assert_eq!(read(&output.join("result.json")), first);

    // From its files alone: the outputs again, and the annotations alone.
    let outputs = output.join("model_outputs.json").display().to_string();
    let again = dir.path().join("again").display().to_string();
    let cache = format!("judge.cache={}", output.join("judge_cache.jsonl").display());
    judged(
        &server,
        "judge",
        &["eval", "alpaca", "--outputs", &outputs, "--baseline", &baseline, "--output", &again, "--set", &cache],
    );
    assert_eq!(server.count(), 4);
    let annotated = output.join("annotations.json").display().to_string();
    let rescored = dir.path().join("rescored");
    setpoint(&["eval", "alpaca", "--annotations", &annotated, "--output", &rescored.display().to_string()]).ok();
    assert_eq!(read(&rescored.join("result.json"))["scores"], first["scores"]);
    // Nobody generated here, so the two are not the same measurement, unless somebody insists.
    let compared = ["eval", "compare", &out, &rescored.display().to_string()];
    setpoint(&compared).fails(1, &["not comparable", "decoding", "--force"]);
    let forced = setpoint(&[&compared[..], &["--force"]].concat()).ok();
    assert!(forced.stdout.contains("+0.0000 [+0.0000, +0.0000]") && forced.stderr.contains("warning"), "{forced:#?}");
}

#[test]
fn an_evaluation_that_is_killed_goes_on() {
    let rows = |generator: &str| {
        let rows: Vec<Value> =
            (0..12).map(|i| json!({"instruction": format!("task {i}"), "output": format!("{generator} {i}"), "generator": generator})).collect();
        json!(rows).to_string()
    };
    let (dir, baseline) = file("baseline.json", &rows("base"));
    let (_keep, outputs) = file("outputs.json", &rows("own"));
    let out = dir.path().join("out").display().to_string();
    let arguments = [
        "eval",
        "alpaca",
        "--outputs",
        &outputs,
        "--baseline",
        &baseline,
        "--output",
        &out,
        "--set",
        "judge.concurrency=2",
        "--set",
        "judge.requests_per_minute=1200",
    ];
    let server = Server::start(|_, _| first_preferred());
    let base = format!("judge.base_url={}", server.base_url);
    let key = format!("judge.api_key_env={}", KEY.0);
    let mut child = command(&arguments);
    child.env(KEY.0, KEY.1).args(["--quiet", "--set", &base, "--set", &key, "--set", "judge.model=judge-1"]);
    let mut child = child.spawn().unwrap();
    while server.count() < 4 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = server.count();
    assert!(before < 12, "{before}");
    judged(&server, "judge", &arguments);
    // At most what was under way when it died is asked again.
    assert!(server.count() <= 12 + 2, "{} requests for 12 pairs", server.count());
    assert_eq!(read(&dir.path().join("out/result.json"))["items"].as_array().unwrap().len(), 12);
}

#[test]
fn a_reward_model_judges_without_any_network() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("reward");
    let (policy, run_text) = (model().display().to_string(), run.display().to_string());
    let data = super::fixture::demo("preferences.jsonl").display().to_string();
    setpoint(&[
        "reward",
        "--quiet",
        "--model",
        &policy,
        "--data",
        &data,
        "--run",
        &run_text,
        "--set",
        "data.max_rows=8",
        "--set",
        "train.max_steps=1",
        "--set",
        "train.batch_size=4",
    ])
    .ok();
    let rows = |generator: &str, answers: [&str; 3]| {
        let rows: Vec<Value> = QUESTIONS
            .iter()
            .zip(answers)
            .map(|(q, a)| json!({"instruction": q, "output": a, "generator": generator}))
            .collect();
        json!(rows).to_string()
    };
    let (_a, baseline) = file("baseline.json", &rows("base", ["Saturday.", "The sum is four.", "Do not bother me."]));
    let (_b, outputs) = file("outputs.json", &rows("own", ["Do not bother me.", "The sum is four.", "Saturday."]));
    let output = dir.path().join("out");
    let judge = format!("reward.path={}", run.join("model").display());
    setpoint(&[
        "eval",
        "alpaca",
        "--quiet",
        "--outputs",
        &outputs,
        "--baseline",
        &baseline,
        "--set",
        &judge,
        "--output",
        &output.display().to_string(),
    ])
    .ok();
    let result = read(&output.join("result.json"));
    assert!(result["manifest"]["judge"]["reward_model"]["hash"].is_string(), "{result}");
    assert_eq!(result["items"][1]["value"], 0.5, "equal answers are level");
    assert_ne!(result["items"][0]["value"], 0.5);
}

#[test]
fn mt_bench_answers_two_turns_and_writes_fastchats_files() {
    let questions: String = [(81, "writing", 0), (111, "math", 1)]
        .iter()
        .map(|(id, category, i)| {
            json!({"question_id": id, "category": category, "turns": [QUESTIONS[*i], QUESTIONS[i + 1]]}).to_string()
                + "\n"
        })
        .collect();
    let reference = json!({"question_id": 111, "answer_id": "x", "model_id": "ref", "choices": [{"index": 0, "turns": ["4", "5"]}]});
    let (dir, questions) = file("question.jsonl", &questions);
    let (_keep, references) = file("reference.jsonl", &(reference.to_string() + "\n"));
    let output = dir.path().join("mt");
    let server = Server::start(|_, request| {
        let text = request.body["messages"][1]["content"].as_str().unwrap().to_owned();
        let second = text.contains("### User:");
        Action::Say(if second && text.contains("Reference") { "I cannot say." } else { "Rating: [[7]]" }.into())
    });
    let policy = model().display().to_string();
    let out = output.display().to_string();
    judged(
        &server,
        "judge",
        &[
            "eval",
            "mt-bench",
            "--model",
            &policy,
            "--questions",
            &questions,
            "--references",
            &references,
            "--output",
            &out,
            "--set",
            "generate.max_new_tokens=6",
            "--set",
            "name=org/tiny",
        ],
    );
    let answers = lines(&output.join("model_answer/org_tiny.jsonl"));
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0]["choices"][0]["turns"].as_array().unwrap().len(), 2);
    let judgments = lines(&output.join("model_judgment/judge-1_single.jsonl"));
    assert_eq!(judgments.iter().map(|j| j["score"].as_i64().unwrap()).collect::<Vec<_>>(), [7, 7, 7, -1]);
    assert_eq!(judgments[3]["judge"], json!(["judge-1", "single-math-v1-multi-turn"]));
    let result = read(&output.join("result.json"));
    let scores = &result["scores"]["single"][0];
    assert_eq!(
        (&scores["unrated"], &scores["average"]["score"], &scores["average"]["n"]),
        (&json!(1), &json!(7.0), &json!(3))
    );
    assert_eq!(result["items"].as_array().unwrap().len(), 3);
    assert_eq!(result["manifest"]["decoding"]["temperature"], "by category");

    // Against itself, before a judge that always prefers what it is shown first: all ties.
    let first = Server::start(|_, _| Action::Say("[[A]]".into()));
    let (answers, pairs) = (output.join("model_answer/org_tiny.jsonl").display().to_string(), dir.path().join("pairs"));
    let against = format!("baseline_answers={answers}");
    judged(
        &first,
        "judge",
        &[
            "eval",
            "mt-bench",
            "--answers",
            &answers,
            "--questions",
            &questions,
            "--references",
            &references,
            "--output",
            &pairs.display().to_string(),
            "--set",
            &against,
            "--set",
            "baseline_name=other",
        ],
    );
    assert_eq!(first.count(), 4, "both orders are the same request here, and are sent once");
    let result_of_pairs = read(&pairs.join("result.json"));
    let score = &result_of_pairs["scores"]["pairs"][0];
    assert_eq!(
        (&score["model"], &score["tie"], &score["win_rate_adjusted"]),
        (&json!("org/tiny"), &json!(4), &json!(0.5))
    );
    assert_eq!(lines(&pairs.join("model_judgment/judge-1_pair.jsonl")).len(), 4);

    // The judgments alone give the same scores.
    let rescored = dir.path().join("rescored");
    setpoint(&[
        "eval",
        "mt-bench",
        "--judgments",
        &output.join("model_judgment/judge-1_single.jsonl").display().to_string(),
        "--questions",
        &questions,
        "--output",
        &rescored.display().to_string(),
    ])
    .ok();
    let rescored = read(&rescored.join("result.json"));
    assert_eq!(rescored["scores"], result["scores"]);
    assert_eq!(rescored["manifest"]["data"], result["manifest"]["data"]);
}

/// Compares samples with those of lm-evaluation-harness: prompts, log-likelihoods or answers, and grades. `samples(task, shots)` are
/// ours.
fn agree(expected: &Value, samples: impl Fn(&str, &str) -> Vec<Value>) {
    for run in expected["runs"].as_array().unwrap() {
        let (task, shots) = (run["task"].as_str().unwrap(), run["shots"].to_string());
        let rows = samples(task, &shots);
        let wanted = run["samples"].as_array().unwrap();
        assert_eq!(rows.len(), wanted.len());
        for (row, sample) in rows.iter().zip(wanted) {
            let place = format!("{task} with {shots} shots, {}", row["id"]);
            assert_eq!((&row["context"], &row["contexts"]), (&sample["context"], &sample["contexts"]), "{place}");
            if let Some(answer) = sample["answer"].as_str() {
                // The harness decodes the answer alone, which loses a leading space.
                assert_eq!(row["answer"].as_str().unwrap().trim_start(), answer.trim_start(), "{place}");
                assert_eq!(row["grades"]["strict"], sample["grades"]["strict-match"], "{place}");
                assert_eq!(row["grades"]["flexible"], sample["grades"]["flexible-extract"], "{place}");
                continue;
            }
            assert_eq!(row["continuations"], sample["continuations"], "{place}");
            match (row["grades"]["acc"].as_f64(), sample["grades"]["acc"].as_f64()) {
                (Some(got), Some(wanted)) => assert!((got - wanted).abs() < 1e-4, "{place}: {got} against {wanted}"),
                _ => assert_eq!(row["grades"], sample["grades"], "{place}"),
            }
            let numbers = |v: &Value| {
                v["loglikelihoods"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect::<Vec<_>>()
            };
            for (got, wanted) in numbers(row).into_iter().zip(numbers(sample)) {
                assert!((got - wanted).abs() < 1e-4, "{place}: {got} against {wanted}");
            }
        }
    }
}

#[test]
fn tasks_are_asked_and_scored_as_by_lm_eval() {
    let Some(stories) = shared("model/stories260K") else { return };
    let golden = root().join("tests/golden/lm_eval");
    let expected = read(&golden.join("expected.json"));
    let dir = tempfile::tempdir().unwrap();
    for (name, tasks, settings) in [
        ("0", "arc_easy,arc_challenge,mathqa,social_iqa,mmlu", ["shots=0", "mode=likelihood"]),
        ("2", "arc_easy,mathqa,social_iqa,mmlu,gsm8k", ["shots=2", "mode=likelihood"]),
        ("cot", "gsm8k", ["shots=0", "mode=cot"]),
    ] {
        setpoint(&[
            "eval",
            "tasks",
            "--quiet",
            "--model",
            &stories.display().to_string(),
            "--data",
            &golden.join("data").display().to_string(),
            "--tasks",
            tasks,
            "--output",
            &dir.path().join(name).display().to_string(),
            "--set",
            settings[0],
            "--set",
            settings[1],
            "--set",
            "generate.max_new_tokens=24",
        ])
        .ok();
    }
    agree(&expected, |task, shots| {
        let (task, folder) = if task == "gsm8k_cot" { ("gsm8k", "cot") } else { (task, shots) };
        lines(&dir.path().join(folder).join(format!("samples_{task}.jsonl")))
    });
    let (zero, two) = (dir.path().join("0").display().to_string(), dir.path().join("2").display().to_string());
    setpoint(&["eval", "compare", &zero, &two]).fails(1, &["not comparable", "shots"]);
    let same = setpoint(&["eval", "compare", &zero, &zero]).ok();
    assert!(same.stdout.contains("McNemar") && same.stdout.contains("arc_challenge"), "{same:#?}");
}

#[test]
fn hellaswag_is_asked_and_scored_as_by_lm_eval() {
    let Some(stories) = shared("model/stories260K") else { return };
    let golden = root().join("tests/golden/lm_eval");
    let expected = read(&golden.join("expected_hellaswag.json"));
    let dir = tempfile::tempdir().unwrap();
    let (stories, data) = (stories.display().to_string(), golden.join("data").display().to_string());
    for (shots, rows) in [("0", "200"), ("2", "20")] {
        let output = dir.path().join(shots).display().to_string();
        let (shots, rows) = (format!("shots={shots}"), format!("max_rows={rows}"));
        let arguments = ["eval", "tasks", "--quiet", "--model", &stories, "--data", &data, "--tasks", "hellaswag"];
        setpoint(&[&arguments[..], &["--output", &output, "--set", &shots, "--set", &rows]].concat()).ok();
    }
    agree(&expected, |task, shots| lines(&dir.path().join(shots).join(format!("samples_{task}.jsonl"))));
    let result = read(&dir.path().join("0/result.json"));
    for metric in ["acc", "acc_norm"] {
        let score = &result["scores"]["tasks"]["hellaswag"][metric]["overall"];
        assert_eq!((score["value"].as_f64(), score["n"].as_u64()), (expected["runs"][0][metric].as_f64(), Some(200)));
    }
}

#[test]
fn winogrande_and_truthfulqa_are_asked_and_scored_as_by_lm_eval() {
    let Some(stories) = shared("model/stories260K") else { return };
    let golden = root().join("tests/golden/lm_eval");
    let expected = read(&golden.join("expected_winogrande_truthfulqa.json"));
    let dir = tempfile::tempdir().unwrap();
    let (stories, data) = (stories.display().to_string(), golden.join("data").display().to_string());
    let tasks = "winogrande,truthfulqa_mc1,truthfulqa_mc2";
    for (shots, rows) in [("0", "200"), ("2", "20")] {
        let output = dir.path().join(shots).display().to_string();
        let (shots, rows) = (format!("shots={shots}"), format!("max_rows={rows}"));
        let arguments = ["eval", "tasks", "--quiet", "--model", &stories, "--data", &data, "--tasks", tasks];
        setpoint(&[&arguments[..], &["--output", &output, "--set", &shots, "--set", &rows]].concat()).ok();
    }
    agree(&expected, |task, shots| lines(&dir.path().join(shots).join(format!("samples_{task}.jsonl"))));
    let result = read(&dir.path().join("0/result.json"));
    for run in expected["runs"].as_array().unwrap().iter().filter(|run| run["shots"] == 0) {
        let score = &result["scores"]["tasks"][run["task"].as_str().unwrap()]["acc"]["overall"];
        for (ours, theirs) in [("value", "acc"), ("std_error", "acc_stderr")] {
            let (got, wanted) = (score[ours].as_f64().unwrap(), run[theirs].as_f64().unwrap());
            assert!((got - wanted).abs() < 1e-4, "{} {ours}: {got} against {wanted}", run["task"]);
        }
        assert_eq!(score["n"].as_u64(), run["samples"].as_array().map(|rows| rows.len() as u64));
    }
}

#[test]
fn tasks_read_the_hubs_data_and_show_their_pace() {
    let golden = root().join("tests/golden/lm_eval");
    let server = super::hub_server::HubServer::start(golden.join("hub"));
    let (home, policy) = (tempfile::tempdir().unwrap(), model().display().to_string());
    let ran = |arguments: &[&str]| {
        let mut command = command(&["eval", "tasks", "--model", &policy]);
        command.args(arguments).env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", home.path());
        super::fixture::Ran::of(&command.env_remove("HF_HUB_OFFLINE").output().unwrap())
    };
    let arguments = ["--data", "hub", "--data", "social_iqa=allenai/social_i_qa", "--dry-run"];
    let out = ran(&arguments).ok().stdout;
    for line in
        ["mmlu: 4 examples, 16 continuations", "gsm8k: 3 examples", "arc_challenge: 4 examples", "social_iqa: 5"]
    {
        assert!(out.contains(line), "{line} in {out}");
    }
    // Beside a folder of data sets, one task from the hub; what it scores and how fast goes to standard error alone.
    let data = golden.join("data").display().to_string();
    let arguments = ["--data", &data, "--data", "arc_easy=allenai/ai2_arc", "--tasks", "arc_easy,social_iqa"];
    let scored = ran(&arguments).ok();
    assert!(scored.stderr.contains("arc_easy: 6 examples in ") && scored.stderr.contains("/s\n"), "{scored:#?}");
    assert!(!scored.stdout.contains("examples in"), "{scored:#?}");
    let arguments = [&arguments[..], &["--quiet"]].concat();
    assert!(!ran(&arguments).ok().stderr.contains("examples in"));
    assert!(!server.asked().is_empty());
    ran(&["--data", "hub", "--data", "piqa=a/b"]).fails(2, &["piqa"]);
    ran(&["--data", "mmlu=cais/mmlu", "--tasks", "mmlu,gsm8k"]).fails(2, &["no data for gsm8k", "--data hub"]);
    ran(&["--data", "hub", "--tasks", "mmlu", "--data", "gsm8k=openai/gsm8k"]).fails(2, &["not in `tasks`"]);
    ran(&["--data", "mmlu=someone/else", "--tasks", "mmlu"]).fails(1, &["hub data set someone/else"]);
}

#[test]
fn a_generative_reward_model_annotates_with_the_mean_of_its_samples() {
    let row =
        |i: usize| json!({"prompt": QUESTIONS[i], "responses": ["Saturday.", "The sum is four."]}).to_string() + "\n";
    let (dir, data) = file("rows.jsonl", &(row(0) + &row(1)));
    let output = dir.path().join("rewards.jsonl");
    let out = output.display().to_string();
    let server = Server::start(|i, request| {
        let text = request.body["messages"][0]["content"].as_str().unwrap();
        // A third of the answers hold no score, and one is out of bounds.
        match (text.contains("[Response]\nSaturday."), i % 3) {
            (_, 0) => Action::Say("no idea".into()),
            (true, _) => Action::Say("{\"score\": 8}".into()),
            (false, 1) => Action::Say("{\"score\": 99}".into()),
            (false, _) => Action::Say("Sure: ```{\"score\": \"3\"}```".into()),
        }
    });
    let arguments = [
        "annotate",
        "--data",
        &data,
        "--output",
        &out,
        "--set",
        "generative.field=score",
        "--set",
        "generative.samples=6",
        "--set",
        "generative.temperature=1.0",
        "--set",
        "generative.max=10.0",
        "--set",
        "generative.judge.concurrency=1",
    ];
    judged(&server, "generative.judge", &arguments);
    assert_eq!(server.count(), 24);
    for row in lines(&output) {
        assert_eq!(row["rewards"], json!([8.0, 3.0]), "{row}");
    }
    let silent = Server::start(|_, _| Action::Say("no idea".into()));
    let base = format!("generative.judge.base_url={}", silent.base_url);
    let settings = ["--set", &base, "--set", "generative.judge.api_key_env=", "--set", "generative.judge.model=j"];
    let other = dir.path().join("other.jsonl").display().to_string();
    setpoint(&[&["annotate", "--data", &data, "--output", &other], &settings[..]].concat())
        .fails(1, &["row 0, response 0", "no score in its answer `no idea`"]);
}

#[test]
fn wrong_usage_is_said_before_anything_is_sent() {
    let policy = model().display().to_string();
    let (dir, outputs) = file("outputs.json", "[{\"instruction\": \"x\", \"output\": \"y\", \"generator\": \"z\"}]");
    let out = dir.path().join("out").display().to_string();
    setpoint(&["eval", "alpaca"]).fails(2, &["--annotations FILE", "--baseline FILE", "--output DIR"]);
    setpoint(&[
        "eval",
        "alpaca",
        "--outputs",
        &outputs,
        "--baseline",
        &outputs,
        "--output",
        &out,
        "--set",
        "judge.api_key_env=SETPOINT_NO_KEY",
    ])
    .fails(1, &["SETPOINT_NO_KEY", "judge.api_key_env=\"\""]);
    setpoint(&["eval", "alpaca", "--annotations", &outputs]).fails(1, &["outputs.json, row 1", "output_1"]);
    setpoint(&["eval", "mt-bench", "--model", &policy]).fails(2, &["--judgments FILE"]);
    setpoint(&["eval", "tasks", "--model", &policy, "--tasks", "arc_easy,piqa", "--data", &out]).fails(2, &["piqa"]);
    setpoint(&["eval", "tasks", "--model", &policy, "--tasks", "arc_easy", "--data", &out])
        .fails(1, &["ARC-Easy_test"]);
    setpoint(&["eval", "compare", &outputs]).fails(2, &["RESULT"]);
    setpoint(&["eval", "compare", &outputs, &outputs]).fails(1, &["outputs.json", "manifest"]);
    setpoint(&[
        "annotate",
        "--data",
        &outputs,
        "--output",
        &out,
        "--set",
        "generative.judge.model=j",
        "--set",
        "generative.pattern=(",
    ])
    .fails(2, &["generative.pattern"]);
}

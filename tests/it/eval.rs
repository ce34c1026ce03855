//! `setpoint eval alpaca | mt-bench | compare` and the generative reward model, with a judge on loopback.

use std::path::Path;

use serde_json::{Value, json};

use super::endpoint::{Action, Server};
use super::fixture::{command, file, model, root, setpoint};

/// The variable that holds the judge's key in these tests, and the key.
const KEY: (&str, &str) = ("SETPOINT_TEST_JUDGE_KEY", "sk-do-not-write-me");

pub fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

pub fn lines(path: &Path) -> Vec<Value> {
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

    let again = judged(&server, "judge", &[&arguments[..], &["--overwrite"]].concat());
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
        .fails(1, &["rows.jsonl:1, response 0", "no score in its answer `no idea`"]);
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

//! Judges that echo the key, refuse, ramble or are cut off, and scores that come from columns or from nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::endpoint::{Action, Server, completion};
use super::fixture::{Ran, command, file, setpoint, shared};

/// The judge's key in these tests: with a character that JSON may escape.
const KEY: (&str, &str) = ("SETPOINT_TEST_ECHOED_KEY", "sk-Do/not+Write=me");

/// Runs a command with the judge's address and key.
fn judged(server: &Server, section: &str, arguments: &[&str]) -> Ran {
    let mut command = command(arguments);
    command.env(KEY.0, KEY.1).arg("--quiet");
    for (key, value) in [
        ("base_url", server.base_url.as_str()),
        ("api_key_env", KEY.0),
        ("model", "judge-1"),
        ("backoff_seconds", "0.01"),
        ("retries", "1"),
    ] {
        command.args(["--set", &format!("{section}.{key}={value}")]);
    }
    Ran::of(&command.output().unwrap())
}

pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// All that a reader of the text could find in it: the text, and the strings of the JSON in it, in strings inside strings too.
fn readings(text: &str) -> Vec<String> {
    let mut found = vec![text.to_owned(), text.replace("\\/", "/")];
    for part in std::iter::once(text).chain(text.lines()) {
        if let Ok(value) = serde_json::from_str::<Value>(part) {
            strings(&value, &mut found);
        }
    }
    found
}

fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.extend(readings(text)),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            found.push(name.clone());
            strings(value, found);
        }),
        _ => {}
    }
}

#[track_caller]
fn key_is_not_in(place: &str, text: &str) {
    let percent = KEY.1.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    for reading in readings(text) {
        assert!(!reading.contains(KEY.1) && !reading.contains(&percent), "{place} holds the key: {text}");
    }
}

#[track_caller]
fn key_is_nowhere(dir: &Path, ran: &Ran) {
    key_is_not_in("the terminal", &ran.stdout);
    key_is_not_in("the terminal", &ran.stderr);
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            key_is_nowhere(&entry.path(), ran);
        } else {
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
            key_is_not_in(&entry.path().display().to_string(), &text);
        }
    }
}

/// The key as the insides of a JSON string, in different spellings.
fn echoes() -> Vec<String> {
    let each = |spell: &dyn Fn(char) -> String| KEY.1.chars().map(spell).collect::<String>();
    vec![
        KEY.1.to_owned(),
        KEY.1.replace('/', "\\/"),
        each(&|c| format!("\\u{:04x}", c as u32)),
        // JSON in a string: {"k": "…"} with every quote escaped, and the key escaped inside.
        format!("{{\\\"k\\\": \\\"{}\\\"}}", KEY.1.replace('/', "\\\\/")),
        format!("{{\\\"k\\\": \\\"{}\\\"}}", each(&|c| format!("\\\\u{:04X}", c as u32))),
        KEY.1.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D"),
    ]
}

/// A chat completion as JSON text, in which `echo` stands in the answer, in a name and in a further field.
fn echoing(echo: &str, answer: &str) -> Action {
    let top = r#"[{"token": "m", "logprob": -0.3, "top_logprobs": [{"token": "m", "logprob": -0.3}, {"token": "M", "logprob": -1.4}]}]"#;
    let body = format!(
        "{{\"choices\": [{{\"message\": {{\"content\": \"{echo} {answer}\"}}, \"finish_reason\": \"stop\", \"logprobs\": \
         {{\"content\": {top}}}, \"{echo}\": [\"x {echo}\"]}}], \"debug\": {{\"authorization\": \"Bearer {echo}\"}}}}"
    );
    Action::Status(200, String::new(), body)
}

fn rows(count: usize) -> String {
    (0..count)
        .map(|i| json!({"prompt": format!("task {i}"), "responses": [format!("answer {i}")]}).to_string() + "\n")
        .collect()
}

fn alpaca_outputs(generator: &str) -> String {
    let row = |i: usize| json!({"instruction": format!("task {i}"), "output": format!("{generator} {i}{}", "!".repeat(i * i)), "generator": generator});
    Value::from((0..6).map(row).collect::<Vec<_>>()).to_string()
}

/// MT-Bench's files for two questions: questions and answers.
fn mt_bench_files(dir: &Path) -> [String; 2] {
    let questions = [81, 91]
        .map(|id| json!({"question_id": id, "category": "writing", "turns": [format!("Say {id}."), "And that."]}));
    let answers = [81, 91].map(|id| {
        json!({"question_id": id, "answer_id": "a", "model_id": "own", "choices": [{"index": 0, "turns": ["this", "that"]}]})
    });
    [("question.jsonl", questions), ("answers.jsonl", answers)].map(|(name, rows)| {
        let path = dir.join(name);
        std::fs::write(&path, rows.map(|row| row.to_string() + "\n").concat()).unwrap();
        path.display().to_string()
    })
}

#[test]
fn the_key_is_in_no_file_and_no_message_however_it_is_echoed() {
    for echo in echoes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let spelled = echo.clone();
        let server = Server::start(move |_, _| echoing(&spelled, "[[7]]"));

        std::fs::write(path("rows.jsonl"), rows(2)).unwrap();
        let ran = judged(
            &server,
            "generative.judge",
            &["annotate", "--data", &path("rows.jsonl"), "--output", &path("rewards.jsonl")],
        )
        .ok();
        assert_eq!(lines(&dir.path().join("rewards.jsonl"))[0]["rewards"], json!([7.0]));
        assert!(lines(&dir.path().join("rewards.judge_cache.jsonl")).len() == 2, "the answers are kept");
        key_is_nowhere(dir.path(), &ran);

        let [questions, answers] = mt_bench_files(dir.path());
        let ran = judged(
            &server,
            "judge",
            &["eval", "mt-bench", "--answers", &answers, "--questions", &questions, "--output", &path("mt")],
        )
        .ok();
        let judgments = lines(&dir.path().join("mt/model_judgment/judge-1_single.jsonl"));
        assert_eq!(judgments[0]["score"], 7);
        assert!(judgments[0]["judgment"].as_str().unwrap().contains("[key]"), "{}", judgments[0]);
        key_is_nowhere(dir.path(), &ran);

        std::fs::write(path("own.json"), alpaca_outputs("own")).unwrap();
        std::fs::write(path("base.json"), alpaca_outputs("base")).unwrap();
        let arguments = [
            "eval",
            "alpaca",
            "--outputs",
            &path("own.json"),
            "--baseline",
            &path("base.json"),
            "--output",
            &path("alpaca"),
        ];
        let ran = judged(&server, "judge", &arguments).ok();
        key_is_nowhere(dir.path(), &ran);

        // In what goes wrong: a refusal of one request, of all of them, and an answer that is no JSON.
        for (status, body) in [
            (400, format!("{{\"error\": \"{echo}\"}}")),
            (401, format!("{{\"error\": {{\"{echo}\": \"{echo}\"}}}}")),
            (500, format!("<html>{echo}</html>")),
            (200, format!("{{\"content\": \"{echo}")),
            (200, format!("{{\"choices\": [{{\"{echo}\": \"{echo}\"}}]}}")),
        ] {
            let failing =
                Server::start(move |_, _| Action::Status(status, format!("x-echo: {}\r\n", KEY.1), body.clone()));
            let ran = judged(
                &failing,
                "generative.judge",
                &["annotate", "--data", &path("rows.jsonl"), "--output", &path("none.jsonl")],
            );
            assert_eq!(ran.code, 1, "{ran:#?}");
            key_is_nowhere(dir.path(), &ran);
        }
    }
}

#[test]
fn a_key_in_an_address_or_in_place_of_a_name_is_refused_and_not_repeated() {
    let (dir, annotations) = file("annotations.json", "[]");
    let (_keep, data) = file("rows.jsonl", &rows(1));
    let out = dir.path().join("out.jsonl").display().to_string();
    let alpaca = ["eval", "alpaca", "--annotations", &annotations];
    let generative = ["annotate", "--data", &data, "--output", &out, "--set", "generative.judge.model=j"];
    let column = ["annotate", "--data", &data, "--output", &out, "--set", "column=x"];
    let wrong = [
        "base_url=https://me:hunter2hunter2@host/v1",
        "base_url=https://host/v1?api_key=hunter2hunter2",
        "base_url=https://host/v1#hunter2hunter2?",
        "api_key_env=sk-hunter2hunter2",
        "api_key=hunter2hunter2",
        "token=hunter2hunter2",
    ];
    for (arguments, section) in
        [(&alpaca[..], "judge"), (&generative, "generative.judge"), (&column, "generative.judge")]
    {
        for wrong in wrong {
            for dry in [&[][..], &["--dry-run"]] {
                let setting = format!("{section}.{wrong}");
                let ran = setpoint(&[arguments, &["--set", &setting], dry].concat());
                assert_eq!(ran.code, 2, "{setting}: {ran:#?}");
                assert!(!(ran.stdout.clone() + &ran.stderr).contains("hunter2"), "{setting}: {ran:#?}");
            }
        }
    }
    // The address is written to results: it may not be made of the key either.
    let mut command = command(&generative);
    command.env("SETPOINT_TEST_KEY_IN_ADDRESS", "hunter2hunter2");
    command.args(["--set", "generative.judge.api_key_env=SETPOINT_TEST_KEY_IN_ADDRESS"]);
    command.args(["--set", "generative.judge.base_url=http://127.0.0.1:1/hunter2hunter2/v1"]);
    let ran = Ran::of(&command.output().unwrap());
    assert!(!(ran.stdout.clone() + &ran.stderr).contains("hunter2"), "{ran:#?}");
    ran.fails(1, &["SETPOINT_TEST_KEY_IN_ADDRESS", "must not"]);
}

#[test]
fn the_score_is_that_of_the_last_object_that_has_it() {
    let answers = [
        r#"The set {1, 2} is right, so: {"score": 8}"#,
        r#"{"score": 5} because {braces} are { not } JSON"#,
        r#"<think>{maybe 3}</think>{"score": 4}"#,
        "First ```json\n{\"score\": 1}\n``` and on reflection ```json\n{\"score\": {\"value\": 2}, \"why\": \"a } brace\"}\n```\n{\"score\": \"9\", \"a\": {\"b\": {}}}",
    ];
    let (dir, data) = file("rows.jsonl", &rows(answers.len()));
    let server = Server::start(move |_, request| {
        let text = request.body["messages"][0]["content"].as_str().unwrap().to_owned();
        let i = (0..answers.len()).find(|i| text.contains(&format!("task {i}"))).unwrap();
        Action::Say(answers[i].into())
    });
    let output = dir.path().join("rewards.jsonl");
    judged(
        &server,
        "generative.judge",
        &["annotate", "--data", &data, "--output", &output.display().to_string(), "--set", "generative.field=score"],
    )
    .ok();
    let rewards: Vec<Value> = lines(&output).iter().map(|row| row["rewards"][0].clone()).collect();
    assert_eq!(rewards, [8.0, 5.0, 4.0, 9.0]);
}

/// An answer that holds a score and was cut off, a refusal, an answer held back, and one without a score.
fn useless() -> [(Value, &'static str); 5] {
    let ended = |content: Value, reason: &str| {
        let mut answer = completion("");
        answer["choices"][0]["message"]["content"] = content;
        answer["choices"][0]["finish_reason"] = reason.into();
        answer
    };
    let mut refusal = ended(Value::Null, "stop");
    refusal["choices"][0]["message"]["refusal"] = "I would rather not.".into();
    [
        (ended("The scale is from [[1]] to".into(), "length"), "cut off"),
        (refusal, "I would rather not."),
        (ended(Value::Null, "content_filter"), "content filter"),
        (ended("A rating of [[1]] would".into(), "content_filter"), "content filter"),
        (ended("It depends.".into(), "stop"), "It depends."),
    ]
}

#[test]
fn a_judge_that_refuses_ends_an_annotation_at_once_or_is_counted() {
    for (answer, complaint) in useless() {
        let (dir, data) = file("rows.jsonl", &rows(6));
        let willing = Arc::new(AtomicBool::new(false));
        let now = Arc::clone(&willing);
        let server = Server::start(move |_, request| {
            let third = request.body["messages"][0]["content"].as_str().unwrap().contains("task 2");
            if third && !now.load(Ordering::SeqCst) {
                Action::Json(answer.clone())
            } else {
                Action::Say("[[7]]".into())
            }
        });
        let output = dir.path().join("rewards.jsonl");
        let out = output.display().to_string();
        let arguments = ["annotate", "--data", &data, "--output", &out, "--set", "generative.judge.concurrency=1"];
        let ran = judged(&server, "generative.judge", &arguments);
        ran.fails(1, &["rows.jsonl:3, response 0", complaint, "on_failure=skip", "rewards.judge_cache.jsonl"]);
        assert_eq!(server.count(), 3, "the first useless answer is the last");
        assert!(!output.exists());

        // What was good is kept, what was not is asked again.
        let skipping = [&arguments[..], &["--set", "generative.judge.on_failure=skip"]].concat();
        let ran = judged(&server, "generative.judge", &skipping).ok();
        assert!(ran.stderr.contains("1 of 6 responses") && ran.stderr.contains(complaint), "{ran:#?}");
        assert_eq!(server.count(), 3 + 4);
        assert_eq!(lines(&output).iter().map(|row| row["prompt"].clone()).collect::<Vec<_>>().len(), 5);
        std::fs::remove_file(&output).unwrap();

        willing.store(true, Ordering::SeqCst);
        judged(&server, "generative.judge", &arguments).ok();
        assert_eq!(server.count(), 3 + 4 + 1, "only the useless answer is asked again");
        assert_eq!(lines(&output).len(), 6);
    }
    let silent = Server::start(|_, _| Action::Say("It depends.".into()));
    let (dir, data) = file("rows.jsonl", &rows(2));
    let out = dir.path().join("rewards.jsonl").display().to_string();
    let skipping = ["annotate", "--data", &data, "--output", &out, "--set", "generative.judge.on_failure=skip"];
    judged(&silent, "generative.judge", &skipping).fails(1, &["no response", "judge-1"]);
}

#[test]
fn a_benchmark_counts_useless_judgments_and_fails_without_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let [questions, answers] = mt_bench_files(dir.path());
    let path = |name: &str| dir.path().join(name).display().to_string();
    for (i, (answer, _)) in useless().into_iter().enumerate() {
        let always = answer.clone();
        let server =
            Server::start(
                move |i, _| if i == 1 { Action::Json(answer.clone()) } else { Action::Say("Rating: [[6]]".into()) },
            );
        let out = path(&format!("mt-{i}"));
        let arguments = ["eval", "mt-bench", "--answers", &answers, "--questions", &questions, "--output", &out];
        let ran = judged(&server, "judge", &[&arguments[..], &["--set", "judge.concurrency=1"]].concat()).ok();
        assert!(ran.stdout.contains("6.000000") && ran.stdout.contains("1 hold no rating"), "{ran:#?}");
        // The useless one is not kept.
        judged(&server, "judge", &[&arguments[..], &["--overwrite"]].concat()).ok();
        assert_eq!(server.count(), 5);

        let never = Server::start(move |_, _| Action::Json(always.clone()));
        let out = path(&format!("none-{i}"));
        let arguments = ["eval", "mt-bench", "--answers", &answers, "--questions", &questions, "--output", &out];
        judged(&never, "judge", &arguments).fails(1, &["none of the 4 judgments is valid"]);
        // The judgments are there to be looked at, and score no better from the file.
        let judgments = dir.path().join(format!("none-{i}/model_judgment/judge-1_single.jsonl"));
        assert_eq!(lines(&judgments).len(), 4);
        setpoint(&["eval", "mt-bench", "--judgments", &judgments.display().to_string()])
            .fails(1, &["none of the 4 judgments"]);
        let against = format!("baseline_answers={answers}");
        let paired = [&arguments[..], &["--set", &against, "--set", "baseline_name=other"]].concat();
        judged(&never, "judge", &paired).fails(1, &["none of the 4 judgments is valid"]);
        let failing = [&arguments[..], &["--set", "judge.on_failure=error"]].concat();
        judged(&never, "judge", &failing).fails(1, &["question 81, turn 1", "no usable answer"]);
    }
    let down = Server::start(|_, _| Action::Status(400, String::new(), "no".into()));
    let out = path("down");
    judged(&down, "judge", &["eval", "mt-bench", "--answers", &answers, "--questions", &questions, "--output", &out])
        .fails(1, &["none of the 4 judgments is valid", "4 never came"]);
    std::fs::write(path("own.json"), alpaca_outputs("own")).unwrap();
    std::fs::write(path("base.json"), alpaca_outputs("base")).unwrap();
    let alpaca = [
        "eval",
        "alpaca",
        "--outputs",
        &path("own.json"),
        "--baseline",
        &path("base.json"),
        "--output",
        &path("alpaca"),
    ];
    judged(&down, "judge", &alpaca).fails(1, &["all 6 judgments failed"]);
    judged(&down, "judge", &[&alpaca[..], &["--set", "judge.on_failure=error"]].concat()).fails(1, &["instruction 1"]);
}

#[test]
fn a_length_controlled_win_rate_says_which_of_the_leaderboards_inputs_it_lacks() {
    let row =
        |i: usize| format!("{},{},{}\n", 300 + i * 7 % 90, 200 + i * 13 % 170, 1.0 + (i * 29 % 100) as f64 / 100.0);
    let (dir, annotations) =
        file("own.csv", &("len_1,len_2,preference\n".to_owned() + &(0..40).map(row).collect::<String>()));
    let out = dir.path().join("out");
    let ran = setpoint(&["eval", "alpaca", "--annotations", &annotations, "--output", &out.display().to_string()]).ok();
    let line = ran.stdout.lines().find(|l| l.starts_with("length-controlled")).unwrap();
    assert!(!line.contains('±'), "{line}");
    for said in ["not the leaderboard's", "instruction_difficulty.csv", "df_gamed.csv", "length_control.difficulty"] {
        assert!(ran.stdout.contains(said), "{said}: {ran:#?}");
    }
    let result: Value = serde_json::from_str(&std::fs::read_to_string(out.join("result.json")).unwrap()).unwrap();
    assert!(result["scores"]["lc_standard_error"].is_null() && result["scores"]["length_controlled_winrate"].is_f64());

    let Some(data) = shared("alpaca_eval") else { return };
    let annotations = data.join("annotations_slim/claude-2.1.csv").display().to_string();
    let set = |name: &str, file: &str| format!("length_control.{name}={}", data.join(file).display());
    let difficulty = set("difficulty", "instruction_difficulty_recovered.csv");
    let gamed = set("gamed", "df_gamed_reconstructed.csv");
    let whole =
        setpoint(&["eval", "alpaca", "--annotations", &annotations, "--set", &difficulty, "--set", &gamed]).ok();
    let line = whole.stdout.lines().find(|l| l.starts_with("length-controlled")).unwrap();
    let figure: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let board = std::fs::read_to_string(data.join("leaderboard.csv")).unwrap();
    let mut board = board.lines().map(|l| l.split(',').collect::<Vec<_>>());
    let column = board.next().unwrap().iter().position(|c| *c == "length_controlled_winrate").unwrap();
    let published: f64 = board.find(|row| row[0] == "claude-2.1").unwrap()[column].parse().unwrap();
    assert!((figure - published).abs() < 0.14, "{figure} against {published}");
    assert!(line.contains('±') && !whole.stdout.contains("not the leaderboard's"), "{whole:#?}");
    let part = setpoint(&["eval", "alpaca", "--annotations", &annotations, "--set", &difficulty]).ok();
    assert!(part.stdout.contains("without df_gamed.csv (--set length_control.gamed=FILE)"), "{part:#?}");
}

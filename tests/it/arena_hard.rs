//! `setpoint eval arena-hard` with a tiny model and a judge on loopback, and on judgments that exist.

use std::path::Path;

use serde_json::{Value, json};

use super::endpoint::{Action, Server};
use super::fixture::{Ran, command, file, model, setpoint};

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes questions and the folder of the baselines' answers.
fn files(dir: &Path) -> [String; 2] {
    let asked = [("a", "hard_prompt", "o3-mini-2025-01-31"), ("b", "creative_writing", "gemini-2.0-flash-001")];
    let questions = asked.map(|(uid, category, _)| {
        json!({"uid": uid, "category": category, "subcategory": "x", "prompt": "Which day comes after Friday?"})
            .to_string()
            + "\n"
    });
    std::fs::write(dir.join("question.jsonl"), questions.concat()).unwrap();
    let folder = dir.join("model_answer");
    std::fs::create_dir(&folder).unwrap();
    for (uid, _, baseline) in asked {
        let answer = json!({"uid": uid, "ans_id": "x", "model": baseline, "messages": [
            {"role": "user", "content": "Which day comes after Friday?"},
            {"role": "assistant", "content": {"answer": format!("- **Baseline** {uid}\n- list")}}]});
        std::fs::write(folder.join(format!("{baseline}.jsonl")), format!("{answer}\n")).unwrap();
    }
    [dir.join("question.jsonl"), folder].map(|path| path.display().to_string())
}

fn judged(server: &Server, arguments: &[&str]) -> Ran {
    let settings = [
        format!("judge.base_url={}", server.base_url),
        "judge.api_key_env=".to_owned(),
        "judge.model=judge-1".to_owned(),
    ];
    let mut command = command(arguments);
    for setting in &settings {
        command.args(["--set", setting]);
    }
    Ran::of(&command.output().unwrap()).ok()
}

#[test]
fn a_model_answers_and_is_judged_in_both_orders() {
    let dir = tempfile::tempdir().unwrap();
    let [questions, baselines] = files(dir.path());
    let (output, policy) = (dir.path().join("out"), model().display().to_string());
    let out = output.display().to_string();
    // Always for the baseline, and clearly if it comes first.
    let server = Server::start(|_, request| {
        let text = request.body["messages"][1]["content"].as_str().unwrap();
        let second = text.split_once("<|The Start of Assistant B's Answer|>").unwrap().1;
        Action::Say(if second.contains("Baseline") { "I say [[B>A]]." } else { "I say [[A>>B]]." }.into())
    });
    let tokenizer = format!("style_tokenizer={policy}");
    let arguments = [
        "eval",
        "arena-hard",
        "--model",
        &policy,
        "--questions",
        &questions,
        "--baselines",
        &baselines,
        "--output",
        &out,
        "--set",
        "generate.max_new_tokens=6",
        "--set",
        "name=org/tiny",
        "--set",
        &tokenizer,
    ];
    let dry = setpoint(&[&arguments[..], &["--dry-run"]].concat()).ok();
    assert!(dry.stdout.contains("2 prompts, 4 judgments to ask for"), "{dry:#?}");
    let ran = judged(&server, &arguments);
    assert!(ran.stdout.contains("creative_writing") && ran.stdout.contains("org/tiny"), "{ran:#?}");
    assert_eq!(server.count(), 4);
    let answers = lines(&output.join("model_answer/org_tiny.jsonl"));
    assert_eq!((answers.len(), &answers[0]["messages"][0]["role"]), (2, &json!("user")));
    assert!(answers[0]["messages"][1]["content"]["answer"].is_string() && answers[0]["metadata"]["token_len"].is_u64());
    let judgments = lines(&output.join("model_judgment/judge-1/org_tiny.jsonl"));
    let labels = |row: &Value| [row["games"][0]["score"].clone(), row["games"][1]["score"].clone()];
    assert_eq!(labels(&judgments[0]), [json!("A>>B"), json!("B>A")]);
    assert_eq!(judgments[1]["baseline"], "gemini-2.0-flash-001");
    let result = read(&output.join("result.json"));
    assert_eq!(result["scores"]["categories"]["hard_prompt"][0]["score"]["value"], 0.0);
    assert_eq!(result["items"], json!([{"id": "arena_hard/a", "value": 0.0}, {"id": "arena_hard/b", "value": 0.0}]));
    assert_eq!(result["manifest"]["judge"]["temperature"], 0.0);

    // Again: neither the model nor the judge is asked.
    judged(&server, &[&arguments[..], &["--overwrite"]].concat());
    assert_eq!(server.count(), 4);
    // The judgments alone give the same scores.
    let folder = output.join("model_judgment/judge-1").display().to_string();
    let rescored = dir.path().join("rescored");
    setpoint(&["eval", "arena-hard", "--judgments", &folder, "--output", &rescored.display().to_string()]).ok();
    assert_eq!(read(&rescored.join("result.json"))["scores"]["categories"], result["scores"]["categories"]);
}

#[test]
fn missing_answers_and_wrong_settings_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let [questions, baselines] = files(dir.path());
    let (out, policy) = (dir.path().join("out").display().to_string(), model().display().to_string());
    let run = |more: &[&str]| {
        let arguments = [
            "eval",
            "arena-hard",
            "--questions",
            &questions,
            "--output",
            &out,
            "--dry-run",
            "--set",
            "judge.api_key_env=",
        ];
        setpoint(&[&arguments[..], more].concat())
    };
    let model = ["--model", &policy, "--baselines", &baselines];
    run(&model).ok();
    run(&["--model", &policy]).fails(2, &["--baselines DIR"]);
    run(&[&model[..], &["--answers", "a.jsonl"]].concat()).fails(2, &["exclude each other"]);
    run(&[&model[..], &["--set", "judge_temperature=-1"]].concat()).fails(2, &["judge_temperature"]);
    run(&[&model[..], &["--set", "judge_max_tokens=0"]].concat()).fails(2, &["judge_max_tokens"]);
    run(&[&model[..], &["--judgments", "j.jsonl"]].concat()).fails(2, &["judgments are scored as they are"]);
    run(&[&model[..], &["--set", "baseline_name=other"]].concat()).fails(1, &["other.jsonl"]);
    std::fs::write(dir.path().join("model_answer/gemini-2.0-flash-001.jsonl"), "{\"uid\": \"z\"}\n").unwrap();
    run(&model).fails(1, &["gemini-2.0-flash-001.jsonl, row 1"]);
    let (_keep, wrong) = file("question.jsonl", "{\"uid\": \"1\", \"category\": \"math\", \"prompt\": \"p\"}\n");
    setpoint(&[
        "eval",
        "arena-hard",
        "--questions",
        &wrong,
        "--model",
        &policy,
        "--baselines",
        &baselines,
        "--output",
        &out,
        "--dry-run",
        "--set",
        "judge.api_key_env=",
    ])
    .fails(1, &["row 1", "the category is `math`, expected hard_prompt or creative_writing"]);
    let game = json!({"score": null, "judgment": {"answer": "?"}, "prompt": []});
    let row = json!({"uid": "a", "category": "hard_prompt", "judge": "j", "model": "m", "baseline": "b", "games": [game, null]});
    let (_keep, judgments) = file("m.jsonl", &format!("{row}\n"));
    setpoint(&["eval", "arena-hard", "--judgments", &judgments]).fails(1, &["none of the 1 judgments has a verdict"]);
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    setpoint(&["eval", "arena-hard", "--judgments", &empty.display().to_string()])
        .fails(1, &["MODEL.jsonl, found none", "the folder of one judge"]);
}

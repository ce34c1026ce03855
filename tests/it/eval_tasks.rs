//! `setpoint eval tasks`, next to lm-evaluation-harness.

use serde_json::Value;

use super::eval::{lines, read};
use super::fixture::{command, model, root, setpoint, shared};

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

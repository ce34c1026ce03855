//! The tasks' data in all their layouts, and the harness's filters.

use std::path::PathBuf;

use serde_json::Value;
use setpoint_data::Hub;
use setpoint_eval::{Gold, Task, TaskDoc, TaskMode, TaskSet, extract_answer, grade_text};

use crate::hub_server::HubServer;
use crate::test_data::test_data;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/lm_eval").join(name)
}

fn task(name: &str) -> Task {
    Task::named(name).unwrap()
}

#[test]
fn every_row_of_the_shared_data_is_an_example() {
    let Some(dir) = test_data("eval") else { return };
    let expected = [14_042, 1319, 2376, 1172, 2985, 1954];
    for (task, rows) in Task::by_default().zip(expected) {
        let set = TaskSet::read(task, &dir, true).unwrap();
        assert_eq!(set.docs.len() + set.undecided, rows, "{task:?}");
        // MathQA's re-wrapped file gives numbers that some options share.
        assert_eq!(set.undecided > 0, task.name() == "mathqa", "{task:?}: {}", set.undecided);
        assert!(set.undecided < 150, "{}", set.undecided);
        let requests = set.requests(TaskMode::Cot, 0).unwrap();
        assert_eq!(requests.len(), set.docs.len());
        for doc in &set.docs {
            match &doc.gold {
                Gold::Choice(index) => assert!(*index < doc.choices.len() && doc.choices.len() >= 3, "{doc:?}"),
                Gold::Choices(_) => panic!("no default task has several right choices: {doc:?}"),
                Gold::Solution(solution) => assert!(solution.contains("#### "), "{doc:?}"),
            }
            assert!(doc.choices.iter().all(|c| !c.contains(" Answer2: ")), "{doc:?}");
        }
    }
    let mmlu = TaskSet::read(task("mmlu"), &dir, true).unwrap();
    assert_eq!((mmlu.shots.len(), mmlu.shots.values().map(Vec::len).sum::<usize>()), (57, 285));
    assert!(mmlu.requests(TaskMode::Likelihood, 5).is_ok());
}

#[test]
fn published_parquet_files_hold_the_same_examples() {
    for task in Task::all() {
        let with_shots = task.name() != "arc_challenge";
        let json = TaskSet::read(task, &golden("data"), with_shots).unwrap();
        assert_eq!(TaskSet::read(task, &golden("hub"), with_shots).unwrap(), json, "{task:?}");
        assert!(json.docs.len() >= 3 && json.shots.is_empty() != with_shots);
    }
    // Without few-shot examples their split is not needed.
    assert!(TaskSet::read(task("arc_challenge"), &golden("hub"), false).unwrap().shots.is_empty());
    let message = TaskSet::read(task("arc_challenge"), &golden("hub"), true).unwrap_err().to_string();
    assert!(message.contains("no split `train`") && message.contains("found: test"), "{message}");
}

#[test]
fn subjects_one_by_one_are_mmlu_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let row = |subject: &str, answer: &str| {
        format!(
            "{{\"question\": \"q?\", \"subject\": \"{subject}\", \"choices\": [\"a\", \"b\", \"c\", \"d\"], \"answer\": {answer}}}\n"
        )
    };
    let write = |path: &str, text: String| {
        let path = dir.path().join("mmlu").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for subject in ["virology", "anatomy"] {
        write(&format!("{subject}/test.jsonl"), row(subject, "2") + &row(subject, "\"D\""));
        write(&format!("{subject}/dev.jsonl"), row(subject, "0"));
    }
    let set = TaskSet::read(task("mmlu"), dir.path(), true).unwrap();
    let found: Vec<(String, Gold)> = set.docs.iter().map(|d| (d.id(task("mmlu")), d.gold.clone())).collect();
    let expected = [("anatomy/0", 2), ("anatomy/1", 3), ("virology/0", 2), ("virology/1", 3)];
    assert_eq!(found, expected.map(|(id, gold)| (format!("mmlu/{id}"), Gold::Choice(gold))));
    assert_eq!((set.shots.len(), set.shots["virology"].len()), (2, 1));
    write("anatomy/test.jsonl", row("anatomy", "4"));
    let message = TaskSet::read(task("mmlu"), dir.path(), false).unwrap_err().to_string();
    assert!(message.contains("test.jsonl, row 1: expected `answer` to be 0 to 3 or A to D, found 4"), "{message}");
}

#[test]
fn other_columns_are_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("math_qa")).unwrap();
    std::fs::write(
        dir.path().join("math_qa/test.jsonl"),
        "{\"Problem\": \"1 + 1 ?\", \"choices\": [], \"answer\": \"b\"}\n",
    )
    .unwrap();
    let message = TaskSet::read(task("mathqa"), dir.path(), false).unwrap_err().to_string();
    let expected = "not the columns of mathqa: expected Problem, options, correct, found Problem, choices, answer (without options, correct)";
    assert!(message.contains(expected), "{message}");
    let message = TaskSet::read(task("social_iqa"), dir.path(), false).unwrap_err().to_string();
    assert!(
        message.contains("socialiqa_dev.jsonl, .json or .parquet") && message.contains("social_i_qa or siqa"),
        "{message}"
    );
}

#[test]
fn the_hubs_data_sets_are_found_under_their_ids() {
    let server = HubServer::start(golden("hub"));
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(&server.endpoint, cache.path());
    for task in Task::all() {
        // A data set that is a script is read from the hub's conversion of it.
        let id = if task.name() == "social_iqa" { "allenai/social_i_qa" } else { task.hub_id() };
        let set = TaskSet::read_published(task, id, task.name() != "arc_challenge", &hub).unwrap();
        assert_eq!(set, TaskSet::read(task, &golden("hub"), task.name() != "arc_challenge").unwrap(), "{task:?}");
    }
    assert!(server.asked().iter().any(|path| path.contains("refs%2Fconvert%2Fparquet")), "{:?}", server.asked());
    let pinned = TaskSet::read_published(task("gsm8k"), "openai/gsm8k@v2", false, &hub);
    assert!(pinned.unwrap_err().to_string().contains("hub data set openai/gsm8k"), "there is no such revision");
    let other = TaskSet::read_published(task("gsm8k"), "regisss/math_qa", false, &hub).unwrap_err().to_string();
    assert!(other.contains("regisss/math_qa: no"), "{other}");
}

#[test]
fn filters_find_and_grade_as_the_harness_does() {
    let text = std::fs::read_to_string(golden("filters.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 900);
    for case in cases {
        let choices: Vec<String> = serde_json::from_value(case["choices"].clone()).unwrap();
        let found = extract_answer(task("mmlu"), TaskMode::Cot, &choices, case["answer"].as_str().unwrap());
        let right = |name: &str| -> Vec<u64> { serde_json::from_value(case[name]["right"].clone()).unwrap() };
        let (mut strict, mut flexible) = (vec![], vec![]);
        for index in 0..choices.len() {
            let gold = Gold::Choice(index);
            let doc = TaskDoc { index: 0, subject: None, question: String::new(), choices: choices.clone(), gold };
            let grade = grade_text(&doc, &found);
            strict.extend(grade.strict.then_some(index as u64));
            flexible.extend(grade.flexible.then_some(index as u64));
        }
        assert_eq!(strict, right("strict-match"), "{case} {found:?}");
        assert_eq!(flexible, right("flexible-extract"), "{case} {found:?}");
        assert_eq!(found.flexible.is_none(), case["flexible-extract"]["found"] == "[invalid]", "{case} {found:?}");
    }
}

//! `setpoint duplicates`: rows that repeat others, and rows that overlap with evaluation sets.

use serde_json::{Value, json};

use super::fixture::{file, setpoint};

const POEM: &str = "Write a short poem about the sea and the wind in the old harbour, please, and keep it under forty words in all, with a rhyme at every second";
const LONG: &str =
    "A farmer has seventeen sheep and all but nine of them run away during the night, so how many does he have left?";

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| row.to_string() + "\n").collect()
}

fn chat(user: &str, answer: &str) -> Value {
    json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": user}, {"role": "assistant", "content": answer}]})
}

/// Five rows: the second equals the first, the third is almost the first, the fourth is an evaluation's question with other words around it.
fn rows() -> Vec<Value> {
    vec![
        chat(&format!("{POEM} line."), "Waves."),
        chat(&format!("{POEM}  line.\n"), "Wind."),
        chat(&format!("{POEM} verse."), "Sea."),
        chat(&format!("Here is a riddle. {LONG} Think first."), "Nine."),
        chat("Name a colour.", "Blue."),
    ]
}

fn evaluation() -> String {
    lines(&[json!({"question": LONG, "answer": "#### 9"}), json!({"question": "What is 3 + 4?", "answer": "#### 7"})])
}

#[test]
fn what_repeats_is_reported_and_left_out() {
    let (dir, data) = file("rows.jsonl", &lines(&rows()));
    let against = dir.path().join("gsm8k_test.jsonl").display().to_string();
    std::fs::write(&against, evaluation()).unwrap();
    let output = dir.path().join("clean.jsonl").display().to_string();
    let arguments = ["duplicates", "--data", &data, "--against", &against];
    let text = setpoint(&[&arguments[..], &["--output", &output]].concat()).ok();
    for said in [
        "rows.jsonl: 5 rows",
        "equal to an earlier row: 1",
        "near-duplicates of an earlier row: 1 (",
        "gsm8k_test.jsonl: 2 texts, found in the rows: 1",
        "other rows that share 13 words in a row: 1",
        "without a finding: 2 of 5 rows",
        "near-duplicate",
        "gsm8k_test.jsonl:1",
    ] {
        assert!(text.stdout.contains(said), "expected {said:?} in {text:#?}");
    }
    assert!(text.stderr.contains("2 rows written to"), "{text:#?}");
    let clean = std::fs::read_to_string(&output).unwrap();
    assert_eq!(clean, lines(&[rows()[0].clone(), rows()[4].clone()]), "as they were read");
    setpoint(&[&arguments[..], &["--output", &output]].concat()).fails(2, &["exists already: choose another file"]);
    assert_eq!(std::fs::read_to_string(&output).unwrap(), clean);

    let json: Value = serde_json::from_str(&setpoint(&[&arguments[..], &["--json"]].concat()).ok().stdout).unwrap();
    assert_eq!((&json["exact"], &json["near"], &json["kept"]), (&json!(1), &json!(1), &json!(2)));
    let kinds: Vec<&Value> = json["found"].as_array().unwrap().iter().map(|found| &found["kind"]).collect();
    assert_eq!(kinds, ["exact", "near", "overlap"]);
    assert_eq!(json["found"][2]["similarity"], 1.0, "all of the question's words");
    assert!(json["found"][0]["row"].as_str().unwrap().ends_with("rows.jsonl:2"));
    assert!(json["found"][0]["of"].as_str().unwrap().ends_with("rows.jsonl:1"));
    let set = &json["against"][0];
    assert_eq!((&set["texts"], &set["texts_found"], &set["overlap"]), (&json!(2), &json!(1), &json!(1)));
}

#[test]
fn settings_decide_what_counts() {
    let (dir, data) = file("rows.jsonl", &lines(&rows()));
    let against = dir.path().join("test.jsonl").display().to_string();
    let half = "A farmer has seventeen sheep and all but nine of them bought a tractor with the cows of the village in spring.";
    std::fs::write(&against, lines(&[json!({"goal": half})])).unwrap();
    let found = |arguments: &[&str]| -> Value {
        let ran = setpoint(&[&["duplicates", "--data", &data, "--json"], arguments].concat()).ok();
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let set = ["--against", &against, "--against-column", "goal"];
    let overlap = |more: &[&str]| found(&[&set[..], more].concat())["against"][0]["overlap"].clone();
    // Eleven words of 22 are shared.
    assert_eq!(overlap(&[]), 0);
    assert_eq!(overlap(&["--ngram", "8"]), 1);
    assert_eq!(overlap(&["--ngram", "8", "--overlap", "0.5"]), 1);
    assert_eq!(overlap(&["--ngram", "8", "--overlap", "0.51"]), 0);
    let whole = found(&["--compare", "rows"]);
    assert_eq!(whole["exact"], 0, "the answers differ");
    let strict = found(&["--threshold", "1"]);
    assert_eq!((&strict["exact"], &strict["near"]), (&json!(1), &json!(0)));
}

#[test]
fn wrong_files_and_settings_are_named() {
    let (dir, data) = file("rows.jsonl", &lines(&rows()));
    let run = |arguments: &[&str]| setpoint(&[&["duplicates", "--data", &data], arguments].concat());
    run(&["--threshold", "0"]).fails(2, &["threshold", "above 0 and at most 1"]);
    run(&["--overlap", "2"]).fails(2, &["overlap", "from 0 to 1"]);
    run(&["--ngram", "0"]).fails(2, &["ngram", "at least 1"]);
    run(&["--set", "data.splitt=x"]).fails(2, &["splitt"]);
    run(&["--against", "nowhere.jsonl"]).fails(1, &["nowhere.jsonl", "no such file"]);
    let odd = dir.path().join("odd.jsonl").display().to_string();
    std::fs::write(&odd, "{\"id\": 1, \"goal\": \"G\"}\n").unwrap();
    run(&["--against", &odd]).fails(1, &["odd.jsonl:1", "its columns are id, goal", "--against-column"]);
    let folder = dir.path().join("set");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("train.jsonl"), evaluation()).unwrap();
    run(&["--against", &folder.display().to_string()])
        .fails(1, &["no split `test`; found: train. Set --against-split to one of these"]);
    let (_dir, bad) = file("bad.jsonl", "{\"messages\": 5}\n");
    setpoint(&["duplicates", "--data", &bad]).fails(1, &["bad.jsonl:1", "messages"]);
    let (dir, table) = file("rows.csv", "prompt,completion\na,b\na,c\n");
    let output = dir.path().join("out.jsonl").display().to_string();
    setpoint(&["duplicates", "--data", &table, "--output", &output]).fails(1, &["rows.csv is a table", "--output"]);
    assert!(setpoint(&["duplicates", "--data", &table]).ok().stdout.contains("equal to an earlier row: 1"));
}

#[test]
fn rows_that_are_left_out_leave_something() {
    let (dir, data) = file("rows.jsonl", &lines(&[chat("What is 3 + 4?", "7")]));
    let against = dir.path().join("gsm8k_test.jsonl").display().to_string();
    std::fs::write(&against, evaluation()).unwrap();
    let output = dir.path().join("clean.jsonl");
    let shown = output.display().to_string();
    setpoint(&["duplicates", "--data", &data, "--against", &against, "--output", &shown])
        .fails(1, &["no row of", "is left"]);
    assert!(!output.exists());
}

#[test]
fn a_folder_with_a_table_for_each_subject_is_one_evaluation_set() {
    let question = "Which of these numbers is the smallest one that three and four divide evenly";
    let (dir, data) = file("rows.jsonl", &lines(&[json!({"prompt": question, "completion": "12"})]));
    let mmlu = dir.path().join("mmlu");
    std::fs::create_dir_all(mmlu.join("test")).unwrap();
    for (subject, asked) in [("algebra", question), ("history", "Who was the first emperor")] {
        let table = format!("question,choice0,choice1,choice2,choice3,answer\n{asked},a,b,c,d,0\n");
        std::fs::write(mmlu.join(format!("test/{subject}_test.csv")), table).unwrap();
    }
    let against = mmlu.display().to_string();
    let ran = setpoint(&["duplicates", "--data", &data, "--against", &against]).ok();
    assert!(ran.stdout.contains("mmlu: 2 texts, found in the rows: 1"), "{ran:#?}");
    assert!(ran.stdout.contains("algebra_test.csv:2"), "{ran:#?}");
}

#[test]
fn a_text_that_an_evaluation_set_repeats_is_found_each_time() {
    let (dir, data) = file("rows.jsonl", &lines(&[json!({"prompt": "Name a colour.", "completion": "Blue."})]));
    let questions = ["Name a colour.", "Name  a colour.", "Name a day."].map(|question| json!({"question": question}));
    let against = dir.path().join("set.jsonl").display().to_string();
    std::fs::write(&against, lines(&questions)).unwrap();
    let ran = setpoint(&["duplicates", "--data", &data, "--against", &against, "--json"]).ok();
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&found["against"][0]["exact"], &found["against"][0]["texts_found"]), (&1.into(), &2.into()), "{found}");
}

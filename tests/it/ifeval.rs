//! `setpoint eval ifeval` with a tiny model, and with responses that exist.

use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{Ran, command, file, model, setpoint};

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

const PROMPTS: [&str; 2] = ["Which day comes after Friday?", "How much is two and two?"];

fn rows() -> String {
    let first = json!({"key": 1001, "prompt": PROMPTS[0], "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
        "kwargs": [{}, {}]});
    let second = json!({"key": 1005, "prompt": PROMPTS[1], "instruction_id_list": ["length_constraints:number_words"],
        "kwargs": [{"num_words": 3, "relation": "at least"}]});
    format!("{first}\n{second}\n")
}

#[test]
fn existing_responses_are_verified_without_a_model() {
    let (dir, data) = file("input_data.jsonl", &rows());
    // In another order, and with one that nobody asks for.
    let responses = [(PROMPTS[1], "It is four."), ("Other?", "No."), (PROMPTS[0], "*\"It is Saturday.\"*")];
    let responses: String =
        responses.map(|(prompt, response)| json!({"prompt": prompt, "response": response}).to_string() + "\n").concat();
    let (_keep, responses) = file("someone.jsonl", &responses);
    let output = dir.path().join("out");
    let arguments = ["eval", "ifeval", "--responses", &responses, "--data", &data];
    let dry = setpoint(&[&arguments[..], &["--dry-run"]].concat()).ok();
    assert!(dry.stdout.contains("2 prompts, 3 instructions to verify"), "{dry:#?}");
    let ran = setpoint(&[&arguments[..], &["--output", &output.display().to_string()]].concat()).ok();
    assert!(ran.stdout.contains("prompt_level_strict_acc") && ran.stdout.contains("startend:quotation"), "{ran:#?}");
    let result = read(&output.join("result.json"));
    let scores = &result["scores"];
    assert_eq!(scores["prompt_level_strict_acc"]["value"], 0.5);
    assert_eq!(scores["prompt_level_loose_acc"]["value"], 1.0, "without asterisks it is a quotation");
    assert_eq!(scores["inst_level_strict_acc"]["n"], 3);
    assert_eq!(scores["instructions"]["startend:quotation"], json!({"strict": 0.0, "loose": 1.0, "n": 1}));
    assert_eq!((&result["items"][0]["id"], &result["items"][0]["value"]), (&json!("ifeval/1001"), &json!(0.0)));
    assert_eq!(result["manifest"]["model"]["name"], "someone");
    let samples = std::fs::read_to_string(output.join("samples.jsonl")).unwrap();
    let sample: Value = serde_json::from_str(samples.lines().next().unwrap()).unwrap();
    assert_eq!((&sample["strict"], &sample["loose"]), (&json!([true, false]), &json!([true, true])));
    assert_eq!(sample["instructions"][1], "startend:quotation");
}

#[test]
fn the_rules_for_sentences_are_named() {
    let (dir, data) = file("input_data.jsonl", &rows());
    let answer = |prompt: &str| json!({"prompt": prompt, "response": "It is four."}).to_string() + "\n";
    let (_keep, responses) = file("someone.jsonl", &PROMPTS.map(answer).concat());
    let arguments = ["eval", "ifeval", "--responses", &responses, "--data", &data, "--dry-run"];
    let ran = setpoint(&arguments).ok();
    assert!(ran.stderr.contains("rules for sentences: built-in") && !ran.stderr.contains("NLTK_DATA"), "{ran:#?}");
    let with_data = || Ran::of(&command(&arguments).env("NLTK_DATA", dir.path()).output().unwrap()).ok();
    let ran = with_data();
    assert!(ran.stderr.contains("NLTK_DATA: no folder has") && ran.stderr.contains("sentences: built-in"), "{ran:#?}");
    let folder = dir.path().join("tokenizers/punkt_tab/english");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["abbrev_types.txt", "sent_starters.txt", "collocations.tab", "ortho_context.tab"] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    let ran = with_data();
    assert!(ran.stderr.contains("rules for sentences: punkt_tab of NLTK"), "{ran:#?}");
}

#[test]
fn a_model_answers_and_its_responses_are_used_again() {
    let (dir, data) = file("input_data.jsonl", &rows());
    let (output, policy) = (dir.path().join("out"), model().display().to_string());
    let out = output.display().to_string();
    let arguments =
        ["eval", "ifeval", "--model", &policy, "--data", &data, "--output", &out, "--set", "generate.max_new_tokens=6"];
    let dry = setpoint(&[&arguments[..], &["--dry-run"]].concat()).ok();
    assert!(dry.stdout.contains("2 prompts, 3 instructions to follow"), "{dry:#?}");
    setpoint(&arguments).ok();
    let first = read(&output.join("result.json"));
    assert!(first["manifest"]["model"]["hash"].is_string() && first["manifest"]["scoring"]["chat"] == true, "{first}");
    assert_eq!(first["manifest"]["decoding"]["temperature"], 0.0);
    let responses = std::fs::read_to_string(output.join("responses.jsonl")).unwrap();
    assert_eq!(responses.lines().count(), 2);
    setpoint(&arguments).fails(1, &["result.json exists already", "--overwrite"]);
    let again = setpoint(&[&arguments[..], &["--overwrite"]].concat()).ok();
    assert!(again.stderr.contains("responses are taken from"), "{again:#?}");
    assert_eq!(read(&output.join("result.json"))["scores"], first["scores"]);
    // The file is what --responses takes.
    let path = output.join("responses.jsonl").display().to_string();
    let (_keep, verified) = file("x", "");
    let verified = Path::new(&verified).with_file_name("verified");
    let arguments =
        ["eval", "ifeval", "--responses", &path, "--data", &data, "--output", &verified.display().to_string()];
    setpoint(&arguments).ok();
    assert_eq!(read(&verified.join("result.json"))["scores"], first["scores"]);
}

#[test]
fn wrong_rows_and_settings_are_refused_before_any_work() {
    let policy = model().display().to_string();
    let run = |rows: &str, more: &[&str]| {
        let (_rows, data) = file("rows.jsonl", rows);
        setpoint(&[&["eval", "ifeval", "--model", &policy, "--data", &data, "--dry-run"][..], more].concat())
    };
    run("{\"prompt\": \"p\"}\n", &[]).fails(1, &["rows.jsonl, row 1", "not the columns of IFEval", "without key"]);
    run(&rows().replace("no_comma", "no_commas"), &[])
        .fails(1, &["row 1", "unknown instruction `punctuation:no_commas`"]);
    run(&rows().replace("at least", "at most"), &[]).fails(1, &["row 2", "\"at least\" or \"less than\"", "at most"]);
    let long = rows().replace(PROMPTS[1], &"The sum is four. ".repeat(2000));
    run(&long, &[]).fails(1, &["row 1005 (`key`)", "max_position_embeddings"]);
    run(&rows(), &["--set", "generate.samples=2"]).fails(2, &["one response per prompt"]);
    run(&rows(), &["--responses", "r.jsonl"]).fails(2, &["exclude each other"]);
    setpoint(&["eval", "ifeval", "--model", &policy]).fails(2, &["--data hub"]);
    let (_data, data) = file("rows.jsonl", &rows());
    let (_responses, responses) = file("r.jsonl", &(json!({"prompt": PROMPTS[0], "response": "x"}).to_string() + "\n"));
    let arguments = ["eval", "ifeval", "--responses", &responses, "--data", &data, "--dry-run"];
    setpoint(&arguments).fails(1, &["r.jsonl", "no response to the prompt of row 1005"]);
    let row = |response: &str| json!({"prompt": PROMPTS[0], "response": response}).to_string() + "\n";
    let (_responses, responses) = file("r.jsonl", &(row("x") + &row("x") + &row("y")));
    let arguments = ["eval", "ifeval", "--responses", &responses, "--data", &data, "--dry-run"];
    setpoint(&arguments).fails(1, &["r.jsonl, row 3: a second response to the prompt of an earlier row"]);
}

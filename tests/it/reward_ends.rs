//! Where the score of a reward model is read: as trl and transformers do (`tests/golden/README.md`), and as this program trained it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use setpoint_data::{EncoderOptions, TextEncoder};

use super::fixture::{Ran, demo, model, root, setpoint};

fn golden() -> PathBuf {
    root().join("tests/golden/reward_ends")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = read(path);
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// The golden model with the template and padding of a case.
fn folder(case: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (from, name) in [
        (golden(), "config.json"),
        (golden(), "model.safetensors"),
        (demo("tokenizer"), "tokenizer.json"),
        (demo("tokenizer"), "tokenizer_config.json"),
    ] {
        std::fs::copy(from.join(name), dir.path().join(name)).unwrap();
    }
    edit(&dir.path().join("config.json"), |config| config["pad_token_id"] = case["pad_token_id"].clone());
    edit(&dir.path().join("tokenizer_config.json"), |config| {
        config["pad_token"] = case["pad_token"].clone();
        config["chat_template"] = case["chat_template"].clone();
    });
    dir
}

fn rows(expected: &Value) -> String {
    let row = |row: &Value| {
        json!({"prompt": [{"role": "user", "content": row["prompt"]}], "responses": row["responses"]}).to_string()
            + "\n"
    };
    expected["rows"].as_array().unwrap().iter().map(row).collect()
}

fn annotate(model: &Path, data: &Path, settings: &[&str]) -> (Vec<f64>, Ran) {
    let output = model.join("rewards.jsonl");
    let paths = [model, data, &output].map(|path| path.display().to_string());
    let mut arguments = vec!["annotate", "--quiet", "--model", &paths[0], "--data", &paths[1], "--output", &paths[2]];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let ran = setpoint(&arguments).ok();
    let text = std::fs::read_to_string(&output).unwrap();
    std::fs::remove_file(&output).unwrap();
    let rewards =
        text.lines().flat_map(|line| numbers(&serde_json::from_str::<Value>(line).unwrap()["rewards"])).collect();
    (rewards, ran)
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[track_caller]
fn close(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < tolerance, "{got} against {expected}");
    }
}

#[test]
fn a_reward_model_of_trl_scores_as_in_trl_unless_another_place_is_asked_for() {
    let expected = read(&golden().join("expected.json"));
    for (name, case) in expected["cases"].as_object().unwrap() {
        let dir = folder(case);
        let data = dir.path().join("rows.jsonl");
        std::fs::write(&data, rows(&expected)).unwrap();
        let (trl, at_stop) = (numbers(&case["trl"]), numbers(&case["at_stop"]));
        let (rewards, ran) = annotate(dir.path(), &data, &[]);
        close(&rewards, &trl, 1e-5);
        assert!(
            ran.stderr.contains("not made by setpoint") && ran.stderr.matches("the score is read").count() == 1,
            "{name}: {ran:#?}"
        );
        for setting in ["model.response_end=stop", "encode.response_end=stop"] {
            let (rewards, ran) = annotate(dir.path(), &data, &[setting]);
            close(&rewards, &at_stop, 1e-5);
            assert!(ran.stderr.contains("at the stop token, as set"), "{name}: {ran:#?}");
        }
        // As judge of a benchmark: the preference is that of the two rewards.
        for (file, response) in [("own.json", 0), ("base.json", 1)] {
            let output = |row: &Value| json!({"instruction": row["prompt"], "output": row["responses"][response], "generator": file});
            let outputs: Vec<Value> = expected["rows"].as_array().unwrap()[..2].iter().map(output).collect();
            std::fs::write(dir.path().join(file), json!(outputs).to_string()).unwrap();
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        let judge = format!("reward.path={}", dir.path().display());
        let alpaca = [
            "eval",
            "alpaca",
            "--outputs",
            &path("own.json"),
            "--baseline",
            &path("base.json"),
            "--output",
            &path("out"),
            "--set",
            &judge,
        ];
        for (settings, rewards) in [(&[][..], &trl), (&["--set", "reward.response_end=stop"], &at_stop)] {
            setpoint(&[&alpaca[..], settings, &["--overwrite"]].concat()).ok();
            let preference = read(&dir.path().join("out/annotations.json"))[0]["preference"].as_f64().unwrap();
            assert!(
                (preference - 1.0 - 1.0 / (1.0 + (rewards[1] - rewards[0]).exp())).abs() < 1e-5,
                "{name}: {preference}"
            );
        }
    }
}

#[test]
fn a_reward_model_of_ours_is_read_where_it_was_trained_and_padded_with_no_end_of_a_response() {
    let expected = read(&golden().join("expected.json"));
    let case = &expected["cases"]["line_break_pad_is_eos"];
    // A language model whose template prints a line break, and whose padding is its stop token.
    let base = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(model().join(name), base.path().join(name)).unwrap();
    }
    edit(&base.path().join("config.json"), |config| config["pad_token_id"] = case["pad_token_id"].clone());
    edit(&base.path().join("tokenizer_config.json"), |config| {
        config["pad_token"] = case["pad_token"].clone();
        config["chat_template"] = case["chat_template"].clone();
    });
    let data = base.path().join("rows.jsonl");
    std::fs::write(&data, rows(&expected)).unwrap();
    for end in ["stop", "template"] {
        let run = base.path().join(end);
        let paths = [base.path(), &demo("preferences.jsonl"), &run].map(|path| path.display().to_string());
        let encode = format!("encode.response_end={end}");
        let mut arguments = vec!["reward", "--quiet", "--model", &paths[0], "--data", &paths[1], "--run", &paths[2]];
        for setting in [&encode, "data.max_rows=8", "train.max_steps=1", "train.batch_size=4"] {
            arguments.extend(["--set", setting]);
        }
        setpoint(&arguments).ok();
        let trained = run.join("model");
        assert_eq!(read(&trained.join("setpoint.json"))["response_end"], end);

        // transformers reads the score at the last token of a row that is not this one.
        let pad = read(&trained.join("config.json"))["pad_token_id"].as_u64().unwrap() as u32;
        let encoder = TextEncoder::from_dir(&trained, &EncoderOptions::default()).unwrap();
        let spelled = read(&trained.join("tokenizer_config.json"))["pad_token"].as_str().unwrap().to_owned();
        assert_eq!(
            encoder.encode_text(&spelled).unwrap().last(),
            Some(&pad),
            "config.json and the tokenizer name one token"
        );
        assert!(!encoder.stop_ids().contains(&pad) && spelled == "<|pad|>", "{spelled}");

        let (rewards, ran) = annotate(&trained, &data, &[]);
        assert!(ran.stderr.contains("as noted in its setpoint.json"), "{ran:#?}");
        let (asked, _) = annotate(&trained, &data, &[&encode]);
        assert_eq!(rewards, asked);
        let other = if end == "stop" { "template" } else { "stop" };
        assert_ne!(rewards, annotate(&trained, &data, &[&format!("model.response_end={other}")]).0);

        // Trained on, it keeps the place. One of an older version, without notes, was always read at the stop token.
        let next = base.path().join(format!("{end}-next"));
        let paths = [trained.display().to_string(), next.display().to_string()];
        arguments[3] = &paths[0];
        arguments[7] = &paths[1];
        arguments.retain(|argument| *argument != encode.as_str());
        arguments.remove(arguments.iter().position(|argument| *argument == "--set").unwrap());
        setpoint(&arguments).ok();
        assert_eq!(read(&next.join("model/setpoint.json"))["response_end"], end);
        std::fs::remove_file(trained.join("setpoint.json")).unwrap();
        let (older, ran) = annotate(&trained, &data, &[]);
        assert!(ran.stderr.contains("earlier versions"), "{ran:#?}");
        assert_eq!(older == rewards, end == "stop");
        std::fs::write(trained.join("setpoint.json"), "{\"response_end\": \"end\"}").unwrap();
        let paths = [&trained, &data, &base.path().join("x.jsonl")].map(|path| path.display().to_string());
        setpoint(&["annotate", "--model", &paths[0], "--data", &paths[1], "--output", &paths[2]])
            .fails(1, &["setpoint.json", "response_end", "\"template\""]);
    }
}

#[test]
fn padding_is_a_token_that_no_row_holds() {
    let encoder = TextEncoder::from_dir(&demo("tokenizer"), &EncoderOptions::default()).unwrap();
    let special = |name: &str| *encoder.encode_text(name).unwrap().last().unwrap();
    let [begin, user, assistant, end, pad] =
        ["<|begin|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"].map(special);
    let row = [begin, user, 100, assistant, 101, end];
    let found = |vocabulary, rows: &[&[u32]]| encoder.padding_token(vocabulary, rows.iter().copied());
    assert_eq!(found(832, &[&row]), Some((pad, "<|pad|>".to_owned())));
    // Taken, it is an unused special token, else an ordinary one; never a stop token or BOS.
    let special = found(832, &[&[100, pad, end]]).map(|(id, _)| id);
    assert!(special.is_some_and(|id| [user, assistant].contains(&id)), "{special:?}");
    let (id, text) = found(832, &[&row, &[pad, 831]]).unwrap();
    assert_eq!(id, 830);
    let dir = tempfile::tempdir().unwrap();
    let mut saved = TextEncoder::from_dir(&demo("tokenizer"), &EncoderOptions::default()).unwrap();
    saved.set_padding_token(id, text.clone());
    saved.save(dir.path()).unwrap();
    let again = TextEncoder::from_dir(dir.path(), &EncoderOptions::default()).unwrap();
    assert_eq!(again.special_tokens().pad, Some((text, id)));
    assert_eq!(found(5, &[&[user, assistant, pad]]), None, "begin and end are all that is left");
}

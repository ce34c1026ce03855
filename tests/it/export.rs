//! `setpoint export gguf`: what is written, and what is refused before anything is.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{Ran, model, root, setpoint, shared};

fn export(model: &Path, format: &str, output: &Path, more: &[&str]) -> Ran {
    let (model, output) = (model.display().to_string(), output.display().to_string());
    let arguments = ["export", "gguf", "--model", &model, "--type", format, "--output", &output];
    setpoint(&[&arguments, more].concat())
}

/// A copy of the model with another file.
fn with_file(name: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(model()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&entry, dir.path().join(entry.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join(name);
    let mut value = fs::read_to_string(&path).map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
    dir
}

/// Returns whether a GGUF file holds a key with this text, in the way in which the format writes both.
fn holds_text(file: &[u8], key: &str, value: &str) -> bool {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let entry = [text(key), 8_u32.to_le_bytes().to_vec(), text(value)].concat();
    file.windows(entry.len()).any(|window| window == entry)
}

fn holds_number(file: &[u8], key: &str, value: u32) -> bool {
    let entry = [key.as_bytes(), &4_u32.to_le_bytes(), &value.to_le_bytes()].concat();
    file.windows(entry.len()).any(|window| window == entry)
}

#[test]
fn a_trained_model_becomes_a_file_and_a_modelfile() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/tiny.gguf");
    let ran = export(model(), "f32", &path, &[]).ok();
    assert!(ran.stdout.contains("tiny.gguf: ") && ran.stdout.contains("ollama create NAME -f"), "{ran:#?}");
    let file = fs::read(&path).unwrap();
    assert_eq!(file[..8], *b"GGUF\x03\0\0\0");
    for (key, value) in [
        ("general.architecture", "llama"),
        ("general.name", "tiny"),
        ("tokenizer.ggml.model", "gpt2"),
        // The demo's tokenizer splits texts as GPT-2 does, with a vocabulary of its own.
        ("tokenizer.ggml.pre", "gpt-2"),
        ("tokenizer.chat_template", &fs::read_to_string(model().join("chat_template.jinja")).unwrap()),
    ] {
        assert!(holds_text(&file, key, value), "{key}");
    }
    // `<|end|>` ends the template's turns.
    for (key, value) in
        [("tokenizer.ggml.eos_token_id", 3), ("tokenizer.ggml.bos_token_id", 0), ("llama.block_count", 2)]
    {
        assert!(holds_number(&file, key, value), "{key}");
    }
    let recipe = fs::read_to_string(path.with_file_name("Modelfile")).unwrap();
    assert!(recipe.starts_with("FROM ./tiny.gguf\nPARAMETER num_ctx 256\nPARAMETER stop \"<|end|>\"\n"), "{recipe}");
    // The demo's own template is none of the built-in ones.
    assert!(!recipe.contains("TEMPLATE"), "{recipe}");

    // The same model gives the same bytes, and existing files are replaced only when that is asked for.
    export(model(), "f32", &path, &[]).fails(1, &["tiny.gguf exists already", "--overwrite"]);
    export(model(), "f32", &path, &["--overwrite"]).ok();
    assert_eq!(fs::read(&path).unwrap(), file);
    let other = path.with_file_name("other.gguf");
    export(model(), "f32", &other, &[]).fails(1, &["Modelfile exists already"]);
    assert!(!other.exists());

    let small = dir.path().join("q8_0/tiny.gguf");
    export(model(), "q8_0", &small, &[]).ok();
    let (small, whole) = (fs::metadata(small).unwrap().len(), file.len() as u64);
    assert!(small < whole / 2, "{small} of {whole}");
}

#[test]
fn a_modelfile_has_the_stops_the_sampling_and_a_built_in_template() {
    let dir = with_file("generation_config.json", |file| {
        *file = json!({"do_sample": true, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "eos_token_id": [3, 4]});
    });
    // Of chatml, the demo's tokenizer has no token: its turns end with text.
    let plain = setpoint_data::ChatTemplate::built_in(setpoint_data::BuiltIn::Plain);
    fs::write(dir.path().join("chat_template.jinja"), plain.source()).unwrap();
    let path = dir.path().join("out/a model.gguf");
    export(dir.path(), "bf16", &path, &[]).ok();
    let recipe = fs::read_to_string(path.with_file_name("Modelfile")).unwrap();
    let expected = "FROM \"./a model.gguf\"\nPARAMETER num_ctx 256\nPARAMETER stop \"<|end|>\"\nPARAMETER stop \"<|pad|>\"\n\
        PARAMETER temperature 0.6\nPARAMETER top_p 0.95\nPARAMETER top_k 20\nTEMPLATE \"\"\"{{- range .Messages }}\
        {{ if eq .Role \"assistant\" }}Assistant: {{ .Content }}<|end|>\n{{ else if eq .Role \"system\" }}System: {{ .Content }}\n\
        {{ else }}User: {{ .Content }}\n{{ end }}{{ end }}Assistant: \"\"\"\n";
    assert_eq!(recipe, expected);
}

#[test]
fn a_sentencepiece_model_without_its_file_is_exported_by_its_merges() {
    let Some(stories) = shared("model/stories260K") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stories.gguf");
    let ran = export(&stories, "q8_0", &path, &[]).ok();
    // Its feed-forward network is 172 wide.
    assert!(ran.stderr.contains("5 tensors are in f16"), "{ran:#?}");
    let file = fs::read(&path).unwrap();
    assert!(holds_text(&file, "tokenizer.ggml.model", "llama") && holds_text(&file, "tokenizer.ggml.pre", "default"));
}

#[test]
fn models_that_cannot_be_exported_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out/x.gguf");
    let refused = |model: &Path, said: &[&str]| {
        let ran = export(model, "f16", &output, &[]);
        let code = ran.code;
        assert!(code == 1 || code == 2, "{ran:#?}");
        ran.fails(code, said);
        assert!(!dir.path().join("out").exists(), "{}", model.display());
    };
    let golden = root().join("tests/golden/transformer");
    refused(&golden.join("gemma2"), &["this gemma2 model cannot be exported: `query_pre_attn_scalar` is 20"]);
    refused(&golden.join("llama_kv2"), &["tokenizer.json", "not found"]);
    refused(&golden.with_file_name("weights/bin"), &["pytorch_model.bin is a Python pickle", "save_pretrained"]);
    refused(&dir.path().join("none"), &["does not exist"]);
    refused(model().parent().unwrap(), &["is the folder of a run; its model is"]);
    let classifier =
        with_file("config.json", |config| config["architectures"] = json!(["LlamaForSequenceClassification"]));
    refused(classifier.path(), &["holds a reward model"]);
    let adapter = tempfile::tempdir().unwrap();
    fs::write(adapter.path().join("adapter_config.json"), "{}").unwrap();
    refused(adapter.path(), &["holds an adapter, not a whole model", "setpoint merge --model"]);
    let unknown = with_file("tokenizer.json", |file| {
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]});
    });
    refused(unknown.path(), &["cannot be exported to GGUF", "llama.cpp's name for its pre-tokenizer is not known"]);
    export(model(), "q4_k_m", &output, &[]).fails(2, &["q8_0"]);
    let folder = dir.path().display().to_string();
    export(model(), "f16", dir.path(), &[]).fails(2, &[&folder, "is a folder"]);
}

#[test]
fn a_file_of_the_model_is_never_replaced() {
    let model = with_file("config.json", |_| {});
    let weights = model.path().join("model.safetensors");
    let before = fs::read(&weights).unwrap();
    for name in ["model.safetensors", "new"] {
        export(model.path(), "f16", &model.path().join(name), &["--overwrite"])
            .fails(2, &["--output", name, "the place of a file of the model"]);
    }
    #[cfg(unix)]
    {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&weights, &link).unwrap();
        export(model.path(), "f16", &link, &["--overwrite"]).fails(2, &["the place of a file of the model"]);
    }
    assert_eq!(fs::read(&weights).unwrap(), before);
    export(model.path(), "f16", &model.path().join("mine.gguf"), &[]).ok();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("full.gguf");
    std::os::unix::fs::symlink("/dev/full", &output).unwrap();
    export(model(), "f32", &output, &["--overwrite"])
        .fails(1, &["full.gguf", "No space left on device", "free some space"]);
    assert!(!dir.path().join("Modelfile").exists());
}

//! Runs the README's own commands, with the defaults, on a tiny model of each of its two families.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::endpoint::{Action, Server};
use super::fixture::{Ran, demo, root};

/// The model that the README names.
const MODEL: &str = "Qwen2.5-0.5B";

/// The tiny model that takes the place of the README's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    /// Biases on queries, keys and values; ChatML; no BOS token.
    Qwen2,
    /// A BOS token, which the template prints.
    Llama,
}

/// Commands of the README's shell blocks that start with `setpoint`, in their order.
fn commands() -> Vec<Vec<String>> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    // A command may take several lines.
    let readme = readme.replace("\\\n", " ");
    let mut inside = false;
    let mut found = Vec::new();
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside && line.trim_start().starts_with("setpoint ") {
            let command = line.split('#').next().unwrap().trim();
            found.push(command.split_whitespace().skip(1).map(str::to_owned).collect());
        }
    }
    found
}

/// A row in the form that the README shows for DRO's own format.
fn shown_row() -> Value {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let line = readme.lines().find(|line| line.starts_with("{\"prompt\"")).expect("the README shows a row");
    serde_json::from_str(line).unwrap()
}

fn write_lines(path: &Path, rows: &[Value]) {
    let text: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    std::fs::write(path, text).unwrap();
}

/// Adds the README's own row, without what the annotation adds, to the responses that the README generates.
fn append_shown_row(folder: &Path) {
    let mut row = shown_row();
    row.as_object_mut().unwrap().remove("rewards");
    let path = folder.join("responses.jsonl");
    let text = std::fs::read_to_string(&path).expect("the README generates responses");
    std::fs::write(path, format!("{text}{row}\n")).unwrap();
}

fn write_json(path: &Path, value: &Value) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, value.to_string()).unwrap();
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs the command in a folder.
fn run(folder: &Path, arguments: &[String]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_setpoint"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_BACKTRACE")
        .env("OPENAI_API_KEY", "sk-of-a-test")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // `chat` reads a line and ends with its input; the others read nothing and may have ended already.
    let _ = child.stdin.take().unwrap().write_all(b"Which day comes after Friday?\n");
    Ran::of(&child.wait_with_output().unwrap())
}

/// Makes `folder/Qwen2.5-0.5B` of a family: the demo's tokenizer in that family's style and random weights.
fn make_model(folder: &Path, family: Family) {
    let tokenizer = folder.join("tokenizer");
    let mut tokens = read_json(&demo("tokenizer/tokenizer.json"));
    let mut settings = read_json(&demo("tokenizer/tokenizer_config.json"));
    let mut config = read_json(&demo("config.json"));
    for (key, value) in [
        ("hidden_size", 32),
        ("intermediate_size", 64),
        ("num_hidden_layers", 2),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 2),
        ("head_dim", 8),
        ("max_position_embeddings", 4096),
    ] {
        config[key] = value.into();
    }
    settings["model_max_length"] = 4096.into();
    if family == Family::Qwen2 {
        // The same tokens under Qwen's names, and its template. `<|begin|>` becomes an ordinary end of text.
        let names = [
            ("<|begin|>", "<|endoftext|>"),
            ("<|user|>", "<|im_start|>"),
            ("<|end|>", "<|im_end|>"),
            ("<|pad|>", "<|fim_pad|>"),
        ];
        let rename = |text: &str| names.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new));
        tokens = serde_json::from_str(&rename(&tokens.to_string())).unwrap();
        settings = serde_json::from_str(&rename(&settings.to_string())).unwrap();
        settings["bos_token"] = Value::Null;
        settings["pad_token"] = "<|endoftext|>".into();
        settings["additional_special_tokens"] = json!(["<|im_start|>", "<|im_end|>"]);
        settings["chat_template"] = "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + \
            message.content + '<|im_end|>' + '\\n' }}{%- endfor %}{%- if add_generation_prompt %}\
            {{- '<|im_start|>assistant\\n' }}{%- endif %}"
            .into();
        config["architectures"] = json!(["Qwen2ForCausalLM"]);
        config["model_type"] = "qwen2".into();
        config.as_object_mut().unwrap().remove("bos_token_id");
        config.as_object_mut().unwrap().remove("attention_bias");
        config.as_object_mut().unwrap().remove("mlp_bias");
    }
    write_json(&tokenizer.join("tokenizer.json"), &tokens);
    write_json(&tokenizer.join("tokenizer_config.json"), &settings);
    write_json(&folder.join("scratch.json"), &config);
    let arguments = [
        "sft",
        "--data",
        "chats.jsonl",
        "--run",
        "scratch",
        "--set",
        "model.from_scratch=scratch.json",
        "--set",
        "model.tokenizer=tokenizer",
        "--set",
        "train.max_steps=1",
        "--set",
        "samples.prompts=0",
    ];
    run(folder, &arguments.map(String::from)).ok();
    std::fs::rename(folder.join("scratch/model"), folder.join(MODEL)).unwrap();
}

/// Writes every file that the commands name, with text prompts or with chat messages.
fn make_files(folder: &Path, messages: bool) {
    let prompt = |i: usize| {
        let text = format!("How much is {i} and two?");
        if messages { json!([{"role": "user", "content": text}]) } else { text.into() }
    };
    let answers = ["The sum is four.", "Do not bother me."];
    let answer = |text: &str| {
        if messages { json!([{"role": "assistant", "content": text}]) } else { text.into() }
    };
    let rows = |make: &dyn Fn(usize) -> Value| (0..12).map(make).collect::<Vec<Value>>();
    write_lines(
        &folder.join("chats.jsonl"),
        &rows(&|i| {
            let question = format!("How much is {i} and two?");
            json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answers[0]}]})
        }),
    );
    write_lines(
        &folder.join("preferences.jsonl"),
        &rows(&|i| json!({"prompt": prompt(i), "chosen": answer(answers[0]), "rejected": answer(answers[1])})),
    );
    let prompts = rows(&|i| json!({"prompt": prompt(i)}));
    write_lines(&folder.join("prompts.jsonl"), &prompts[..6]);
    write_lines(&folder.join("held-out.jsonl"), &prompts[6..9]);
    let outputs: Vec<Value> = (0..2)
        .map(|i| json!({"instruction": format!("Question {i}?"), "output": "Four.", "generator": "gpt4", "dataset": "d"}))
        .collect();
    write_json(&folder.join("gpt4_outputs.json"), &outputs.into());
    let turns = ["How much is one and two?", "And three?"];
    write_lines(&folder.join("question.jsonl"), &[json!({"question_id": 81, "category": "math", "turns": turns})]);
    write_lines(
        &folder.join("gpt-4.jsonl"),
        &[
            json!({"question_id": 81, "answer_id": "a", "model_id": "gpt-4", "choices": [{"index": 0, "turns": ["3", "4"]}]}),
        ],
    );
    let choices = json!({"text": ["one", "two"], "label": ["A", "B"]});
    std::fs::create_dir_all(folder.join("DATA")).unwrap();
    write_lines(
        &folder.join("DATA/ARC-Challenge_test.jsonl"),
        &[json!({"id": "1", "question": "How much is one and one?", "choices": choices, "answerKey": "B"})],
    );
    let sums: Vec<Value> = (1..8)
        .map(|i| json!({"question": format!("How much is {i} and 1?"), "answer": format!("It is.\n#### {}", i + 1)}))
        .collect();
    write_lines(&folder.join("DATA/gsm8k_test.jsonl"), &sums[..2]);
    write_lines(&folder.join("DATA/gsm8k_train.jsonl"), &sums);
    let common = "model.path = \"runs/sft/model\"\ndata.path = \"rewards.jsonl\"\ntrain = { max_steps = 1, batch_size = 4 }\n\
        [eval]\ndata.path = \"prompts.jsonl\"\npairs.path = \"preferences.jsonl\"\nreward.path = \"runs/reward/model\"\n\
        generate = { max_new_tokens = 8 }\n";
    std::fs::write(folder.join("sweep.toml"), format!("{common}[sweep.settings]\n\"align.beta\" = [0.1, 0.5]\n"))
        .unwrap();
    std::fs::write(
        folder.join("compare.toml"),
        format!("{common}[compare]\nmethods = [\"dro\", \"dpo\"]\nsearch = \"defaults\"\nseeds = [0]\n"),
    )
    .unwrap();
}

/// Runs every command of the README, one after the other, in one folder.
fn first_hour(family: Family, messages: bool) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    make_files(folder, messages);
    make_model(folder, family);
    let judge = Server::start(|_, request| {
        let pairwise = request.body.to_string().contains("logprobs");
        let content = if pairwise { "m" } else { "[[7]]" };
        let top = json!([{"token": "m", "logprob": -0.1}, {"token": "M", "logprob": -2.4}]);
        Action::Json(json!({
            "choices": [{
                "message": {"content": content},
                "finish_reason": "stop",
                "logprobs": {"content": [{"token": "m", "top_logprobs": top}]},
            }],
        }))
    });
    let commands = commands();
    assert!(commands.len() >= 15, "the README's commands were not found: {commands:?}");
    for mut arguments in commands {
        let line = arguments.join(" ");
        if ["eval alpaca", "eval mt-bench"].iter().any(|start| line.starts_with(start)) {
            // The one thing that differs: the judge is on this machine.
            arguments.extend(["--set".to_owned(), format!("judge.base_url={}", judge.base_url)]);
        }
        if line.starts_with("serve") {
            // It would go on until it is told to end.
            arguments.extend(["--port", "0", "--dry-run"].map(str::to_owned));
        }
        let ran = run(folder, &arguments);
        assert_eq!(ran.code, 0, "{family:?}, messages {messages}: setpoint {line}\n{}\n{}", ran.stdout, ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "setpoint {line}\n{}", ran.stderr);
        if line.starts_with("generate") && !messages {
            append_shown_row(folder);
        }
    }
    for made in ["runs/sft/model", "runs/reward/model", "runs/dro/model", "runs/simpo/model"] {
        assert!(folder.join(made).join("model.safetensors").is_file(), "{made}");
    }
    let trained = |run: &str| std::fs::read(folder.join(run).join("model/model.safetensors")).unwrap();
    let start = std::fs::read(folder.join(MODEL).join("model.safetensors")).unwrap();
    assert!(start != trained("runs/sft"), "fine-tuning changed nothing");
    assert!(trained("runs/sft") != trained("runs/dro"), "alignment changed nothing");
    let page: PathBuf = folder.join("report.html");
    assert!(page.is_file(), "no report");
}

#[test]
fn the_readmes_commands_work_on_a_qwen2_with_text_prompts() {
    first_hour(Family::Qwen2, false);
}

#[test]
fn the_readmes_commands_work_on_a_qwen2_with_messages() {
    first_hour(Family::Qwen2, true);
}

#[test]
fn the_readmes_commands_work_on_a_llama_with_text_prompts() {
    first_hour(Family::Llama, false);
}

#[test]
fn the_readmes_commands_work_on_a_llama_with_messages() {
    first_hour(Family::Llama, true);
}

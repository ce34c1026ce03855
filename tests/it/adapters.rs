//! Adapters from the command line: training, PEFT's folders, their use in place of a model, merging, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::fixture::{Ran, demo, file, model, rewarded_rows, root, setpoint};

/// Trains an adapter on the tiny model for a few steps.
fn train(job: &str, run: &Path, data: &str, more: &[&str]) -> Ran {
    let (base, run) = (model().display().to_string(), run.display().to_string());
    let mut arguments = vec![job, "--quiet", "--model", &base, "--data", data, "--run", &run];
    let samples = ["samples.prompts=1", "samples.generate.max_new_tokens=4"].into_iter().filter(|_| job != "reward");
    for set in ["train.max_steps=3", "train.batch_size=4"].into_iter().chain(samples) {
        arguments.extend(["--set", set]);
    }
    setpoint(&[&arguments, more].concat())
}

fn conversations() -> String {
    demo("pretrain/sft.jsonl").display().to_string()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn metric(run: &Path, step: usize, name: &str) -> f64 {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let row: Value = serde_json::from_str(text.lines().nth(step - 1).unwrap()).unwrap();
    row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"))
}

/// The names of the tensors in a file of safetensors.
fn tensors(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header.keys().filter(|name| *name != "__metadata__").cloned().collect()
}

/// A copy of the base with another number in its weights.
fn other_base(dir: &Path) -> PathBuf {
    let other = dir.join("other");
    fs::create_dir(&other).unwrap();
    for entry in fs::read_dir(model()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&entry, other.join(entry.file_name().unwrap())).unwrap();
    }
    let weights = other.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&0.25_f32.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    other
}

/// An adapter that SFT made, with its folder.
fn sft_adapter(dir: &Path) -> PathBuf {
    let run = dir.join("sft");
    train("sft", &run, &conversations(), &["--set", "adapter.rank=4", "--set", "train.learning_rate=0.01"]).ok();
    run.join("model")
}

#[test]
fn a_run_leaves_a_folder_in_the_layout_of_peft_that_works_as_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = sft_adapter(dir.path());
    let settings = json(&adapter.join("adapter_config.json"));
    assert_eq!(
        (&settings["peft_type"], &settings["r"], &settings["lora_alpha"]),
        (&"LORA".into(), &4.into(), &32.into())
    );
    assert_eq!(settings["base_model_name_or_path"], model().display().to_string());
    assert!(!adapter.join("model.safetensors").exists() && !adapter.join("config.json").exists());
    let names = tensors(&adapter.join("adapter_model.safetensors"));
    assert_eq!(names.len(), 28);
    assert!(names.iter().all(|name| name.starts_with("base_model.model.model.layers.")), "{names:?}");

    // Checkpoints hold the adapter and its optimizer alone.
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let base = size(&model().join("model.safetensors"));
    let checkpoints: Vec<PathBuf> =
        fs::read_dir(dir.path().join("sft/checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let largest =
        checkpoints.iter().flat_map(|dir| fs::read_dir(dir).unwrap()).map(|entry| size(&entry.unwrap().path()));
    assert!(!checkpoints.is_empty() && largest.max().unwrap() < base, "a checkpoint holds the base");

    let adapter = adapter.display().to_string();
    let greedy = |model: &str| {
        let ran = setpoint(&[
            "generate",
            "--model",
            model,
            "--prompt",
            "How much is one and two?",
            "--quiet",
            "--set",
            "generate.temperature=0",
            "--set",
            "generate.max_new_tokens=8",
        ]);
        ran.ok().stdout
    };
    let merged = dir.path().join("merged");
    let said = setpoint(&["merge", "--model", &adapter, "--output", &merged.display().to_string()]).ok();
    assert!(said.stdout.contains("nats from the adapter on its base"), "{said:#?}");
    assert_eq!(greedy(&adapter), greedy(&merged.display().to_string()));
    assert!(tensors(&merged.join("model.safetensors")).iter().all(|name| !name.contains("lora")));
    setpoint(&["merge", "--model", &adapter, "--output", &merged.display().to_string()]).fails(1, &["--overwrite"]);
    setpoint(&["merge", "--model", &merged.display().to_string(), "--output", "x"]).fails(2, &["holds no adapter"]);
    for source in [adapter.as_str(), &format!("{}/.", model().display())] {
        setpoint(&["merge", "--model", &adapter, "--output", source, "--overwrite"])
            .fails(2, &["is read for the merge"]);
    }
    setpoint(&["export", "gguf", "--model", &adapter, "--type", "f32", "--output", "x.gguf"])
        .fails(2, &["setpoint merge"]);
    let shown = setpoint(&["inspect", "model", &adapter]).ok();
    assert!(shown.stdout.contains("rank 4, alpha 32"), "{shown:#?}");

    let output = dir.path().join("logps.jsonl").display().to_string();
    let (_rows, data) = file("rows.jsonl", &rewarded_rows(2));
    setpoint(&["logps", "--model", &adapter, "--data", &data, "--output", &output, "--quiet"]).ok();

    // The base is checked by its hash.
    let other = other_base(dir.path());
    setpoint(&["merge", "--model", &adapter, "--base", &other.display().to_string(), "--output", "y"])
        .fails(1, &["trained on another base"]);
    setpoint(&["merge", "--model", &adapter, "--base", &adapter, "--output", "y"])
        .fails(2, &["is an adapter itself: merge that one"]);
    let path = Path::new(&adapter).join("adapter_config.json");
    let mut settings = json(&path);
    settings["base_model_name_or_path"] = "somebody/else".into();
    fs::write(&path, settings.to_string()).unwrap();
    setpoint(&["generate", "--model", &adapter, "--prompt", "a"]).fails(2, &["somebody/else", "not a model folder"]);
}

#[test]
fn a_model_made_of_an_adapter_without_settings_of_sampling_has_those_of_the_base() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    fs::create_dir(&base).unwrap();
    for entry in fs::read_dir(model()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&entry, base.join(entry.file_name().unwrap())).unwrap();
    }
    let written =
        serde_json::json!({ "eos_token_id": [2, 40, 41], "repetition_penalty": 1.25, "top_k": 7, "do_sample": true });
    fs::write(base.join("generation_config.json"), written.to_string()).unwrap();
    // As PEFT writes adapters: `adapter_config.json` and tensors.
    let adapter = sft_adapter(dir.path());
    let file = adapter.join("generation_config.json");
    fs::remove_file(&file).unwrap();
    let path = adapter.join("adapter_config.json");
    let follow = |base: &str| {
        let mut settings = json(&path);
        settings["base_model_name_or_path"] = base.into();
        fs::write(&path, settings.to_string()).unwrap();
    };

    let (adapter, base) = (adapter.display().to_string(), base.display().to_string());
    let named = ["--base", base.as_str()];
    for (name, recorded, more) in [("named", "nowhere", &named[..]), ("followed", &base, &[])] {
        follow(recorded);
        let output = dir.path().join(name);
        let output_text = output.display().to_string();
        setpoint(&[&["merge", "--model", &adapter, "--output", &output_text], more].concat()).ok();
        let found = json(&output.join("generation_config.json"));
        for key in ["repetition_penalty", "top_k", "do_sample"] {
            assert_eq!(found[key], written[key], "{name}: {key} of {found}");
        }
        let stops = found["eos_token_id"].as_array().unwrap();
        assert!([2, 40, 41].iter().all(|id| stops.contains(&(*id).into())), "{name}: {found}");
    }
}

#[test]
fn log_ratios_are_0_at_the_first_step_for_new_adapters_and_those_that_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (_rows, data) = file("rewards.jsonl", &rewarded_rows(8));
    let first = sft_adapter(dir.path()).display().to_string();
    for (name, more, said) in [
        (
            "new",
            vec!["--set", "adapter.rank=2", "--set", "adapter.targets=[\"q_proj\", \"down_proj\"]"],
            "with the adapter switched off",
        ),
        ("on", vec!["--adapter", &first], "as it was"),
    ] {
        for method in ["dpo", "dro"] {
            let run = dir.path().join(format!("{name}-{method}"));
            let method = format!("align.method={method}");
            let ran = train("align", &run, &data, &[&more[..], &["--set", &method]].concat()).ok();
            assert!(
                ran.stderr.contains(&format!("reference: {}", model().display())) && ran.stderr.contains(said),
                "{ran:#?}"
            );
            if method.ends_with("dpo") {
                // Reference and policy are computed in batches of their own: in f32 that leaves 1e-7 of a log-probability.
                let loss = metric(&run, 1, "loss");
                assert!((loss - f64::ln(2.0)).abs() < 1e-6, "{name}: a log-ratio differs from 0: {loss}");
            }
            assert!(run.join("model/adapter_model.safetensors").is_file());
        }
    }
}

#[test]
fn value_networks_and_reward_models_are_adapters_with_a_head() {
    let dir = tempfile::tempdir().unwrap();
    let (_rows, data) = file("rewards.jsonl", &rewarded_rows(8));
    let value = dir.path().join("value");
    train("align", &value, &data, &["--set", "adapter.rank=2", "--set", "align.method=dro_v"]).ok();
    let reward = dir.path().join("reward");
    train("reward", &reward, &data, &["--set", "adapter.rank=2", "--set", "train.learning_rate=0.01"]).ok();
    for folder in [value.join("value"), reward.join("model")] {
        let settings = json(&folder.join("adapter_config.json"));
        assert_eq!(settings["task_type"], "SEQ_CLS");
        assert!(
            tensors(&folder.join("adapter_model.safetensors")).contains(&"base_model.model.score.weight".to_owned())
        );
    }
    let scored = |model: &Path, output: &str| -> Vec<f64> {
        let output = dir.path().join(output);
        let (model, out) = (model.display().to_string(), output.display().to_string());
        setpoint(&["annotate", "--model", &model, "--data", &data, "--output", &out, "--quiet"]).ok();
        let text = fs::read_to_string(output).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.flat_map(|row| row["rewards"].as_array().unwrap().clone()).map(|reward| reward.as_f64().unwrap()).collect()
    };
    let adapter = reward.join("model");
    let merged = dir.path().join("merged");
    setpoint(&["merge", "--model", &adapter.display().to_string(), "--output", &merged.display().to_string()]).ok();
    let (a, b) = (scored(&adapter, "a.jsonl"), scored(&merged, "b.jsonl"));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} against {b:?}");
    assert!(a.iter().any(|score| score.abs() > 1e-3), "{a:?}");
}

/// A message of all of these names the flag.
#[test]
fn every_job_that_trains_can_go_on_from_an_adapter() {
    for job in ["sft", "reward", "align", "sweep", "compare"] {
        assert!(setpoint(&[job, "--help"]).ok().stdout.contains("--adapter <DIR>"), "{job}");
    }
}

#[test]
fn training_goes_on_from_an_adapter_on_its_own_base_alone() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = sft_adapter(dir.path());
    let (other, from) = (other_base(dir.path()), adapter.display().to_string());
    let (_rows, rewards) = file("rewards.jsonl", &rewarded_rows(8));
    let path = format!("model.path={}", other.display());
    for (job, data, more) in [("sft", &conversations(), &[][..]), ("align", &rewards, &["--set", "align.method=dpo"])] {
        let more = [&["--adapter", &from, "--set", &path], more].concat();
        train(job, &dir.path().join(format!("on-{job}")), data, &more)
            .fails(1, &["trained on another base", "--model"]);
    }
    // The base that its settings name need not be there: --model gives it.
    let path = adapter.join("adapter_config.json");
    let mut settings = json(&path);
    settings["base_model_name_or_path"] = "somebody/else".into();
    fs::write(&path, settings.to_string()).unwrap();
    train("sft", &dir.path().join("on"), &conversations(), &["--adapter", &from]).ok();
}

#[test]
fn a_value_network_has_no_head_of_tokens_to_train() {
    let dir = tempfile::tempdir().unwrap();
    let (_rows, data) = file("rewards.jsonl", &rewarded_rows(8));
    let run = dir.path().join("run");
    let own =
        ["--set", "align.method=dro_v", "--set", "adapter.rank=2", "--set", "adapter.modules_to_save=[\"lm_head\"]"];
    train("align", &run, &data, &own).ok();
    let names = |part: &str| tensors(&run.join(part).join("adapter_model.safetensors"));
    // The demo's head is its table of embeddings.
    assert!(names("model").contains(&"base_model.model.lm_head.weight".to_owned()));
    let of_value = names("value");
    assert!(of_value.contains(&"base_model.model.score.weight".to_owned()), "{of_value:?}");
    assert!(of_value.iter().all(|name| !name.contains("lm_head") && !name.contains("embed_tokens")), "{of_value:?}");
}

#[test]
fn bad_settings_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let data = conversations();
    for (more, said) in [
        (vec!["--set", "adapter.rank=0"], "`adapter.rank` must be at least 1"),
        (vec!["--set", "adapter.modules_to_save=[\"\"]"], "`adapter.modules_to_save` holds an empty name"),
        (vec!["--set", "adapter.targets=[\"query\"]"], "called `query`"),
        (vec!["--set", "adapter.modules_to_save=[\"lm_heed\"]"], "lm_heed"),
        (vec!["--set", "adapter.alpha=-1"], "`adapter.alpha` must be positive"),
        (vec!["--set", "adapter.dropout=1"], "`adapter.dropout` must be at least 0 and below 1"),
        (vec!["--adapter", "nowhere"], "`nowhere` holds no adapter"),
    ] {
        let ran = train("sft", &run, &data, &more);
        assert!([1, 2].contains(&ran.code) && ran.stderr.contains(said), "{ran:#?}");
        assert!(!run.exists(), "{more:?} left a run folder");
    }
    let adapter = sft_adapter(dir.path()).display().to_string();
    train("sft", &run, &data, &["--set", &format!("model.path={adapter}")]).fails(2, &["is an adapter", "--adapter"]);
    train("sft", &run, &data, &["--adapter", &adapter, "--set", "adapter.rank=8"]).fails(2, &["apply: leave out"]);
}

#[test]
fn dropout_is_of_training_steps_alone_and_an_adapter_keeps_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (_rows, data) = file("rewards.jsonl", &rewarded_rows(8));
    let run_of = |name: &str| dir.path().join(name);
    let rate = |run: &Path| json(&run.join("model/adapter_config.json"))["lora_dropout"].as_f64().unwrap();
    let new = |name: &str, more: &[&str]| {
        let settings = ["--set", "adapter.rank=2", "--set", "align.method=dpo", "--set", "train.learning_rate=1e-3"];
        train("align", &run_of(name), &data, &[&settings, more].concat()).ok();
        [1, 2, 3].map(|step| metric(&run_of(name), step, "loss"))
    };
    let (without, with) = (new("without", &[]), new("with", &["--set", "adapter.dropout=0.5"]));
    assert_eq!(without[0], with[0], "B is 0");
    assert_ne!(without[1..], with[1..]);
    assert_eq!((rate(&run_of("without")), rate(&run_of("with"))), (0.0, 0.5));

    let adapter = run_of("with").join("model").display().to_string();
    for (name, more, expected) in [("own", None, 0.5), ("other", Some("adapter.dropout=0.25"), 0.25)] {
        let more: Vec<&str> = more.into_iter().flat_map(|set| ["--set", set]).collect();
        let run = run_of(name);
        train("sft", &run, &conversations(), &[&["--adapter", &adapter], &more[..]].concat()).ok();
        assert_eq!(rate(&run), expected);
        // A resumed run has what its settings say, whatever becomes of the folder that it began with.
        let settings: toml::Table = fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
        assert_eq!(settings["adapter"]["dropout"].as_float(), Some(expected));
    }
}

#[test]
fn a_plan_counts_the_adapter_alone() {
    let (base, data) = (model().display().to_string(), conversations());
    let plan = |more: &[&str]| -> Value {
        let arguments = ["plan", "--job", "sft", "--json", "--set"];
        let set = [format!("model.path={base}"), "--set".into(), format!("data.path={data}")];
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        serde_json::from_str(&setpoint(&[&arguments, &set[..], more].concat()).ok().stdout).unwrap()
    };
    let (full, adapter) = (plan(&[]), plan(&["--set", "adapter.rank=4"]));
    // Two layers: q and o [32, 32], k and v [16, 32], gate and up [64, 32], down [32, 64], each with r (in + out).
    let expected = 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (64 + 32));
    assert_eq!(adapter["trained"], expected);
    let bytes = |part: &str| adapter["memory"][part].as_f64().unwrap();
    assert_eq!((bytes("gradients"), bytes("optimizer")), (f64::from(4 * expected), f64::from(8 * expected)));
    assert!(full["trained"].as_u64() > adapter["trained"].as_u64());
}

#[test]
fn adapters_are_trained_on_a_quantised_base() {
    let dir = tempfile::tempdir().unwrap();
    let (_rows, data) = file("rewards.jsonl", &rewarded_rows(8));
    let run = dir.path().join("run");
    let nf4 = ["--set", "adapter.rank=2", "--set", "model.quantize=nf4", "--set", "align.method=dpo"];
    train("align", &run, &data, &nf4).ok();
    let loss = metric(&run, 1, "loss");
    assert!((loss - f64::ln(2.0)).abs() < 1e-5, "the reference is quantised as well: {loss}");
    let adapter = run.join("model").display().to_string();
    let greedy = |more: &[&str]| {
        let arguments = ["generate", "--model", &adapter, "--prompt", "How much is it?", "--quiet", "--set"];
        let more = [&["generate.temperature=0", "--set", "generate.max_new_tokens=4"], more].concat();
        setpoint(&[&arguments, &more[..]].concat()).ok()
    };
    greedy(&["--set", "model.quantize=nf4"]);
    greedy(&[]);
    // In full, it is not trained.
    train("sft", &dir.path().join("full"), &conversations(), &["--set", "model.quantize=nf4"])
        .fails(2, &["trained by an adapter"]);
    setpoint(&["chat", "--model", &adapter, "--set", "model.double_quant=false"]).fails(2, &["nothing is quantised"]);
}

#[test]
fn a_base_that_is_pickled_is_not_merged_into() {
    let golden = root().join("tests/golden");
    let path = |name: &str| golden.join(name).display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("merged").display().to_string();
    setpoint(&["merge", "--model", &path("lora/llama"), "--base", &path("weights/bin"), "--output", &output])
        .fails(1, &["pytorch_model.bin is a Python pickle", "save_pretrained"]);
}

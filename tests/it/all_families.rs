//! Every shape of `models/tiny`, and so every family, through the whole command: training, adapters, merging, alignment, reward models,
//! generation, plans and export.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::Value;
use setpoint_transformer::checkpoint::Checkpoint;
use setpoint_transformer::{CausalLm, LoadOptions, ModelConfig, ModelType};

use super::fixture::{Ran, demo, file, rewarded_rows, root, setpoint};

/// Says which of the shapes are exported to GGUF with the demo's tokenizer. Those of the others have a window or a pattern of layers that
/// llama.cpp does not compute.
const EXPORTED: [&str; 9] =
    ["eurollm", "gemma2", "granite", "llama", "ministral3", "mistral", "olmo2", "qwen2", "qwen3"];

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The shape with the vocabulary of the demo.
fn shape(name: &str, dir: &Path) -> PathBuf {
    let mut config = json(&root().join("models/tiny").join(name).join("config.json"));
    let ids = [("vocab_size", 832), ("bos_token_id", 0), ("eos_token_id", 3), ("pad_token_id", 4)];
    ids.into_iter().for_each(|(key, value)| config[key] = value.into());
    let path = dir.join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    path
}

/// A folder of runs that begin with one model.
struct Home {
    dir: tempfile::TempDir,
    data: String,
}

impl Home {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn run(&self, job: &str, run: &str, settings: &[&str]) -> Ran {
        let data = if job == "sft" { demo("pretrain/sft.jsonl").display().to_string() } else { self.data.clone() };
        let run = self.path(run);
        let mut arguments = vec![job, "--quiet", "--run", &run, "--data", &data];
        let common = ["data.max_rows=12", "train.max_steps=2", "train.batch_size=4", "train.learning_rate=0.01"];
        let samples = ["samples.prompts=1", "samples.generate.max_new_tokens=4"];
        let samples = samples.iter().filter(|_| job != "reward");
        settings.iter().chain(&common).chain(samples).for_each(|set| arguments.extend(["--set", set]));
        setpoint(&arguments).ok()
    }

    fn greedy(&self, model: &str) -> String {
        let model = self.path(model);
        let mut arguments = vec!["generate", "--quiet", "--model", &model, "--prompt", "How much is one and two?"];
        ["generate.temperature=0", "generate.max_new_tokens=40"]
            .iter()
            .for_each(|set| arguments.extend(["--set", set]));
        setpoint(&arguments).ok().stdout
    }

    fn scores(&self, model: &str, output: &str) -> Vec<f64> {
        let (model, output) = (self.path(model), self.path(output));
        setpoint(&["annotate", "--quiet", "--model", &model, "--data", &self.data, "--output", &output]).ok();
        let text = fs::read_to_string(output).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.flat_map(|row| row["rewards"].as_array().unwrap().clone()).map(|score| score.as_f64().unwrap()).collect()
    }
}

fn go_through(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let config = shape(name, dir.path());
    let (_rows, data) = file("rewards.jsonl", &rewarded_rows(6));
    let home = Home { dir, data };
    let scratch = format!("model.from_scratch={}", config.display());
    home.run("sft", "base", &[&scratch, &format!("model.tokenizer={}", demo("tokenizer").display())]);
    let base = home.path("base/model");
    let family = ModelConfig::from_dir(Path::new(&base)).unwrap();

    // The saved folder has exactly the tensors of the model, and a tied head once.
    let saved = Checkpoint::open(Path::new(&base)).unwrap();
    assert_eq!(saved.names().any(|tensor| tensor == "lm_head.weight"), !family.tie_word_embeddings, "{name}");
    CausalLm::load(Path::new(&base), &LoadOptions::default(), &Device::flex()).unwrap();

    let of_base = format!("model.path={base}");
    home.run("sft", "adapter", &[&of_base, "adapter.rank=2"]);
    setpoint(&["merge", "--model", &home.path("adapter/model"), "--output", &home.path("merged")]).ok();
    assert_eq!(home.greedy("adapter/model"), home.greedy("merged"), "{name}: the merged model is the adapter's");

    // The log-ratios of the first step are 0.
    home.run("align", "aligned", &[&of_base, "align.method=dpo"]);
    let first = fs::read_to_string(home.path("aligned/metrics.jsonl")).unwrap();
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert!((first["loss"].as_f64().unwrap() - f64::ln(2.0)).abs() < 1e-5, "{name}: {first}");

    home.run("reward", "reward", &[&of_base]);
    let class = json(Path::new(&home.path("reward/model/config.json")))["architectures"][0].clone();
    assert!(class.as_str().unwrap().ends_with("ForSequenceClassification"), "{name}: {class}");
    home.run("reward", "reward-adapter", &[&of_base, "adapter.rank=2"]);
    for model in ["reward/model", "reward-adapter/model"] {
        let scores = home.scores(model, &format!("{}.jsonl", model.replace('/', "-")));
        let distinct = scores.iter().filter(|&&score| (score - scores[0]).abs() > 1e-6).count();
        assert!(scores.iter().all(|score| score.is_finite()) && distinct > 0, "{name}, {model}: {scores:?}");
    }

    for job in ["sft", "align", "reward"] {
        let plan = setpoint(&["plan", "--job", job, "--model", &base, "--data", &home.data, "--json"]).ok().stdout;
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let weights = plan["memory"]["weights"].as_f64().unwrap();
        if job != "reward" {
            assert_eq!(weights, 4.0 * family.num_parameters() as f64, "{name}, {job}: {plan}");
        }
        assert!(plan["memory"]["activations"].as_f64().unwrap() > 0.0, "{name}, {job}: {plan}");
    }

    let file = home.path("exported/model.gguf");
    let ran = setpoint(&["export", "gguf", "--model", &base, "--type", "f32", "--output", &file]);
    if EXPORTED.contains(&name) {
        ran.ok();
    } else {
        ran.fails(1, &["cannot be exported: "]);
    }
}

/// A test for each shape, so that they run next to each other.
macro_rules! shapes {
    ($($name:ident),*) => {
        const SHAPES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                go_through(stringify!($name));
            }
        )*
    };
}

shapes!(eurollm, gemma2, gemma3, granite, llama, ministral3, mistral, olmo2, phi3, qwen2, qwen3, smollm3);

#[test]
fn every_family_goes_through() {
    let mut found: Vec<String> = fs::read_dir(root().join("models/tiny"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, SHAPES);
    let families: Vec<ModelType> = SHAPES
        .iter()
        .map(|name| ModelConfig::from_dir(&root().join("models/tiny").join(name)).unwrap().model_type)
        .collect();
    assert!(ModelType::all().all(|family| families.contains(&family)));
}

//! Every card in `models/` agrees with its own `config.json`, and with what transformers counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use setpoint_transformer::{Architecture, ModelConfig, ModelType};

/// The checkpoints that are not tuned to instructions.
const BASE_MODELS: [&str; 1] = ["Llama-3-8B"];

/// Tokens of the one row that the memory figures assume.
const ROW: u64 = 2048;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Card {
    name: String,
    hub_id: String,
    license: String,
    family: String,
    template: Option<String>,
    parameters: u64,
    context_length: usize,
    tied: bool,
    stop_tokens: Vec<StopToken>,
    memory: Memory,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopToken {
    id: u32,
    text: String,
}

/// Bytes, with parameters in bf16; `models/README.md` has the formulas.
#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Memory {
    weights: u64,
    kv_cache_per_token: u64,
    generate: u64,
    logps: u64,
    sft: u64,
    reward: u64,
    align: u64,
}

impl Memory {
    fn of(config: &ModelConfig) -> Self {
        let parameters = config.num_parameters();
        let weights = 2 * parameters;
        let cached = config.num_hidden_layers * config.num_key_value_heads * config.head_dim;
        // Keys and values, two bytes each.
        let kv_cache_per_token = 2 * 2 * cached as u64;
        Self {
            weights,
            kv_cache_per_token,
            generate: weights + ROW * kv_cache_per_token,
            logps: weights + 4 * ROW * config.vocab_size as u64,
            // As `setpoint plan` counts: 2 weights, 4 gradients in f32, 4 master weights and 8 moments.
            sft: 18 * parameters,
            reward: 18 * reward_parameters(config),
            align: 18 * parameters,
        }
    }
}

/// Parameters of the reward model that has this decoder.
fn reward_parameters(config: &ModelConfig) -> u64 {
    let mut config = config.clone();
    config.architecture = Architecture::SequenceClassification;
    config.num_labels = 1;
    config.num_parameters()
}

#[derive(Deserialize)]
struct Counted {
    parameters: u64,
    reward_parameters: u64,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The folders with a card: all but `tiny`.
fn checkpoints() -> Vec<(String, Card, ModelConfig)> {
    let found: Vec<_> = folders(&root().join("models"))
        .into_iter()
        .filter(|folder| name(folder) != "tiny")
        .map(|folder| {
            let card = toml::from_str(&read(&folder.join("card.toml")))
                .unwrap_or_else(|error| panic!("{}/card.toml: {error}", name(&folder)));
            let config = ModelConfig::from_dir(&folder).unwrap_or_else(|error| panic!("{error}"));
            (name(&folder), card, config)
        })
        .collect();
    assert!(found.len() >= 12, "only {} checkpoints in models/", found.len());
    found
}

/// The rates of the row of docs/LEARNING_RATES.md that a model of so many parameters belongs to: SFT, reward model, alignment.
fn learning_rates(parameters: u64) -> [String; 3] {
    let row = match parameters {
        0..700_000_000 => "up to 0.5 B",
        700_000_000..5_000_000_000 => "1 B to 3 B",
        _ => "7 B to 9 B",
    };
    let text = read(&root().join("docs/LEARNING_RATES.md"));
    let cells: Vec<&str> =
        text.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap().split('|').collect();
    // The first of the two numbers is for all weights.
    [2, 3, 4].map(|cell| cells[cell].split('·').next().unwrap().trim().to_owned())
}

#[test]
fn cards_name_the_learning_rates_of_the_docs() {
    for (name, card, _) in checkpoints() {
        let [sft, reward, align] = learning_rates(card.parameters);
        let line = format!(
            "# Learning rates to start from (../../docs/LEARNING_RATES.md): SFT {sft}, reward model {reward}, alignment {align}; \
             adapters ten times that."
        );
        let text = read(&root().join("models").join(&name).join("card.toml"));
        assert!(text.contains(&line), "models/{name}/card.toml must have the line\n{line}");
    }
}

#[test]
fn cards_agree_with_their_configs() {
    for (name, card, config) in checkpoints() {
        assert_eq!(card.name, name);
        assert_eq!(card.hub_id.split('/').count(), 2, "{name}: hub_id is owner/repository");
        assert!(card.hub_id.ends_with(&name), "{name}: hub_id {}", card.hub_id);
        assert!(!card.license.is_empty(), "{name}: license");
        assert_eq!(card.family, config.model_type.as_str(), "{name}: family");
        assert_eq!(card.parameters, config.num_parameters(), "{name}: parameters");
        assert_eq!(card.context_length, config.max_position_embeddings, "{name}: context_length");
        assert_eq!(card.tied, config.tie_word_embeddings, "{name}: tied");
        assert_eq!(card.memory, Memory::of(&config), "{name}: memory");
        // An instruction-tuned checkpoint has a template, a base model has none.
        assert_eq!(card.template.is_none(), BASE_MODELS.contains(&name.as_str()), "{name}: template");
    }
}

#[test]
fn stop_tokens_cover_the_configs() {
    for (name, card, config) in checkpoints() {
        let stops: Vec<u32> = card.stop_tokens.iter().map(|token| token.id).collect();
        assert!(!config.eos_token_ids.is_empty(), "{name}: config.json has no eos_token_id");
        for id in &config.eos_token_ids {
            assert!(stops.contains(id), "{name}: eos_token_id {id} is not among {stops:?}");
        }
        for token in &card.stop_tokens {
            assert!((token.id as usize) < config.vocab_size, "{name}: stop token {}", token.id);
        }
        // The first closes a turn of the template.
        let closing = match card.template.as_deref() {
            Some("llama3" | "llama3_1" | "llama3_2") => "<|eot_id|>",
            Some("qwen2_5" | "qwen3" | "smollm3" | "chatml") => "<|im_end|>",
            Some("gemma") => "<end_of_turn>",
            Some("granite3_3") => "<|end_of_text|>",
            Some("olmo2") => "<|endoftext|>",
            Some("phi4") => "<|end|>",
            Some("mistral") => "</s>",
            None => "<|end_of_text|>",
            Some(other) => panic!("{name}: template family {other}"),
        };
        assert_eq!(card.stop_tokens[0].text, closing, "{name}");
    }
}

/// `tests/golden/make_models.py` wrote what transformers counts.
#[test]
fn parameters_are_those_of_transformers() {
    let counted: BTreeMap<String, Counted> =
        serde_json::from_str(&read(&root().join("tests/golden/models.json"))).unwrap();
    let models = root().join("models");
    let tiny = folders(&models.join("tiny")).into_iter().map(|folder| (format!("tiny/{}", name(&folder)), folder));
    let all: BTreeMap<String, PathBuf> = folders(&models)
        .into_iter()
        .filter(|folder| name(folder) != "tiny")
        .map(|folder| (name(&folder), folder))
        .chain(tiny)
        .collect();
    assert_eq!(all.keys().collect::<Vec<_>>(), counted.keys().collect::<Vec<_>>(), "run make_models.py");
    for (name, folder) in all {
        let config = ModelConfig::from_dir(&folder).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.num_parameters(), counted[&name].parameters, "{name}");
        assert_eq!(reward_parameters(&config), counted[&name].reward_parameters, "{name} as a reward model");
    }
}

#[test]
fn every_family_has_a_tiny_shape_and_a_card_and_is_in_the_readme() {
    let readme = read(&root().join("models/README.md"));
    let shapes = folders(&root().join("models/tiny")).into_iter().map(|dir| ModelConfig::from_dir(&dir).unwrap());
    let shapes: Vec<ModelType> = shapes.map(|config| config.model_type).collect();
    let cards: Vec<ModelType> = checkpoints().into_iter().map(|(_, _, config)| config.model_type).collect();
    for family in ModelType::all() {
        assert!(shapes.contains(&family), "models/tiny/ lacks a shape of the family {family}");
        assert!(cards.contains(&family), "models/ lacks a card of the family {family}");
        assert!(readme.contains(&format!("`{family}`")), "models/README.md does not name the family `{family}`");
    }
}

#[test]
fn the_readme_lists_every_checkpoint() {
    let readme = read(&root().join("models/README.md"));
    for (name, card, config) in checkpoints() {
        let row = format!(
            "| {name} | {:.2} B | {} | {} | {} | {} |",
            card.parameters as f64 / 1e9,
            thousands(config.max_position_embeddings),
            if card.tied { "yes" } else { "no" },
            card.template.as_deref().unwrap_or("none (base model)"),
            card.license,
        );
        assert!(readme.contains(&row), "models/README.md lacks the row\n{row}");
    }
}

fn thousands(n: usize) -> String {
    if n < 1000 { n.to_string() } else { format!("{},{:03}", thousands(n / 1000), n % 1000) }
}

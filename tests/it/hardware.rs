//! The table of docs/HARDWARE.md: the plan of every checkpoint in models/.

use std::path::Path;

use serde_json::{Value, json};

use super::fixture::{demo, root, setpoint};

/// The memory of common cards, in GB.
const CARDS: [u32; 4] = [24, 48, 80, 141];

/// A way to train, and the settings that choose it.
struct Way {
    name: &'static str,
    /// How the columns of cards call it.
    short: &'static str,
    settings: &'static [&'static str],
}

/// Ways from the plainest to the one that takes the least memory.
const WAYS: [Way; 4] = [
    Way { name: "all weights", short: "yes", settings: &["train.micro_batch.tokens=2048"] },
    Way {
        name: "all weights, `in_backward`",
        short: "`in_backward`",
        settings: &[
            "train.optimizer.in_backward=true",
            "train.max_grad_norm=0",
            "train.batch_size=8",
            "train.micro_batch.examples=8",
        ],
    },
    Way {
        name: "LoRA",
        short: "LoRA",
        settings: &["train.micro_batch.tokens=2048", "adapter.rank=16", "train.recompute=block"],
    },
    Way {
        name: "QLoRA",
        short: "QLoRA",
        settings: &["train.micro_batch.tokens=2048", "adapter.rank=16", "train.recompute=block", "model.quantize=nf4"],
    },
];

/// Writes rows of about 200 tokens each, so that a step of eight has about 2,000.
fn write_rows(path: &Path) {
    let sentence = "A duck lives on a pond. It eats seeds. ";
    let row = json!({"prompt": sentence.repeat(4), "chosen": sentence.repeat(8), "rejected": sentence.repeat(7)});
    std::fs::write(path, format!("{row}\n").repeat(64)).unwrap();
}

/// Returns the bytes that an alignment of a model needs at most, by `setpoint plan`.
fn peak(model: &Path, rows: &Path, settings: &[&str]) -> f64 {
    let (model, rows) = (model.to_str().unwrap(), rows.to_str().unwrap());
    let mut arguments = vec!["plan", "--job", "align", "--model", model, "--data", rows, "--device", "cuda", "--json"];
    for setting in ["align.method=dpo", "data.text_prompts=plain"].iter().chain(settings) {
        arguments.extend(["--set", setting]);
    }
    let plan: Value = serde_json::from_str(&setpoint(&arguments).ok().stdout).unwrap();
    plan["peak"].as_f64().unwrap()
}

/// Returns the names and the numbers of parameters of the checkpoints in models/, by size.
fn checkpoints() -> Vec<(String, u64)> {
    let cards = std::fs::read_dir(root().join("models")).unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path().join("card.toml")).ok()?;
        let card: toml::Table = text.parse().unwrap();
        let parameters = card["parameters"].as_integer().unwrap();
        Some((entry.file_name().to_string_lossy().into_owned(), u64::try_from(parameters).unwrap()))
    });
    let mut cards: Vec<_> = cards.collect();
    cards.sort_by_key(|(name, parameters)| (*parameters, name.clone()));
    cards
}

#[test]
fn the_docs_have_the_plans_of_all_models() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.jsonl");
    write_rows(&rows);
    let names = WAYS.iter().map(|way| format!(" {}, GB |", way.name)).collect::<String>();
    let cards = CARDS.iter().map(|card| format!(" {card} GB |")).collect::<String>();
    let mut table =
        format!("| model | parameters |{names}{cards}\n|---|---|{}\n", "---|".repeat(WAYS.len() + CARDS.len()));
    for (name, parameters) in checkpoints() {
        let model = dir.path().join(&name);
        std::fs::create_dir(&model).unwrap();
        std::fs::copy(root().join("models").join(&name).join("config.json"), model.join("config.json")).unwrap();
        // Lengths of rows are all that the tokenizer decides.
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(demo("tokenizer").join(file), model.join(file)).unwrap();
        }
        let peaks = WAYS.map(|way| peak(&model, &rows, way.settings) / 1e9);
        let needed = peaks.map(|peak| format!(" {peak:.1} |")).concat();
        let fits = CARDS.map(|card| {
            let way = WAYS.iter().zip(peaks).position(|(_, peak)| peak <= f64::from(card));
            format!(" {} |", way.map_or("no", |way| WAYS[way].short))
        });
        table += &format!("| {name} | {:.2} B |{needed}{}\n", parameters as f64 / 1e9, fits.concat());
    }
    let page = std::fs::read_to_string(root().join("docs/HARDWARE.md")).unwrap();
    assert!(page.contains(&format!("\n\n{table}\n")), "docs/HARDWARE.md must hold this table:\n\n{table}");
}

//! The tables of docs/HARDWARE.md and docs/GPU.md: the plans of every checkpoint in models/.

use std::path::{Path, PathBuf};

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
            "train.clip_by=previous",
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

/// Writes a number of rows of about 250 tokens each, so that a step of eight has about 2,000.
fn write_rows(path: &Path, count: usize) {
    let sentence = "A duck lives on a pond. It eats seeds. ";
    let row = json!({"prompt": sentence.repeat(4), "chosen": sentence.repeat(8), "rejected": sentence.repeat(7)});
    std::fs::write(path, format!("{row}\n").repeat(count)).unwrap();
}

/// Copies the shape of a model into `dir`, with a tokenizer.
fn model_in(dir: &Path, name: &str) -> PathBuf {
    let model = dir.join(name);
    std::fs::create_dir(&model).unwrap();
    std::fs::copy(root().join("models").join(name).join("config.json"), model.join("config.json")).unwrap();
    // Lengths of rows are all that the tokenizer decides.
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(demo("tokenizer").join(file), model.join(file)).unwrap();
    }
    model
}

/// Returns the plan of an alignment of a model on devices of 80 GB, by `setpoint plan`.
fn plan(model: &Path, rows: &Path, device: &str, settings: &[&str]) -> Value {
    let (model, rows) = (model.to_str().unwrap(), rows.to_str().unwrap());
    let mut arguments = vec!["plan", "--job", "align", "--model", model, "--data", rows, "--json"];
    arguments.extend(["--device", device, "--device-memory", "80GB"]);
    for setting in ["align.method=dpo", "data.text_prompts=plain"].iter().chain(settings) {
        arguments.extend(["--set", setting]);
    }
    serde_json::from_str(&setpoint(&arguments).ok().stdout).unwrap()
}

/// Returns the bytes that it needs at most on each device.
fn peak(model: &Path, rows: &Path, device: &str, settings: &[&str]) -> f64 {
    plan(model, rows, device, settings)["peak"].as_f64().unwrap()
}

/// Returns the largest part of the memory on a device.
fn largest(memory: &Value) -> &str {
    let parts = memory.as_object().unwrap().iter().filter(|(name, _)| *name != "tokens");
    let size = |part: &(&String, &Value)| part.1.as_f64().unwrap();
    parts.max_by(|a, b| size(a).total_cmp(&size(b))).unwrap().0
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
    write_rows(&rows, 64);
    let names = WAYS.iter().map(|way| format!(" {}, GB |", way.name)).collect::<String>();
    let cards = CARDS.iter().map(|card| format!(" {card} GB |")).collect::<String>();
    let mut table =
        format!("| model | parameters |{names}{cards}\n|---|---|{}\n", "---|".repeat(WAYS.len() + CARDS.len()));
    for (name, parameters) in checkpoints() {
        let model = model_in(dir.path(), &name);
        let peaks = WAYS.map(|way| peak(&model, &rows, "cuda", way.settings) / 1e9);
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

#[test]
fn the_docs_have_the_plans_of_an_8b_model_on_several_devices() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.jsonl");
    write_rows(&rows, 128);
    let model = model_in(dir.path(), "Llama-3-8B");
    let mut table =
        "| Llama-3-8B, GB on each | 1 GPU | 2 GPUs | 8 GPUs | 16 GPUs |\n|---|---|---|---|---|\n".to_owned();
    let undivided = Way {
        name: "all weights, `shard = false`",
        short: "",
        settings: &["train.micro_batch.tokens=2048", "train.optimizer.shard=false"],
    };
    let [plain, in_backward, ..] = WAYS;
    for way in [plain, in_backward, undivided] {
        let cells = [1, 2, 8, 16].map(|devices| {
            // Eight rows on each device.
            let batch_size = format!("train.batch_size={}", 8 * devices);
            let examples = format!("train.micro_batch.examples={}", 8 * devices);
            let mut settings = vec![batch_size.as_str()];
            for &setting in way.settings.iter().filter(|setting| !setting.starts_with("train.batch_size")) {
                settings.push(if setting.starts_with("train.micro_batch.examples") { &examples } else { setting });
            }
            let peak = peak(&model, &rows, &format!("cuda:0-{}", devices - 1), &settings) / 1e9;
            if peak <= 80.0 { format!(" **{peak:.1}** |") } else { format!(" {peak:.1} |") }
        });
        table += &format!("| {} |{}\n", way.name, cells.concat());
    }
    let page = std::fs::read_to_string(root().join("docs/HARDWARE.md")).unwrap();
    assert!(page.contains(&format!("\n\n{table}\n")), "docs/HARDWARE.md must hold this table:\n\n{table}");
}

/// Each checkpoint with eight rows on each of several devices, and the part that takes most of their memory.
#[test]
fn the_docs_have_the_plans_of_all_models_on_several_devices() {
    let dir = tempfile::tempdir().unwrap();
    let rows = dir.path().join("rows.jsonl");
    write_rows(&rows, 128);
    let mut table = "| model | trained | 1 | 2 | 8 | 16 | largest part on 1 | on 16 |\n".to_owned();
    table += &format!("|{}\n", "---|".repeat(8));
    for (name, _) in checkpoints() {
        let model = model_in(dir.path(), &name);
        for way in WAYS.iter().filter(|way| way.short != "`in_backward`") {
            let settings: Vec<&str> = way.settings.iter().copied().chain(["train.batch_size=128"]).collect();
            let plan = plan(&model, &rows, "cuda:0-15", &settings);
            let on = plan["on_devices"].as_array().unwrap();
            assert_eq!(on.iter().map(|on| on["devices"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 8, 16]);
            let cell = |on: &Value| {
                let fits = if on["fits"].as_bool().unwrap() { "" } else { " (no)" };
                format!(" {:.1}{fits} |", on["peak"].as_f64().unwrap() / 1e9)
            };
            let cells: String = on.iter().map(cell).collect();
            let parts = [0, 3].map(|i: usize| largest(&on[i]["memory"]));
            table += &format!("| {name} | {} |{cells} {} | {} |\n", way.name, parts[0], parts[1]);
        }
    }
    let page = std::fs::read_to_string(root().join("docs/GPU.md")).unwrap();
    assert!(page.contains(&format!("\n\n{table}\n")), "docs/GPU.md must hold this table:\n\n{table}");
}

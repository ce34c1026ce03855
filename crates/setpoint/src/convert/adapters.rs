//! The rules for the settings of adapters.

use serde_json::Value as Json;
use toml::Value;

use super::Tool;
use super::draft::{Draft, count, number};
use super::rules::{Names, misread_numbers};

/// Values that a tool has if its file does not say otherwise.
struct Defaults {
    rank: i64,
    /// For a rank.
    alpha: fn(i64) -> f64,
    /// The rate of dropout.
    dropout: f64,
    /// All linear maps; else queries and values, as PEFT has it.
    all_linear: bool,
}

/// Carries over the adapter that the file trains, if it trains one.
pub fn adapter(draft: &mut Draft<'_>, _: Names<'_>) {
    let (is_on, defaults) = match draft.tool {
        Tool::Trl => {
            (draft.is_on("use_peft"), Defaults { rank: 16, alpha: |_| 32.0, dropout: 0.05, all_linear: false })
        }
        Tool::Axolotl => {
            let kind = draft.text("adapter");
            (
                matches!(kind, Some("lora" | "qlora")),
                Defaults { rank: 8, alpha: |_| 16.0, dropout: 0.0, all_linear: false },
            )
        }
        Tool::LlamaFactory => {
            let kind = draft.text("finetuning_type");
            let alpha = |rank| 2.0 * rank as f64;
            (matches!(kind, None | Some("lora")), Defaults { rank: 8, alpha, dropout: 0.0, all_linear: true })
        }
    };
    if !is_on {
        return;
    }
    if let Some((name, path)) = draft.first(&["adapter_name_or_path", "lora_model_dir"]) {
        match path.as_str() {
            // Its own settings apply.
            Some(path) => return draft.set("adapter.path", path),
            None => draft.misread(name, "the folder of an adapter"),
        }
    }
    misread_numbers(draft, &["lora_r", "lora_rank", "lora_alpha", "loraplus_lr_ratio"]);
    let rank = draft.first(&["lora_r", "lora_rank"]).and_then(|(_, value)| count(value)).unwrap_or(defaults.rank);
    draft.set("adapter.rank", rank);
    let alpha = draft.number("lora_alpha").unwrap_or_else(|| (defaults.alpha)(rank));
    draft.set("adapter.alpha", alpha);
    dropout(draft, defaults.dropout);
    targets(draft, defaults.all_linear);
    if draft.is_on("use_rslora") || draft.is_on("peft_use_rslora") {
        draft.set("adapter.rslora", true);
    }
    if draft.is_on("use_dora") || draft.is_on("peft_use_dora") {
        draft.set("adapter.dora", true);
    }
    if let Some((name, value)) = draft.first(&["lora_modules_to_save", "additional_target"]) {
        match texts(value) {
            Some(modules) => draft.set("adapter.modules_to_save", modules),
            None => draft.misread(name, "names of modules"),
        }
    }
    if let Some(ratio) = draft.number("loraplus_lr_ratio") {
        draft.set("adapter.plus_ratio", ratio);
    }
}

/// Quantises the base of an adapter (QLoRA), if the file does so to 4 bits.
pub fn quantize(draft: &mut Draft<'_>, names: Names<'_>) {
    let bits = draft.first(&["quantization_bit"]);
    if let Some((name, value)) = bits.filter(|(_, value)| count(value) != Some(4)) {
        return draft
            .lose(name, format!("weights are quantised to 4 bits alone (model.quantize = \"nf4\"), not {value}"));
    }
    if bits.is_none() && !draft.is_on("load_in_4bit") {
        return;
    }
    if !draft.settings.contains_key("adapter") {
        return draft.lose(names[0], "a quantised model is trained through an adapter alone: add a section [adapter]");
    }
    draft.set("model.quantize", "nf4");
    let is_double = match draft.tool {
        Tool::Trl => draft.is_on("use_bnb_nested_quant"),
        Tool::Axolotl => true,
        Tool::LlamaFactory => draft.get("double_quantization").and_then(Json::as_bool) != Some(false),
    };
    if !is_double {
        draft.set("model.double_quant", false);
    }
}

/// Sets the dropout, if there is any.
fn dropout(draft: &mut Draft<'_>, default: f64) {
    const NAME: &str = "lora_dropout";
    let rate = match draft.get(NAME) {
        None => Some(default),
        Some(value) => number(value).filter(|rate| (0.0..1.0).contains(rate)),
    };
    match rate {
        Some(rate) if rate > 0.0 => draft.set("adapter.dropout", rate),
        Some(_) => {}
        None => draft.misread(NAME, "a number of at least 0 and below 1"),
    }
}

/// Sets the maps that get an update.
fn targets(draft: &mut Draft<'_>, all_linear: bool) {
    let named = draft.first(&["lora_target_modules", "lora_target"]);
    let all = || Value::from("all-linear");
    let targets = match named {
        _ if draft.is_on("lora_target_linear") => all(),
        None if all_linear => all(),
        None => vec!["q_proj", "v_proj"].into(),
        Some((_, Json::String(text))) if ["all", "all-linear"].contains(&text.as_str()) => all(),
        // A regular expression, but for LLaMA-Factory, whose texts are lists.
        Some((_, Json::String(text))) if draft.tool != Tool::LlamaFactory => text.as_str().into(),
        Some((name, value)) => match texts(value) {
            Some(names) => names.into(),
            None => return draft.misread(name, "names of modules"),
        },
    };
    draft.set("adapter.targets", targets);
}

/// Returns a list of texts, also one with commas.
fn texts(value: &Json) -> Option<Vec<String>> {
    match value {
        Json::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Json::String(text) => Some(text.split(',').map(|name| name.trim().to_owned()).collect()),
        _ => None,
    }
}

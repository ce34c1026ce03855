//! The rules for settings that are more than a number under another name.

use serde_json::Value as Json;
use setpoint_data::BuiltIn;
use toml::{Table, Value};

use super::adapters::{adapter, quantize};
use super::data::{data, eval_data};
use super::draft::{Draft, count, number};
use super::methods::{beta, desirable, label_smoothing, method, simpo_gamma, tau, undesirable, weights};
use super::tracker::tracker;
use crate::config::{Carry, FOREIGN, Rule};

/// Names of settings in the tool at hand, in the order of the list.
pub type Names<'n> = &'n [&'static str];

/// Carries over the names of a rule, of which the file has at least one.
pub fn carry(rule: Rule, draft: &mut Draft<'_>, names: Names<'_>) {
    let by = match rule {
        Rule::Model => model,
        Rule::Tokenizer => tokenizer,
        Rule::Template => template,
        Rule::TemplateKwargs => template_kwargs,
        Rule::Dtype => dtype,
        Rule::Reference => reference,
        Rule::Data => data,
        Rule::System => system,
        Rule::EvalData => eval_data,
        Rule::LongRows => long_rows,
        Rule::Method => method,
        Rule::Losses => weights,
        Rule::Beta => beta,
        Rule::GammaBetaRatio => simpo_gamma,
        Rule::LabelSmoothing => label_smoothing,
        Rule::Tau => tau,
        Rule::DesirableWeight => desirable,
        Rule::UndesirableWeight => undesirable,
        Rule::MaxSteps => max_steps,
        Rule::BatchSize => batch,
        Rule::Recompute => recompute,
        Rule::Schedule => schedule,
        Rule::Warmup => warmup,
        Rule::Betas => betas,
        Rule::Optimizer => optimizer,
        Rule::LoggingSteps => logging_steps,
        Rule::EvalSteps => eval_steps,
        Rule::SaveSteps => save_steps,
        Rule::Best => best,
        Rule::Adapter => adapter,
        Rule::Quantize => quantize,
        Rule::Run => run_folder,
        Rule::Tracker => tracker,
    };
    by(draft, names);
}

/// The model: a folder, or an id on the hub.
fn model(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((name, value)) = draft.first(names) else { return };
    match value.as_str() {
        Some(path) => {
            draft.set("model.path", path);
        }
        None => draft.misread(name, "the name of a model"),
    }
}

/// A tokenizer of its own.
fn tokenizer(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((name, value)) = draft.first(names) else { return };
    match value.as_str() {
        Some(path) => {
            draft.set("model.tokenizer", path);
        }
        None => draft.misread(name, "the name of a tokenizer"),
    }
}

/// The chat template.
fn template(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((name, value)) = draft.first(names) else { return };
    // The same conversation format under the names of the tools.
    let ours = match value.as_str() {
        Some("tokenizer_default" | "jinja" | "default") => return draft.agree(name),
        Some("phi_3") => "phi3",
        Some("qwen_25" | "qwen") => "qwen2_5",
        Some(text) if BuiltIn::ALL.iter().any(|known| known.name() == text) || text.ends_with(".jinja") => text,
        _ => {
            return draft.lose(
                name,
                "the tokenizer's own template is used: for another, set model.template to a .jinja file or a built-in name",
            );
        }
    };
    draft.set("model.template", ours);
}

/// Variables of the chat template.
fn template_kwargs(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((name, value)) = draft.first(names) else { return };
    if name == "enable_thinking" {
        match value.as_bool() {
            Some(on) => draft.set("model.template_kwargs.enable_thinking", on),
            None => draft.misread(name, "true or false"),
        }
        return;
    }
    match Table::try_from(value) {
        Ok(table) if value.is_object() => draft.set("model.template_kwargs", table),
        _ => draft.misread(name, "a table of variables"),
    }
}

/// The number format of the weights.
fn dtype(draft: &mut Draft<'_>, names: Names<'_>) {
    let named = draft.text("dtype").or_else(|| draft.text("torch_dtype"));
    let named = named.and_then(|text| match text.trim_start_matches("torch.") {
        "bfloat16" => Some("bf16"),
        "float32" => Some("f32"),
        "float16" => Some("f16"),
        _ => None,
    });
    let is_on = |name: &str| names.contains(&name) && draft.is_on(name);
    let mixed = ["bf16", "bfloat16", "pure_bf16"].into_iter().find(|name| is_on(name));
    let found = if named.is_some() {
        named
    } else if let Some(name) = mixed {
        draft.lose(name, "it is slower than f32 on a CPU: there, remove model.dtype from the settings");
        Some("bf16")
    } else {
        is_on("float32").then_some("f32")
    };
    for name in ["bf16", "fp16"] {
        // What `model.dtype` is by default: the checkpoint's own format where the device computes in it.
        if names.contains(&name) && draft.text(name) == Some("auto") {
            draft.agree(name);
        }
    }
    for name in ["fp16", "float16"] {
        if names.contains(&name) && draft.is_on(name) {
            draft.lose(
                name,
                "training in f16 needs a scaled loss, which does not exist here: use model.dtype = \"bf16\"",
            );
        }
    }
    if let Some(dtype) = found {
        draft.set("model.dtype", dtype);
    }
}

/// The reference model.
fn reference(draft: &mut Draft<'_>, names: Names<'_>) {
    if let Some((_, Json::String(path))) = draft.first(names) {
        draft.set("reference", path.clone());
    }
}

/// A system turn.
fn system(draft: &mut Draft<'_>, names: Names<'_>) {
    if let Some((_, Json::String(text))) = draft.first(names) {
        draft.set("data.system", text.clone());
    }
}

/// Rows that are too long.
fn long_rows(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((name, value)) = draft.first(names) else { return };
    match value.as_str() {
        Some("drop") => draft.set("encode.long_rows", "drop"),
        Some("raise") => draft.set("encode.long_rows", "error"),
        _ => draft.lose(name, "a response is never cut: rows that are too long are dropped and counted"),
    }
}

/// The number of steps, which overrides the epochs.
fn max_steps(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((name, value)) = draft.first(names) else { return };
    match count(value) {
        Some(steps) if steps > 0 => draft.set("train.max_steps", steps),
        // The epochs count.
        Some(_) => draft.agree(name),
        None => draft.misread(name, "a number of steps"),
    }
}

/// The batch: that of a device, as often as it is accumulated.
fn batch(draft: &mut Draft<'_>, names: Names<'_>) {
    let or = |draft: &Draft<'_>, name: &str, default: i64| match draft.get(name) {
        None => Some(default),
        Some(value) => count(value).filter(|count| (1..=1 << 20).contains(count)),
    };
    let each = or(draft, names[0], super::default_batch(draft.tool));
    let times = or(draft, names[1], 1);
    let (Some(each), Some(times)) = (each, times) else {
        return draft.lose(names[0], "the batch size could not be read: set train.batch_size");
    };
    let whole = names.get(2).and_then(|name| draft.get(name)).and_then(count).filter(|whole| *whole >= each);
    draft.set("train.batch_size", whole.unwrap_or(each * times));
    draft.set("train.micro_batch.examples", each);
}

/// Carries over whether blocks are computed again.
fn recompute(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((name, value)) = draft.first(names) else { return };
    let on = match value {
        Json::Bool(on) => *on != name.starts_with("disable"),
        // axolotl's `offload`.
        _ => true,
    };
    draft.set("train.recompute", if on { "block" } else { "none" });
}

/// The shape of the schedule.
fn schedule(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((name, value)) = draft.first(names) else { return };
    match value.as_str() {
        Some(kind @ ("linear" | "cosine" | "constant")) => draft.set("train.schedule.kind", kind),
        Some("constant_with_warmup") => draft.set("train.schedule.kind", "constant"),
        _ => draft.lose(name, "the schedules are constant, linear and cosine, each with a warm-up"),
    }
}

/// The warm-up.
fn warmup(draft: &mut Draft<'_>, names: Names<'_>) {
    misread_numbers(draft, names);
    let steps = draft.number("warmup_steps").filter(|steps| *steps > 0.0);
    let ratio = draft.number("warmup_ratio").filter(|ratio| *ratio > 0.0);
    match (steps, ratio) {
        // transformers 5 takes a ratio in the place of steps.
        (Some(ratio), _) if ratio < 1.0 => draft.set("train.schedule.warmup.ratio", ratio),
        (Some(steps), _) => draft.set("train.schedule.warmup.steps", steps as i64),
        (None, Some(ratio)) => draft.set("train.schedule.warmup.ratio", ratio),
        (None, None) => draft.set("train.schedule.warmup.steps", 0),
    }
}

/// The decay rates of the moments.
fn betas(draft: &mut Draft<'_>, names: Names<'_>) {
    misread_numbers(draft, names);
    let beta = |name: &str, default: f64| draft.number(name).unwrap_or(default);
    let betas = vec![Value::Float(beta(names[0], 0.9)), Value::Float(beta(names[1], 0.999))];
    draft.set("train.optimizer.betas", betas);
}

/// The optimizer, of which there is one, and what its moments are held in.
fn optimizer(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((name, value)) = draft.first(names) else { return };
    let text = value.as_str().unwrap_or_default();
    if !text.contains("adamw") {
        draft.lose(name, "the optimizer is AdamW: choose the learning rate for it");
    } else if text.contains("8bit") {
        draft.set("train.optimizer.state", "8bit");
    } else if text.contains("4bit") || text.contains("paged") {
        draft.lose(
            name,
            "the moments of AdamW are in f32: train.optimizer.state = \"8bit\" takes a quarter of the memory",
        );
    } else {
        draft.agree(name);
    }
}

/// Steps between log lines.
fn logging_steps(draft: &mut Draft<'_>, names: Names<'_>) {
    match draft.first(names).and_then(|(_, value)| count(value)) {
        Some(steps) if steps > 0 => draft.set("train.logging_steps", steps),
        _ => draft.lose(names[0], "logs are counted in whole steps: set train.logging_steps"),
    }
}

/// Steps between evaluations.
fn eval_steps(draft: &mut Draft<'_>, _: Names<'_>) {
    every(draft, "eval", "eval_steps", "train.eval_steps");
}

/// Reports evaluations for which the file names no rows: those of a share of the training rows are not split off here.
pub fn warn_of_no_eval_data(draft: &mut Draft<'_>) {
    let is_asked = draft.settings.get("train").is_some_and(|train| train.get("eval_steps").is_some());
    if is_asked && !draft.settings.contains_key("eval_data") {
        let asked = FOREIGN.iter().filter(|known| known.carry == Carry::By(Rule::EvalSteps));
        let name = asked.map(|known| known.name).find(|name| draft.get(name).is_some()).unwrap_or("eval_steps");
        draft.lose(name, "nothing is evaluated without rows to evaluate on: set eval_data.path");
    }
}

/// Steps between checkpoints.
fn save_steps(draft: &mut Draft<'_>, _: Names<'_>) {
    every(draft, "save", "save_steps", "train.save_steps");
}

/// Carries over the things that transformers does by steps, by epochs or never.
fn every(draft: &mut Draft<'_>, what: &str, steps: &'static str, ours: &str) {
    let strategy = format!("{what}_strategy");
    match (draft.text(&strategy), draft.number(steps)) {
        (None, None) => {}
        (Some("no"), _) if what == "save" => {
            draft.lose(&strategy, format!("a run is saved by time and at its end all the same: see {ours}"));
        }
        (Some("no"), _) => draft.agree(&strategy),
        (Some("epoch"), _) => draft.lose(&strategy, format!("epochs are counted in steps here: set {ours}")),
        (_, Some(number)) if number >= 1.0 && number.fract() == 0.0 => draft.set(ours, number as i64),
        (_, Some(_)) => draft.lose(steps, format!("a share of the run is counted in steps here: set {ours}")),
        (Some(_), None) => {}
    }
}

/// The best checkpoint, and when to stop.
fn best(draft: &mut Draft<'_>, names: Names<'_>) {
    let patience = names.get(3).and_then(|name| draft.get(name)).and_then(count).filter(|patience| *patience > 0);
    let restore = draft.is_on("load_best_model_at_end");
    if !restore && patience.is_none() {
        return;
    }
    if !draft.settings.contains_key("eval_data") {
        return draft.lose(names[0], "the best checkpoint is found by evaluations: set eval_data.path and train.best");
    }
    let metric = draft.text("metric_for_best_model").unwrap_or("loss");
    let metric = if metric.starts_with("eval_") { metric.to_owned() } else { format!("eval_{metric}") };
    let greater = draft.get("greater_is_better").and_then(Json::as_bool).unwrap_or(!metric.ends_with("loss"));
    draft.set("train.best.metric", metric);
    draft.set("train.best.greater_is_better", greater);
    draft.set("train.best.restore", restore);
    if let Some(patience) = patience {
        draft.set("train.best.patience", patience);
    }
}

/// The run folder.
fn run_folder(draft: &mut Draft<'_>, names: Names<'_>) {
    draft.run = draft.first(names).and_then(|(_, value)| value.as_str()).map(str::to_owned);
}

/// Notes the values of some names that are no numbers.
pub fn misread_numbers(draft: &mut Draft<'_>, names: Names<'_>) {
    for name in names {
        if draft.get(name).is_some_and(|value| number(value).is_none()) {
            draft.misread(name, "a number");
        }
    }
}

/// Returns the numbers of a list.
pub fn numbers(value: &Json) -> Vec<f64> {
    match value {
        Json::Array(list) => list.iter().filter_map(number).collect(),
        value => number(value).into_iter().collect(),
    }
}

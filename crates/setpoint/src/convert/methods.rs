//! The training that a file describes, and the losses of preference training.

use serde_json::{Map, Value as Json};
use setpoint_align::Method;
use toml::{Table, Value};

use super::draft::{Draft, number};
use super::rules::{Names, numbers};
use super::{Tool, Trainer};
use crate::config::load::to_table;
use crate::failure::{Failure, Outcome};

/// The pairwise losses under trl's names, which the other tools use as well.
const LOSSES: [(&str, &str); 16] = [
    ("sigmoid", "dpo"),
    ("hinge", "hinge"),
    ("ipo", "ipo"),
    ("exo_pair", "exo_pair"),
    ("nca_pair", "nca_pair"),
    ("robust", "robust"),
    ("bco_pair", "bco_pair"),
    ("sppo_hard", "sppo_hard"),
    ("aot", "aot"),
    ("aot_unpaired", "aot_unpaired"),
    ("apo_zero", "apo_zero"),
    ("apo_down", "apo_down"),
    ("discopop", "discopop"),
    ("sigmoid_norm", "sigmoid_norm"),
    ("orpo", "orpo"),
    ("simpo", "simpo"),
];

/// The strength of the loss that all three tools take unless told.
const BETA: f64 = 0.1;

/// SimPO's margin that all three tools take unless told.
const SIMPO_GAMMA: f64 = 0.5;

/// Settings of trl that belong to one of its trainers alone.
const TELLING: [(Trainer, &[&str]); 5] = [
    (Trainer::Reward, &["center_rewards_coefficient"]),
    (Trainer::Kto, &["desirable_weight", "undesirable_weight"]),
    (Trainer::Simpo, &["simpo_gamma", "cpo_alpha"]),
    (
        Trainer::Dpo,
        &[
            "beta",
            "label_smoothing",
            "precompute_ref_log_probs",
            "f_divergence_type",
            "discopop_tau",
            "loss_weights",
            "ld_alpha",
            "use_weighting",
        ],
    ),
    (
        Trainer::Sft,
        &[
            "packing",
            "assistant_only_loss",
            "completion_only_loss",
            "dataset_text_field",
            "eval_packing",
            "dataset_kwargs",
        ],
    ),
];

/// Methods of rounds that have the same name there.
const ONLINE: [&str; 3] = ["grpo", "ppo", "rloo"];

/// Returns what a file trains.
///
/// # Errors
/// If the file does not say it, or if it is something that does not exist here.
pub fn trainer(tool: Tool, source: &Map<String, Json>, said: Option<Trainer>) -> Outcome<Trainer> {
    let text = |name: &str| source.get(name).and_then(Json::as_str);
    let on = |name: &str| source.get(name).and_then(Json::as_bool) == Some(true);
    let unknown = |name: &str, value: &str| match ONLINE.contains(&value) {
        true => Failure::run(format!(
            "`{name}: {value}` samples while it trains, and its settings are not converted: write them for `setpoint align --rounds N --set \
             align.method={value}` (docs/ROUNDS.md)"
        )),
        false => Failure::run(format!(
            "`{name}: {value}` does not exist here: SFT, reward models, DPO and its relatives, KTO, ORPO and SimPO do"
        )),
    };
    if let Some(said) = said {
        return Ok(said);
    }
    match tool {
        Tool::Axolotl if on("process_reward_model") => Err(unknown("process_reward_model", "true")),
        Tool::Axolotl if on("reward_model") => Ok(Trainer::Reward),
        Tool::Axolotl => match text("rl") {
            None => Ok(Trainer::Sft),
            Some("dpo" | "ipo") => Ok(Trainer::Dpo),
            Some("kto") => Ok(Trainer::Kto),
            Some("orpo") => Ok(Trainer::Orpo),
            Some("simpo") => Ok(Trainer::Simpo),
            Some(other) => Err(unknown("rl", other)),
        },
        Tool::LlamaFactory => match (text("stage"), text("pref_loss")) {
            // Pre-training is SFT on whole texts.
            (None | Some("sft" | "pt"), _) => Ok(Trainer::Sft),
            (Some("rm"), _) => Ok(Trainer::Reward),
            (Some("kto"), _) => Ok(Trainer::Kto),
            (Some("dpo"), Some("orpo")) => Ok(Trainer::Orpo),
            (Some("dpo"), Some("simpo")) => Ok(Trainer::Simpo),
            (Some("dpo"), _) => Ok(Trainer::Dpo),
            (Some(other), _) => Err(unknown("stage", other)),
        },
        Tool::Trl => {
            let names = match source.get("loss_type") {
                Some(Json::Array(list)) => list.iter().filter_map(Json::as_str).collect(),
                Some(Json::String(name)) => vec![name.as_str()],
                _ => vec![],
            };
            let told = || {
                TELLING
                    .iter()
                    .find(|(_, keys)| keys.iter().any(|key| source.contains_key(*key)))
                    .map(|(found, _)| *found)
            };
            match names.first() {
                Some(&"simpo") => Ok(Trainer::Simpo),
                Some(&("kto" | "apo_zero_unpaired")) => Ok(Trainer::Kto),
                Some(name) if method_of(name).is_some() || *name == "sft" => Ok(Trainer::Dpo),
                Some(&("nll" | "chunked_nll" | "dft")) => Ok(Trainer::Sft),
                _ => told().ok_or_else(|| {
                    Failure::usage(
                        "--trainer",
                        "the file fits several of trl's trainers: say which, as in --trainer dpo",
                    )
                }),
            }
        }
    }
}

/// Returns our name of a loss.
fn method_of(loss: &str) -> Option<&'static str> {
    LOSSES.iter().find(|(theirs, _)| *theirs == loss).map(|(_, ours)| *ours)
}

/// The method: one loss, or several with weights.
pub fn method(draft: &mut Draft<'_>, names: Names<'_>) {
    if draft.method.is_none() {
        if let Some((name, value)) = draft.first(names).filter(|(name, _)| *name == "loss_type") {
            match value.as_str() {
                Some("nll" | "chunked_nll") => draft.agree(name),
                _ => draft.lose(name, "SFT has one loss: the mean over the trained tokens"),
            }
        }
        return;
    }
    // The trainer follows from them.
    let is_dpo = draft.trainer == Trainer::Dpo;
    for name in names.iter().filter(|name| is_dpo || **name != "dpo_loss_type") {
        draft.agree(name);
    }
    if draft.trainer != Trainer::Dpo {
        return;
    }
    if draft.text("rl") == Some("ipo") {
        draft.method = Some("ipo".to_owned());
    }
    let Some((name, value)) = ["loss_type", "dpo_loss_type", "pref_loss"]
        .into_iter()
        .filter(|name| names.contains(name))
        .find_map(|name| Some((name, draft.get(name)?)))
    else {
        return;
    };
    let losses: Vec<&str> = match value {
        Json::Array(list) => list.iter().filter_map(Json::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    };
    let weights = ["loss_weights", "dpo_loss_weights"]
        .into_iter()
        .find_map(|name| draft.get(name))
        .map(numbers)
        .unwrap_or_default();
    let mut terms = Vec::new();
    for (at, loss) in losses.into_iter().enumerate() {
        let weight = weights.get(at).copied().unwrap_or(1.0);
        match (loss, method_of(loss)) {
            ("sft", _) => draft.set("align.nll_weight", weight),
            (_, Some(method)) => terms.push((method, weight)),
            (other, None) => draft
                .lose(name, format!("the loss `{other}` does not exist here: `setpoint methods` lists those that do")),
        }
    }
    choose(draft, &terms);
}

/// Makes one loss the method, and several a mixture.
fn choose(draft: &mut Draft<'_>, terms: &[(&'static str, f64)]) {
    match terms {
        [] => {}
        [(method, weight)] if *weight == 1.0 => draft.method = Some((*method).to_owned()),
        _ => {
            let beta = ["beta", "rl_beta", "pref_beta"].into_iter().find_map(|name| draft.number(name)).unwrap_or(BETA);
            let losses = terms.iter().map(|(method, weight)| {
                let mut table = Table::from_iter([
                    ("method".to_owned(), Value::from(*method)),
                    ("weight".to_owned(), Value::Float(*weight)),
                ]);
                if has(method, "beta") {
                    table.insert("beta".to_owned(), Value::Float(beta));
                }
                Value::Table(table)
            });
            let losses: Vec<Value> = losses.collect();
            draft.set("align.losses", losses);
            draft.method = Some("mix".to_owned());
        }
    }
}

/// Returns whether a method has a setting.
fn has(method: &str, setting: &str) -> bool {
    Method::named(method).is_some_and(|method| to_table(&method).contains_key(setting))
}

/// The weights of further losses; trl's lists are read with their losses.
pub fn weights(draft: &mut Draft<'_>, _: Names<'_>) {
    if let Some(weight) = draft.number("cpo_alpha").filter(|_| draft.trainer == Trainer::Simpo) {
        draft.set("align.nll_weight", weight);
    }
    if let Some(weight) = draft.number("pref_ftx").filter(|weight| *weight > 0.0)
        && draft.set_of_method("nll_weight", weight)
    {
        draft.lose("pref_ftx", "align.nll_weight is a mean over all tokens of a batch, not of each response's mean");
    }
    if let Some(weight) =
        draft.number("pref_bco_weight").filter(|weight| *weight > 0.0 && draft.trainer == Trainer::Dpo)
    {
        choose(draft, &[("dpo", 1.0), ("bco_pair", weight)]);
    }
}

/// The strength of the loss.
pub fn beta(draft: &mut Draft<'_>, names: Names<'_>) {
    let Some((name, value)) = draft.first(names) else { return };
    let Some(beta) = number(value) else { return draft.misread(name, "a number") };
    match draft.method.as_deref() {
        // Each loss of a mixture has its own.
        Some("mix") => {}
        Some("orpo") => draft.set("align.lambda", beta),
        _ => {
            if !draft.set_of_method("beta", beta) {
                draft.lose(name, "this job has no such setting");
            }
        }
    }
}

/// SimPO's margin, which here is a multiple of β.
pub fn simpo_gamma(draft: &mut Draft<'_>, names: Names<'_>) {
    if let Some(gamma) = names.iter().find_map(|name| draft.number(name)) {
        set_ratio(draft, gamma);
    }
}

fn set_ratio(draft: &mut Draft<'_>, gamma: f64) {
    let beta = ["beta", "rl_beta", "pref_beta"].into_iter().find_map(|name| draft.number(name)).unwrap_or(BETA);
    draft.set_of_method("gamma_beta_ratio", gamma / beta);
}

/// The share of wrong labels.
pub fn label_smoothing(draft: &mut Draft<'_>, names: Names<'_>) {
    of_method(draft, names, "label_smoothing");
}

/// DiscoPOP's temperature.
pub fn tau(draft: &mut Draft<'_>, names: Names<'_>) {
    of_method(draft, names, "tau");
}

/// KTO's weight of good responses.
pub fn desirable(draft: &mut Draft<'_>, names: Names<'_>) {
    of_method(draft, names, "desirable_weight");
}

/// KTO's weight of bad responses.
pub fn undesirable(draft: &mut Draft<'_>, names: Names<'_>) {
    of_method(draft, names, "undesirable_weight");
}

/// A number of the method; one of another method is not used in the other tools either.
fn of_method(draft: &mut Draft<'_>, names: Names<'_>, ours: &str) {
    let Some((name, value)) = draft.first(names) else { return };
    match number(value) {
        Some(number) => {
            draft.set_of_method(ours, number);
        }
        None => draft.misread(name, "a number"),
    }
}

/// Adds the method's name, and what the tools take unless told.
pub fn complete(draft: &mut Draft<'_>) {
    let Some(method) = draft.method.clone() else { return };
    let given = draft.settings.remove("align").and_then(|value| value.as_table().cloned()).unwrap_or_default();
    let mut align = Table::from_iter([("method".to_owned(), Value::from(method.as_str()))]);
    align.extend(given);
    draft.settings.insert("align".to_owned(), Value::Table(align.clone()));
    if !align.contains_key("beta") {
        draft.set_of_method("beta", BETA);
    }
    if method == "simpo" {
        if !align.contains_key("gamma_beta_ratio") {
            set_ratio(draft, SIMPO_GAMMA);
        }
        // trl's SimPO has a likelihood term of this weight.
        if draft.tool != Tool::LlamaFactory && !align.contains_key("nll_weight") {
            draft.set("align.nll_weight", 1.0);
        }
    }
}

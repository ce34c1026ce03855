//! Checks of the settings of rounds.

use std::collections::BTreeMap;

use setpoint_align::{LogZ0, Method, Training};

use super::super::settings::AlignConfig;
use super::super::value;
use super::remote;
use super::settings::{RewardSection, RolloutSection, RoundReference, assumes_policy, compares};
use crate::config::Problems;
use crate::config::sections::ModelSection;
use crate::sources::{self, Entry};

/// The largest weight of a source of rewards, either way: the sum of what sources give stays a number.
const LARGEST_WEIGHT: f64 = 1e30;

/// The most passes over rounds in a run.
const MOST_PASSES: u64 = 1_000_000;

/// Notes what is wrong with the settings of rounds, and such settings without rounds.
pub fn validate(config: &AlignConfig, problems: &mut Problems<'_>) {
    if !config.is_in_rounds() {
        if matches!(config.align.training(), Training::Sampled(_)) {
            // Its sections are right: `rounds` alone is missing.
            let source = if config.reward.is_some() { "" } else { ", and a source of their rewards in `reward`" };
            problems.add(
                "rounds",
                format!("`{}` trains on responses that the policy samples: set `rounds`{source}", config.align.name()),
            );
            return;
        }
        for (section, is_given) in [
            ("rollout", config.rollout.is_some()),
            ("reward", config.reward.is_some()),
            ("watch", config.watch.is_some()),
            ("guards", config.guards.is_some()),
            ("sft_data", config.sft_data.is_some()),
        ] {
            problems.require(
                !is_given,
                section,
                format!("`{section}` belongs to rounds, and the responses of the data are trained on: set `rounds`, or leave it out"),
            );
        }
        return;
    }
    let passes = config.rollout.as_ref().map_or(1, |rollout| rollout.epochs_per_round);
    problems.require(
        config.rounds.is_none_or(|rounds| rounds.saturating_mul(passes) <= MOST_PASSES),
        "rounds",
        format!("`rounds` times `rollout.epochs_per_round` must be at most {MOST_PASSES}"),
    );
    if let Some(rollout) = &config.rollout {
        validate_rollout(rollout, problems);
        validate_method(&config.align, rollout, problems);
        validate_correction(&config.align, rollout, problems);
        problems.require(
            rollout.reference == RoundReference::Initial || config.reference.is_none(),
            "rollout.reference",
            "with rollout.reference = \"previous\" the policy itself is the reference: leave `reference` out",
        );
        problems.require(
            rollout.reference == RoundReference::Initial || config.align.about().reference,
            "rollout.reference",
            format!("`{}` has no reference model: leave `rollout.reference` out", config.align.name()),
        );
    }
    if let Some(watch) = &config.watch {
        validate_reward(watch, "watch", problems);
    }
    if let Some(reward) = &config.reward {
        validate_reward(reward, "reward", problems);
        problems.require(
            reward.missing_stop_penalty == 0.0 || own_penalty(&config.align) == 0.0,
            "reward.missing_stop_penalty",
            "`reward.missing_stop_penalty` and `align.missing_stop_penalty` would both be subtracted: leave one of them out",
        );
    }
    value::validate(config, problems);
    problems.require(
        config.eval_data.is_none() || config.stop.max_kl.is_some(),
        "eval_data",
        "rounds have no loss on the responses of a file: leave `eval_data` out, and compare models with `setpoint eval`; its prompts serve \
         `align.max_kl` alone",
    );
    problems.require(
        config.train.epochs == 1.0,
        "train.epochs",
        "the passes over a round's responses are `rollout.epochs_per_round`: leave `train.epochs` out",
    );
}

fn validate_rollout(rollout: &RolloutSection, problems: &mut Problems<'_>) {
    for (name, count) in [
        ("prompts", rollout.prompts() as u64),
        ("samples", rollout.samples as u64),
        ("max_new_tokens", rollout.max_new_tokens as u64),
        ("epochs_per_round", rollout.epochs_per_round),
        ("chunk_rows", rollout.chunk_rows() as u64),
        ("keep_rounds", rollout.keep_rounds.unwrap_or(1)),
    ] {
        let key = format!("rollout.{name}");
        problems.require(count > 0, &key, format!("`{key}` must be at least 1; found 0"));
    }
    let temperature = rollout.temperature;
    problems.require(
        temperature.is_finite() && temperature > 0.0,
        "rollout.temperature",
        format!(
            "`rollout.temperature` must be a number above 0, so that the samples of a prompt differ; found {temperature}"
        ),
    );
    problems.require(
        rollout.top_k.is_none_or(|k| k >= 2),
        "rollout.top_k",
        format!(
            "`rollout.top_k` must be at least 2, so that the samples of a prompt differ; found {}",
            rollout.top_k.unwrap_or_default()
        ),
    );
    problems.require(
        rollout.top_p.is_none_or(|p| p > 0.0 && p <= 1.0),
        "rollout.top_p",
        format!("`rollout.top_p` must be a number above 0 and up to 1; found {}", rollout.top_p.unwrap_or_default()),
    );
    problems.require(
        rollout.correction_max.is_none_or(|max| max.is_finite() && max > 0.0),
        "rollout.correction_max",
        "`rollout.correction_max` must be a number above 0",
    );
    problems.require(
        rollout.correction.is_some() || rollout.correction_max.is_none(),
        "rollout.correction_max",
        "without `rollout.correction` nothing is corrected: set it, as in \"sequence_mask\", or leave `rollout.correction_max` out",
    );
    remote::validate(rollout, problems);
}

/// Notes where the correction for what sampled and the method do not go together.
fn validate_correction(method: &Method, rollout: &RolloutSection, problems: &mut Problems<'_>) {
    let Some(correction) = rollout.correction else { return };
    problems.require(
        matches!(method.training(), Training::Sampled(_)),
        "rollout.correction",
        format!("`{}` does not ask how probable its samples were: leave `rollout.correction` out", method.name()),
    );
    problems.require(
        correction.is_of_sequences() || !matches!(method, Method::Rloo(_)),
        "rollout.correction",
        "`rloo` has one ratio for a whole response: give \"sequence_truncate\" or \"sequence_mask\"",
    );
    problems.require(
        rollout.server.is_none() || rollout.temperature == 1.0,
        "rollout.correction",
        format!(
            "a server's log-probabilities are those before the temperature, so they can be compared at temperature 1 alone; \
             `rollout.temperature` is {}",
            rollout.temperature
        ),
    );
}

/// Returns whether a method that takes the samples for the policy's own knows nothing of a temperature: its log-probabilities are those at 1.
fn ignores_temperature(training: &Training) -> bool {
    matches!(training, Training::Rows(objective) if objective.desirable().is_none())
}

/// Notes where a method and the way in which responses are sampled do not go together.
fn validate_method(method: &Method, rollout: &RolloutSection, problems: &mut Problems<'_>) {
    let (name, samples) = (method.name(), rollout.samples);
    let level = method.level();
    let training = method.training();
    if let Training::Pairs(pairwise) = &training {
        problems.require(
            pairwise.reward_files().is_empty(),
            "align.ensemble",
            "the files of an ensemble hold rewards of the data's responses, and rounds sample others: leave `align.ensemble` out",
        );
    }
    problems.require(
        !compares(&training) || samples >= 2,
        "rollout.samples",
        format!("`{name}` compares the responses of a prompt: set `rollout.samples` to at least 2; found {samples}"),
    );
    problems.require(
        !ignores_temperature(&training) || rollout.temperature == 1.0,
        "rollout.temperature",
        format!(
            "`{name}` takes the samples for those of the policy itself, which they are at temperature 1 alone: found {}",
            rollout.temperature
        ),
    );
    for (key, is_cut) in
        [("rollout.top_k", rollout.top_k.is_some()), ("rollout.top_p", rollout.top_p.is_some_and(|p| p < 1.0))]
    {
        problems.require(
            !assumes_policy(&training, level) || !is_cut,
            key,
            format!(
                "`{name}` takes the samples for those of the policy itself, and samples of its likeliest tokens are not: leave `{key}` out"
            ),
        );
    }
    problems.require(
        !assumes_policy(&training, level) || rollout.server.is_none() || rollout.reload.is_some(),
        "rollout.reload",
        format!(
            "`{name}` takes the samples for those of the policy, and the server keeps the weights that it has: set `rollout.reload` to a \
             command that loads those of each round"
        ),
    );
    problems.require(
        !matches!(level, Some(LogZ0::KeepChosen { .. } | LogZ0::Auto { .. })),
        "align.log_z0",
        "`keep_chosen` is about the chosen responses of a file, and rounds have none: give \"mean\", \"per_prompt\" or a number",
    );
}

/// Returns the penalty for a missing stop token among the settings of the method itself; 0 if it has no such setting.
fn own_penalty(method: &Method) -> f64 {
    let settings = serde_json::to_value(method).unwrap_or_default();
    settings.get("missing_stop_penalty").and_then(serde_json::Value::as_f64).unwrap_or(0.0)
}

/// Notes where the sources of rewards that are given and their weights do not go together.
fn validate_weights(
    weights: &BTreeMap<String, f64>,
    section: &str,
    entries: &[Entry<'_>],
    problems: &mut Problems<'_>,
) {
    let given: Vec<&str> = entries.iter().filter(|(_, source)| source.is_given()).map(|(name, _)| *name).collect();
    for (name, weight) in weights {
        let key = format!("{section}.weights.{name}");
        problems.require(
            given.is_empty() || given.contains(&name.as_str()),
            &key,
            format!("`{name}` has a weight and is no source of rewards that is given: there are {}", given.join(", ")),
        );
        problems.require(
            weight.abs() <= LARGEST_WEIGHT,
            &key,
            format!("`{key}` must be a number of at most {LARGEST_WEIGHT:e} either way; found {weight}"),
        );
    }
    for name in given.into_iter().filter(|name| !weights.contains_key(*name)) {
        problems.add(
            &format!("{section}.weights"),
            format!("the source `{section}.{name}` has no weight: give it one, as in `{section}.weights.{name} = 1.0`"),
        );
    }
}

/// Notes what is wrong with the sources of rewards, whose settings are those of `section`.
fn validate_reward(reward: &RewardSection, section: &str, problems: &mut Problems<'_>) {
    let model = reward.reward_model();
    let entries = sources::with_model("model", &model, reward.sources.entries());
    let prefix = format!("{section}.");
    sources::require_for_samples(&prefix, section, &entries, problems);
    match reward.weights.is_empty() {
        true => {
            let several = format!("give one source of rewards, or the weights of several in `{section}.weights`");
            sources::validate(&prefix, &entries, (several.as_str(), None), problems);
        }
        false => {
            sources::validate_each(&prefix, &entries, problems);
            validate_weights(&reward.weights, section, &entries, problems);
        }
    }
    problems.require(
        reward.sources.column.0.is_none(),
        &format!("{section}.column"),
        "a column holds the rewards of the responses in the file, and rounds sample others: give another source of rewards",
    );
    problems.require(
        reward.model.path.is_some() || reward.model == ModelSection::default(),
        &format!("{section}.model"),
        format!(
            "`{section}.model` has settings and names no reward model: set `{section}.model.path`, or leave them out"
        ),
    );
    problems.require(
        !reward.normalize || reward.model.path.is_some(),
        &format!("{section}.normalize"),
        "only a reward model stores a mean and deviation to apply",
    );
    problems.require(reward.batch_tokens > 0, &format!("{section}.batch_tokens"), "must be at least 1");
    let penalty = reward.missing_stop_penalty;
    let key = format!("{section}.missing_stop_penalty");
    problems.require(
        penalty.is_finite() && penalty >= 0.0,
        &key,
        format!("`{key}` must be a number of at least 0; found {penalty}"),
    );
}

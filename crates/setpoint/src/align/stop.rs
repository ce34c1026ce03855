//! `[stop]`: a limit on the KL from the reference, measured at the evaluations on answers of the policy itself.

use std::ops::ControlFlow;

use burn::module::Module;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::{DatasetConfig, TextEncoder};
use setpoint_eval::{KlEstimates, kl_estimates};
use setpoint_train::{Error, Sequence, TrainConfig, score_against, score_and_keep};
use setpoint_transformer::lora::without_adapter;
use setpoint_transformer::{CausalLm, GenerationConfig, ModelConfig, generate_stream};
use toml::{Table, Value};

use super::prepare::Prepared;
use super::reference::reference_dir;
use super::settings::AlignConfig;
use super::shown;
use crate::adapter::Adaptation;
use crate::config::Problems;
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::setup;
use crate::tasks::pass_tokens;
use crate::training::KlMeter;

/// `[stop]`: ends a training early if the policy moves too far from the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopSection {
    /// Ends the training when the KL from the reference, measured at an evaluation, is above this. Also written as `align.max_kl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-unit" = "nats per response"))]
    pub max_kl: Option<f64>,
    /// The number of prompts of `[eval_data]` that the policy answers to measure the KL: the first of them.
    #[schemars(range(min = 2))]
    pub prompts: usize,
    /// The greatest length of such an answer.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub max_new_tokens: usize,
}

impl Default for StopSection {
    fn default() -> Self {
        Self { max_kl: None, prompts: 64, max_new_tokens: 256 }
    }
}

impl StopSection {
    /// Notes what is wrong.
    pub fn validate(&self, eval_data: Option<&DatasetConfig>, train: &TrainConfig, problems: &mut Problems<'_>) {
        problems.require(self.prompts >= 2, "stop.prompts", "must be at least 2");
        problems.require(self.max_new_tokens > 0, "stop.max_new_tokens", "must be at least 1");
        let Some(max_kl) = self.max_kl else { return };
        problems.require(
            max_kl.is_finite() && max_kl > 0.0,
            "stop.max_kl",
            "`align.max_kl` must be above 0 nats per response",
        );
        problems.require(
            eval_data.is_some() && train.eval_steps.is_some(),
            "stop.max_kl",
            "`align.max_kl` is checked at evaluations, on answers to held-out prompts: set `eval_data.path` and `train.eval_steps`",
        );
    }

    /// Moves `align.max_kl` to its place.
    pub fn respell(user: &mut Table) {
        let Some(max_kl) = user.get_mut("align").and_then(Value::as_table_mut).and_then(|t| t.remove("max_kl")) else {
            return;
        };
        if let Value::Table(stop) = user.entry("stop").or_insert_with(|| Value::Table(Table::new())) {
            stop.insert("max_kl".into(), max_kl);
        }
    }
}

/// Returns how the policy answers: at temperature 1, without any cut-off.
fn sampling(config: &AlignConfig, encoder: &TextEncoder, shape: &ModelConfig) -> GenerationConfig {
    let mut settings = GenerationConfig {
        do_sample: true,
        max_new_tokens: config.stop.max_new_tokens,
        stop_token_ids: encoder.stop_ids().to_vec(),
        ..GenerationConfig::default()
    };
    for &id in &shape.eos_token_ids {
        if !settings.stop_token_ids.contains(&id) {
            settings.stop_token_ids.push(id);
        }
    }
    settings
}

/// Returns the tokens of the held-out prompts that the KL is measured on; none without a limit.
///
/// # Errors
/// When fewer than two leave room for an answer.
pub fn held_out(config: &AlignConfig, prepared: &Prepared) -> Outcome<Vec<Vec<u32>>> {
    let (_, Some(eval)) = prepared.data.sets() else { return Ok(Vec::new()) };
    if config.stop.max_kl.is_none() {
        return Ok(Vec::new());
    }
    let prompts = shown(&eval, config.stop.prompts)?;
    with_room(config, &prepared.encoder, &prepared.model_config, prompts)
}

/// Returns those of the first prompts of `[eval_data]` that leave room for an answer.
///
/// # Errors
/// When fewer than two do.
pub fn with_room(
    config: &AlignConfig,
    encoder: &TextEncoder,
    shape: &ModelConfig,
    mut prompts: Vec<Vec<u32>>,
) -> Outcome<Vec<Vec<u32>>> {
    let settings = sampling(config, encoder, shape);
    let positions = shape.max_position_embeddings;
    prompts.retain(|prompt| settings.room(prompt.len(), positions) > 0);
    if prompts.len() < 2 {
        let message = "`align.max_kl` is checked on answers to held-out prompts, and fewer than two of `eval_data` leave room for an answer";
        return Err(Failure::run(message).hint("set `eval_data.path` to rows with more or shorter prompts"));
    }
    Ok(prompts)
}

/// The models and data that the KL is measured with.
pub struct Measuring<'a> {
    /// The devices and the host.
    pub session: &'a Session,
    /// The settings of the run.
    pub config: &'a AlignConfig,
    /// The tokenizer and template.
    pub encoder: &'a TextEncoder,
    /// The shape of the policy.
    pub shape: &'a ModelConfig,
    /// The adapter that is trained, if one is.
    pub adaptation: Option<&'a Adaptation>,
    /// The tokens of [`held_out`] prompts.
    pub prompts: Vec<Vec<u32>>,
}

/// Returns what measures the KL of the policy in training from the reference. `policy`: as it is before training.
///
/// The policy answers each prompt once, with the same random numbers at each evaluation. The reference is read from its folder for each
/// measurement and leaves memory after it. The base of an adapter is in memory anyway.
///
/// # Errors
/// When there is no reference.
pub fn kl_meter<'a>(measuring: Measuring<'a>, policy: &CausalLm) -> Outcome<KlMeter<'a, CausalLm>> {
    let Measuring { session, config, encoder, shape, adaptation, prompts } = measuring;
    let settings = sampling(config, encoder, shape);
    let kept = match adaptation {
        Some(adaptation) if config.reference.is_none() => {
            let start = if adaptation.goes_on() { policy.clone() } else { without_adapter(policy) };
            Some(start.valid())
        }
        _ => None,
    };
    let section =
        ModelSection { path: Some(reference_dir(config)?.to_owned()), from_scratch: None, ..config.model.clone() };
    let batch_tokens = pass_tokens(config.train.micro_batch);
    Ok(Box::new(move |model| {
        let sequences = answers(session, model, &prompts, &settings, config.train.seed)?;
        let failed = |failure: Failure| Error::task(failure.to_string());
        let mut logps = vec![[0.0; 2]; sequences.len()];
        let predictions = score_and_keep(&session.devices, model, &sequences, batch_tokens, &mut |batch| {
            batch.into_iter().for_each(|(i, scored)| logps[i][0] = scored.response_logp);
            Ok(())
        })?;
        let reference = match &kept {
            Some(reference) => reference.clone(),
            None => {
                let shape = setup::model_config(&section, encoder).map_err(failed)?;
                setup::policy(session, &section, &shape, 0, session.device()).map_err(failed)?
            }
        };
        let mut divergences = vec![0.0; sequences.len()];
        score_against(&session.devices, &reference, &predictions, &sequences, &mut |batch| {
            for (i, found) in batch {
                logps[i][1] = found.scored.response_logp;
                divergences[i] = found.kl;
            }
            Ok(())
        })?;
        estimates(&logps, &divergences).map_err(Error::task)
    }))
}

fn estimates(logps: &[[f64; 2]], divergences: &[f64]) -> Result<KlEstimates, setpoint_eval::Error> {
    let of = |model: usize| logps.iter().map(|pair| pair[model]).collect::<Vec<f64>>();
    kl_estimates(&of(0), &of(1))?.with_exact(divergences)
}

/// Answers the prompts. Answers without a token are left out.
fn answers(
    session: &Session,
    model: &CausalLm,
    prompts: &[Vec<u32>],
    settings: &GenerationConfig,
    seed: u64,
) -> Result<Vec<Sequence>, Error> {
    let go_on = |_, _| if session.host.should_stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let answers = generate_stream(model, prompts, settings, seed, go_on).map_err(Error::task)?;
    if session.host.should_stop() {
        return Err(Error::Interrupted);
    }
    let sequence = |(prompt, ids): (&Vec<u32>, Vec<u32>)| Sequence {
        ids: [prompt.as_slice(), &ids].concat(),
        prompt_len: prompt.len(),
        scored_from: prompt.len(),
    };
    let answered = prompts.iter().zip(answers.into_iter().map(|answer| answer.ids)).filter(|(_, ids)| !ids.is_empty());
    Ok(answered.map(sequence).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_moves_to_its_section() {
        let moved = |text: &str| {
            let mut table: Table = text.parse().unwrap();
            StopSection::respell(&mut table);
            table
        };
        let expected: Table = "align.method = 'dro'\nstop.max_kl = 2.0".parse().unwrap();
        assert_eq!(moved("align.method = 'dro'\nalign.max_kl = 2.0"), expected);
        let both = moved("align.max_kl = 2.0\nstop.prompts = 8");
        assert_eq!((both["stop"]["prompts"].as_integer(), both["stop"]["max_kl"].as_float()), (Some(8), Some(2.0)));
        let other: Table = "align = 3".parse().unwrap();
        assert_eq!(moved("align = 3"), other);
    }

    #[test]
    fn both_estimates_come_from_the_same_answers() {
        let found = estimates(&[[-1.0, -2.0], [-3.0, -3.5]], &[0.5, 0.75]).unwrap();
        assert_eq!((found.k1.mean, found.best().mean), (0.75, 0.625));
    }
}

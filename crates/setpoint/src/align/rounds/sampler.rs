//! The policy answers the prompts of a round, on one device or on several.

use std::ops::ControlFlow;
use std::sync::Mutex;

use burn::module::Module;
use setpoint_data::TextEncoder;
use setpoint_train::distribute;
use setpoint_transformer::{CausalLm, Error, Generated, GenerationConfig, ModelConfig, generate_part};

use super::super::settings::AlignConfig;
use super::prompts::Prompts;
use super::settings::{RolloutSection, policy_temperature};
use crate::config::sections::ModelSection;
use crate::failure::Outcome;
use crate::sampling::SamplingSection;
use crate::session::Session;

/// The most responses that are sampled at the same time: their keys and values are in memory together.
const MOST_AT_ONCE: usize = 64;

/// Prompts that are answered together.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Prompts of the round before them.
    pub first: usize,
    /// Their places in the data.
    pub rows: &'a [usize],
}

/// A part with its number, the index of its first response and a prompt for each response.
type Work = (usize, usize, Vec<Vec<u32>>);

/// Returns the responses to the prompts of each part. The parts are dealt to the devices, and a part has the same responses on each of them. They
/// are cut short if the host wants to stop.
///
/// # Errors
/// When a model or device fails.
pub fn sample(
    session: &Session,
    policy: &CausalLm,
    parts: &[Part<'_>],
    prompts: &Prompts,
    (generation, seed, samples): (&GenerationConfig, u64, usize),
) -> Outcome<Vec<Vec<Generated>>> {
    let work = |(number, part): (usize, &Part<'_>)| -> Work {
        let rows = part.rows.iter().flat_map(|&row| std::iter::repeat_n(prompts.ids[row].clone(), samples));
        (number, part.first * samples, rows.collect())
    };
    let work: Vec<Work> = parts.iter().enumerate().map(work).collect();
    let host = &session.host;
    let all = work.iter().map(|(_, _, rows)| rows.len() as u64).sum();
    // The responses that have ended, and what shows them.
    let progress = Mutex::new((0, session.bar("samples", 0, all)));
    let answer = |model: &CausalLm, (number, first, rows): &Work| -> Result<(usize, Vec<Generated>), Error> {
        let positions = model.decoder().max_positions();
        let mut room: Vec<usize> = rows.iter().map(|prompt| generation.room(prompt.len(), positions)).collect();
        let go_on = |row: usize, id: u32| {
            let room = &mut room[row - first];
            *room = room.saturating_sub(1);
            if (*room == 0 || generation.stop_token_ids.contains(&id))
                && let Ok(mut progress) = progress.lock()
            {
                progress.0 += 1;
                progress.1.reach(progress.0);
            }
            match host.should_stop() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        Ok((*number, generate_part(model, rows, *first, generation, seed, go_on)?))
    };
    let mut found: Vec<Vec<Generated>> = vec![Vec::new(); work.len()];
    let mut take = |_: &Work, (number, generated): (usize, Vec<Generated>)| -> Result<(), Error> {
        found[number] = generated;
        Ok(())
    };
    let done = distribute(&session.devices, &policy.valid(), &work, answer, &mut take);
    if let Ok(progress) = progress.lock() {
        progress.1.clear();
    }
    done?;
    Ok(found)
}

/// Returns how responses are sampled: from the policy as it is, or from its likeliest tokens if the settings say so, up to its stop tokens.
/// Prompt and response are no longer than `encode.max_length`.
///
/// # Errors
/// When the settings are out of range.
pub fn generation(
    config: &AlignConfig,
    rollout: &RolloutSection,
    shape: &ModelConfig,
    encoder: &TextEncoder,
) -> Outcome<GenerationConfig> {
    let section = SamplingSection {
        temperature: Some(rollout.temperature),
        max_new_tokens: Some(rollout.max_new_tokens),
        ..SamplingSection::default()
    };
    let settings = section.resolve(&config.model, shape, encoder).or_else(|_| {
        // Of the model's own settings only the stop tokens count here, and the tokenizer has them, too.
        let unread = ModelSection { path: None, ..config.model.clone() };
        section.resolve(&unread, shape, encoder)
    })?;
    Ok(GenerationConfig {
        do_sample: true,
        top_k: rollout.top_k,
        top_p: rollout.top_p.unwrap_or(1.0),
        repetition_penalty: 1.0,
        // The log compares them with those of the training path.
        tempered_logps: policy_temperature(&config.align, rollout) == rollout.temperature,
        // In a part of 64 rows with 32 places, half of the places stay empty while its last rows end. In one of 64 places, rows end together.
        batch_size: settings.batch_size.max(rollout.chunk_rows().min(MOST_AT_ONCE)),
        max_length: config.encode.max_length,
        ..settings
    })
}

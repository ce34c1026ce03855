//! The check that rows, prompts and answers fit into the positions of a model.

use setpoint_data::{EncodeOptions, Record};
use setpoint_transformer::{GenerationConfig, ModelConfig};

use crate::failure::{Failure, Outcome};

/// Fits the conversion of rows to tokens to a model of this shape: none is longer than it has positions.
pub fn within(encode: &EncodeOptions, model: &ModelConfig) -> EncodeOptions {
    EncodeOptions { positions: Some(model.max_position_embeddings), ..encode.clone() }
}

/// Checks that the model has room for an answer to every prompt. Says how many are left less than `generate.max_new_tokens`, where that is
/// set.
pub fn check_room(
    records: &[Record],
    prompts: &[Vec<u32>],
    settings: &GenerationConfig,
    wanted: Option<usize>,
    model: &ModelConfig,
) -> Outcome {
    check_room_of(prompts, &|row| records[row].source.to_string(), settings, wanted, model)
}

/// The same for prompts that are not rows of a data set: `name` tells where one comes from.
pub fn check_room_of(
    prompts: &[Vec<u32>],
    name: &dyn Fn(usize) -> String,
    settings: &GenerationConfig,
    wanted: Option<usize>,
    model: &ModelConfig,
) -> Outcome {
    let positions = model.max_position_embeddings;
    let mut short: Option<(usize, usize)> = None;
    for (row, prompt) in prompts.iter().enumerate() {
        let room = settings.room(prompt.len(), positions);
        if room == 0 {
            let (most, what) = match settings.max_length {
                Some(most) if most < positions => (most, "max_length of generation_config.json"),
                _ => (positions, "max_position_embeddings of config.json"),
            };
            return Err(Failure::run(format!(
                "{}: the prompt has {} tokens, which leaves no room for an answer: prompt and answer have at most {most} ({what})",
                name(row),
                prompt.len()
            ))
            .hint("shorten the prompt, leave the row out, or use a model with a longer context"));
        }
        if wanted.is_some_and(|wanted| room < wanted) {
            short = Some(short.map_or((1, row), |(count, first)| (count + 1, first)));
        }
    }
    if let (Some((count, first)), Some(wanted)) = (short, wanted) {
        log::warn!(
            "{count} of {} prompts leave room for fewer than the {wanted} tokens of generate.max_new_tokens: the model reads \
             {positions} tokens (max_position_embeddings); the first: {}",
            prompts.len(),
            name(first)
        );
    }
    Ok(())
}

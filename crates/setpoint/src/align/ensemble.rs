//! Rewards of further reward models, for RPO's ensemble: the training file annotated once more.

use std::path::{Path, PathBuf};

use setpoint_data::{DatasetConfig, EncodeOptions, Example, Pieces, TextEncoder, Uses};
use setpoint_train::{Error, OnDemand};

use super::settings::AlignConfig;
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::setup;
use crate::tasks::stages::{PairedPrompt, Prompt};

/// Adds the rewards of each file to the prompts. Its rows must be those of the training data, prompt for prompt and response for response.
/// `folder`: where rows and rewards go if they are many.
pub fn read(
    config: &AlignConfig,
    files: &[PathBuf],
    encoder: &TextEncoder,
    encode: &EncodeOptions,
    session: &Session,
    folder: &Path,
    mut prompts: OnDemand<PairedPrompt>,
) -> Outcome<OnDemand<PairedPrompt>> {
    for file in files {
        let (path, sources) = (file.display().to_string(), Vec::new());
        let data = DatasetConfig { path, sources, uses: Uses::default(), ..config.data.clone() };
        let what = format!("rewards of {}", file.display());
        let (examples, _) = setup::stored(&data, encode, encoder, &what, session, folder)?;
        let mut rest = examples.iter();
        let mut found = Pieces::new(folder, session.rows_in_memory);
        for prompt in prompts.iter() {
            let prompt = prompt?.prompt;
            // Rows that have no pair by the first model's rewards are not among the prompts.
            let same = loop {
                match rest.next().transpose()? {
                    Some(example) if is_same(&example, &prompt) => break Some(example),
                    Some(_) => {}
                    None => break None,
                }
            };
            let rewards: Vec<f64> = same.iter().flat_map(|e| &e.responses).filter_map(|r| r.reward).collect();
            if rewards.len() < prompt.sequences.len() {
                return Err(Failure::run(format!(
                    "{}: no row with a reward for each response of {}",
                    file.display(),
                    prompt.name
                ))
                .hint("an ensemble's files are the training file, annotated by another reward model, its rows in the same order"));
            }
            found.push(&rewards.iter().flat_map(|reward| reward.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        prompts = prompts.map(move |number, mut prompt| {
            let bytes = found.get(number).map_err(Error::task)?;
            prompt.rewards.push(bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect());
            Ok(prompt)
        });
    }
    Ok(prompts)
}

fn is_same(example: &Example, prompt: &Prompt) -> bool {
    example.responses.len() == prompt.sequences.len()
        && example.responses.iter().zip(&prompt.sequences).all(|(response, sequence)| {
            sequence.ids[..sequence.prompt_len] == example.prompt && sequence.ids[sequence.prompt_len..] == response.ids
        })
}

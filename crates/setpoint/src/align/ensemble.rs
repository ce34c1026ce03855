//! Rewards of further reward models, for RPO's ensemble: the training file annotated once more.

use std::path::PathBuf;

use setpoint_data::{DatasetConfig, EncodeOptions, TextEncoder, Uses};

use super::settings::AlignConfig;
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::setup;
use crate::tasks::stages::PairedPrompt;

/// Adds the rewards of each file to the prompts. Its rows must be those of the training data, prompt for prompt and response for response.
pub fn read(
    config: &AlignConfig,
    files: &[PathBuf],
    encoder: &TextEncoder,
    encode: &EncodeOptions,
    session: &Session,
    prompts: &mut [PairedPrompt],
) -> Outcome {
    for file in files {
        let (path, sources) = (file.display().to_string(), Vec::new());
        let data = DatasetConfig { path, sources, uses: Uses::default(), ..config.data.clone() };
        let what = format!("rewards of {}", file.display());
        let examples = setup::examples(&data, encode, encoder, &what, session)?.examples;
        let mut rest = examples.iter();
        for PairedPrompt { prompt, rewards: models, .. } in prompts.iter_mut() {
            // Rows that have no pair by the first model's rewards are not among the prompts.
            let same = rest.find(|example| {
                example.responses.len() == prompt.sequences.len()
                    && example.responses.iter().zip(&prompt.sequences).all(|(response, sequence)| {
                        sequence.ids[..sequence.prompt_len] == example.prompt
                            && sequence.ids[sequence.prompt_len..] == response.ids
                    })
            });
            let rewards: Vec<f64> = same.iter().flat_map(|e| &e.responses).filter_map(|r| r.reward).collect();
            if rewards.len() < prompt.sequences.len() {
                return Err(Failure::run(format!(
                    "{}: no row with a reward for each response of {}",
                    file.display(),
                    prompt.name
                ))
                .hint("an ensemble's files are the training file, annotated by another reward model, its rows in the same order"));
            }
            models.push(rewards);
        }
    }
    Ok(())
}

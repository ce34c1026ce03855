//! The identity of prompts as a loss reads them, and of their reference log-probabilities.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::failure::Outcome;
use crate::files::hex;
use crate::identity::Origin;
use crate::setup;
use crate::tasks::ScoredPrompt;

/// Adds prompts with their rewards, sides and pairs, and the reference log-probabilities.
pub fn identify(origin: &mut Origin, section: &str, file: &str, prompts: [&[ScoredPrompt]; 2]) -> Outcome {
    let (mut loss, mut reference) = (Sha256::new(), Sha256::new());
    for prompt in prompts.into_iter().flatten() {
        loss.update(setup::sequences_hash(&prompt.sequences));
        let numbers = json!([bits(&prompt.rewards), ensemble(prompt), prompt.roles, prompt.pairs]);
        loss.update(serde_json::to_vec(&numbers)?);
        let logps = json!([bits(&prompt.ref_logps), prompt.ref_prompt_logp.to_bits()]);
        reference.update(serde_json::to_vec(&logps)?);
    }
    origin.loss(section, hex(&loss.finalize()));
    origin.reference(section, file, hex(&reference.finalize()));
    Ok(())
}

/// The exact digits of numbers, NaN included.
fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

fn ensemble(prompt: &ScoredPrompt) -> Vec<Vec<u64>> {
    prompt.ensemble.iter().map(|rewards| bits(rewards)).collect()
}

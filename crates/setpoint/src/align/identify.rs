//! The identity of prompts as a loss reads them, and of their reference log-probabilities.

use serde_json::json;
use setpoint_data::hex;
use sha2::{Digest, Sha256};

use super::data::{SetReference, SetView};
use crate::failure::Outcome;
use crate::identity::Origin;
use crate::setup;

/// Adds a data set's prompts, the mismatched ones last, with their rewards, roles and pairs, and the reference log-probabilities.
pub fn identify(origin: &mut Origin, section: &str, file: &str, set: &SetView<'_>, scored: &SetReference) -> Outcome {
    let (mut loss, mut reference) = (Sha256::new(), Sha256::new());
    let lists = [Some(set.prompts), set.mismatched];
    let scored = [Some(&scored.prompts), scored.mismatched.as_ref()];
    let each = lists.into_iter().zip(scored).filter_map(|(list, scored)| Some((list?, scored?)));
    for (number, prompt, scored) in
        each.flat_map(|(list, scored)| (0..).zip(list.iter()).map(move |(n, p)| (n, p, scored)))
    {
        let prompt = prompt?;
        let logps = scored.get(number, prompt.prompt().sequences.len());
        loss.update(setup::sequences_hash(&prompt.prompt().sequences));
        let ensemble: Vec<Vec<u64>> = prompt.ensemble().iter().map(|rewards| bits(rewards)).collect();
        let numbers = json!([bits(&prompt.rewards()), ensemble, prompt.roles(), prompt.pairs()]);
        loss.update(serde_json::to_vec(&numbers)?);
        let samples = prompt.samples();
        if !samples.is_empty() {
            let rewards: Vec<f64> = samples.iter().map(|sample| sample.reward).collect();
            let in_data: Vec<bool> = samples.iter().map(|sample| sample.in_data).collect();
            loss.update(serde_json::to_vec(&json!([bits(&rewards), in_data]))?);
        }
        // NaN for responses that the method does not look at, as in the identities of older builds.
        let responses: Vec<f64> = logps.responses.iter().map(|logp| logp.unwrap_or(f64::NAN)).collect();
        reference.update(serde_json::to_vec(&json!([bits(&responses), logps.prompt.to_bits()]))?);
    }
    origin.loss(section, hex(&loss.finalize()));
    origin.reference(section, file, hex(&reference.finalize()));
    Ok(())
}

/// Returns the exact digits of numbers, NaN included.
fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

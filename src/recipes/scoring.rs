//! Log-probabilities of many sequences, with progress.

use setpoint_train::{ScoredSequence, Sequence, score_batches};
use setpoint_transformer::CausalLm;

use super::Session;
use crate::failure::Outcome;
use crate::progress::{Meter, Pace};

/// Scores the sequences of some examples on all devices: `counts[i]` consecutive ones belong to example `i`. The result is in the order given.
///
/// The time left goes by the tokens that are left, since the longest come first.
pub fn score(
    session: &Session,
    what: &str,
    model: &CausalLm,
    sequences: &[Sequence],
    counts: &[usize],
    batch_tokens: usize,
) -> Outcome<Vec<ScoredSequence>> {
    if sequences.is_empty() {
        return Ok(Vec::new());
    }
    let example_of: Vec<usize> = counts.iter().enumerate().flat_map(|(i, &count)| vec![i; count]).collect();
    let mut open = counts.to_vec();
    let mut done = open.iter().filter(|&&count| count == 0).count();
    let total: usize = sequences.iter().map(|s| s.ids.len()).sum();
    let mut spent = 0;
    let mut meter = Meter::new(counts.len(), what, "examples", session.quiet);
    let mut scored: Vec<Option<ScoredSequence>> = vec![None; sequences.len()];
    let result = score_batches(&session.devices, model, sequences, batch_tokens, &mut |batch| {
        for (index, score) in batch {
            scored[index] = Some(score);
            spent += sequences[index].ids.len();
            let example = example_of[index];
            open[example] -= 1;
            done += usize::from(open[example] == 0);
        }
        meter.update(done, || Pace { amount: done as f64, left: (total - spent) as f64, spent: spent as f64 });
        Ok(())
    });
    match &result {
        Ok(()) => meter.conclude(Pace::even(counts.len(), counts.len())),
        Err(_) => meter.finish(),
    }
    result?;
    // Every sequence was in exactly one batch.
    Ok(scored.into_iter().flatten().collect())
}

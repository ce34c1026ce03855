//! Log-probabilities of many sequences, with progress.

use setpoint_train::{Divergence, Predictions, ScoredSequence, Sequence, score_against, score_and_keep, score_batches};
use setpoint_transformer::CausalLm;

use crate::failure::Outcome;
use crate::session::{Meter, Pace, Session};

/// Scores the sequences of some examples on all devices, under a name and with the plural of one example for the progress: `counts[i]` consecutive ones belong to example `i`. The result is in the order given.
pub fn score(
    session: &Session,
    (what, unit): (&str, &'static str),
    model: &CausalLm,
    sequences: &[Sequence],
    counts: &[usize],
    batch_tokens: usize,
) -> Outcome<Vec<ScoredSequence>> {
    let total = sequences.iter().map(|s| s.ids.len()).sum();
    let mut scoring = Scoring::new(session, (what, unit), counts.len(), total);
    let scores = scoring.score(session, model, sequences, counts, batch_tokens)?;
    if !sequences.is_empty() {
        scoring.conclude();
    }
    Ok(scores)
}

/// Scores sequences as [`score`] does, one an example, and keeps what the model predicts at the tokens of their responses.
pub fn score_keeping(
    session: &Session,
    what: (&str, &'static str),
    model: &CausalLm,
    sequences: &[Sequence],
    batch_tokens: usize,
) -> Outcome<(Vec<ScoredSequence>, Predictions)> {
    let mut passes = OnePass::new(session, what, sequences);
    let kept = score_and_keep(&session.devices, model, sequences, batch_tokens, &mut |batch| {
        passes.take(batch);
        Ok(())
    });
    let found = passes.end(kept.is_ok());
    Ok((found, kept?))
}

/// Scores the sequences of some predictions under another model, with the divergence of the first model from it.
pub fn score_diverging(
    session: &Session,
    what: (&str, &'static str),
    model: &CausalLm,
    kept: &Predictions,
    sequences: &[Sequence],
) -> Outcome<Vec<Divergence>> {
    let mut passes = OnePass::new(session, what, sequences);
    let result = score_against(&session.devices, model, kept, sequences, &mut |batch| {
        passes.take(batch);
        Ok(())
    });
    let found = passes.end(result.is_ok());
    result?;
    Ok(found)
}

/// The results of passes over sequences of which each is an example, with progress.
struct OnePass<'a, R> {
    scoring: Scoring,
    sequences: &'a [Sequence],
    found: Vec<Option<R>>,
}

impl<'a, R> OnePass<'a, R> {
    fn new(session: &Session, what: (&str, &'static str), sequences: &'a [Sequence]) -> Self {
        let tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
        let found = sequences.iter().map(|_| None).collect();
        Self { scoring: Scoring::new(session, what, sequences.len(), tokens), sequences, found }
    }

    /// Takes the results of a pass, each with its sequence's index.
    fn take(&mut self, batch: Vec<(usize, R)>) {
        for (index, result) in batch {
            self.found[index] = Some(result);
            self.scoring.spent += self.sequences[index].ids.len();
            self.scoring.done += 1;
        }
        self.scoring.tell();
    }

    /// Takes the bar away, and returns the results in the order of the sequences.
    fn end(self, succeeded: bool) -> Vec<R> {
        match succeeded && !self.sequences.is_empty() {
            true => self.scoring.conclude(),
            false => self.scoring.meter.finish(),
        }
        // Every sequence was in exactly one batch.
        self.found.into_iter().flatten().collect()
    }
}

/// Scoring in one part or several, with progress over all of them.
///
/// The time left goes by the tokens that are left, since the longest come first.
pub struct Scoring {
    meter: Meter,
    examples: usize,
    /// Tokens of all parts.
    total: usize,
    done: usize,
    spent: usize,
}

impl Scoring {
    /// Scoring of so many examples, whose sequences have `total` tokens.
    pub fn new(session: &Session, (what, unit): (&str, &'static str), examples: usize, total: usize) -> Self {
        Self { meter: Meter::new(session, examples, what, unit), examples, total, done: 0, spent: 0 }
    }

    /// Scores a part; arguments and result as for [`score`].
    pub fn score(
        &mut self,
        session: &Session,
        model: &CausalLm,
        sequences: &[Sequence],
        counts: &[usize],
        batch_tokens: usize,
    ) -> Outcome<Vec<ScoredSequence>> {
        let Self { meter, total, done, spent, .. } = self;
        let example_of: Vec<usize> = counts.iter().enumerate().flat_map(|(i, &count)| vec![i; count]).collect();
        let mut open = counts.to_vec();
        *done += open.iter().filter(|&&count| count == 0).count();
        let mut scored: Vec<Option<ScoredSequence>> = vec![None; sequences.len()];
        if sequences.is_empty() {
            return Ok(Vec::new());
        }
        let result = score_batches(&session.devices, model, sequences, batch_tokens, &mut |batch| {
            for (index, score) in batch {
                scored[index] = Some(score);
                *spent += sequences[index].ids.len();
                let example = example_of[index];
                open[example] -= 1;
                *done += usize::from(open[example] == 0);
            }
            let (done, spent, left) = (*done, *spent, total.saturating_sub(*spent));
            meter.update(done, || Pace { amount: done as f64, left: left as f64, spent: spent as f64 });
            Ok(())
        });
        if result.is_err() {
            self.meter.finish();
        }
        result?;
        // Every sequence was in exactly one batch.
        Ok(scored.into_iter().flatten().collect())
    }

    /// Shows how far the work is.
    fn tell(&mut self) {
        let (done, spent, left) = (self.done, self.spent, self.total.saturating_sub(self.spent));
        self.meter.update(done, || Pace { amount: done as f64, left: left as f64, spent: spent as f64 });
    }

    /// Takes the bar away and says how long it took.
    pub fn conclude(&self) {
        self.meter.conclude(Pace::even(self.examples, self.examples));
    }
}

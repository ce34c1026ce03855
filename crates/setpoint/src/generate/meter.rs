//! The progress of a generation.

use setpoint_transformer::GenerationConfig;

use crate::session::{Meter, Pace, Session};

/// Shows how many rows have ended, new tokens a second, and the time left.
///
/// How long the rows will be is estimated from those that have ended and those that have not: new tokens so far by ends so far, which is
/// the mean length where each further token is as likely to be the last (the estimate of an exponential distribution from censored
/// observations). A row of that mean `m` that may still get `c` tokens gets `m·(1 − exp(−c/m))` more.
pub struct GenerationMeter {
    meter: Meter,
    /// Of each row: tokens that it may still get. 0 where it has ended.
    room: Vec<usize>,
    /// Rows of the batches before this one.
    before: usize,
    /// Rows of this batch and of those before it.
    begun: usize,
    ended: usize,
    /// Rows that ended by themselves.
    stopped: usize,
    tokens: usize,
    stops: Vec<u32>,
}

impl GenerationMeter {
    /// A meter of `rows` rows in all, of at most `most` new tokens each.
    pub fn new(session: &Session, what: &str, rows: usize, most: usize) -> Self {
        Self {
            meter: Meter::new(session, rows, what, "tokens"),
            room: vec![most; rows],
            before: 0,
            begun: 0,
            ended: 0,
            stopped: 0,
            tokens: 0,
            stops: Vec::new(),
        }
    }

    /// The next rows, which are generated together, in a model of `positions`.
    pub fn begin(&mut self, prompts: &[Vec<u32>], settings: &GenerationConfig, positions: usize) {
        self.before = self.begun;
        self.begun = (self.before + prompts.len()).min(self.room.len());
        for (room, prompt) in self.room[self.before..self.begun].iter_mut().zip(prompts) {
            *room = settings.room(prompt.len(), positions);
        }
        self.stops.clone_from(&settings.stop_token_ids);
    }

    /// The token `id` of a row of these; `stop` where something other than the token ends it.
    pub fn token(&mut self, row: usize, id: u32, stop: bool) {
        self.tokens += 1;
        let stopped = stop || self.stops.contains(&id);
        if let Some(room) = self.room.get_mut(self.before + row) {
            *room = if stopped { 0 } else { room.saturating_sub(1) };
            self.stopped += usize::from(stopped);
            self.ended += usize::from(*room == 0);
        }
        let (tokens, stopped, room) = (self.tokens, self.stopped, &self.room);
        self.meter.update(self.ended, || Pace {
            amount: tokens as f64,
            left: to_come(room, tokens, stopped),
            spent: tokens as f64,
        });
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.meter.finish();
    }
}

/// Tokens that are expected to come.
fn to_come(room: &[usize], tokens: usize, stopped: usize) -> f64 {
    let mean = tokens as f64 / stopped as f64;
    let expected = |&room: &usize| match stopped {
        0 => room as f64,
        _ => mean * -(-(room as f64) / mean).exp_m1(),
    };
    room.iter().map(expected).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_come_is_learnt_from_the_rows_that_have_ended() {
        // Nobody has ended: all go on to their limits.
        assert_eq!(to_come(&[10, 0, 30], 50, 0), 40.0);
        // A mean of 20, far from the limit: 20 more each, whatever they have; close to it, what is left.
        assert!((to_come(&[100_000, 0, 100_000], 60, 3) - 40.0).abs() < 1e-9);
        assert!((to_come(&[1], 60, 3) - 20.0 * (1.0 - (-0.05_f64).exp())).abs() < 1e-12);
        assert_eq!(to_come(&[0, 0], 60, 3), 0.0);
    }

    #[test]
    fn rows_end_by_stop_or_limit_and_count_once() {
        let session = Session { quiet: true, ..Session::on(burn::tensor::Device::flex()) };
        let mut meter = GenerationMeter::new(&session, "answers", 3, 5);
        let settings = GenerationConfig { max_new_tokens: 2, stop_token_ids: vec![9], ..GenerationConfig::default() };
        meter.begin(&[vec![1], vec![1]], &settings, 64);
        assert_eq!(meter.room, [2, 2, 5]);
        meter.token(0, 9, false);
        meter.token(1, 4, false);
        assert_eq!((meter.ended, meter.stopped), (1, 1));
        meter.token(1, 4, false);
        assert_eq!((meter.ended, meter.stopped), (2, 1));
        // The next batch, with a prompt that leaves room for one token.
        meter.begin(&[vec![1; 63]], &settings, 64);
        meter.token(0, 4, true);
        assert_eq!((meter.ended, meter.stopped, meter.tokens), (3, 2, 4));
        assert_eq!(meter.room, [0, 0, 0]);
        meter.finish();
    }
}

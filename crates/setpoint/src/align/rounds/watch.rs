//! A second source of rewards that nothing is trained on: if it falls while the reward rises, the policy exploits its reward.

use serde::{Deserialize, Serialize};
use setpoint_data::TextEncoder;
use setpoint_eval::mean;

use super::judge::{Answer, Judge};
use super::prompts::Prompts;
use super::store::{RolloutRow, Store};
use crate::failure::Outcome;

/// Rounds whose means are one evaluation of the guard: the mean of a single round depends on its prompts.
const ROUNDS: usize = 5;

/// The rewards of the second source for a round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SecondReward {
    /// Their mean.
    pub reward: f64,
}

/// The second source.
pub struct Watch<'a> {
    judge: Judge<'a>,
}

impl<'a> Watch<'a> {
    /// Creates a watch over the rewards of `judge`.
    pub fn new(judge: Judge<'a>) -> Self {
        Self { judge }
    }

    /// Returns the mean reward of a stored round: the one that an earlier process found, or a new one, which is written. `None` if the
    /// source has no reward for any response.
    ///
    /// # Errors
    /// When the source or the disk fails.
    pub fn of_round(
        &mut self,
        round: u64,
        rows: &[RolloutRow],
        store: &Store,
        encoder: &TextEncoder,
        prompts: &Prompts,
    ) -> Outcome<Option<SecondReward>> {
        if let Some(found) = store.watched(round) {
            return Ok(found);
        }
        let answers: Vec<Answer<'_>> = rows
            .iter()
            .flat_map(|row| {
                let responses = row.tokens.iter().zip(&row.responses).enumerate();
                responses.map(move |(index, (ids, text))| Answer { row: row.row, index, ids, text })
            })
            .collect();
        let rewards = self.judge.rewards(&answers, encoder, prompts);
        let rewards = rewards.map_err(|failure| failure.at(format_args!("round {round}, [watch]")))?.sums;
        let unscored = rewards.iter().filter(|reward| reward.is_none()).count();
        self.judge.end_round(round, unscored, rewards.len()).map_err(|failure| failure.at("[watch]"))?;
        let stopped = rows.iter().flat_map(|row| &row.stopped);
        let penalty = self.judge.missing_stop_penalty();
        let scored = rewards.iter().zip(stopped);
        let scored: Vec<f64> =
            scored.filter_map(|(reward, &stopped)| Some((*reward)? - if stopped { 0.0 } else { penalty })).collect();
        let found = (!scored.is_empty()).then(|| SecondReward { reward: mean(&scored) });
        store.write_watched(round, found)?;
        Ok(found)
    }
}

/// The rounds since the last evaluation: reward, and reward of the second source.
#[derive(Debug, Default)]
pub struct Evaluations(Vec<(f64, f64)>);

impl Evaluations {
    /// Takes a round in. After every few rounds returns the means of both rewards over them.
    pub fn add(&mut self, reward: Option<f64>, watched: Option<SecondReward>) -> Option<(f64, f64)> {
        self.0.push((reward?, watched?.reward));
        if self.0.len() < ROUNDS {
            return None;
        }
        let (rewards, watched): (Vec<f64>, Vec<f64>) = std::mem::take(&mut self.0).into_iter().unzip();
        Some((mean(&rewards), mean(&watched)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_rounds_are_one_evaluation() {
        let mut evaluations = Evaluations::default();
        let mut add = |reward: f64, watched: f64| evaluations.add(Some(reward), Some(SecondReward { reward: watched }));
        let first: Vec<_> = (0..5).map(|round| add(f64::from(round), 2.0 * f64::from(round))).collect();
        assert_eq!(first, [None, None, None, None, Some((2.0, 4.0))]);
        // A round without a reward does not count.
        assert_eq!(evaluations.add(None, Some(SecondReward { reward: 9.0 })), None);
        let second: Vec<_> = (0..5).map(|_| evaluations.add(Some(1.0), Some(SecondReward { reward: 3.0 }))).collect();
        assert_eq!(second[4], Some((1.0, 3.0)));
    }
}

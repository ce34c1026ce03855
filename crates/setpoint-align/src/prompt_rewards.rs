//! The rewards of one prompt's responses, with the data's labels.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::preferences::Preferences;

/// The side of a preference that a response stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Preferred, or desirable.
    Chosen,
    /// Dispreferred, or undesirable.
    Rejected,
}

/// The rewards of the responses to one prompt, on the host, with labels where the data has them.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRewards {
    /// The caller's number of the row, for messages.
    pub row: usize,
    /// `r(x, y_j)` of each response.
    pub rewards: Vec<f64>,
    /// The data's own label of each response; empty where the data has none.
    pub labels: Vec<Option<Role>>,
}

impl PromptRewards {
    /// Rewards without labels.
    pub fn new(row: usize, rewards: Vec<f64>) -> Self {
        Self { row, rewards, labels: Vec::new() }
    }

    /// The same with the data's labels, one entry per response.
    #[must_use]
    pub fn with_labels(mut self, labels: Vec<Option<Role>>) -> Self {
        self.labels = labels;
        self
    }

    /// Checks that there are responses, that every reward is finite, and that labels are as many.
    ///
    /// # Errors
    /// [`Error::NoResponses`], [`Error::Reward`], [`Error::Lengths`], each naming the row.
    pub fn validate(&self) -> Result<(), Error> {
        let row = self.row;
        if self.rewards.is_empty() {
            return Err(Error::NoResponses { row });
        }
        let bad = self.rewards.iter().position(|reward| !reward.is_finite());
        if let Some(response) = bad {
            return Err(Error::Reward { row, response, found: self.rewards[response] });
        }
        if !self.labels.is_empty() && self.labels.len() != self.rewards.len() {
            let (expected, found) = (self.rewards.len(), self.labels.len());
            return Err(Error::Lengths { row, what: "labels", expected, found });
        }
        Ok(())
    }

    /// Compares the responses: by label if any has one, else by reward.
    pub fn preferences(&self) -> Preferences<'_> {
        Preferences::new(&self.labels, Some(&self.rewards))
    }
}

/// The largest reward and target: its square is finite in f32, in which losses are computed.
const LARGEST: f64 = 1e18;

/// Checks that rewards and the level of their targets are moderate enough for a loss in 32-bit numbers. Methods whose loss takes
/// rewards as they are give β 1 and `log_z0` 0.
///
/// # Errors
/// [`Error::LargeReward`] naming the first that is not, [`Error::Setting`] for the level, and what [`PromptRewards::validate`]
/// finds.
pub fn check_targets(data: &[PromptRewards], beta: f64, log_z0: f64) -> Result<(), Error> {
    for prompt in data {
        prompt.validate()?;
        for (response, &reward) in prompt.rewards.iter().enumerate() {
            let nats = reward / beta;
            if !moderate(reward) || !moderate(nats) {
                let row = prompt.row;
                return Err(Error::LargeReward { row, response, reward, nats, limit: LARGEST });
            }
        }
    }
    if moderate(log_z0) && moderate(beta * log_z0) {
        return Ok(());
    }
    Err(Error::Setting { name: "log_z0", expected: "at most 1e18 nats, and as much reward", found: log_z0.to_string() })
}

/// Neither infinite nor NaN is moderate.
fn moderate(value: f64) -> bool {
    value.abs() <= LARGEST
}

/// Returns the rewards of all chosen responses of a data set (see [`Preferences::roles`]).
pub fn chosen_rewards(data: &[PromptRewards]) -> Vec<f64> {
    data.iter()
        .flat_map(|prompt| {
            let roles = prompt.preferences().roles();
            let chosen = move |j: &usize| roles[*j] == Some(Role::Chosen);
            (0..prompt.rewards.len()).filter(chosen).map(|j| prompt.rewards[j])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Chosen, Rejected};

    #[test]
    fn labels_win_over_rewards() {
        let labels = vec![Some(Rejected), None, Some(Chosen)];
        let prompt = PromptRewards::new(0, vec![3.0, 2.0, 1.0]).with_labels(labels.clone());
        assert_eq!(prompt.preferences().roles(), labels);
        assert_eq!(prompt.preferences().pair(), Some((2, 0)));
    }

    #[test]
    fn pairs_need_two_sides() {
        assert_eq!(PromptRewards::new(0, vec![1.0, 4.0, 0.5, 4.0]).preferences().pair(), Some((1, 2)));
        assert_eq!(PromptRewards::new(0, vec![1.0, 1.0]).preferences().pair(), None);
        assert_eq!(PromptRewards::new(0, vec![1.0]).preferences().pair(), None);
        let lonely = PromptRewards::new(0, vec![1.0, 2.0]).with_labels(vec![Some(Chosen), None]);
        assert_eq!(lonely.preferences().pair(), None);
    }

    #[test]
    fn validation_names_row_and_response() {
        assert_eq!(PromptRewards::new(7, vec![]).validate(), Err(Error::NoResponses { row: 7 }));
        let found = f64::INFINITY;
        assert_eq!(
            PromptRewards::new(7, vec![0.0, found]).validate(),
            Err(Error::Reward { row: 7, response: 1, found })
        );
        let nan = PromptRewards::new(3, vec![f64::NAN]).validate().unwrap_err();
        assert_eq!(nan.to_string(), "row 3, response 0: the reward is NaN, expected a finite number");
        assert_eq!(
            PromptRewards::new(7, vec![0.0, 1.0]).with_labels(vec![None]).validate(),
            Err(Error::Lengths { row: 7, what: "labels", expected: 2, found: 1 })
        );
    }

    #[test]
    fn rewards_that_no_loss_holds_are_named() {
        let data = |reward| [PromptRewards::new(3, vec![0.0]), PromptRewards::new(4, vec![1.0, reward])];
        assert_eq!(check_targets(&data(1e6), 0.1, 50.0), Ok(()));
        for (reward, beta, log_z0) in [(1e300, 1.0, 0.0), (-1e20, 1.0, 0.0), (1e10, 1e-9, 0.0), (1e308, 1e-3, 1e308)] {
            let error = check_targets(&data(reward), beta, log_z0).unwrap_err();
            assert!(matches!(error, Error::LargeReward { row: 4, response: 1, .. }), "{reward:e}: {error}");
        }
        for (beta, log_z0) in [(1.0, 1e30), (1e-3, -1e19), (1e10, 1e10)] {
            let error = check_targets(&data(0.0), beta, log_z0).unwrap_err();
            assert!(matches!(error, Error::Setting { name: "log_z0", .. }), "{error}");
        }
        let error = check_targets(&data(1e300), 0.1, 0.0).unwrap_err();
        assert!(error.to_string().starts_with("row 4, response 1: the reward 1e300 is too large"), "{error}");
        assert!(matches!(check_targets(&data(f64::NAN), 1.0, 0.0), Err(Error::Reward { row: 4, .. })));
    }

    #[test]
    fn chosen_rewards_of_a_data_set() {
        let data = [
            PromptRewards::new(0, vec![1.0, 2.0]),
            PromptRewards::new(1, vec![5.0, 9.0]).with_labels(vec![Some(Chosen), Some(Rejected)]),
            PromptRewards::new(2, vec![-1.0]),
        ];
        assert_eq!(chosen_rewards(&data), [2.0, 5.0, -1.0]);
    }
}

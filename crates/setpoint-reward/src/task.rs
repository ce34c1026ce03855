//! Training a reward model on preference pairs.

use burn::tensor::{Tensor, TensorData};
use setpoint_train::{
    BatchContext, Forward, MetricSums, OnDemand, PassNumbers, ResponseValues, Task, Trainable, Unread,
};
use setpoint_transformer::RopeSwitch;
use setpoint_transformer::lora::{MaskSeed, with_dropout};

use crate::bradley_terry::bradley_terry;
use crate::error::Error;
use crate::model::{RewardModel, check_row};
use crate::rows::groups;

/// A prompt with a better and a worse response, as tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// Prompt and chosen response, the response's stop token last.
    pub chosen: Vec<u32>,
    /// Prompt and rejected response, the response's stop token last.
    pub rejected: Vec<u32>,
    /// By how much the chosen reward should lead, in units of the reward; 0 for plain Bradley–Terry.
    pub margin: f64,
    /// The name of the pair in messages, best by file and row.
    pub name: String,
}

impl Preference {
    /// A pair of responses to one prompt.
    ///
    /// # Example
    /// ```
    /// let pair = setpoint_reward::Preference::new(&[1, 5], &[6, 2], &[7, 8, 2], 0.0, "data.jsonl:3");
    /// assert_eq!((pair.chosen, pair.rejected), (vec![1, 5, 6, 2], vec![1, 5, 7, 8, 2]));
    /// ```
    pub fn new(prompt: &[u32], chosen: &[u32], rejected: &[u32], margin: f64, name: impl Into<String>) -> Self {
        Self { chosen: [prompt, chosen].concat(), rejected: [prompt, rejected].concat(), margin, name: name.into() }
    }
}

/// Bradley–Terry training on preference pairs, for [`setpoint_train::fit`].
///
/// Both responses of every pair go through the model in one packed batch: nothing is padded, and the tokens that rows begin with alike
/// are computed once. The
/// loss is the mean over pairs of [`bradley_terry`]. Metrics have trl's names: `accuracy` (chosen strictly above
/// rejected), `margin`, `min_reward`, `mean_reward`, `max_reward`.
#[derive(Debug, Clone)]
pub struct PreferenceTask {
    pairs: OnDemand<Preference>,
    /// The tokens of each pair that go through the model.
    costs: Vec<u32>,
    center: f64,
}

impl PreferenceTask {
    /// A task on `pairs` with `center` as the factor of `(r_w + r_l)²` (0 switches it off, 0.01 is usual), for a model with this `switch`.
    /// Pairs that are made [on demand](OnDemand) are made once here, to be checked.
    ///
    /// # Errors
    /// [`Error::Preference`] for a factor below 0 or a margin that is not finite; [`Error::Empty`] for a side without tokens;
    /// [`Error::Engine`] for a pair that cannot be made.
    pub fn new(pairs: impl Into<OnDemand<Preference>>, center: f64, switch: RopeSwitch) -> Result<Self, Error> {
        let pairs = pairs.into();
        if !(center.is_finite() && center >= 0.0) {
            return Err(Error::Preference {
                place: "the centring coefficient".to_owned(),
                reason: format!("is {center}, expected a finite number, 0 or greater"),
            });
        }
        let mut costs = Vec::with_capacity(pairs.len());
        for pair in pairs.iter() {
            let pair = pair?;
            for (side, row) in [("chosen", &pair.chosen), ("rejected", &pair.rejected)] {
                if row.is_empty() {
                    return Err(Error::Empty { place: format!("{}, {side}", pair.name) });
                }
            }
            if !pair.margin.is_finite() {
                return Err(Error::Preference {
                    place: pair.name,
                    reason: format!("the margin is {}, expected a finite number", pair.margin),
                });
            }
            let groups = groups(&[&pair.chosen, &pair.rejected], usize::MAX, switch);
            costs.push(groups.iter().map(|group| group.cost).sum::<usize>() as u32);
        }
        Ok(Self { pairs, costs, center })
    }

    /// The pairs.
    pub fn pairs(&self) -> &OnDemand<Preference> {
        &self.pairs
    }

    fn losses(&self, model: &RewardModel, examples: &[usize], denominator: f64) -> Result<Forward, Error> {
        let pairs = examples.iter().map(|&example| self.pairs.get(example)).collect::<Result<Vec<_>, _>>()?;
        let vocabulary = model.vocabulary();
        for pair in &pairs {
            check_row(&pair.chosen, vocabulary, || format!("{}, chosen", pair.name))?;
            check_row(&pair.rejected, vocabulary, || format!("{}, rejected", pair.name))?;
        }
        let n = pairs.len();
        // All chosen, then all rejected, as trl lays them out.
        let rows: Vec<&[u32]> = (pairs.iter().map(|pair| pair.chosen.as_slice()))
            .chain(pairs.iter().map(|pair| pair.rejected.as_slice()))
            .collect();
        let (rewards, tape) = model.scores_taped(&rows)?; // [2n]
        let (chosen, rejected) = (rewards.clone().narrow(0, 0, n), rewards.clone().narrow(0, n, n)); // [2n] -> [n], [n]
        let margin = pairs.iter().any(|pair| pair.margin != 0.0).then(|| {
            let margins: Vec<f32> = pairs.iter().map(|pair| pair.margin as f32).collect();
            Tensor::from_data(TensorData::new(margins, [n]), &rewards.device())
        });
        let losses = bradley_terry(chosen, rejected, margin, self.center).losses;
        let examples = examples.to_vec();
        let numbers = Unread::of(rewards).and(Unread::of(losses.clone())).map(move |(rewards, losses)| {
            let mut responses = ResponseValues::default();
            for (i, &example) in examples.iter().enumerate() {
                for (chosen, reward) in [(1.0, rewards[i]), (0.0, rewards[n + i])] {
                    responses.push(example, [("chosen", chosen), ("reward", reward)]);
                }
            }
            PassNumbers {
                metrics: pair_metrics(&rewards[..n], &rewards[n..]),
                per_example: losses.into_iter().map(|loss| loss as f32).collect(),
                responses,
            }
        });
        let loss = losses.sum().div_scalar(denominator);
        Ok(Forward { loss, numbers, tape, second_tape: None })
    }
}

impl Trainable for RewardModel {
    fn at_step(&self, masks: MaskSeed) -> Option<Self> {
        with_dropout(self, masks)
    }
}

impl Task for PreferenceTask {
    type Model = RewardModel;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn weight(&self, _example: usize) -> f64 {
        1.0
    }

    fn cost(&self, example: usize) -> usize {
        self.costs[example] as usize
    }

    fn forward(
        &self,
        model: &RewardModel,
        examples: &[usize],
        batch: &BatchContext<()>,
    ) -> Result<Forward, setpoint_train::Error> {
        self.losses(model, examples, batch.denominator).map_err(setpoint_train::Error::task)
    }

    fn describe(&self, example: usize) -> String {
        self.pairs.get(example).map_or_else(|_| format!("pair {example}"), |pair| pair.name)
    }
}

/// Metrics of rewards on pairs, under trl's names.
fn pair_metrics(chosen: &[f64], rejected: &[f64]) -> MetricSums {
    let n = chosen.len() as f64;
    let pairs = || chosen.iter().copied().zip(rejected.iter().copied());
    let mut metrics = MetricSums::new();
    metrics.mean("accuracy", pairs().filter(|(w, l)| w > l).count() as f64, n);
    metrics.mean("margin", pairs().map(|(w, l)| w - l).sum(), n);
    metrics.mean("mean_reward", pairs().map(|(w, l)| w + l).sum(), 2.0 * n);
    for (w, l) in pairs() {
        metrics.min("min_reward", w.min(l));
        metrics.max("max_reward", w.max(l));
    }
    metrics
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;

//! DRO-V as a task of the engine: a policy and a value network, trained together.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use setpoint_align::{DroVSettings, Metrics, ResponsePoint, constant_like, dro_v};
use setpoint_reward::{HeadInit, RewardModel};
use setpoint_train::{BatchContext, Error, Forward, ResponseValues, Task, Trainable, Unread};
use setpoint_transformer::checkpoint::with_stable_ids;
use setpoint_transformer::lora::MaskSeed;
use setpoint_transformer::{CausalLm, ModelConfig};

use super::single::{self, Single, SingleResponses};
use super::{mean_loss, metric_sums};

/// A policy and a value network, which DRO-V and PPO train together.
#[derive(Module, Debug)]
pub struct PolicyAndValue {
    /// The policy.
    pub policy: CausalLm,
    /// A decoder of its own with one number on top. DRO-V reads it at the last token of the prompt, PPO before each token of a response.
    pub value: RewardModel,
}

impl PolicyAndValue {
    /// A policy with a value network on the decoder of another model of that shape; every value is 0 before training.
    pub fn new(policy: CausalLm, value: CausalLm, config: &ModelConfig) -> Self {
        let (value, _) = RewardModel::from_causal_lm(value, config, HeadInit::Zeros);
        Self::of(policy, value)
    }

    /// A policy with a value network.
    pub fn of(policy: CausalLm, value: RewardModel) -> Self {
        // Both have the parameters of a decoder: their names tell them apart.
        with_stable_ids(Self { policy, value })
    }
}

impl Trainable for PolicyAndValue {
    fn at_step(&self, masks: MaskSeed) -> Option<Self> {
        let (policy, value) = (self.policy.at_step(masks), self.value.at_step(masks.of_part("value")));
        (policy.is_some() || value.is_some()).then(|| Self {
            policy: policy.unwrap_or_else(|| self.policy.clone()),
            value: value.unwrap_or_else(|| self.value.clone()),
        })
    }
}

/// Single rewarded responses.
#[derive(Debug)]
pub struct DroVTask {
    rows: SingleResponses,
    settings: DroVSettings,
}

impl DroVTask {
    /// Makes a task of rows, each of which has a reward.
    pub fn new(rows: SingleResponses, settings: DroVSettings) -> Self {
        Self { rows, settings }
    }
}

impl Task for DroVTask {
    type Model = PolicyAndValue;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn weight(&self, _example: usize) -> f64 {
        1.0
    }

    fn cost(&self, example: usize) -> usize {
        let (tokens, prompt) = self.rows.tokens(example);
        tokens + prompt
    }

    fn forward(&self, model: &PolicyAndValue, examples: &[usize], batch: &BatchContext<()>) -> Result<Forward, Error> {
        let rows = self.rows.read(examples)?;
        let found = single::logps(&model.policy, &rows)?;
        let logps = found.response.clone();

        // Responses of one prompt share its value.
        let mut prompts: Vec<&[u32]> = Vec::new();
        let mut places = HashMap::new();
        let place: Vec<i64> = rows
            .iter()
            .map(|row| {
                *places.entry(row.place.0).or_insert_with(|| {
                    let sequence = row.sequence();
                    prompts.push(&sequence.ids[..sequence.prompt_len]);
                    prompts.len() as i64 - 1
                })
            })
            .collect();
        let values = model.value.scores(&prompts).map_err(Error::task)?; // [p]
        let place = Tensor::<1, Int>::from_data(TensorData::new(place, [examples.len()]), &values.device());
        let values = values.select(0, place); // [p] -> [n]

        let ref_logps: Vec<f64> = rows.iter().map(Single::ref_logp).collect();
        let rewards = rows.iter().map(|row| row.reward().ok_or_else(|| Error::task("a response without a reward")));
        let rewards = rewards.collect::<Result<Vec<f64>, Error>>()?;
        let log_ratios = logps.clone() - constant_like(&ref_logps, &logps);
        let output = dro_v(log_ratios, constant_like(&rewards, &logps), values.clone(), &self.settings);

        let (examples, beta) = (examples.to_vec(), self.settings.beta);
        let logged = Unread::of(logps).and(Unread::of(values)).map(move |(logps, values)| {
            let mut metrics = Metrics::default();
            let mut responses = ResponseValues::default();
            for (i, (&example, row)) in examples.iter().zip(&rows).enumerate() {
                let point = ResponsePoint::with_reference(logps[i], ref_logps[i], beta);
                metrics.record("dro_v/value", values[i]);
                metrics.record("dro_v/residual", rewards[i] - values[i] - point.reward);
                // Where the residual would be 0.
                let target = (rewards[i] - values[i]) / beta;
                let found = [("log_ratio", logps[i] - ref_logps[i]), ("target", target)];
                responses.push(example, row.logged().into_iter().chain(found));
                if let Some(role) = row.role() {
                    metrics.record_response(role, &point);
                }
            }
            (metric_sums(&metrics), responses)
        });
        Ok(mean_loss(output.losses, batch.denominator, logged, found))
    }

    fn decoder(&self) -> &'static str {
        "policy.model"
    }

    fn describe(&self, example: usize) -> String {
        self.rows.describe(example)
    }
}

//! The tasks of methods that look at sampled responses token by token: PPO, RLOO, GRPO and REINFORCE++.

use std::sync::Arc;

use setpoint_align::PromptIndex;
use setpoint_align::online::{
    OnlineObjective, OnlineState, PpoSettings, Prepared, Sampled, SamplingCorrection, correction_metrics,
    sampling_weights,
};

use super::super::ptx::Ptx;
use super::{Round, RoundTasks};
use crate::failure::Outcome;
use crate::setup;
use crate::tasks::policy::{PolicyTask, SampledResponse};
use crate::tasks::ppo::{PpoTask, ResponseSlots};

/// Objectives on sampled responses, token by token.
pub struct SampledTasks {
    objective: Arc<dyn OnlineObjective>,
    max_new_tokens: usize,
    temperature: f64,
    /// The correction of the loss for what sampled, and its limit.
    correction: Option<(SamplingCorrection, f64)>,
    /// True if a round has one step, whose policy is the one that sampled.
    is_on_policy: bool,
    /// The state that the next round begins with.
    state: OnlineState,
    metrics: Vec<(String, f64)>,
}

impl SampledTasks {
    /// Creates the tasks of an objective. `max_new_tokens`: the most tokens that a response may have.
    pub fn new(objective: Box<dyn OnlineObjective>, max_new_tokens: usize) -> Self {
        let state = objective.start();
        let objective = Arc::from(objective);
        Self {
            objective,
            max_new_tokens,
            temperature: 1.0,
            correction: None,
            is_on_policy: false,
            state,
            metrics: Vec::new(),
        }
    }

    /// The same for rounds of one step, whose policy is the one that sampled.
    #[must_use]
    pub fn on_policy(self, is_on_policy: bool) -> Self {
        Self { is_on_policy, ..self }
    }

    /// The same at the temperature that responses are sampled at: the policy that samples is the one that is trained.
    #[must_use]
    pub fn at_temperature(self, temperature: f64) -> Self {
        Self { temperature, ..self }
    }

    /// The same with a loss that is corrected for what sampled.
    #[must_use]
    pub fn corrected(self, correction: Option<(SamplingCorrection, f64)>) -> Self {
        Self { correction, ..self }
    }

    /// Multiplies the advantages of a round by the weights of the correction, if there is one: every loss is linear in its advantage.
    fn correct(&mut self, round: &Round, advantages: &mut [Vec<f64>]) {
        let Some((correction, max)) = self.correction else { return };
        let responses = || round.rows.iter().flat_map(|row| row.tokens.iter().zip(&row.sampling));
        let counts: Vec<usize> = responses().map(|([old, _], _)| old.len()).collect();
        let old: Vec<f64> = responses().flat_map(|([old, _], _)| old.iter().copied()).collect();
        // What is not known of a response does not correct it.
        let known = |([old, _], sampled): (&'_ [Vec<f64>; 2], &'_ Vec<f64>)| -> Vec<f64> {
            if sampled.len() == old.len() { sampled.clone() } else { old.clone() }
        };
        let sampled: Vec<f64> = responses().flat_map(known).collect();
        let weights = sampling_weights(&old, &sampled, &counts, correction, max);
        let weighted = advantages.iter_mut().flatten().zip(&weights);
        weighted.for_each(|(advantage, weight)| *advantage *= weight);
        self.metrics.extend(correction_metrics(&weights, &counts, correction));
    }

    /// Computes the advantages of a round, and the state of the next one.
    fn prepare(&mut self, round: &Round) -> Outcome<Prepared> {
        let mut sampled = Vec::new();
        for row in &round.rows {
            for (j, [old, reference]) in row.tokens.iter().enumerate() {
                sampled.push(Sampled {
                    reward: row.example.responses[j].reward.unwrap_or(f64::NAN),
                    stopped: row.stopped[j],
                    old_logps: old,
                    ref_logps: reference,
                    values: &row.values[j],
                });
            }
        }
        let counts: Vec<usize> = round.rows.iter().map(|row| row.tokens.len()).collect();
        let found = self.objective.prepare(&sampled, &PromptIndex::from_counts(&counts)?, &self.state)?;
        self.state = found.next;
        Ok(found)
    }

    /// Makes the task of the policy, and returns the targets of each response's values.
    fn policy_task(&mut self, round: &Round) -> Outcome<(PolicyTask, Vec<Vec<f64>>)> {
        let mut found = self.prepare(round)?;
        self.metrics = std::mem::take(&mut found.metrics).into_iter().collect();
        self.correct(round, &mut found.advantages);
        let mut numbers = found.advantages.into_iter().zip(found.weights);
        let mut prompts = Vec::with_capacity(round.rows.len());
        for row in &round.rows {
            let sequences = setup::sequences(&row.example, None);
            let responses = sequences.into_iter().zip(&row.tokens).zip(numbers.by_ref()).enumerate().map(
                |(index, ((sequence, [old, reference]), (advantages, weight)))| SampledResponse {
                    name: row.example.source.to_string(),
                    index,
                    sequence,
                    old: old.clone(),
                    reference: reference.clone(),
                    advantages,
                    weight,
                    reward: row.example.responses[index].reward.unwrap_or(f64::NAN),
                },
            );
            prompts.push(responses.collect());
        }
        let task = PolicyTask::new(self.objective.clone(), prompts, self.max_new_tokens);
        Ok((task.at_temperature(self.temperature).on_policy(self.is_on_policy), found.returns))
    }
}

impl RoundTasks for SampledTasks {
    type Task = PolicyTask;

    fn follow(&mut self, round: &Round) -> Outcome {
        if !round.rows.is_empty() {
            self.prepare(round)?;
        }
        Ok(())
    }

    fn state(&self) -> Option<OnlineState> {
        Some(self.state)
    }

    fn go_on_from(&mut self, state: OnlineState) {
        self.state = state;
    }

    fn task(&mut self, round: Round) -> Outcome<Option<PolicyTask>> {
        if round.rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.policy_task(&round)?.0))
    }

    fn metrics(&self) -> Vec<(String, f64)> {
        self.metrics.clone()
    }
}

/// PPO: sampled responses with a value network.
pub struct PpoTasks {
    sampled: SampledTasks,
    settings: Arc<PpoSettings>,
    /// Rows of other data, if the policy keeps learning any.
    ptx: Option<Ptx>,
    /// The responses of a round.
    responses: usize,
    /// The responses of all rounds so far.
    episode: f64,
}

impl PpoTasks {
    /// Creates the tasks of rounds of so many `responses`. `max_new_tokens`: the most tokens that a response may have.
    pub fn new(settings: &PpoSettings, max_new_tokens: usize, responses: usize, ptx: Option<Ptx>) -> Self {
        let sampled = SampledTasks::new(Box::new(settings.clone()), max_new_tokens);
        Self { sampled, settings: Arc::new(settings.clone()), ptx, responses, episode: 0.0 }
    }

    /// The same at the temperature that responses are sampled at.
    #[must_use]
    pub fn at_temperature(self, temperature: f64) -> Self {
        Self { sampled: self.sampled.at_temperature(temperature), ..self }
    }

    /// The same with a loss of the policy that is corrected for what sampled.
    #[must_use]
    pub fn corrected(self, correction: Option<(SamplingCorrection, f64)>) -> Self {
        Self { sampled: self.sampled.corrected(correction), ..self }
    }
}

impl RoundTasks for PpoTasks {
    type Task = PpoTask;

    fn follow(&mut self, round: &Round) -> Outcome {
        self.sampled.follow(round)
    }

    fn state(&self) -> Option<OnlineState> {
        self.sampled.state()
    }

    fn go_on_from(&mut self, state: OnlineState) {
        self.sampled.go_on_from(state);
    }

    fn task(&mut self, round: Round) -> Outcome<Option<PpoTask>> {
        self.episode = (round.number as f64 + 1.0) * self.responses as f64;
        if round.rows.is_empty() {
            return Ok(None);
        }
        let (policy, returns) = self.sampled.policy_task(&round)?;
        let values = round.rows.into_iter().flat_map(|row| row.values);
        let slots: Vec<ResponseSlots> =
            values.zip(returns).map(|(values, returns)| ResponseSlots { values, returns }).collect();
        let ptx = self.ptx.as_ref().map(|ptx| {
            let mut rows = ptx.of_round(round.number, self.responses);
            // Responses without a reward have left.
            rows.truncate(slots.len());
            rows
        });
        let is_warmup = round.number < self.settings.value_warmup;
        Ok(Some(PpoTask::new(policy, self.settings.clone(), slots, ptx, is_warmup)))
    }

    fn metrics(&self) -> Vec<(String, f64)> {
        let mut metrics = self.sampled.metrics();
        metrics.push(("episode".to_owned(), self.episode));
        metrics
    }
}

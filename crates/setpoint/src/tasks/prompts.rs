//! Any objective on all responses of a prompt as a task of the engine.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use setpoint_align::{
    PromptBatch, PromptIndex, PromptObjective, PromptOutput, PromptValues, ResponsePoint, best_nll, constant_like,
    weighted_sum,
};
use setpoint_train::{
    BatchContext, Error, Forward, OnDemand, PassNumbers, PromptLogps, ResponseValues, Sequence, SequenceLogps, Task,
    Unread, sequence_logps, shared_tokens,
};
use setpoint_transformer::{CausalLm, RopeSwitch};

use super::stages::{RewardedPrompt, WithReference};
use super::{Entropy, metric_sums, unread};

/// Prompts with rewarded responses, and the objective that they are trained by.
#[derive(Debug)]
pub struct PromptTask {
    prompts: OnDemand<WithReference<RewardedPrompt>>,
    objective: Arc<dyn PromptObjective>,
    /// The level of each prompt's targets, nats; zeros for objectives without one.
    levels: Vec<f64>,
    /// The smallest level of each prompt at which its targets are probabilities.
    log_mass: Vec<f64>,
    sizes: Vec<Size>,
}

/// What is known of a prompt without its tokens.
#[derive(Debug, Clone, Copy)]
struct Size {
    responses: u32,
    /// The tokens that go through the model.
    cost: u32,
    /// The tokens of all sequences.
    tokens: u32,
}

/// The level of a prompt's targets, and the smallest level at which they are probabilities, nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PromptLevel {
    /// The level; 0 for objectives without one.
    pub level: f64,
    /// The smallest one.
    pub log_mass: f64,
}

/// The best responses of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BestResponses {
    /// Number of prompts that have one.
    prompts: f64,
    /// Number of their tokens.
    tokens: f64,
}

impl PromptTask {
    /// Makes a task of prompts, each of which is made once here. `level`: that of each prompt; `switch`: that of the model.
    ///
    /// # Errors
    /// When a prompt cannot be read, and those of `level`.
    pub fn new<E: From<Error>>(
        prompts: impl Into<OnDemand<WithReference<RewardedPrompt>>>,
        objective: Arc<dyn PromptObjective>,
        switch: RopeSwitch,
        mut level: impl FnMut(usize, &WithReference<RewardedPrompt>) -> Result<PromptLevel, E>,
    ) -> Result<Self, E> {
        let prompts = prompts.into();
        let mut task = Self { prompts, objective, levels: Vec::new(), log_mass: Vec::new(), sizes: Vec::new() };
        for (number, prompt) in task.prompts.iter().enumerate() {
            let prompt = prompt?;
            let PromptLevel { level, log_mass } = level(number, &prompt)?;
            task.levels.push(level);
            task.log_mass.push(log_mass);
            task.sizes.push(Size {
                responses: prompt.prompt.sequences.len() as u32,
                cost: shared_tokens(&prompt.prompt.sequences, switch) as u32,
                tokens: prompt.prompt.tokens() as u32,
            });
        }
        Ok(task)
    }

    /// Computes the NLL of the best responses of some prompts as a part of the loss, `[1]`, and the share of each response. `None` if none of
    /// the prompts has one.
    fn nll(
        &self,
        prompts: &[WithReference<RewardedPrompt>],
        logps: &SequenceLogps,
        batch: &BestResponses,
    ) -> Option<[Tensor<1>; 2]> {
        let mut start = 0;
        let place = |prompt: &WithReference<RewardedPrompt>| {
            let place = prompt.best.map(|best| start + best);
            start += prompt.prompt.sequences.len();
            place
        };
        let best: Vec<usize> = prompts.iter().filter_map(place).collect();
        if best.is_empty() {
            return None;
        }
        let shares = best_nll(logps.response.clone(), &best, batch.prompts, batch.tokens);
        let loss = weighted_sum(shares.clone(), &vec![self.objective.nll_weight() / batch.prompts; best.len()]);
        Some([loss, shares])
    }
}

impl Task for PromptTask {
    type Model = CausalLm;
    type Probe = ();
    type Survey = BestResponses;

    fn len(&self) -> usize {
        self.sizes.len()
    }

    fn weight(&self, example: usize) -> f64 {
        self.objective.aggregate().weight(self.sizes[example].responses as usize)
    }

    fn cost(&self, example: usize) -> usize {
        self.sizes[example].cost as usize
    }

    fn tokens(&self, example: usize) -> usize {
        self.sizes[example].tokens as usize
    }

    fn survey(&self, batch: &[usize], _: &[()]) -> Result<BestResponses, Error> {
        let mut found = BestResponses::default();
        if self.objective.nll_weight() == 0.0 {
            return Ok(found);
        }
        for &example in batch {
            let prompt = self.prompts.get(example)?;
            let Some(best) = prompt.best else { continue };
            found.prompts += 1.0;
            found.tokens += prompt.prompt.response_ids(best).len() as f64;
        }
        Ok(found)
    }

    fn forward(
        &self,
        model: &CausalLm,
        examples: &[usize],
        batch: &BatchContext<BestResponses>,
    ) -> Result<Forward, Error> {
        let prompts: Vec<WithReference<RewardedPrompt>> =
            examples.iter().map(|&example| self.prompts.get(example)).collect::<Result<_, Error>>()?;
        let counts: Vec<usize> = prompts.iter().map(|p| p.prompt.sequences.len()).collect();
        let index = PromptIndex::from_counts(&counts).map_err(Error::task)?;
        let sequences: Vec<&Sequence> = prompts.iter().flat_map(|p| &p.prompt.sequences).collect();
        let prompt = match self.objective.scored_prompts() {
            Some(_) if self.objective.learns_prompts() => PromptLogps::Tracked,
            Some(_) => PromptLogps::Detached,
            None => PromptLogps::Skip,
        };
        let logps = sequence_logps(model, &sequences, prompt)?;
        // D_x is the same for every response of a prompt: take it from the first.
        let firsts: Vec<i64> = counts
            .iter()
            .scan(0, |next, &count| {
                let first = *next;
                *next += count as i64;
                Some(first)
            })
            .collect();
        let firsts = TensorData::new(firsts, [prompts.len()]);
        let firsts = Tensor::<1, Int>::from_data(firsts, &logps.prompt.device());
        let prompt_logps = logps.prompt.clone().select(0, firsts); // [n] -> [p]

        let flat = |value: fn(&WithReference<RewardedPrompt>) -> &[f64]| -> Vec<f64> {
            prompts.iter().flat_map(|p| value(p).iter().copied()).collect()
        };
        let ref_prompt_logps: Vec<f64> = prompts.iter().map(|p| p.ref_prompt_logp).collect();
        let output = self.objective.losses(
            PromptBatch {
                ref_logps: constant_like(&flat(|p| &p.ref_logps), &logps.response),
                rewards: constant_like(&flat(|p| &p.rewards), &logps.response),
                ref_prompt_logps: constant_like(&ref_prompt_logps, &prompt_logps),
                logps: logps.response.clone(),
                prompt_logps,
                levels: examples.iter().map(|&e| self.levels[e]).collect(),
                tokens: logps.response_tokens.iter().map(|&tokens| tokens as f64).collect(),
                log_mass: examples.iter().map(|&e| self.log_mass[e]).collect(),
            },
            &index,
        );
        let PromptOutput { losses, values } = output;
        let mut loss = weighted_sum(losses, &self.objective.aggregate().response_weights(&index, batch.denominator));
        let mut nll = Unread::known(vec![]);
        if self.objective.nll_weight() != 0.0
            && let Some([part, shares]) = self.nll(&prompts, &logps, &batch.survey)
        {
            loss = loss + part;
            nll = Unread::of(shares);
        }
        let entropy = Entropy::of(&logps);
        let SequenceLogps { response_tokens, tape, .. } = logps;
        let (objective, examples) = (self.objective.clone(), examples.to_vec());
        let numbers = unread(values).and(nll).and(entropy).map(move |((values, nll), entropy)| {
            let mut numbers = numbers_of(objective.as_ref(), &examples, &prompts, values, &response_tokens, &nll);
            entropy.record(&mut numbers.metrics);
            numbers
        });
        Ok(Forward { loss, numbers, tape, second_tape: None })
    }

    fn describe(&self, example: usize) -> String {
        self.prompts.get(example).map_or_else(|_| format!("prompt {example}"), |prompt| prompt.prompt.name.clone())
    }
}

/// Collects what is known of some prompts after their pass. `nll`: the shares of the best responses.
fn numbers_of(
    objective: &dyn PromptObjective,
    examples: &[usize],
    prompts: &[WithReference<RewardedPrompt>],
    values: PromptValues,
    response_tokens: &[usize],
    nll: &[f64],
) -> PassNumbers {
    let PromptValues { errors, log_ratios, targets, mut metrics } = values;
    nll.iter().for_each(|&share| metrics.record("nll_loss", share));
    let mut per_example = Vec::with_capacity(prompts.len());
    let mut responses = ResponseValues::default();
    let mut at = 0;
    for (prompt, &example) in prompts.iter().zip(examples) {
        let points: Vec<ResponsePoint> = prompt
            .ref_logps
            .iter()
            .zip(&log_ratios[at..])
            .zip(&response_tokens[at..])
            .map(|((ref_logp, log_ratio), &tokens)| {
                let beta = objective.beta();
                let beta = if objective.length_normalize() { beta / tokens as f64 } else { beta };
                ResponsePoint::with_reference(ref_logp + log_ratio, *ref_logp, beta)
            })
            .collect();
        for (j, role) in prompt.roles.iter().enumerate() {
            let found = [("log_ratio", log_ratios[at + j]), ("target", targets[at + j])];
            let logged = prompt.prompt.logged(j, *role, Some(prompt.rewards[j]));
            responses.push(example, logged.into_iter().chain(found));
        }
        for (point, role) in points.iter().zip(&prompt.roles) {
            if let Some(role) = role {
                metrics.record_response(*role, point);
            }
        }
        if let Some((w, l)) = prompt.pair {
            metrics.record_comparison(points[w].reward, points[l].reward);
        }
        let own = &errors[at..at + points.len()];
        per_example.push((own.iter().sum::<f64>() / own.len() as f64) as f32);
        at += points.len();
    }
    PassNumbers { metrics: metric_sums(&metrics), per_example, responses }
}

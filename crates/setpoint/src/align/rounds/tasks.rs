//! From the responses of a round to the task that a method makes of them, by the same steps as from the responses of a file.

mod sampled;

use std::path::Path;
use std::sync::Arc;

use setpoint_align::online::OnlineState;
use setpoint_align::{
    About, Desirable, DroVSettings, FittedTransform, LogZ0, PairRule, PairwiseMethod, PromptObjective, ReferenceSample,
    RowObjective, Summary, WeightedObjective, log_z_of_samples, prompt_log_z,
};
use setpoint_data::{EncodedResponse, Example, ExampleStore, Source};
use setpoint_eval::mean;
use setpoint_train::{OnDemand, Sequence, Task};
use setpoint_transformer::RopeSwitch;

use super::super::data::{SetReference, rows_of};
use super::super::examples::{ReadSet, best, paired, rewarded, rows, rows_with_value};
use super::super::{audit, leveled_task};
use super::prompts::Prompts;
use super::store::StoredRound;
use crate::failure::{Failure, Outcome};
use crate::reference_samples::SampleStore;
use crate::tasks::dro_v::DroVTask;
use crate::tasks::logps::Logps;
use crate::tasks::nll::NllTask;
use crate::tasks::pairwise::PairwiseTask;
use crate::tasks::prompts::PromptTask;
use crate::tasks::rows::RowTask;
use crate::tasks::single::SingleResponses;
use crate::tasks::stages::{PairedPrompt, ReferenceLogps, RewardedPrompt, WithReference};

pub use self::sampled::{PpoTasks, SampledTasks};

/// The responses of a round that have rewards.
#[derive(Clone)]
pub struct Round {
    /// The number of the round, from 0.
    number: u64,
    /// The file that holds them, for messages.
    path: String,
    t0: Option<usize>,
    rows: Vec<RoundRow>,
    /// `log π_ref` of other prompts' responses, row by row.
    mismatched: Vec<Vec<f64>>,
}

/// A prompt with the responses that have rewards.
#[derive(Clone)]
struct RoundRow {
    example: Example,
    reference: ReferenceLogps,
    /// `log π` of the policy that sampled.
    policy: Vec<f64>,
    /// The same token by token, and under the reference, for methods that look at tokens.
    tokens: Vec<[Vec<f64>; 2]>,
    /// The log-probability of each token as whatever sampled it computed it, if the loss is corrected for that.
    sampling: Vec<Vec<f64>>,
    /// The values of each response's slots, for methods with a value network.
    values: Vec<Vec<f64>>,
    /// Of each response, whether it ended with a stop token.
    stopped: Vec<bool>,
    samples: Vec<ReferenceSample>,
}

impl Round {
    /// Takes the responses that have rewards. Prompts with fewer than `least` of them are left out.
    pub fn of(number: u64, stored: &StoredRound, path: &Path, prompts: &Prompts, least: usize) -> Self {
        let file: Arc<Path> = path.into();
        let count = stored.rows.len();
        let at = |of: &Vec<Vec<f64>>, j: usize| of.get(j).cloned().unwrap_or_default();
        let mut rows = Vec::with_capacity(count);
        for (i, row) in stored.rows.iter().enumerate() {
            let kept: Vec<usize> = (0..row.tokens.len()).filter(|&j| row.rewards[j].is_some()).collect();
            if kept.len() < least {
                continue;
            }
            let response = |(index, &j): (usize, &usize)| EncodedResponse {
                index,
                ids: row.tokens[j].clone(),
                reward: row.rewards[j],
                label: None,
                learned: true,
                thoughts: Vec::new(),
            };
            let example = Example {
                // Of all rounds together: the row decides which pair is drawn.
                row: (number as usize).saturating_mul(count).saturating_add(i),
                source: Source::line(file.clone(), i, i + 1),
                prompt: prompts.ids[row.row].clone(),
                responses: kept.iter().enumerate().map(response).collect(),
                margin: None,
                assistant_spans: Vec::new(),
            };
            let reference = match row.ref_logps.is_empty() {
                true => ReferenceLogps::zeros(kept.len()),
                false => ReferenceLogps {
                    responses: kept.iter().map(|&j| Some(row.ref_logps[j])).collect(),
                    prompt: row.ref_prompt_logp,
                },
            };
            rows.push(RoundRow {
                example,
                reference,
                policy: kept.iter().map(|&j| row.logps[j]).collect(),
                tokens: kept.iter().map(|&j| [&row.token_logps, &row.ref_token_logps].map(|of| at(of, j))).collect(),
                sampling: kept.iter().map(|&j| at(&row.sampling_token_logps, j)).collect(),
                values: kept.iter().map(|&j| at(&row.values, j)).collect(),
                stopped: kept.iter().map(|&j| row.stopped[j]).collect(),
                samples: prompts.samples.as_ref().map_or_else(Vec::new, |samples| samples[row.row].clone()),
            });
        }
        let path = path.display().to_string();
        Self { number, path, t0: prompts.t0, rows, mismatched: stored.mismatched.clone() }
    }

    /// Leaves out prompts whose responses all have the same reward.
    fn without_ties(mut self) -> Self {
        let differs = |row: &RoundRow| {
            let rewards: Vec<Option<f64>> = row.example.responses.iter().map(|response| response.reward).collect();
            rewards.iter().any(|reward| *reward != rewards[0])
        };
        self.rows.retain(differs);
        self
    }

    /// Returns the responses as they would come from a file.
    fn set(&self) -> Outcome<ReadSet> {
        let samples: Vec<Vec<ReferenceSample>> = self.rows.iter().map(|row| row.samples.clone()).collect();
        let has_samples = samples.iter().any(|samples| !samples.is_empty());
        Ok(ReadSet {
            path: self.path.clone(),
            rows: Arc::new(ExampleStore::in_memory(self.rows.iter().map(|row| &row.example))?),
            training: false,
            t0: self.t0,
            samples: if has_samples { Some(Arc::new(SampleStore::in_memory(&samples)?)) } else { None },
        })
    }

    fn reference(&self) -> Logps {
        self.rows.iter().map(|row| row.reference.clone()).collect()
    }
}

/// The tasks that a method makes of rounds.
pub trait RoundTasks {
    /// The task of a round.
    type Task: Task + Send;

    /// Returns further responses to each prompt that the reference must score: none, unless the method compares with other prompts'.
    ///
    /// # Errors
    /// When the method cannot be prepared for the round.
    fn mismatched(&self, _round: &Round) -> Outcome<Vec<Vec<Sequence>>> {
        Ok(Vec::new())
    }

    /// Returns whether something that holds for all rounds has yet to be learned from the first one.
    fn needs_first(&self) -> bool {
        false
    }

    /// Learns what holds for all rounds.
    ///
    /// # Errors
    /// When the rewards do not allow it.
    fn learn(&mut self, _first: &Round) -> Outcome {
        Ok(())
    }

    /// Takes a round in that was trained on before this process: for methods that carry something from round to round.
    ///
    /// # Errors
    /// When the method cannot be prepared for the round.
    fn follow(&mut self, _round: &Round) -> Outcome {
        Ok(())
    }

    /// Returns what the method carries to the round after the one that it has seen last, if it carries anything.
    fn state(&self) -> Option<OnlineState> {
        None
    }

    /// Takes over what [`state`](Self::state) returned after a round whose responses are gone.
    fn go_on_from(&mut self, _state: OnlineState) {}

    /// Makes the task of a round; `None` if there is nothing to learn from it.
    ///
    /// # Errors
    /// When the method cannot be prepared for the round.
    fn task(&mut self, round: Round) -> Outcome<Option<Self::Task>>;

    /// Returns what the method has measured of the round whose task was made last.
    fn metrics(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}

/// Objectives on all responses of a prompt.
pub struct PromptTasks {
    objective: Arc<dyn PromptObjective>,
    about: About,
    switch: RopeSwitch,
    quiet: bool,
    /// Known from the first round on.
    scale: Option<Scale>,
}

/// The values that the first round decides for all: the transform of the rewards, and the level that prompts share.
struct Scale {
    fitted: Option<FittedTransform>,
    level: f64,
}

impl PromptTasks {
    /// Creates the tasks of an objective, for a model with this switch.
    pub fn new(objective: Box<dyn PromptObjective>, about: About, switch: RopeSwitch, quiet: bool) -> Self {
        Self { objective: Arc::from(objective), about, switch, quiet, scale: None }
    }

    /// Returns the level of a prompt's targets, nats. `logps` are those of the policy that sampled its responses.
    fn level(&self, shared: f64, prompt: &WithReference<RewardedPrompt>, logps: &[f64]) -> Outcome<f64> {
        let beta = self.objective.beta();
        if self.objective.level() != Some(LogZ0::PerPrompt) {
            return Ok(shared);
        }
        if !prompt.samples.is_empty() {
            return Ok(prompt_log_z(&[], &prompt.samples, beta)?.log_z);
        }
        let log_ratios: Vec<f64> =
            logps.iter().zip(&prompt.ref_logps).map(|(policy, reference)| policy - reference).collect();
        Ok(log_z_of_samples(&prompt.rewards, &log_ratios, beta))
    }
}

impl RoundTasks for PromptTasks {
    type Task = PromptTask;

    fn needs_first(&self) -> bool {
        self.scale.is_none()
    }

    fn learn(&mut self, first: &Round) -> Outcome {
        let mut fitted = None;
        let set = rewarded(first.set()?, &*self.objective, &self.about, &mut fitted)?;
        let all = set.view().all_rewards()?;
        let objective = Arc::get_mut(&mut self.objective).ok_or_else(|| Failure::run("the first round comes first"))?;
        if let Some(share) = objective.resolve(&all)?
            && !self.quiet
        {
            log::info!(
                "beta = {} reward per nat: {share} standard deviations of the {} rewards of the first round",
                self.objective.beta(),
                all.len()
            );
        }
        let level = match self.objective.level() {
            None | Some(LogZ0::PerPrompt) => 0.0,
            Some(level) => {
                let nats = set.view().level(self.objective.beta(), level)?;
                if let Some(rewards) = Summary::of(&all).filter(|_| !self.quiet) {
                    log::info!("{}", audit::level(self.objective.beta(), nats, &rewards));
                }
                nats
            }
        };
        self.scale = Some(Scale { fitted, level });
        Ok(())
    }

    fn task(&mut self, round: Round) -> Outcome<Option<PromptTask>> {
        if round.rows.is_empty() {
            return Ok(None);
        }
        let Some(scale) = &mut self.scale else { return Err(Failure::run("the first round comes first")) };
        let set = rewarded(round.set()?, &*self.objective, &self.about, &mut scale.fitted)?;
        let shared = scale.level;
        if self.about.rewards {
            set.view().check_targets(self.objective.beta(), shared)?;
        }
        let data = set.with_reference(SetReference { prompts: round.reference(), mismatched: None });
        let level = |number: usize, prompt: &WithReference<_>| self.level(shared, prompt, &round.rows[number].policy);
        leveled_task(self.objective.clone(), self.switch, data.prompts, level).map(Some)
    }
}

/// Objectives on pairs.
pub struct PairTasks {
    objectives: Arc<[WeightedObjective]>,
    rule: PairRule,
    nll_weight: f64,
    about: About,
    switch: RopeSwitch,
    seed: u64,
    /// Of the round whose task was made last, by the names of trl's `OnlineDPOTrainer`.
    metrics: Vec<(String, f64)>,
}

impl PairTasks {
    /// Creates the tasks of a pairwise method, for a model with this switch. `seed` draws random pairs.
    pub fn new(method: PairwiseMethod, about: About, switch: RopeSwitch, seed: u64) -> Self {
        let PairwiseMethod { objectives, pairs, nll_weight } = method;
        Self { objectives: objectives.into(), rule: pairs, nll_weight, about, switch, seed, metrics: Vec::new() }
    }
}

/// Returns by how much the chosen responses of a round have more reward, and the share of its responses that end with a stop token.
fn pair_metrics(round: &Round, prompts: &OnDemand<PairedPrompt>) -> Outcome<Vec<(String, f64)>> {
    let mut margins = Vec::new();
    for prompt in prompts.iter() {
        let PairedPrompt { pairs, rewards, .. } = prompt?;
        let Some(rewards) = rewards.first() else { continue };
        margins.extend(pairs.iter().map(|&(chosen, rejected)| rewards[chosen] - rewards[rejected]));
    }
    let stopped: Vec<f64> =
        round.rows.iter().flat_map(|row| &row.stopped).map(|&stopped| f64::from(u8::from(stopped))).collect();
    Ok(vec![
        ("objective/scores_margin".to_owned(), mean(&margins)),
        ("val/contain_eos_token".to_owned(), mean(&stopped)),
    ])
}

impl RoundTasks for PairTasks {
    type Task = PairwiseTask;

    fn task(&mut self, round: Round) -> Outcome<Option<PairwiseTask>> {
        self.metrics.clear();
        let all = round.clone();
        let round = round.without_ties();
        if round.rows.is_empty() {
            return Ok(None);
        }
        let set = paired(round.set()?, self.rule, &self.about, self.seed)?;
        self.metrics = pair_metrics(&all, &set.prompts)?;
        let reference = self.about.reference.then(|| round.reference());
        let objectives = self.objectives.clone();
        Ok(Some(PairwiseTask::new(set.prompts, reference, objectives, self.nll_weight, self.switch)?))
    }

    fn metrics(&self) -> Vec<(String, f64)> {
        self.metrics.clone()
    }
}

/// Objectives on single responses.
pub struct RowTasks {
    objective: Arc<dyn RowObjective>,
    about: About,
}

impl RowTasks {
    /// Creates the tasks of an objective.
    pub fn new(objective: Box<dyn RowObjective>, about: About) -> Self {
        Self { objective: Arc::from(objective), about }
    }
}

impl RowTasks {
    /// Returns what there is to learn from in a round, if there is anything: without ties if the best response of each prompt is the good
    /// one, and with two different prompts if the method compares with other prompts' responses.
    fn taught(&self, round: &Round) -> Option<Round> {
        let round = match self.objective.desirable() {
            Some(Desirable::Best) => round.clone().without_ties(),
            _ => round.clone(),
        };
        let first = &round.rows.first()?.example.prompt;
        let is_enough =
            self.objective.baseline().is_none() || round.rows.iter().any(|row| row.example.prompt != *first);
        is_enough.then_some(round)
    }
}

impl RoundTasks for RowTasks {
    type Task = RowTask;

    fn mismatched(&self, round: &Round) -> Outcome<Vec<Vec<Sequence>>> {
        let Some(round) = self.taught(round).filter(|_| self.objective.baseline().is_some()) else {
            return Ok(Vec::new());
        };
        let set = rows(round.set()?, &self.objective, &self.about)?;
        let Some(prompts) = set.mismatched else { return Ok(Vec::new()) };
        prompts.iter().map(|prompt| Ok(prompt?.prompt.sequences)).collect()
    }

    fn task(&mut self, round: Round) -> Outcome<Option<RowTask>> {
        let Some(round) = self.taught(&round) else { return Ok(None) };
        let set = rows(round.set()?, &self.objective, &self.about)?;
        let logps =
            |logps: &Vec<f64>| ReferenceLogps { responses: logps.iter().copied().map(Some).collect(), prompt: 0.0 };
        let mismatched = set.mismatched.is_some().then(|| round.mismatched.iter().map(logps).collect());
        let set = set.with_reference(SetReference { prompts: round.reference(), mismatched });
        let rows = SingleResponses::new(set.prompts, |prompt| rows_of(&*self.objective, prompt))?;
        Ok(Some(RowTask { rows, mismatched: set.mismatched, objective: self.objective.clone() }))
    }
}

/// Single responses with a network that learns the value of their prompts.
pub struct ValueTasks {
    /// The settings of the objective.
    pub settings: DroVSettings,
    /// The needs of the method.
    pub about: About,
}

impl RoundTasks for ValueTasks {
    type Task = DroVTask;

    fn task(&mut self, round: Round) -> Outcome<Option<DroVTask>> {
        if round.rows.is_empty() {
            return Ok(None);
        }
        let set = rows_with_value(round.set()?, &self.about)?;
        let set = set.with_reference(SetReference { prompts: round.reference(), mismatched: None });
        let rows = SingleResponses::new(set.prompts, |prompt| (0..prompt.roles.len()).collect())?;
        Ok(Some(DroVTask::new(rows, self.settings.clone())))
    }
}

/// Maximum likelihood of the best response of each prompt.
pub struct BestTasks;

impl RoundTasks for BestTasks {
    type Task = NllTask;

    fn task(&mut self, round: Round) -> Outcome<Option<NllTask>> {
        if round.rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(NllTask::new(best(round.set()?)?.prompts)?))
    }
}

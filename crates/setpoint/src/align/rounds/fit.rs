//! The engine asks for round after round: each is made or read, measured and turned into a task.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::time::Instant;

use setpoint_align::Method;
use setpoint_align::online::{GuardAction, Guards, RoundSigns};
use setpoint_reward::RewardModel;
use setpoint_train::{StepReport, Task, TrainConfig};
use setpoint_transformer::CausalLm;

use super::super::fitting::Fitting;
use super::super::parts::HasPolicy;
use super::metrics::{RoundMetrics, meaningful};
use super::pruning::Pruner;
use super::rollout::Rollouts;
use super::settings::{RolloutSection, compares, most_examples};
use super::store::{Remains, Store, StoredRound};
use super::tasks::{Round, RoundTasks};
use super::watch::{Evaluations, SecondReward, Watch};
use crate::failure::{Failure, Outcome};
use crate::tasks::policy::SAMPLING_DIFFERENCE;
use crate::tasks::rolling::Rolling;
use crate::training::{Companions, RoundMaker, RoundSummary, StepGuard};

/// A training in rounds, ready to begin.
pub struct Fit<'a> {
    /// The training itself.
    pub job: Fitting<'a>,
    /// All that makes the responses.
    pub rollouts: Rollouts<'a>,
    /// The second source of rewards, if there is one.
    pub watch: Option<Watch<'a>>,
    /// The settings of one run over all rounds.
    pub settings: TrainConfig,
    /// The prompts that are answered during training.
    pub shown: Vec<Vec<u32>>,
}

impl Fit<'_> {
    /// Trains what `complete` makes of the policy on the tasks of a method.
    ///
    /// # Errors
    /// When a round cannot be made; those of training.
    pub fn fit<T>(self, mut tasks: T, complete: impl FnOnce(CausalLm) -> Outcome<<T::Task as Task>::Model>) -> Outcome
    where
        T: RoundTasks,
        <T::Task as Task>::Model: HasPolicy,
    {
        let Self { job, mut rollouts, watch, settings, shown } = self;
        let (method, rollout) = (&rollouts.config.align, rollouts.rollout);
        let passes = NonZeroU64::new(rollout.epochs_per_round).unwrap_or(NonZeroU64::MIN);
        let examples = most_examples(method, rollout);
        let rolling = Rolling::new(examples, passes);
        let steps = settings.plan(examples)?.steps_per_epoch.saturating_mul(passes.get()).max(1);
        let pruner = Pruner::new(job.run, rollout, steps);
        let mut watched = Watched {
            guards: Guards::new(method.levers()),
            method,
            rollout,
            watch,
            evaluations: Evaluations::default(),
            next: 0,
            pruner,
            pace: Pace::default(),
        };
        let (action, mut firsts, is_off) =
            (rollouts.config.guards, Guards::new(method.levers()), Cell::new(None::<String>));
        let step_guard: StepGuard<'_> = Box::new(|report| {
            let first = |name: &str| first_of_round(report, steps, name);
            let ratio = first("val/ratio").and_then(|(round, ratio)| firsts.observe_first_step(round, ratio));
            let distance = first(SAMPLING_DIFFERENCE);
            let distance = distance.and_then(|(round, nats)| firsts.observe_first_distance(round, nats));
            let warning = ratio.or(distance)?.to_string();
            is_off.set(Some(warning.clone()));
            Some(warning)
        });
        let maker: RoundMaker<'_, <T::Task as Task>::Model> = Box::new(|model, round, fresh| {
            if let (Some(warning), Some(GuardAction::Stop)) = (is_off.take(), action) {
                return Err(ended(&warning));
            }
            let models = (model.policy(), model.value());
            begin(&mut rollouts, &mut tasks, &rolling, &mut watched, models, (round, fresh))
        });
        let companions = Companions { maker: Some(maker), step_guard: Some(step_guard), ..Companions::default() };
        job.train_with(&rolling, &settings, companions, shown, complete)
    }
}

/// The guards, the second source of rewards if there is one, the first round that they have not seen, and what becomes of those that they
/// have.
struct Watched<'a> {
    guards: Guards,
    method: &'a Method,
    rollout: &'a RolloutSection,
    watch: Option<Watch<'a>>,
    evaluations: Evaluations,
    next: u64,
    pruner: Pruner<'a>,
    pace: Pace,
}

/// How fast this process makes rounds and trains on them.
#[derive(Debug, Default)]
struct Pace(Option<(u64, Instant)>);

impl Pace {
    /// Notes that a round begins, of `responses` responses as all are. Returns the responses a second of the whole rounds before it, with their
    /// training (trl's `eps`, episodes per second); none in the first one.
    fn begin(&mut self, round: u64, responses: usize) -> Option<f64> {
        let (first, since) = *self.0.get_or_insert_with(|| (round, Instant::now()));
        let rounds = round.saturating_sub(first);
        (rounds > 0).then(|| rounds as f64 * responses as f64 / since.elapsed().as_secs_f64().max(1e-9))
    }
}

impl Watched<'_> {
    /// Takes a stored round in; returns its numbers and the warnings about it.
    fn look_at(
        &mut self,
        round: u64,
        stored: &StoredRound,
        rollouts: &Rollouts<'_>,
    ) -> Outcome<(RoundMetrics, Vec<String>)> {
        let mut metrics = RoundMetrics::of(round, &stored.rows)?;
        metrics.add_sources(&rollouts.judge.names(), rollouts.judge.missing_stop_penalty(), &stored.rows);
        metrics.add_correction(rollouts.rollout.correction(), &stored.rows);
        let watched = match &mut self.watch {
            Some(watch) => watch.of_round(round, &stored.rows, &rollouts.store, rollouts.encoder, rollouts.prompts)?,
            None => None,
        };
        metrics.add_watched(watched);
        let warnings = self.observe(metrics.signs(), watched);
        self.next = round + 1;
        Ok((metrics, warnings))
    }

    /// Shows the guards the signs of a round and the reward of the second source; returns the warnings about them.
    fn observe(&mut self, signs: RoundSigns, watched: Option<SecondReward>) -> Vec<String> {
        let mut signs = meaningful(signs, self.method, self.rollout);
        if let Some((reward, held_out)) = self.evaluations.add(signs.reward, watched) {
            (signs.reward, signs.held_out_reward) = (Some(reward), Some(held_out));
        }
        self.guards.observe(&signs).iter().map(ToString::to_string).collect()
    }
}

/// Makes a round, or reads it, and gives its task to the engine.
fn begin<T: RoundTasks>(
    rollouts: &mut Rollouts<'_>,
    tasks: &mut T,
    rolling: &Rolling<T::Task>,
    watched: &mut Watched<'_>,
    (policy, value): (&CausalLm, Option<&RewardModel>),
    (round, fresh): (u64, bool),
) -> Outcome<RoundSummary> {
    let least = match compares(&rollouts.config.align.training()) {
        true => rollouts.rollout.samples.min(2),
        false => 1,
    };
    let prompts = rollouts.prompts;
    // A round that is gone on with has steps of an earlier process.
    let pace = if fresh { watched.pace.begin(round, rollouts.rollout.responses()) } else { None };
    let stored = match rollouts.store.round(round)? {
        Some(stored) => stored,
        None if !fresh => return Err(missing(&rollouts.store, round)),
        None => {
            let mut stored = StoredRound { rows: rollouts.make(round, policy, value)?, mismatched: Vec::new() };
            let path = rollouts.store.path(round);
            let further = tasks.mismatched(&Round::of(round, &stored, &path, prompts, least))?;
            if !further.is_empty() {
                let scores = rollouts.score_reference(policy, &further.concat())?;
                let mut logps = scores.iter().map(|score| score.response_logp);
                stored.mismatched = further.iter().map(|row| logps.by_ref().take(row.len()).collect()).collect();
            }
            rollouts.store.write_round(round, &stored)?;
            rollouts.end_round();
            stored
        }
    };
    if tasks.needs_first() {
        let begun = match round {
            0 => stored.clone(),
            _ => rollouts.store.round(0)?.ok_or_else(|| missing(&rollouts.store, 0))?,
        };
        tasks.learn(&Round::of(0, &begun, &rollouts.store.path(0), prompts, least))?;
    }
    while watched.next < round {
        // Rounds before this process: guards tell a sign when it appears, and some methods carry a state from round to round.
        if let Some(earlier) = rollouts.store.round(watched.next)? {
            let path = rollouts.store.path(watched.next);
            tasks.follow(&Round::of(watched.next, &earlier, &path, prompts, least))?;
            let (metrics, _) = watched.look_at(watched.next, &earlier, rollouts)?;
            watched.pruner.note(watched.next - 1, Remains { signs: metrics.signs(), next: tasks.state() });
        } else if let Some(Remains { signs, next }) = rollouts.store.remains(watched.next)? {
            watched.observe(signs, rollouts.store.watched(watched.next).flatten());
            next.into_iter().for_each(|state| tasks.go_on_from(state));
            watched.next += 1;
        } else {
            watched.next += 1;
        }
    }
    let (metrics, mut warnings) = watched.look_at(round, &stored, rollouts)?;
    if let (Some(GuardAction::Stop), true, Some(warning)) = (rollouts.config.guards, fresh, warnings.first()) {
        return Err(ended(warning));
    }
    let task = tasks.task(Round::of(round, &stored, &rollouts.store.path(round), prompts, least))?;
    watched.pruner.note(round, Remains { signs: metrics.signs(), next: tasks.state() });
    watched.pruner.prune(&rollouts.store, round);
    let examples = task.as_ref().map_or(0, Task::len);
    rolling.replace(task);
    if examples == 0 {
        warnings.push(format!(
            "round {round} teaches nothing: no prompt has two responses of different rewards; its steps leave the model as it is"
        ));
    }
    if !fresh {
        // They were given when the round began.
        warnings.clear();
    }
    let mut summary = metrics.summary(examples, tasks.metrics(), warnings);
    summary.metrics.extend(std::mem::take(&mut rollouts.timing).metrics());
    let pace = pace.filter(|_| rollouts.config.align.ppo().is_some());
    summary.metrics.extend(pace.map(|pace| ("eps".to_owned(), pace)));
    Ok(summary)
}

/// Returns the round of a step and a number that it measured, if it is the first step of a round.
fn first_of_round(report: &StepReport, steps_per_round: u64, name: &str) -> Option<(u64, f64)> {
    let before = report.step.checked_sub(1).filter(|before| before % steps_per_round == 0)?;
    let (_, number) = report.metrics.iter().find(|(found, _)| found == name)?;
    Some((before / steps_per_round, *number))
}

/// Returns the failure of a run that a guard ends.
fn ended(warning: &str) -> Failure {
    Failure::run(warning).hint("the run is saved; it goes on with --resume --set guards=warn")
}

/// Returns the failure of a run whose responses are gone.
fn missing(store: &Store, round: u64) -> Failure {
    Failure::run(format!(
        "{} is missing, and the run goes on with what was learned from it",
        store.path(round).display()
    ))
    .hint("restore the folder `rollouts` of the run, or start another run")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_whole_rounds() {
        let mut pace = Pace::default();
        assert_eq!(pace.begin(3, 8), None);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let (first, second) = (pace.begin(4, 8).unwrap(), pace.begin(5, 8).unwrap());
        assert!(first <= 8.0 / 0.02 && second > first, "{first} {second}");
    }

    #[test]
    fn numbers_count_at_the_first_step_of_a_round() {
        let report = |step, metrics: &[(&str, f64)]| StepReport {
            step,
            total_steps: 9,
            epoch: 0.0,
            loss: 0.0,
            grad_norm: 0.0,
            learning_rate: 0.0,
            tokens: 0,
            num_tokens: 0,
            micro_batches: 1,
            seconds: 0.0,
            metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        };
        let found = |step| first_of_round(&report(step, &[("loss", 3.0), ("val/ratio", 0.5)]), 3, "val/ratio");
        assert_eq!([1, 2, 3, 4, 7].map(found), [Some((0, 0.5)), None, None, Some((1, 0.5)), Some((2, 0.5))]);
        assert_eq!(first_of_round(&report(1, &[("loss", 3.0)]), 3, "val/ratio"), None);
    }
}

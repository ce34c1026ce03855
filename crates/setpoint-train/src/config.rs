//! Settings of a training run.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_transformer::Recompute;

use crate::{AdamWConfig, BestConfig, Error, Identity, LogResponses, MicroBatch, SaveDtype, Schedule};

/// More passes over the data than anybody waits for.
const MOST_EPOCHS: f64 = 1e6;

/// The highest learning rate, which is a number of 32 bits in a step.
const HIGHEST_RATE: f64 = 1e38;

/// Everything [`fit`](crate::fit) is told, with its defaults in [`TrainConfig::default`].
///
/// Sampling takes seeds of its own: `seed` decides the order of the data and the dropout of an
/// adapter, if it has any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the data, also a fraction; `max_steps` overrides it.
    #[schemars(extend("x-unit" = "epochs"))]
    pub epochs: f64,
    /// Number of optimizer steps.
    #[schemars(range(min = 1))]
    pub max_steps: Option<u64>,
    /// Examples of one optimizer step.
    #[schemars(range(min = 1), extend("x-unit" = "examples"))]
    pub batch_size: usize,
    /// Examples or tokens of one forward and backward pass; halved if a GPU runs out of memory.
    pub micro_batch: MicroBatch,
    /// The part of the forward pass that is computed again in the backward pass, to save memory.
    pub recompute: RecomputeSetting,
    /// Drops an epoch's last batch if it is not full.
    pub drop_last: bool,
    /// Seed of the data order, and of the dropout of an adapter.
    pub seed: u64,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// The warm-up and the schedule after it.
    pub schedule: Schedule,
    /// Constants of AdamW.
    pub optimizer: AdamWConfig,
    /// The norm that gradients are clipped to; 0 does not clip.
    pub max_grad_norm: Option<f64>,
    /// The step whose gradient norm decides how much a gradient is clipped.
    pub clip_by: ClipBy,
    /// Steps between lines of `metrics.jsonl`; values between are averaged.
    #[schemars(range(min = 1), extend("x-unit" = "steps"))]
    pub logging_steps: u64,
    /// The steps and evaluations that `responses.jsonl` holds.
    pub log_responses: LogResponses,
    /// Steps between evaluations; by default there is one at the end only.
    #[schemars(range(min = 1), extend("x-unit" = "steps"))]
    pub eval_steps: Option<u64>,
    /// Evaluates before the first step.
    pub eval_on_start: bool,
    /// Steps between samples; by default they are taken at the end only.
    #[schemars(range(min = 1), extend("x-unit" = "steps"))]
    pub sample_steps: Option<u64>,
    /// Steps between checkpoints; by default they are saved by time and at the end only. The best model is saved whenever it is found.
    #[schemars(range(min = 1), extend("x-unit" = "steps"))]
    pub save_steps: Option<u64>,
    /// Minutes between checkpoints, besides those of `save_steps`; 0 saves none by time. The interval grows if saving takes more than a
    /// twentieth of the time.
    #[schemars(extend("x-unit" = "minutes"))]
    pub save_minutes: f64,
    /// The number of checkpoints that are kept, besides the best one.
    #[schemars(range(min = 1))]
    pub keep_last: usize,
    /// Leaves the optimizer out of checkpoints, which are then a fraction as large; a run cannot go on from them.
    pub save_only_model: bool,
    /// The number format in which the finished model is saved.
    pub save_dtype: SaveDtype,
    /// A second folder that gets every checkpoint, with the settings and logs of the run, for machines that can be taken away. With
    /// `--resume`, a run whose folder is gone is restored from it. One run, one folder.
    pub mirror: Option<PathBuf>,
    /// The search for the best checkpoint; by default none is kept.
    pub best: Option<BestConfig>,
    /// Identity of what the settings here do not say: model, data, tokenizer, objective. A run is
    /// resumed only with the same one.
    #[serde(skip)]
    pub fingerprint: String,
    /// The same part by part, so that an error can name what differs.
    #[serde(skip)]
    pub identity: Identity,
}

/// The part of the forward pass that is computed again in the backward pass. The gradient is the same, but for rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecomputeSetting {
    /// Nothing: the graph of a whole micro-batch is kept. The fastest.
    None,
    /// Every block: memory is the blocks' inputs and one block's graph, for a third more time.
    Block,
    /// `Block` where the graph of a full micro-batch would take more memory than weights, gradients and optimizer together, and more
    /// than 2 GiB; and where blocks are so small a part of the model that computing them again is less than a tenth of a step's
    /// arithmetic. It does not look at the machine, so that a run goes on elsewhere as it began.
    #[default]
    Auto,
}

/// The step whose gradient norm decides how much a gradient is clipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClipBy {
    /// Clips the gradient of a step by its own norm `n`: it is multiplied by `min(1, max_grad_norm / (n + 1e-6))`, as in torch.
    #[default]
    Current,
    /// Takes for `n` the norm of the step before, which that step had before it was clipped; the first step is not clipped. This can be done
    /// with `optimizer.in_backward`, which moves parameters before their own norm is known. A gradient that is suddenly large is clipped one
    /// step late.
    Previous,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 1.0,
            max_steps: None,
            batch_size: 8,
            micro_batch: MicroBatch::Examples(8),
            recompute: RecomputeSetting::Auto,
            drop_last: false,
            seed: 0,
            learning_rate: 1e-5,
            schedule: Schedule::default(),
            optimizer: AdamWConfig::default(),
            max_grad_norm: Some(1.0),
            clip_by: ClipBy::Current,
            logging_steps: 1,
            log_responses: LogResponses::FirstAndLast,
            eval_steps: None,
            eval_on_start: false,
            sample_steps: None,
            save_steps: None,
            save_minutes: 10.0,
            // One to fall back on should the newest be damaged.
            keep_last: 2,
            save_only_model: false,
            save_dtype: SaveDtype::Auto,
            mirror: None,
            best: None,
            fingerprint: String::new(),
            identity: Identity::default(),
        }
    }
}

/// Length of a run, as it follows from the settings and the number of examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Examples of the data set.
    pub examples: usize,
    /// Optimizer steps of one pass over the data.
    pub steps_per_epoch: u64,
    /// Optimizer steps of the run.
    pub total_steps: u64,
}

impl TrainConfig {
    /// Every problem of the settings, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = vec![];
        let mut check = |good: bool, problem: String| {
            if !good {
                problems.push(problem);
            }
        };
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        check(
            self.max_steps.is_some() || (positive(self.epochs) && self.epochs <= MOST_EPOCHS),
            format!("`epochs` must be a positive number of at most {MOST_EPOCHS}, found {:?}", self.epochs),
        );
        check(self.max_steps != Some(0), "`max_steps` must be at least 1, found 0".into());
        check(self.batch_size > 0, "`batch_size` must be at least 1, found 0".into());
        let (MicroBatch::Examples(size) | MicroBatch::Tokens(size)) = self.micro_batch;
        check(size > 0, "`micro_batch` must be at least 1, found 0".into());
        check(
            (0.0..=HIGHEST_RATE).contains(&self.learning_rate),
            format!("`learning_rate` must be a number from 0 to {HIGHEST_RATE:e}, found {:?}", self.learning_rate),
        );
        if let crate::Warmup::Ratio(ratio) = self.schedule.warmup {
            check((0.0..=1.0).contains(&ratio), format!("the warm-up ratio must lie between 0 and 1, found {ratio}"));
        }
        let (beta1, beta2) = self.optimizer.betas;
        for (name, beta) in [("first", beta1), ("second", beta2)] {
            check(
                (0.0..1.0).contains(&beta),
                format!("the {name} of `betas` must be at least 0 and below 1, found {beta}"),
            );
        }
        check(positive(self.optimizer.eps), format!("`eps` must be positive, found {}", self.optimizer.eps));
        check(
            not_negative(self.optimizer.weight_decay),
            format!("`weight_decay` must not be negative, found {}", self.optimizer.weight_decay),
        );
        if let Some(norm) = self.max_grad_norm {
            check(not_negative(norm), format!("`max_grad_norm` must not be negative, found {norm}"));
        }
        if self.optimizer.in_backward {
            check(
                self.clip_norm().is_none() || self.clip_by == ClipBy::Previous,
                "`optimizer.in_backward` moves parameters before the norm of all gradients is known: set `train.clip_by` to \"previous\", or \
                 `train.max_grad_norm` to 0"
                    .into(),
            );
            check(
                matches!(self.micro_batch, MicroBatch::Examples(size) if size >= self.batch_size),
                format!(
                    "`optimizer.in_backward` keeps no gradients that micro-batches could add to: set `train.micro_batch` to the batch, {{ examples = {} }}",
                    self.batch_size
                ),
            );
            check(
                self.recompute != RecomputeSetting::None,
                "`optimizer.in_backward` goes block by block: set `train.recompute` to \"block\" or \"auto\"".into(),
            );
        }
        for (name, steps) in [
            ("logging_steps", Some(self.logging_steps)),
            ("eval_steps", self.eval_steps),
            ("sample_steps", self.sample_steps),
            ("save_steps", self.save_steps),
        ] {
            check(steps != Some(0), format!("`{name}` must be at least 1, found 0"));
        }
        check(
            not_negative(self.save_minutes),
            format!("`save_minutes` must not be negative, found {}", self.save_minutes),
        );
        check(self.keep_last > 0, "`keep_last` must be at least 1, found 0".into());
        if let Some(best) = &self.best {
            check(not_negative(best.min_delta), format!("`min_delta` must not be negative, found {}", best.min_delta));
            check(best.patience != Some(0), "`patience` must be at least 1, found 0".into());
        }
        problems
    }

    /// The norm that gradients are clipped to, if they are.
    pub(crate) fn clip_norm(&self) -> Option<f64> {
        self.max_grad_norm.filter(|&norm| norm > 0.0)
    }

    /// Returns whether the numbers of a step's responses are logged; steps count from 1.
    pub(crate) fn logs_step(&self, step: u64, plan: &Plan) -> bool {
        match self.log_responses {
            LogResponses::None => false,
            LogResponses::All => true,
            LogResponses::FirstAndLast => {
                step <= plan.steps_per_epoch
                    || step + plan.steps_per_epoch > plan.total_steps
                    || self.best.as_ref().is_some_and(|best| best.patience.is_some())
            }
        }
    }

    /// Returns whether those of an evaluation are logged.
    pub(crate) fn logs_evaluation(&self, first: bool, last: bool) -> bool {
        match self.log_responses {
            LogResponses::None => false,
            LogResponses::All => true,
            LogResponses::FirstAndLast => first || last,
        }
    }

    /// Decides how a run gets the values of its forward passes, whose micro-batches would keep a graph of `graph` bytes beside `state`
    /// bytes of weights, gradients and optimizer, if computing the blocks again takes the share `again` of a step's arithmetic.
    pub fn recompute(&self, graph: f64, state: f64, again: f64) -> Recompute {
        match self.recompute {
            _ if self.optimizer.in_backward => Recompute::Block,
            RecomputeSetting::None => Recompute::None,
            RecomputeSetting::Block => Recompute::Block,
            RecomputeSetting::Auto if graph > state.max(f64::from(1u32 << 31)) || again < 0.1 => Recompute::Block,
            RecomputeSetting::Auto => Recompute::None,
        }
    }

    /// Checks the settings and computes the length of the run.
    ///
    /// As in transformers, a fraction of an epoch is rounded up to a whole step.
    ///
    /// # Errors
    /// [`Error::Config`] with every problem found.
    pub fn plan(&self, examples: usize) -> Result<Plan, Error> {
        let mut problems = self.problems();
        let full = examples / self.batch_size.max(1);
        let rest = usize::from(!self.drop_last && !examples.is_multiple_of(self.batch_size.max(1)));
        let steps_per_epoch = (full + rest) as u64;
        if examples == 0 {
            problems.push("there are no examples".into());
        } else if steps_per_epoch == 0 {
            problems.push(format!(
                "`train.drop_last` drops everything: {examples} examples do not fill a batch of {}",
                self.batch_size
            ));
        }
        if !problems.is_empty() {
            return Err(Error::Config { problems });
        }
        let total_steps = self.max_steps.unwrap_or_else(|| (self.epochs * steps_per_epoch as f64).ceil() as u64);
        Ok(Plan { examples, steps_per_epoch, total_steps })
    }

    /// Everything that a resumed run must share with the run it continues.
    pub(crate) fn identity(&self, plan: &Plan) -> serde_json::Map<String, serde_json::Value> {
        let train = match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(map)) => map,
            // A struct of numbers, strings and options always becomes an object.
            _ => serde_json::Map::new(),
        };
        self.identity.to_json(train, plan.examples, &self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(batch_size: usize, epochs: f64, drop_last: bool) -> TrainConfig {
        TrainConfig { batch_size, epochs, drop_last, ..TrainConfig::default() }
    }

    #[test]
    fn the_plan_counts_the_last_partial_batch() {
        let plan = config(4, 2.0, false).plan(10).unwrap();
        assert_eq!((plan.steps_per_epoch, plan.total_steps), (3, 6));
        let plan = config(4, 2.0, true).plan(10).unwrap();
        assert_eq!((plan.steps_per_epoch, plan.total_steps), (2, 4));
        // 1.5 epochs of 3 steps are 4.5, rounded up.
        assert_eq!(config(4, 1.5, false).plan(10).unwrap().total_steps, 5);
    }

    #[test]
    fn all_problems_come_at_once() {
        let config = TrainConfig {
            batch_size: 0,
            learning_rate: f64::NAN,
            max_grad_norm: Some(-1.0),
            logging_steps: 0,
            ..TrainConfig::default()
        };
        let error = config.plan(0).unwrap_err().to_string();
        for name in ["batch_size", "learning_rate", "max_grad_norm", "logging_steps", "no examples"] {
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn moving_in_the_backward_pass_forbids_what_needs_all_gradients() {
        let inside = AdamWConfig { in_backward: true, ..AdamWConfig::default() };
        let wrong = TrainConfig {
            optimizer: inside,
            batch_size: 9,
            micro_batch: MicroBatch::Examples(8),
            recompute: RecomputeSetting::None,
            ..TrainConfig::default()
        };
        let problems = wrong.problems();
        let clipped = "`train.clip_by` to \"previous\", or `train.max_grad_norm` to 0";
        for (problem, remedy) in problems.iter().zip([clipped, "{ examples = 9 }", "\"auto\""]) {
            assert!(problem.contains(remedy), "{problem}");
        }
        assert_eq!(problems.len(), 3);
        let right = TrainConfig { max_grad_norm: Some(0.0), recompute: RecomputeSetting::Auto, batch_size: 8, ..wrong };
        assert!(right.problems().is_empty());
        assert_eq!(right.recompute(0.0, 1.0, 1.0), Recompute::Block);
        let by_previous = TrainConfig { max_grad_norm: Some(1.0), clip_by: ClipBy::Previous, ..right };
        assert!(by_previous.problems().is_empty());
    }

    #[test]
    fn auto_computes_blocks_again_where_memory_asks_for_it_or_it_costs_little() {
        let config = TrainConfig::default();
        let gib = f64::from(1u32 << 30);
        assert_eq!(config.recompute(3.0 * gib, 4.0 * gib, 0.3), Recompute::None);
        assert_eq!(config.recompute(5.0 * gib, 4.0 * gib, 0.3), Recompute::Block);
        assert_eq!(config.recompute(1.9 * gib, 1.0 * gib, 0.3), Recompute::None);
        assert_eq!(config.recompute(0.1 * gib, 4.0 * gib, 0.09), Recompute::Block);
    }

    #[test]
    fn a_batch_that_never_fills_is_an_error() {
        let error = config(4, 1.0, true).plan(3).unwrap_err().to_string();
        assert!(error.contains("3 examples do not fill a batch of 4"), "{error}");
    }

    #[test]
    fn what_is_kept_of_a_run_does_not_identify_it() {
        let plan = TrainConfig::default().plan(8).unwrap();
        let other = TrainConfig {
            save_steps: Some(3),
            save_minutes: 0.5,
            keep_last: 7,
            log_responses: LogResponses::None,
            ..TrainConfig::default()
        };
        assert_eq!(TrainConfig::default().identity(&plan), other.identity(&plan));
    }

    #[test]
    fn the_first_and_the_last_pass_are_logged_and_all_where_the_last_is_not_known() {
        // Three steps an epoch.
        let logged = |epochs: f64, log_responses: LogResponses, patience: Option<u32>| -> Vec<u64> {
            let best = BestConfig {
                metric: "eval_loss".into(),
                greater_is_better: false,
                restore: false,
                patience,
                min_delta: 0.0,
            };
            let config = TrainConfig { log_responses, best: Some(best), ..config(4, epochs, false) };
            let plan = config.plan(10).unwrap();
            (1..=plan.total_steps).filter(|&step| config.logs_step(step, &plan)).collect()
        };
        assert_eq!(logged(3.0, LogResponses::FirstAndLast, None), [1, 2, 3, 7, 8, 9]);
        // The last pass is as long as an epoch also where it does not begin with one.
        assert_eq!(logged(3.3, LogResponses::FirstAndLast, None), [1, 2, 3, 8, 9, 10]);
        assert_eq!(logged(0.5, LogResponses::FirstAndLast, None), [1, 2]);
        assert_eq!(logged(3.0, LogResponses::FirstAndLast, Some(1)), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(logged(3.0, LogResponses::All, None), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(logged(3.0, LogResponses::None, Some(1)).is_empty());
    }
}

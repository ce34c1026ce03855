//! Settings of `setpoint sweep`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_align::Method;
use setpoint_align::online::GuardAction;
use setpoint_data::{DatasetConfig, EncodeOptions};
use setpoint_train::TrainConfig;
use setpoint_transformer::lora::LoraConfig;
use toml::{Table, Value};

use crate::adapter::adapt_rate;
use crate::align::rounds::{RewardSection, RolloutSection};
use crate::align::{AlignConfig, StopSection};
use crate::config::load::to_table;
use crate::config::sections::{ModelSection, validate_no_mirror};
use crate::config::{Config, Problems};
use crate::search::{HeldOut, Metric, Point, Select, Space, blamed, with_point};
use crate::training::SamplesSection;

/// More points than anybody can mean.
const MOST_TRIALS: usize = 10_000;

/// Settings of `setpoint sweep`: those of `setpoint align`, what is tried, and what is measured.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepConfig {
    /// The policy to train: the SFT model, against which trials are measured.
    pub model: ModelSection,
    /// A low-rank adapter that is trained instead of the model's own weights, which stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<LoraConfig>,
    /// The reference model, for methods that have one; by default the policy as it is before training.
    pub reference: Option<PathBuf>,
    /// Rows as the method wants them.
    pub data: DatasetConfig,
    /// Rows to evaluate on during training.
    pub eval_data: Option<DatasetConfig>,
    /// The conversion of rows to tokens.
    pub encode: EncodeOptions,
    /// The method, and the settings that all trials share.
    pub align: Method,
    /// Optimizer, schedule, checkpoints.
    pub train: TrainConfig,
    /// Ends a training early if the policy moves too far from the reference.
    pub stop: StopSection,
    /// Keeps the policy of each step at which samples are due (`train.sample_steps`), in `RUN/steps/STEP/model`.
    pub keep_models: bool,
    /// Answers to a few prompts during training.
    pub samples: SamplesSection,
    /// The number of rounds: in each, the policy answers some prompts of the data, its responses get rewards and it is trained on them
    /// (docs/ROUNDS.md). By default the responses of the data are trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u64>,
    /// The consequence of a guard's warning in rounds: `"warn"`, the default, goes on, and `"stop"` ends the trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guards: Option<GuardAction>,
    /// The responses that the policy samples in each round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSection>,
    /// The source of the rewards of these responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardSection>,
    /// A second source of rewards of these responses, which nothing is trained on. Its mean is logged, and a guard warns if it falls while
    /// the reward rises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<RewardSection>,
    /// Conversations, or prompts with completions, that PPO keeps learning (`align.ptx_weight`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sft_data: Option<DatasetConfig>,
    /// Held-out rows and their judge.
    pub eval: HeldOut,
    /// The settings that are tried.
    pub sweep: SweepSection,
}

/// `[sweep]`: what is tried.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepSection {
    /// Settings, each with a list of values, or with a range `{ low, high, log }` if `trials` is given.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub settings: Table,
    /// The number of trials, drawn at random; without it, every combination of the lists is tried.
    #[schemars(range(min = 1))]
    pub trials: Option<usize>,
    /// Seed of the draws.
    pub seed: u64,
    /// The figure by which the table is sorted.
    pub metric: Metric,
    /// Puts trials near the SFT model first, as in `{ metric = "reward", max_kl = 2.0 }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// Trials that run at once, each in a process of its own; fewer if the CPU's memory does not hold them.
    #[schemars(range(min = 1))]
    pub parallel: usize,
}

impl Default for SweepConfig {
    fn default() -> Self {
        let base = AlignConfig::default();
        Self {
            model: base.model,
            adapter: base.adapter,
            reference: base.reference,
            data: base.data,
            eval_data: base.eval_data,
            encode: base.encode,
            align: base.align,
            train: base.train,
            stop: base.stop,
            keep_models: base.keep_models,
            // Trials are looked at by their figures.
            samples: SamplesSection { prompts: 0, ..base.samples },
            rounds: base.rounds,
            guards: base.guards,
            rollout: base.rollout,
            reward: base.reward,
            watch: base.watch,
            sft_data: base.sft_data,
            eval: HeldOut::default(),
            sweep: SweepSection { parallel: 1, ..SweepSection::default() },
        }
    }
}

impl Config for SweepConfig {
    const JOB: &'static str = "sweep";

    fn respell(user: &mut Table) {
        AlignConfig::respell(user);
    }

    fn defaults(user: &Table) -> Result<Table, (String, String)> {
        let mut table = to_table(&Self::default());
        let align = AlignConfig::defaults(user)?;
        let epochs = align.get("train").and_then(|train| train.get("epochs")).cloned();
        if let (Some(epochs), Some(Value::Table(train))) = (epochs, table.get_mut("train")) {
            train.insert("epochs".to_owned(), epochs);
        }
        table.extend(align.into_iter().filter(|(key, _)| ["align", "rollout", "reward"].contains(&key.as_str())));
        adapt_rate(&mut table, user);
        Ok(table)
    }

    fn validate(&self, problems: &mut Problems<'_>) {
        self.base().validate(problems);
        validate_no_mirror(&self.train, problems);
        self.eval.validate(problems);
        let sweep = &self.sweep;
        problems.require(sweep.parallel > 0, "sweep.parallel", "must be at least 1");
        problems.require(sweep.trials != Some(0), "sweep.trials", "must be at least 1");
        Select::validate(sweep.select, sweep.metric, "sweep", self.eval.pairs.is_some(), problems);
        match self.points() {
            Ok(points) => {
                let mut said = BTreeSet::new();
                for point in points {
                    for problem in with_point(&self.base(), &point).err().unwrap_or_default() {
                        // What is wrong with the shared settings is said already, at its own place.
                        let Some(key) = blamed(&problem, &point) else { continue };
                        if said.insert((key.clone(), problem.message.clone())) {
                            problems.add(&format!("sweep.settings.{key}"), problem.message);
                        }
                    }
                }
            }
            Err(wrong) => wrong.into_iter().for_each(|(key, message)| problems.add(&key, message)),
        }
    }
}

impl SweepConfig {
    /// Returns the settings that all trials share.
    pub fn base(&self) -> AlignConfig {
        let shared = self.clone();
        AlignConfig {
            model: shared.model,
            adapter: shared.adapter,
            reference: shared.reference,
            data: shared.data,
            eval_data: shared.eval_data,
            encode: shared.encode,
            align: shared.align,
            train: shared.train,
            stop: shared.stop,
            keep_models: shared.keep_models,
            samples: shared.samples,
            tracker: None,
            rounds: shared.rounds,
            guards: shared.guards,
            rollout: shared.rollout,
            reward: shared.reward,
            watch: shared.watch,
            sft_data: shared.sft_data,
            output: None,
        }
    }

    /// Returns the points that are tried, trial by trial.
    ///
    /// # Errors
    /// Each mistake, with its key.
    pub fn points(&self) -> Result<Vec<Point>, Vec<(String, String)>> {
        let at = |key: &str| format!("sweep.settings.{key}");
        let space = Space::read(&self.sweep.settings).map_err(|wrong| {
            wrong.into_iter().map(|(key, message)| (at(&key), format!("`{key}`: {message}"))).collect::<Vec<_>>()
        })?;
        if space.keys().is_empty() {
            return Err(vec![(
                "sweep.settings".into(),
                "nothing to try: name settings and their values, as in \"align.beta\" = [0.1, 0.5]".into(),
            )]);
        }
        if space.keys().iter().any(|key| key == "align.method") {
            return Err(vec![(
                at("align.method"),
                "a sweep is of one method; `setpoint compare` compares several".into(),
            )]);
        }
        match self.sweep.trials {
            Some(trials) if trials <= MOST_TRIALS && space.size() <= 1_000_000 => {
                Ok(space.sample(trials, self.sweep.seed))
            }
            None if !space.ranges().is_empty() => Err(space
                .ranges()
                .into_iter()
                .map(|key| {
                    (
                        at(&key),
                        format!(
                            "`{key}` is a range, of which a grid has no points: set `sweep.trials` to draw from it"
                        ),
                    )
                })
                .collect()),
            None if space.size() <= MOST_TRIALS => Ok(space.grid()),
            _ => Err(vec![(
                "sweep".into(),
                format!("more than {MOST_TRIALS} trials: set `sweep.trials` or shorten the lists"),
            )]),
        }
    }
}

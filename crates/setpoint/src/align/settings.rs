//! Settings of `setpoint align` and `setpoint audit`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_align::online::{self, GuardAction};
use setpoint_align::{About, Dro, METHODS, Method, Value as Setting};
use setpoint_data::{DatasetConfig, EncodeOptions};
use setpoint_train::{MicroBatch, Schedule, ScheduleKind, TrainConfig, Warmup};
use setpoint_transformer::lora::LoraConfig;
use toml::{Table, Value};

use super::rounds::{RewardSection, RolloutSection, checks, settings as rounds};
use super::stop::StopSection;
use crate::adapter::{self, adapt_rate};
use crate::config::load::to_table;
use crate::config::output::{Target, validate_output};
use crate::config::sections::{
    ModelSection, Wanted, folder_problem, validate_best, validate_data, validate_encode, validate_saving,
    validate_sft_data, validate_train, validate_training_data,
};
use crate::config::{Config, Problems, nearest, respell};
use crate::setup;
use crate::training::SamplesSection;
use crate::training::tracker::TrackerSection;

/// Settings of `setpoint align` and `setpoint audit`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlignConfig {
    /// The policy to train: the SFT model.
    pub model: ModelSection,
    /// A low-rank adapter that is trained instead of the model's own weights, which stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<LoraConfig>,
    /// The reference model, for methods that have one; by default the policy as it is before training.
    pub reference: Option<PathBuf>,
    /// Rows with responses and rewards, with chosen and rejected responses, or with good and bad ones, as the method wants them.
    pub data: DatasetConfig,
    /// Rows to evaluate on during training.
    pub eval_data: Option<DatasetConfig>,
    /// The conversion of rows to tokens.
    pub encode: EncodeOptions,
    /// The method and its settings.
    pub align: Method,
    /// Optimizer, schedule, checkpoints.
    pub train: TrainConfig,
    /// Ends a training early if the policy moves too far from the reference.
    pub stop: StopSection,
    /// Keeps the policy of each step at which samples are due (`train.sample_steps`), in `RUN/steps/STEP/model`.
    pub keep_models: bool,
    /// Answers to a few prompts during training.
    pub samples: SamplesSection,
    /// A copy of the metrics for another tool: a table, Weights & Biases, MLflow or Trackio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracker: Option<TrackerSection>,
    /// The number of rounds: in each, the policy answers some prompts of the data, its responses get rewards and it is trained on them
    /// (docs/ROUNDS.md). By default the responses of the data are trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounds: Option<u64>,
    /// The consequence of a guard's warning in rounds: `"warn"`, the default, goes on, and `"stop"` ends the run after a checkpoint.
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
    /// The file to which `setpoint audit` writes its report, as JSON.
    pub output: Option<PathBuf>,
}

impl Default for AlignConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            adapter: None,
            reference: None,
            data: DatasetConfig::new(""),
            eval_data: None,
            encode: setup::training_lengths(),
            align: Method::Dro(Dro::default()),
            train: TrainConfig {
                epochs: 3.0,
                batch_size: 128,
                micro_batch: MicroBatch::Tokens(8192),
                learning_rate: 5e-7,
                schedule: Schedule { kind: ScheduleKind::Cosine, warmup: Warmup::Auto },
                ..TrainConfig::default()
            },
            stop: StopSection::default(),
            keep_models: false,
            samples: SamplesSection::default(),
            tracker: None,
            rounds: None,
            guards: None,
            rollout: None,
            reward: None,
            watch: None,
            sft_data: None,
            output: None,
        }
    }
}

impl Config for AlignConfig {
    const JOB: &'static str = "align";
    const IS_TRAINING: bool = true;

    fn respell(user: &mut Table) {
        StopSection::respell(user);
        if let Some(section) = user.get_mut("align").and_then(Value::as_table_mut) {
            respell_methods(section);
        }
        rounds::respell(user);
    }

    fn defaults(user: &Table) -> Result<Table, (String, String)> {
        let section = user.get("align").and_then(Value::as_table);
        let name = section.and_then(|s| s.get("method")).map_or(Some("dro"), Value::as_str);
        let align = name.and_then(Method::named).ok_or_else(|| unknown_method(name))?;
        let about = align.about();
        let rollout = RolloutSection::of(&align);
        let mut table = to_table(&AlignConfig { align, ..AlignConfig::default() });
        if let (Some(section), Some(Value::Table(align))) = (section, table.get_mut("align")) {
            adapt(&about, align, |key| section.get(key));
        }
        adapt_rate(&mut table, user);
        rounds::add_defaults(&rollout, user, &mut table);
        Ok(table)
    }

    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::LanguageModel, problems);
        self.model.validate_trained("model", self.adapter.is_some(), problems);
        adapter::validate(self.adapter.as_ref(), &self.model, false, problems);
        validate_training_data(&self.data, "data", problems);
        validate_encode(&self.encode, problems);
        if let Some(eval) = &self.eval_data {
            validate_data(eval, "eval_data", problems);
        }
        if let Some(sft) = &self.sft_data {
            validate_sft_data(sft, "sft_data", problems);
        }
        if let Some(message) = self.reference.as_ref().and_then(|path| folder_problem(path, Wanted::LanguageModel)) {
            problems.add("reference", message);
        }
        validate_train(&self.train, problems);
        validate_saving(&self.train, self.adapter.is_some(), problems);
        validate_best(&self.train, self.eval_data.as_ref(), problems);
        self.stop.validate(self.eval_data.as_ref(), &self.train, problems);
        problems.require(
            !self.keep_models || self.train.sample_steps.is_some(),
            "keep_models",
            "the policy is kept when samples are due: set `train.sample_steps` to how often",
        );
        self.samples.generate.validate("samples.generate", problems);
        if let Some(tracker) = &self.tracker {
            tracker.validate(problems);
        }
        for problem in self.align.problems() {
            let key = problem.setting.map_or_else(|| "align".to_owned(), |setting| format!("align.{setting}"));
            problems.add(&key, problem.message);
        }
        checks::validate(self, problems);
        validate_output(self.output.as_ref(), Target::File, problems);
        problems.require(
            self.reference.is_none() || self.align.about().reference,
            "reference",
            format!("`{}` has no reference model: leave `reference` out", self.align.name()),
        );
    }
}

/// Adapts a method's defaults to the settings that are about to be laid on them: a preset brings its own, and of two settings of which
/// one is given only that is kept.
pub fn adapt<'a>(about: &About, align: &mut Table, over: impl Fn(&str) -> Option<&'a Value>) {
    let named = |name: &str| about.presets.iter().find(|preset| preset.name == name);
    if let Some(preset) = over("preset").and_then(Value::as_str).and_then(named) {
        let settings = preset.settings;
        for [one, other] in about.alternatives {
            let brings = |key: &str| settings.iter().any(|(name, _)| *name == key);
            if brings(one) {
                align.remove(*other);
            } else if brings(other) {
                align.remove(*one);
            }
        }
        align.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), to_value(*value))));
    }
    for [one, other] in about.alternatives {
        match (over(one), over(other)) {
            (None, Some(_)) => align.remove(*one),
            (Some(_), None) => align.remove(*other),
            // Given both, the check says so.
            _ => None,
        };
    }
}

/// Converts the value of a setting to the one in a config file.
pub fn to_value(value: Setting) -> Value {
    match value {
        Setting::Number(number) => Value::Float(number),
        Setting::Name(name) => Value::from(name),
    }
}

/// Replaces other spellings of methods in `[align]`, also in the losses of a mix.
fn respell_methods(section: &mut Table) {
    if let Some(Value::String(method)) = section.get_mut("method") {
        respell_method(method);
    }
    let losses = section.get_mut("losses").and_then(Value::as_array_mut);
    losses.into_iter().flatten().filter_map(Value::as_table_mut).for_each(respell_methods);
}

/// Replaces another spelling of a method's name.
pub fn respell_method(method: &mut String) {
    if let Some(name) = respell(method, names_of(METHODS).chain(names_of(online::ONLINE_METHODS))) {
        name.clone_into(method);
    }
}

/// Returns the names of methods with their aliases.
fn names_of(methods: &'static [About]) -> impl Iterator<Item = &'static str> {
    methods.iter().flat_map(|about| [about.name].into_iter().chain(about.aliases.iter().copied()))
}

/// Returns what to say of a name that is no method there: that it is not built yet, that it is one of another job, or the method that may
/// have been meant.
pub fn unknown_method_hint(name: &str) -> Option<String> {
    match online_method(name) {
        Some("online_dpo") => return Some("`online_dpo` is `dpo` in rounds: set `rounds` as well".to_owned()),
        Some("reinforce++") => return Some("here it is `reinforce_pp`".to_owned()),
        Some(variant @ ("dapo" | "dr_grpo" | "gspo" | "cispo")) => {
            return Some(format!("`{variant}` is `grpo` with other settings (docs/ONLINE.md)"));
        }
        _ => {}
    }
    if let Some(sampled) = respell(name, names_of(online::ONLINE_METHODS)).and_then(Method::named) {
        let sampled = sampled.name();
        return Some(format!("`{sampled}` samples while it trains: it is a method of `setpoint align` in rounds"));
    }
    if let Some(online) = online_method(name) {
        return Some(format!(
            "`{online}` is an online method that is not built yet; `ppo`, `rloo`, `grpo` and `reinforce_pp` are, and all others train in rounds, too"
        ));
    }
    if name.trim().eq_ignore_ascii_case("sigmoid") {
        return Some("trl's `sigmoid` is `dpo`".to_owned());
    }
    nearest(name, METHODS.iter().map(|about| about.name)).map(|near| format!("did you mean `{near}`?"))
}

/// Returns the name of the online method that a text spells.
pub fn online_method(name: &str) -> Option<&'static str> {
    respell(name, ONLINE_METHODS)
}

/// Methods that sample during training and are not built yet.
const ONLINE_METHODS: [&str; 9] =
    ["dapo", "dr_grpo", "gspo", "cispo", "reinforce", "reinforce++", "online_dpo", "nash_md", "xpo"];

/// The names there are, and the one that may have been meant.
fn unknown_method(found: Option<&str>) -> (String, String) {
    let shown = |about: &About| match about.aliases {
        [] => about.name.to_owned(),
        aliases => format!("{} (or {})", about.name, aliases.join(", ")),
    };
    let mut names: Vec<String> = METHODS.iter().map(shown).collect();
    names.extend(online::ONLINE_METHODS.iter().map(shown));
    let found = found.map_or_else(
        || "something other than a name".to_owned(),
        |name| match unknown_method_hint(name) {
            Some(hint) => format!("`{name}`; {hint}"),
            None => format!("`{name}`"),
        },
    );
    let message = format!(
        "`align.method` must be one of {}; found {found} (`setpoint methods` says what each needs)",
        names.join(", ")
    );
    ("align.method".into(), message)
}

//! Settings of `setpoint align` and `setpoint audit`.

mod dro;
mod method;
mod pairwise;
mod rows;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::load::to_table;
use crate::config::output::{Target, validate_output};
use crate::config::sections::{
    ModelSection, Wanted, folder_problem, validate_best, validate_data, validate_encode, validate_train,
};
use crate::config::{Config, Problems, nearest};
use crate::recipes::setup;
use crate::recipes::training::SamplesSection;
use setpoint_data::{DatasetConfig, EncodeOptions};
use setpoint_train::{MicroBatch, Schedule, ScheduleKind, TrainConfig, Warmup};

pub use dro::{DroSection, Preset, T0Name, T0Setting, Update};
pub use method::{About, METHODS, Method, TrainsOn};
pub use pairwise::{NllOn, OrpoSection, PairRule, Pairwise, RpoSection};
pub use rows::Desirable;

/// Settings of `setpoint align` and `setpoint audit`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlignConfig {
    /// The policy to train: the SFT model.
    pub model: ModelSection,
    /// The reference model, for methods that have one; by default the policy as it is before training.
    pub reference: Option<PathBuf>,
    /// Rows with responses and rewards, with chosen and rejected responses, or with good and bad ones, as the method wants them.
    pub data: DatasetConfig,
    /// Rows to evaluate on during training.
    pub eval_data: Option<DatasetConfig>,
    /// How rows become tokens.
    pub encode: EncodeOptions,
    /// The method and its settings.
    pub align: Method,
    /// Optimizer, schedule, checkpoints.
    pub train: TrainConfig,
    /// Answers to a few prompts during training.
    pub samples: SamplesSection,
    /// Where `setpoint audit` writes its report, as JSON.
    pub output: Option<PathBuf>,
}

impl Default for AlignConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            reference: None,
            data: DatasetConfig::new(""),
            eval_data: None,
            encode: setup::training_lengths(),
            align: Method::Dro(DroSection::default()),
            train: TrainConfig {
                epochs: 3.0,
                batch_size: 128,
                micro_batch: MicroBatch::Tokens(8192),
                learning_rate: 5e-7,
                schedule: Schedule { kind: ScheduleKind::Cosine, warmup: Warmup::Auto },
                ..TrainConfig::default()
            },
            samples: SamplesSection::default(),
            output: None,
        }
    }
}

impl Config for AlignConfig {
    const JOB: &'static str = "align";

    fn defaults(user: &Table) -> Result<Table, (String, String)> {
        let section = user.get("align").and_then(Value::as_table);
        let name = section.and_then(|s| s.get("method")).map_or(Some("dro"), Value::as_str);
        let align = name.and_then(Method::named).ok_or_else(|| unknown_method(name))?;
        let dro = matches!(align, Method::Dro(_));
        let mut table = to_table(&AlignConfig { align, ..AlignConfig::default() });
        if let (true, Some(section), Some(Value::Table(align))) = (dro, section, table.get_mut("align")) {
            adapt(align, |key| section.get(key));
        }
        Ok(table)
    }

    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::LanguageModel, problems);
        validate_data(&self.data, "data", problems);
        validate_encode(&self.encode, problems);
        if let Some(eval) = &self.eval_data {
            validate_data(eval, "eval_data", problems);
        }
        if let Some(message) = self.reference.as_ref().and_then(|path| folder_problem(path, Wanted::LanguageModel)) {
            problems.add("reference", message);
        }
        validate_train(&self.train, problems);
        validate_best(&self.train, self.eval_data.as_ref(), problems);
        self.samples.generate.validate("samples.generate", problems);
        self.align.check(problems);
        validate_output(self.output.as_ref(), Target::File, problems);
        problems.require(
            self.reference.is_none() || self.align.about().reference,
            "reference",
            format!("`{}` has no reference model: leave `reference` out", self.align.name()),
        );
    }
}

/// Adapts DRO's settings to those that are about to be laid on them: a preset brings its own, and of the two ways to set the level only
/// one is kept.
pub fn adapt<'a>(align: &mut Table, over: impl Fn(&str) -> Option<&'a Value>) {
    if let Some(preset) = over("preset").and_then(Value::as_str).and_then(Preset::named) {
        align.remove("break_even_reward");
        align.extend(preset.settings());
    }
    let (level, reward) = ("log_z0", "break_even_reward");
    match (over(level), over(reward)) {
        (None, Some(_)) => align.remove(level),
        (Some(_), None) => align.remove(reward),
        // Given both, the check says so.
        _ => None,
    };
}

/// The names there are, and the one that may have been meant.
fn unknown_method(found: Option<&str>) -> (String, String) {
    let names: Vec<&str> =
        METHODS.iter().map(|about| if about.name == "dro" { "dro (or rao)" } else { about.name }).collect();
    let found = found.map_or_else(
        || "something else than a name".to_owned(),
        |name| match nearest(name, METHODS.iter().map(|about| about.name)) {
            Some(near) => format!("`{name}`; did you mean `{near}`?"),
            None => format!("`{name}`"),
        },
    );
    let message = format!(
        "`align.method` must be one of {}; found {found} (`setpoint methods` says what each needs)",
        names.join(", ")
    );
    ("align.method".into(), message)
}

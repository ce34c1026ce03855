//! `setpoint sft`: supervised fine-tuning. Every assistant turn counts, its stop token included; the loss is the mean over all counted
//! tokens of the global batch.

use std::borrow::Cow;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::{DatasetConfig, EncodeOptions, EncodeReport, Responses, TextEncoder, Uses, content_hash_of_store};
use setpoint_train::{MicroBatch, Schedule, ScheduleKind, TrainConfig, Warmup};
use setpoint_transformer::lora::{AdapterTask, LoraConfig};
use setpoint_transformer::{CausalLm, ModelConfig};
use toml::{Table, Value};

use crate::adapter::{self, Adaptation, adapt_rate, adapted, default_rate, with_tokenizer};
use crate::config::load::to_table;
use crate::config::sections::{
    ModelSection, Wanted, validate_best, validate_saving, validate_sft_data, validate_sft_encode,
    validate_sft_training_data, validate_train, warn_of_no_eval_data,
};
use crate::config::{Config, Problems};
use crate::failure::Outcome;
use crate::identity::{KeptRows, Origin, Row, conversation};
use crate::job::{ADAPTER, DATA, DryRun, Flag, Job, MODEL, Planned, View, Work, word};
use crate::saving::{Saving, save_policy, saved_dtype};
use crate::session::Session;
use crate::setup;
use crate::tasks::sft::{SftExample, SftStore, SftTask};
use crate::training::tracker::{self, TrackerSection};
use crate::training::{
    Companions, Mix, Output, Rates, RunPlan, SamplesSection, Saver, Shape, conclude, open_run, sampler, train,
};

/// Settings of `setpoint sft`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
    /// The model to start from.
    pub model: ModelSection,
    /// A low-rank adapter that is trained instead of the model's own weights, which stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<LoraConfig>,
    /// Conversations, or prompts with completions.
    pub data: DatasetConfig,
    /// Rows to evaluate on during training.
    pub eval_data: Option<DatasetConfig>,
    /// The conversion of rows to tokens.
    pub encode: EncodeOptions,
    /// Optimizer, schedule, checkpoints.
    pub train: TrainConfig,
    /// Answers to a few prompts during training.
    pub samples: SamplesSection,
    /// A copy of the metrics for another tool: a table, Weights & Biases, MLflow or Trackio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracker: Option<TrackerSection>,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            adapter: None,
            data: DatasetConfig { responses: Some(Responses::Auto), ..DatasetConfig::new("") },
            eval_data: None,
            encode: EncodeOptions { assistant_spans: true, ..setup::training_lengths() },
            train: TrainConfig {
                epochs: 2.0,
                batch_size: 64,
                micro_batch: MicroBatch::Tokens(8192),
                learning_rate: 2e-5,
                schedule: Schedule { kind: ScheduleKind::Cosine, warmup: Warmup::Auto },
                ..TrainConfig::default()
            },
            samples: SamplesSection::default(),
            tracker: None,
        }
    }
}

impl Config for SftConfig {
    const JOB: &'static str = "sft";
    const IS_TRAINING: bool = true;

    fn defaults(user: &Table) -> Result<Table, (String, String)> {
        let mut table = to_table(&Self::default());
        adapt_rate(&mut table, user);
        Ok(table)
    }

    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::LanguageModelOrShape, problems);
        self.model.validate_trained("model", self.adapter.is_some(), problems);
        adapter::validate(self.adapter.as_ref(), &self.model, false, problems);
        validate_sft_training_data(&self.data, "data", problems);
        validate_sft_encode(&self.encode, problems);
        if let Some(eval) = &self.eval_data {
            validate_sft_data(eval, "eval_data", problems);
        }
        validate_train(&self.train, problems);
        validate_saving(&self.train, self.adapter.is_some(), problems);
        validate_best(&self.train, self.eval_data.as_ref(), problems);
        self.samples.generate.validate("samples.generate", problems);
        if let Some(tracker) = &self.tracker {
            tracker.validate(problems);
        }
    }

    fn complete_older(table: &mut Table) {
        let data = table.get_mut("data").and_then(Value::as_table_mut);
        if let Some(data) = data.filter(|data| !data.contains_key("responses")) {
            data.insert("responses".into(), "all".into());
        }
    }
}

impl SftConfig {
    /// The training data, with the columns that its selection of responses looks at.
    pub fn training_data(&self) -> DatasetConfig {
        reading(&self.data, None)
    }

    /// The evaluation data; the responses that are trained on are those it is evaluated on, unless it says otherwise.
    pub fn evaluation_data(&self) -> Option<DatasetConfig> {
        self.eval_data.as_ref().map(|eval| reading(eval, self.data.responses))
    }
}

/// Returns the options of the conversion of SFT's rows to tokens: messages say whether they are learned.
pub fn turns(encode: &EncodeOptions) -> EncodeOptions {
    EncodeOptions { weighted_turns: true, ..encode.clone() }
}

/// A data set as SFT reads it.
pub fn reading(data: &DatasetConfig, otherwise: Option<Responses>) -> DatasetConfig {
    let responses = data.responses.or(otherwise).unwrap_or(Responses::All);
    DatasetConfig { responses: Some(responses), ..setup::looking_at(data, Uses::of_selection(responses)) }
}

/// `setpoint sft`.
#[derive(Debug)]
pub struct Sft;

impl Job for Sft {
    type Config = SftConfig;

    const COMMAND: &'static str = "sft";
    const FLAGS: &'static [Flag] = &[MODEL, DATA, ADAPTER];
    const PLANNED: Option<Planned> = Some(Planned { title: "Supervised fine-tuning", told_by: None });
    const VIEW: Option<View> = Some(View {
        about: "`setpoint sft`: every assistant turn that the row does not exclude is learned",
        selects: true,
        validate: validate_sft_training_data,
        read: |data, encode| {
            let encode = EncodeOptions { assistant_spans: true, ..turns(encode) };
            (reading(data, Some(Responses::Auto)), encode)
        },
    });
    const WORK: Work<SftConfig> = Work::Run(run);
    const DRY_RUN: DryRun<SftConfig> = DryRun::Plan(plan);
    const NEXT: Option<fn(&Path) -> String> = Some(|run| {
        let model = run.join("model");
        match model.join("chat_template.jinja").is_file() {
            true => format!("setpoint chat --model {}", word(&model)),
            // A model of plain text holds no conversation.
            false => format!("setpoint generate --model {} --prompt \"Once upon a time\"", word(&model)),
        }
    });

    fn about() -> Cow<'static, str> {
        "Supervised fine-tuning on conversations or prompts with completions".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint sft --model Qwen2.5-0.5B --data chats.jsonl --run runs/sft\n  \
         setpoint sft sft.toml --run runs/sft --set train.learning_rate=1e-5\n  \
         setpoint sft --run runs/sft --resume\n\nAll settings with their defaults: setpoint inspect config sft"
            .into()
    }
}

/// Trains, and leaves the model in `<folder>/model`.
pub fn run(session: &Session, config: &SftConfig, folder: &Path, resume: bool) -> Outcome {
    tracker::check(config.tracker.as_ref())?;
    let mut config = config.clone();
    config.model = with_tokenizer(&config.model, config.adapter.as_ref());
    setup::fix_template_date(&mut config.model, folder, resume)?;
    adapter::fix_dropout(&mut config.adapter, resume)?;
    let config = &config;
    let encoder = setup::encoder(&config.model)?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let encode = setup::within(&turns(&config.encode), &model_config);
    warn_of_no_eval_data(&config.train, config.eval_data.as_ref());
    let prepare = |data: &DatasetConfig, what| Prepared::read(session, data, &encode, &encoder, what, folder);
    let data = prepare(&config.training_data(), "training data")?;
    let eval = config.evaluation_data().map(|eval| prepare(&eval, "evaluation data")).transpose()?;
    let adaptation = Adaptation::of(&config.model, config.adapter.as_ref(), AdapterTask::CausalLm)?;
    let mix = Mix::of(&config.data, &data.store.sets())?;
    let plan = run_plan(session, config, &model_config, &data.report, &mix, adaptation.as_ref())?;
    plan.warn(session.quiet);
    let run = open_run(session, folder, resume, config)?;

    let mut settings = config.train.clone();
    let weights = match &config.model.path {
        Some(dir) => setup::model_hash(dir)?,
        None => setup::text_hash(&model_config.to_json().to_string()),
    };
    let version_1 = setup::text_hash(&format!("{weights}\n{}", content_hash_of_store(data.store.rows())?));
    let mut origin = Origin::new(config, version_1)?;
    match (&config.model.path, &config.model.from_scratch) {
        (Some(dir), _) => origin.model("model.path", dir, weights),
        (None, file) => origin.shape(file.as_deref().unwrap_or(Path::new("")), weights),
    }
    if let Some(adaptation) = &adaptation {
        adaptation.identify(&mut origin)?;
        adaptation.adapt(&mut settings);
    }
    origin.encoder(&config.model, &encoder);
    let shown = eval.as_ref().unwrap_or(&data).first_prompts(config.samples.prompts)?;
    let Prepared { store, identity, learns_stop, .. } = data;
    let task = SftTask::stored(store);
    origin.data("data", &config.data, identity, conversation);
    let eval_task = match (eval, &config.eval_data) {
        (Some(eval), Some(data)) => {
            origin.data("eval_data", data, eval.identity, conversation);
            Some(SftTask::stored(eval.store))
        }
        _ => None,
    };
    origin.check(&run)?;
    settings.identity = origin.identity();
    let device = session.device().clone().autodiff();
    let model = setup::policy(session, &config.model, &model_config, settings.seed, &device)?;
    let mut model = adapted(model, adaptation.as_ref(), settings.seed)?;
    model.model.recompute = plan.memory.recompute;
    let shown = shown.into_iter();
    let sampler = sampler(session, &config.samples, &config.model, &model_config, &encoder, shown)?;
    let dir = run.join("model");
    let saving = Saving {
        config: &model_config,
        encoder: &encoder,
        from: &config.model,
        stop: encoder.template_stop().filter(|_| learns_stop),
        adaptation: adaptation.as_ref(),
        dtype: saved_dtype(session, &settings, &config.model, &model_config, adaptation.is_some()),
    };
    let saver: Saver<'_, CausalLm> = Box::new(|model| save_policy(model, &saving, &dir));
    let companions = Companions {
        eval: eval_task.as_ref(),
        mix: Some(mix),
        recompute: model.model.recompute,
        sampler,
        saver: Some(saver),
        tracker: config.tracker.as_ref(),
        ..Companions::default()
    };
    let fitted = train(session, "SFT", &run, &task, model, &settings, companions)?;
    conclude(session, &run, "SFT", (fitted.steps, None), &["model"], &settings)
}

/// Checks everything; what a run needs.
pub fn plan(session: &Session, config: &SftConfig) -> Outcome<RunPlan> {
    warn_of_no_eval_data(&config.train, config.eval_data.as_ref());
    let encoder = setup::encoder(&with_tokenizer(&config.model, config.adapter.as_ref()))?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let encode = setup::within(&turns(&config.encode), &model_config);
    let mut sets = Vec::new();
    let report =
        setup::each_example(&config.training_data(), &encode, &encoder, "training data", session, &mut |example| {
            sets.extend(SftExample::all(&example).map(|conversation| conversation.set));
            Ok(())
        })?;
    let adaptation = Adaptation::of(&config.model, config.adapter.as_ref(), AdapterTask::CausalLm)?;
    run_plan(session, config, &model_config, &report, &Mix::of(&config.data, &sets)?, adaptation.as_ref())
}

/// Data sets as conversations, which are on disk if they are many.
struct Prepared {
    store: SftStore,
    report: EncodeReport,
    /// The conversations, for the identity of the run.
    identity: KeptRows,
    /// True if a response has the token that ends the template's turns.
    learns_stop: bool,
}

impl Prepared {
    /// Reads and encodes data sets. `run`: the folder of the run, which need not exist.
    fn read(
        session: &Session,
        data: &DatasetConfig,
        encode: &EncodeOptions,
        encoder: &TextEncoder,
        what: &str,
        run: &Path,
    ) -> Outcome<Self> {
        let folder = setup::folder_of_rows(Some(run));
        let stop = encoder.template_stop();
        let mut store = SftStore::new(&folder, session.rows_in_memory);
        let (mut identity, mut learns_stop) = (KeptRows::new(&folder), false);
        let report = setup::each_example(data, encode, encoder, what, session, &mut |example| {
            learns_stop |=
                stop.is_some_and(|stop| example.responses.iter().any(|response| response.ids.contains(&stop)));
            for SftExample { name, set, ids, counted } in SftExample::all(&example) {
                identity.push(&Row::of_conversation(&name, set, &ids, &counted))?;
            }
            Ok(store.push(&example)?)
        })?;
        Ok(Self { store, report, identity, learns_stop })
    }

    /// Returns the prompts of the first rows.
    fn first_prompts(&self, count: usize) -> Outcome<Vec<Vec<u32>>> {
        self.store.rows().iter().take(count).map(|example| Ok(example?.prompt)).collect()
    }
}

fn run_plan(
    session: &Session,
    config: &SftConfig,
    shape: &ModelConfig,
    report: &EncodeReport,
    mix: &Mix,
    adaptation: Option<&Adaptation>,
) -> Outcome<RunPlan> {
    let adapter = adaptation.map(|adaptation| adaptation.size(shape, session.device())).transpose()?;
    let shape = Shape { config: shape, model: &config.model, output: Output::Tokens, adapter };
    let plan = RunPlan::of(shape, report, &config.train, mix.visits(), &session.place)?;
    let has_adapter = adaptation.is_some();
    let default = default_rate(SftConfig::default().train.learning_rate, has_adapter);
    Ok(plan.rated(Rates::Sft, &config.train, default, has_adapter).mixed(mix, report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::{from_table, to_table};

    #[test]
    fn older_settings_train_on_all_responses() {
        let mut table = to_table(&SftConfig::default());
        assert_eq!(table["data"]["responses"].as_str(), Some("auto"), "a run folder of this version says so");
        table["data"].as_table_mut().unwrap().remove("responses");
        SftConfig::complete_older(&mut table);
        let data = table["data"].clone().try_into::<DatasetConfig>().unwrap();
        assert_eq!(reading(&data, None).responses, Some(Responses::All));
        let table = Table::from_iter([("data".to_owned(), Value::Table(Table::new()))]);
        let problems = from_table::<SftConfig>(table, &[("data.responses".into(), "best".into())]).unwrap_err();
        assert!(problems.iter().all(|problem| !problem.message.contains("responses")), "{problems:?}");
    }

    #[test]
    fn only_sft_learns_answers_without_their_thoughts() {
        let set = [("encode.train_on_thoughts".to_owned(), Value::Boolean(false))];
        let of = |problems: Vec<crate::config::Problem>| {
            problems.iter().filter(|problem| problem.message.contains("a setting of `setpoint sft` alone")).count()
        };
        assert_eq!(of(from_table::<SftConfig>(Table::new(), &set).unwrap_err()), 0);
        assert_eq!(of(from_table::<crate::reward::RewardConfig>(Table::new(), &set).unwrap_err()), 1);
    }

    #[test]
    fn evaluation_selects_as_training_does_unless_it_says_otherwise() {
        let data = |responses| DatasetConfig { responses, ..DatasetConfig::new("x.jsonl") };
        let config =
            |eval| SftConfig { data: data(Some(Responses::Best)), eval_data: Some(data(eval)), ..SftConfig::default() };
        assert_eq!(config(None).evaluation_data().unwrap().responses, Some(Responses::Best));
        let own = config(Some(Responses::All)).evaluation_data().unwrap();
        assert_eq!(own.responses, Some(Responses::All));
        assert!(!own.uses.margin && own.uses.rejected);
    }
}

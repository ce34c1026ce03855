//! `setpoint reward`: a Bradley–Terry reward model from preference pairs, in the layout of `*ForSequenceClassification`.

use std::borrow::Cow;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::{DatasetConfig, EncodeOptions, Example, ResponseEnd, TextEncoder, Uses};
use setpoint_reward::{HeadInit, Normalization, Preference, PreferenceTask, RewardModel, score_rows};
use setpoint_train::{MicroBatch, Schedule, ScheduleKind, TrainConfig, Warmup};
use setpoint_transformer::lora::{AdapterTask, LoraConfig};
use setpoint_transformer::{Architecture, CausalLm, ModelConfig, SaveOptions};
use toml::Table;

use crate::adapter::{self, Adaptation, adapt_rate, adapted, with_tokenizer};
use crate::config::load::to_table;
use crate::config::sections::{
    ModelSection, Wanted, validate_best, validate_data, validate_encode, validate_saving, validate_train,
    validate_training_data, warn_of_no_eval_data,
};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::identity::{KeptRows, Origin, Row, prompt_and_responses};
use crate::job::{ADAPTER, DATA, DryRun, Flag, Job, MODEL, Planned, Work, word};
use crate::saving::saved_dtype;
use crate::session::{Meter, Session};
use crate::setup::{self, Encoded, Reading};
use crate::training::tracker::{self, TrackerSection};
use crate::training::{Companions, Mix, Output, RunPlan, Saver, Shape, conclude, open_run, train};

/// Settings of `setpoint reward`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardConfig {
    /// The language model that the reward model grows from (or a reward model to train on).
    pub model: ModelSection,
    /// A low-rank adapter that is trained instead of the model's own weights, which stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<LoraConfig>,
    /// Rows with a chosen and a rejected response, or with rewards to form pairs from.
    pub data: DatasetConfig,
    /// Rows to evaluate on during training.
    pub eval_data: Option<DatasetConfig>,
    /// The conversion of rows to tokens.
    pub encode: EncodeOptions,
    /// Factor of `(r_w + r_l)²`, which holds the offset that preferences leave free; 0 turns it off.
    pub center: f64,
    /// Optimizer, schedule, checkpoints.
    pub train: TrainConfig,
    /// A copy of the metrics for another tool: a table, Weights & Biases, MLflow or Trackio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracker: Option<TrackerSection>,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            adapter: None,
            data: DatasetConfig::new(""),
            eval_data: None,
            encode: setup::training_lengths(),
            center: 0.01,
            train: TrainConfig {
                epochs: 1.0,
                batch_size: 64,
                micro_batch: MicroBatch::Tokens(8192),
                learning_rate: 1e-5,
                schedule: Schedule { kind: ScheduleKind::Cosine, warmup: Warmup::Auto },
                ..TrainConfig::default()
            },
            tracker: None,
        }
    }
}

impl Config for RewardConfig {
    const JOB: &'static str = "reward";
    const IS_TRAINING: bool = true;

    fn defaults(user: &Table) -> Result<Table, (String, String)> {
        let mut table = to_table(&Self::default());
        adapt_rate(&mut table, user);
        Ok(table)
    }

    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::Either, problems);
        self.model.validate_trained("model", self.adapter.is_some(), problems);
        adapter::validate(self.adapter.as_ref(), &self.model, true, problems);
        validate_training_data(&self.data, "data", problems);
        validate_encode(&self.encode, problems);
        if let Some(eval) = &self.eval_data {
            validate_data(eval, "eval_data", problems);
        }
        problems.require(self.center.is_finite() && self.center >= 0.0, "center", "must not be negative (0: off)");
        validate_train(&self.train, problems);
        validate_saving(&self.train, self.adapter.is_some(), problems);
        validate_best(&self.train, self.eval_data.as_ref(), problems);
        if let Some(tracker) = &self.tracker {
            tracker.validate(problems);
        }
    }
}

/// `setpoint reward`.
#[derive(Debug)]
pub struct Reward;

impl Job for Reward {
    type Config = RewardConfig;

    const COMMAND: &'static str = "reward";
    const FLAGS: &'static [Flag] = &[MODEL, DATA, ADAPTER];
    const PLANNED: Option<Planned> = Some(Planned { title: "A reward model", told_by: Some("center") });
    const WORK: Work<RewardConfig> = Work::Run(run);
    const DRY_RUN: DryRun<RewardConfig> = DryRun::Plan(plan);
    const NEXT: Option<fn(&Path) -> String> = Some(|run| {
        let model = run.join("model");
        format!("setpoint annotate --model {} --data responses.jsonl --output rewards.jsonl", word(&model))
    });

    fn about() -> Cow<'static, str> {
        "Train a Bradley–Terry reward model on preference pairs".into()
    }

    fn help() -> Cow<'static, str> {
        "Example:\n  setpoint reward --model runs/sft/model --data preferences.jsonl --run runs/reward\n\n\
         All settings with their defaults: setpoint inspect config reward"
            .into()
    }
}

/// Trains, stores mean and deviation of the training rewards, and leaves the model in `<folder>/model`.
pub fn run(session: &Session, config: &RewardConfig, folder: &Path, resume: bool) -> Outcome {
    tracker::check(config.tracker.as_ref())?;
    let mut config = config.clone();
    config.model = with_tokenizer(&config.model, config.adapter.as_ref());
    setup::fix_template_date(&mut config.model, folder, resume)?;
    adapter::fix_dropout(&mut config.adapter, resume)?;
    let config = &config;
    let mut encoder = setup::encoder(&config.model)?;
    let lm_config = setup::model_config(&config.model, &encoder)?;
    let encode = encode_options(config, &lm_config, &encoder)?;
    warn_of_no_eval_data(&config.train, config.eval_data.as_ref());
    let data = setup::examples(&reading(&config.data), &encode, &encoder, "training data", session)?;
    let (pairs_of_data, mix) = mixed_pairs(config, &data)?;
    let task = PreferenceTask::new(pairs_of_data, config.center)?;
    let mut eval_rows = None;
    let eval = match &config.eval_data {
        None => None,
        Some(eval) => {
            let data = setup::examples(&reading(eval), &encode, &encoder, "evaluation data", session)?;
            eval_rows = Some((eval, Row::of_examples(&data.examples)));
            Some(PreferenceTask::new(pairs(&data.examples, &eval.name())?.0, config.center)?)
        }
    };
    let adaptation = adaptation(config)?;
    let plan = run_plan(session, config, &lm_config, &data, &mix, adaptation.as_ref())?;
    plan.warn();
    let run = open_run(session, folder, resume, config)?;

    let mut settings = config.train.clone();
    let dir = config.model.path.as_deref().unwrap_or(Path::new(""));
    let weights = setup::model_hash(dir)?;
    let tokens = setpoint_data::content_hash(&data.examples);
    let version_1 = setup::text_hash(&format!("{weights}\n{tokens}\n{}", config.center));
    let mut origin = Origin::new(config, version_1)?;
    origin.model("model.path", dir, weights);
    if let Some(adaptation) = &adaptation {
        adaptation.identify(&mut origin)?;
        adaptation.adapt(&mut settings);
    }
    origin.encoder(&config.model, &encoder);
    origin.data("data", &config.data, KeptRows::of(&Row::of_examples(&data.examples))?, prompt_and_responses);
    origin.loss("data", pairs_hash(&task));
    if let (Some(task), Some((data, rows))) = (&eval, eval_rows) {
        origin.data("eval_data", data, KeptRows::of(&rows)?, prompt_and_responses);
        origin.loss("eval_data", pairs_hash(task));
    }
    origin.check(&run)?;
    settings.identity = origin.identity();
    let device = session.device().clone().autodiff();
    let options = setup::load_options(&config.model, session);
    let (model, mut model_config) = if is_reward_model(&lm_config) {
        RewardModel::load(dir, &options, &device)?
    } else {
        let (lm, _) = CausalLm::load(dir, &options, &device)?;
        RewardModel::from_causal_lm(lm, &lm_config, HeadInit::small(&lm_config, settings.seed))
    };
    let mut model = adapted(model, adaptation.as_ref(), settings.seed)?;
    model.model.recompute = plan.memory.recompute;
    let out = run.join("model");
    let dtype = saved_dtype(session, &settings, &config.model, &lm_config, adaptation.is_some());
    let saver: Saver<'_, RewardModel> = Box::new(|model| {
        // Its own scores on the training rows give the reward a scale that others can rely on.
        let rows: Vec<&[u32]> =
            task.pairs().iter().flat_map(|p| [p.chosen.as_slice(), p.rejected.as_slice()]).collect();
        let mut meter = Meter::new(session, rows.len(), "scale", "responses");
        let scores = score_rows(&session.devices, model, &rows, 8192, &mut |done| meter.reach(done))?;
        meter.finish();
        Normalization::write(Some(Normalization::of(&scores)?), &mut model_config);
        // transformers finds the end of a row by this token, so no response may end with it.
        if let Some((id, text)) = encoder.padding_token(model.vocabulary(), rows.iter().copied()) {
            model_config.pad_token_id = Some(id);
            encoder.set_padding_token(id, text);
        }
        match &adaptation {
            Some(adaptation) => adaptation.save_reward_model(model, &model_config, &out)?,
            None => model.save(&model_config, &out, &SaveOptions { dtype, ..SaveOptions::default() })?,
        }
        encoder.save(&out)?;
        setup::note_response_end(&out, encode.response_end)
    });
    let companions = Companions {
        eval: eval.as_ref(),
        mix: Some(mix),
        recompute: model.model.recompute,
        saver: Some(saver),
        tracker: config.tracker.as_ref(),
        ..Companions::default()
    };
    let fitted = train(session, "reward", &run, &task, model, &settings, companions)?;
    conclude(session, &run, "reward", (fitted.steps, None), &["model"], &settings)
}

/// Checks everything and returns what a run needs.
pub fn plan(session: &Session, config: &RewardConfig) -> Outcome<RunPlan> {
    warn_of_no_eval_data(&config.train, config.eval_data.as_ref());
    let encoder = setup::encoder(&with_tokenizer(&config.model, config.adapter.as_ref()))?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let encode = encode_options(config, &model_config, &encoder)?;
    let data = setup::examples(&reading(&config.data), &encode, &encoder, "training data", session)?;
    let (_, mix) = mixed_pairs(config, &data)?;
    run_plan(session, config, &model_config, &data, &mix, adaptation(config)?.as_ref())
}

/// Returns the pairs of the training data, and the part of each data set in an epoch.
fn mixed_pairs(config: &RewardConfig, data: &Encoded) -> Outcome<(Vec<Preference>, Mix)> {
    let (pairs, sets) = pairs(&data.examples, &config.data.name())?;
    let mut same = pairs.iter().filter(|pair| pair.chosen == pair.rejected).peekable();
    if let Some(first) = same.peek().map(|pair| pair.name.clone()) {
        log::warn!(
            "pairs whose chosen and rejected response have the same text: {} of {}, the first in {first}; nothing is learned from them: \
             leave them out",
            same.count(),
            pairs.len()
        );
    }
    Ok((pairs, Mix::of(&config.data, &sets)?))
}

/// Returns the adapter that is trained, if one is.
fn adaptation(config: &RewardConfig) -> Outcome<Option<Adaptation>> {
    Adaptation::of(&config.model, config.adapter.as_ref(), AdapterTask::SequenceClassification)
}

/// Plans a run. The head of a language model gives way to that of a reward model.
fn run_plan(
    session: &Session,
    config: &RewardConfig,
    started_from: &ModelConfig,
    data: &Encoded,
    mix: &Mix,
    adaptation: Option<&Adaptation>,
) -> Outcome<RunPlan> {
    let mut shape = started_from.clone();
    shape.architecture = Architecture::SequenceClassification;
    shape.num_labels = 1;
    let adapter = adaptation.map(|adaptation| adaptation.size(&shape, session.device())).transpose()?;
    let shape = Shape { config: &shape, model: &config.model, output: Output::Reward, adapter };
    Ok(RunPlan::of(shape, &data.report, &config.train, mix.visits(), &session.place)?.mixed(mix, &data.report))
}

/// Pairs with their margins.
fn reading(data: &DatasetConfig) -> DatasetConfig {
    setup::looking_at(data, Uses { margin: true, ..Uses::PAIRS })
}

/// Identifies pairs: their tokens and margins.
fn pairs_hash(task: &PreferenceTask) -> String {
    let pair = |pair: &Preference| {
        let [chosen, rejected] = [&pair.chosen, &pair.rejected].map(|ids| setup::token_hash(ids));
        format!("{chosen:016x} {rejected:016x} {:016x}\n", pair.margin.to_bits())
    };
    setup::text_hash(&task.pairs().iter().map(pair).collect::<String>())
}

/// Returns the options of the conversion of rows to tokens: for a reward model that is trained on, with the score where it was read so far.
fn encode_options(config: &RewardConfig, model: &ModelConfig, encoder: &TextEncoder) -> Outcome<EncodeOptions> {
    let asked = match config.encode.response_end {
        // The default; `model.response_end` can insist on it.
        ResponseEnd::Stop => ResponseEnd::Auto,
        other => other,
    };
    let response_end = if is_reward_model(model) {
        Reading::of(&config.model, encoder, asked)?.end
    } else {
        config.model.response_end.unwrap_or(config.encode.response_end)
    };
    Ok(EncodeOptions { response_end, ..setup::within(&config.encode, model) })
}

fn is_reward_model(config: &ModelConfig) -> bool {
    config.architecture == Architecture::SequenceClassification
}

/// One pair per row: the labelled ones, else the best and the worst reward. Also returns the data set of each.
fn pairs(examples: &[Example], path: &str) -> Outcome<(Vec<Preference>, Vec<usize>)> {
    let (mut pairs, mut sets) = (Vec::new(), Vec::new());
    for example in examples {
        let Some((chosen, rejected)) = setup::pair(example) else { continue };
        sets.push(example.source.set);
        let row = |i: usize| [example.prompt.as_slice(), example.responses[i].ids.as_slice()].concat();
        pairs.push(Preference {
            chosen: row(chosen),
            rejected: row(rejected),
            margin: example.margin.unwrap_or(0.0),
            name: example.source.to_string(),
        });
    }
    if pairs.is_empty() {
        return Err(Failure::run(format!(
            "{path}: no row has a chosen and a rejected response, or two different rewards"
        ))
        .hint("a reward model is trained on pairs: give `prompt`, `chosen` and `rejected` columns"));
    }
    if pairs.len() < examples.len() {
        log::info!("{} of {} rows have no pair and are left out", examples.len() - pairs.len(), examples.len());
    }
    Ok((pairs, sets))
}

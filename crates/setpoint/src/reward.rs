//! `setpoint reward`: a Bradley–Terry reward model from preference pairs, in the layout of `*ForSequenceClassification`.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_data::{
    DatasetConfig, EncodeOptions, EncodeReport, Example, ExampleStore, ResponseEnd, TextEncoder, Uses,
    content_hash_of_store, hex,
};
use setpoint_reward::{HeadInit, Normalization, Preference, PreferenceTask, RewardModel, score_rows};
use setpoint_train::{MicroBatch, OnDemand, Schedule, ScheduleKind, TrainConfig, Warmup};
use setpoint_transformer::lora::{AdapterTask, LoraConfig};
use setpoint_transformer::{Architecture, CausalLm, ModelConfig, SaveOptions};
use sha2::{Digest, Sha256};
use toml::Table;

use crate::adapter::{self, Adaptation, adapt_rate, adapted, default_rate, with_tokenizer};
use crate::config::load::to_table;
use crate::config::sections::{
    ModelSection, Wanted, validate_best, validate_data, validate_encode, validate_saving, validate_train,
    validate_training_data, warn_of_no_eval_data,
};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::identity::{KeptRows, Origin, prompt_and_responses};
use crate::job::{ADAPTER, DATA, DryRun, Flag, Job, MODEL, Planned, Work, word};
use crate::saving::saved_dtype;
use crate::session::{Meter, Session};
use crate::setup::{self, Reading};
use crate::tasks::PART_TOKENS;
use crate::training::tracker::{self, TrackerSection};
use crate::training::{Companions, Mix, Output, Rates, RunPlan, Saver, Shape, conclude, open_run, train};

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
    let rows_folder = setup::folder_of_rows(Some(folder));
    let prepare = |data: &DatasetConfig, what| Pairs::read(session, data, (&encoder, &encode), what, &rows_folder);
    let Pairs { rows, report, pairs, sets } = prepare(&config.data, "training data")?;
    let mix = Mix::of(&config.data, &sets)?;
    drop(sets);
    let task = PreferenceTask::new(pairs, config.center, lm_config.rope.switch())?;
    let eval = match &config.eval_data {
        None => None,
        Some(eval) => {
            let data = prepare(eval, "evaluation data")?;
            Some((eval, data.rows, PreferenceTask::new(data.pairs, config.center, lm_config.rope.switch())?))
        }
    };
    let adaptation = adaptation(config)?;
    let plan = run_plan(session, config, &lm_config, &report, &mix, adaptation.as_ref())?;
    plan.warn(session.quiet);
    let run = open_run(session, folder, resume, config)?;

    let mut settings = config.train.clone();
    let dir = config.model.path.as_deref().unwrap_or(Path::new(""));
    let weights = setup::model_hash(dir)?;
    let tokens = content_hash_of_store(&rows)?;
    let version_1 = setup::text_hash(&format!("{weights}\n{tokens}\n{}", config.center));
    let mut origin = Origin::new(config, version_1)?;
    origin.model("model.path", dir, weights);
    if let Some(adaptation) = &adaptation {
        adaptation.identify(&mut origin)?;
        adaptation.adapt(&mut settings);
    }
    origin.encoder(&config.model, &encoder);
    origin.data("data", &config.data, KeptRows::of_store(&rows, &rows_folder)?, prompt_and_responses);
    origin.loss("data", pairs_hash(&task)?);
    if let Some((data, rows, task)) = &eval {
        origin.data("eval_data", data, KeptRows::of_store(rows, &rows_folder)?, prompt_and_responses);
        origin.loss("eval_data", pairs_hash(task)?);
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
        let scored = Scored::of(session, model, task.pairs())?;
        Normalization::write(Some(Normalization::of(&scored.scores)?), &mut model_config);
        // transformers finds the end of a row by this token, so no response may end with it.
        if let Some((id, text)) = encoder.padding_token(model.vocabulary(), [scored.tokens.as_slice()]) {
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
        eval: eval.as_ref().map(|(_, _, task)| task),
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
    let folder = setup::folder_of_rows(None);
    let data = Pairs::read(session, &config.data, (&encoder, &encode), "training data", &folder)?;
    let mix = Mix::of(&config.data, &data.sets)?;
    run_plan(session, config, &model_config, &data.report, &mix, adaptation(config)?.as_ref())
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
    report: &EncodeReport,
    mix: &Mix,
    adaptation: Option<&Adaptation>,
) -> Outcome<RunPlan> {
    let mut shape = started_from.clone();
    shape.architecture = Architecture::SequenceClassification;
    shape.num_labels = 1;
    let adapter = adaptation.map(|adaptation| adaptation.size(&shape, session.device())).transpose()?;
    let shape = Shape { config: &shape, model: &config.model, output: Output::Reward, adapter };
    let plan = RunPlan::of(shape, report, &config.train, mix.visits(), &session.place)?;
    let has_adapter = adaptation.is_some();
    let default = default_rate(RewardConfig::default().train.learning_rate, has_adapter);
    Ok(plan.rated(Rates::Reward, &config.train, default, has_adapter).mixed(mix, report))
}

/// Pairs with their margins.
fn reading(data: &DatasetConfig) -> DatasetConfig {
    setup::looking_at(data, Uses { margin: true, ..Uses::PAIRS })
}

/// Identifies pairs: their tokens and margins.
fn pairs_hash(task: &PreferenceTask) -> Outcome<String> {
    let mut hash = Sha256::new();
    for pair in task.pairs().iter() {
        let pair = pair?;
        let [chosen, rejected] = [&pair.chosen, &pair.rejected].map(|ids| setup::token_hash(ids));
        hash.update(format!("{chosen:016x} {rejected:016x} {:016x}\n", pair.margin.to_bits()));
    }
    Ok(hex(&hash.finalize()))
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

/// A data set as pairs, whose rows are on disk if they are many.
struct Pairs {
    rows: Arc<ExampleStore>,
    report: EncodeReport,
    /// One pair per row that has one: the labelled responses, else the best and the worst reward.
    pairs: OnDemand<Preference>,
    /// The data set of each pair.
    sets: Vec<usize>,
}

impl Pairs {
    /// Reads and encodes data sets. `folder`: where their rows go if they are many.
    fn read(
        session: &Session,
        data: &DatasetConfig,
        (encoder, encode): (&TextEncoder, &EncodeOptions),
        what: &str,
        folder: &Path,
    ) -> Outcome<Self> {
        let mut rows = ExampleStore::new(folder, session.rows_in_memory);
        let (mut kept, mut sets) = (Vec::new(), Vec::new());
        let (mut same, mut first_same) = (0, None);
        let report = setup::each_example(&reading(data), encode, encoder, what, session, &mut |example| {
            if let Some((chosen, rejected)) = setup::pair(&example) {
                if example.responses[chosen].ids == example.responses[rejected].ids {
                    same += 1;
                    first_same.get_or_insert_with(|| example.source.to_string());
                }
                kept.push(rows.len() as u32);
                sets.push(example.source.set);
            }
            Ok(rows.push(&example)?)
        })?;
        if kept.is_empty() {
            return Err(Failure::run(format!(
                "{}: no row has a chosen and a rejected response, or two different rewards",
                data.name()
            ))
            .hint("a reward model is trained on pairs: give `prompt`, `chosen` and `rejected` columns"));
        }
        if kept.len() < rows.len() {
            log::info!("{} of {} rows have no pair and are left out", rows.len() - kept.len(), rows.len());
        }
        if let Some(first) = first_same {
            log::warn!(
                "pairs whose chosen and rejected response have the same text: {same} of {}, the first in {first}; nothing is learned from \
                 them: leave them out",
                kept.len()
            );
        }
        let rows = Arc::new(rows);
        let (count, of) = (kept.len(), rows.clone());
        let pairs = OnDemand::new(count, move |number| {
            let example = of.get(kept[number] as usize).map_err(setpoint_train::Error::task)?;
            pair(&example).ok_or_else(|| setpoint_train::Error::task("a row has lost its pair"))
        });
        Ok(Self { rows, report, pairs, sets })
    }
}

/// Returns the pair of a row, if it has one.
fn pair(example: &Example) -> Option<Preference> {
    let (chosen, rejected) = setup::pair(example)?;
    let ids = |response: usize| example.responses[response].ids.as_slice();
    let (margin, name) = (example.margin.unwrap_or(0.0), example.source.to_string());
    Some(Preference::new(&example.prompt, ids(chosen), ids(rejected), margin, name))
}

/// The scores of a reward model for the pairs that it was trained on.
struct Scored {
    /// Its scores: of each pair the chosen response, then the rejected one.
    scores: Vec<f64>,
    /// The tokens that occur.
    tokens: Vec<u32>,
}

impl Scored {
    /// Scores pairs, some after the other.
    fn of(session: &Session, model: &RewardModel, pairs: &OnDemand<Preference>) -> Outcome<Self> {
        let mut meter = Meter::new(session, 2 * pairs.len(), "scale", "responses");
        let mut scores = Vec::with_capacity(2 * pairs.len());
        let mut occurs = vec![false; model.vocabulary()];
        let mut rest = pairs.iter().peekable();
        while rest.peek().is_some() {
            let (mut part, mut size): (Vec<Vec<u32>>, usize) = (Vec::new(), 0);
            while size < PART_TOKENS
                && let Some(pair) = rest.next()
            {
                let Preference { chosen, rejected, .. } = pair?;
                size += chosen.len() + rejected.len();
                part.extend([chosen, rejected]);
            }
            let before = scores.len();
            scores.extend(score_rows(&session.devices, model, &part, 8192, &mut |done| meter.reach(before + done))?);
            part.iter().flatten().for_each(|&id| occurs[id as usize] = true);
        }
        meter.finish();
        let tokens = (0..).zip(occurs).filter_map(|(id, occurs)| occurs.then_some(id)).collect();
        Ok(Self { scores, tokens })
    }
}

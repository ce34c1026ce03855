//! Steps that several recipes begin with: tokenizer, data, model, each checked before anything long is started.

mod reading;
mod room;
mod rows;
mod stream;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use burn::tensor::{Device, FloatDType};
use serde_json::Value;
use setpoint_align::{Preferences, Role};
use setpoint_data::{
    EncodeOptions, EncoderOptions, Example, Label, LostText, PrintedDate, Record, Response, TemplateChoice,
    TemplateDate, TextEncoder, printed_date,
};
pub use setpoint_files::read_text;
use setpoint_transformer::{CausalLm, LoadOptions, ModelConfig};

pub use self::reading::{Reading, note_response_end};
pub use self::room::{check_room, check_room_of, within};
pub use self::rows::{
    Encoded, each_example, encoded, examples, folder_of_rows, looking_at, note_left_out, note_turns, prompts, seen,
    sequences, stored, text_prompts_become_turns,
};
use crate::config::sections::{Dtype, ModelSection};
use crate::failure::{Failure, Outcome};
pub use crate::files::{SequencesHash, sequences_hash, text_hash, token_hash, write_text};
use crate::model_folder;
pub use crate::model_folder::{ModelFolder, model_hash};
use crate::session::{FreeMemory, Session, memory};

/// The tokenizer and template of a model.
pub fn encoder(model: &ModelSection) -> Outcome<TextEncoder> {
    let dir = model.tokenizer_dir().ok_or_else(|| Failure::usage("model.path", "no model"))?;
    let encoder = TextEncoder::from_dir(&dir, &encoder_options(model)?)?;
    static SAID: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let is_new = SAID.lock().is_ok_and(|mut said| said.insert(dir.clone()));
    if let Some(dropout) = encoder.dropout().filter(|_| is_new) {
        log::warn!(
            "the BPE dropout of {} ({dropout}) is switched off: with it, a text has other tokens each time",
            dir.join("tokenizer.json").display()
        );
    }
    if let Some(PrintedDate { date, is_fixed: false }) = encoder.printed_date()
        && is_new
    {
        log::info!(
            "the chat template of {} prints the date: today's, {date}. To use the same prompts on other days, set \
             model.template_date={date}",
            dir.display()
        );
    }
    Ok(encoder)
}

fn encoder_options(model: &ModelSection) -> Outcome<EncoderOptions> {
    let template_kwargs = match serde_json::to_value(plain(toml::Value::Table(model.template_kwargs.clone())))? {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    Ok(EncoderOptions {
        template: model.template.as_deref().map_or(TemplateChoice::Own, TemplateChoice::parse),
        template_kwargs,
        template_date: model.template_date,
        model_dir: model.path.as_deref().map(|path| model_folder::holding(path, "generation_config.json")),
        ..EncoderOptions::default()
    })
}

/// A value of TOML without dates, which JSON writes as text.
fn plain(value: toml::Value) -> toml::Value {
    match value {
        toml::Value::Datetime(date) => toml::Value::String(date.to_string()),
        toml::Value::Array(items) => toml::Value::Array(items.into_iter().map(plain).collect()),
        toml::Value::Table(fields) => toml::Value::Table(fields.into_iter().map(|(k, v)| (k, plain(v))).collect()),
        other => other,
    }
}

/// Fixes the date that the chat template of a run prints, if it prints one: a run that is resumed keeps the date of its first
/// day. It becomes a setting, which `config.toml` in the run's folder holds.
pub(crate) fn fix_template_date(model: &mut ModelSection, folder: &Path, resume: bool) -> Outcome {
    if resume && model.template_date.is_none() {
        model.template_date = date_of_run(folder);
    }
    let (None, Some(dir)) = (model.template_date, model.tokenizer_dir()) else { return Ok(()) };
    if !dir.join("tokenizer.json").is_file() {
        return Ok(());
    }
    if let Some(date) = printed_date(&dir, &encoder_options(model)?)? {
        if !date.is_fixed {
            log::info!(
                "the chat template of {} prints the date: this run keeps today's, {} (model.template_date)",
                dir.display(),
                date.date
            );
        }
        model.template_date = Some(date.date);
    }
    Ok(())
}

/// The template's date in the settings of a run; `None` where there are none that can be read.
fn date_of_run(folder: &Path) -> Option<TemplateDate> {
    let settings: toml::Table = read_text(&folder.join("config.toml")).ok()?.parse().ok()?;
    settings.get("model")?.get("template_date")?.as_str()?.parse().ok()
}

/// The shape of the model, and that it fits the tokenizer.
pub fn model_config(model: &ModelSection, encoder: &TextEncoder) -> Outcome<ModelConfig> {
    let config = match (&model.path, &model.from_scratch) {
        (Some(dir), _) => ModelFolder::open(dir)?.config()?,
        (None, Some(file)) => match ModelConfig::from_file(file) {
            // The sizes of a new model are a setting like any other.
            Err(e @ setpoint_transformer::Error::Inconsistent { .. }) => {
                return Err(Failure::usage("model.from_scratch", e.to_string()));
            }
            config => config?,
        },
        (None, None) => return Err(Failure::usage("model.path", "no model")),
    };
    encoder.check_vocabulary(config.vocab_size).map_err(|e| {
        Failure::from(e).hint("use the tokenizer that the model was trained with (setting model.tokenizer)")
    })?;
    Ok(config)
}

/// The tokens of a record's prompt, the header of the answer included; its own tools and template arguments are used.
pub fn prompt_ids(encoder: &TextEncoder, record: &Record) -> Outcome<Vec<u32>> {
    encoder.encode_prompt_of(record).map_err(|problem| match record.source.is_file() {
        true => Failure::from(setpoint_data::Error::Encode { at: record.source.clone(), problem: Box::new(problem) }),
        // A message or prompt that was typed has no place.
        false => Failure::of(&problem),
    })
}

/// The text of sampled tokens. It is decoded behind its prompt: some tokenizers drop a leading space at the beginning of a text.
pub(crate) fn answer_text(encoder: &TextEncoder, prompt: &[u32], answer: &[u32]) -> Outcome<String> {
    let before = encoder.decode_visible(prompt)?;
    let whole = encoder.decode_visible(&[prompt, answer].concat())?;
    match whole.strip_prefix(&before) {
        Some(text) => Ok(text.to_owned()),
        // A character that straddles the boundary changes the prompt's text.
        None => Ok(encoder.decode_visible(answer)?),
    }
}

/// Prompt and answer as a reward model with this tokenizer reads them.
pub(crate) fn answer_ids(
    encoder: &TextEncoder,
    record: &Record,
    answer: &str,
    reading: &Reading,
) -> Outcome<(Vec<u32>, Vec<u32>)> {
    answer_tokens(encoder, record, answer, &reading.options(), &|stop| reading.complete(encoder, stop))
}

/// Prompt and answer as a source of rewards with this tokenizer reads them. `complete` adds what follows the stop token of an answer without
/// any text.
pub(crate) fn answer_tokens(
    encoder: &TextEncoder,
    record: &Record,
    answer: &str,
    options: &EncodeOptions,
    complete: &dyn Fn(&mut Vec<u32>),
) -> Outcome<(Vec<u32>, Vec<u32>)> {
    if answer.is_empty() {
        // An answer that ended at once is its stop token.
        let mut stop = encoder.stop_ids().first().copied().into_iter().collect();
        complete(&mut stop);
        return Ok((prompt_ids(encoder, record)?, stop));
    }
    let mut record = record.clone();
    record.responses = vec![Response::new(answer)];
    // A reward model's template may be meant to leave out a policy's thoughts.
    let options = EncodeOptions { lost_text: LostText::Count, ..options.clone() };
    let encoded = encoder.encode(record.source.row, &record, &options)?;
    match encoded.outcome {
        Ok(mut example) => Ok((example.prompt, example.responses.swap_remove(0).ids)),
        Err(reason) => {
            Err(Failure::run(format!("{}: a sampled answer cannot be tokenised: {reason:?}", record.source)))
        }
    }
}

/// Loads a policy, or makes one with random weights.
pub fn policy(
    session: &Session,
    model: &ModelSection,
    config: &ModelConfig,
    seed: u64,
    device: &Device,
) -> Outcome<CausalLm> {
    if model.path.is_none() {
        let what = format!("model.from_scratch with {} parameters", config.num_parameters());
        let remedy = "make hidden_size, intermediate_size, num_hidden_layers or vocab_size smaller";
        memory::require(4 * u128::from(config.num_parameters()), &what, remedy)?;
    }
    session.host.free_memory(FreeMemory::GiveBack);
    let policy = match &model.path {
        Some(dir) => ModelFolder::open(dir)?.load_policy(&load_options(model, session), device)?,
        None => CausalLm::init(config, seed, device),
    };
    session.host.free_memory(FreeMemory::Keep);
    Ok(policy)
}

/// Returns the format that weights are loaded in.
pub(crate) fn load_options(model: &ModelSection, session: &Session) -> LoadOptions {
    let dtype = match model.dtype {
        Dtype::F32 => Some(FloatDType::F32),
        Dtype::Bf16 => Some(FloatDType::BF16),
        Dtype::F16 => Some(FloatDType::F16),
        Dtype::Auto if session.place.keeps_half_precision() => None,
        Dtype::Auto => Some(FloatDType::F32),
    };
    LoadOptions { dtype, quantize: model.quantized(), allow_pickle: model.allow_pickle, ..LoadOptions::default() }
}

/// Returns the chosen and the rejected response of an example ([`Preferences::pair`]).
pub fn pair(example: &Example) -> Option<(usize, usize)> {
    let rewards: Option<Vec<f64>> = example.responses.iter().map(|response| response.reward).collect();
    Preferences::new(&labels(example), rewards.as_deref()).pair()
}

/// Returns the label of each response of an example, as its role.
pub fn labels(example: &Example) -> Vec<Option<Role>> {
    example.responses.iter().map(|response| response.label.map(role)).collect()
}

/// Returns the role that a label gives a response.
fn role(label: Label) -> Role {
    match label {
        Label::Chosen | Label::Desirable => Role::Chosen,
        Label::Rejected | Label::Undesirable => Role::Rejected,
    }
}

/// SimPO's lengths, which the paper's experiments use.
pub fn training_lengths() -> EncodeOptions {
    EncodeOptions { max_length: Some(2048), max_prompt_length: Some(1800), ..EncodeOptions::default() }
}

//! Steps that several recipes begin with: tokenizer, data, model, each checked before anything long is started.

mod room;
mod rows;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use burn::tensor::{Device, FloatDType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use setpoint_align::{PromptRewards, Role};
use setpoint_data::{
    EncodeOptions, EncoderOptions, Example, Label, LostText, PrintedDate, Record, Response, TemplateChoice,
    TemplateDate, TextEncoder, printed_date, write_atomically,
};
use setpoint_train::{DeviceGroup, Sequence};
use setpoint_transformer::{CausalLm, LoadOptions, ModelConfig};
use sha2::{Digest, Sha256};

pub use self::room::{check_room, check_room_of, within};
pub use self::rows::{
    Encoded, encoded, examples, looking_at, note_left_out, note_turns, prompts, seen, text_prompts_become_turns,
};
use super::Shared;
use super::partial::Existing;
use super::place::Place;
use super::reading::Reading;
use crate::config::sections::{Dtype, ModelSection};
use crate::device::keeps_half_precision;
use crate::failure::{Failure, Outcome};
use crate::{memory, progress};

/// How a command runs: where, and how loud.
#[derive(Debug, Clone)]
pub struct Session {
    /// Those that train and score; what else there is to compute is on the first.
    pub devices: DeviceGroup,
    /// No progress bars.
    pub quiet: bool,
    /// The devices as a plan sees them: these, unless others are planned for.
    pub place: Place,
    /// What is done about an output that exists.
    pub existing: Existing,
    /// Values that other processes compute as well: those of the other trials of a search.
    pub shared: Option<Shared>,
}

impl Session {
    /// A session on one device or several.
    pub fn new(devices: DeviceGroup, quiet: bool) -> Self {
        let place = Place::of(&devices, None);
        Self { devices, quiet, place, existing: Existing::default(), shared: None }
    }

    /// The first device, without autodiff.
    pub fn device(&self) -> &Device {
        self.devices.first()
    }

    /// Fails where several devices are named for a command that computes on one.
    pub fn require_one_device(&self, command: &str) -> Outcome {
        match self.devices.len() {
            1 => Ok(()),
            count => Err(Failure::usage(
                "--device",
                format!("`setpoint {command}` computes on one device, and {count} are named"),
            )),
        }
    }

    /// The value of a key: from the shared ones where there are such, else computed.
    pub fn once<V: Serialize + DeserializeOwned>(
        &self,
        what: &str,
        key: impl FnOnce() -> Outcome<Value>,
        compute: impl FnOnce() -> Outcome<V>,
    ) -> Outcome<V> {
        match &self.shared {
            Some(shared) => shared.once(what, &key()?, compute),
            None => compute(),
        }
    }
}

/// The tokenizer and template of a model.
pub fn encoder(model: &ModelSection) -> Outcome<TextEncoder> {
    let dir = model.tokenizer_dir().ok_or_else(|| Failure::usage("model.path", "no model"))?;
    let encoder = TextEncoder::from_dir(dir, &encoder_options(model)?)?;
    static SAID: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if let Some(PrintedDate { date, is_fixed: false }) = encoder.printed_date()
        && SAID.lock().is_ok_and(|mut said| said.insert(dir.clone()))
    {
        progress::note(format!(
            "the chat template of {} prints the date: today's, {date}. To use the same prompts on other days, set \
             model.template_date={date}",
            dir.display()
        ));
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
        model_dir: model.path.clone(),
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
pub fn fix_template_date(model: &mut ModelSection, folder: &Path, resume: bool) -> Outcome {
    if resume && model.template_date.is_none() {
        model.template_date = date_of_run(folder);
    }
    let (None, Some(dir)) = (model.template_date, model.tokenizer_dir()) else { return Ok(()) };
    if !dir.join("tokenizer.json").is_file() {
        return Ok(());
    }
    if let Some(date) = printed_date(dir, &encoder_options(model)?)? {
        if !date.is_fixed {
            progress::note(format!(
                "the chat template of {} prints the date: this run keeps today's, {} (model.template_date)",
                dir.display(),
                date.date
            ));
        }
        model.template_date = Some(date.date);
    }
    Ok(())
}

/// The template's date in the settings of a run; `None` where there are none that can be read.
fn date_of_run(folder: &Path) -> Option<TemplateDate> {
    let settings: toml::Table = std::fs::read_to_string(folder.join("config.toml")).ok()?.parse().ok()?;
    settings.get("model")?.get("template_date")?.as_str()?.parse().ok()
}

/// The shape of the model, and that it fits the tokenizer.
pub fn model_config(model: &ModelSection, encoder: &TextEncoder) -> Outcome<ModelConfig> {
    let config = match (&model.path, &model.from_scratch) {
        (Some(dir), _) => ModelConfig::from_file(&dir.join("config.json"))?,
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
    encoder.encode_prompt_of(record).map_err(|problem| {
        Failure::from(setpoint_data::Error::Encode { at: record.source.clone(), problem: Box::new(problem) })
    })
}

/// The text of sampled tokens. It is decoded behind its prompt: some tokenizers drop a leading space at the beginning of a text.
pub fn answer_text(encoder: &TextEncoder, prompt: &[u32], answer: &[u32]) -> Outcome<String> {
    let before = encoder.decode_visible(prompt)?;
    let whole = encoder.decode_visible(&[prompt, answer].concat())?;
    match whole.strip_prefix(&before) {
        Some(text) => Ok(text.to_owned()),
        // A character that straddles the boundary changes the prompt's text.
        None => Ok(encoder.decode_visible(answer)?),
    }
}

/// Prompt and answer as a reward model with this tokenizer reads them.
pub fn answer_ids(
    encoder: &TextEncoder,
    record: &Record,
    answer: &str,
    reading: &Reading,
) -> Outcome<(Vec<u32>, Vec<u32>)> {
    if answer.is_empty() {
        // An answer that ended at once is its stop token.
        let mut stop = encoder.stop_ids().first().copied().into_iter().collect();
        reading.complete(encoder, &mut stop);
        return Ok((prompt_ids(encoder, record)?, stop));
    }
    let mut record = record.clone();
    record.responses = vec![Response::new(answer)];
    // A reward model's template may be meant to leave out a policy's thoughts.
    let options = EncodeOptions { lost_text: LostText::Count, ..reading.options() };
    let encoded = encoder.encode(record.source.row, &record, &options)?;
    match encoded.outcome {
        Ok(mut example) => Ok((example.prompt, example.responses.swap_remove(0).ids)),
        Err(reason) => {
            Err(Failure::run(format!("{}: a sampled answer cannot be tokenised: {reason:?}", record.source)))
        }
    }
}

/// Loads a policy, or makes one with random weights.
pub fn policy(model: &ModelSection, config: &ModelConfig, seed: u64, device: &Device) -> Outcome<CausalLm> {
    if model.path.is_none() {
        let what = format!("model.from_scratch with {} parameters", config.num_parameters());
        let remedy = "make hidden_size, intermediate_size, num_hidden_layers or vocab_size smaller";
        memory::require(4 * u128::from(config.num_parameters()), &what, remedy)?;
    }
    memory::give_pages_back();
    let policy = match &model.path {
        Some(dir) => CausalLm::load(dir, &load_options(model.dtype, device), device)?.0,
        None => CausalLm::init(config, seed, device),
    };
    memory::keep_pages();
    Ok(policy)
}

/// The dtype that weights are loaded in.
pub fn load_options(dtype: Dtype, device: &Device) -> LoadOptions {
    let dtype = match dtype {
        Dtype::F32 => Some(FloatDType::F32),
        Dtype::Bf16 => Some(FloatDType::BF16),
        Dtype::F16 => Some(FloatDType::F16),
        Dtype::Auto if keeps_half_precision(device) => None,
        Dtype::Auto => Some(FloatDType::F32),
    };
    LoadOptions { dtype, ..LoadOptions::default() }
}

/// A hash of everything that decides what a model computes: config.json and the bytes of its weights.
pub fn model_hash(dir: &Path) -> Outcome<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .map_err(|e| Failure::run(format!("cannot list {}: {e}", dir.display())))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "safetensors") || p.ends_with("config.json"))
        .collect();
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        hash.update(name.as_bytes());
        let mut reader =
            std::fs::File::open(&file).map_err(|e| Failure::run(format!("cannot read {}: {e}", file.display())))?;
        std::io::copy(&mut reader, &mut HashWriter(&mut hash))
            .map_err(|e| Failure::run(format!("cannot read {}: {e}", file.display())))?;
    }
    Ok(hex(&hash.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The reference model's folder: the policy as it is before training, unless another is named.
pub fn reference_path<'a>(reference: Option<&'a Path>, model: &'a ModelSection) -> Outcome<&'a Path> {
    reference.or(model.path.as_deref()).ok_or_else(|| Failure::usage("model.path", "no model"))
}

/// The chosen and rejected response of an example: the labelled ones, else the best and the worst reward.
pub fn pair(example: &Example) -> Option<(usize, usize)> {
    let rewards: Vec<f64> = example.responses.iter().filter_map(|r| r.reward).collect();
    let roles: Vec<Option<Role>> = example.responses.iter().map(|r| r.label.map(role)).collect();
    if rewards.len() == roles.len() {
        return PromptRewards::new(example.row, rewards).with_labels(roles).pair();
    }
    let side = |role| roles.iter().position(|r| *r == Some(role));
    side(Role::Chosen).zip(side(Role::Rejected))
}

/// The side of a comparison that a label puts a response on.
pub fn role(label: Label) -> Role {
    match label {
        Label::Chosen | Label::Desirable => Role::Chosen,
        Label::Rejected | Label::Undesirable => Role::Rejected,
    }
}

/// Identifies a run of tokens among others.
pub fn token_hash(ids: &[u32]) -> u64 {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let digest = Sha256::digest(&bytes);
    u64::from_le_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
}

/// Identifies sequences: their tokens, and what of them is scored.
pub fn sequences_hash<'a>(sequences: impl IntoIterator<Item = &'a Sequence>) -> String {
    let mut hash = Sha256::new();
    for sequence in sequences {
        for number in [sequence.ids.len(), sequence.prompt_len, sequence.scored_from] {
            hash.update((number as u64).to_le_bytes());
        }
        sequence.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    }
    hex(&hash.finalize())
}

/// A short hash of a text, for fingerprints.
pub fn text_hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes a text file, replacing an older one only when the new one is whole.
pub fn write_text(path: &Path, text: &str) -> Outcome {
    Ok(write_atomically(path, |out| {
        out.write_all(text.as_bytes()).map_err(|source| setpoint_data::Error::Io {
            action: "write",
            path: path.to_owned(),
            source,
        })
    })?)
}

/// SimPO's lengths, which the paper's experiments use.
pub fn training_lengths() -> EncodeOptions {
    EncodeOptions { max_length: Some(2048), max_prompt_length: Some(1800), ..EncodeOptions::default() }
}

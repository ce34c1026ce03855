//! Steps that several recipes begin with: tokenizer, data, model, each checked before anything long is started.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use burn::tensor::{Device, FloatDType};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use setpoint_align::{PromptRewards, Role};
use setpoint_data::{
    BadRows, DatasetConfig, EncodeOptions, EncodeReport, EncoderOptions, Example, Label, LostText, PrintedDate, Prompt,
    ReadReport, Record, Response, Responses, TemplateChoice, TemplateDate, TextEncoder, TextPrompts, Uses,
    load_records, printed_date, select_responses, text_prompts_as_turns, write_atomically,
};
use setpoint_train::{DeviceGroup, Sequence};
use setpoint_transformer::{CausalLm, GenerationConfig, LoadOptions, ModelConfig};
use sha2::{Digest, Sha256};

use super::Shared;
use super::partial::Existing;
use super::place::Place;
use super::reading::Reading;
use crate::config::sections::{Dtype, ModelSection};
use crate::device::Kind;
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

/// A data set as tokens, with what was read and what was left out.
#[derive(Debug)]
pub struct Encoded {
    /// The rows that are left.
    pub examples: Vec<Example>,
    /// Counts of everything dropped, cut or merged.
    pub report: EncodeReport,
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

/// How rows become tokens for a model of this shape: none is longer than it has positions.
pub fn within(encode: &EncodeOptions, model: &ModelConfig) -> EncodeOptions {
    EncodeOptions { positions: Some(model.max_position_embeddings), ..encode.clone() }
}

/// That the model has room for an answer to every prompt. Says how many are left less than `generate.max_new_tokens`, where that is set.
pub fn check_room(
    records: &[Record],
    prompts: &[Vec<u32>],
    settings: &GenerationConfig,
    wanted: Option<usize>,
    model: &ModelConfig,
) -> Outcome {
    check_room_of(prompts, &|row| records[row].source.to_string(), settings, wanted, model)
}

/// The same for prompts that are not rows of a data set: `name` tells where one comes from.
pub fn check_room_of(
    prompts: &[Vec<u32>],
    name: &dyn Fn(usize) -> String,
    settings: &GenerationConfig,
    wanted: Option<usize>,
    model: &ModelConfig,
) -> Outcome {
    let positions = model.max_position_embeddings;
    let mut short: Option<(usize, usize)> = None;
    for (row, prompt) in prompts.iter().enumerate() {
        let room = settings.room(prompt.len(), positions);
        if room == 0 {
            let (most, what) = match settings.max_length {
                Some(most) if most < positions => (most, "max_length of generation_config.json"),
                _ => (positions, "max_position_embeddings of config.json"),
            };
            return Err(Failure::run(format!(
                "{}: the prompt has {} tokens, which leaves no room for an answer: prompt and answer have at most {most} ({what})",
                name(row),
                prompt.len()
            ))
            .hint("shorten the prompt, leave the row out, or use a model with a longer context"));
        }
        if wanted.is_some_and(|wanted| room < wanted) {
            short = Some(short.map_or((1, row), |(count, first)| (count + 1, first)));
        }
    }
    if let (Some((count, first)), Some(wanted)) = (short, wanted) {
        progress::note(format!(
            "warning: {count} of {} prompts leave room for fewer than the {wanted} tokens of generate.max_new_tokens: the model reads \
             {positions} tokens (max_position_embeddings); the first: {}",
            prompts.len(),
            name(first)
        ));
    }
    Ok(())
}

/// A data set as a job reads it that looks at these optional columns.
pub fn looking_at(data: &DatasetConfig, uses: Uses) -> DatasetConfig {
    DatasetConfig { uses, ..data.clone() }
}

/// Reads and encodes a data set.
pub fn examples(
    data: &DatasetConfig,
    encode: &EncodeOptions,
    encoder: &TextEncoder,
    what: &str,
    session: &Session,
) -> Outcome<Encoded> {
    let (Encoded { examples, report }, read) = encoded(data, encode, encoder, what, session.quiet)?;
    if examples.is_empty() {
        let mut message = format!("{what}: none of the {} rows of {} is left", read.rows, data.path);
        if let Some(first) = report.examples_of_invalid.first().or(read.examples.first()) {
            message.push_str(&format!("; the first bad one: {first}"));
        }
        return Err(Failure::run(message)
            .hint("`setpoint inspect data` shows the rows as tokens; see encode.max_length and encode.long_rows"));
    }
    if let Some(unanswered) = examples.iter().find(|e| e.responses.is_empty()) {
        return Err(Failure::run(format!("{what}: {} is a prompt without a response", unanswered.source))
            .hint("`setpoint generate` writes responses for prompts"));
    }
    let text = report.to_string();
    if !session.quiet {
        progress::note(format!("{what}: {text}"));
    } else if report.kept < report.rows || report.cut > 0 {
        // Rows that do not take part are no progress, which is all that may be left out.
        progress::note(format!("{what}: {}", text.lines().next().unwrap_or_default()));
    }
    Ok(Encoded { examples, report })
}

/// A data set as tokens, as every job sees it, and the number of rows that were read. Of its responses those are kept that
/// `data.responses` says; prompts of plain text become turns as the settings say.
pub fn encoded(
    data: &DatasetConfig,
    encode: &EncodeOptions,
    encoder: &TextEncoder,
    what: &str,
    quiet: bool,
) -> Outcome<(Encoded, ReadReport)> {
    let (mut records, read) = load_records(data)?;
    note_left_out(what, &read);
    select(&mut records, data, what)?;
    if text_prompts_become_turns(&mut records, data, encoder) && !quiet {
        note_turns(what);
    }
    note_appended_stop(&records, encoder);
    let (examples, report) = encoder.encode_all(&records, &encoding(data, encode))?;
    Ok((Encoded { examples, report }, read))
}

/// Says once that answers end with a token which the chat template does not print.
fn note_appended_stop(records: &[Record], encoder: &TextEncoder) {
    static SAID: Mutex<bool> = Mutex::new(false);
    let templated = |record: &Record| matches!(record.prompt, Prompt::Messages(_)) && !record.responses.is_empty();
    if let Some(token) = encoder.appended_stop().and_then(|id| encoder.decode(&[id]).ok())
        && records.iter().any(templated)
        && SAID.lock().is_ok_and(|mut said| !std::mem::replace(&mut *said, true))
    {
        progress::note(format!(
            "the chat template prints nothing after an answer: answers end with `{token}`, the tokenizer's EOS"
        ));
    }
}

/// Keeps the responses that `data.responses` says, and says how many rows have none.
pub fn select(records: &mut Vec<Record>, data: &DatasetConfig, what: &str) -> Outcome {
    let Some(rule) = data.responses else { return Ok(()) };
    let rows = records.len();
    let mut kept = Vec::with_capacity(rows);
    let (mut bad, mut first) = (0, None);
    for mut record in records.drain(..) {
        match select_responses(&mut record, rule) {
            Ok(true) => kept.push(record),
            Ok(false) => {}
            Err(problem) => {
                let error = setpoint_data::Error::Row { at: record.source.clone(), problem };
                if data.on_bad_row == BadRows::Error {
                    return Err(error.into());
                }
                bad += 1;
                first.get_or_insert_with(|| error.to_string());
            }
        }
    }
    if let Some(first) = first {
        progress::note(format!("{what}: {bad} of {rows} rows are bad and left out; the first: {first}"));
    }
    let none = rows - bad - kept.len();
    if let (Responses::Above(least), true) = (rule, none > 0) {
        progress::note(format!(
            "{what}: {none} of {rows} rows have no response with a reward above {least} and are left out"
        ));
    }
    let bad = |record: &&Record| {
        record.responses.iter().any(|r| matches!(r.label, Some(Label::Rejected | Label::Undesirable)))
    };
    let first = kept.iter().find(bad).filter(|_| rule == Responses::Auto);
    if let Some(first) = first {
        progress::note(format!(
            "warning: {what}: {} of {rows} rows have one response alone and it is labelled as bad, but is trained; the first: {}. \
             data.responses = \"chosen\" with data.on_bad_row = \"drop\" leaves them out",
            kept.iter().filter(bad).count(),
            first.source
        ));
    }
    *records = kept;
    Ok(())
}

/// Makes user turns of prompts of plain text where the settings leave it to the model and it has a chat template; whether there were any.
pub fn text_prompts_become_turns(records: &mut [Record], data: &DatasetConfig, encoder: &TextEncoder) -> bool {
    data.text_prompts == TextPrompts::Auto && encoder.template().is_some() && text_prompts_as_turns(records, data) > 0
}

/// Records as a model with this tokenizer and template sees them, and the tokens of their prompts.
pub fn prompts(
    records: &[Record],
    data: &DatasetConfig,
    encoder: &TextEncoder,
    what: &str,
    session: &Session,
) -> Outcome<(Vec<Record>, Vec<Vec<u32>>)> {
    let mut seen = records.to_vec();
    if text_prompts_become_turns(&mut seen, data, encoder) && !session.quiet {
        note_turns(what);
    }
    let ids = seen.iter().map(|record| prompt_ids(encoder, record)).collect::<Outcome<_>>()?;
    Ok((seen, ids))
}

/// Records as a model with this tokenizer and template sees them.
pub fn seen(records: &[Record], data: &DatasetConfig, encoder: &TextEncoder) -> Vec<Record> {
    let mut records = records.to_vec();
    text_prompts_become_turns(&mut records, data, encoder);
    records
}

/// Says that prompts of plain text become user turns.
pub fn note_turns(what: &str) {
    progress::note(format!(
        "{what}: prompts of plain text become user turns of the chat template (data.text_prompts = \"plain\" keeps them plain)"
    ));
}

/// How a data set's rows become tokens: a row that cannot be encoded is as bad as one that cannot be read.
pub fn encoding(data: &DatasetConfig, encode: &EncodeOptions) -> EncodeOptions {
    let on_bad_row = if data.on_bad_row == BadRows::Drop { BadRows::Drop } else { encode.on_bad_row };
    EncodeOptions { on_bad_row, ..encode.clone() }
}

/// Says which rows were bad when they were read.
pub fn note_left_out(what: &str, read: &ReadReport) {
    if let Some(first) = read.examples.first() {
        progress::note(format!(
            "{what}: {} of {} rows are bad and left out; the first: {first}",
            read.dropped, read.rows
        ));
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
        Dtype::Auto if Kind::of(device).keeps_half_precision() => None,
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

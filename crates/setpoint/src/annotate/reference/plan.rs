//! The samples to draw from the reference model, and the note on them.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value, json};
use setpoint_data::{Record, TextEncoder, counted};
use setpoint_transformer::{GenerationConfig, ModelConfig};

use super::super::{AnnotateConfig, Needs};
use super::settings::{SAMPLES, enough};
use crate::failure::{Failure, Outcome};
use crate::reference_samples::{MODEL, RESPONSES, REWARDS, SETTINGS, column, model_note};
use crate::session::{Session, memory};
use crate::setup;

/// New tokens of a sample at most, unless the settings say otherwise: as in A*-PO's program.
const MAX_NEW_TOKENS: usize = 1024;

/// Tokens that a reward model reads after a sample at most: the stop token, and what a template prints after it.
const END: usize = 8;

/// The samples that are to be drawn.
pub struct Plan {
    /// The folder of the reference model, for messages.
    pub model: String,
    /// An identifier of the reference model.
    pub model_hash: String,
    /// Its tokenizer and template.
    pub encoder: TextEncoder,
    /// Its shape.
    pub model_config: ModelConfig,
    /// The settings of its sampling.
    pub settings: GenerationConfig,
    /// The number of samples for each prompt.
    pub samples: usize,
    /// The distinct prompts as tokens.
    pub prompts: Vec<Vec<u32>>,
    /// A row of each, as the model's template sees it.
    pub records: Vec<Record>,
    /// Of each row: which of the prompts it has; `None` for a row that keeps the samples it has.
    pub of_row: Vec<Option<usize>>,
    /// The note in the rows on the way in which the samples are made.
    pub note: Value,
}

impl Plan {
    /// Plans the samples of rows; `None` if the settings ask for none.
    ///
    /// # Errors
    /// When the model's files cannot be read, when a row has no response, or a prompt leaves no room for one.
    pub fn new(session: &Session, config: &AnnotateConfig, needs: &Needs, records: &[Record]) -> Outcome<Option<Self>> {
        let (Some(samples), Some(dir)) = (config.reference.samples(), config.reference.model.path.as_deref()) else {
            return Ok(None);
        };
        enough(samples).map_err(|message| Failure::usage(SAMPLES, message))?;
        if let Some(record) = records.iter().find(|record| record.responses.is_empty()) {
            return Err(Failure::run(format!("{} is a prompt without a response", record.source))
                .hint("`setpoint generate` writes responses for prompts"));
        }
        let encoder = setup::encoder(&config.reference.model)?;
        let model_config = setup::model_config(&config.reference.model, &encoder)?;
        let reader = reader(config)?;
        let settings = settings(config, &model_config, &encoder, reader);
        settings.validate()?;
        let model_hash = setup::model_hash(dir)?;
        let note = note(config, needs, &model_hash, &encoder, samples, &settings)?;
        let is_kept = kept(records, &note, samples, session.quiet);
        let (seen, ids) = setup::prompts(records, &config.data, &encoder, "reference samples", session)?;
        check_reader(records, &ids, &settings, reader)?;
        setup::check_room(records, &ids, &settings, None, &model_config)?;
        let mut places: HashMap<&[u32], usize> = HashMap::new();
        let (mut prompts, mut firsts) = (Vec::new(), Vec::new());
        let mut of_row = Vec::with_capacity(records.len());
        for ((ids, record), is_kept) in ids.iter().zip(&seen).zip(is_kept) {
            of_row.push((!is_kept).then(|| {
                *places.entry(ids).or_insert_with(|| {
                    prompts.push(ids.clone());
                    firsts.push(record.clone());
                    prompts.len() - 1
                })
            }));
        }
        let model = dir.display().to_string();
        let records = firsts;
        let plan = Self { model, model_hash, encoder, model_config, settings, samples, prompts, records, of_row, note };
        plan.check_memory()?;
        Ok(Some(plan))
    }

    /// Returns the random streams of a prompt's samples: they follow from its tokens alone, so that other rows change nothing.
    pub fn streams(&self, prompt: usize) -> impl Iterator<Item = u64> {
        let first = setup::token_hash(&self.prompts[prompt]);
        (0..self.samples as u64).map(move |sample| first.wrapping_add(sample))
    }

    /// Says what is drawn, and how many tokens that is at most.
    pub fn cost(&self) -> String {
        let positions = self.model_config.max_position_embeddings;
        let room = |prompt: &Vec<u32>| self.settings.room(prompt.len(), positions) as u128;
        let most = self.samples as u128 * self.prompts.iter().map(room).sum::<u128>();
        format!(
            "{} for each of {} from {}: {} in all, at most {} each and {most} together",
            counted(self.samples, "reference sample"),
            counted(self.prompts.len(), "distinct prompt"),
            self.model,
            self.samples * self.prompts.len(),
            counted(self.settings.max_new_tokens, "token"),
        )
    }

    fn check_memory(&self) -> Outcome {
        // The text and the tokens of a sample, and what is kept with them.
        const SAMPLE: u128 = 512;
        const TOKENS: usize = 256;
        let each = SAMPLE + 8 * self.settings.max_new_tokens.min(TOKENS) as u128;
        let sample = |prompt: &Vec<u32>| self.samples as u128 * (each + 4 * prompt.len() as u128);
        let what = format!(
            "{} with {} each",
            counted(self.prompts.len(), "prompt"),
            counted(self.samples, "reference sample")
        );
        let remedy = "lower reference.generate.samples or data.max_rows";
        memory::require(self.prompts.iter().map(sample).sum(), &what, remedy)
    }
}

/// Returns how many tokens the reward model reads, if one gives the rewards.
fn reader(config: &AnnotateConfig) -> Outcome<Option<usize>> {
    if config.model.path.is_none() {
        return Ok(None);
    }
    let encoder = setup::encoder(&config.model)?;
    Ok(Some(setup::model_config(&config.model, &encoder)?.max_position_embeddings))
}

/// Fails if the reward model has no room for an answer to a prompt.
fn check_reader(
    records: &[Record],
    prompts: &[Vec<u32>],
    settings: &GenerationConfig,
    reader: Option<usize>,
) -> Outcome {
    let (Some(positions), Some(most)) = (reader, settings.max_length) else { return Ok(()) };
    match prompts.iter().position(|prompt| prompt.len() >= most) {
        Some(row) => Err(Failure::run(format!(
            "{}: the prompt has {} tokens, which leaves no room for a sample: the reward model reads {positions}",
            records[row].source,
            prompts[row].len()
        ))
        .hint("shorten the prompt, leave the row out, or use a reward model with a longer context")),
        None => Ok(()),
    }
}

/// Returns how the reference is sampled: from its own distribution, whatever its generation_config.json says, up to its stop tokens.
/// `reader`: the tokens that the reward model reads.
fn settings(
    config: &AnnotateConfig,
    model: &ModelConfig,
    encoder: &TextEncoder,
    reader: Option<usize>,
) -> GenerationConfig {
    let own = &config.reference.generate;
    let default = GenerationConfig::default();
    let mut stop_token_ids = encoder.stop_ids().to_vec();
    if stop_token_ids.is_empty() {
        stop_token_ids.clone_from(&model.eos_token_ids);
    }
    GenerationConfig {
        do_sample: true,
        max_new_tokens: own.max_new_tokens.unwrap_or(MAX_NEW_TOKENS),
        batch_size: own.batch_size.unwrap_or(default.batch_size),
        max_length: reader.map(|positions| positions.saturating_sub(END)),
        stop_token_ids,
        ..default
    }
}

/// Returns how the samples are made and scored.
fn note(
    config: &AnnotateConfig,
    needs: &Needs,
    model_hash: &str,
    encoder: &TextEncoder,
    samples: usize,
    settings: &GenerationConfig,
) -> Outcome<Value> {
    let short = |text: &str| setup::text_hash(text)[..16].to_owned();
    let mut source = needs.source_settings(config)?;
    source.push_str(&format!("{:?} {} {:?}", needs.inputs, config.normalize, needs.reading.as_ref().map(|r| r.end)));
    if config.model.tokenizer_dir().is_some() {
        source.push_str(&setup::encoder(&config.model)?.fingerprint());
    }
    let mut note = json!({
        MODEL: model_note(model_hash),
        "template": short(&encoder.fingerprint()),
        "samples": samples,
        "max_new_tokens": settings.max_new_tokens,
        "seed": config.reference.generate.seed,
        "rewards": short(&source),
    });
    if let Some(quantize) = config.reference.model.quantize {
        note["quantize"] = json!(quantize);
    }
    if let Some(server) = &config.reference.server {
        note["server"] = json!(server.model);
    }
    Ok(note)
}

impl Needs {
    /// Returns the settings of the source that decide the rewards, as a text.
    fn source_settings(&self, config: &AnnotateConfig) -> Outcome<String> {
        let (key, _) = self.free;
        let Some(entry) = config.sources.entries().into_iter().find(|(name, _)| *name == key) else {
            // A reward model is known by its hash, a source of the caller's by its identity.
            return Ok(key.to_owned());
        };
        Ok(format!("{key} {}", self.without_free(entry.1.to_value()?)))
    }

    /// Removes the settings of a source that do not decide the rewards.
    pub fn without_free(&self, mut settings: Value) -> Value {
        if let Some(settings) = settings.as_object_mut() {
            settings.retain(|name, _| !self.free.1.contains(&name.as_str()));
        }
        settings
    }
}

/// Returns which rows keep the samples that they have, and says so.
fn kept(records: &[Record], note: &Value, samples: usize, quiet: bool) -> Vec<bool> {
    let mut differing: BTreeSet<String> = BTreeSet::new();
    let (mut replaced, mut kept) = (0, Vec::with_capacity(records.len()));
    for record in records {
        let found = count(record);
        let is_kept = match (found, column(record, SETTINGS)) {
            (None, _) => false,
            (Some(_), Some(found)) if found == note => true,
            (Some(_), Some(found)) => {
                differing.extend(differences(found, note));
                false
            }
            // Made by hand: all that is known is their number.
            (Some(count), None) if count == samples => true,
            (Some(_), None) => {
                differing.insert("samples".to_owned());
                false
            }
        };
        replaced += usize::from(found.is_some() && !is_kept);
        kept.push(is_kept);
    }
    let count = kept.iter().filter(|&&is_kept| is_kept).count();
    if count > 0 && !quiet {
        log::info!(
            "{count} of {} have reference samples by these settings and keep them",
            counted(records.len(), "row")
        );
    }
    if replaced > 0 {
        let names: Vec<String> = differing.iter().map(|name| format!("`{name}`")).collect();
        log::info!(
            "{replaced} of {} have reference samples by other settings ({}) and get new ones",
            counted(records.len(), "row"),
            names.join(", ")
        );
    }
    kept
}

/// Returns how many samples with rewards a row has; `None` if it has none, or something else in their columns.
fn count(record: &Record) -> Option<usize> {
    let texts = column(record, RESPONSES)?.as_array()?;
    let rewards = column(record, REWARDS)?.as_array()?;
    let are_numbers = rewards.iter().all(|reward| reward.as_f64().is_some_and(f64::is_finite));
    (texts.len() == rewards.len() && are_numbers).then_some(texts.len())
}

/// Returns the entries in which two notes differ.
fn differences(found: &Value, note: &Value) -> Vec<String> {
    let empty = Map::new();
    let (found, note) = (found.as_object().unwrap_or(&empty), note.as_object().unwrap_or(&empty));
    note.keys().filter(|name| found.get(*name) != note.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use setpoint_data::{Prompt, Response};

    use super::*;

    fn row(columns: Value) -> Record {
        let mut record = Record::new(Prompt::Text("p".into()), vec![Response::new("r")]);
        record.extra = columns.as_object().unwrap().clone();
        record
    }

    #[test]
    fn rows_keep_samples_by_the_same_settings_alone() {
        let note = json!({"model": "a", "samples": 2, "seed": 0});
        let other = json!({"model": "a", "samples": 2, "seed": 1});
        let with = |texts: Value, rewards: Value, note: &Value| {
            row(json!({"reference_responses": texts, "reference_rewards": rewards, "reference_settings": note}))
        };
        let rows = [
            with(json!(["x", "y"]), json!([1, 2.5]), &note),
            // A judge that skipped one leaves fewer.
            with(json!(["x"]), json!([1]), &note),
            with(json!(["x", "y"]), json!([1, 2]), &other),
            with(json!(["x", "y"]), json!([1, 2]), &Value::Null),
            with(json!(["x", "y", "z"]), json!([1, 2, 3]), &Value::Null),
            with(json!(["x", "y"]), json!([1, null]), &note),
            with(json!(["x", "y"]), json!([1]), &note),
            row(json!({})),
        ];
        assert_eq!(kept(&rows, &note, 2, true), [true, true, false, true, false, false, false, false]);
        assert_eq!(differences(&other, &note), ["seed"]);
        assert_eq!(differences(&json!("x"), &note).len(), 3);
    }
}

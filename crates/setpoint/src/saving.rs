//! Saves a trained policy as a Hugging Face folder that other tools use as it was trained: with its chat template, and with the token that
//! ends its turns as the end of a generation.

use std::path::Path;

use burn::tensor::FloatDType;
use serde_json::{Map, Value, json};
use setpoint_data::TextEncoder;
use setpoint_files::words;
use setpoint_train::{SaveDtype, TrainConfig};
use setpoint_transformer::{CausalLm, GenerationConfig, ModelConfig, SaveOptions};

use crate::adapter::Adaptation;
use crate::config::sections::ModelSection;
use crate::failure::Outcome;
use crate::session::Session;
use crate::setup;

const GENERATION: &str = "generation_config.json";

/// Returns the number format of a finished model's files, or `None` for that of its parameters. A format that is not the base's is told,
/// unless a setting asks for it: an f32 file is twice as long as the bf16 file that training began with.
pub fn saved_dtype(
    session: &Session,
    train: &TrainConfig,
    model: &ModelSection,
    base: &ModelConfig,
    has_adapter: bool,
) -> Option<FloatDType> {
    if has_adapter {
        return None;
    }
    // Random weights have no format of their own.
    let base = base.dtype.filter(|_| model.path.is_some());
    let trained = setup::load_options(model, session).dtype.or(base);
    if train.save_dtype == SaveDtype::Auto
        && let (Some(base), Some(trained)) = (base, trained)
        && base != trained
    {
        log::info!(
            "the model is saved in {} as it is trained, and its base is in {}: train.save_dtype=base keeps that format",
            format_name(trained),
            format_name(base)
        );
    }
    train.save_dtype.resolve(base)
}

/// Returns the name of a number format, such as `bf16`.
fn format_name(dtype: FloatDType) -> String {
    format!("{dtype:?}").to_lowercase()
}

/// A trained policy with what is saved next to it.
pub struct Saving<'a> {
    /// The shape of the whole model.
    pub config: &'a ModelConfig,
    /// Its tokenizer and template.
    pub encoder: &'a TextEncoder,
    /// The model that it was trained from.
    pub from: &'a ModelSection,
    /// The token that it learned to end its turns with; transformers, vLLM and others then end generations there, too.
    pub stop: Option<u32>,
    /// The adapter that was trained, if one was: then only that is saved.
    pub adaptation: Option<&'a Adaptation>,
    /// The number format in the files, if it is not that of the parameters.
    pub dtype: Option<FloatDType>,
}

/// Writes the policy, its tokenizer and its sampling settings to `dir`.
pub fn save_policy(policy: &CausalLm, saving: &Saving<'_>, dir: &Path) -> Outcome {
    let Saving { config, encoder, from, stop, adaptation, dtype } = *saving;
    match adaptation {
        Some(adaptation) => adaptation.save_policy(policy, dir)?,
        None => {
            let mut saved = config.clone();
            if let Some(stop) = stop
                && !saved.eos_token_ids.contains(&stop)
            {
                saved.eos_token_ids = vec![stop];
            }
            policy.save(&saved, dir, &SaveOptions { dtype, ..SaveOptions::default() })?;
        }
    }
    if let Some(source) = from.path.as_ref().or(from.tokenizer.as_ref()) {
        setup::write_text(&dir.join(GENERATION), &generation_config(source, config, stop))?;
    }
    Ok(encoder.save_with_eos(dir, stop)?)
}

/// Returns the content of `generation_config.json`: that of the folder `source`, whatever its keys are, with `stop` among the tokens that
/// end a generation. A file that cannot be read is no reason to lose a trained model.
fn generation_config(source: &Path, config: &ModelConfig, stop: Option<u32>) -> String {
    let path = source.join(GENERATION);
    let (text, mut file) = match read(&path) {
        Ok(Some(found)) => found,
        other => {
            if let Err(reason) = other {
                log::warn!("{} is not copied to the trained model: {reason}", path.display());
            }
            let plain =
                GenerationConfig { stop_token_ids: config.eos_token_ids.clone(), ..GenerationConfig::default() };
            let file = match plain.to_json() {
                Value::Object(file) => file,
                _ => Map::new(),
            };
            (format!("{:#}\n", Value::Object(file.clone())), file)
        }
    };
    let found = ids(file.get("eos_token_id"));
    let mut stops = found.clone().unwrap_or_else(|| config.eos_token_ids.clone());
    if let Some(stop) = stop
        && !stops.contains(&stop)
    {
        stops.insert(0, stop);
    }
    if found.unwrap_or_default() == stops {
        return text;
    }
    file.insert("eos_token_id".to_owned(), if stops.len() == 1 { json!(stops[0]) } else { json!(stops) });
    format!("{:#}\n", Value::Object(file))
}

/// A JSON object as text, and parsed.
type Parsed = (String, Map<String, Value>);

/// Returns a JSON object as text and parsed, or `None` if there is no such file.
fn read(path: &Path) -> Result<Option<Parsed>, String> {
    let text = match setpoint_files::read_text(path) {
        Ok(text) => text,
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(words::system(&error.source)),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(file)) => Ok(Some((text, file))),
        Ok(_) => Err("expected a JSON object".to_owned()),
        Err(error) => Err(format!("not valid JSON: {}", words::json(&error))),
    }
}

/// Returns one token id or a list of them.
fn ids(value: Option<&Value>) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value? {
        Value::Array(items) => items.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig::from_file(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/demo/config.json")))
            .unwrap()
    }

    /// Returns the content that is saved for a file with this content.
    fn saved(content: Option<&str>, stop: Option<u32>) -> String {
        let dir = tempfile::tempdir().unwrap();
        if let Some(content) = content {
            std::fs::write(dir.path().join(GENERATION), content).unwrap();
        }
        generation_config(dir.path(), &config(), stop)
    }

    #[test]
    fn the_file_is_copied_whatever_is_in_it() {
        for text in [
            "{\"eos_token_id\": 7, \"min_p\": 0.05, \"num_beams\": 4}",
            "{\"temperature\":0.6,\n\"do_sample\": false, \"of_tomorrow\": {\"a\": [1]}, \"eos_token_id\":[7, 3]}\n",
            "{\"max_length\": 20, \"top_p\": 7, \"eos_token_id\": [3]}",
        ] {
            assert_eq!(saved(Some(text), None), text);
            if text.contains('3') {
                assert_eq!(saved(Some(text), Some(7).filter(|_| text.contains("7, 3"))), text);
            }
        }
    }

    #[test]
    fn the_stop_token_joins_those_that_the_file_names() {
        let eos = |content: Option<&str>, stop| {
            let file: Value = serde_json::from_str(&saved(content, stop)).unwrap();
            file["eos_token_id"].clone()
        };
        assert_eq!(eos(Some("{\"eos_token_id\": 7}"), Some(5)), json!([5, 7]));
        assert_eq!(eos(Some("{\"eos_token_id\": [7, 8], \"min_p\": 0.1}"), Some(5)), json!([5, 7, 8]));
        assert_eq!(eos(Some("{\"eos_token_id\": [7, 5]}"), Some(5)), json!([7, 5]));
        // The shape names token 3 as its end.
        assert_eq!(config().eos_token_ids, [3]);
        assert_eq!(eos(Some("{}"), Some(5)), json!([5, 3]));
        assert_eq!(eos(Some("{}"), None), json!(3));
        assert_eq!(eos(None, Some(5)), json!([5, 3]));
        for broken in ["{\"eos_token_id\": 7", "[]", "", "{\"eos_token_id\": \"</s>\"}"] {
            assert_eq!(eos(Some(broken), Some(5)), json!([5, 3]), "{broken}");
        }
    }
}

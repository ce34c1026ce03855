//! The place of a reward model's score: the stop token of a response, or the last token that the template prints after it.

use serde_json::json;
use setpoint_data::{EncodeOptions, Message, ModelNotes, Prompt, Record, Response, ResponseEnd, TextEncoder};
use setpoint_reward::Normalization;

use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::model_folder::ModelFolder;

/// The key in a folder's notes.
const NOTE: &str = "response_end";

/// The place at which a reward model reads the score.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The last token of a response.
    pub end: ResponseEnd,
    /// A token at which no score is read: `pad_token_id`, for a model that transformers scores.
    pub padding: Option<u32>,
    /// The tokens that the template prints after a stop token.
    tail: Vec<u32>,
}

impl Reading {
    /// Follows the setting, else the folder's notes, else how such models are usually trained; and says which if it matters.
    ///
    /// `asked` is a further setting, [`ResponseEnd::Auto`] if there is none.
    pub fn of(model: &ModelSection, encoder: &TextEncoder, asked: ResponseEnd) -> Outcome<Self> {
        let dir = model.path.as_deref().ok_or_else(|| Failure::usage("model.path", "no reward model"))?;
        let config = ModelFolder::open(dir)?.config()?;
        let noted = match ModelNotes::read(dir)?.get(NOTE) {
            None => None,
            Some(value) => Some(serde_json::from_value(value.clone()).map_err(|_| {
                let place = dir.join("setpoint.json");
                Failure::run(format!("{}: `{NOTE}` is {value}, expected \"stop\" or \"template\"", place.display()))
            })?),
        };
        let set = model.response_end.or(Some(asked)).filter(|end| *end != ResponseEnd::Auto);
        // Before there were notes, this program stored the scale of the rewards in config.json, and always read at the stop token.
        let own = noted.is_some() || Normalization::read(&config)?.is_some();
        let (end, why) = match (set, noted) {
            (Some(end), _) => (end, "as set"),
            (None, Some(end)) => (end, "as noted in its setpoint.json"),
            (None, None) if own => (ResponseEnd::Stop, "as earlier versions of setpoint trained it"),
            (None, None) => (ResponseEnd::Template, "as trl trains reward models: it was not made by setpoint"),
        };
        let tail = tail(encoder);
        let stops = |id: &u32| encoder.stop_ids().contains(id) || tail.contains(id);
        let trap = config.pad_token_id.filter(|id| !own && stops(id));
        let padding = trap.filter(|_| end == ResponseEnd::Template);
        if !tail.is_empty() || trap.is_some() {
            let place = match end {
                ResponseEnd::Template => "at the last token that the template prints",
                _ => "at the stop token",
            };
            let before = padding.map_or("", |_| " before pad_token_id");
            log::info!("reward model {}: the score is read {place}{before}, {why}", dir.display());
        }
        Ok(Self { end, padding, tail })
    }

    /// The options for encoding responses that the model reads.
    pub fn options(&self) -> EncodeOptions {
        EncodeOptions { max_length: None, max_prompt_length: None, response_end: self.end, ..EncodeOptions::default() }
    }

    /// Adds to a sampled answer what the template prints after its stop token.
    pub fn complete(&self, encoder: &TextEncoder, answer: &mut Vec<u32>) {
        if self.end == ResponseEnd::Template && answer.last().is_some_and(|id| encoder.stop_ids().contains(id)) {
            answer.extend(&self.tail);
        }
    }
}

/// Notes in a model's folder how it was trained.
pub fn note_response_end(dir: &std::path::Path, end: ResponseEnd) -> Outcome {
    let end = if end == ResponseEnd::Template { ResponseEnd::Template } else { ResponseEnd::Stop };
    let mut notes = ModelNotes::read(dir)?;
    notes.set(NOTE, json!(end));
    Ok(notes.write()?)
}

/// Returns the tokens that the template prints after the stop token of the last turn; nothing without a template.
fn tail(encoder: &TextEncoder) -> Vec<u32> {
    let record = Record::new(Prompt::Messages(vec![Message::user("a")]), vec![Response::new("b")]);
    let ids = |response_end| {
        let options = EncodeOptions { response_end, ..EncodeOptions::default() };
        let example = encoder.encode(0, &record, &options).ok()?.outcome.ok()?;
        example.responses.into_iter().next().map(|response| response.ids)
    };
    let pair = ids(ResponseEnd::Stop).zip(ids(ResponseEnd::Template));
    pair.map(|(stop, template)| template[stop.len().min(template.len())..].to_vec()).unwrap_or_default()
}

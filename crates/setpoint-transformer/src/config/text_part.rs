//! The text part of a multimodal model, as its `config.json` states it.

use serde_json::{Map, Value, json};

use super::read::Reader;
use crate::Error;
use crate::families::Multimodal;

/// The object that describes the text part, with what the whole file says about it.
pub(super) struct TextPart {
    pub(super) map: Map<String, Value>,
    /// The keys whose values are those of the whole.
    pub(super) outer: Vec<&'static str>,
}

/// Keys of the whole that count.
const OF_WHOLE: [&str; 3] = ["bos_token_id", "eos_token_id", "pad_token_id"];

/// Keys of the whole that count if the text part does not have them.
const INHERITED: [&str; 5] =
    ["dtype", "torch_dtype", "quantization_config", "tie_word_embeddings", "transformers_version"];

/// Keys of the whole that need not be read: those of the parts, and those that each part states for itself.
const OTHER: [&str; 5] = ["architectures", "model_type", TextPart::KEY, "vision_config", "initializer_range"];

impl TextPart {
    /// The key of the object.
    pub(super) const KEY: &str = "text_config";

    /// Reads the text part of a multimodal model. Its class is then that of a model of text, in memory and in saved files.
    pub(super) fn read(model: &Multimodal, whole: &Reader<'_>) -> Result<Self, Error> {
        if let Some(classes) = whole.value("architectures")
            && *classes != json!([model.class])
        {
            return Err(whole.unsupported("architectures", &format!("[\"{}\"]", model.class)));
        }
        let is_known =
            |key: &str| [&OF_WHOLE[..], &INHERITED, &OTHER, model.keys].iter().any(|keys| keys.contains(&key));
        whole.refuse_unknown(&is_known, 0)?;
        let Some(part) = whole.object(Self::KEY)? else {
            return Err(whole.missing(Self::KEY, "an object with the settings of the text part"));
        };
        let reader = whole.nested(Self::KEY, part);
        let family = reader.optional_text("model_type")?.unwrap_or(model.texts[0]);
        if !model.texts.contains(&family) {
            let known: Vec<_> = model.texts.iter().map(|name| format!("\"{name}\"")).collect();
            return Err(reader.unsupported("model_type", &known.join(" or ")));
        }
        let mut map = part.clone();
        map.insert("model_type".to_owned(), json!(family));
        map.shift_remove("architectures");
        let has_dtype = ["dtype", "torch_dtype"].iter().any(|key| reader.value(key).is_some());
        let is_missing = |key: &str| reader.value(key).is_none() && !(has_dtype && key.ends_with("dtype"));
        let inherited = INHERITED.into_iter().filter(|key| is_missing(key));
        let mut outer = Vec::new();
        for key in OF_WHOLE.into_iter().chain(inherited) {
            if let Some(value) = whole.value(key) {
                map.insert(key.to_owned(), value.clone());
                outer.push(key);
            }
        }
        Ok(Self { map, outer })
    }
}

use super::llama::Llama;
use super::{Defaults, Family, GgufLayout, windowed};
use crate::Error;
use crate::config::Reader;
use crate::design::Design;

/// Mistral 7B, Ministral and the models that share their code: Llama without biases, in some with a sliding window in every layer.
pub(super) struct Mistral;

/// The window of a file that does not state one.
const WINDOW: usize = 4096;

impl Family for Mistral {
    fn model_type(&self) -> &'static str {
        "mistral"
    }

    fn class_prefix(&self) -> &'static str {
        "Mistral"
    }

    fn defaults(&self) -> Defaults {
        // transformers assumes 8 key and value heads, whatever the model.
        Defaults { max_position_embeddings: 131_072, ..Defaults::default() }
    }

    fn keys(&self) -> &'static [&'static str] {
        &["attention_bias", "mlp_bias", "sliding_window"]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Design, Error> {
        file.fixed_bool("attention_bias", false, "false for mistral")?;
        file.fixed_bool("mlp_bias", false, "false for mistral")?;
        // Null is no window; absent, it is one of the default length.
        let stated = file.keys().any(|key| key == "sliding_window");
        let window = file.window()?.or((!stated).then_some(WINDOW));
        Ok(Design { layers: windowed(file, |_| window)?, ..Design::default() })
    }
    fn gguf(&self) -> Option<GgufLayout> {
        // llama.cpp takes it for a Llama.
        Llama.gguf()
    }
}

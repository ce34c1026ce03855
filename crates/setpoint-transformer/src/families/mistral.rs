use super::{Biases, Defaults, Family};
use crate::Error;
use crate::config::Reader;

/// Mistral 7B and the models that share its code: Llama without biases, in the older ones with a sliding window.
///
/// With a window of `n` tokens each token sees itself and the `n - 1` before it. Every layer here attends to the whole context, which is
/// the same as long as no text is longer than the window. So a file is read if its longest text fits, and refused otherwise.
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
        Defaults {
            max_position_embeddings: 131_072,
            // transformers assumes 8 heads, whatever the model.
            kv_head_per_query_head: false,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            initializer_range: 0.02,
        }
    }

    fn keys(&self) -> &'static [&'static str] {
        &["attention_bias", "mlp_bias", "sliding_window"]
    }

    fn read(&self, file: &Reader<'_>) -> Result<Biases, Error> {
        file.fixed_bool("attention_bias", false, "false for mistral")?;
        file.fixed_bool("mlp_bias", false, "false for mistral")?;
        // Null is no window; absent, it is one of the default length.
        let stated = file.keys().any(|key| key == "sliding_window");
        let window = file.optional_size("sliding_window")?.or((!stated).then_some(WINDOW));
        let default = self.defaults().max_position_embeddings;
        let longest = file.optional_size("max_position_embeddings")?.unwrap_or(default);
        match window.filter(|&window| window < longest) {
            None => Ok(Biases { qkv: false, output: false, mlp: false }),
            Some(window) => {
                let expected = format!(
                    "null, or at least `max_position_embeddings` ({longest}), because every layer attends to the whole context; \
                     for texts of up to {window} tokens, set `max_position_embeddings` to {window}"
                );
                Err(if stated {
                    file.unsupported("sliding_window", &expected)
                } else {
                    file.missing("sliding_window", &format!("{expected} (without the key it is {WINDOW})"))
                })
            }
        }
    }
}

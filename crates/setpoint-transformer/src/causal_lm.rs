use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use setpoint_ops::linear;

use crate::Error;
use crate::checkpoint::{self, LoadOptions, SaveOptions};
use crate::config::{Architecture, ModelConfig};
use crate::decoder::Decoder;
use crate::init::init_weights;
use crate::linear::Linear;

/// A language model: a [`Decoder`] and a head that scores the next token.
///
/// The names of the parameters are those of Hugging Face's checkpoints.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// The transformer.
    pub model: Decoder,
    /// The head, `[v, d]`; none when it is tied to the embeddings.
    pub lm_head: Option<Linear>,
    /// The factor of the logits.
    logits_scale: f64,
    /// Their bound, if they have one.
    #[module(skip)]
    logits_cap: Option<f64>,
}

impl CausalLm {
    /// A model of the given shape with norms of one and zeros elsewhere, to load weights into; no memory is taken until a value is read.
    pub fn zeros(config: &ModelConfig, device: &Device) -> Self {
        let lm_head =
            (!config.tie_word_embeddings).then(|| Linear::zeros(config.hidden_size, config.vocab_size, false, device));
        let (logits_scale, logits_cap) = (config.design.multipliers.logits, config.design.logits_cap);
        checkpoint::with_stable_ids(Self { model: Decoder::zeros(config, device), lm_head, logits_scale, logits_cap })
    }

    /// A fresh f32 model: matrices from N(0, `initializer_range`²), biases 0, norms 1, as transformers does.
    ///
    /// The numbers depend on `seed` and the parameters' names alone, not on the device.
    pub fn init(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        init_weights(Self::zeros(config, device), config.initializer_range, seed)
    }

    /// Reads a Hugging Face folder: `config.json` with `model.safetensors`, or shards and `model.safetensors.index.json`.
    ///
    /// On a device with autodiff the parameters require gradients. Matrices that `options.quantize` puts into codes are none.
    ///
    /// # Errors
    ///
    /// The errors of [`ModelConfig::from_file`] and [`checkpoint::load_model`]; [`Error::Architecture`] for a model with another head;
    /// [`Error::TiedHeadDiffers`] if the head is said to be tied and is another matrix in the file.
    pub fn load(dir: &Path, options: &LoadOptions, device: &Device) -> Result<(Self, ModelConfig), Error> {
        let mut config = ModelConfig::from_dir(dir)?;
        if config.architecture != Architecture::CausalLm {
            return Err(Error::Architecture {
                path: dir.join("config.json"),
                expected: "causal language model".to_owned(),
                found: "sequence classifier".to_owned(),
            });
        }
        let files = checkpoint::Checkpoint::open_any(dir, options.allow_pickle)?;
        let mut options = options.clone();
        if config.tie_word_embeddings {
            files.require_equal("lm_head.weight", "model.embed_tokens.weight")?;
            options.ignore.push("lm_head.weight".to_owned());
        }
        let model = files.load_model(Self::zeros(&config, device), &options)?;
        config.dtype = Some(model.model.embed_tokens.weight.dtype().into());
        Ok((model, config))
    }

    /// Writes a Hugging Face folder that [`load`](Self::load) and transformers read. `config.dtype` is replaced by what is written.
    ///
    /// # Errors
    ///
    /// As [`checkpoint::save_model`].
    pub fn save(&self, config: &ModelConfig, dir: &Path, options: &SaveOptions) -> Result<(), Error> {
        checkpoint::save_model(self, config, dir, options)
    }

    /// The transformer.
    pub fn decoder(&self) -> &Decoder {
        &self.model
    }

    /// The head's matrix, `[v, d]`: that of the embeddings where they are tied.
    pub fn head_weight(&self) -> Tensor<2> {
        self.lm_head.as_ref().map_or_else(|| self.model.embed_tokens.weight.val(), |head| head.weight.val())
    }

    /// The scores of the next token, in the dtype of the model. Cast them to f32 before a softmax.
    ///
    /// # Shapes
    ///
    /// `[n, d] -> [n, v]`
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let hidden = self.head_input(hidden);
        let logits = match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => linear(hidden, self.head_weight(), None),
        };
        bound_logits(logits, self.logits_cap)
    }

    /// Returns what the head's matrix is applied to: the hidden states, multiplied by the factor that the family has for its logits.
    ///
    /// # Shapes
    ///
    /// `[n, d] -> [n, d]`
    pub fn head_input(&self, hidden: Tensor<2>) -> Tensor<2> {
        if self.logits_scale == 1.0 { hidden } else { hidden.mul_scalar(self.logits_scale) }
    }

    /// Returns the bound `c` of the logits, if the family has one: a logit `z` becomes `c · tanh(z / c)`.
    pub fn logits_cap(&self) -> Option<f64> {
        self.logits_cap
    }
}

/// Bounds logits: with a bound `c`, a logit `z` becomes `c · tanh(z / c)`; without one, nothing changes.
pub fn bound_logits(logits: Tensor<2>, cap: Option<f64>) -> Tensor<2> {
    match cap {
        Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
        None => logits,
    }
}

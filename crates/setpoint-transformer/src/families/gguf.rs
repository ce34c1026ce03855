//! Families as GGUF files hold them, and what llama.cpp does not compute of them.

use crate::config::ModelConfig;
use crate::design::Biases;

/// The layout of a family in GGUF files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GgufLayout {
    /// llama.cpp's name of the architecture.
    pub(crate) architecture: &'static str,
    /// True if llama.cpp turns neighbouring numbers of a head (0 and 1, 2 and 3), where transformers turns number `i` and `i + n/2`: the
    /// rows of queries and keys are then reordered.
    pub(crate) neighbouring_pairs: bool,
    /// True if llama.cpp reads the factors of Llama 3.1's rotary scaling for this architecture.
    pub(crate) rope_factors: bool,
    /// True if it reads those of LongRoPE.
    pub(crate) long_rope: bool,
    /// True if it reads YaRN, and how queries grow along the text.
    pub(crate) yarn: bool,
    /// True if the files state the size of the vocabulary and the rotary width.
    pub(crate) states_sizes: bool,
    /// True if they state the factors of embeddings, scores, residuals and logits. Otherwise llama.cpp has those of the architecture.
    pub(crate) states_multipliers: bool,
    /// The key under which windows are written.
    pub(crate) window: WindowKey,
}

/// The key under which files state the window of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowKey {
    /// Not at all: every layer attends to the whole text.
    Absent,
    /// By 0, for the same: without the key, old versions of llama.cpp assume a window.
    Zero,
    /// By the window of the layers that have one. llama.cpp knows which these are.
    Stated,
}

impl GgufLayout {
    /// Returns the layout of an architecture whose files state nothing further.
    pub(super) const fn of(architecture: &'static str) -> Self {
        Self {
            architecture,
            neighbouring_pairs: false,
            rope_factors: false,
            long_rope: false,
            yarn: false,
            states_sizes: false,
            states_multipliers: false,
            window: WindowKey::Absent,
        }
    }

    /// Returns the layout of an architecture that llama.cpp computes like Llama.
    pub(super) const fn like_llama(architecture: &'static str) -> Self {
        Self { neighbouring_pairs: true, states_sizes: true, ..Self::of(architecture) }
    }
}

/// Says so if a model has biases, in architectures that have none.
pub(super) fn biases(config: &ModelConfig) -> Option<String> {
    let has_biases = config.design.biases != Biases::default();
    has_biases.then(|| "it has biases, for which llama.cpp has no place".to_owned())
}

/// Says so if the heads of a model are together not as wide as the model, in architectures that take this for granted.
pub(super) fn head_widths(config: &ModelConfig) -> Option<String> {
    let (width, expected) = (config.num_attention_heads.saturating_mul(config.head_dim), config.hidden_size);
    (width != expected).then(|| {
        format!("its heads have {width} numbers together, and llama.cpp expects as many as `hidden_size`, {expected}")
    })
}

/// Says so if the layers that differ from the others are not each `period`th one, as `key` states them.
pub(super) fn pattern(
    config: &ModelConfig,
    key: &str,
    period: usize,
    differs: impl Fn(usize) -> bool,
) -> Option<String> {
    let fits = (0..config.num_hidden_layers).all(|i| differs(i) == (i + 1).is_multiple_of(period));
    (!fits).then(|| {
        let second = 2 * period;
        format!(
            "`{key}` is not llama.cpp's pattern, in which layers {period}, {second} and so on differ from the others"
        )
    })
}

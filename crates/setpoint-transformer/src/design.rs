//! The points in which the families differ. There is one decoder, and a design says what it computes.

use crate::config::RopeConfig;

/// The computation of a decoder, besides its sizes. The default is that of Llama without biases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Design {
    /// The projections that have biases.
    pub biases: Biases,
    /// The places of the norms in a layer.
    pub norms: NormPlacement,
    /// The use of the weight of a norm.
    pub norm_weight: NormWeight,
    /// The norms of queries and keys.
    pub head_norms: HeadNorms,
    /// The linear maps of a layer that are one matrix in the checkpoint, and so here.
    pub maps: Maps,
    /// The function of the gate in the feed-forward network.
    pub activation: Activation,
    /// Constant factors.
    pub multipliers: Multipliers,
    /// The bound of the attention scores (see [`Heads`](setpoint_ops::Heads)).
    pub attention_cap: Option<f64>,
    /// The bound `c` of the logits: a logit `z` becomes `c · tanh(z / c)`.
    pub logits_cap: Option<f64>,
    /// The rotary embedding of layers whose rotation is [`LayerRope::Local`].
    pub local_rope: Option<RopeConfig>,
    /// The differences between layers. Layers beyond the end of the list are plain.
    pub layers: Vec<LayerDesign>,
}

impl Design {
    /// Returns how a layer differs from others.
    pub fn layer(&self, i: usize) -> LayerDesign {
        self.layers.get(i).copied().unwrap_or_default()
    }
}

/// The projections that have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// The projections to queries, keys and values.
    pub qkv: bool,
    /// The projection that follows attention.
    pub output: bool,
    /// The three projections of the feed-forward network.
    pub mlp: bool,
}

/// The places of the norms in a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and before the feed-forward network: `x + f(norm(x))`.
    #[default]
    Before,
    /// After them: `x + norm(f(x))`.
    After,
    /// On both sides: `x + norm(f(norm(x)))`.
    Both,
}

/// The use of a norm's weight `w` on the fraction `x̂ = x / rms(x)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NormWeight {
    /// `w · round(x̂)`, with `x̂` rounded to the number format of the model first.
    #[default]
    Rounded,
    /// `round(w · x̂)`.
    Wide,
    /// `round((1 + w) · x̂)`.
    OnePlus,
}

/// The norms of queries and keys, before they are rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadNorms {
    /// None.
    #[default]
    Absent,
    /// Each head apart, all with the same weight `[n]`.
    PerHead,
    /// All heads together, with a weight `[h·n]` for queries and `[g·n]` for keys.
    Whole,
}

/// The form of a layer's linear maps in a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Maps {
    /// Each as a matrix of its own.
    #[default]
    Separate,
    /// Queries, keys and values in `qkv_proj`, and gate and values in `gate_up_proj`.
    Fused,
}

/// The function of the gate in the feed-forward network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x · σ(x)`, as in SwiGLU.
    #[default]
    Silu,
    /// GELU by its approximation with tanh (Hendrycks and Gimpel, <https://arxiv.org/abs/1606.08415>), as in GeGLU.
    GeluTanh,
}

impl Activation {
    /// Returns the name in `config.json`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::GeluTanh => "gelu_pytorch_tanh",
        }
    }
}

/// Constant factors; 1 unless a family says otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multipliers {
    /// Of the embeddings, rounded to the number format of the model.
    pub embeddings: f64,
    /// Of the attention scores; `1/sqrt(head_dim)` if there is none.
    pub attention: Option<f64>,
    /// Of what attention and the feed-forward network add to their input.
    pub residual: f64,
    /// Of the logits.
    pub logits: f64,
}

impl Default for Multipliers {
    fn default() -> Self {
        Self { embeddings: 1.0, attention: None, residual: 1.0, logits: 1.0 }
    }
}

/// The differences between a layer's attention and that of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerDesign {
    /// The rotation of its queries and keys.
    pub rope: LayerRope,
    /// The tokens that a token sees at most, itself included; all before it by default.
    pub window: Option<usize>,
}

/// The rotation of a layer's queries and keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerRope {
    /// The embedding of [`ModelConfig::rope`](crate::ModelConfig::rope).
    #[default]
    Global,
    /// The embedding of [`Design::local_rope`].
    Local,
    /// None: the layer does not know positions.
    Absent,
}

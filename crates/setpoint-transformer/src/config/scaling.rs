//! Rotary frequencies stretched for longer contexts.

use std::f64::consts::TAU;

use serde_json::{Map, Value, json};

use super::queries::QueryGrowth;
use super::read::Reader;
use crate::Error;

/// The stretching of rotary frequencies for contexts longer than those of pre-training.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all (`rope_type` `default`).
    Default,
    /// All frequencies divided by a factor: Chen et al., "Position Interpolation", <https://arxiv.org/abs/2306.15595>.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// A base that grows with the length of a text beyond `max_position_embeddings`. Longer texts are refused, so that nothing is stretched.
    Dynamic {
        /// The speed of its growth.
        factor: f64,
    },
    /// Llama 3.1: wavelengths above `original_max_position_embeddings / low_freq_factor` are divided by `factor`, those below
    /// `original_max_position_embeddings / high_freq_factor` kept, those between interpolated.
    Llama3 {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Turns within the original context below which a frequency counts as low.
        low_freq_factor: f64,
        /// Turns within the original context above which a frequency counts as high.
        high_freq_factor: f64,
        /// The context length of pre-training, in tokens.
        original_max_position_embeddings: usize,
    },
    /// YaRN (Peng et al., <https://arxiv.org/abs/2309.00071>): frequencies with few turns within the original context are divided by `factor`,
    /// those with many kept, those between interpolated along their number. Cosines and sines have a factor of their own.
    Yarn {
        /// The divisor of the low frequencies.
        factor: f64,
        /// The context length of pre-training, in tokens.
        original_max_position_embeddings: usize,
        /// Turns within the original context above which a frequency is kept.
        beta_fast: f64,
        /// Turns within the original context below which it is divided.
        beta_slow: f64,
        /// True if the numbers of these two frequencies are rounded, the first down and the second up.
        truncate: bool,
        /// The factor of cosines and sines, if the file states it.
        attention_factor: Option<f64>,
        /// The weight of the logarithm in that factor, and the one in its divisor.
        mscale: Option<[f64; 2]>,
        /// How fast queries grow along the text (`llama_4_scaling_beta`), in families that have this.
        query_beta: Option<f64>,
    },
    /// LongRoPE (Ding et al., <https://arxiv.org/abs/2402.13753>): each frequency has a divisor of its own for texts within the original context,
    /// and another one for longer texts, there for all tokens.
    LongRope {
        /// The divisors for texts within the original context.
        short_factor: Vec<f64>,
        /// The divisors for longer texts.
        long_factor: Vec<f64>,
        /// The number of original contexts in the longest text, if the file states it.
        factor: Option<f64>,
        /// The factor of cosines and sines, if the file states it.
        attention_factor: Option<f64>,
        /// The context length of pre-training, in tokens.
        original_max_position_embeddings: usize,
        /// The file's `max_position_embeddings`.
        max_position_embeddings: usize,
    },
}

/// Divides each frequency by a factor of its own.
fn divided(plain: Vec<f64>, factors: &[f64]) -> Vec<f64> {
    plain.into_iter().zip(factors).map(|(frequency, factor)| frequency / factor).collect()
}

/// The key of the growth of queries. Llama 4 has it under another name.
const QUERY_BETA: &str = "llama_4_scaling_beta";

/// What the reading of a scaling needs of the rest of the file.
#[derive(Clone, Copy)]
pub(super) struct Context {
    /// `max_position_embeddings`.
    pub(super) positions: usize,
    /// `original_max_position_embeddings` outside the scaling, which comes first.
    pub(super) original: Option<usize>,
    /// True if heads of the family may turn in part.
    pub(super) partial: bool,
    /// True if queries of the family grow along the text.
    pub(super) queries_grow: bool,
}

const TYPES: &str = "\"default\", \"linear\", \"dynamic\", \"llama3\", \"yarn\", \"longrope\"";

/// The types of scaling of families whose heads may turn in part.
const TYPES_OF_PARTIAL: &str = "\"default\", \"longrope\"";

/// The one of families whose queries grow along the text.
const TYPE_OF_GROWING: &str = "\"yarn\"";

impl RopeScaling {
    /// Returns the name in `config.json`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Linear { .. } => "linear",
            Self::Dynamic { .. } => "dynamic",
            Self::Llama3 { .. } => "llama3",
            Self::Yarn { .. } => "yarn",
            Self::LongRope { .. } => "longrope",
        }
    }

    /// Stretches the frequencies of `width / 2` pairs with the base `theta`.
    pub(super) fn apply(&self, plain: Vec<f64>, theta: f64, width: usize) -> Vec<f64> {
        match *self {
            Self::Default | Self::Dynamic { .. } => plain,
            Self::Linear { factor } => plain.into_iter().map(|frequency| frequency / factor).collect(),
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: context,
            } => {
                let stretched = |frequency: f64| {
                    let turns = context as f64 * frequency / TAU;
                    // 0 for low frequencies, 1 for high ones, a straight line between.
                    let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - keep) * frequency / factor + keep * frequency
                };
                plain.into_iter().map(stretched).collect()
            }
            Self::Yarn { factor, original_max_position_embeddings, beta_fast, beta_slow, truncate, .. } => {
                // The number of the pair that turns so often within the original context, as a fraction.
                let place = |turns: f64| {
                    let context = original_max_position_embeddings as f64;
                    width as f64 * (context / (turns * TAU)).ln() / (2.0 * theta.ln())
                };
                let (low, high) = (place(beta_fast), place(beta_slow));
                let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(width as f64 - 1.0));
                let high = if low == high { high + 0.001 } else { high };
                let stretched = |(i, frequency): (usize, f64)| {
                    let divide = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    divide * frequency / factor + (1.0 - divide) * frequency
                };
                plain.into_iter().enumerate().map(stretched).collect()
            }
            Self::LongRope { ref short_factor, .. } => divided(plain, short_factor),
        }
    }

    /// Stretches the frequencies of long texts, where these have others.
    pub(super) fn apply_long(&self, plain: Vec<f64>) -> Option<Vec<f64>> {
        match self {
            Self::LongRope { long_factor, .. } => Some(divided(plain, long_factor)),
            _ => None,
        }
    }

    /// Returns the factor of cosines and sines.
    pub(super) fn magnitude(&self) -> f64 {
        match *self {
            Self::Default | Self::Linear { .. } | Self::Dynamic { .. } | Self::Llama3 { .. } => 1.0,
            Self::Yarn { factor, attention_factor, mscale, .. } => {
                let of = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
                attention_factor.unwrap_or_else(|| mscale.map_or(of(1.0), |[above, below]| of(above) / of(below)))
            }
            Self::LongRope {
                factor,
                attention_factor,
                original_max_position_embeddings,
                max_position_embeddings,
                ..
            } => {
                let original = original_max_position_embeddings as f64;
                let factor = factor.unwrap_or(max_position_embeddings as f64 / original);
                let of = || if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
                attention_factor.unwrap_or_else(of)
            }
        }
    }

    /// Returns how queries grow along the text, if they do.
    pub(crate) fn query_growth(&self) -> Option<QueryGrowth> {
        match *self {
            Self::Yarn { query_beta, original_max_position_embeddings: step, .. } => {
                query_beta.map(|beta| QueryGrowth { beta, step })
            }
            _ => None,
        }
    }

    /// Checks the numbers, for heads of which `width` elements turn.
    pub(super) fn validate(&self, width: usize) -> Result<(), String> {
        let positive = |key: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                Ok(())
            } else {
                Err(format!("the rotary setting `{key}` is {value}; expected a number above 0"))
            }
        };
        let below = |low: (&str, f64), high: (&str, f64)| {
            if high.1.is_finite() && high.1 > low.1 {
                Ok(())
            } else {
                Err(format!("the rotary setting `{}` ({}) must lie above `{}` ({})", high.0, high.1, low.0, low.1))
            }
        };
        match *self {
            Self::Default => Ok(()),
            Self::Linear { factor } | Self::Dynamic { factor } => positive("factor", factor),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("original_max_position_embeddings", original_max_position_embeddings as f64)?;
                below(("low_freq_factor", low_freq_factor), ("high_freq_factor", high_freq_factor))
            }
            Self::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                attention_factor,
                mscale,
                query_beta,
                ..
            } => {
                let beta = query_beta.unwrap_or(0.0);
                if !(beta.is_finite() && beta >= 0.0) {
                    return Err(format!(
                        "the rotary setting `{QUERY_BETA}` is {beta}; expected a number of at least 0"
                    ));
                }
                positive("factor", factor)?;
                positive("original_max_position_embeddings", original_max_position_embeddings as f64)?;
                positive("beta_slow", beta_slow)?;
                below(("beta_slow", beta_slow), ("beta_fast", beta_fast))?;
                positive("attention_factor", attention_factor.unwrap_or(1.0))?;
                let [above, divisor] = mscale.unwrap_or([1.0; 2]);
                positive("mscale", above)?;
                positive("mscale_all_dim", divisor)
            }
            Self::LongRope {
                ref short_factor,
                ref long_factor,
                factor,
                attention_factor,
                original_max_position_embeddings: original,
                ..
            } => {
                for (key, list) in [("short_factor", short_factor), ("long_factor", long_factor)] {
                    if list.len() != width / 2 {
                        return Err(format!(
                            "the rotary setting `{key}` has {} numbers; expected one for each of the {} pairs that turn",
                            list.len(),
                            width / 2
                        ));
                    }
                    list.iter().try_for_each(|&divisor| positive(key, divisor))?;
                }
                positive("factor", factor.unwrap_or(1.0))?;
                positive("attention_factor", attention_factor.unwrap_or(1.0))?;
                // Its logarithm is a divisor.
                below(("1", 1.0), ("original_max_position_embeddings", original as f64))
            }
        }
    }

    pub(super) fn read(reader: &Reader<'_>, context: Context) -> Result<Self, Error> {
        let types = match context {
            Context { queries_grow: true, .. } => TYPE_OF_GROWING,
            Context { partial: true, .. } => TYPES_OF_PARTIAL,
            _ => TYPES,
        };
        let kind = match (reader.optional_text("rope_type")?, reader.optional_text("type")?) {
            (Some(a), Some(b)) if a != b => {
                return Err(reader.unsupported("type", &format!("the same as `rope_type` (\"{a}\")")));
            }
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) => return Err(reader.missing("rope_type", types)),
        };
        // "su" is the name in the first files of Phi-3.
        let kind = match kind {
            "su" if context.partial => "longrope",
            kind => kind,
        };
        let unknown = || {
            let key = if reader.value("rope_type").is_some() { "rope_type" } else { "type" };
            reader.unsupported(key, types)
        };
        let original = |reader: &Reader<'_>| -> Result<usize, Error> {
            let inner = reader.optional_size("original_max_position_embeddings")?;
            Ok(context.original.or(inner).unwrap_or(context.positions))
        };
        let (scaling, keys): (_, &[&str]) = match kind {
            kind if context.queries_grow && kind != "yarn" => return Err(unknown()),
            "default" => (Self::Default, &[]),
            // transformers takes "yarn" for "longrope" there, and knows no other.
            "linear" | "dynamic" | "llama3" | "yarn" if context.partial => return Err(unknown()),
            "linear" => (Self::Linear { factor: reader.number("factor")? }, &["factor"]),
            "dynamic" => (Self::Dynamic { factor: reader.number("factor")? }, &["factor"]),
            "llama3" => (
                Self::Llama3 {
                    factor: reader.number("factor")?,
                    low_freq_factor: reader.number("low_freq_factor")?,
                    high_freq_factor: reader.number("high_freq_factor")?,
                    original_max_position_embeddings: reader.size("original_max_position_embeddings")?,
                },
                &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
            ),
            "yarn" => (
                Self::Yarn {
                    factor: reader.number("factor")?,
                    original_max_position_embeddings: original(reader)?,
                    beta_fast: reader.optional_number("beta_fast")?.unwrap_or(32.0),
                    beta_slow: reader.optional_number("beta_slow")?.unwrap_or(1.0),
                    truncate: reader.optional_bool("truncate")?.unwrap_or(true),
                    attention_factor: reader.optional_number("attention_factor")?,
                    // transformers needs both, and takes 0 for absent.
                    mscale: match (reader.optional_number("mscale")?, reader.optional_number("mscale_all_dim")?) {
                        (Some(above), Some(below)) if above != 0.0 && below != 0.0 => Some([above, below]),
                        _ => None,
                    },
                    query_beta: context.queries_grow.then(|| reader.number(QUERY_BETA)).transpose()?,
                },
                &[
                    "factor",
                    "original_max_position_embeddings",
                    "beta_fast",
                    "beta_slow",
                    "truncate",
                    "attention_factor",
                    "mscale",
                    "mscale_all_dim",
                ],
            ),
            "longrope" => (
                Self::LongRope {
                    short_factor: reader.numbers("short_factor")?,
                    long_factor: reader.numbers("long_factor")?,
                    factor: reader.optional_number("factor")?,
                    attention_factor: reader.optional_number("attention_factor")?,
                    original_max_position_embeddings: original(reader)?,
                    max_position_embeddings: context.positions,
                },
                &["short_factor", "long_factor", "factor", "attention_factor", "original_max_position_embeddings"],
            ),
            _ => return Err(unknown()),
        };
        if !context.partial && reader.optional_number("partial_rotary_factor")?.is_some_and(|share| share != 1.0) {
            return Err(reader.unsupported("partial_rotary_factor", "1"));
        }
        let known = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
        // The second repeats that of the whole file, without an effect.
        let of_growing = [QUERY_BETA, "max_position_embeddings"];
        let is_known =
            |key: &&str| known.contains(key) || keys.contains(key) || context.queries_grow && of_growing.contains(key);
        match reader.keys().find(|key| !is_known(key)) {
            Some(key) => Err(reader.unsupported(key, &format!("no such key for rope_type \"{kind}\""))),
            None => Ok(scaling),
        }
    }

    pub(super) fn to_map(&self) -> Map<String, Value> {
        let value = match self {
            Self::Default => json!({}),
            Self::Linear { factor } | Self::Dynamic { factor } => json!({"factor": factor}),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
            Self::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                truncate,
                attention_factor,
                mscale,
                query_beta,
            } => json!({
                "factor": factor,
                "original_max_position_embeddings": original_max_position_embeddings,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "truncate": truncate,
                "attention_factor": attention_factor,
                "mscale": mscale.map(|[above, _]| above),
                "mscale_all_dim": mscale.map(|[_, below]| below),
                QUERY_BETA: query_beta,
            }),
            Self::LongRope {
                short_factor,
                long_factor,
                factor,
                attention_factor,
                original_max_position_embeddings,
                ..
            } => json!({
                "short_factor": short_factor,
                "long_factor": long_factor,
                "factor": factor,
                "attention_factor": attention_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
        };
        let mut map = Map::from_iter([("rope_type".to_owned(), json!(self.name()))]);
        if let Value::Object(values) = value {
            map.extend(values.into_iter().filter(|(_, value)| !value.is_null()));
        }
        map
    }
}

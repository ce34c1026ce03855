use serde_json::{Map, Value, json};

use super::read::Reader;
use crate::Error;

/// Rotary position embedding: Su et al., "RoFormer", <https://arxiv.org/abs/2104.09864>.
///
/// Pair `i` of a head of width `n` turns by `position · theta^(-2i/n)` radians, the frequencies then changed by `scaling`.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// The base of the frequencies.
    pub theta: f64,
    /// How the frequencies are stretched for longer contexts.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are stretched for contexts longer than those of pre-training.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all (`rope_type` `default`).
    Default,
    /// All frequencies divided by a factor: Chen et al., "Position Interpolation", <https://arxiv.org/abs/2306.15595>.
    Linear {
        /// The divisor.
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
}

const TYPES: &str = "\"default\", \"linear\", \"llama3\"";

impl RopeConfig {
    /// The angular frequency of each pair, `[head_dim / 2]`, in radians per position.
    pub fn inv_freq(&self, head_dim: usize) -> Vec<f64> {
        (0..head_dim / 2)
            .map(|i| self.theta.powf(-((2 * i) as f64) / head_dim as f64))
            .map(|frequency| self.scaling.apply(frequency))
            .collect()
    }

    /// Returns the divisor of each pair's frequency, `[head_dim / 2]`: 1 if it is not scaled.
    pub(crate) fn factors(&self, head_dim: usize) -> Vec<f32> {
        let plain = Self { theta: self.theta, scaling: RopeScaling::Default };
        let scaled = self.inv_freq(head_dim);
        plain.inv_freq(head_dim).into_iter().zip(scaled).map(|(plain, scaled)| (plain / scaled) as f32).collect()
    }

    /// Reads the three ways in which files state this: `rope_theta` with `rope_scaling`, or transformers 5's `rope_parameters`.
    pub(super) fn read(top: &Reader<'_>, default_theta: f64) -> Result<Self, Error> {
        let old = (top.optional_number("rope_theta")?, top.object("rope_scaling")?);
        let Some(parameters) = top.object("rope_parameters")? else {
            let (theta, scaling) = old;
            return Ok(Self {
                theta: theta.unwrap_or(default_theta),
                scaling: match scaling {
                    Some(map) => RopeScaling::read(&top.nested("rope_scaling", map))?,
                    None => RopeScaling::Default,
                },
            });
        };
        let new = top.nested("rope_parameters", parameters);
        let theta = new.optional_number("rope_theta")?;
        if let (Some(outer), Some(inner)) = (old.0, theta)
            && outer != inner
        {
            return Err(top.unsupported(
                "rope_theta",
                &format!("the same as `rope_parameters.rope_theta` ({inner}), or no such key"),
            ));
        }
        let scaling = RopeScaling::read(&new)?;
        if let Some(map) = old.1
            && RopeScaling::read(&top.nested("rope_scaling", map))? != scaling
        {
            return Err(top.unsupported("rope_scaling", "the same as `rope_parameters`, or no such key"));
        }
        Ok(Self { theta: theta.or(old.0).unwrap_or(default_theta), scaling })
    }

    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        let scaling = self.scaling.to_map();
        if map.contains_key("rope_parameters") {
            let mut parameters = Map::from_iter([("rope_theta".to_owned(), json!(self.theta))]);
            parameters.extend(scaling);
            map.insert("rope_parameters".to_owned(), Value::Object(parameters));
            map.shift_remove("rope_theta");
            map.shift_remove("rope_scaling");
        } else {
            map.insert("rope_theta".to_owned(), json!(self.theta));
            let scaling = match self.scaling {
                RopeScaling::Default => Value::Null,
                _ => Value::Object(scaling),
            };
            map.insert("rope_scaling".to_owned(), scaling);
        }
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let positive = |key: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                Ok(())
            } else {
                Err(format!("the rotary setting `{key}` is {value}; expected a number above 0"))
            }
        };
        positive("rope_theta", self.theta)?;
        match self.scaling {
            RopeScaling::Default => Ok(()),
            RopeScaling::Linear { factor } => positive("factor", factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("original_max_position_embeddings", original_max_position_embeddings as f64)?;
                if high_freq_factor.is_finite() && high_freq_factor > low_freq_factor {
                    Ok(())
                } else {
                    Err(format!(
                        "the rotary setting `high_freq_factor` ({high_freq_factor}) must lie above `low_freq_factor` ({low_freq_factor})"
                    ))
                }
            }
        }
    }
}

impl RopeScaling {
    fn apply(&self, frequency: f64) -> f64 {
        match *self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: context,
            } => {
                let turns = context as f64 * frequency / std::f64::consts::TAU;
                // 0 for low frequencies, 1 for high ones, a straight line between.
                let keep = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - keep) * frequency / factor + keep * frequency
            }
        }
    }

    fn read(reader: &Reader<'_>) -> Result<Self, Error> {
        let kind = match (reader.optional_text("rope_type")?, reader.optional_text("type")?) {
            (Some(a), Some(b)) if a != b => {
                return Err(reader.unsupported("type", &format!("the same as `rope_type` (\"{a}\")")));
            }
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) => return Err(reader.missing("rope_type", TYPES)),
        };
        let (scaling, keys): (_, &[&str]) = match kind {
            "default" => (Self::Default, &[]),
            "linear" => (Self::Linear { factor: reader.number("factor")? }, &["factor"]),
            "llama3" => (
                Self::Llama3 {
                    factor: reader.number("factor")?,
                    low_freq_factor: reader.number("low_freq_factor")?,
                    high_freq_factor: reader.number("high_freq_factor")?,
                    original_max_position_embeddings: reader.size("original_max_position_embeddings")?,
                },
                &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
            ),
            _ => {
                let key = if reader.optional_text("rope_type")?.is_some() { "rope_type" } else { "type" };
                return Err(reader.unsupported(key, TYPES));
            }
        };
        if reader.optional_number("partial_rotary_factor")?.is_some_and(|share| share != 1.0) {
            return Err(reader.unsupported("partial_rotary_factor", "1"));
        }
        let known = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
        match reader.keys().find(|key| !known.contains(key) && !keys.contains(key)) {
            Some(key) => Err(reader.unsupported(key, &format!("no such key for rope_type \"{kind}\""))),
            None => Ok(scaling),
        }
    }

    fn to_map(&self) -> Map<String, Value> {
        let value = match *self {
            Self::Default => json!({"rope_type": "default"}),
            Self::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
        };
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_divides_low_and_interpolates_between() {
        let rope = RopeConfig {
            theta: 500_000.0,
            scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            },
        };
        let plain = RopeConfig { theta: 500_000.0, scaling: RopeScaling::Default };
        for (scaled, base) in rope.inv_freq(128).into_iter().zip(plain.inv_freq(128)) {
            // The formula as Llama's code has it, in wavelengths.
            let wavelength = std::f64::consts::TAU / base;
            let expected = if wavelength < 8192.0 / 4.0 {
                base
            } else if wavelength > 8192.0 / 1.0 {
                base / 8.0
            } else {
                let smooth = (8192.0 / wavelength - 1.0) / (4.0 - 1.0);
                (1.0 - smooth) * base / 8.0 + smooth * base
            };
            assert!((scaled - expected).abs() <= 1e-15 * base, "{scaled} {expected}");
        }
    }

    #[test]
    fn linear_scaling_divides_every_frequency() {
        let rope = RopeConfig { theta: 100.0, scaling: RopeScaling::Linear { factor: 4.0 } };
        for (found, expected) in rope.inv_freq(4).into_iter().zip([1.0 / 4.0, 0.1 / 4.0]) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
    }
}

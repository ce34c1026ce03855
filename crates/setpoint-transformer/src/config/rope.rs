use serde_json::{Map, Value, json};

use super::read::Reader;
use super::scaling::Context;
use super::{RopeScaling, RopeSwitch};
use crate::Error;
use crate::families::Defaults;

/// The parts of `rope_parameters` in families that have two rotary embeddings.
const GLOBAL: &str = "full_attention";
const LOCAL: &str = "sliding_attention";

/// Rotary position embedding: Su et al., "RoFormer", <https://arxiv.org/abs/2104.09864>.
///
/// The first `m` of the `n` elements of a head turn. Pair `i` of them turns by `position · theta^(-2i/m)` radians, the frequencies then
/// changed by `scaling`.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// The base of the frequencies.
    pub theta: f64,
    /// The share of each head that turns, `m / n` (`partial_rotary_factor`).
    pub rotary_share: f64,
    /// The stretching of the frequencies for longer contexts.
    pub scaling: RopeScaling,
}

impl RopeConfig {
    /// Returns the number of elements of a head that turn, `m`.
    pub fn rotary_width(&self, head_dim: usize) -> usize {
        (head_dim as f64 * self.rotary_share) as usize
    }

    /// Returns the angular frequency of each pair, `[m / 2]`, in radians per position; with LongRoPE that of texts up to the
    /// [`switch`](Self::switch).
    pub fn inv_freq(&self, head_dim: usize) -> Vec<f64> {
        self.scaling.apply(self.plain(head_dim), self.theta, self.rotary_width(head_dim))
    }

    /// Returns the angular frequency of each pair in texts beyond the [`switch`](Self::switch), if there is one.
    pub fn long_inv_freq(&self, head_dim: usize) -> Option<Vec<f64>> {
        self.scaling.apply_long(self.plain(head_dim))
    }

    /// Returns the length beyond which texts have other frequencies.
    pub fn switch(&self) -> RopeSwitch {
        match self.scaling {
            RopeScaling::LongRope { original_max_position_embeddings, .. } => {
                RopeSwitch::at(original_max_position_embeddings)
            }
            _ => RopeSwitch::default(),
        }
    }

    /// Returns the frequencies before they are scaled.
    fn plain(&self, head_dim: usize) -> Vec<f64> {
        let width = self.rotary_width(head_dim);
        (0..width / 2).map(|i| self.theta.powf(-((2 * i) as f64) / width as f64)).collect()
    }

    /// Returns the factor of cosines and sines: 1 but for YaRN and LongRoPE.
    pub fn magnitude(&self) -> f64 {
        self.scaling.magnitude()
    }

    /// Returns the divisor of each pair's frequency, `[m / 2]`: 1 if it is not scaled.
    pub(crate) fn factors(&self, head_dim: usize) -> Vec<f32> {
        let (plain, scaled) = (self.plain(head_dim), self.inv_freq(head_dim));
        plain.into_iter().zip(scaled).map(|(plain, scaled)| (plain / scaled) as f32).collect()
    }

    /// Reads the three ways in which files state this: `rope_theta` with `rope_scaling`, or transformers 5's `rope_parameters`. `positions` is
    /// the file's `max_position_embeddings`.
    pub(super) fn read(top: &Reader<'_>, defaults: &Defaults, positions: usize) -> Result<Self, Error> {
        let old = (top.optional_number("rope_theta")?, top.object("rope_scaling")?);
        let original = top.optional_size("original_max_position_embeddings")?.or(defaults.original_positions);
        let context = Context {
            positions,
            original,
            partial: defaults.rotary_share.is_some(),
            queries_grow: defaults.queries_grow,
        };
        let share = |inner: Option<f64>| -> Result<f64, Error> {
            let outer = top.optional_number("partial_rotary_factor")?;
            Ok(inner.or(outer).or(defaults.rotary_share).unwrap_or(1.0))
        };
        let Some(parameters) = top.object("rope_parameters")? else {
            let (theta, scaling) = old;
            return Ok(Self {
                theta: theta.unwrap_or(defaults.rope_theta),
                rotary_share: share(None)?,
                scaling: match scaling {
                    Some(map) => RopeScaling::read(&top.nested("rope_scaling", map), context)?,
                    None if defaults.queries_grow => {
                        return Err(top.missing("rope_parameters", "an object with the rotary settings"));
                    }
                    None => RopeScaling::Default,
                },
            });
        };
        let outer = top.nested("rope_parameters", parameters);
        let new = match outer.object(GLOBAL)?.filter(|_| defaults.rope_by_layer) {
            Some(map) => {
                if let Some(key) = outer.keys().find(|key| ![GLOBAL, LOCAL].contains(key)) {
                    return Err(outer.unsupported(key, &format!("no such key next to `{GLOBAL}`")));
                }
                outer.nested(GLOBAL, map)
            }
            None => top.nested("rope_parameters", parameters),
        };
        let theta = new.optional_number("rope_theta")?;
        if let (Some(outer), Some(inner)) = (old.0, theta)
            && outer != inner
        {
            return Err(top.unsupported(
                "rope_theta",
                &format!("the same as `rope_parameters.rope_theta` ({inner}), or no such key"),
            ));
        }
        let scaling = RopeScaling::read(&new, context)?;
        if let Some(map) = old.1
            && RopeScaling::read(&top.nested("rope_scaling", map), context)? != scaling
        {
            return Err(top.unsupported("rope_scaling", "the same as `rope_parameters`, or no such key"));
        }
        Ok(Self {
            theta: theta.or(old.0).unwrap_or(defaults.rope_theta),
            rotary_share: share(new.optional_number("partial_rotary_factor")?)?,
            scaling,
        })
    }

    /// Reads the embedding of layers with a window, in families that have one of their own there: `rope_local_base_freq`, or a part of
    /// transformers 5's `rope_parameters`.
    pub(crate) fn read_local(top: &Reader<'_>, default_theta: f64) -> Result<Self, Error> {
        let mut theta = top.optional_number("rope_local_base_freq")?;
        if let Some(parameters) = top.object("rope_parameters")? {
            let outer = top.nested("rope_parameters", parameters);
            if let Some(map) = outer.object(LOCAL)? {
                let inner = outer.nested(LOCAL, map);
                let context = Context { positions: 0, original: None, partial: false, queries_grow: false };
                if RopeScaling::read(&inner, context)? != RopeScaling::Default {
                    return Err(inner.unsupported("rope_type", "\"default\""));
                }
                theta = inner.optional_number("rope_theta")?.or(theta);
            }
        }
        Ok(Self { theta: theta.unwrap_or(default_theta), rotary_share: 1.0, scaling: RopeScaling::Default })
    }

    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        let scaling = self.scaling.to_map();
        let partial = self.rotary_share != 1.0;
        if let Some(before) = map.get_mut("rope_parameters") {
            let mut parameters = Map::from_iter([("rope_theta".to_owned(), json!(self.theta))]);
            if partial {
                parameters.insert("partial_rotary_factor".to_owned(), json!(self.rotary_share));
            }
            parameters.extend(scaling);
            match before.get_mut(GLOBAL) {
                Some(global) => *global = Value::Object(parameters),
                None => *before = Value::Object(parameters),
            }
            for old in ["rope_theta", "rope_scaling", "partial_rotary_factor"] {
                map.shift_remove(old);
            }
        } else {
            map.insert("rope_theta".to_owned(), json!(self.theta));
            if partial {
                map.insert("partial_rotary_factor".to_owned(), json!(self.rotary_share));
            }
            let scaling = match self.scaling {
                RopeScaling::Default => Value::Null,
                _ => Value::Object(scaling),
            };
            map.insert("rope_scaling".to_owned(), scaling);
        }
    }

    pub(super) fn validate(&self, head_dim: usize) -> Result<(), String> {
        if !(self.theta.is_finite() && self.theta > 0.0) {
            return Err(format!("the rotary setting `rope_theta` is {}; expected a number above 0", self.theta));
        }
        let width = self.rotary_width(head_dim);
        if !(0.0..=1.0).contains(&self.rotary_share) || width == 0 || !width.is_multiple_of(2) {
            return Err(format!(
                "`partial_rotary_factor` is {}, so that {width} of the {head_dim} elements of a head turn; expected an even number \
                 from 2 to {head_dim}",
                self.rotary_share
            ));
        }
        self.scaling.validate(width)?;
        // The settings may be in their ranges one by one, and yet make a frequency without bounds.
        let is_angle = |frequency: f64| (frequency as f32 * i32::MAX as f32).is_finite();
        let is_factor = |factor: f64| (factor as f32).is_normal();
        let mut frequencies =
            self.inv_freq(head_dim).into_iter().chain(self.long_inv_freq(head_dim).unwrap_or_default());
        if frequencies.all(is_angle) && is_factor(self.magnitude()) {
            Ok(())
        } else {
            Err("its rotary settings make angles that are no finite numbers".to_owned())
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
            rotary_share: 1.0,
            scaling: RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            },
        };
        let plain = RopeConfig { scaling: RopeScaling::Default, ..rope.clone() };
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
        let rope = RopeConfig { theta: 100.0, rotary_share: 1.0, scaling: RopeScaling::Linear { factor: 4.0 } };
        for (found, expected) in rope.inv_freq(4).into_iter().zip([1.0 / 4.0, 0.1 / 4.0]) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
    }
}

//! Mean and standard deviation of a model's rewards, stored with the model.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use setpoint_align::mean_std;
use setpoint_transformer::ModelConfig;

use crate::error::Error;

/// The key of `config.json`; transformers keeps it and looks no further.
const KEY: &str = "setpoint_reward";

/// Mean and standard deviation of the rewards on some data, to bring a model's scores to a known scale.
///
/// Bradley–Terry training fixes neither the level of a reward nor, on few data, its scale; `β` and `log_z0` are in units of the
/// reward. Stored in the model's `config.json` as `"setpoint_reward": {"mean": …, "std": …}`.
///
/// # Example
/// ```
/// use setpoint_reward::Normalization;
///
/// let scale = Normalization::of(&[1.0, 5.0])?;
/// assert_eq!((scale.mean, scale.std), (3.0, 2.0));
/// assert_eq!(scale.apply(7.0), 2.0);
/// # Ok::<(), setpoint_reward::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Mean of the raw scores.
    pub mean: f64,
    /// Standard deviation of the raw scores (of the population, divided by n).
    pub std: f64,
}

impl Normalization {
    /// Mean and standard deviation of `rewards`.
    ///
    /// # Errors
    /// [`Error::Normalization`] where there are none, where they do not vary, or where one is not finite.
    pub fn of(rewards: &[f64]) -> Result<Self, Error> {
        let (mean, std) = mean_std(rewards);
        Self { mean, std }.checked(|| format!("{} reward(s)", rewards.len()))
    }

    /// `(reward − mean) / std`.
    pub fn apply(&self, reward: f64) -> f64 {
        (reward - self.mean) / self.std
    }

    /// Reads the normalisation that `config` stores, if anything.
    ///
    /// # Errors
    /// [`Error::Normalization`] where the key holds something else.
    pub fn read(config: &ModelConfig) -> Result<Option<Self>, Error> {
        let place = || format!("config.json, `{KEY}`");
        match config.extra(KEY) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match serde_json::from_value::<Self>(value.clone()) {
                Ok(found) => found.checked(place).map(Some),
                Err(_) => Err(Error::Normalization { place: place(), found: value.to_string() }),
            },
        }
    }

    /// Stores `normalization` in `config`, or takes what is stored out of use.
    pub fn write(normalization: Option<Self>, config: &mut ModelConfig) {
        match normalization {
            Some(Self { mean, std }) => config.set_extra(KEY, json!({"mean": mean, "std": std})),
            None if config.extra(KEY).is_some() => config.set_extra(KEY, Value::Null),
            None => {}
        }
    }

    fn checked(self, place: impl Fn() -> String) -> Result<Self, Error> {
        if self.mean.is_finite() && self.std.is_finite() && self.std > 0.0 {
            Ok(self)
        } else {
            Err(Error::Normalization { place: place(), found: format!("mean {}, std {}", self.mean, self.std) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> ModelConfig {
        ModelConfig::from_json(&format!(
            r#"{{"architectures": ["LlamaForSequenceClassification"], "model_type": "llama", "vocab_size": 16,
                "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 1{extra}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn normalised_rewards_have_mean_0_and_deviation_1() {
        let raw = [0.5, -2.0, 7.25, 3.0];
        let scale = Normalization::of(&raw).unwrap();
        let scaled = Normalization::of(&raw.map(|r| scale.apply(r))).unwrap();
        assert!(scaled.mean.abs() < 1e-15 && (scaled.std - 1.0).abs() < 1e-15);
    }

    #[test]
    fn config_round_trip() {
        let mut stored = config("");
        Normalization::write(None, &mut stored);
        assert_eq!(stored, config(""), "nothing to take out");
        assert_eq!(Normalization::read(&stored).unwrap(), None);
        let scale = Normalization { mean: 1.0 / 3.0, std: 2.5 };
        Normalization::write(Some(scale), &mut stored);
        let again = ModelConfig::from_json(&stored.to_json().to_string()).unwrap();
        assert_eq!(Normalization::read(&again).unwrap(), Some(scale));
        Normalization::write(None, &mut stored);
        assert_eq!(Normalization::read(&stored).unwrap(), None);
    }

    #[test]
    fn what_cannot_normalise_is_refused() {
        for rewards in [&[][..], &[2.0][..], &[2.0, 2.0][..], &[1.0, f64::NAN][..]] {
            assert!(matches!(Normalization::of(rewards), Err(Error::Normalization { .. })), "{rewards:?}");
        }
        for value in ["5", r#"{"mean": 1}"#, r#"{"mean": 1, "std": 0}"#, r#"{"mean": 1, "std": 2, "scale": 3}"#] {
            let error = Normalization::read(&config(&format!(r#", "setpoint_reward": {value}"#))).unwrap_err();
            assert!(error.to_string().contains("setpoint_reward"), "{error}");
        }
    }
}

//! The level of all targets: `log_z0`, the log-normaliser of the common prefix `t0`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;
use crate::prompt_rewards::{PromptRewards, chosen_rewards};
use crate::settings::{FINITE, POSITIVE};
use crate::summary::mean;

/// The rule that sets `log_z0`.
///
/// `log Z_0` cannot be computed (its sum runs over all texts), so the paper makes it a setting. It
/// is a logarithm, in nats: the paper searches [-50, 500] and reports "Z_0 = 50".
///
/// In a config file: a number of nats, `"mean"`, `"keep_chosen"`, `{ keep_chosen = 2.0 }`, `"per_prompt"` or
/// `{ break_even_reward = 5.0 }`. `"auto"` and `{ auto = 2.0 }` are former names of `keep_chosen`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LogZ0 {
    /// This many nats.
    Nats(f64),
    /// The reward that leaves a response's probability where it is: `log_z0 = reward/β`.
    BreakEvenReward(f64),
    /// The mean reward of all responses breaks even: better ones gain probability, worse ones lose
    /// it. The default.
    Mean,
    /// The mean target of the chosen responses is this many nats of log-ratio; 0 keeps their mean
    /// log-probability. No longer recommended: chosen responses should gain, and a level this high
    /// says that responses outside the file are better than those in it.
    KeepChosen {
        /// The wanted mean target of the chosen responses, nats.
        chosen_shift: f64,
    },
    /// log Z(x) of each prompt, estimated from samples of the reference model ([`prompt_log_z`](crate::prompt_log_z)).
    PerPrompt,
    /// [`LogZ0::KeepChosen`] under its former name. It is written back as it was read, so that
    /// the settings of older runs stay what they were.
    Auto {
        /// The wanted mean target of the chosen responses, nats.
        chosen_shift: f64,
    },
}

impl LogZ0 {
    /// `"keep_chosen"`: the chosen responses keep their mean log-probability.
    pub const KEEP_CHOSEN: Self = Self::KeepChosen { chosen_shift: 0.0 };
    /// `"auto"`, the former name of [`LogZ0::KEEP_CHOSEN`].
    pub const AUTO: Self = Self::Auto { chosen_shift: 0.0 };

    /// The rewards that the level follows from: all of them for [`LogZ0::Mean`], those of the chosen
    /// responses ([`chosen_rewards`]) for [`LogZ0::KeepChosen`], none for the others.
    pub fn basis(self, data: &[PromptRewards]) -> Vec<f64> {
        match self {
            Self::Nats(_) | Self::BreakEvenReward(_) | Self::PerPrompt => Vec::new(),
            Self::Mean => data.iter().flat_map(|prompt| prompt.rewards.iter().copied()).collect(),
            Self::KeepChosen { .. } | Self::Auto { .. } => chosen_rewards(data),
        }
    }

    /// Returns whether the level follows from the rewards.
    pub fn needs_rewards(self) -> bool {
        !matches!(self, Self::Nats(_) | Self::BreakEvenReward(_) | Self::PerPrompt)
    }

    /// The number of nats that all prompts share, given the rewards that it follows from ([`LogZ0::basis`]), transformed
    /// and scaled.
    ///
    /// ```text
    /// mean:         log_z0 = mean(r)/β
    /// keep_chosen:  mean over chosen of (r/β − log_z0) = chosen_shift   ⇒   log_z0 = mean(r_chosen)/β − chosen_shift
    /// ```
    ///
    /// With [`LogZ0::PerPrompt`] prompts share no level, and it is 0.
    ///
    /// # Errors
    /// [`Error::Setting`] for a β or number out of range, and for a level that is not finite;
    /// [`Error::Empty`] where there are no rewards to take it from.
    ///
    /// ```
    /// use setpoint_align::{LogZ0, PromptRewards};
    ///
    /// assert_eq!(LogZ0::BreakEvenReward(5.0).resolve(0.1, &[])?, 50.0);
    /// let data = [PromptRewards::new(0, vec![1.0, 0.0]), PromptRewards::new(1, vec![3.0])];
    /// let level = |log_z0: LogZ0| log_z0.resolve(0.5, &log_z0.basis(&data));
    /// assert_eq!(level(LogZ0::Mean)?, 4.0 / 3.0 / 0.5);
    /// assert_eq!(level(LogZ0::KEEP_CHOSEN)?, 4.0);
    /// # Ok::<(), setpoint_align::Error>(())
    /// ```
    pub fn resolve(self, beta: f64, rewards: &[f64]) -> Result<f64, Error> {
        POSITIVE.check("beta", &beta)?;
        let (name, log_z0) = match self {
            Self::Nats(nats) => ("log_z0", nats),
            Self::PerPrompt => ("log_z0", 0.0),
            Self::BreakEvenReward(reward) => ("break_even_reward", log_z0_of(reward, beta)),
            Self::Mean => {
                let mean = mean(rewards).ok_or(Error::Empty { what: "`log_z0 = \"mean\"` (rewards)" })?;
                ("log_z0 (mean)", log_z0_of(mean, beta))
            }
            Self::KeepChosen { chosen_shift } | Self::Auto { chosen_shift } => {
                FINITE.check("log_z0.keep_chosen", &chosen_shift)?;
                let mean =
                    mean(rewards).ok_or(Error::Empty { what: "`log_z0 = \"keep_chosen\"` (chosen responses)" })?;
                ("log_z0 (keep_chosen)", log_z0_of(mean, beta) - chosen_shift)
            }
        };
        FINITE.check(name, &log_z0)?;
        Ok(log_z0)
    }
}

/// The reward at which a response keeps its probability: `β·log_z0`.
///
/// # Units
/// β: reward per nat; `log_z0`: nats.
pub fn break_even_reward(log_z0: f64, beta: f64) -> f64 {
    beta * log_z0
}

/// The inverse of [`break_even_reward`]: `reward/β`, nats.
pub fn log_z0_of(break_even_reward: f64, beta: f64) -> f64 {
    break_even_reward / beta
}

impl Serialize for LogZ0 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let table = |serializer: S, key, value: f64| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(key, &value)?;
            map.end()
        };
        match *self {
            Self::Nats(nats) => serializer.serialize_f64(nats),
            Self::Mean => serializer.serialize_str("mean"),
            Self::PerPrompt => serializer.serialize_str("per_prompt"),
            Self::KeepChosen { chosen_shift: 0.0 } => serializer.serialize_str("keep_chosen"),
            Self::KeepChosen { chosen_shift } => table(serializer, "keep_chosen", chosen_shift),
            Self::Auto { chosen_shift: 0.0 } => serializer.serialize_str("auto"),
            Self::Auto { chosen_shift } => table(serializer, "auto", chosen_shift),
            Self::BreakEvenReward(reward) => table(serializer, "break_even_reward", reward),
        }
    }
}

impl<'de> Deserialize<'de> for LogZ0 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LogZ0Visitor)
    }
}

impl JsonSchema for LogZ0 {
    fn schema_name() -> Cow<'static, str> {
        "LogZ0".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                { "description": "A number of nats.", "type": "number" },
                { "description": "The mean reward keeps its probability.", "type": "string", "const": "mean" },
                {
                    "description": "Chosen responses keep their probability on average.",
                    "type": "string",
                    "const": "keep_chosen",
                },
                {
                    "description": "Chosen responses gain this many nats on average.",
                    "type": "object",
                    "properties": { "keep_chosen": { "type": "number" } },
                    "additionalProperties": false,
                },
                {
                    "description": "Each prompt has its own level, estimated from samples of the reference model.",
                    "type": "string",
                    "const": "per_prompt",
                },
                {
                    "description": "A response with this reward keeps its probability.",
                    "type": "object",
                    "properties": { "break_even_reward": { "type": "number" } },
                    "additionalProperties": false,
                },
            ],
        })
    }
}

struct LogZ0Visitor;

impl<'de> Visitor<'de> for LogZ0Visitor {
    type Value = LogZ0;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "a number of nats, \"mean\", \"keep_chosen\", { keep_chosen = nats }, \"per_prompt\" or \
             { break_even_reward = reward }",
        )
    }

    fn visit_f64<E: de::Error>(self, nats: f64) -> Result<LogZ0, E> {
        Ok(LogZ0::Nats(nats))
    }

    fn visit_i64<E: de::Error>(self, nats: i64) -> Result<LogZ0, E> {
        Ok(LogZ0::Nats(nats as f64))
    }

    fn visit_u64<E: de::Error>(self, nats: u64) -> Result<LogZ0, E> {
        Ok(LogZ0::Nats(nats as f64))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<LogZ0, E> {
        match text {
            "mean" => Ok(LogZ0::Mean),
            "per_prompt" => Ok(LogZ0::PerPrompt),
            "keep_chosen" => Ok(LogZ0::KEEP_CHOSEN),
            "auto" => Ok(LogZ0::AUTO),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LogZ0, A::Error> {
        let Some(key) = map.next_key::<String>()? else {
            return Err(de::Error::invalid_length(0, &self));
        };
        let value = match key.as_str() {
            "keep_chosen" => LogZ0::KeepChosen { chosen_shift: map.next_value()? },
            "auto" => LogZ0::Auto { chosen_shift: map.next_value()? },
            "break_even_reward" => LogZ0::BreakEvenReward(map.next_value()?),
            other => return Err(de::Error::unknown_field(other, &["keep_chosen", "break_even_reward"])),
        };
        match map.next_key::<String>()? {
            None => Ok(value),
            Some(_) => Err(de::Error::invalid_length(2, &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Config {
        log_z0: LogZ0,
    }

    fn parse(value: &str) -> Result<LogZ0, String> {
        toml::from_str::<Config>(&format!("log_z0 = {value}"))
            .map(|config| config.log_z0)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn keep_chosen_puts_the_mean_target_of_the_chosen_where_asked() {
        let (beta, chosen) = (0.1, [1.5, -0.25, 3.0]);
        for chosen_shift in [0.0, 2.5, -7.0] {
            let log_z0 = LogZ0::KeepChosen { chosen_shift }.resolve(beta, &chosen).unwrap();
            let mean = chosen.iter().map(|r| r / beta - log_z0).sum::<f64>() / 3.0;
            assert!((mean - chosen_shift).abs() < 1e-12);
            assert_eq!(LogZ0::Auto { chosen_shift }.resolve(beta, &chosen), Ok(log_z0));
        }
    }

    #[test]
    fn mean_breaks_even_at_the_mean_of_all_responses() {
        // Every response counts once, however many its prompt has: (4 + 1 + 1 + 10)/4 = 4.
        let data = [PromptRewards::new(0, vec![4.0, 1.0, 1.0]), PromptRewards::new(1, vec![10.0])];
        let log_z0 = LogZ0::Mean.resolve(0.5, &LogZ0::Mean.basis(&data)).unwrap();
        assert_eq!((log_z0, break_even_reward(log_z0, 0.5)), (8.0, 4.0));
        // The chosen ones are 4 and 10.
        assert_eq!(LogZ0::KEEP_CHOSEN.resolve(0.5, &LogZ0::KEEP_CHOSEN.basis(&data)), Ok(14.0));
        assert!(LogZ0::Nats(1.0).basis(&data).is_empty() && LogZ0::BreakEvenReward(1.0).basis(&data).is_empty());
    }

    #[test]
    fn a_level_beyond_all_numbers_is_an_error_and_a_mean_beyond_its_sum_is_not() {
        let mean = LogZ0::Mean.resolve(1.0, &[1.5e308, 1.5e308, -1.5e308]).unwrap();
        assert!((mean / 5e307 - 1.0).abs() < 1e-12, "{mean}");
        for level in [LogZ0::Mean, LogZ0::KEEP_CHOSEN] {
            let error = level.resolve(0.001, &[1e308, 1e308]).unwrap_err();
            assert!(matches!(error, Error::Setting { .. }), "{error}");
        }
    }

    #[test]
    fn break_even_reward_and_back() {
        assert_eq!(break_even_reward(50.0, 0.1), 5.0);
        let log_z0 = LogZ0::BreakEvenReward(-1.25).resolve(0.05, &[]).unwrap();
        assert!((break_even_reward(log_z0, 0.05) + 1.25).abs() < 1e-15);
    }

    #[test]
    fn bad_values_are_named() {
        let name = |setting: LogZ0, beta| match setting.resolve(beta, &[1.0]) {
            Err(Error::Setting { name, .. }) => name,
            other => panic!("expected a setting error, found {other:?}"),
        };
        assert_eq!(name(LogZ0::Nats(1.0), -0.1), "beta");
        assert_eq!(name(LogZ0::Nats(f64::NAN), 0.1), "log_z0");
        assert_eq!(name(LogZ0::BreakEvenReward(f64::INFINITY), 0.1), "break_even_reward");
        assert_eq!(name(LogZ0::KeepChosen { chosen_shift: f64::NAN }, 0.1), "log_z0.keep_chosen");
        for level in [LogZ0::Mean, LogZ0::KEEP_CHOSEN, LogZ0::AUTO] {
            assert!(matches!(level.resolve(0.1, &[]), Err(Error::Empty { .. })));
        }
    }

    #[test]
    fn forms_in_config_files() {
        let forms = [
            ("50", LogZ0::Nats(50.0)),
            ("-3.5", LogZ0::Nats(-3.5)),
            ("\"mean\"", LogZ0::Mean),
            ("\"keep_chosen\"", LogZ0::KEEP_CHOSEN),
            ("{ keep_chosen = -1.5 }", LogZ0::KeepChosen { chosen_shift: -1.5 }),
            ("\"per_prompt\"", LogZ0::PerPrompt),
            ("\"auto\"", LogZ0::AUTO),
            ("{ auto = 2 }", LogZ0::Auto { chosen_shift: 2.0 }),
            ("{ break_even_reward = 5.0 }", LogZ0::BreakEvenReward(5.0)),
        ];
        for (text, value) in forms {
            assert_eq!(parse(text).as_ref(), Ok(&value), "{text}");
            let written = toml::to_string(&Config { log_z0: value }).unwrap();
            assert_eq!(toml::from_str::<Config>(&written).unwrap().log_z0, value, "{written}");
            // As it was read: the settings of an older run stay the same text.
            let word = text.trim_matches(|c: char| !c.is_ascii_alphabetic()).split(' ').next().unwrap();
            assert!(written.contains(word), "{text} became {written}");
        }
        for text in ["\"automatic\"", "true", "{}", "{ z = 1.0 }", "{ auto = 1.0, break_even_reward = 2.0 }"] {
            parse(text).expect_err(text);
        }
        assert!(parse("\"automatic\"").unwrap_err().contains("a number of nats, \"mean\""));
    }
}

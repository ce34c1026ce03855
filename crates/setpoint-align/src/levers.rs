//! The settings that advice names, as the method and its settings have them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::log_z0::LogZ0;
use crate::method::Training;
use crate::objectives::Method;

/// The setting that keeps the policy near its reference: a larger number keeps it nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closeness {
    /// `align.beta`.
    #[default]
    Beta,
    /// `align.beta_sigma`: β as a share of the rewards' standard deviation.
    BetaSigma,
    /// β of each loss of a mixture.
    Losses,
    /// `align.kl_coef`.
    KlCoef,
}

impl fmt::Display for Closeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Beta => "align.beta",
            Self::BetaSigma => "align.beta_sigma",
            Self::Losses => "beta in align.losses",
            Self::KlCoef => "align.kl_coef",
        })
    }
}

/// The setting that gives the targets their level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelSetting {
    /// `align.log_z0`.
    #[default]
    LogZ0,
    /// `align.break_even_reward`.
    BreakEvenReward,
}

impl LevelSetting {
    /// Returns the setting that a level was given by.
    pub fn of(level: LogZ0) -> Self {
        match level {
            LogZ0::BreakEvenReward(_) => Self::BreakEvenReward,
            _ => Self::LogZ0,
        }
    }

    /// Returns its name within the section.
    pub fn name(self) -> &'static str {
        match self {
            Self::LogZ0 => "log_z0",
            Self::BreakEvenReward => "break_even_reward",
        }
    }
}

/// The settings of a method that change how far the policy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Levers {
    /// The setting that keeps the policy near its reference; none without a reference.
    pub closeness: Option<Closeness>,
    /// The setting of the targets' level, for methods with targets.
    pub level: LevelSetting,
    /// True if the method has `align.clip_high`.
    pub clip_high: bool,
}

impl Method {
    /// Returns the settings that advice about a run of the method names.
    pub fn levers(&self) -> Levers {
        let closeness = match self {
            Self::Ppo(_) | Self::ReinforcePp(_) => Some(Closeness::KlCoef),
            // A coefficient of 0 can be raised.
            Self::Rloo(_) | Self::Grpo(_) => Some(Closeness::Beta),
            _ if !self.about().reference => None,
            Self::Mix(_) => Some(Closeness::Losses),
            Self::Dro(settings) if settings.beta_sigma.is_some() => Some(Closeness::BetaSigma),
            _ => Some(Closeness::Beta),
        };
        Levers {
            closeness,
            level: self.level().map(LevelSetting::of).unwrap_or_default(),
            clip_high: matches!(self.training(), Training::Sampled(_)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Mix;
    use crate::objectives::{Dro, SAMPLED_METHODS};

    #[test]
    fn advice_names_the_settings_that_the_method_has() {
        let closeness = |method: Method| method.levers().closeness.map(|setting| setting.to_string());
        for (names, expected) in [
            (&["dpo", "dro", "dro_v", "kto", "grpo", "rloo"][..], Some("align.beta")),
            (&["ppo", "reinforce_pp"], Some("align.kl_coef")),
            (&["orpo", "nll"], None),
        ] {
            for name in names {
                let method = Method::named(name).unwrap();
                assert_eq!(method.levers().clip_high, SAMPLED_METHODS.contains(name), "{name}");
                assert_eq!(closeness(method).as_deref(), expected, "{name}");
            }
        }
        let share = Dro { beta: None, beta_sigma: Some(0.2), ..Dro::default() };
        assert_eq!(closeness(Method::Dro(share)).as_deref(), Some("align.beta_sigma"));
        let losses = ["dpo", "ipo"].map(|name| toml::from_str(&format!("method = \"{name}\"")).unwrap());
        let mix = Mix { losses: losses.into(), ..Mix::default() };
        assert_eq!(closeness(Method::Mix(mix)).as_deref(), Some("beta in align.losses"));
        let level = |method: Method| method.levers().level.name();
        let reward = Dro { log_z0: None, break_even_reward: Some(1.0), ..Dro::default() };
        assert_eq!(level(Method::Dro(reward)), "break_even_reward");
        assert_eq!((level(Method::Dro(Dro::default())), level(Method::named("kto").unwrap())), ("log_z0", "log_z0"));
    }
}

//! The list of online methods.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::grpo::GrpoSettings;
use super::objective::OnlineObjective;
use super::ppo::PpoSettings;
use super::reinforce_pp::ReinforcePpSettings;
use super::rloo::RlooSettings;
use crate::objective::{About, TrainsOn};
use crate::settings::{Problem, Settings};

/// Declares the online methods: `Variant(Settings) = "name" or "alias";`.
macro_rules! online_methods {
    ($($variant:ident($settings:ident) = $name:literal $(or $alias:literal)*;)+) => {
        /// An online method and its settings, as a section of a config file with the key `method`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "method")]
        pub enum OnlineMethod {
            $(#[doc = concat!("`", $name, "`")] #[serde(rename = $name $(, alias = $alias)*)] $variant($settings),)+
        }

        /// Every online method.
        pub const ONLINE_METHODS: &[About] = &[
            $(About::of::<$settings>($name, &[$($alias),*], TrainsOn::Prompts),)+
        ];

        impl OnlineMethod {
            /// Returns the method of a name, with its defaults.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($name $(| $alias)* => Some(Self::$variant(Default::default())),)+
                    _ => None,
                }
            }

            /// Returns its name in a config file.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// Returns the method as the training loop needs it.
            pub fn objective(&self) -> Box<dyn OnlineObjective> {
                match self {
                    $(Self::$variant(settings) => Box::new(settings.clone()),)+
                }
            }

            fn settings(&self) -> &dyn Settings {
                match self {
                    $(Self::$variant(settings) => settings,)+
                }
            }
        }
    };
}

online_methods! {
    Ppo(PpoSettings) = "ppo" or "rlhf";
    Rloo(RlooSettings) = "rloo";
    Grpo(GrpoSettings) = "grpo";
    ReinforcePp(ReinforcePpSettings) = "reinforce_pp";
}

impl OnlineMethod {
    /// Describes the method. Without a weight on the KL divergence it needs no reference.
    pub fn about(&self) -> About {
        let own = ONLINE_METHODS.iter().copied().find(|about| about.name == self.name()).unwrap_or(ONLINE_METHODS[0]);
        About { reference: self.objective().uses_reference(), ..own }
    }

    /// Returns the settings of PPO, if it is that.
    pub fn ppo(&self) -> Option<&PpoSettings> {
        match self {
            Self::Ppo(settings) => Some(settings),
            _ => None,
        }
    }

    /// Returns everything that is wrong with its settings.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.settings().problems();
        problems.extend(self.objective().problems());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OnlineMethod, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn every_method_comes_back_from_a_config_file() {
        for about in ONLINE_METHODS {
            let method = OnlineMethod::named(about.name).unwrap();
            assert_eq!((method.name(), method.about().title), (about.name, about.title));
            assert_eq!(read(&toml::to_string(&method).unwrap()).unwrap(), method, "{}", about.name);
            assert_eq!(read(&format!("method = \"{}\"", about.name)).unwrap(), method);
            assert!(method.problems().is_empty(), "{}: {:?}", about.name, method.problems());
            assert!(read(&format!("method = \"{}\"\nbetta = 1.0", about.name)).is_err(), "{}", about.name);
            assert!(method.objective().least_samples() <= method.objective().samples());
        }
        assert_eq!(read("method = \"rlhf\"").unwrap(), OnlineMethod::named("ppo").unwrap());
        assert_eq!(OnlineMethod::named("rlhf"), OnlineMethod::named("ppo"));
        assert_eq!(OnlineMethod::named("dpo"), None);
    }

    #[test]
    fn settings_that_cannot_be_meant_are_named() {
        for (text, part) in [
            ("method = \"ppo\"\nlambda = 1.5", "`lambda` must be from 0 to 1, found 1.5"),
            ("method = \"ppo\"\nkl_coef = -0.1", "`kl_coef` must be a finite number of at least 0"),
            ("method = \"ppo\"\nclip = 1.0", "`clip` must be above 0 and below 1"),
            ("method = \"ppo\"\nkl_target = 0.0", "`kl_target`"),
            ("method = \"ppo\"\nkl_target = 6.0\nkl_coef = 0.0", "set `kl_coef` to a number to start from"),
            ("method = \"reinforce_pp\"\nkl_target = 6.0\nkl_coef = 0.0", "set `kl_coef` to a number to start from"),
            ("method = \"ppo\"\nratio_cap = 1.1", "`ratio_cap` must be above 1 + clip_high = 1.2, found 1.1"),
            ("method = \"grpo\"\nratio_cap = 0.5", "`ratio_cap` must be a finite number above 1, found 0.5"),
            ("method = \"grpo\"\nloss = \"cispo\"", "needs `clip_high`"),
            ("method = \"grpo\"\nloss = \"cispo\"\nclip_high = 5.0\nratio_cap = 8.0", "has no effect"),
            ("method = \"rloo\"\nreward_clip = [1.0, -1.0]", "a range [low, high] with low <= high, found [1, -1]"),
            ("method = \"rloo\"\nreward_clip = [-inf, 1.0]", "`reward_clip` must be a finite number"),
        ] {
            let problems = read(text).unwrap().problems();
            assert!(problems.iter().any(|problem| problem.message.contains(part)), "{text}: {problems:?}");
        }
        for text in [
            "method = \"grpo\"\nloss = \"bnpo\"",
            "method = \"grpo\"\nscale_rewards = \"groups\"",
            "method = \"ppo\"\nkl_estimator = \"k2\"",
            "method = \"ppo\"\nreward_at = \"end\"",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let path = read("method = \"ppo\"\nvalue_init = \"runs/reward/model\"").unwrap();
        assert_eq!(path.ppo().unwrap().value_init, super::super::ValueInit::Path("runs/reward/model".into()));
    }

    #[test]
    fn a_coefficient_of_0_needs_no_reference() {
        assert!(!OnlineMethod::named("grpo").unwrap().about().reference);
        assert!(OnlineMethod::named("ppo").unwrap().about().reference);
        let without = read("method = \"rloo\"\nbeta = 0.0").unwrap();
        assert!(!without.about().reference && !without.objective().uses_reference());
    }
}

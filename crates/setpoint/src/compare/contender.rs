//! A side of a comparison: a method on the responses of the file, or on those that the policy samples.

use setpoint_align::{Method, Training};

use crate::align::{AlignConfig, respell_method};

/// The beginning of the name of a method of files that is trained in rounds.
const IN_ROUNDS: &str = "online_";

/// A method as `compare.methods` names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// The method with its defaults.
    pub method: Method,
    /// True if the policy samples the responses: for every method that trains on no others, and for one of files in rounds.
    pub samples: bool,
}

impl Contender {
    /// Returns the contender of a name: that of a method, or `online_` and that of a method of files.
    pub fn named(name: &str) -> Option<Self> {
        if let Some(method) = Method::named(name) {
            return Some(Self { samples: samples_alone(&method), method });
        }
        let method = name.strip_prefix(IN_ROUNDS).and_then(Method::named)?;
        (!samples_alone(&method)).then_some(Self { method, samples: true })
    }

    /// Returns the contender that a training is of.
    pub fn of(config: &AlignConfig) -> Self {
        Self { method: config.align.clone(), samples: config.is_in_rounds() }
    }

    /// Returns its name, the same for every alias.
    pub fn name(&self) -> String {
        let in_rounds = self.samples && !samples_alone(&self.method);
        format!("{}{}", if in_rounds { IN_ROUNDS } else { "" }, self.method.name())
    }
}

/// Returns whether a method trains on responses that the policy samples, and on no others.
fn samples_alone(method: &Method) -> bool {
    matches!(method.training(), Training::Sampled(_))
}

/// Replaces another spelling of a contender's name.
pub fn respell_contender(name: &mut String) {
    respell_method(name);
    let plain = name.trim().to_lowercase().replace(['-', ' '], "_");
    if let Some(method) = plain.strip_prefix(IN_ROUNDS) {
        let mut method = method.to_owned();
        respell_method(&mut method);
        *name = format!("{IN_ROUNDS}{method}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_of_files_has_a_second_name_for_rounds() {
        for (name, own, samples) in [
            ("dpo", "dpo", false),
            ("rao", "dro", false),
            ("online_dpo", "online_dpo", true),
            ("online_rao", "online_dro", true),
            ("rlhf", "ppo", true),
            ("grpo", "grpo", true),
        ] {
            let found = Contender::named(name).unwrap();
            assert_eq!((found.name().as_str(), found.samples), (own, samples), "{name}");
            let config = AlignConfig {
                align: found.method.clone(),
                rounds: found.samples.then_some(3),
                ..AlignConfig::default()
            };
            assert_eq!(Contender::of(&config), found, "{name}");
        }
        for name in ["online_ppo", "online_", "online", "online_sipmo", "dpo_online"] {
            assert_eq!(Contender::named(name), None, "{name}");
        }
        for (other, name) in
            [("Online-DPO", "online_dpo"), ("DPO", "dpo"), ("online_x", "online_x"), ("sipmo", "sipmo")]
        {
            let mut found = other.to_owned();
            respell_contender(&mut found);
            assert_eq!(found, name);
        }
    }
}

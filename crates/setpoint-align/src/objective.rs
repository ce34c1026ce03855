//! The facts that every objective states about itself.

use serde::Serialize;

use crate::settings::Settings;

/// An objective of the list in `objectives/mod.rs`, by its settings: its title, where it comes from and what it needs.
pub trait Objective: Settings + Default {
    /// The title in tables.
    const TITLE: &'static str;
    /// The paper that it comes from.
    const SOURCE: &'static str;
    /// True for an objective with a reference model.
    const REFERENCE: bool = true;
    /// True for an objective that needs rewards; for others, pairs and labels may still be formed from them.
    const REWARDS: bool = false;
    /// The settings that `setpoint compare` varies.
    const SEARCH: &'static [Axis] = &[Axis::BETA];
    /// Other defaults than the usual ones, by name.
    const PRESETS: &'static [Preset] = &[];
    /// Settings of which a config file gives one: each drops the default of the other.
    const ALTERNATIVES: &'static [[&'static str; 2]] = &[];
}

/// Describes an objective: what it is and what it needs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct About {
    /// Its name in a config file.
    pub name: &'static str,
    /// The title in tables.
    pub title: &'static str,
    /// The paper that it comes from.
    pub source: &'static str,
    /// The examples that it is trained on.
    pub trains_on: TrainsOn,
    /// True if there is a reference model.
    pub reference: bool,
    /// True if rewards are needed; if not, pairs and labels may still be formed from them.
    pub rewards: bool,
    /// Other names.
    #[serde(skip)]
    pub aliases: &'static [&'static str],
    /// The settings that `setpoint compare` varies.
    #[serde(skip)]
    pub search: &'static [Axis],
    /// Other defaults than the usual ones.
    #[serde(skip)]
    pub presets: &'static [Preset],
    /// Settings of which a config file gives one.
    #[serde(skip)]
    pub alternatives: &'static [[&'static str; 2]],
}

impl About {
    /// Describes an objective under its name in the list.
    pub(crate) const fn of<O: Objective>(
        name: &'static str,
        aliases: &'static [&'static str],
        trains_on: TrainsOn,
    ) -> Self {
        Self {
            name,
            title: O::TITLE,
            source: O::SOURCE,
            trains_on,
            reference: O::REFERENCE,
            rewards: O::REWARDS,
            aliases,
            search: O::SEARCH,
            presets: O::PRESETS,
            alternatives: O::ALTERNATIVES,
        }
    }
}

/// The examples that an objective is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainsOn {
    /// All responses of a prompt at once.
    Responses,
    /// Pairs of responses.
    Pairs,
    /// Single responses.
    Rows,
    /// The best response of each prompt.
    Best,
    /// Prompts alone: the responses are sampled during training ([`crate::online`]).
    Prompts,
}

/// The value of a setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A name.
    Name(&'static str),
}

/// A setting that `setpoint compare` varies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    /// The setting, as in a config file.
    pub key: &'static str,
    /// The values that are tried.
    pub values: Values,
    /// The setting that the values are divided by, for a ratio whose values are listed as multiples.
    pub divided_by: Option<&'static str>,
}

/// The values of a setting that are tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// Numbers.
    Numbers(&'static [f64]),
    /// Names.
    Names(&'static [&'static str]),
}

impl Axis {
    /// The β of the methods in Table 4 of the DRO paper.
    pub const BETA: Self = Self::numbers("align.beta", &[0.05, 0.1, 0.5, 1.0]);
    /// The learning rates of DPO, IPO and DRO in the same table.
    pub const RATE: Self = Self::rates(&[1e-7, 2e-7, 5e-7, 1e-6]);

    /// Tries a setting with some numbers.
    pub const fn numbers(key: &'static str, values: &'static [f64]) -> Self {
        Self { key, values: Values::Numbers(values), divided_by: None }
    }

    /// Tries a setting with some names.
    pub const fn names(key: &'static str, values: &'static [&'static str]) -> Self {
        Self { key, values: Values::Names(values), divided_by: None }
    }

    /// Tries some learning rates.
    pub const fn rates(values: &'static [f64]) -> Self {
        Self::numbers("train.learning_rate", values)
    }

    /// Takes the values as multiples of another setting.
    #[must_use]
    pub const fn divided_by(self, key: &'static str) -> Self {
        Self { divided_by: Some(key), ..self }
    }
}

/// Defaults with a name, such as those of a paper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// Its name in a config file.
    pub name: &'static str,
    /// Its settings.
    pub settings: &'static [(&'static str, Value)],
}

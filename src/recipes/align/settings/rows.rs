//! Settings of the methods on single rows.

use serde::{Deserialize, Serialize};
use setpoint_align::KtoSettings;

/// Settings of KTO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KtoSection {
    /// Strength of the pull to the reference.
    pub beta: f64,
    /// Weight of desirable rows.
    pub desirable_weight: f64,
    /// Weight of undesirable rows.
    pub undesirable_weight: f64,
    /// Which responses are desirable where the data has rewards and no labels: `"best"` of a prompt, or `{ above = reward }`.
    pub desirable: Desirable,
}

impl Default for KtoSection {
    fn default() -> Self {
        let KtoSettings { beta, desirable_weight, undesirable_weight } = KtoSettings::default();
        Self { beta, desirable_weight, undesirable_weight, desirable: Desirable::Best }
    }
}

impl KtoSection {
    /// The settings of the objective.
    pub fn objective(&self) -> KtoSettings {
        let Self { beta, desirable_weight, undesirable_weight, .. } = *self;
        KtoSettings { beta, desirable_weight, undesirable_weight }
    }
}

/// Which responses are desirable, by their rewards.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desirable {
    /// The best of each prompt; what is worse is undesirable, and what ties with the best is left out.
    Best,
    /// Those with a greater reward than this; all others are undesirable.
    Above(f64),
}

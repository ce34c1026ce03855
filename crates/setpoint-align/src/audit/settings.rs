//! The settings of the audit.

use crate::levers::LevelSetting;
use crate::log_z0::LogZ0;

/// Settings of the audit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AuditSettings {
    /// Reward per nat.
    pub beta: f64,
    /// β as a share of the standard deviation of the rewards, if the settings give it so.
    pub beta_sigma: Option<f64>,
    /// The rule that sets `log_z0`.
    pub log_z0: LogZ0,
    /// Counts targets in nats per token.
    pub length_normalize: bool,
    /// The weight of a prompt's mean residual in the loss. At 0 the targets have no level.
    pub level_weight: f64,
    /// The number of infeasible prompts that the report lists, worst first.
    pub listed: usize,
}

impl AuditSettings {
    /// Settings of targets in nats per response that list the 20 worst prompts.
    pub fn new(beta: f64, log_z0: LogZ0) -> Self {
        Self { beta, beta_sigma: None, log_z0, length_normalize: false, level_weight: 1.0, listed: 20 }
    }

    /// Returns the name of the setting that gives β.
    pub(super) fn beta_setting(&self) -> &'static str {
        if self.beta_sigma.is_some() { "beta_sigma" } else { "beta" }
    }

    /// Returns the reward per nat of one unit of that setting.
    pub(super) fn beta_unit(&self) -> f64 {
        self.beta_sigma.map_or(1.0, |share| self.beta / share)
    }

    /// Returns the name of the setting that gives the level.
    pub(super) fn level_setting(&self) -> &'static str {
        LevelSetting::of(self.log_z0).name()
    }
}

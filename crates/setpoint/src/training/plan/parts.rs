//! The parts of several data sets in a plan.

use setpoint_data::EncodeReport;

use super::super::mix::Mix;
use super::RunPlan;

impl RunPlan {
    /// Returns the plan with the parts of the data sets, whose tokens an epoch has more or less often.
    #[must_use]
    pub fn mixed(mut self, mix: &Mix, report: &EncodeReport) -> Self {
        let all: usize = report.sets.iter().map(|set| set.tokens).sum();
        if mix.mixture.is_some() && all > 0 {
            let seen = mix.parts.iter().zip(&report.sets);
            let seen = seen.map(|(part, set)| set.tokens as f64 * part.visits as f64 / part.examples as f64);
            let seen: f64 = seen.sum();
            self.operations *= seen / all as f64;
            self.tokens = seen.round() as usize;
        }
        self.with_parts(mix)
    }

    /// Returns the plan with the parts of the data sets in an epoch over the prompts.
    #[must_use]
    pub fn with_parts(mut self, mix: &Mix) -> Self {
        self.parts.clone_from(&mix.parts);
        self
    }
}

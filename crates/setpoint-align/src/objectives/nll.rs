//! Maximum likelihood of each prompt's best response: the control of a comparison.

use crate::objective::{Axis, Objective};
use crate::settings::settings;

settings! {
    /// The settings of maximum likelihood of the best response, which has none.
    ///
    /// ```text
    /// L = −Σ_x log π_θ(best response of x | x) / number of their tokens
    /// ```
    ///
    /// This is supervised fine-tuning on the response that [`Preferences::best`](crate::Preferences::best) names: the sums run over the global
    /// batch, so it is a mean over tokens and not a mean of means. It tells what a preference loss adds to imitation of the best
    /// responses. Rejected responses and the reference play no part.
    pub struct NllSettings {}
}

impl Objective for NllSettings {
    const TITLE: &'static str = "maximum likelihood of the best response, a control";
    const SOURCE: &'static str = "supervised fine-tuning on the best of n";
    const REFERENCE: bool = false;
    const SEARCH: &'static [Axis] = &[Axis::RATE];
}

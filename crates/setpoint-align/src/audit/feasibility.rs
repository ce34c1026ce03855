//! Whether the targets of a prompt's responses fit into a probability distribution.

use serde::Serialize;

use super::PromptGroup;
use crate::summary::Summary;

/// A prompt is infeasible when its targets exceed all probability by more than this many nats:
/// targets that fill it exactly are feasible, and their sum may round to either side.
pub const FEASIBILITY_TOLERANCE: f64 = 1e-9;

/// A response with what decides its target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredResponse {
    /// `log π_ref(y|x)`, nats.
    pub ref_logp: f64,
    /// `r(x, y)`.
    pub reward: f64,
}

/// Whether the targets of all prompts are probabilities.
///
/// `Σ_y π_ref(y|x)·exp(r/β) ≤ exp(log Z)` over the distinct responses of a prompt. Where it fails
/// no policy has residual 0: the responses' target probabilities add up to more than 1, and the
/// remaining residual pulls on every parameter they share with the rest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Feasibility {
    /// Number of infeasible prompts.
    pub infeasible: usize,
    /// Their share of all prompts.
    pub infeasible_share: f64,
    /// The worst of them, at most as many as the settings list.
    pub worst: Vec<InfeasiblePrompt>,
    /// The smallest feasible `log_z0` of each prompt ([`prompt_log_mass`]), nats.
    pub log_mass: Summary,
    /// The smallest `log_z0` at which at least 99 % of the prompts are feasible, nats.
    pub log_mass_99: f64,
}

/// A prompt whose targets add up to more than all probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InfeasiblePrompt {
    /// The caller's number of the first row with this prompt.
    pub row: usize,
    /// The name of that row.
    pub name: String,
    /// Its number of distinct responses.
    pub responses: usize,
    /// Logarithm of the sum of its target probabilities, nats, above 0.
    pub excess: f64,
}

/// `log Σ_y π_ref(y|x)·exp(r(x,y)/β)` over the distinct responses of a prompt: the smallest
/// `log Z(x)` at which their targets are probabilities. Depends on the reference alone, so it can
/// be computed once and compared with `log Z(x)` during training (`dro/infeasible_frac`).
///
/// Negative infinity without responses.
///
/// # Units
/// Nats.
///
/// ```
/// use setpoint_align::{ScoredResponse, prompt_log_mass};
///
/// // π_ref = ¼ and ½, exp(r/β) = 2 and 1: ¼·2 + ½·1 = 1.
/// let responses = [
///     ScoredResponse { ref_logp: 0.25f64.ln(), reward: 0.1 * 2f64.ln() },
///     ScoredResponse { ref_logp: 0.5f64.ln(), reward: 0.0 },
/// ];
/// assert!(prompt_log_mass(&responses, 0.1).abs() < 1e-12);
/// ```
pub fn prompt_log_mass(responses: &[ScoredResponse], beta: f64) -> f64 {
    let exponent = |response: &ScoredResponse| response.ref_logp + response.reward / beta;
    let largest = responses.iter().map(exponent).fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    let sum: f64 = responses.iter().map(|response| (exponent(response) - largest).exp()).sum();
    largest + sum.ln()
}

impl Feasibility {
    /// Expects at least one group, each with a response.
    pub(super) fn of(groups: &[PromptGroup], beta: f64, log_z0: f64, listed: usize) -> Self {
        let masses: Vec<f64> = groups.iter().map(|group| prompt_log_mass(&group.responses, beta)).collect();
        let mut worst: Vec<InfeasiblePrompt> = groups
            .iter()
            .zip(&masses)
            .filter(|(_, mass)| *mass - log_z0 > FEASIBILITY_TOLERANCE)
            .map(|(group, mass)| InfeasiblePrompt {
                row: group.row,
                name: group.name.clone(),
                responses: group.responses.len(),
                excess: mass - log_z0,
            })
            .collect();
        worst.sort_by(|a, b| b.excess.total_cmp(&a.excess));
        let infeasible = worst.len();
        worst.truncate(listed);

        let mut sorted = masses.clone();
        sorted.sort_by(f64::total_cmp);
        // The smallest k with k/prompts ≥ 99 %, in integers.
        let needed = (groups.len() * 99).div_ceil(100);
        Self {
            infeasible,
            infeasible_share: infeasible as f64 / groups.len() as f64,
            worst,
            log_mass: Summary::of(&masses).expect("the audit has checked that there are rows"),
            log_mass_99: sorted[needed - 1],
        }
    }
}

//! The check that the targets of a prompt's responses fit into a probability distribution.

use serde::Serialize;

use super::{AuditSettings, Groups, PromptGroup};
use crate::prompt_log_z::PromptLogZ;
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

/// Tells whether the targets of all prompts are probabilities.
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
    /// Logarithm of the sum of its target probabilities, nats, above 0; with targets per token the nats per token that its level
    /// lacks.
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
    let exponents: Vec<f64> = responses.iter().map(|response| response.ref_logp + response.reward / beta).collect();
    log_sum_exp(&exponents)
}

/// Computes `log Σ exp(v)` without leaving the range of f64; negative infinity without values.
pub(super) fn log_sum_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    largest + values.iter().map(|value| (value - largest).exp()).sum::<f64>().ln()
}

/// The smallest level at which targets per token are probabilities: the `L` with
/// `Σ_y π_ref(y|x)·exp(N_y·(r/β − L)) = 1`, `N_y` being the number of tokens of a response.
///
/// Negative infinity without responses.
///
/// # Units
/// Nats per token.
///
/// ```
/// use setpoint_align::{ScoredResponse, least_level_per_token};
///
/// // One response of two tokens with probability ¼: 2·(r/β − L) = ln 4.
/// let response = ScoredResponse { ref_logp: 0.25f64.ln(), reward: 0.5 };
/// assert!((least_level_per_token(&[response], &[2], 0.5) - (1.0 - 2f64.ln())).abs() < 1e-12);
/// ```
pub fn least_level_per_token(responses: &[ScoredResponse], tokens: &[usize], beta: f64) -> f64 {
    let lengths: Vec<f64> = tokens.iter().map(|&tokens| tokens.max(1) as f64).collect();
    let alone = responses.iter().zip(&lengths).map(|(own, length)| own.ref_logp / length + own.reward / beta);
    let mut level = alone.fold(f64::NEG_INFINITY, f64::max);
    // The log of the sum falls with the level and is convex, so Newton's steps rise from here to its root.
    for _ in 0..100 {
        let exponents: Vec<f64> =
            responses.iter().zip(&lengths).map(|(r, length)| r.ref_logp + length * (r.reward / beta - level)).collect();
        let largest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = exponents.iter().map(|exponent| (exponent - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let slope = weights.iter().zip(&lengths).map(|(weight, length)| weight * length).sum::<f64>() / sum;
        let step = (largest + sum.ln()) / slope;
        level += step;
        if step.is_nan() || step.abs() <= 1e-15 * (1.0 + level.abs()) {
            break;
        }
    }
    if responses.is_empty() { f64::NEG_INFINITY } else { level }
}

/// Returns the smallest level at which the targets of a prompt are probabilities, nats, or nats per token.
pub(super) fn least_level(group: &PromptGroup, beta: f64, length_normalize: bool) -> f64 {
    match length_normalize {
        true => least_level_per_token(&group.responses, &group.tokens, beta),
        false => prompt_log_mass(&group.responses, beta),
    }
}

impl Feasibility {
    /// Expects at least one group, each with a response.
    pub(super) fn of(
        groups: &Groups<'_>,
        settings: &AuditSettings,
        level_of: impl Fn(Option<PromptLogZ>) -> f64,
        name: impl Fn(usize) -> String,
    ) -> Self {
        let mut masses = Vec::with_capacity(groups.len());
        let mut worst: Vec<(f64, usize)> = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let mass = least_level(&group, settings.beta, settings.length_normalize);
            masses.push(mass);
            let excess = mass - level_of(group.log_z);
            if excess > FEASIBILITY_TOLERANCE {
                worst.push((excess, number));
            }
        }
        worst.sort_by(|a, b| b.0.total_cmp(&a.0));
        let infeasible = worst.len();
        worst.truncate(settings.listed);
        let listed = |(excess, number): (f64, usize)| {
            let group = groups.get(number);
            InfeasiblePrompt { row: group.row, name: name(group.place), responses: group.responses.len(), excess }
        };
        let worst = worst.into_iter().map(listed).collect();

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

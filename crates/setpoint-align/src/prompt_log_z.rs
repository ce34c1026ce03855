//! log Z(x) of a prompt, estimated from samples of the reference model.

use serde::Serialize;

use crate::audit::{ScoredResponse, prompt_log_mass};
use crate::error::Error;

/// The fewest samples of the reference model that an estimate is made from.
pub const LEAST_SAMPLES: usize = 8;

/// A response that the reference model wrote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReferenceSample {
    /// Its reward, transformed and scaled.
    pub reward: f64,
    /// True if it is one of the responses in the data, whose share of Z(x) is known exactly.
    pub in_data: bool,
}

/// log Z(x) of a prompt, estimated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PromptLogZ {
    /// The estimate, nats.
    pub log_z: f64,
    /// Number of samples.
    pub samples: usize,
    /// The number of equally weighted samples that would be as good: `(Σ w)²/Σ w²` with `w = exp(r/β)`. Near 1, one sample
    /// decides the estimate.
    pub effective_samples: f64,
}

/// Estimates log Z(x), the log-normaliser of a prompt's targets.
///
/// ```text
/// log Z(x) = log( Σ_{y ∈ D_x} π_ref(y|x)·exp(r(x,y)/β) + (1/K)·Σ_{k: y_k ∉ D_x} exp(r_k/β) )
/// ```
///
/// `responses` are the distinct responses `D_x` of the data, and `samples` the K samples of the reference model. A response of the data
/// counts with its exact share, so samples that repeat it are left out. With every possible response in the data the sum is exact.
///
/// This is V*/β of A*-PO (arXiv 2505.20686). Its expectation lies below log Z(x), as that of every log of a mean does. The bias is
/// large if β is much smaller than the standard deviation of the rewards: the sum then depends on rewards that K samples rarely have.
///
/// # Units
/// Nats. β: reward per nat.
///
/// # Errors
/// [`Error::FewSamples`] for fewer than [`LEAST_SAMPLES`] samples.
///
/// ```
/// use setpoint_align::{ReferenceSample, ScoredResponse, prompt_log_z};
///
/// // One response of probability ½ with exp(r/β) = 4; all samples outside the data have exp(r/β) = 2, and half are outside.
/// let (beta, ln2) = (0.5, 2f64.ln());
/// let responses = [ScoredResponse { ref_logp: -ln2, reward: 2.0 * ln2 * beta }];
/// let sample = |in_data| ReferenceSample { reward: ln2 * beta, in_data };
/// let samples = [[sample(true), sample(false)]; 4].concat();
/// let found = prompt_log_z(&responses, &samples, beta)?;
/// assert!((found.log_z - 3f64.ln()).abs() < 1e-12);
/// # Ok::<(), setpoint_align::Error>(())
/// ```
pub fn prompt_log_z(responses: &[ScoredResponse], samples: &[ReferenceSample], beta: f64) -> Result<PromptLogZ, Error> {
    let count = samples.len();
    if count < LEAST_SAMPLES {
        return Err(Error::FewSamples { found: count });
    }
    // A sample stands for a share 1/K of the reference's probability.
    let share = -(count as f64).ln();
    let outside = samples.iter().filter(|sample| !sample.in_data);
    let mut terms = responses.to_vec();
    terms.extend(outside.map(|sample| ScoredResponse { ref_logp: share, reward: sample.reward }));
    let log_sum = |factor: f64| {
        let terms: Vec<ScoredResponse> =
            samples.iter().map(|sample| ScoredResponse { ref_logp: 0.0, reward: factor * sample.reward }).collect();
        prompt_log_mass(&terms, beta)
    };
    Ok(PromptLogZ {
        log_z: prompt_log_mass(&terms, beta),
        samples: count,
        effective_samples: (2.0 * log_sum(1.0) - log_sum(2.0)).exp(),
    })
}

/// Estimates log Z(x) from samples of another model than the reference, such as the policy in training, weighted by importance.
///
/// ```text
/// log Z(x) = log( (1/n)·Σ_j exp(r_j/β − h_j) ),      h_j = log π(y_j|x) − log π_ref(y_j|x),      y_j ~ π
/// ```
///
/// At the optimum `h_j = r_j/β − log Z(x)`, so every term is Z(x), and the estimate is exact. With samples of the reference (`h = 0`) it is
/// the usual one.
///
/// # Units
/// Nats. `rewards`: transformed and scaled; β: reward per nat.
///
/// # Panics
/// If there are not as many log-ratios as rewards.
///
/// ```
/// use setpoint_align::log_z_of_samples;
///
/// // A policy at the optimum of log Z = 0.7.
/// let (beta, rewards) = (0.5, [1.0, -2.0, 0.25]);
/// let log_ratios = rewards.map(|r| r / beta - 0.7);
/// assert!((log_z_of_samples(&rewards, &log_ratios, beta) - 0.7).abs() < 1e-12);
/// // The reference itself: (e² + e⁰)/2.
/// let found = log_z_of_samples(&[1.0, 0.0], &[0.0, 0.0], beta);
/// assert!((found - ((2f64.exp() + 1.0) / 2.0).ln()).abs() < 1e-12);
/// ```
pub fn log_z_of_samples(rewards: &[f64], log_ratios: &[f64], beta: f64) -> f64 {
    assert_eq!(rewards.len(), log_ratios.len(), "a log-ratio for each reward");
    let share = -(rewards.len() as f64).ln();
    let terms: Vec<ScoredResponse> =
        rewards.iter().zip(log_ratios).map(|(&reward, h)| ScoredResponse { ref_logp: share - h, reward }).collect();
    prompt_log_mass(&terms, beta)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_samples_count_fully_and_one_large_reward_counts_alone() {
        let found = |rewards: [f64; 8]| {
            let samples = rewards.map(|reward| ReferenceSample { reward, in_data: false });
            prompt_log_z(&[], &samples, 0.5).unwrap()
        };
        let equal = found([1.0; 8]);
        assert!((equal.effective_samples - 8.0).abs() < 1e-9 && (equal.log_z - 2.0).abs() < 1e-12, "{equal:?}");
        let one = found([50.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!((one.effective_samples - 1.0).abs() < 1e-9, "{one:?}");
        assert!((one.log_z - (100.0 - 8f64.ln())).abs() < 1e-9, "{one:?}");
    }

    #[test]
    fn few_samples_are_an_error() {
        let samples = [ReferenceSample { reward: 0.0, in_data: true }; 7];
        assert_eq!(prompt_log_z(&[], &samples, 1.0), Err(Error::FewSamples { found: 7 }));
    }
}

//! From logits to a token, on the host, in the order in which transformers applies its processors: repetition penalty, temperature, top-k,
//! top-p.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;

use rand_chacha::ChaCha8Rng;
use setpoint_ops::draw;

use super::GenerationConfig;
use crate::init::unit;

/// The distinct tokens of a row so far.
pub(super) struct Seen(HashSet<u32>);

impl Seen {
    pub(super) fn new(prompt: &[u32]) -> Self {
        Self(prompt.iter().copied().collect())
    }

    pub(super) fn insert(&mut self, id: u32) {
        self.0.insert(id);
    }
}

/// A token and its log-probability under the unprocessed logits.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) id: u32,
    pub(super) logp: f32,
    /// The likeliest tokens with their log-probabilities, the likeliest first; none unless they are asked for.
    pub(super) alternatives: Vec<(u32, f32)>,
}

/// The numbers that turn logits into log-probabilities: the highest logit and `log Σ e^(z − highest)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm {
    highest: f32,
    log_sum: f32,
}

impl Norm {
    /// `None` if the logits are no distribution.
    pub(super) fn new(highest: f32, log_sum: f32) -> Option<Self> {
        (highest.is_finite() && log_sum.is_finite()).then_some(Self { highest, log_sum })
    }

    /// The token with the highest logit.
    pub(super) fn likeliest(&self, id: u32) -> Choice {
        Choice { id, logp: -self.log_sum, alternatives: Vec::new() }
    }

    /// Returns the log-probability of a token with this logit.
    fn logp(&self, logit: f32) -> f32 {
        logit - self.highest - self.log_sum
    }
}

/// Draws a token.
pub(super) fn choose(
    logits: &[f32],
    norm: Norm,
    seen: &Seen,
    config: &GenerationConfig,
    rng: &mut ChaCha8Rng,
) -> Choice {
    let mut scores = Cow::Borrowed(logits);
    if config.repetition_penalty != 1.0 {
        // Keskar et al., "CTRL", https://arxiv.org/abs/1909.05858, section 4.1, with the sign taken into account.
        // A penalty beyond the numbers of f32 is its smallest or greatest one, and a logit stays a number.
        let penalty = (config.repetition_penalty as f32).clamp(f32::MIN_POSITIVE, f32::MAX);
        let scores = scores.to_mut();
        for &id in &seen.0 {
            let score = &mut scores[id as usize];
            if score.is_finite() {
                let penalized = if *score < 0.0 { *score * penalty } else { *score / penalty };
                *score = penalized.clamp(f32::MIN, f32::MAX);
            }
        }
    }
    let is_tempered = config.tempered_logps && config.do_sample && config.temperature != 1.0;
    let (id, at_temperature) = if !config.do_sample {
        // The first of equals, as torch has it.
        ((0..scores.len()).fold(0, |best, id| if scores[id] > scores[best] { id } else { best }) as u32, None)
    } else if config.draws_from_all() {
        let draw = draw(&scores, config.temperature, unit(rng));
        // With a penalty they are not the model's own.
        (draw.id as u32, matches!(scores, Cow::Borrowed(_)).then_some(draw.logp as f32))
    } else {
        (pick(&distribution(&scores, config), unit(rng)), None)
    };
    let logp = match is_tempered {
        true => at_temperature.unwrap_or_else(|| tempered(logits, id, config.temperature)),
        false => norm.logp(logits[id as usize]),
    };
    Choice { id, logp, alternatives: Vec::new() }
}

/// Returns the `count` likeliest tokens with their log-probabilities, the likeliest first and the lower id of equals first.
pub(super) fn likeliest_of(logits: &[f32], norm: Norm, count: usize) -> Vec<(u32, f32)> {
    let count = count.min(logits.len());
    if count == 0 {
        return Vec::new();
    }
    let mut all: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < all.len() {
        all.select_nth_unstable_by(count - 1, order);
        all.truncate(count);
    }
    all.sort_unstable_by(order);
    all.into_iter().map(|(id, logit)| (id, norm.logp(logit))).collect()
}

/// Computes the log-probability of a token under the logits divided by the temperature, nats.
fn tempered(logits: &[f32], id: u32, temperature: f64) -> f32 {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    // Differences first: divided by a tiny temperature, the logits themselves may be infinite.
    let scaled = |logit: f32| (f64::from(logit) - highest) / temperature;
    let total: f64 = logits.iter().map(|&logit| scaled(logit).exp()).sum();
    (scaled(logits[id as usize]) - total.ln()) as f32
}

/// A token that may be drawn, with its logit over the temperature and, later, its unnormalised probability.
#[derive(Clone, Copy)]
struct Candidate {
    id: u32,
    score: f64,
}

/// The lowest temperature by which a logit of 32 bits can be divided.
const LOWEST_TEMPERATURE: f64 = 1e-200;

/// Greater scores first, then lower ids.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.score.total_cmp(&a.score).then(a.id.cmp(&b.id))
}

/// The tokens that may be drawn, in the order of their ids, each with its unnormalised probability as score.
fn distribution(scores: &[f32], config: &GenerationConfig) -> Vec<Candidate> {
    // Divided by so little, only differences to the greatest score stay numbers: the distribution is that of greedy generation.
    let highest = match config.temperature < LOWEST_TEMPERATURE {
        true => scores.iter().copied().fold(f32::NEG_INFINITY, f32::max),
        false => 0.0,
    };
    let scaled = |score: f32| (f64::from(score) - f64::from(highest)) / config.temperature;
    let mut candidates: Vec<Candidate> =
        (0u32..).zip(scores).map(|(id, &score)| Candidate { id, score: scaled(score) }).collect();
    if let Some(k) = config.top_k.filter(|&k| k < candidates.len()) {
        let (_, kth, _) = candidates.select_nth_unstable_by(k - 1, order);
        let threshold = kth.score;
        // Those equal to the k-th stay, as in transformers.
        candidates.retain(|candidate| candidate.score >= threshold);
    }
    let max = candidates.iter().map(|candidate| candidate.score).fold(f64::NEG_INFINITY, f64::max);
    for candidate in &mut candidates {
        candidate.score = (candidate.score - max).exp();
    }
    if config.top_p < 1.0 {
        nucleus(&mut candidates, config.top_p);
    }
    candidates.sort_unstable_by_key(|candidate| candidate.id);
    candidates
}

/// The token at which the cumulative distribution exceeds `u` in [0, 1).
fn pick(candidates: &[Candidate], u: f64) -> u32 {
    let total: f64 = candidates.iter().map(|candidate| candidate.score).sum();
    let mut left = u * total;
    for candidate in candidates {
        left -= candidate.score;
        if left < 0.0 {
            return candidate.id;
        }
    }
    // Rounding may leave a remainder; it belongs to the last token that has any probability.
    candidates.iter().rev().find(|candidate| candidate.score > 0.0).map_or(0, |candidate| candidate.id)
}

/// Keeps the likeliest tokens, each while those before it hold less than `p`: Holtzman et al., <https://arxiv.org/abs/1904.09751>.
fn nucleus(candidates: &mut Vec<Candidate>, p: f64) {
    let total: f64 = candidates.iter().map(|candidate| candidate.score).sum();
    // Only the head of the distribution needs to be sorted; how long it is shows on the way.
    let mut sorted = 0;
    let mut mass = 0.0;
    let mut kept = 0;
    while kept < candidates.len() {
        if kept == sorted {
            let next = (sorted * 4).max(64).min(candidates.len());
            let rest = &mut candidates[sorted..];
            if next - sorted < rest.len() {
                rest.select_nth_unstable_by(next - sorted, order);
            }
            candidates[sorted..next].sort_unstable_by(order);
            sorted = next;
        }
        if kept > 0 && mass >= p * total {
            break;
        }
        mass += candidates[kept].score;
        kept += 1;
    }
    candidates.truncate(kept);
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;
    use rand_chacha::rand_core::SeedableRng;
    use setpoint_ops::likeliest;

    use super::*;
    use crate::finite_difference::{devices, numbers};

    fn sampled() -> GenerationConfig {
        GenerationConfig { do_sample: true, ..GenerationConfig::default() }
    }

    /// The probability of each token.
    fn probabilities(scores: &[f32], config: &GenerationConfig) -> Vec<f64> {
        let candidates = distribution(scores, config);
        let total: f64 = candidates.iter().map(|candidate| candidate.score).sum();
        let mut found = vec![0.0; scores.len()];
        for candidate in candidates {
            found[candidate.id as usize] = candidate.score / total;
        }
        found
    }

    /// transformers' `TopKLogitsWarper`, `TopPLogitsWarper` and softmax, word for word.
    fn expected(scores: &[f32], config: &GenerationConfig) -> Vec<f64> {
        let mut scores: Vec<f64> = scores.iter().map(|&score| f64::from(score) / config.temperature).collect();
        let softmax = |scores: &[f64]| -> Vec<f64> {
            let total: f64 = scores.iter().map(|score| score.exp()).sum();
            scores.iter().map(|score| score.exp() / total).collect()
        };
        if let Some(k) = config.top_k {
            let mut sorted = scores.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let kth = sorted[k.min(sorted.len()) - 1];
            scores.iter_mut().filter(|score| **score < kth).for_each(|score| *score = f64::NEG_INFINITY);
        }
        let mut ascending: Vec<usize> = (0..scores.len()).collect();
        ascending.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let probabilities = softmax(&scores);
        let mut cumulative = 0.0;
        for &id in &ascending[..scores.len() - 1] {
            cumulative += probabilities[id];
            if cumulative <= 1.0 - config.top_p {
                scores[id] = f64::NEG_INFINITY;
            }
        }
        softmax(&scores)
    }

    #[test]
    fn truncated_distributions_are_those_of_transformers() {
        let scores: Vec<f32> = numbers(7, 300).iter().map(|x| 4.0 * x).collect();
        for (temperature, top_k, top_p) in [
            (1.0, None, 1.0),
            (0.5, None, 1.0),
            (1.0, Some(5), 1.0),
            (1.3, None, 0.7),
            (0.8, Some(100), 0.95),
            (1.0, Some(1), 0.1),
        ] {
            let config = GenerationConfig { temperature, top_k, top_p, ..sampled() };
            for (found, expected) in probabilities(&scores, &config).iter().zip(expected(&scores, &config)) {
                assert!((found - expected).abs() < 1e-12, "{config:?}: {found} {expected}");
            }
        }
    }

    #[test]
    fn the_lowest_temperatures_take_the_likeliest_token() {
        let scores = [-3.0, 41.0, 40.5, f32::MIN];
        for temperature in [1e-100, 1e-307, 1e-308, 5e-324] {
            for (top_k, top_p) in [(None, 1.0), (Some(2), 1.0), (None, 0.5)] {
                let config = GenerationConfig { temperature, top_k, top_p, ..sampled() };
                assert_eq!(probabilities(&scores, &config), [0.0, 1.0, 0.0, 0.0], "{config:?}");
                assert_eq!(pick(&distribution(&scores, &config), 0.999), 1);
            }
        }
    }

    #[test]
    fn draws_from_all_tokens_are_those_from_their_distribution() {
        let logits: Vec<f32> = numbers(3, 40).iter().map(|x| 3.0 * x).collect();
        let sum: f32 = logits.iter().map(|z| z.exp()).sum();
        let norm = Norm::new(0.0, sum.ln()).unwrap();
        let seen = Seen::new(&[1, 2, 30]);
        for (temperature, repetition_penalty) in [(1.0, 1.0), (0.7, 1.0), (1.6, 1.3)] {
            let config = GenerationConfig { temperature, repetition_penalty, tempered_logps: true, ..sampled() };
            // A limit that cuts nothing off takes the longer way.
            let cut = GenerationConfig { top_k: Some(logits.len()), ..config.clone() };
            let [mut one, mut other] = [0, 0].map(ChaCha8Rng::seed_from_u64);
            for _ in 0..300 {
                let found = choose(&logits, norm, &seen, &config, &mut one);
                let expected = choose(&logits, norm, &seen, &cut, &mut other);
                assert_eq!(found.id, expected.id, "{config:?}");
                assert!((found.logp - expected.logp).abs() < 1e-5, "{found:?} {expected:?}");
            }
        }
    }

    #[test]
    fn tokens_equal_to_the_kth_stay() {
        let config = GenerationConfig { top_k: Some(2), ..sampled() };
        let found = probabilities(&[1.0, 3.0, 1.0, 0.0], &config);
        assert!(found[0] > 0.1 && found[0] == found[2] && found[3] == 0.0, "{found:?}");
    }

    #[test]
    fn tokens_are_picked_by_the_cumulative_distribution() {
        let candidate = |(id, score)| Candidate { id, score };
        let candidates = [(2, 1.0), (5, 0.0), (7, 3.0)].map(candidate);
        let almost_1 = 1.0 - f64::EPSILON / 2.0;
        for (u, id) in [(0.0, 2), (0.2499, 2), (0.25, 7), (almost_1, 7)] {
            assert_eq!(pick(&candidates, u), id, "{u}");
        }
    }

    #[test]
    fn penalty_pushes_both_signs_down_and_logps_are_of_the_raw_logits() {
        let config = GenerationConfig { repetition_penalty: 2.0, ..GenerationConfig::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut best = |logits: &[f32], seen: &[u32]| {
            let sum: f32 = logits.iter().map(|z| (z - logits[0]).exp()).sum();
            choose(logits, Norm::new(logits[0], sum.ln()).unwrap(), &Seen::new(seen), &config, &mut rng)
        };
        // 3 / 2 < 2 and -1 · 2 < -1.5.
        let choice = best(&[3.0, 2.0, 1.0], &[0]);
        assert_eq!(choice.id, 1);
        let total: f64 = [3.0f64, 2.0, 1.0].iter().map(|x| x.exp()).sum();
        assert!((f64::from(choice.logp) - (2.0 - total.ln())).abs() < 1e-6);
        assert_eq!(best(&[-1.0, -1.5], &[0]).id, 1);
    }

    #[test]
    fn the_strongest_penalties_leave_numbers() {
        // The prompt holds all tokens but the last; no logit may become NaN or infinite, which would be drawn or end in the first token.
        let logits = [0.0, 3.0, -2.0, f32::NEG_INFINITY, 1.0];
        let norm = Norm::new(3.0, logits.iter().map(|z| (z - 3.0).exp()).sum::<f32>().ln()).unwrap();
        let seen = Seen::new(&[0, 1, 2, 3]);
        let drawn = |repetition_penalty: f64, do_sample: bool, top_p: f64| {
            let config = GenerationConfig { do_sample, repetition_penalty, top_p, ..GenerationConfig::default() };
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            (0..40).map(|_| choose(&logits, norm, &seen, &config, &mut rng).id).collect::<Vec<_>>()
        };
        for (do_sample, top_p) in [(false, 1.0), (true, 1.0), (true, 0.9)] {
            // Divided by the smallest penalty, the logit of 3 is far above all others.
            for penalty in [1e-38, 1e-60, f64::MIN_POSITIVE] {
                assert_eq!(drawn(penalty, do_sample, top_p), [1; 40], "{penalty} {do_sample} {top_p}");
            }
            // With the greatest, the negative logit and the impossible token are never drawn.
            for penalty in [1e38, 1e60, f64::MAX] {
                let found = drawn(penalty, do_sample, top_p);
                assert!(found.iter().all(|id| [0, 1, 4].contains(id)), "{penalty} {do_sample} {top_p}: {found:?}");
                assert!(found.contains(&4) && (!do_sample || found.contains(&0)), "{penalty} {found:?}");
            }
        }
    }

    #[test]
    fn the_likeliest_tokens_come_in_order_with_their_log_probabilities() {
        let logits = [1.0_f32, 3.0, 2.0, 3.0, -1.0];
        let total: f64 = logits.iter().map(|&z| (f64::from(z) - 3.0).exp()).sum();
        let norm = Norm::new(3.0, total.ln() as f32).unwrap();
        let found = likeliest_of(&logits, norm, 3);
        assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 2]);
        for (id, logp) in found {
            let expected = f64::from(logits[id as usize]) - 3.0 - total.ln();
            assert!((f64::from(logp) - expected).abs() < 1e-6, "{id}: {logp} against {expected}");
        }
        assert_eq!(likeliest_of(&logits, norm, 0), []);
        let all = likeliest_of(&logits, norm, 20);
        let mass: f64 = all.iter().map(|(_, logp)| f64::from(*logp).exp()).sum();
        assert!(all.len() == 5 && (mass - 1.0).abs() < 1e-6, "{mass}");
    }

    #[test]
    fn logps_are_those_of_the_tempered_logits_if_asked_for() {
        let logits = [3.0f32, 2.0, -1.0, f32::NEG_INFINITY];
        let sum: f32 = logits.iter().map(|z| (z - 3.0).exp()).sum();
        let norm = Norm::new(3.0, sum.ln()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for temperature in [0.5, 1.0, 2.0] {
            let config = GenerationConfig { temperature, tempered_logps: true, ..sampled() };
            let total: f64 = logits.iter().map(|&z| (f64::from(z) / temperature).exp()).sum();
            for _ in 0..20 {
                let choice = choose(&logits, norm, &Seen::new(&[]), &config, &mut rng);
                let expected = f64::from(logits[choice.id as usize]) / temperature - total.ln();
                assert!((f64::from(choice.logp) - expected).abs() < 1e-6, "{temperature}: {choice:?} {expected}");
            }
        }
        // The smallest temperature leaves no infinity.
        assert_eq!((tempered(&[40.0, -40.0], 0, 1e-300), tempered(&[1.0, 1.0], 1, 1e-300)), (0.0, -(2f64.ln() as f32)));
    }

    #[test]
    fn what_is_no_distribution_is_refused() {
        for device in devices() {
            let norm = |logits: [f32; 2]| {
                let norms = likeliest(Tensor::from_data([logits], &device)).norms;
                let norms = norms.into_data().try_into_vec::<f32>().unwrap();
                Norm::new(norms[0], norms[1])
            };
            for logits in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY, f32::NEG_INFINITY]] {
                assert!(norm(logits).is_none(), "{logits:?} on {device:?}");
            }
            // A token that cannot be drawn is no harm.
            let logits = [f32::NEG_INFINITY, 0.0];
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            let choice = choose(&logits, norm(logits).unwrap(), &Seen::new(&[]), &sampled(), &mut rng);
            assert_eq!((choice.id, choice.logp), (1, 0.0));
        }
    }
}

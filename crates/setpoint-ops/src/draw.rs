//! Drawing a token by its logits, on the host.

use crate::exp::exp;
#[cfg(feature = "flex")]
use crate::flex::vectorised;

/// Logits whose weights are added up together: the draw looks at the sums first, and then at the weights of one of them.
const BLOCK: usize = 64;

/// Accumulators of a sum, so that it does not wait for itself.
const LANES: usize = 32;

/// The exponent of the smallest weight: of e^−87 no token in the lifetime of a machine is drawn.
const LEAST: f32 = -87.0;

/// The lowest temperature that f32 divides by. Below it, the distribution is that of greedy generation.
const LOWEST_TEMPERATURE: f64 = 1e-30;

/// A token that was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Its place among the logits.
    pub id: usize,
    /// Its log-probability at the temperature, nats.
    pub logp: f64,
}

/// Draws a token with a probability in proportion to `e^(logit / temperature)`: the first at which the cumulative probability exceeds `u`.
///
/// A logit of −∞ is never drawn. The largest one must be a number. Weights are in f32, their sums over more than a few in f64; neither
/// depends on the processor.
///
/// # Panics
/// If there are no logits.
///
/// ```
/// use setpoint_ops::draw;
///
/// let logits = [0.0, f32::NEG_INFINITY, 3f32.ln()];
/// assert_eq!([0.0, 0.24, 0.26, 0.99].map(|u| draw(&logits, 1.0, u).id), [0, 0, 2, 2]);
/// assert!((draw(&logits, 1.0, 0.5).logp - 0.75f64.ln()).abs() < 1e-6);
/// ```
pub fn draw(logits: &[f32], temperature: f64, u: f64) -> Draw {
    assert!(!logits.is_empty(), "something to draw from");
    vectorised(
        #[inline(always)]
        || drawn(logits, temperature.max(LOWEST_TEMPERATURE) as f32, u),
    )
}

/// Runs `f` as it is compiled for every processor: the CPU's kernels are not built.
#[cfg(not(feature = "flex"))]
#[inline(always)]
fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[inline(always)]
fn drawn(logits: &[f32], temperature: f32, u: f64) -> Draw {
    let highest = highest(logits);
    // Differences first: divided by a tiny temperature, the logits themselves may be infinite.
    let exponent = |logit: f32| (logit - highest) / temperature;
    let mut sums = Vec::with_capacity(logits.len().div_ceil(BLOCK));
    for block in logits.chunks(BLOCK) {
        let mut lanes = [0.0; LANES];
        let (parts, rest) = block.as_chunks::<LANES>();
        for part in parts {
            for (lane, &logit) in lanes.iter_mut().zip(part) {
                *lane += weight(exponent(logit));
            }
        }
        for (lane, &logit) in lanes.iter_mut().zip(rest) {
            *lane += weight(exponent(logit));
        }
        sums.push(total(lanes));
    }
    let all: f64 = sums.iter().sum();
    let found = |id: usize| Draw { id, logp: f64::from(exponent(logits[id])) - all.ln() };
    let mut left = u * all;
    for (number, (block, &sum)) in logits.chunks(BLOCK).zip(&sums).enumerate() {
        if left >= sum {
            left -= sum;
            continue;
        }
        for (i, &logit) in block.iter().enumerate() {
            left -= f64::from(weight(exponent(logit)));
            if left < 0.0 {
                return found(number * BLOCK + i);
            }
        }
        // The weights add up to a little less than their sum in another order: the next block has the token.
    }
    // Rounding may leave a remainder; it belongs to the last token that has any probability.
    found(logits.iter().rposition(|&logit| weight(exponent(logit)) > 0.0).unwrap_or(0))
}

/// Returns the weight of a token by its exponent, which is at most 0.
#[inline(always)]
fn weight(exponent: f32) -> f32 {
    let weight = exp(exponent);
    if exponent < LEAST { 0.0 } else { weight }
}

/// The sum of the lanes, by halves.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f64 {
    for half in [16, 8, 4] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[..4].iter().map(|&lane| f64::from(lane)).sum()
}

/// The largest value.
#[inline(always)]
fn highest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (parts, rest) = x.as_chunks::<LANES>();
    for part in parts {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    /// Numbers in [0, 1).
    fn numbers(seed: u64, count: usize) -> Vec<f64> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|_| (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64).collect()
    }

    #[test]
    fn tokens_are_those_of_the_cumulative_distribution() {
        // Below, at and above whole blocks and lanes.
        for count in [1, 2, 15, 16, 63, 64, 65, 200, 1000] {
            let logits: Vec<f32> = numbers(count as u64, count).iter().map(|x| (20.0 * x - 10.0) as f32).collect();
            for temperature in [0.3, 1.0, 2.5] {
                let largest = logits.iter().copied().fold(f32::MIN, f32::max);
                let scaled = |z: &f32| (f64::from(*z) - f64::from(largest)) / temperature;
                let weights: Vec<f64> = logits.iter().map(|z| scaled(z).exp()).collect();
                let total: f64 = weights.iter().sum();
                let mut sum = 0.0;
                let mut cumulative = vec![0.0];
                cumulative.extend(weights.iter().map(|weight| {
                    sum += weight / total;
                    sum
                }));
                for u in numbers(7, 300) {
                    let Draw { id, logp } = draw(&logits, temperature, u);
                    let within = cumulative[id] - 1e-6 <= u && u < cumulative[id + 1] + 1e-6;
                    assert!(within, "{count}, {temperature}: {u} draws {id}, {:?}", &cumulative[id..id + 2]);
                    assert!((logp - (scaled(&logits[id]) - total.ln())).abs() < 1e-5, "{count}, {temperature}, {id}");
                }
            }
        }
    }

    #[test]
    fn tokens_without_a_probability_are_never_drawn() {
        let mut logits = vec![f32::NEG_INFINITY; 300];
        let almost_1 = 1.0 - f64::EPSILON / 2.0;
        (logits[3], logits[130], logits[131]) = (1.0, 2.0, -800.0);
        for temperature in [1.0, 1e-3, 1e-307, 5e-324] {
            let found = [0.0, 0.2, 0.5, almost_1].map(|u| draw(&logits, temperature, u).id);
            let expected = if temperature == 1.0 { [3, 3, 130, 130] } else { [130; 4] };
            assert_eq!(found, expected, "{temperature}");
        }
        assert_eq!(draw(&logits, 5e-324, 0.5), Draw { id: 130, logp: 0.0 });
    }
}

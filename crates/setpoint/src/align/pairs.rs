//! Pairs from the responses of a prompt, by a stated rule.

use setpoint_align::{PairRule, Role};
use setpoint_data::Example;
use setpoint_train::Order;

use crate::setup;

/// `(chosen, rejected)` pairs of an example's responses; none where no response is better than another.
///
/// Where any response has a label, the labelled ones are compared, by label; else all of them, by reward. `best_random` draws from `seed`
/// and the example's row alone, so the pair is the same in every epoch and however the data is cut.
pub fn pairs(rule: PairRule, example: &Example, seed: u64) -> Vec<(usize, usize)> {
    let rewards: Vec<f64> = example.responses.iter().filter_map(|r| r.reward).collect();
    let roles: Vec<Option<Role>> = example.responses.iter().map(|r| r.label.map(setup::role)).collect();
    let random = |among: usize| Order::new(seed).epoch(example.row as u64, among).first().copied().unwrap_or(0);
    if roles.iter().any(Option::is_some) {
        by_labels(rule, &roles, random)
    } else if rewards.len() == roles.len() {
        by_rewards(rule, &rewards, random)
    } else {
        Vec::new()
    }
}

fn by_labels(rule: PairRule, roles: &[Option<Role>], random: impl Fn(usize) -> usize) -> Vec<(usize, usize)> {
    let side = |role: Role| -> Vec<usize> { (0..roles.len()).filter(|&j| roles[j] == Some(role)).collect() };
    let (chosen, rejected) = (side(Role::Chosen), side(Role::Rejected));
    let (Some(&best), Some(&worst)) = (chosen.first(), rejected.first()) else { return Vec::new() };
    match rule {
        PairRule::BestWorst => vec![(best, worst)],
        PairRule::BestRandom => vec![(best, rejected[random(rejected.len())])],
        PairRule::All => chosen.iter().flat_map(|&w| rejected.iter().map(move |&l| (w, l))).collect(),
    }
}

fn by_rewards(rule: PairRule, rewards: &[f64], random: impl Fn(usize) -> usize) -> Vec<(usize, usize)> {
    let all: Vec<usize> = (0..rewards.len()).collect();
    // The first of equals.
    let first = |beats: fn(f64, f64) -> bool| {
        all.iter().copied().reduce(|best, j| if beats(rewards[j], rewards[best]) { j } else { best })
    };
    let (Some(best), Some(worst)) = (first(|r, best| r > best), first(|r, worst| r < worst)) else {
        return Vec::new();
    };
    let worse: Vec<usize> = all.iter().copied().filter(|&j| rewards[j] < rewards[best]).collect();
    match rule {
        _ if worse.is_empty() => Vec::new(),
        PairRule::BestWorst => vec![(best, worst)],
        PairRule::BestRandom => vec![(best, worse[random(worse.len())])],
        PairRule::All => {
            let below = |w: usize| all.iter().copied().filter(move |&l| rewards[l] < rewards[w]).map(move |l| (w, l));
            all.iter().flat_map(|&w| below(w)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Chosen, Rejected};

    const REWARDS: [f64; 4] = [1.0, 3.0, 3.0, -2.0];

    #[test]
    fn by_reward() {
        let last = |n: usize| n - 1;
        assert_eq!(by_rewards(PairRule::BestWorst, &REWARDS, last), [(1, 3)]);
        // Worse than the best are 0 and 3; the tie is neither.
        assert_eq!(by_rewards(PairRule::BestRandom, &REWARDS, |_| 0), [(1, 0)]);
        assert_eq!(by_rewards(PairRule::BestRandom, &REWARDS, last), [(1, 3)]);
        assert_eq!(by_rewards(PairRule::All, &REWARDS, last), [(0, 3), (1, 0), (1, 3), (2, 0), (2, 3)]);
        for rule in [PairRule::BestWorst, PairRule::BestRandom, PairRule::All] {
            assert_eq!(by_rewards(rule, &[2.0, 2.0], last), []);
            assert_eq!(by_rewards(rule, &[2.0], last), []);
            assert_eq!(by_rewards(rule, &[], last), []);
        }
    }

    #[test]
    fn by_label() {
        let roles = [Some(Rejected), Some(Chosen), None, Some(Rejected), Some(Chosen)];
        let last = |n: usize| n - 1;
        assert_eq!(by_labels(PairRule::BestWorst, &roles, last), [(1, 0)]);
        assert_eq!(by_labels(PairRule::BestRandom, &roles, last), [(1, 3)]);
        assert_eq!(by_labels(PairRule::All, &roles, last), [(1, 0), (1, 3), (4, 0), (4, 3)]);
        assert_eq!(by_labels(PairRule::All, &[Some(Chosen), None], last), []);
    }
}

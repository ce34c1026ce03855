//! The chosen and the rejected responses of a prompt.
//!
//! Everything that compares responses asks [`Preferences`]: metrics, pairs, rows and evaluations.

use crate::method::PairRule;
use crate::prompt_rewards::Role;
use crate::row::Desirable;

/// The labels and rewards of one prompt's responses, to be compared: by label if any response has one, else by reward.
///
/// ```
/// use setpoint_align::{PairRule, Preferences, Role::{Chosen, Rejected}};
///
/// let rewards = [1.0, 3.0, 3.0, 2.0];
/// let preferences = Preferences::new(&[], Some(&rewards));
/// assert_eq!(preferences.roles(), [Some(Rejected), Some(Chosen), None, Some(Rejected)]);
/// assert_eq!(preferences.pair(), Some((1, 0)));
///
/// let labels = [Some(Rejected), None, Some(Chosen), None];
/// let preferences = Preferences::new(&labels, Some(&rewards));
/// assert_eq!(preferences.pairs(PairRule::All, |_| 0), [(2, 0)]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Preferences<'a> {
    labels: &'a [Option<Role>],
    rewards: Option<&'a [f64]>,
}

impl<'a> Preferences<'a> {
    /// Compares responses by their labels (an entry per response, or none) and by their rewards, if every response has one.
    pub fn new(labels: &'a [Option<Role>], rewards: Option<&'a [f64]>) -> Self {
        Self { labels, rewards }
    }

    /// Returns the role of each response.
    ///
    /// By label, the labels. By reward, chosen is the response with the best reward (the first of equals), rejected are
    /// those with a lower reward, and what ties with the best is neither.
    pub fn roles(&self) -> Vec<Option<Role>> {
        let Some(rewards) = self.decisive_rewards() else { return self.labels.to_vec() };
        let Some(best) = best(rewards) else { return Vec::new() };
        let role = |(j, &reward): (usize, &f64)| {
            if j == best {
                Some(Role::Chosen)
            } else if reward < rewards[best] {
                Some(Role::Rejected)
            } else {
                None
            }
        };
        rewards.iter().enumerate().map(role).collect()
    }

    /// Returns the role of each response for objectives on single rows: chosen is desirable, rejected is undesirable. By
    /// label, the labels; by reward as the rule says. Several responses of one reward have no best: none has a role.
    pub fn desirable(&self, rule: Desirable) -> Vec<Option<Role>> {
        match (rule, self.decisive_rewards()) {
            (Desirable::Above(least), Some(rewards)) => {
                let role = |&reward: &f64| Some(if reward > least { Role::Chosen } else { Role::Rejected });
                rewards.iter().map(role).collect()
            }
            (Desirable::Best, Some([first, others @ ..]))
                if !others.is_empty() && others.iter().all(|r| r == first) =>
            {
                vec![None; others.len() + 1]
            }
            (Desirable::Best, _) | (_, None) => self.roles(),
        }
    }

    /// Returns the best response, which maximum likelihood trains on.
    ///
    /// Among chosen responses, or among all if none has a label, the one with the best reward (the first of equals); without
    /// rewards the first chosen one, or the only one. `None` if nothing tells which is best, or all labels say rejected.
    pub fn best(&self) -> Option<usize> {
        let count = self.labels.len().max(self.rewards.map_or(0, <[f64]>::len));
        let labelled = self.labels.iter().any(Option::is_some);
        let label = |j: usize| self.labels.get(j).copied().flatten();
        let among: Vec<usize> = (0..count).filter(|&j| !labelled || label(j) == Some(Role::Chosen)).collect();
        match self.rewards {
            Some(rewards) => among.into_iter().reduce(|best, j| if rewards[j] > rewards[best] { j } else { best }),
            None if labelled || among.len() == 1 => among.first().copied(),
            None => None,
        }
    }

    /// Returns the pair `(chosen, rejected)` that represents this prompt in pairwise metrics: the first labelled response
    /// of each side; without labels the best and the worst reward (the first of equals). `None` if a side is missing, or
    /// the rewards do not differ.
    pub fn pair(&self) -> Option<(usize, usize)> {
        self.pairs(PairRule::BestWorst, |_| 0).into_iter().next()
    }

    /// Forms pairs `(chosen, rejected)`; none if no response is better than another. `draw` picks one of a number of
    /// responses, for [`PairRule::BestRandom`].
    pub fn pairs(&self, rule: PairRule, draw: impl Fn(usize) -> usize) -> Vec<(usize, usize)> {
        match self.decisive_rewards() {
            Some(rewards) => by_rewards(rule, rewards, draw),
            None => by_labels(rule, self.labels, draw),
        }
    }

    /// Returns the rewards if they decide.
    fn decisive_rewards(&self) -> Option<&'a [f64]> {
        self.rewards.filter(|_| self.labels.iter().all(Option::is_none))
    }
}

fn by_labels(rule: PairRule, labels: &[Option<Role>], draw: impl Fn(usize) -> usize) -> Vec<(usize, usize)> {
    let side = |role: Role| -> Vec<usize> { (0..labels.len()).filter(|&j| labels[j] == Some(role)).collect() };
    let (chosen, rejected) = (side(Role::Chosen), side(Role::Rejected));
    let (Some(&best), Some(&worst)) = (chosen.first(), rejected.first()) else { return Vec::new() };
    match rule {
        PairRule::BestWorst => vec![(best, worst)],
        PairRule::BestRandom => vec![(best, rejected[draw(rejected.len())])],
        PairRule::All => chosen.iter().flat_map(|&w| rejected.iter().map(move |&l| (w, l))).collect(),
    }
}

fn by_rewards(rule: PairRule, rewards: &[f64], draw: impl Fn(usize) -> usize) -> Vec<(usize, usize)> {
    let (Some(best), Some(worst)) = (best(rewards), worst(rewards)) else { return Vec::new() };
    let worse_than = |w: usize| (0..rewards.len()).filter(move |&j| rewards[j] < rewards[w]);
    let worse: Vec<usize> = worse_than(best).collect();
    match rule {
        _ if worse.is_empty() => Vec::new(),
        PairRule::BestWorst => vec![(best, worst)],
        PairRule::BestRandom => vec![(best, worse[draw(worse.len())])],
        PairRule::All => (0..rewards.len()).flat_map(|w| worse_than(w).map(move |l| (w, l))).collect(),
    }
}

fn best(rewards: &[f64]) -> Option<usize> {
    first_extreme(rewards, |reward, best| reward > best)
}

fn worst(rewards: &[f64]) -> Option<usize> {
    first_extreme(rewards, |reward, worst| reward < worst)
}

/// Returns the first of equals.
fn first_extreme(values: &[f64], beats: fn(f64, f64) -> bool) -> Option<usize> {
    (0..values.len()).reduce(|best, j| if beats(values[j], values[best]) { j } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Chosen, Rejected};

    const REWARDS: [f64; 4] = [1.0, 3.0, 3.0, -2.0];

    fn last(n: usize) -> usize {
        n - 1
    }

    #[test]
    fn by_reward() {
        let preferences = Preferences::new(&[None; 4], Some(&REWARDS));
        assert_eq!(preferences.pairs(PairRule::BestWorst, last), [(1, 3)]);
        // Worse than the best are 0 and 3; the tie is neither.
        assert_eq!(preferences.pairs(PairRule::BestRandom, |_| 0), [(1, 0)]);
        assert_eq!(preferences.pairs(PairRule::BestRandom, last), [(1, 3)]);
        assert_eq!(preferences.pairs(PairRule::All, last), [(0, 3), (1, 0), (1, 3), (2, 0), (2, 3)]);
        assert_eq!(preferences.pair(), Some((1, 3)));
        assert_eq!(preferences.roles(), [Some(Rejected), Some(Chosen), None, Some(Rejected)]);
        assert_eq!(preferences.desirable(Desirable::Best), preferences.roles());
        let above = preferences.desirable(Desirable::Above(1.0));
        assert_eq!(above, [Some(Rejected), Some(Chosen), Some(Chosen), Some(Rejected)]);
        // One alone is the best of its prompt; of equals none is.
        let best = |rewards: &[f64]| Preferences::new(&[], Some(rewards)).desirable(Desirable::Best);
        assert_eq!((best(&[2.0]), best(&[2.0, 2.0]), best(&[])), (vec![Some(Chosen)], vec![None, None], vec![]));
        assert_eq!(best(&[2.0, 2.0, 1.0]), [Some(Chosen), None, Some(Rejected)]);
        for rewards in [&[2.0, 2.0][..], &[2.0], &[]] {
            let preferences = Preferences::new(&[], Some(rewards));
            for rule in [PairRule::BestWorst, PairRule::BestRandom, PairRule::All] {
                assert_eq!(preferences.pairs(rule, last), []);
            }
            assert_eq!(preferences.pair(), None);
        }
    }

    #[test]
    fn the_best_response_is_that_of_supervised_fine_tuning() {
        let best = |labels: &[Option<Role>], rewards: Option<&[f64]>| Preferences::new(labels, rewards).best();
        assert_eq!(best(&[None; 4], Some(&REWARDS)), Some(1));
        assert_eq!(best(&[], Some(&REWARDS)), Some(1));
        // The label wins over the reward; among chosen ones the reward decides.
        let labels = [Some(Chosen), Some(Rejected), None, Some(Chosen)];
        assert_eq!(best(&labels, Some(&[1.0, 3.0, 4.0, 2.0])), Some(3));
        assert_eq!(best(&labels, None), Some(0));
        assert_eq!(best(&[None], None), Some(0));
        assert_eq!(best(&[None, None], None), None);
        assert_eq!(best(&[Some(Rejected)], Some(&[1.0])), None);
        assert_eq!(best(&[], None), None);
    }

    #[test]
    fn by_label() {
        let labels = [Some(Rejected), Some(Chosen), None, Some(Rejected), Some(Chosen)];
        // Labels win over rewards, and need none.
        for rewards in [None, Some(&[9.0, 0.0, 0.0, 0.0, 0.0][..])] {
            let preferences = Preferences::new(&labels, rewards);
            assert_eq!(preferences.pairs(PairRule::BestWorst, last), [(1, 0)]);
            assert_eq!(preferences.pairs(PairRule::BestRandom, last), [(1, 3)]);
            assert_eq!(preferences.pairs(PairRule::All, last), [(1, 0), (1, 3), (4, 0), (4, 3)]);
            assert_eq!(preferences.roles(), labels);
            assert_eq!(preferences.desirable(Desirable::Above(0.0)), labels);
        }
        assert_eq!(Preferences::new(&[Some(Chosen), None], None).pairs(PairRule::All, last), []);
        let unknown = Preferences::new(&[None, None], None);
        assert_eq!((unknown.pair(), unknown.roles()), (None, vec![None, None]));
        assert_eq!(unknown.desirable(Desirable::Above(0.0)), [None, None]);
    }
}

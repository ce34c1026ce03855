//! The responses of a prompt that are selected, by their scores.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The responses of a prompt that are selected.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The best for SFT rows, the best and the worst for pairs, all for point-wise rows.
    #[default]
    Auto,
    /// The response with the greatest score, the first of equals: best of n.
    Best,
    /// So many responses with the greatest scores.
    Top(usize),
    /// The responses with a greater score than this: rejection sampling.
    Above(f64),
    /// The best and the worst response.
    BestWorst,
    /// All responses; as pairs, every two.
    All,
}

/// The form of the rows that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowForm {
    /// A row for each selected response, for `setpoint sft`.
    #[default]
    Sft,
    /// A row for each pair of a better and a worse response, for `setpoint align` and `setpoint reward`.
    Pairs,
    /// A row for each prompt with its selected responses and their rewards, for `setpoint align`.
    Pointwise,
}

impl RowForm {
    /// Returns the name of one row.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Sft => "SFT row",
            Self::Pairs => "pair",
            Self::Pointwise => "point-wise row",
        }
    }
}

impl Keep {
    /// Returns the rule that [`Keep::Auto`] means for rows of this form; any other rule as it is.
    pub(super) fn of_form(self, form: RowForm) -> Self {
        match (self, form) {
            (Self::Auto, RowForm::Sft) => Self::Best,
            (Self::Auto, RowForm::Pairs) => Self::BestWorst,
            (Self::Auto, RowForm::Pointwise) => Self::All,
            (rule, _) => rule,
        }
    }

    /// Returns the indices of the selected responses in their order.
    pub(super) fn responses(self, scores: &[f64]) -> Vec<usize> {
        let order = best_first(scores);
        let mut selected: Vec<usize> = match self {
            Self::Best => order.into_iter().take(1).collect(),
            Self::Top(count) => order.into_iter().take(count).collect(),
            Self::Above(least) => order.into_iter().filter(|&j| scores[j] > least).collect(),
            Self::BestWorst => match ends(&order) {
                Some((best, worst)) => vec![best, worst],
                None => order,
            },
            Self::Auto | Self::All => order,
        };
        selected.sort_unstable();
        selected
    }

    /// Hands out the indices of every pair, the better response first, whose scores differ and by at least `min_margin`. Returns their number.
    pub(super) fn pairs<E>(
        self,
        scores: &[f64],
        min_margin: f64,
        take: &mut dyn FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<usize, E> {
        let order = best_first(scores);
        let mut count = 0;
        let mut offer = |better: usize, worse: usize| -> Result<(), E> {
            let margin = scores[better] - scores[worse];
            if margin > 0.0 && margin >= min_margin {
                count += 1;
                take(better, worse)?;
            }
            Ok(())
        };
        if self == Self::All {
            for (at, &better) in order.iter().enumerate() {
                order[at + 1..].iter().try_for_each(|&worse| offer(better, worse))?;
            }
        } else if let Some((best, worst)) = ends(&order) {
            offer(best, worst)?;
        }
        Ok(count)
    }
}

/// Returns the indices of the scores, the greatest first and equals in their order.
fn best_first(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// Returns the first and the last of several.
fn ends(order: &[usize]) -> Option<(usize, usize)> {
    match order {
        [first, .., last] => Some((*first, *last)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f64; 5] = [1.0, 3.0, -2.0, 3.0, 0.5];

    fn pairs(keep: Keep, scores: &[f64], min_margin: f64) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let count = keep.pairs(scores, min_margin, &mut |better, worse| {
            found.push((better, worse));
            Ok::<_, ()>(())
        });
        assert_eq!(count, Ok(found.len()));
        found
    }

    #[test]
    fn responses_are_selected_by_rank_or_score_and_keep_their_order() {
        for (keep, expected) in [
            (Keep::Best, vec![1]),
            (Keep::Top(3), vec![0, 1, 3]),
            (Keep::Top(9), vec![0, 1, 2, 3, 4]),
            (Keep::Above(0.5), vec![0, 1, 3]),
            (Keep::Above(3.0), vec![]),
            (Keep::BestWorst, vec![1, 2]),
            (Keep::All, vec![0, 1, 2, 3, 4]),
        ] {
            assert_eq!(keep.responses(&SCORES), expected, "{keep:?}");
        }
        assert_eq!(Keep::BestWorst.responses(&[2.0]), vec![0]);
        assert!(Keep::Best.responses(&[]).is_empty());
    }

    #[test]
    fn pairs_differ_in_their_scores_by_the_margin() {
        assert_eq!(pairs(Keep::BestWorst, &SCORES, 0.0), [(1, 2)]);
        assert_eq!(pairs(Keep::BestWorst, &SCORES, 5.0), [(1, 2)]);
        assert!(pairs(Keep::BestWorst, &SCORES, 5.1).is_empty());
        // The two scores of 3 are no pair.
        let every_two = [(1, 0), (1, 4), (1, 2), (3, 0), (3, 4), (3, 2), (0, 4), (0, 2), (4, 2)];
        assert_eq!(pairs(Keep::All, &SCORES, 0.0), every_two);
        assert_eq!(pairs(Keep::All, &SCORES, 2.5), [(1, 4), (1, 2), (3, 4), (3, 2), (0, 2), (4, 2)]);
        assert!(pairs(Keep::BestWorst, &[1.0, 1.0], 0.0).is_empty());
        assert!(pairs(Keep::All, &[1.0], 0.0).is_empty());
    }

    #[test]
    fn each_form_has_its_own_rule() {
        assert_eq!(Keep::Auto.of_form(RowForm::Sft), Keep::Best);
        assert_eq!(Keep::Auto.of_form(RowForm::Pairs), Keep::BestWorst);
        assert_eq!(Keep::Auto.of_form(RowForm::Pointwise), Keep::All);
        assert_eq!(Keep::Top(2).of_form(RowForm::Sft), Keep::Top(2));
    }
}

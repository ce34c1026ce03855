//! Scores from judgments, as `show_result.py` computes them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::bradley_terry::{Battle, fit};
use super::files::{ArenaAnswer, ArenaJudgment};
use super::style::{ArenaStyle, FEATURES};
use crate::bootstrap::{Bootstrap, BootstrapMethod, Estimate};
use crate::error::Error;
use crate::logistic::logistic;
use crate::summary::mean_and_variance;

/// Resamples of the leaderboard.
const RESAMPLES: usize = 100;
/// Its intervals: from the 5th to the 95th percentile.
const LEVEL: f64 = 0.9;
/// Seed of the resamples.
const SEED: u64 = 42;

/// A model's score in a category.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArenaScore {
    /// The model.
    pub model: String,
    /// The share of battles that it wins, from 0 to 1. A tie counts half, a clear verdict as three battles.
    pub score: Estimate,
    /// Judgments with a verdict in both rounds.
    pub judgments: usize,
    /// Judgments without one, which count in no score.
    pub failed: usize,
}

/// The scores of a category at equal styles.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArenaStyleScores {
    /// By model: the probability that it wins a battle against an answer of the baseline in the same style.
    pub models: BTreeMap<String, Estimate>,
    /// The weights of length, headings, lists and bold texts, per standard deviation of their differences.
    pub weights: [f64; FEATURES],
}

/// Returns the model's share of the battles of a judgment; `None` if a round has no verdict.
#[must_use]
pub fn arena_preference(judgment: &ArenaJudgment) -> Option<f64> {
    let outcomes = judgment.outcomes()?;
    Some(outcomes.iter().sum::<f64>() / outcomes.len() as f64)
}

/// Returns the scores of all models by category, the best first. A category without any verdict is left out.
///
/// # Errors
/// None for judgments that were read; they are those of [`Bootstrap::mean`].
pub fn arena_scores(judgments: &[ArenaJudgment]) -> Result<BTreeMap<String, Vec<ArenaScore>>, Error> {
    let mut groups: BTreeMap<&str, BTreeMap<&str, Vec<&ArenaJudgment>>> = BTreeMap::new();
    for judgment in judgments {
        groups.entry(&judgment.category).or_default().entry(&judgment.model).or_default().push(judgment);
    }
    let mut scores = BTreeMap::new();
    for (category, models) in groups {
        let mut list = Vec::new();
        for (model, own) in models {
            let outcomes: Vec<Vec<f64>> = own.iter().filter_map(|judgment| judgment.outcomes()).collect();
            if outcomes.is_empty() {
                continue;
            }
            list.push(ArenaScore {
                model: model.to_owned(),
                score: bootstrap().mean(&outcomes.concat())?,
                judgments: outcomes.len(),
                failed: own.len() - outcomes.len(),
            });
        }
        list.sort_by(|a, b| b.score.value.total_cmp(&a.score.value));
        if !list.is_empty() {
            scores.insert(category.to_owned(), list);
        }
    }
    Ok(scores)
}

/// Returns the scores of a category at equal styles: `show_result.py --control-features markdown length`. The styles are those in the `metadata` of
/// the answers, those of the baseline included. The weights are fitted to the battles of all models, so that a model's score depends on the others.
///
/// # Errors
/// An answer without a style, styles that do not differ, or no battle.
pub fn arena_style_scores(
    judgments: &[ArenaJudgment],
    answers: &[ArenaAnswer],
    category: &str,
) -> Result<ArenaStyleScores, Error> {
    let styles: HashMap<(&str, &str), Option<&ArenaStyle>> =
        answers.iter().map(|a| ((a.model.as_str(), a.uid.as_str()), a.metadata.as_ref())).collect();
    let style = |model: &str, uid: &str| -> Result<&ArenaStyle, Error> {
        let reason = |what: &str| Error::Style { reason: format!("{model}'s answer to the question {uid} {what}") };
        styles.get(&(model, uid)).ok_or_else(|| reason("is missing"))?.ok_or_else(|| reason("has no `metadata`"))
    };
    let judged: Vec<(&ArenaJudgment, Vec<f64>)> = judgments
        .iter()
        .filter(|judgment| judgment.category == category)
        .filter_map(|judgment| Some((judgment, judgment.outcomes()?)))
        .collect();
    let names: BTreeSet<&str> = judged.iter().map(|(judgment, _)| judgment.model.as_str()).collect();
    let numbers: HashMap<&str, usize> = names.iter().enumerate().map(|(number, name)| (*name, number)).collect();
    let mut battles = Vec::new();
    for (judgment, outcomes) in &judged {
        let own = style(&judgment.model, &judgment.uid)?;
        let style = own.difference(style(&judgment.baseline, &judgment.uid)?);
        let model = numbers[judgment.model.as_str()];
        battles.extend(outcomes.iter().map(|&outcome| Battle { model, style, outcome }));
    }
    if battles.len() < 2 {
        return Err(Error::TooFew { what: "battles", found: battles.len(), needed: 2 });
    }
    normalize(&mut battles)?;
    let all: Vec<usize> = (0..battles.len()).collect();
    let weights = fit(&battles, &all, names.len())?.style;
    let estimates = bootstrap().statistics(battles.len(), |rows| {
        let fitted = fit(&battles, rows, names.len());
        fitted.map_or_else(|_| vec![f64::NAN; names.len()], |fit| fit.strengths.into_iter().map(logistic).collect())
    })?;
    Ok(ArenaStyleScores { models: names.into_iter().map(str::to_owned).zip(estimates).collect(), weights })
}

/// Gives every difference of styles a mean of 0 and a deviation of 1.
fn normalize(battles: &mut [Battle]) -> Result<(), Error> {
    for feature in 0..FEATURES {
        let values: Vec<f64> = battles.iter().map(|battle| battle.style[feature]).collect();
        let (mean, variance) = mean_and_variance(&values);
        if variance == 0.0 {
            let name = ["length", "number of headings", "number of list items", "number of bold texts"][feature];
            return Err(Error::Style {
                reason: format!("all answers differ equally from the baseline's in the {name}"),
            });
        }
        battles.iter_mut().for_each(|battle| battle.style[feature] = (battle.style[feature] - mean) / variance.sqrt());
    }
    Ok(())
}

fn bootstrap() -> Bootstrap {
    Bootstrap { resamples: RESAMPLES, level: LEVEL, method: BootstrapMethod::Percentile, seed: SEED }
}

//! Right or wrong, or the share of what is right, and the mean of it.

use serde::{Deserialize, Serialize};

use super::doc::{Gold, TaskDoc};
use super::extract::Extracted;
use crate::error::Error;
use crate::summary::mean_and_variance;

/// The grade of a multiple-choice example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChoiceGrade {
    /// The right choice is the likeliest.
    pub acc: bool,
    /// The right choice is the likeliest per character.
    pub acc_norm: bool,
}

/// The grade of a generated answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextGrade {
    /// By the strict filter.
    pub strict: bool,
    /// By the flexible one.
    pub flexible: bool,
}

/// Grades log-likelihoods, one for each choice: the greatest wins, the first of equals; for `acc_norm` each is divided by the number of
/// characters of its choice.
///
/// # Errors
/// As many log-likelihoods as choices are needed, all finite.
pub fn grade_choice(doc: &TaskDoc, loglikelihoods: &[f64]) -> Result<ChoiceGrade, Error> {
    crate::error::check_paired("log-likelihoods", loglikelihoods.len(), "choices", doc.choices.len())?;
    crate::error::check_sample("log-likelihoods", loglikelihoods, 1)?;
    // MMLU's continuations are single letters, and it reports no acc_norm.
    let lengths = doc.choices.iter().map(|c| c.chars().count().max(1) as f64);
    let normed: Vec<f64> = loglikelihoods.iter().zip(lengths).map(|(l, n)| l / n).collect();
    let right = |values: &[f64]| doc.gold == Gold::Choice(first_greatest(values));
    Ok(ChoiceGrade { acc: right(loglikelihoods), acc_norm: right(&normed) })
}

/// Returns the share of the right choices in the probability of all: the harness's `process_results_mc2`.
///
/// # Errors
/// As many log-likelihoods as choices are needed, all finite.
pub fn grade_mass(doc: &TaskDoc, loglikelihoods: &[f64]) -> Result<f64, Error> {
    crate::error::check_paired("log-likelihoods", loglikelihoods.len(), "choices", doc.choices.len())?;
    crate::error::check_sample("log-likelihoods", loglikelihoods, 1)?;
    // Relative to the greatest: the probabilities of long answers are below the smallest number.
    let greatest = loglikelihoods.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let masses: Vec<f64> = loglikelihoods.iter().map(|l| (l - greatest).exp()).collect();
    let right = |index: &usize| match &doc.gold {
        Gold::Choice(gold) => index == gold,
        Gold::Choices(golds) => golds.contains(index),
        Gold::Solution(_) => false,
    };
    let share: f64 = masses.iter().enumerate().filter(|(index, _)| right(index)).map(|(_, mass)| mass).sum();
    Ok(share / masses.iter().sum::<f64>())
}

fn first_greatest(values: &[f64]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

/// Grades a generated answer.
pub fn grade_text(doc: &TaskDoc, found: &Extracted) -> TextGrade {
    let right = |answer: &Option<String>| match (answer, &doc.gold) {
        (None, _) => false,
        (Some(answer), Gold::Solution(solution)) => same_number(answer, solution),
        (Some(answer), Gold::Choice(index)) => {
            ('A'..='Z').nth(*index).is_some_and(|letter| answer.as_str() == letter.to_string())
        }
        (Some(answer), Gold::Choices(indices)) => {
            let mut letters = indices.iter().filter_map(|index| ('A'..='Z').nth(*index));
            letters.any(|letter| answer.as_str() == letter.to_string())
        }
    };
    TextGrade { strict: right(&found.strict), flexible: right(&found.flexible) }
}

/// Compares as `exact_match` of GSM8K does: case, `,`, `$`, everything up to `#### ` and a final point do not count.
fn same_number(found: &str, solution: &str) -> bool {
    let normal = |text: &str| {
        let text: String = text.chars().filter(|c| !matches!(c, ',' | '$')).collect();
        let text = text.rsplit_once("#### ").map_or(text.as_str(), |(_, end)| end);
        text.strip_suffix('.').unwrap_or(text).to_lowercase()
    };
    normal(found) == normal(solution)
}

/// A share with its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanScore {
    /// The share.
    pub value: f64,
    /// Its standard error, with divisor `n − 1`.
    pub std_error: f64,
    /// Examples.
    pub n: usize,
}

impl MeanScore {
    /// Of grades from 0 to 1.
    pub(crate) fn of(values: &[f64]) -> Self {
        let (value, variance) = mean_and_variance(values);
        Self { value, std_error: (variance / values.len() as f64).sqrt(), n: values.len() }
    }
}

/// A metric of a task, with the subjects it is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    /// Over all examples; for a task with subjects the error is pooled over them.
    pub overall: MeanScore,
    /// By subject, where there are any.
    pub subjects: Vec<(String, MeanScore)>,
}

impl TaskScore {
    /// Sums up one metric; `grades[i]`, from 0 to 1, belongs to `docs[i]`.
    ///
    /// # Errors
    /// No examples, or not as many grades as examples.
    pub fn of(docs: &[TaskDoc], grades: &[f64]) -> Result<Self, Error> {
        crate::error::check_paired("examples", docs.len(), "grades", grades.len())?;
        if docs.is_empty() {
            return Err(Error::TooFew { what: "examples of a task", found: 0, needed: 1 });
        }
        let mut groups: Vec<(String, Vec<f64>)> = Vec::new();
        for (doc, &grade) in docs.iter().zip(grades) {
            let Some(subject) = &doc.subject else { continue };
            match groups.iter_mut().find(|(name, _)| name == subject) {
                Some((_, list)) => list.push(grade),
                None => groups.push((subject.clone(), vec![grade])),
            }
        }
        let subjects: Vec<(String, MeanScore)> =
            groups.into_iter().map(|(name, list)| (name, MeanScore::of(&list))).collect();
        let mut overall = MeanScore::of(grades);
        if subjects.len() > 1 && overall.n > subjects.len() {
            // The harness's pooled_sample_stderr: the variance within subjects.
            let within = |s: &MeanScore| (s.n as f64 - 1.0) * s.std_error.powi(2) * s.n as f64;
            let pooled = subjects.iter().map(|(_, s)| within(s)).sum::<f64>() / (overall.n - subjects.len()) as f64;
            overall.std_error = (pooled / overall.n as f64).sqrt();
        }
        Ok(Self { overall, subjects })
    }
}

/// The unweighted mean of several tasks, with the error of a mean of independent ones.
pub fn pooled_mean(scores: &[MeanScore]) -> Option<MeanScore> {
    let k = scores.len() as f64;
    let squares: f64 = scores.iter().map(|s| s.std_error.powi(2)).sum();
    (!scores.is_empty()).then(|| MeanScore {
        value: scores.iter().map(|s| s.value).sum::<f64>() / k,
        std_error: squares.sqrt() / k,
        n: scores.iter().map(|s| s.n).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doc(choices: &[&str], gold: usize, subject: Option<&str>) -> TaskDoc {
        TaskDoc {
            index: 0,
            subject: subject.map(str::to_owned),
            question: String::new(),
            choices: choices.iter().map(|c| (*c).to_owned()).collect(),
            gold: Gold::Choice(gold),
        }
    }

    #[test]
    fn length_decides_between_the_two_accuracies() {
        let doc = doc(&["ab", "abcdefgh"], 1, None);
        assert_eq!(grade_choice(&doc, &[-4.0, -8.0]).unwrap(), ChoiceGrade { acc: false, acc_norm: true });
        assert_eq!(
            grade_choice(&doc, &[-4.0, -4.0]).unwrap(),
            ChoiceGrade { acc: false, acc_norm: true },
            "the first of equals"
        );
        assert!(grade_choice(&doc, &[-4.0]).is_err() && grade_choice(&doc, &[-4.0, f64::NAN]).is_err());
    }

    #[test]
    fn the_share_of_the_right_choices_counts() {
        let of = |gold| TaskDoc { gold, ..doc(&["a", "b", "c"], 0, None) };
        // Probabilities of 1, 2 and 5 eighths of e^-2000, which is no number by itself.
        let logs: Vec<f64> = [1.0_f64, 2.0, 5.0].iter().map(|p| p.ln() - 2000.0).collect();
        let share = grade_mass(&of(Gold::Choices(vec![0, 2])), &logs).unwrap();
        assert!((share - 0.75).abs() < 1e-9, "{share}");
        let share = grade_mass(&of(Gold::Choice(1)), &logs).unwrap();
        assert!((share - 0.25).abs() < 1e-9, "{share}");
        assert!(grade_mass(&of(Gold::Choices(vec![0])), &logs[..2]).is_err());
        let found = |letter: &str| Extracted { strict: None, flexible: Some(letter.to_owned()) };
        let graded = |letter| grade_text(&of(Gold::Choices(vec![0, 2])), &found(letter));
        assert!(graded("C").flexible && !graded("B").flexible && !graded("C").strict);
        let mean = TaskScore::of(&[of(Gold::Choice(0)), of(Gold::Choice(1))], &[0.25, 0.75]).unwrap().overall;
        // The squares of two deviations of 1/4, over 1 and over 2.
        assert!((mean.value - 0.5).abs() < 1e-12 && (mean.std_error - 0.0625_f64.sqrt()).abs() < 1e-12, "{mean:?}");
    }

    #[test]
    fn numbers_are_compared_without_currency_and_groups() {
        assert!(
            same_number("$18.", "x\n#### 18") && same_number("1,204", "#### 1204") && !same_number("18.0", "#### 18")
        );
    }

    #[test]
    fn the_error_over_subjects_is_pooled_within_them() {
        let docs: Vec<TaskDoc> =
            [("a", 3), ("b", 4)].iter().flat_map(|(s, n)| (0..*n).map(|_| doc(&["x"], 0, Some(s)))).collect();
        let right = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        let got = TaskScore::of(&docs, &right).unwrap();
        assert_eq!(got.subjects[1].1, MeanScore { value: 1.0, std_error: 0.0, n: 4 });
        assert!((got.overall.value - 6.0 / 7.0).abs() < 1e-15);
        // Subject a: squares 2·(1/3)² + (2/3)² = 2/3 of 2 degrees; b: 0 of 3. Pooled over 5, over 7.
        assert!((got.overall.std_error - (2.0_f64 / 3.0 / 5.0 / 7.0).sqrt()).abs() < 1e-12, "{got:?}");
        let alone = MeanScore::of(&right[..3]);
        assert!((alone.std_error - (2.0_f64 / 3.0 / 2.0 / 3.0).sqrt()).abs() < 1e-12);
        let mean = pooled_mean(&[alone, got.overall]).unwrap();
        assert!((mean.value - (2.0 / 3.0 + 6.0 / 7.0) / 2.0).abs() < 1e-15 && mean.n == 10);
    }
}

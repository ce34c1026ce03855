//! The graded examples of a task.

use std::collections::BTreeMap;

use serde::Serialize;
use setpoint_eval::{Extracted, Gold, Task, TaskDoc, grade_choice, grade_mass};

use crate::failure::Outcome;

/// One example as it is written to `samples_TASK.jsonl`.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    pub(super) id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) context: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) contexts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) continuations: Vec<String>,
    /// Nats, one for each continuation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) loglikelihoods: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extracted: Option<Extracted>,
    /// Metric by metric.
    pub(super) grades: BTreeMap<&'static str, Grade>,
}

/// The outcome of an example by one metric.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub(super) enum Grade {
    Right(bool),
    /// From 0 to 1.
    Share(f64),
}

impl Grade {
    /// Returns 1 for right, 0 for wrong, or the share.
    pub(super) fn value(self) -> f64 {
        match self {
            Self::Right(right) => f64::from(u8::from(right)),
            Self::Share(share) => share,
        }
    }
}

/// Grades the choices of an example, metric by metric.
pub(super) fn grade_choices(
    task: Task,
    doc: &TaskDoc,
    loglikelihoods: &[f64],
) -> Outcome<BTreeMap<&'static str, Grade>> {
    if let Gold::Choices(_) = doc.gold {
        return Ok(BTreeMap::from([("acc", Grade::Share(grade_mass(doc, loglikelihoods)?))]));
    }
    let grade = grade_choice(doc, loglikelihoods)?;
    let mut grades = BTreeMap::from([("acc", Grade::Right(grade.acc))]);
    if task.has_normalized_accuracy() {
        grades.insert("acc_norm", Grade::Right(grade.acc_norm));
    }
    Ok(grades)
}

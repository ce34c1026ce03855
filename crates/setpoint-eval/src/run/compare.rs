//! Two results side by side.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::manifest::EvalRun;
use crate::bootstrap::{Bootstrap, Estimate};
use crate::error::Error;
use crate::paired::{McNemar, SignTest, mcnemar, sign_test};
use crate::summary::mean;

/// A test of whether a difference is more than chance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PairedTest {
    /// On right and wrong answers.
    McNemar(McNemar),
    /// On everything else.
    Sign(SignTest),
}

impl PairedTest {
    /// Two-sided.
    pub fn p_value(&self) -> f64 {
        match self {
            PairedTest::McNemar(test) => test.p_value,
            PairedTest::Sign(test) => test.p_value,
        }
    }
}

/// One task of two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The task: the ids up to their first `/`.
    pub task: String,
    /// Examples measured in both.
    pub n: usize,
    /// Examples measured in one of them alone.
    pub unpaired: usize,
    /// Mean of the first run.
    pub a: f64,
    /// Mean of the second.
    pub b: f64,
    /// `b − a`, resampled by example.
    pub difference: Estimate,
    /// The test of whether it is more than chance.
    pub test: PairedTest,
}

/// Lists the differences by which two results are not comparable; empty where they are. Models differ, and programs' versions may.
pub fn differences(a: &EvalRun, b: &EvalRun) -> Vec<String> {
    let (a, b) = (&a.manifest, &b.manifest);
    let mut reasons = Vec::new();
    let mut same = |what: &str, a: String, b: String| {
        if a != b {
            reasons.push(format!("{what}: {a} against {b}"));
        }
    };
    same("benchmark", a.benchmark.clone(), b.benchmark.clone());
    same("data", short(&a.data), short(&b.data));
    let identity = |m: &super::manifest::Manifest| {
        let baseline = m.baseline.as_ref();
        baseline.map_or_else(|| "none".to_owned(), |b| b.hash.as_deref().map_or_else(|| b.name.clone(), short))
    };
    same("baseline", identity(a), identity(b));
    same("judge", judge(&a.judge), judge(&b.judge));
    same("decoding", a.decoding.to_string(), b.decoding.to_string());
    same("scoring", a.scoring.to_string(), b.scoring.to_string());
    reasons
}

/// A judge without the address it was asked at.
fn judge(judge: &Value) -> String {
    let mut judge = judge.clone();
    if let Some(fields) = judge.as_object_mut() {
        fields.remove("base_url");
    }
    judge.to_string()
}

/// The beginning of a hash.
fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

/// Compares `b` with `a` task by task, on the examples that both measured.
///
/// # Errors
/// A value that is not finite, or a setting of `bootstrap` out of range. A task with fewer than two common examples is left out.
pub fn compare(a: &EvalRun, b: &EvalRun, bootstrap: &Bootstrap) -> Result<Vec<Comparison>, Error> {
    fn values(run: &EvalRun) -> BTreeMap<&str, f64> {
        run.items.iter().map(|i| (i.id.as_str(), i.value)).collect()
    }
    let (first, second) = (values(a), values(b));
    let task = |id: &str| id.split('/').next().unwrap_or(id).to_owned();
    let mut tasks: BTreeMap<String, (Vec<f64>, Vec<f64>, usize)> = BTreeMap::new();
    for (id, value) in &first {
        let entry = tasks.entry(task(id)).or_default();
        match second.get(id) {
            Some(other) => {
                entry.0.push(*value);
                entry.1.push(*other);
            }
            None => entry.2 += 1,
        }
    }
    for id in second.keys().filter(|id| !first.contains_key(*id)) {
        tasks.entry(task(id)).or_default().2 += 1;
    }
    let mut rows = Vec::new();
    for (task, (x, y, unpaired)) in tasks {
        if x.len() < 2 {
            continue;
        }
        let graded = x.iter().chain(&y).all(|v| *v == 0.0 || *v == 1.0);
        let right = |values: &[f64]| values.iter().map(|v| *v == 1.0).collect::<Vec<_>>();
        let test = match graded {
            true => PairedTest::McNemar(mcnemar(&right(&y), &right(&x))?),
            false => PairedTest::Sign(sign_test(&y, &x)?),
        };
        let difference = bootstrap.paired_difference(&y, &x)?;
        rows.push(Comparison { task, n: x.len(), unpaired, a: mean(&x), b: mean(&y), difference, test });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{EvalItem, Manifest, ModelIdentity, content_digest};
    use super::*;
    use serde_json::json;

    fn run(name: &str, values: &[(&str, f64)]) -> EvalRun {
        EvalRun {
            manifest: Manifest {
                benchmark: "tasks".into(),
                setpoint: "0".into(),
                burn: None,
                model: ModelIdentity { name: name.into(), ..ModelIdentity::default() },
                baseline: None,
                decoding: Value::Null,
                data: content_digest(["q"]),
                judge: Value::Null,
                scoring: json!({"shots": 0}),
            },
            scores: Value::Null,
            items: values.iter().map(|(id, value)| EvalItem { id: (*id).into(), value: *value }).collect(),
            distributions: BTreeMap::new(),
        }
    }

    #[test]
    fn examples_are_paired_by_id_whatever_their_order() {
        let a = run("a", &[("t/1", 1.0), ("t/2", 0.0), ("t/3", 0.0), ("t/4", 1.0), ("u/1", 3.5), ("u/2", 2.0)]);
        let b = run("b", &[("u/2", 2.0), ("u/1", 5.0), ("t/3", 1.0), ("t/2", 1.0), ("t/1", 1.0), ("t/9", 1.0)]);
        let rows = compare(&a, &b, &Bootstrap::default()).unwrap();
        assert_eq!(rows.iter().map(|r| r.task.as_str()).collect::<Vec<_>>(), ["t", "u"]);
        assert_eq!((rows[0].n, rows[0].unpaired), (3, 2), "t/4 and t/9 stand alone");
        assert!((rows[0].a - 1.0 / 3.0).abs() < 1e-15 && rows[0].b == 1.0);
        let PairedTest::McNemar(test) = rows[0].test else { panic!("{:?}", rows[0].test) };
        assert_eq!((test.both, test.only_a, test.only_b, test.p_value), (1, 2, 0, 0.5)); // 2·(½)²
        assert!((rows[1].difference.value - 0.75).abs() < 1e-15);
        assert!(matches!(rows[1].test, PairedTest::Sign(SignTest { above: 1, ties: 1, below: 0, .. })));
    }

    #[test]
    fn only_models_and_versions_may_differ() {
        let a = run("a", &[]);
        let mut b = run("b", &[]);
        b.manifest.setpoint = "9".into();
        b.manifest.model.hash = Some("f".into());
        assert!(differences(&a, &b).is_empty());
        b.manifest.data = content_digest(["another q"]);
        b.manifest.scoring = json!({"shots": 5});
        b.manifest.judge = json!({"model": "x", "base_url": "http://localhost"});
        let reasons = differences(&a, &b);
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(reasons[0].starts_with("data: ") && reasons[2].contains("{\"shots\":5}"), "{reasons:?}");
    }

    #[test]
    fn a_judge_is_the_same_wherever_it_is_asked() {
        let (mut a, mut b) = (run("a", &[]), run("b", &[]));
        a.manifest.judge = json!({"model": "x", "base_url": "http://one"});
        b.manifest.judge = json!({"model": "x", "base_url": "http://two"});
        assert!(differences(&a, &b).is_empty());
    }

    #[test]
    fn a_digest_tells_where_texts_end() {
        assert_ne!(content_digest(["ab", "c"]), content_digest(["a", "bc"]));
        assert_eq!(content_digest(["ab"]).len(), 64);
    }
}

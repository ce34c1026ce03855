//! Every pairwise and row-wise objective against numpy and trl in f64 (`tests/golden/make_pairwise.py`): loss and gradient with respect to
//! the sequence log-probs, within 1e-6 relative.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;
use serde::Deserialize;
use serde_json::Value;
use setpoint_align::{
    METHODS, Method, Pair, PairBatch, PairObjective, RowBatch, Sides, SurveyedPair, Training, TrainsOn, dro_v,
    weighted_sum,
};

use crate::goldens::read;
use crate::platform::{Platform, double, gradient, host, largest, single};

#[derive(Deserialize)]
struct Golden {
    versions: BTreeMap<String, String>,
    input: BTreeMap<String, Vec<f64>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    settings: Value,
    loss: f64,
    losses: Vec<f64>,
    grad_w: Vec<f64>,
    grad_l: Vec<f64>,
    trl: Option<Trl>,
}

/// The results of trl's own code on the same numbers.
#[derive(Deserialize)]
struct Trl {
    loss: f64,
    grad_w: Vec<f64>,
    grad_l: Vec<f64>,
}

/// The golden input on a device.
struct Inputs<'a> {
    platform: &'a Platform,
    numbers: &'a BTreeMap<String, Vec<f64>>,
    logps: Pair,
}

impl Inputs<'_> {
    fn pair(&self, what: &str) -> Pair {
        let side = |side: &str| self.platform.constant(&self.numbers[&format!("{what}_{side}")]);
        Pair { chosen: side("w"), rejected: side("l") }
    }

    /// Chosen rows, then rejected ones.
    fn rows(pair: Pair) -> Tensor<1> {
        Tensor::cat(vec![pair.chosen, pair.rejected], 0)
    }

    /// The losses of a method by its name, with the settings that a config file would have.
    fn losses(&self, name: &str, settings: &Value) -> Tensor<1> {
        let mut settings = settings.clone();
        settings["method"] = name.into();
        if let Some(models) = settings.as_object_mut().unwrap().remove("models") {
            settings["ensemble"] = models.as_array().unwrap()[1..].into();
        }
        let method: Method = serde_json::from_value(settings).unwrap_or_else(|error| panic!("{name}: {error}"));
        let rows = || Self::rows(self.logps.clone() - self.pair("ref_logps"));
        match method.training() {
            Training::Pairs(method) => {
                let objective = &method.objectives[0].objective;
                objective.losses(&self.pair_batch(objective.as_ref())).loss.losses
            }
            Training::Rows(objective) => {
                let pairs = self.logps.chosen.dims()[0];
                let baseline = objective.baseline().map_or(0.0, |baseline| (baseline.of)(&self.numbers["mismatched"]));
                let batch = RowBatch {
                    log_ratios: rows(),
                    rewards: self.numbers["quantiles"].clone(),
                    desirable: (0..2 * pairs).map(|row| row < pairs).collect(),
                    baseline,
                };
                objective.losses(&batch).losses
            }
            Training::RowsWithValue(settings) => {
                let values = self.platform.constant(&self.numbers["values"]);
                dro_v(rows(), Self::rows(self.pair("rewards_a")), values, &settings).losses
            }
            Training::Prompts(_) | Training::Best | Training::Sampled(_) => {
                panic!("`{name}` does not train on pairs or rows")
            }
        }
    }

    fn pair_batch(&self, objective: &dyn PairObjective) -> PairBatch {
        // The NLL is another log-prob's business.
        let zeros = || self.pair("tokens").chosen.zeros_like();
        let sides = |what: &str, i: usize| {
            let [chosen, rejected] = ["w", "l"].map(|side| self.numbers[&format!("{what}_{side}")][i]);
            Sides { chosen, rejected }
        };
        let pairs = 0..self.logps.chosen.dims()[0];
        let batch: Vec<SurveyedPair> =
            pairs.map(|i| SurveyedPair { logps: sides("logps", i), ref_logps: sides("ref_logps", i) }).collect();
        PairBatch {
            logps: self.logps.clone(),
            ref_logps: self.pair("ref_logps"),
            tokens: self.pair("tokens"),
            rewards: vec![self.pair("rewards_a"), self.pair("rewards_b")],
            response_nll: zeros(),
            whole_nll: zeros(),
            survey: objective.survey(&batch).iter().map(|column| self.platform.constant(column)).collect(),
            progress: 0.0,
        }
    }
}

/// Loss, losses, and the gradient of the mean loss by the log-probs of the two sides.
fn run(platform: &Platform, golden: &Golden, case: &Case) -> (f64, Vec<f64>, Vec<f64>, Vec<f64>) {
    let logps =
        Pair { chosen: platform.leaf(&golden.input["logps_w"]), rejected: platform.leaf(&golden.input["logps_l"]) };
    let inputs = Inputs { platform, numbers: &golden.input, logps: logps.clone() };
    let losses = inputs.losses(&case.name, &case.settings);
    let n = case.losses.len();
    let loss = weighted_sum(losses.clone(), &vec![1.0 / n as f64; n]);
    let gradients = loss.backward();
    let slopes = [&logps.chosen, &logps.rejected].map(|leaf| gradient(leaf, &gradients));
    let [chosen, rejected] = slopes;
    (host(&loss)[0], host(&losses), chosen, rejected)
}

#[test]
fn every_objective_equals_numpy_and_trl() {
    let golden: Golden = read("pairwise.json");
    assert!(golden.versions.contains_key("trl") && golden.versions.contains_key("numpy"));
    let names: BTreeSet<&str> = golden.cases.iter().map(|case| case.name.as_str()).collect();
    // Mixtures are sums of these; objectives on all responses have goldens of their own, and maximum likelihood is SFT.
    let has_goldens = |trains_on| matches!(trains_on, TrainsOn::Pairs | TrainsOn::Rows);
    let listed = METHODS.iter().filter(|about| has_goldens(about.trains_on) && about.name != "mix");
    assert_eq!(names, listed.map(|about| about.name).collect(), "goldens for every objective, and no others");
    for (number, case) in golden.cases.iter().enumerate() {
        let relative = |what: &str, found: &[f64], expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            // Where a gradient is the difference of two larger numbers, what f64 leaves of those.
            let floor = 1e-14 * largest(expected);
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert!(
                    (found - expected).abs() <= 1e-6 * expected.abs() + floor,
                    "case {number} ({} {}), {what}[{i}]: found {found}, expected {expected}",
                    case.name,
                    case.settings
                );
            }
        };
        for platform in double() {
            let (loss, losses, chosen, rejected) = run(&platform, &golden, case);
            relative("loss", &[loss], &[case.loss]);
            relative("losses", &losses, &case.losses);
            relative("chosen", &chosen, &case.grad_w);
            relative("rejected", &rejected, &case.grad_l);
            if let Some(trl) = &case.trl {
                relative("loss by trl", &[loss], &[trl.loss]);
                relative("chosen by trl", &chosen, &trl.grad_w);
                relative("rejected by trl", &rejected, &trl.grad_l);
            }
        }
    }
    let by_trl = golden.cases.iter().filter(|case| case.trl.is_some()).count();
    assert!(by_trl >= 30, "{by_trl} cases by trl");
}

/// In f32, as models are trained: the rounding of the intermediate numbers, which are at most as large as log-prob, logit and loss.
#[test]
fn single_precision_stays_near() {
    let golden: Golden = read("pairwise.json");
    for case in &golden.cases {
        for platform in single() {
            let (loss, losses, chosen, rejected) = run(&platform, &golden, case);
            let size = 1.0 + largest(&case.losses);
            platform.assert_close(&case.name, &[loss], &[case.loss], platform.rounding(size));
            platform.assert_close(&case.name, &losses, &case.losses, platform.rounding(size));
            for (found, expected) in [(&chosen, &case.grad_w), (&rejected, &case.grad_l)] {
                let size = largest(expected).max(largest(&case.grad_w));
                platform.assert_close(&case.name, found, expected, platform.rounding(size));
            }
        }
    }
}

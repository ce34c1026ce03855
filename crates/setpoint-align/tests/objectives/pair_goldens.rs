//! Every pairwise and row-wise objective against numpy and trl in f64 (`tests/golden/make_pairwise.py`): loss and gradient with respect to
//! the sequence log-probs, within 1e-6 relative.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use setpoint_align::{
    Pair, RpoSettings, aot, aot_unpaired, apo_down, apo_zero, bco_pair, cal_dpo, discopop, dpo, dpo_shift, dpop, dro_v,
    exo_pair, hinge, ipo, kto, kto_reference_point, match_by_rank, nca_pair, orpo, qrpo, robust, rpo, rpo_bwd_kl,
    rpo_fwd_kl, rpo_sq, sigmoid_norm, simpo, slic_hf, sppo_hard, weighted_sum,
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

/// What trl's own code made of the same numbers.
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

    fn log_ratios(&self) -> Pair {
        self.logps.clone().minus(self.pair("ref_logps"))
    }

    fn means(&self) -> Pair {
        self.logps.clone().divided_by(self.pair("tokens"))
    }

    /// Chosen rows, then rejected ones.
    fn rows(pair: Pair) -> Tensor<1> {
        Tensor::cat(vec![pair.chosen, pair.rejected], 0)
    }

    /// The losses of an objective by its name in the golden file.
    fn losses(&self, name: &str, settings: &Value) -> Tensor<1> {
        fn of<T: DeserializeOwned>(settings: &Value) -> T {
            serde_json::from_value(settings.clone()).unwrap_or_else(|error| panic!("{settings}: {error}"))
        }
        let h = self.log_ratios();
        let output = match name {
            "dpo" => dpo(h, &of(settings)),
            "robust" => robust(h, &of(settings)),
            "hinge" => hinge(h, &of(settings)),
            "ipo" => ipo(h, self.pair("tokens"), &of(settings)),
            "exo_pair" => exo_pair(h, &of(settings)),
            "nca_pair" => nca_pair(h, &of(settings)),
            "bco_pair" => bco_pair(h, &of(settings)),
            "sppo_hard" => sppo_hard(h, &of(settings)),
            "apo_zero" => apo_zero(h, &of(settings)),
            "apo_down" => apo_down(h, &of(settings)),
            "discopop" => discopop(h, &of(settings)),
            "sigmoid_norm" => sigmoid_norm(h, self.pair("tokens"), &of(settings)),
            "aot" => {
                let reference = self.pair("ref_logps");
                let margins = host(&self.logps.clone().margin());
                let matched = match_by_rank(&margins, &host(&reference.clone().margin()));
                aot(self.logps.clone(), reference, self.platform.constant(&matched), &of(settings))
            }
            "aot_unpaired" => {
                let (chosen, rejected) = (host(&h.chosen), host(&h.rejected));
                let matched = Pair {
                    chosen: self.platform.constant(&match_by_rank(&chosen, &rejected)),
                    rejected: self.platform.constant(&match_by_rank(&rejected, &chosen)),
                };
                aot_unpaired(h, matched, &of(settings))
            }
            "simpo" => simpo(self.means(), &of(settings)),
            // The NLL is another log-prob's business.
            "orpo" => return orpo(self.means(), self.pair("tokens").chosen.zeros_like(), &of(settings)).losses,
            "cal_dpo" => cal_dpo(h, &of(settings)),
            "slic_hf" => slic_hf(self.logps.clone(), &of(settings)),
            "rpo" => {
                let models: Vec<String> = of(&settings["models"]);
                let rewards: Vec<Pair> = models.iter().map(|model| self.pair(&format!("rewards_{model}"))).collect();
                let [beta, pessimism] = ["beta", "pessimism"].map(|key| of(&settings[key]));
                rpo(h, &rewards, &RpoSettings { beta, pessimism })
            }
            "dpop" => dpop(h, &of(settings)),
            "dpo_shift" => dpo_shift(h, 0.0, &of(settings)),
            "rpo_sq" => rpo_sq(h, self.pair("rewards_a"), &of(settings)),
            "rpo_bwd_kl" => rpo_bwd_kl(h, self.pair("rewards_a"), &of(settings)),
            "rpo_fwd_kl" => rpo_fwd_kl(h, self.pair("rewards_a"), &of(settings)),
            "kto" => {
                let pairs = h.chosen.dims()[0];
                let labels: Vec<bool> = (0..2 * pairs).map(|row| row < pairs).collect();
                let z = kto_reference_point(&self.numbers["mismatched"]);
                return kto(Self::rows(h), &labels, z, &of(settings)).losses;
            }
            "qrpo" => {
                return qrpo(Self::rows(h), self.platform.constant(&self.numbers["quantiles"]), &of(settings)).losses;
            }
            "dro_v" => {
                let rewards = Self::rows(self.pair("rewards_a"));
                return dro_v(Self::rows(h), rewards, self.platform.constant(&self.numbers["values"]), &of(settings))
                    .losses;
            }
            other => panic!("the golden file has an objective `{other}` that is unknown here"),
        };
        output.losses
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
    assert_eq!(names.len(), 27, "{names:?}");
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

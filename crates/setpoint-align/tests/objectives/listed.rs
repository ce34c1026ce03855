//! Properties of every objective in the list, with its default settings: a new one is tested without another line here.

use burn::tensor::Tensor;
use proptest::prelude::*;
use setpoint_align::{
    METHODS, Method, Pair, PairBatch, PairObjective, PairOutput, RowBatch, RowObjective, Sides, SurveyedPair, Training,
};

use crate::pairwise::config;
use crate::platform::{Platform, all, double, exact, gradient, host, largest, on_processors};

/// Numbers of some pairs.
#[derive(Debug, Clone, PartialEq)]
struct Case {
    logps: [Vec<f64>; 2],
    ref_logps: [Vec<f64>; 2],
    tokens: [Vec<f64>; 2],
    /// By two reward models.
    rewards: [[Vec<f64>; 2]; 2],
}

fn cases() -> impl Strategy<Value = Case> {
    (1..7usize).prop_flat_map(|b| {
        let sides = move |range: std::ops::Range<f64>| {
            let side = move || prop::collection::vec(range.clone().prop_map(exact), b);
            [side(), side()]
        };
        let tokens = || prop::collection::vec((1..60u32).prop_map(f64::from), b);
        let rewards = || sides(-3.0..3.0);
        (sides(-60.0..-1.0), sides(-60.0..-1.0), [tokens(), tokens()], [rewards(), rewards()])
            .prop_map(|(logps, ref_logps, tokens, rewards)| Case { logps, ref_logps, tokens, rewards })
    })
}

impl Case {
    fn len(&self) -> usize {
        self.logps[0].len()
    }

    /// The pairs of a range.
    fn part(&self, range: std::ops::Range<usize>) -> Self {
        self.map(|values| values[range.clone()].to_vec())
    }

    fn reversed(&self) -> Self {
        self.map(|values| values.iter().rev().copied().collect())
    }

    fn map(&self, change: impl Fn(&Vec<f64>) -> Vec<f64>) -> Self {
        let sides = |sides: &[Vec<f64>; 2]| [change(&sides[0]), change(&sides[1])];
        Self {
            logps: sides(&self.logps),
            ref_logps: sides(&self.ref_logps),
            tokens: sides(&self.tokens),
            rewards: [sides(&self.rewards[0]), sides(&self.rewards[1])],
        }
    }

    /// Lets an objective survey the whole batch; column by column.
    fn survey(&self, objective: &dyn PairObjective) -> Vec<Vec<f64>> {
        let sides = |values: &[Vec<f64>; 2], i: usize| Sides { chosen: values[0][i], rejected: values[1][i] };
        let pair = |i| SurveyedPair { logps: sides(&self.logps, i), ref_logps: sides(&self.ref_logps, i) };
        objective.survey(&(0..self.len()).map(pair).collect::<Vec<_>>())
    }

    /// Returns the output of an objective for these log-probs and the other numbers.
    fn output(
        &self,
        platform: &Platform,
        objective: &dyn PairObjective,
        survey: &[Vec<f64>],
        logps: Pair,
    ) -> PairOutput {
        let constant = |sides: &[Vec<f64>; 2]| constants(platform, sides);
        let tokens = constant(&self.tokens);
        let nll: Tensor<1> = -logps.chosen.clone() / tokens.chosen.clone();
        objective.losses(&PairBatch {
            logps,
            ref_logps: constant(&self.ref_logps),
            tokens,
            rewards: self.rewards.iter().map(constant).collect(),
            response_nll: nll.clone(),
            whole_nll: nll,
            survey: survey.iter().map(|column| platform.constant(column)).collect(),
            progress: 0.5,
        })
    }

    /// Returns the losses alone, without a graph.
    fn losses(&self, platform: &Platform, objective: &dyn PairObjective, survey: &[Vec<f64>]) -> Vec<f64> {
        let logps = constants(platform, &self.logps);
        host(&self.output(platform, objective, survey, logps).loss.losses)
    }

    fn run(&self, platform: &Platform, objective: &dyn PairObjective, survey: &[Vec<f64>]) -> Found {
        let logps = Pair { chosen: platform.leaf(&self.logps[0]), rejected: platform.leaf(&self.logps[1]) };
        let PairOutput { loss, metrics } = self.output(platform, objective, survey, logps.clone());
        for logged in [&loss.rewards.chosen, &loss.rewards.rejected].into_iter().chain(metrics.iter().map(|(_, m)| m)) {
            assert!(!logged.is_autodiff(), "{objective:?} logs values without a graph");
            assert_eq!(logged.dims(), [self.len()], "{objective:?} logs a value per pair");
        }
        let gradients = loss.losses.clone().sum().backward();
        let slopes = [gradient(&logps.chosen, &gradients), gradient(&logps.rejected, &gradients)];
        Found { losses: host(&loss.losses), slopes }
    }
}

fn constants(platform: &Platform, sides: &[Vec<f64>; 2]) -> Pair {
    Pair { chosen: platform.constant(&sides[0]), rejected: platform.constant(&sides[1]) }
}

/// Losses, and the gradients of their sum by the log-probs of the two sides.
#[derive(Debug, PartialEq)]
struct Found {
    losses: Vec<f64>,
    slopes: [Vec<f64>; 2],
}

/// Every pairwise objective with its defaults.
fn pairwise() -> Vec<(&'static str, Box<dyn PairObjective>)> {
    let objective = |name: &'static str| match Method::named(name)?.training() {
        Training::Pairs(method) => Some((name, method.objectives.into_iter().next()?.objective)),
        _ => None,
    };
    METHODS.iter().filter_map(|about| objective(about.name)).collect()
}

/// Every objective on rows with its defaults.
fn on_rows() -> Vec<(&'static str, Box<dyn RowObjective>)> {
    let objective = |name: &'static str| match Method::named(name)?.training() {
        Training::Rows(objective) => Some((name, objective)),
        _ => None,
    };
    METHODS.iter().filter_map(|about| objective(about.name)).collect()
}

/// Returns a batch of rows with their log-ratios, rewards in `[0, 1]` and labels.
fn row_batch(log_ratios: Tensor<1>, rewards: &[f64], labels: &[f64], baseline: f64) -> RowBatch {
    let desirable = labels.iter().map(|&label| label > 0.5).collect();
    RowBatch { log_ratios, rewards: rewards.to_vec(), desirable, baseline }
}

/// Rows with their log-ratios, rewards in `[0, 1]` and labels; losses and gradients.
fn run_rows(
    platform: &Platform,
    objective: &dyn RowObjective,
    [h, rewards, labels]: [&[f64]; 3],
    baseline: f64,
) -> (Vec<f64>, Vec<f64>) {
    let leaf = platform.leaf(h);
    let output = objective.losses(&row_batch(leaf.clone(), rewards, labels, baseline));
    assert!(!output.rewards.is_autodiff(), "{objective:?} logs rewards without a graph");
    let gradients = output.losses.clone().sum().backward();
    (host(&output.losses), gradient(&leaf, &gradients))
}

/// Compares slopes with differences of losses, of which `here` are those where the slopes are, and `at` returns those some way off. Points next
/// to a kink (of a hinge, of a minimum) are passed over: no difference tells their slope.
fn check_slopes(platform: &Platform, name: &str, slopes: &[f64], here: &[f64], at: impl Fn(f64) -> Vec<f64>) {
    let step = 1e-4;
    let around = [-2.0, -1.0, 1.0, 2.0].map(|steps| at(steps * step));
    for (i, (&slope, &here)) in slopes.iter().zip(here).enumerate() {
        let [far_below, below, above, far_above] = around.each_ref().map(|losses| losses[i]);
        let (right, left) = ((far_above - here) / step, (here - far_below) / step);
        let difference = (8.0 * (above - below) - (far_above - far_below)) / (12.0 * step);
        if (right - left).abs() > 0.02 * (1.0 + difference.abs()) || (right - left).abs() > 0.5 * difference.abs() {
            continue;
        }
        let tolerance = 1e-8 * (1.0 + difference.abs()) + 1e-14 * here.abs() / step;
        platform.assert_close(name, &[slope], &[difference], tolerance);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn gradients_are_the_slopes_of_losses(case in cases()) {
        for platform in double() {
            // A loss that looks at the whole batch may be shared among its pairs: goldens have its gradients.
            for (name, objective) in pairwise().into_iter().filter(|(_, objective)| !objective.surveys()) {
                let found = case.run(&platform, objective.as_ref(), &[]);
                for side in [0, 1] {
                    let at = |by: f64| {
                        let mut moved = case.clone();
                        moved.logps[side].iter_mut().for_each(|logp| *logp += by);
                        moved.losses(&platform, objective.as_ref(), &[])
                    };
                    check_slopes(&platform, name, &found.slopes[side], &found.losses, at);
                }
            }
        }
    }

    #[test]
    fn batches_may_be_cut_and_ordered_in_any_way(case in cases()) {
        for platform in on_processors() {
            for (name, objective) in pairwise() {
                let objective = objective.as_ref();
                let survey = case.survey(objective);
                let whole = case.run(&platform, objective, &survey);
                let (mut parts, size) = (Found { losses: Vec::new(), slopes: [Vec::new(), Vec::new()] }, 2);
                for start in (0..case.len()).step_by(size) {
                    let range = start..case.len().min(start + size);
                    let columns: Vec<Vec<f64>> = survey.iter().map(|column| column[range.clone()].to_vec()).collect();
                    let part = case.part(range).run(&platform, objective, &columns);
                    parts.losses.extend(part.losses);
                    parts.slopes.iter_mut().zip(part.slopes).for_each(|(all, own)| all.extend(own));
                }
                prop_assert_eq!(&parts, &whole, "{} in parts", name);

                // Pairs with equal values may change places in a loss that looks at the whole batch: the sum is the same.
                let reversed = case.reversed();
                let back = reversed.losses(&platform, objective, &reversed.survey(objective));
                let [there, back] = [&whole.losses, &back].map(|losses| losses.iter().sum::<f64>());
                let size = (1.0 + largest(&whole.losses)) * case.len() as f64;
                platform.assert_close(name, &[back], &[there], platform.rounding(size));
            }
        }
    }

    #[test]
    fn rows_may_be_cut_in_any_way_and_have_the_slopes_of_losses(case in cases()) {
        let labels: Vec<f64> = (0..case.len()).map(|i| (i % 2) as f64).collect();
        let h: Vec<f64> = case.logps[0].iter().zip(&case.ref_logps[0]).map(|(logp, reference)| logp - reference).collect();
        let rewards: Vec<f64> = case.rewards[0][0].iter().map(|reward| exact((reward + 3.0) / 6.0)).collect();
        for (name, objective) in on_rows() {
            let objective = objective.as_ref();
            let baseline = objective.baseline().map_or(0.0, |baseline| (baseline.of)(&case.rewards[0][1]));
            for platform in on_processors() {
                let (losses, slopes) = run_rows(&platform, objective, [&h, &rewards, &labels], baseline);
                for i in 0..h.len() {
                    let own = [&h[i..=i], &rewards[i..=i], &labels[i..=i]];
                    let alone = run_rows(&platform, objective, own, baseline);
                    prop_assert_eq!(alone, (vec![losses[i]], vec![slopes[i]]), "{}", name);
                }
            }
            for platform in double() {
                let (losses, slopes) = run_rows(&platform, objective, [&h, &rewards, &labels], baseline);
                // A row's loss does not depend on the others, so all may be moved at once.
                let at = |by: f64| {
                    let moved: Vec<f64> = h.iter().map(|h| h + by).collect();
                    let batch = row_batch(platform.constant(&moved), &rewards, &labels, baseline);
                    host(&objective.losses(&batch).losses)
                };
                check_slopes(&platform, name, &slopes, &losses, at);
            }
        }
    }
}

/// A policy that prefers the chosen response by 40 nats has a lower loss than one that prefers the other.
#[test]
fn the_right_order_has_the_lower_loss() {
    let case = |chosen: f64, rejected: f64| Case {
        logps: [vec![chosen], vec![rejected]],
        ref_logps: [vec![-40.0], vec![-40.0]],
        tokens: [vec![10.0], vec![10.0]],
        rewards: [[vec![1.0], vec![-1.0]], [vec![1.0], vec![-1.0]]],
    };
    let (right, wrong) = (case(-20.0, -60.0), case(-60.0, -20.0));
    for platform in all() {
        for (name, objective) in pairwise() {
            let loss = |case: &Case| case.losses(&platform, objective.as_ref(), &case.survey(objective.as_ref()))[0];
            assert!(loss(&right) < loss(&wrong), "{name} on {platform:?}: {}, {}", loss(&right), loss(&wrong));
        }
    }
}

/// Log-probs of −2e4, −1e-7 and 0 against references at the other end, for responses of one token.
#[test]
fn extremes_stay_finite() {
    let values = [-2e4, -1e-7, 0.0];
    let grid: Vec<[f64; 3]> = values
        .iter()
        .flat_map(|&w| values.iter().flat_map(move |&l| [-2e4, 0.0].map(|reference| [w, l, reference])))
        .collect();
    let column = |value: fn(&[f64; 3]) -> f64| grid.iter().map(value).collect::<Vec<f64>>();
    let same = |value: f64| vec![value; grid.len()];
    let case = Case {
        logps: [column(|at| at[0]), column(|at| at[1])],
        ref_logps: [column(|at| at[2]), column(|at| -2e4 - at[2])],
        tokens: [same(1.0), same(1.0)],
        rewards: [[same(50.0), same(-50.0)], [same(0.0), same(0.0)]],
    };
    let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
    for platform in all() {
        for (name, objective) in pairwise() {
            let found = case.run(&platform, objective.as_ref(), &case.survey(objective.as_ref()));
            let all_finite = finite(&found.losses) && found.slopes.iter().all(|slopes| finite(slopes));
            assert!(all_finite, "{name} on {platform:?}: {found:?}");
        }
        for (name, objective) in on_rows() {
            for label in [0.0, 1.0] {
                let (losses, slopes) =
                    run_rows(&platform, objective.as_ref(), [&[2e4, -2e4, 0.0], &[1.0, 0.0, 0.5], &[label; 3]], 1e4);
                assert!(finite(&losses) && finite(&slopes), "{name} on {platform:?}: {losses:?} {slopes:?}");
            }
        }
    }
}

/// Defaults are in range, come back from a config file, and no number may be replaced by one that is none.
#[test]
fn settings_are_read_written_and_checked() {
    for about in METHODS {
        let method = Method::named(about.name).unwrap();
        assert_eq!(method.name(), about.name);
        let problems = method.problems();
        assert!(problems.is_empty() || about.name == "mix", "{}: {problems:?}", about.name);
        let text = toml::to_string(&method).unwrap();
        assert_eq!(toml::from_str::<Method>(&text).unwrap_or_else(|error| panic!("{text}: {error}")), method);
        let unknown: Result<Method, _> = toml::from_str(&format!("strength = 1.0\n{text}"));
        assert!(unknown.is_err(), "{} takes an unknown setting", about.name);

        let table: toml::Table = toml::from_str(&text).unwrap();
        for key in table.iter().filter(|(_, value)| value.is_float()).map(|(key, _)| key) {
            let mut wrong = table.clone();
            wrong.insert(key.clone(), f64::NAN.into());
            let read: Method = toml::Value::Table(wrong).try_into().unwrap();
            assert!(!read.problems().is_empty(), "{}: {key} = nan", about.name);
        }
        for alias in about.aliases {
            assert_eq!(Method::named(alias).unwrap().name(), about.name);
        }
    }
}

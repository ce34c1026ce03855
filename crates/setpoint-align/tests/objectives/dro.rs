//! DRO: the identities that hold exactly.

use burn::tensor::Tensor;
use proptest::prelude::*;
use setpoint_align::{
    Aggregate, DroBatch, DroOutput, DroSettings, Pair, PromptIndex, PromptTerm, ResidualError, RpoSettings, dro, rpo,
    weighted_sum,
};

use crate::platform::{Platform, all, double, exact, gradient, host, largest, single};

/// The host side of a batch.
#[derive(Debug, Clone)]
pub struct Case {
    pub prompt_of: Vec<usize>,
    pub prompts: usize,
    pub logps: Vec<f64>,
    pub ref_logps: Vec<f64>,
    pub rewards: Vec<f64>,
    pub prompt_logps: Vec<f64>,
    pub ref_prompt_logps: Vec<f64>,
}

impl Case {
    pub fn index(&self) -> PromptIndex {
        PromptIndex::new(self.prompt_of.clone(), self.prompts).unwrap()
    }

    /// The batch on a platform, and the leaves `(logps, prompt_logps)` in it.
    pub fn batch(&self, platform: &Platform) -> (DroBatch, Tensor<1>, Tensor<1>) {
        let logps = platform.leaf(&self.logps);
        let prompt_logps = platform.leaf(&self.prompt_logps);
        let batch = DroBatch {
            logps: logps.clone(),
            ref_logps: platform.constant(&self.ref_logps),
            rewards: platform.constant(&self.rewards),
            prompt_logps: prompt_logps.clone(),
            ref_prompt_logps: platform.constant(&self.ref_prompt_logps),
            levels: None,
            tokens: None,
        };
        (batch, logps, prompt_logps)
    }

    /// `(output, loss, ∂L/∂logps)` with the case as the global batch.
    fn run(&self, platform: &Platform, settings: &DroSettings, aggregate: Aggregate) -> (DroOutput, f64, Vec<f64>) {
        let (batch, logps, prompt_logps) = self.batch(platform);
        let prompts = self.index();
        let output = dro(batch, &prompts, settings);
        let weights = aggregate.response_weights(&prompts, aggregate.denominator(prompts.counts()));
        let loss = weighted_sum(output.errors.clone(), &weights);
        let gradients = loss.backward();
        assert_eq!(largest(&gradient(&prompt_logps, &gradients)), 0.0, "D_x is a constant, on {platform:?}");
        let value = host(&loss)[0];
        (output, value, gradient(&logps, &gradients))
    }

    /// The plain definition, in f64 loops.
    fn expected(&self, settings: &DroSettings, aggregate: Aggregate) -> Expected {
        let DroSettings { beta, log_z0, .. } = *settings;
        let mut expected = Expected::default();
        let count = |prompt| self.prompt_of.iter().filter(|&&p| p == prompt).count() as f64;
        for (j, &prompt) in self.prompt_of.iter().enumerate() {
            let d_x = self.prompt_logps[prompt] - self.ref_prompt_logps[prompt];
            let term = match settings.prompt_term {
                PromptTerm::Full | PromptTerm::Learned => d_x,
                PromptTerm::Off => 0.0,
                PromptTerm::Clip(limit) => d_x.max(-limit).min(limit),
            };
            let h = self.logps[j] - self.ref_logps[j];
            let e = self.rewards[j] - beta * (h + log_z0 + term);
            let (error, slope) = match settings.error {
                ResidualError::Mse => (e * e, 2.0 * e),
                ResidualError::Mae => (e.abs(), e.signum()),
                ResidualError::Huber(delta) if e.abs() <= delta => (e * e, 2.0 * e),
                ResidualError::Huber(delta) => (delta * (2.0 * e.abs() - delta), 2.0 * delta * e.signum()),
            };
            let weight = match aggregate {
                Aggregate::PerPrompt => 1.0 / (count(prompt) * self.prompts as f64),
                Aggregate::PerResponse => 1.0 / self.logps.len() as f64,
            };
            expected.residuals.push(e);
            expected.targets.push(self.rewards[j] / beta - log_z0 - term);
            expected.errors.push(error);
            expected.loss += weight * error;
            expected.gradient.push(-beta * slope * weight);
            let magnitude = self.rewards[j].abs() + beta * (h.abs() + log_z0.abs() + d_x.abs());
            expected.magnitude = expected.magnitude.max(magnitude);
        }
        expected
    }
}

#[derive(Default)]
struct Expected {
    residuals: Vec<f64>,
    targets: Vec<f64>,
    errors: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
    /// The largest of the summands of a residual: what its rounding is relative to.
    magnitude: f64,
}

fn numbers(range: std::ops::Range<f64>, count: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(range.prop_map(exact), count)
}

/// Responses of several prompts in any order, unequal numbers of them.
pub fn cases(counts: impl Strategy<Value = Vec<usize>>) -> impl Strategy<Value = Case> {
    counts.prop_flat_map(|counts| {
        let (prompts, n) = (counts.len(), counts.iter().sum());
        let prompt_of: Vec<usize> = (0..prompts).flat_map(|p| std::iter::repeat_n(p, counts[p])).collect();
        (
            Just(prompt_of).prop_shuffle(),
            numbers(-200.0..-0.1, n),
            numbers(-200.0..-0.1, n),
            numbers(-6.0..6.0, n),
            numbers(-90.0..0.0, prompts),
            numbers(-90.0..0.0, prompts),
        )
            .prop_map(move |(prompt_of, logps, ref_logps, rewards, prompt_logps, ref_prompt_logps)| Case {
                prompt_of,
                prompts,
                logps,
                ref_logps,
                rewards,
                prompt_logps,
                ref_prompt_logps,
            })
    })
}

fn any_counts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..5usize, 1..6)
}

fn any_settings() -> impl Strategy<Value = DroSettings> {
    let prompt_term = prop_oneof![
        Just(PromptTerm::Full),
        Just(PromptTerm::Off),
        (0.0..20.0).prop_map(|c| PromptTerm::Clip(exact(c)))
    ];
    let error = prop_oneof![
        Just(ResidualError::Mse),
        Just(ResidualError::Mae),
        (0.1..5.0).prop_map(|delta| ResidualError::Huber(exact(delta)))
    ];
    ((0.01..2.0).prop_map(exact), (-60.0..60.0).prop_map(exact), prompt_term, error).prop_map(
        |(beta, log_z0, prompt_term, error)| DroSettings { beta, log_z0, prompt_term, error, ..Default::default() },
    )
}

fn any_aggregate() -> impl Strategy<Value = Aggregate> {
    prop_oneof![Just(Aggregate::PerPrompt), Just(Aggregate::PerResponse)]
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Values, and with them ∂L/∂logp(y_j) = −2β·e_j/(n·prompts) and no gradient to the prompt.
    #[test]
    fn equals_the_definition(case in cases(any_counts()), settings in any_settings(), aggregate in any_aggregate()) {
        let expected = case.expected(&settings, aggregate);
        let size = expected.magnitude;
        for platform in all() {
            // Near the kink of |e| rounding decides the sign.
            let kinked = settings.error == ResidualError::Mae
                && expected.residuals.iter().any(|e| e.abs() <= platform.rounding(size));
            prop_assume!(!kinked);
            let (output, loss, gradient) = case.run(&platform, &settings, aggregate);
            platform.assert_close("residuals", &host(&output.residuals), &expected.residuals, platform.rounding(size));
            let nats = platform.rounding(size / settings.beta);
            platform.assert_close("targets", &host(&output.targets), &expected.targets, nats);
            let (errors, slopes) = match settings.error {
                ResidualError::Mae => (size, settings.beta),
                _ => (size * size, settings.beta * size),
            };
            platform.assert_close("errors", &host(&output.errors), &expected.errors, 2.0 * platform.rounding(errors));
            platform.assert_close("loss", &[loss], &[expected.loss], 2.0 * platform.rounding(errors));
            platform.assert_close("gradient", &gradient, &expected.gradient, 2.0 * platform.rounding(slopes));
        }
    }

    #[test]
    fn at_step_zero_the_loss_is_the_distance_from_break_even(
        case in cases(any_counts()), settings in any_settings(), aggregate in any_aggregate(),
    ) {
        let settings = DroSettings { error: ResidualError::Mse, ..settings };
        let case = Case { logps: case.ref_logps.clone(), prompt_logps: case.ref_prompt_logps.clone(), ..case };
        let prompts = case.index();
        let weights = aggregate.response_weights(&prompts, aggregate.denominator(prompts.counts()));
        let squares = case.rewards.iter().map(|reward| (reward - settings.beta * settings.log_z0).powi(2));
        let expected: f64 = squares.zip(weights).map(|(square, weight)| weight * square).sum();
        let size = (largest(&case.rewards) + settings.beta * settings.log_z0.abs()).powi(2);
        for platform in all() {
            let (output, loss, _) = case.run(&platform, &settings, aggregate);
            platform.assert_close("loss", &[loss], &[expected], 2.0 * platform.rounding(size));
            prop_assert_eq!(largest(&host(&output.log_ratios)), 0.0);
            prop_assert_eq!(largest(&host(&output.prompt_log_ratios)), 0.0);
        }
    }

    /// n = 2: L_DRO = ¼·L_RPO + mean over prompts of ((e_1 + e_2)/2)².
    #[test]
    fn with_two_responses_it_is_rpo_plus_the_level(
        case in cases(prop::collection::vec(Just(2usize), 1..5)), settings in any_settings(),
    ) {
        let settings = DroSettings { error: ResidualError::Mse, ..settings };
        let pairs: Vec<(usize, usize)> = (0..case.prompts)
            .map(|prompt| {
                let mut own = (0..case.logps.len()).filter(|&j| case.prompt_of[j] == prompt);
                (own.next().unwrap(), own.next().unwrap())
            })
            .collect();
        for platform in all() {
            let (output, loss, _) = case.run(&platform, &settings, Aggregate::PerPrompt);
            let rewards = Pair::gather(platform.constant(&case.rewards), &pairs);
            let rpo_settings = RpoSettings { beta: settings.beta, pessimism: 0.0, ..Default::default() };
            let rpo_losses = rpo(Pair::gather(output.log_ratios, &pairs), &[rewards], &rpo_settings).losses;
            let e = host(&output.residuals);
            let level = pairs.iter().map(|&(a, b)| ((e[a] + e[b]) / 2.0).powi(2));
            let sum: f64 = host(&rpo_losses).iter().map(|square| square / 4.0).chain(level).sum();
            let size = case.expected(&settings, Aggregate::PerPrompt).magnitude.powi(2);
            platform.assert_close("loss", &[loss], &[sum / case.prompts as f64], 4.0 * platform.rounding(size));
        }
    }

    /// r = ±½, log_z0 = 0, prompt term off: L_DRO = β²/2·L_SPPO-hard.
    #[test]
    fn with_hard_rewards_it_is_sppo(
        case in cases(prop::collection::vec(Just(2usize), 1..5)), beta in (0.01..2.0).prop_map(exact),
    ) {
        let mut seen = vec![false; case.prompts];
        let hard = |&prompt: &usize| if std::mem::replace(&mut seen[prompt], true) { -0.5 } else { 0.5 };
        let rewards: Vec<f64> = case.prompt_of.iter().map(hard).collect();
        let case = Case { rewards, ..case };
        let settings = DroSettings { beta, log_z0: 0.0, prompt_term: PromptTerm::Off, ..Default::default() };
        // trl: (h_w − 0.5/β)² + (h_l + 0.5/β)², the mean over pairs.
        let h = |j: usize| case.logps[j] - case.ref_logps[j];
        let squares = (0..case.logps.len()).map(|j| (h(j) - case.rewards[j] / beta).powi(2));
        let expected = beta * beta / 2.0 * squares.sum::<f64>() / case.prompts as f64;
        let size = case.expected(&settings, Aggregate::PerPrompt).magnitude.powi(2);
        for platform in all() {
            let (_, loss, _) = case.run(&platform, &settings, Aggregate::PerPrompt);
            platform.assert_close("loss", &[loss], &[expected], 2.0 * platform.rounding(size));
        }
    }

    /// The order of responses and of prompts carries no meaning.
    #[test]
    fn permutations_change_nothing(
        (case, order, prompts) in cases(any_counts()).prop_flat_map(|case| {
            let order: Vec<usize> = (0..case.logps.len()).collect();
            let prompts: Vec<usize> = (0..case.prompts).collect();
            (Just(case), Just(order).prop_shuffle(), Just(prompts).prop_shuffle())
        }),
        settings in any_settings(),
        aggregate in any_aggregate(),
    ) {
        let pick = |values: &[f64], order: &[usize]| -> Vec<f64> { order.iter().map(|&i| values[i]).collect() };
        let place = |prompt: usize| prompts.iter().position(|&p| p == prompt).unwrap();
        let permuted = Case {
            prompt_of: order.iter().map(|&j| place(case.prompt_of[j])).collect(),
            prompts: case.prompts,
            logps: pick(&case.logps, &order),
            ref_logps: pick(&case.ref_logps, &order),
            rewards: pick(&case.rewards, &order),
            prompt_logps: pick(&case.prompt_logps, &prompts),
            ref_prompt_logps: pick(&case.ref_prompt_logps, &prompts),
        };
        for platform in single() {
            let (_, loss, gradient) = case.run(&platform, &settings, aggregate);
            let (_, again, permuted_gradient) = permuted.run(&platform, &settings, aggregate);
            prop_assert_eq!(pick(&gradient, &order), permuted_gradient, "elementwise, so bit for bit");
            platform.assert_close("loss", &[again], &[loss], platform.rounding(loss));
        }
    }

    #[test]
    fn gradients_equal_finite_differences(case in cases(any_counts()), settings in any_settings()) {
        // Smooth errors only: a difference across a kink is no derivative.
        let settings = DroSettings { error: ResidualError::Mse, ..settings };
        let step = 1e-3;
        for platform in double() {
            let loss = |logps: Vec<f64>| {
                let case = Case { logps, ..case.clone() };
                case.run(&platform, &settings, Aggregate::PerPrompt).1
            };
            let (_, value, gradient) = case.run(&platform, &settings, Aggregate::PerPrompt);
            for j in 0..case.logps.len() {
                let shifted = |by: f64| {
                    let mut logps = case.logps.clone();
                    logps[j] += by;
                    loss(logps)
                };
                // Exact for a parabola, but for the rounding of the losses.
                let difference = (shifted(step) - shifted(-step)) / (2.0 * step);
                let size = case.expected(&settings, Aggregate::PerPrompt).magnitude.powi(2).max(value);
                platform.assert_close("slope", &[gradient[j]], &[difference], platform.rounding(size) / step);
            }
        }
    }
}

#[test]
fn far_off_responses_stay_finite() {
    let extremes = [1e4, -1e4, 0.0, -1e-7];
    let case = Case {
        prompt_of: vec![0, 0, 1, 1],
        prompts: 2,
        logps: vec![0.0, -1e4, -1e4, -1e-7],
        ref_logps: vec![-1e4, 0.0, -1e4, 0.0],
        rewards: vec![1e4, -1e4, 0.0, 50.0],
        prompt_logps: vec![-1e4, 0.0],
        ref_prompt_logps: vec![0.0, -1e4],
    };
    for error in [ResidualError::Mse, ResidualError::Huber(1.0), ResidualError::Mae] {
        for prompt_term in [PromptTerm::Full, PromptTerm::Off, PromptTerm::Clip(5.0)] {
            let settings = DroSettings { beta: 1.0, log_z0: 500.0, prompt_term, error, ..Default::default() };
            let expected = case.expected(&settings, Aggregate::PerPrompt);
            for platform in all() {
                let (output, loss, gradient) = case.run(&platform, &settings, Aggregate::PerPrompt);
                platform.assert_close("log-ratios", &host(&output.log_ratios), &extremes, 1e-9);
                assert!(loss.is_finite() && gradient.iter().all(|g| g.is_finite()), "{settings:?} on {platform:?}");
                let relative = platform.rounding(expected.magnitude.powi(2));
                platform.assert_close("loss", &[loss], &[expected.loss], relative);
            }
        }
    }
}

#[test]
fn nothing_is_learnt_from_a_prompt_term_that_is_off() {
    // Not even its NaN.
    let case = Case {
        prompt_of: vec![0],
        prompts: 1,
        logps: vec![-3.0],
        ref_logps: vec![-2.0],
        rewards: vec![1.0],
        prompt_logps: vec![f64::NAN],
        ref_prompt_logps: vec![0.0],
    };
    let settings = DroSettings { beta: 0.5, log_z0: 4.0, prompt_term: PromptTerm::Off, ..Default::default() };
    for platform in all() {
        let (batch, ..) = case.batch(&platform);
        // 1 − 0.5·(−1 + 4) = −0.5
        assert_eq!(host(&dro(batch, &case.index(), &settings).residuals), [-0.5], "{platform:?}");
    }
}

#[test]
fn the_output_reads_to_the_host_as_it_stands() {
    // Responses of two prompts in mixed order.
    let case = Case {
        prompt_of: vec![1, 0, 1],
        prompts: 2,
        logps: vec![-3.0, -4.0, -5.0],
        ref_logps: vec![-2.0, -2.5, -7.0],
        rewards: vec![1.0, 0.5, -1.0],
        prompt_logps: vec![-10.0, -20.0],
        ref_prompt_logps: vec![-8.0, -21.0],
    };
    let settings = DroSettings { beta: 0.5, log_z0: 4.0, ..Default::default() };
    for platform in all() {
        let (batch, ..) = case.batch(&platform);
        let output = dro(batch, &case.index(), &settings);
        let values = output.values(&case.index()).read();
        assert_eq!(values.prompt_log_ratios, [-2.0, 1.0]);
        assert_eq!(values.prompt_log_z, [2.0, 5.0]);
        assert_eq!(host(&output.log_z), [5.0, 2.0, 5.0]);
        assert_eq!(values.log_ratios, [-1.0, -1.5, 2.0]);
        assert_eq!(values.targets, [-3.0, -1.0, -7.0]);
        assert_eq!(values.residuals, [-1.0, 0.25, -4.5]);
        assert_eq!(values.errors, [1.0, 0.0625, 20.25]);
    }
}

#[test]
#[should_panic(expected = "`rewards` holds one value per response")]
fn lengths_that_disagree_panic() {
    let case = Case {
        prompt_of: vec![0, 0],
        prompts: 1,
        logps: vec![-3.0, -4.0],
        ref_logps: vec![-2.0, -2.0],
        rewards: vec![1.0],
        prompt_logps: vec![0.0],
        ref_prompt_logps: vec![0.0],
    };
    let (batch, ..) = case.batch(&single()[0]);
    dro(batch, &case.index(), &DroSettings::default());
}

//! A tabular softmax policy, trained to the end: DRO's theory where it can be computed.

use burn::tensor::activation::log_softmax;
use setpoint_align::{
    Aggregate, AuditPrompt, AuditSettings, DroBatch, DroSettings, LEAST_SAMPLES, LogZ0, PromptIndex, PromptRewards,
    PromptTerm, ReferenceSample, ScoredResponse, audit, dro, prompt_log_z, weighted_sum,
};

use crate::platform::{Platform, double, gradient, host, largest};

/// All texts that a policy over few sequences can say, after one prompt that is `t0` alone; the
/// first of them are the data.
struct World {
    ref_logps: Vec<f64>,
    /// Rewards of the data.
    rewards: Vec<f64>,
}

impl World {
    fn new(ref_probabilities: &[f64], rewards: &[f64]) -> Self {
        let total: f64 = ref_probabilities.iter().sum();
        assert!((total - 1.0).abs() < 1e-12);
        Self { ref_logps: ref_probabilities.iter().map(|p| p.ln()).collect(), rewards: rewards.to_vec() }
    }

    /// The true log Z_0 where the data are all there is.
    fn log_z0(&self, beta: f64) -> f64 {
        let terms = self.rewards.iter().zip(&self.ref_logps).map(|(reward, logp)| (logp + reward / beta).exp());
        terms.sum::<f64>().ln()
    }

    /// Gradient descent with momentum from the reference; the final log-probs of all texts and
    /// residuals of the data.
    fn train(&self, platform: &Platform, beta: f64, log_z0: f64, steps: usize) -> (Vec<f64>, Vec<f64>) {
        self.train_with(platform, &DroSettings { beta, log_z0, ..Default::default() }, None, steps)
    }

    /// The same with any settings, and a level of the prompt's own.
    fn train_with(
        &self,
        platform: &Platform,
        settings: &DroSettings,
        level: Option<f64>,
        steps: usize,
    ) -> (Vec<f64>, Vec<f64>) {
        let (n, beta) = (self.rewards.len(), settings.beta);
        let prompts = PromptIndex::from_counts(&[n]).unwrap();
        let weights = Aggregate::PerPrompt.response_weights(&prompts, 1.0);
        let forward = |logits: &[f64]| {
            let leaf = platform.leaf(logits);
            let logps = log_softmax(leaf.clone(), 0);
            let batch = DroBatch {
                logps: logps.clone().narrow(0, 0, n),
                ref_logps: platform.constant(&self.ref_logps[..n]),
                rewards: platform.constant(&self.rewards),
                prompt_logps: platform.constant(&[0.0]),
                ref_prompt_logps: platform.constant(&[0.0]),
                levels: level.map(|level| platform.constant(&[level])),
                tokens: None,
            };
            (leaf, logps, dro(batch, &prompts, settings))
        };
        // The Hessian of the loss in the log-probs is 2β²/n.
        let (rate, momentum) = (n as f64 / (2.0 * beta * beta) * 0.6, 0.8);
        let mut logits = self.ref_logps.clone();
        let mut velocity = vec![0.0; logits.len()];
        for _ in 0..steps {
            let (leaf, _, output) = forward(&logits);
            let slopes = gradient(&leaf, &weighted_sum(output.errors, &weights).backward());
            for ((logit, velocity), slope) in logits.iter_mut().zip(&mut velocity).zip(slopes) {
                *velocity = momentum * *velocity - rate * slope;
                *logit += *velocity;
            }
        }
        let (_, logps, output) = forward(&logits);
        (host(&logps), host(&output.residuals))
    }
}

/// Six texts `x y` with `x` of two and `y` of three kinds, text number `3x + y`.
fn six_texts() -> World {
    World::new(&[0.2, 0.1, 0.15, 0.3, 0.05, 0.2], &[0.3, -0.4, 0.1, 0.2, 0.5, -0.6])
}

#[test]
fn with_the_true_normaliser_it_converges_to_the_closed_form() {
    let (world, beta) = (six_texts(), 0.5);
    let log_z0 = world.log_z0(beta);
    // Eq. 14: π_ref·exp(r/β)/Z.
    let optimum: Vec<f64> =
        world.ref_logps.iter().zip(&world.rewards).map(|(logp, reward)| logp + reward / beta - log_z0).collect();
    for platform in double() {
        let (logps, residuals) = world.train(&platform, beta, log_z0, 400);
        assert!(largest(&residuals) < 1e-9, "{residuals:?} on {platform:?}");
        platform.assert_close("log-probs", &logps, &optimum, 1e-9);
    }
}

/// With every sequence in the data, the level of a prompt from reference samples is its log Z, whatever was sampled.
#[test]
fn levels_from_reference_samples_are_exact_where_every_sequence_is_known() {
    let (world, beta) = (six_texts(), 0.5);
    let responses: Vec<ScoredResponse> = world.scored();
    let samples = [ReferenceSample { reward: 0.3, in_data: true }; LEAST_SAMPLES];
    let found = prompt_log_z(&responses, &samples, beta).unwrap().log_z;
    assert!((found - world.log_z0(beta)).abs() < 1e-12);
    // The settings' own level plays no part.
    let settings = DroSettings { beta, log_z0: 77.0, prompt_term: PromptTerm::Off, ..Default::default() };
    let optimum: Vec<f64> = responses.iter().map(|own| own.ref_logp + own.reward / beta - found).collect();
    for platform in double() {
        let (logps, residuals) = world.train_with(&platform, &settings, Some(found), 400);
        assert!(largest(&residuals) < 1e-9, "{residuals:?} on {platform:?}");
        platform.assert_close("log-probs", &logps, &optimum, 1e-9);
    }
}

/// Samples in proportion to the reference's probabilities: what they stand for outside the data is its exact share of Z(x).
#[test]
fn levels_from_proportional_samples_are_those_of_all_sequences() {
    let (world, beta) = (six_texts(), 0.5);
    let texts = world.scored();
    // 20 samples of texts with probabilities that are multiples of 1/20; the first three texts are the data.
    let samples: Vec<ReferenceSample> = [4, 2, 3, 6, 1, 4]
        .into_iter()
        .enumerate()
        .flat_map(|(i, count)| vec![ReferenceSample { reward: texts[i].reward, in_data: i < 3 }; count])
        .collect();
    let found = prompt_log_z(&texts[..3], &samples, beta).unwrap();
    assert_eq!(found.samples, 20);
    assert!((found.log_z - world.log_z0(beta)).abs() < 1e-12);
    // A level that follows from the data alone is lower: it leaves out texts without a reward.
    let known = prompt_log_z(&texts[..3], &[ReferenceSample { reward: 0.0, in_data: true }; 20], beta).unwrap();
    assert!(known.log_z < found.log_z - 0.1);
}

/// λ = 0 leaves the level alone: at the optimum the residuals are equal, and not 0.
#[test]
fn without_a_weight_the_level_is_left_alone() {
    let world = World::new(&[0.3, 0.2, 0.5], &[0.8, 0.2]);
    let settings = DroSettings { beta: 1.0, log_z0: 5.0, level_weight: 0.0, ..Default::default() };
    for platform in double() {
        let (logps, residuals) = world.train_with(&platform, &settings, None, 800);
        let h: Vec<f64> = (0..2).map(|j| logps[j] - world.ref_logps[j]).collect();
        platform.assert_close("gap", &[h[0] - h[1]], &[0.6], 1e-6);
        platform.assert_close("residuals", &residuals[..1], &residuals[1..], 1e-6);
        assert!(residuals[0].abs() > 1.0, "{residuals:?}");
    }
}

/// Eq. 6: Z(x)/Z(t0) = π̂(x|t0)/π_ref(x|t0). So at the optimum the residuals are 0 wherever a text is
/// split into prompt and response, with the one `log_z0`.
#[test]
fn normalisers_of_nested_prefixes_differ_by_the_log_ratio() {
    let (world, beta) = (six_texts(), 0.5);
    let log_z0 = world.log_z0(beta);
    let prefix = |logps: &[f64], x: usize| -> f64 {
        let texts = &logps[3 * x..3 * x + 3];
        texts.iter().map(|logp| logp.exp()).sum::<f64>().ln()
    };
    for platform in double() {
        let (logps, _) = world.train(&platform, beta, log_z0, 400);
        let prefixes = |logps: &[f64]| [prefix(logps, 0), prefix(logps, 1)];
        let continuations = |logps: &[f64]| -> Vec<f64> { (0..6).map(|i| logps[i] - prefix(logps, i / 3)).collect() };
        let (policy, reference) = (prefixes(&logps), prefixes(&world.ref_logps));
        let batch = DroBatch {
            logps: platform.constant(&continuations(&logps)),
            ref_logps: platform.constant(&continuations(&world.ref_logps)),
            rewards: platform.constant(&world.rewards),
            prompt_logps: platform.constant(&policy),
            ref_prompt_logps: platform.constant(&reference),
            levels: None,
            tokens: None,
        };
        let settings = DroSettings { beta, log_z0, ..Default::default() };
        let output = dro(batch, &PromptIndex::from_counts(&[3, 3]).unwrap(), &settings);
        assert!(largest(&host(&output.residuals)) < 1e-8, "on {platform:?}");

        // log Z(x) by its definition, Σ_y π_ref(y|x)·exp(r(x y)/β).
        let log_z = |x: usize| {
            let terms = (3 * x..3 * x + 3).map(|i| (world.ref_logps[i] - reference[x] + world.rewards[i] / beta).exp());
            terms.sum::<f64>().ln()
        };
        let expected: Vec<f64> = (0..6).map(|i| log_z(i / 3)).collect();
        platform.assert_close("log Z(x)", &host(&output.log_z), &expected, 1e-8);
        assert!((expected[0] - expected[3]).abs() > 0.1, "prefixes that differ");
    }
}

/// Two responses among texts that no one has rated: rewards set the gap, `log_z0` the level.
#[test]
fn the_gap_is_that_of_the_rewards_and_the_level_follows_log_z0() {
    let world = World::new(&[0.3, 0.2, 0.5], &[0.8, 0.2]);
    for (beta, log_z0) in [(1.0, 0.6), (1.0, 1.0), (1.0, 2.0), (0.5, 1.0), (2.0, 0.3), (2.0, 0.0)] {
        let data = [world.audit_row()];
        let report = audit(&data, &AuditSettings::new(beta, LogZ0::Nats(log_z0))).unwrap();
        assert_eq!(report.feasibility.infeasible, 0, "β = {beta}, log_z0 = {log_z0}");
        for platform in double() {
            let (logps, residuals) = world.train(&platform, beta, log_z0, 800);
            assert!(largest(&residuals) < 1e-7, "{residuals:?} at β = {beta}, log_z0 = {log_z0} on {platform:?}");
            let h: Vec<f64> = (0..2).map(|j| logps[j] - world.ref_logps[j]).collect();
            platform.assert_close("gap", &[beta * (h[0] - h[1])], &[0.8 - 0.2], 1e-6);
            platform.assert_close("level", &[beta * (h[0] + h[1]) / 2.0], &[0.5 - beta * log_z0], 1e-6);
            // Where the audit said that probability would go: the best response, the other one and everything else.
            let sent = report.masses.as_ref().unwrap().target;
            let found: Vec<f64> = logps.iter().map(|logp| logp.exp()).collect();
            platform.assert_close("shares", &found, &[sent.best, sent.other, sent.unscored], 1e-6);
        }
    }
}

/// The audit's statement on an infeasible prompt holds to the end of training: the targets
/// `r/β − log_z0 = h + e/β` add up to exp(excess), so some residual is at least β·excess.
#[test]
fn infeasible_targets_leave_the_residual_that_the_audit_predicts() {
    let world = World::new(&[0.3, 0.2, 0.5], &[0.8, 0.2]);
    for (beta, log_z0) in [(1.0, -1.0), (0.25, 0.5)] {
        let report = audit(&[world.audit_row()], &AuditSettings::new(beta, LogZ0::Nats(log_z0))).unwrap();
        let excess = report.feasibility.worst[0].excess;
        for platform in double() {
            let (logps, residuals) = world.train(&platform, beta, log_z0, 400);
            assert!(residuals.iter().any(|e| *e >= beta * excess), "{residuals:?} < {} on {platform:?}", beta * excess);
            // And nearly all probability has gone to the data.
            assert!(logps[2].exp() < 0.05, "{} on {platform:?}", logps[2].exp());
        }
        // At the smallest feasible value the data take all of it, with residual 0.
        let enough = report.recommended.all_feasible;
        assert!((enough - (log_z0 + excess)).abs() < 1e-12);
    }
}

impl World {
    /// The data's texts with their log-probs under the reference and their rewards.
    fn scored(&self) -> Vec<ScoredResponse> {
        let scored = |(&ref_logp, &reward): (&f64, &f64)| ScoredResponse { ref_logp, reward };
        self.ref_logps.iter().zip(&self.rewards).map(scored).collect()
    }

    fn audit_row(&self) -> AuditPrompt {
        AuditPrompt {
            prompt: 0,
            name: "x".into(),
            rewards: PromptRewards::new(0, self.rewards.clone()),
            ids: (0..self.rewards.len() as u64).collect(),
            ref_logps: self.ref_logps[..self.rewards.len()].to_vec(),
            tokens: vec![1; self.rewards.len()],
            log_z: None,
        }
    }
}

/// The same in f32, as a model is trained.
#[test]
fn single_precision_gets_there_too() {
    let (world, beta) = (six_texts(), 0.5);
    let log_z0 = world.log_z0(beta);
    for platform in crate::platform::single() {
        let (_, residuals) = world.train(&platform, beta, log_z0, 400);
        // Log-probs near −2 are rounded to 1e-7; a softmax and its gradient add a few of those.
        assert!(largest(&residuals) < platform.rounding(4.0), "{residuals:?} on {platform:?}");
    }
}

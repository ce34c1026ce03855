//! Direct Reward Optimization: every response has an exact target for its probability.

mod settings;

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::prompt_index::PromptIndex;
use crate::settings::{FINITE, NON_NEGATIVE, POSITIVE, Settings};
use crate::stable::square;
use crate::unread::Unread;

pub use settings::{Dro, DroPreset};

/// The use of the prompt's own log-ratio `D_x` in `log Z(x) = log_z0 + sg(D_x)`.
///
/// In a config file: `"full"`, `"off"` or `{ clip = 5.0 }`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PromptTerm {
    /// `D_x` as it is (Algorithm 1, line 6).
    #[default]
    Full,
    /// No prompt term: `log Z(x) = log_z0` for every prompt.
    Off,
    /// `D_x` limited to plus and minus this many nats.
    Clip(f64),
    /// `D_x` with its gradient, so that the prompt's tokens are trained as well (Eq. 8). Experimental.
    Learned,
}

/// The function that turns a residual into an error.
///
/// In a config file: `"mse"`, `"mae"` or `{ huber = 1.0 }`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResidualError {
    /// `e²` (Eq. 7).
    #[default]
    Mse,
    /// `e²` up to `|e| = δ` and `δ(2|e| − δ)` beyond, δ in units of reward. Twice torch's Huber
    /// loss, so that it equals `mse` wherever no residual exceeds δ.
    Huber(f64),
    /// `|e|`.
    Mae,
}

/// The settings of [`dro`], every one resolved to a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DroSettings {
    /// Reward per nat of log-ratio, greater than 0. The smaller, the further the targets are apart.
    pub beta: f64,
    /// The log-normaliser of the common prefix `t0`, in nats (the paper's "Z_0").
    /// [`crate::LogZ0`] computes it from a break-even reward or from the data.
    pub log_z0: f64,
    /// The use of the prompt's own log-ratio.
    pub prompt_term: PromptTerm,
    /// The function that turns a residual into an error.
    pub error: ResidualError,
    /// λ: the weight of a prompt's mean residual next to the residuals' distances from it, at least 0. 1 is DRO.
    pub level_weight: f64,
    /// Counts targets per token: the log-ratio of a response is divided by its number of tokens.
    pub length_normalize: bool,
}

impl Default for DroSettings {
    /// The paper's: β 0.1, `log_z0` 50 (a break-even reward of 5) and the full prompt term. `setpoint align` has
    /// defaults of its own: no prompt term, and [`crate::LogZ0::Mean`].
    fn default() -> Self {
        Self {
            beta: 0.1,
            log_z0: 50.0,
            prompt_term: PromptTerm::default(),
            error: ResidualError::default(),
            level_weight: 1.0,
            length_normalize: false,
        }
    }
}

impl Settings for DroSettings {
    fn validate(&self) -> Result<(), Error> {
        POSITIVE.check("beta", &self.beta)?;
        FINITE.check("log_z0", &self.log_z0)?;
        if let PromptTerm::Clip(limit) = self.prompt_term {
            NON_NEGATIVE.check("prompt_term.clip", &limit)?;
        }
        if let ResidualError::Huber(delta) = self.error {
            POSITIVE.check("error.huber", &delta)?;
        }
        NON_NEGATIVE.check("level_weight", &self.level_weight)
    }
}

/// The numbers of one micro-batch: `n` responses of `p` prompts.
///
/// `logps` and `prompt_logps` come from the same forward pass of the policy and may carry a graph;
/// the rest are constants (see [`crate::constant_like`]).
#[derive(Debug, Clone)]
pub struct DroBatch {
    /// `log π_θ(y_j|x)`, summed over the response's tokens, nats, `[n]`.
    pub logps: Tensor<1>,
    /// `log π_ref(y_j|x)`, `[n]`.
    pub ref_logps: Tensor<1>,
    /// `r(x, y_j)`, after any transform, `[n]`.
    pub rewards: Tensor<1>,
    /// `log π_θ` summed over the prompt's tokens after `t0`, nats, `[p]`.
    pub prompt_logps: Tensor<1>,
    /// `log π_ref` summed over the same tokens, `[p]`.
    pub ref_prompt_logps: Tensor<1>,
    /// The level of each prompt's targets instead of [`DroSettings::log_z0`], nats, `[p]`.
    pub levels: Option<Tensor<1>>,
    /// `N_j`, the number of tokens of each response, `[n]`; for [`DroSettings::length_normalize`].
    pub tokens: Option<Tensor<1>>,
}

/// The result of [`dro`]. Only `residuals`, `errors` and `log_ratios` carry a graph.
#[derive(Debug, Clone)]
pub struct DroOutput {
    /// `e_j = r_j − β·(h_j + log Z_j)`, in units of reward, `[n]`; with `length_normalize`, `h_j/N_j` in place of `h_j`.
    pub residuals: Tensor<1>,
    /// The error of each residual, unreduced, `[n]`. [`crate::Aggregate`] has the weights of the
    /// mean wanted.
    pub errors: Tensor<1>,
    /// `h_j = log π_θ(y_j|x) − log π_ref(y_j|x)`, nats, `[n]`.
    pub log_ratios: Tensor<1>,
    /// The log-ratio that the reward implies, `r_j/β − log Z_j`, nats, `[n]`: where `h_j` is going. With
    /// `length_normalize` it is `N_j` times as much.
    pub targets: Tensor<1>,
    /// `log Z_j = log_z0 + D_x` of the response's prompt, the prompt term applied, nats, `[n]`.
    pub log_z: Tensor<1>,
    /// `D_x` as found, before `off` or `clip`, nats, `[p]`.
    pub prompt_log_ratios: Tensor<1>,
}

/// The numbers of a [`DroOutput`] on the host, for metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct DroValues {
    /// [`DroOutput::residuals`], `n` entries.
    pub residuals: Vec<f64>,
    /// [`DroOutput::errors`], `n` entries.
    pub errors: Vec<f64>,
    /// [`DroOutput::log_ratios`], `n` entries.
    pub log_ratios: Vec<f64>,
    /// [`DroOutput::targets`], `n` entries.
    pub targets: Vec<f64>,
    /// `log Z` of each prompt, `p` entries.
    pub prompt_log_z: Vec<f64>,
    /// [`DroOutput::prompt_log_ratios`], `p` entries.
    pub prompt_log_ratios: Vec<f64>,
}

impl DroOutput {
    /// Returns all numbers, for metrics.
    pub fn values(&self, prompts: &PromptIndex) -> Unread<DroValues> {
        let (prompt_of, count) = (prompts.prompt_of().to_vec(), prompts.prompts());
        let Self { residuals, errors, log_ratios, targets, log_z, prompt_log_ratios } = self;
        let all = [residuals, errors, log_ratios, targets, log_z, prompt_log_ratios];
        Unread::new(all, move |[residuals, errors, log_ratios, targets, log_z, prompt_log_ratios]| {
            // Any response of a prompt has the prompt's log Z.
            let mut prompt_log_z = vec![0.0; count];
            for (&prompt, log_z) in prompt_of.iter().zip(log_z) {
                prompt_log_z[prompt] = log_z;
            }
            DroValues { residuals, errors, log_ratios, targets, prompt_log_z, prompt_log_ratios }
        })
    }
}

/// Direct Reward Optimization (DRO paper, Eq. 7 with Eq. 6; Algorithm 1, lines 6–10).
///
/// ```text
/// D_x   = Σ_{tokens of x after t0} (log π_θ − log π_ref)
/// log Z = log_z0 + sg(D_x)
/// e_j   = r_j − β·(h_j + log Z),      h_j = log π_θ(y_j|x) − log π_ref(y_j|x)
/// err_j = e_j²                        (or Huber, or |e_j|)
/// err_j = (e_j − ē_x)² + λ·ē_x²       ē_x = mean over j of e_j, with `level_weight` λ other than 1
/// L     = mean over prompts of the mean over j of err_j
/// ```
///
/// A reward of `β·log_z0`, the *break-even reward*, leaves a response's probability where it is; a
/// lower one lowers it, whether the response was chosen or not. The difference of two rewards
/// fixes the difference of the log-ratios, `log_z0` their common level.
///
/// The residuals of a prompt are their mean and their distances from it, and `level_weight` weighs the two: λ = 1 is DRO, as
/// `mean (e_j − ē)² + ē² = mean e_j²`. λ = 0 leaves the level alone, which is VarGrad (Richter et al. 2020; TBA,
/// arXiv 2503.18929), and RPO over all pairs: `mean (e_j − ē)² = (n − 1)/(2n) · mean over pairs of L_RPO`.
///
/// `length_normalize` puts `h_j/N_j` in place of `h_j`, so β is reward per nat per token, and `log_z0` nats per token. This is not Eq. 5's
/// optimum: responses with equal rewards get targets in proportion to their length.
///
/// No gradient reaches `prompt_logps`, except with [`PromptTerm::Learned`], which leaves out the stop-gradient; with `mse`, `∂L/∂logps_j = −2β·e_j/(n_prompt·prompts)`.
/// (The prompt's tokens are still trained in the sense that a response's log-prob depends on
/// their hidden states.)
///
/// Traps: the paper's `Z_0 = 50` is `log_z0`, in nats, and a response whose reward is below `β·log_z0` loses probability, chosen or not. All
/// prompts must begin with the same tokens (t0), from which `D_x` is counted. Where the targets of a prompt add up to more than its
/// normaliser allows no policy reaches them (the audit says so before training). Rewards of one prompt are averaged before prompts are.
///
/// # Shapes
/// `[n]` per response, `[p]` per prompt, as [`DroBatch`] and [`DroOutput`] say.
///
/// # Units
/// Log-probs, log-ratios, `log_z0`, targets: nats. Rewards, residuals: units of reward.
/// β: reward per nat.
///
/// # Panics
/// If the lengths disagree with `prompts`, or `length_normalize` has no numbers of tokens.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use setpoint_align::{
///     Aggregate, DroBatch, DroSettings, PromptIndex, Settings, constant_like, dro, weighted_sum,
/// };
///
/// // Two responses to one prompt, one to another. Step 0: the policy is the reference.
/// let device = Device::flex().autodiff();
/// let logps = Tensor::<1>::from_floats([-12.0, -30.0, -7.0], &device).require_grad();
/// let prompt_logps = Tensor::<1>::from_floats([-55.0, -40.0], &device);
/// let prompts = PromptIndex::from_counts(&[2, 1])?;
/// let settings = DroSettings { beta: 0.1, log_z0: 20.0, ..Default::default() };
/// settings.validate()?;
///
/// let batch = DroBatch {
///     ref_logps: constant_like(&[-12.0, -30.0, -7.0], &logps),
///     rewards: constant_like(&[3.0, 1.0, 2.5], &logps),
///     ref_prompt_logps: constant_like(&[-55.0, -40.0], &prompt_logps),
///     logps: logps.clone(),
///     prompt_logps,
///     levels: None,
///     tokens: None,
/// };
/// let output = dro(batch, &prompts, &settings);
///
/// // mean over prompts of the mean over responses of (r − β·log_z0)² = ((1² + 1²)/2 + 0.5²)/2
/// let aggregate = Aggregate::PerPrompt;
/// let weights = aggregate.response_weights(&prompts, aggregate.denominator(prompts.counts()));
/// let loss = weighted_sum(output.errors, &weights);
/// assert!((loss.clone().into_scalar::<f32>() - 0.625).abs() < 1e-6);
/// assert!(logps.grad(&loss.backward()).is_some());
/// # Ok::<(), setpoint_align::Error>(())
/// ```
pub fn dro(batch: DroBatch, prompts: &PromptIndex, settings: &DroSettings) -> DroOutput {
    let DroBatch { logps, ref_logps, rewards: r, prompt_logps, ref_prompt_logps, levels, tokens } = batch;
    let n = [prompts.responses()];
    assert_eq!(logps.dims(), n, "`logps` holds one value per response");
    assert_eq!(ref_logps.dims(), n, "`ref_logps` holds one value per response");
    assert_eq!(r.dims(), n, "`rewards` holds one value per response");
    let beta = settings.beta;

    let d_x = prompt_logps - ref_prompt_logps; // [p]
    let term = match settings.prompt_term {
        PromptTerm::Learned => d_x.clone(),
        // The stop-gradient: without its graph, D_x is a constant.
        _ => prompt_term(d_x.clone().inner(), settings.prompt_term),
    };
    let log_z = match levels {
        Some(levels) => term + levels.inner(),
        None => term.add_scalar(settings.log_z0),
    };
    let log_z = prompts.spread(log_z); // [p] -> [n]
    let h = logps - ref_logps;
    let tokens = settings.length_normalize.then(|| tokens.expect("targets per token need the numbers of tokens"));
    let (e, targets) = match tokens {
        Some(tokens) => {
            let targets = (r.clone().inner() / beta - log_z.clone().inner()) * tokens.clone().inner();
            (r - beta * (h.clone() / tokens + log_z.clone()), targets)
        }
        None => {
            let targets = r.clone().inner() / beta - log_z.clone().inner();
            (r - beta * (h.clone() + log_z.clone()), targets)
        }
    };
    let errors = match settings.level_weight {
        1.0 => residual_error(e.clone(), settings.error),
        weight => weigh_level(e.clone(), prompts, weight),
    };
    DroOutput { errors, residuals: e, log_ratios: h, targets, log_z: log_z.inner(), prompt_log_ratios: d_x.inner() }
}

/// Computes the prompt term of `log Z(x)` from `D_x` (Eq. 6 from the prefix `t0` to `x`).
///
/// # Shapes
/// `[p] -> [p]`
///
/// # Units
/// Nats.
pub fn prompt_term(prompt_log_ratios: Tensor<1>, term: PromptTerm) -> Tensor<1> {
    match term {
        PromptTerm::Full | PromptTerm::Learned => prompt_log_ratios,
        PromptTerm::Off => prompt_log_ratios.zeros_like(),
        PromptTerm::Clip(limit) => prompt_log_ratios.clamp(-limit, limit),
    }
}

/// Splits the residuals of each prompt into their mean, with a weight, and their distances from it:
/// `(e_j − ē_x)² + λ·ē_x²`.
///
/// # Shapes
/// `[n] -> [n]`
pub fn weigh_level(residuals: Tensor<1>, prompts: &PromptIndex, level_weight: f64) -> Tensor<1> {
    let level = prompts.spread(prompts.mean(residuals.clone())); // [n] -> [p] -> [n]
    square(residuals - level.clone()) + level_weight * square(level)
}

/// Computes the error of each residual.
///
/// # Shapes
/// `[n] -> [n]`
pub fn residual_error(residuals: Tensor<1>, error: ResidualError) -> Tensor<1> {
    match error {
        ResidualError::Mse => square(residuals),
        ResidualError::Huber(delta) => {
            let magnitude = residuals.abs();
            let inner = magnitude.clone().clamp_max(delta);
            // m·(2|e| − m) with m = min(|e|, δ) is both branches at once.
            inner.clone() * (magnitude.mul_scalar(2.0) - inner)
        }
        ResidualError::Mae => residuals.abs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_in_config_files() {
        #[derive(Deserialize)]
        struct Config {
            prompt_term: PromptTerm,
            error: ResidualError,
        }
        let parse = |text: &str| toml::from_str::<Config>(text);

        let config = parse("prompt_term = \"full\"\nerror = \"mse\"").unwrap();
        assert_eq!((config.prompt_term, config.error), (PromptTerm::Full, ResidualError::Mse));
        let config = parse("prompt_term = { clip = 5 }\nerror = { huber = 0.5 }").unwrap();
        assert_eq!(config.prompt_term, PromptTerm::Clip(5.0));
        assert_eq!(config.error, ResidualError::Huber(0.5));
        assert_eq!(parse("prompt_term = \"learned\"\nerror = \"mse\"").unwrap().prompt_term, PromptTerm::Learned);
        assert!(parse("prompt_term = \"of\"\nerror = \"mse\"").is_err());
        assert!(parse("prompt_term = \"off\"\nerror = { hubert = 1.0 }").is_err());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let name = |settings: DroSettings| match settings.validate() {
            Err(Error::Setting { name, .. }) => name,
            other => panic!("expected a setting error, found {other:?}"),
        };
        let good = DroSettings::default();
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(name(DroSettings { beta: 0.0, ..good }), "beta");
        assert_eq!(name(DroSettings { log_z0: f64::NAN, ..good }), "log_z0");
        assert_eq!(name(DroSettings { prompt_term: PromptTerm::Clip(-1.0), ..good }), "prompt_term.clip");
        assert_eq!(name(DroSettings { error: ResidualError::Huber(0.0), ..good }), "error.huber");
        assert_eq!(name(DroSettings { level_weight: -0.5, ..good }), "level_weight");
    }
}

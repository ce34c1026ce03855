//! A warning where the chosen responses lose probability (likelihood displacement).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::levers::Levers;
use crate::settings::{FINITE, POSITIVE};

/// The limit on the fall of the mean chosen log-ratio below 0, its value before training.
///
/// In a config file: `{ nats_per_token = 0.05 }` or `{ nats = 10.0 }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisplacementThreshold {
    /// Nats per token of the chosen responses: the same for short and long ones.
    NatsPerToken(f64),
    /// Nats per response.
    Nats(f64),
}

/// The settings of a [`DisplacementDetector`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DisplacementSettings {
    /// The limit on the fall of the mean chosen log-ratio. Default 0.05 nats per token: a chosen response
    /// of 200 tokens has become e^10 times less likely.
    pub threshold: DisplacementThreshold,
    /// Weight of the past in the exponential moving average over steps, in `[0, 1)`. Default 0.9:
    /// about ten steps.
    pub smoothing: f64,
    /// The place to which the objective's targets send the chosen responses: their mean target, nats per
    /// response, as the audit finds it for DRO. The warning names it; it does not change when the
    /// detector warns, because responses that lose probability lose it whether or not that was
    /// asked for. Default: none, for objectives without targets.
    pub target: Option<f64>,
    /// The settings that the warning names.
    pub levers: Levers,
}

impl Default for DisplacementSettings {
    fn default() -> Self {
        Self {
            threshold: DisplacementThreshold::NatsPerToken(0.05),
            smoothing: 0.9,
            target: None,
            levers: Levers::default(),
        }
    }
}

impl DisplacementSettings {
    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first setting out of range.
    pub fn validate(&self) -> Result<(), Error> {
        match self.threshold {
            DisplacementThreshold::NatsPerToken(nats) => {
                POSITIVE.check("threshold.nats_per_token", &nats)?;
            }
            DisplacementThreshold::Nats(nats) => POSITIVE.check("threshold.nats", &nats)?,
        }
        self.target.map_or(Ok(()), |target| FINITE.check("target", &target))?;
        if (0.0..1.0).contains(&self.smoothing) {
            Ok(())
        } else {
            Err(Error::Setting {
                name: "smoothing",
                expected: "at least 0 and below 1",
                found: self.smoothing.to_string(),
            })
        }
    }
}

/// The input of the detector, once per optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChosenStep {
    /// Number of the step, for the message.
    pub step: u64,
    /// Mean log-ratio of the step's chosen responses (`logratios/chosen`), nats.
    pub log_ratio: f64,
    /// Their mean number of tokens; used by a threshold per token alone.
    pub tokens: f64,
}

/// Watches the mean chosen log-ratio of the steps and warns when it falls.
///
/// The value (per token or not, as the threshold says) is smoothed by an exponential moving average
/// without start-up bias. It warns when the average falls below `−threshold`, once, and again only
/// after the average has come back above `−threshold/2`.
/// Steps whose value is not a finite number are passed over.
///
/// Its whole state serialises, so that a resumed run warns at the same steps.
///
/// ```
/// use setpoint_align::{
///     ChosenStep, DisplacementDetector, DisplacementSettings, DisplacementThreshold,
/// };
///
/// let threshold = DisplacementThreshold::Nats(5.0);
/// let settings = DisplacementSettings { threshold, smoothing: 0.0, ..DisplacementSettings::default() };
/// let mut detector = DisplacementDetector::new(settings)?;
/// let mut observe = |step, log_ratio| {
///     detector.observe(ChosenStep { step, log_ratio, tokens: 100.0 }).is_some()
/// };
/// assert!(!observe(1, -4.0));
/// assert!(observe(2, -6.0));
/// assert!(!observe(3, -7.0)); // said already
/// # Ok::<(), setpoint_align::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DisplacementDetector {
    settings: DisplacementSettings,
    /// Σ smoothing^(age)·value and Σ smoothing^(age): their quotient is the unbiased average.
    weighted_sum: f64,
    weight: f64,
    warned: bool,
}

/// The mean chosen log-ratio has fallen further than it may.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DisplacementWarning {
    /// The step at which the average crossed the limit.
    pub step: u64,
    /// The smoothed mean chosen log-ratio, in the threshold's unit.
    pub log_ratio: f64,
    /// The limit it crossed, in the same unit.
    pub limit: f64,
    /// The mean target of the chosen responses, in the same unit, where the objective has one.
    pub target: Option<f64>,
    /// True if the unit is nats per token, else nats.
    pub per_token: bool,
    /// The settings that change how far the policy goes.
    pub levers: Levers,
}

impl DisplacementWarning {
    /// Returns the ways to keep the chosen responses from losing probability.
    fn remedy(&self) -> String {
        let larger = self.levers.closeness.map_or_else(String::new, |setting| format!(" or a larger {setting}"));
        format!("a lower train.learning_rate{larger} keeps the policy closer to the reference")
    }
}

impl fmt::Display for DisplacementWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.per_token { "nats per token" } else { "nats" };
        write!(
            f,
            "step {}: the chosen responses are losing probability: their mean log-ratio (smoothed) is {:.4} {unit}, below \
             the limit of {:.4}",
            self.step, self.log_ratio, self.limit
        )?;
        match self.target {
            None => write!(f, "; {}", self.remedy()),
            Some(target) if target < self.limit => {
                let level = self.levers.level.name();
                write!(f, "; their targets ask for {target:.4}: a lower align.{level} asks for less")
            }
            Some(target) => write!(f, "; their targets ask for {target:.4}, so {}", self.remedy()),
        }
    }
}

impl DisplacementDetector {
    /// A detector before its first step.
    ///
    /// # Errors
    /// The errors of [`DisplacementSettings::validate`].
    pub fn new(settings: DisplacementSettings) -> Result<Self, Error> {
        settings.validate()?;
        Ok(Self { settings, weighted_sum: 0.0, weight: 0.0, warned: false })
    }

    /// Takes in a step; returns a warning at the step that crosses the limit.
    pub fn observe(&mut self, chosen: ChosenStep) -> Option<DisplacementWarning> {
        let DisplacementSettings { threshold, smoothing, target, levers } = self.settings;
        let (unit, threshold, per_token) = match threshold {
            DisplacementThreshold::NatsPerToken(nats) => (chosen.tokens, nats, true),
            DisplacementThreshold::Nats(nats) => (1.0, nats, false),
        };
        let value = chosen.log_ratio / unit;
        if !value.is_finite() {
            return None;
        }
        self.weighted_sum = smoothing * self.weighted_sum + value;
        self.weight = smoothing * self.weight + 1.0;
        let log_ratio = self.weighted_sum / self.weight;

        let limit = -threshold;
        if self.warned {
            self.warned = log_ratio <= limit / 2.0;
            return None;
        }
        self.warned = log_ratio < limit;
        let target = target.map(|target| target / unit);
        self.warned.then_some(DisplacementWarning { step: chosen.step, log_ratio, limit, target, per_token, levers })
    }

    /// The smoothed mean chosen log-ratio in the threshold's unit; `None` before the first step.
    pub fn smoothed(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.weighted_sum / self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levers::{Closeness, LevelSetting};

    fn detector(threshold: DisplacementThreshold, smoothing: f64) -> DisplacementDetector {
        DisplacementDetector::new(DisplacementSettings { threshold, smoothing, ..DisplacementSettings::default() })
            .unwrap()
    }

    /// The steps (from 1) that warn.
    fn warnings(detector: &mut DisplacementDetector, log_ratios: &[f64], tokens: f64) -> Vec<u64> {
        let steps = (1..).zip(log_ratios);
        steps
            .filter_map(|(step, &log_ratio)| detector.observe(ChosenStep { step, log_ratio, tokens }))
            .map(|warning| warning.step)
            .collect()
    }

    #[test]
    fn warns_once_and_again_after_recovery() {
        let mut detector = detector(DisplacementThreshold::Nats(2.0), 0.0);
        let log_ratios = [0.0, -1.9, -2.1, -5.0, -1.5, -2.5, -0.9, -2.0, -2.5];
        assert_eq!(warnings(&mut detector, &log_ratios, 1.0), [3, 9]);
    }

    #[test]
    fn one_bad_step_is_smoothed_away_and_a_trend_is_not() {
        let threshold = DisplacementThreshold::Nats(2.0);
        let mut calm = vec![0.0; 20];
        calm.push(-10.0);
        assert!(warnings(&mut detector(threshold, 0.9), &calm, 1.0).is_empty());
        let falling: Vec<f64> = (0..40).map(|step| -0.2 * f64::from(step)).collect();
        assert_eq!(warnings(&mut detector(threshold, 0.9), &falling, 1.0).len(), 1);
    }

    #[test]
    fn the_average_has_no_start_up_bias() {
        let mut detector = detector(DisplacementThreshold::Nats(2.0), 0.5);
        assert_eq!(detector.smoothed(), None);
        assert_eq!(warnings(&mut detector, &[-3.0], 1.0), [1]);
        assert_eq!(detector.smoothed(), Some(-3.0));
        warnings(&mut detector, &[0.0], 1.0);
        assert_eq!(detector.smoothed(), Some(-1.0)); // (0·1 − 3·½)/(1 + ½)
    }

    #[test]
    fn a_limit_per_token_is_that_of_responses_of_any_length() {
        let per_token = DisplacementThreshold::NatsPerToken(0.1);
        assert!(warnings(&mut detector(per_token, 0.0), &[-9.0], 100.0).is_empty());
        assert_eq!(warnings(&mut detector(per_token, 0.0), &[-9.0], 80.0), [1]);
    }

    /// The change of the responses decides, wherever their targets are. A target of many nats per response was once
    /// taken for one per token, and the detector could not fire.
    #[test]
    fn a_fall_that_was_asked_for_is_a_fall_and_a_rise_that_fails_to_come_is_none() {
        let threshold = DisplacementThreshold::NatsPerToken(0.05);
        let at = |target, log_ratio| {
            let target = Some(target);
            let settings =
                DisplacementSettings { threshold, smoothing: 0.0, target, ..DisplacementSettings::default() };
            let mut detector = DisplacementDetector::new(settings).unwrap();
            detector.observe(ChosenStep { step: 1, log_ratio, tokens: 16.0 })
        };
        for target in [-40.0, -0.5, 12.0] {
            let warning = at(target, -4.0).unwrap_or_else(|| panic!("silent at target {target}"));
            assert_eq!((warning.log_ratio, warning.limit, warning.target), (-0.25, -0.05, Some(target / 16.0)));
            assert_eq!(warning.to_string().contains("lower align.log_z0"), target == -40.0, "{warning}");
            // Within the threshold, unmoved, risen.
            for log_ratio in [-0.7, 0.0, 3.0] {
                assert_eq!(at(target, log_ratio), None, "target {target}, log-ratio {log_ratio}");
            }
        }
    }

    #[test]
    fn the_warning_names_the_settings_that_the_method_has() {
        let said = |target: Option<f64>, levers: Levers| {
            let threshold = DisplacementThreshold::Nats(1.0);
            let settings = DisplacementSettings { threshold, smoothing: 0.0, target, levers };
            let mut detector = DisplacementDetector::new(settings).unwrap();
            detector.observe(ChosenStep { step: 1, log_ratio: -2.0, tokens: 1.0 }).unwrap().to_string()
        };
        let of = |closeness, level| Levers { closeness, level, clip_high: false };
        let share = of(Some(Closeness::BetaSigma), LevelSetting::BreakEvenReward);
        assert!(said(None, share).ends_with(
            "; a lower train.learning_rate or a larger align.beta_sigma keeps the policy closer to the reference"
        ));
        assert!(said(Some(-9.0), share).ends_with("a lower align.break_even_reward asks for less"));
        assert!(
            said(Some(9.0), of(Some(Closeness::Losses), LevelSetting::LogZ0))
                .contains("a larger beta in align.losses keeps")
        );
        assert!(
            said(None, of(None, LevelSetting::LogZ0))
                .ends_with("; a lower train.learning_rate keeps the policy closer to the reference")
        );
    }

    #[test]
    fn values_that_are_no_numbers_are_passed_over() {
        let mut detector = detector(DisplacementThreshold::NatsPerToken(0.1), 0.9);
        assert!(warnings(&mut detector, &[f64::NAN, f64::NEG_INFINITY], 10.0).is_empty());
        assert!(warnings(&mut detector, &[-1.0], 0.0).is_empty());
        assert_eq!(detector.smoothed(), None);
    }

    #[test]
    fn a_resumed_detector_goes_on_as_if_nothing_happened() {
        let falling: Vec<f64> = (0..40).map(|step| -0.3 * f64::from(step)).collect();
        let mut whole = detector(DisplacementThreshold::Nats(4.0), 0.9);
        let expected = warnings(&mut whole, &falling, 1.0);
        for cut in [5, 20, 30] {
            let mut first = detector(DisplacementThreshold::Nats(4.0), 0.9);
            let mut found = warnings(&mut first, &falling[..cut], 1.0);
            let stored = serde_json::to_string(&first).unwrap();
            let mut second: DisplacementDetector = serde_json::from_str(&stored).unwrap();
            let later = warnings(&mut second, &falling[cut..], 1.0);
            found.extend(later.iter().map(|step| step + cut as u64));
            assert_eq!((found, &second), (expected.clone(), &whole));
        }
    }

    #[test]
    fn settings_are_checked_and_parsed() {
        let settings: DisplacementSettings = toml::from_str("threshold = { nats = 10 }\nsmoothing = 0.5").unwrap();
        assert_eq!(settings.threshold, DisplacementThreshold::Nats(10.0));
        assert_eq!(settings.validate(), Ok(()));
        for bad in [
            DisplacementSettings { smoothing: 1.0, ..settings },
            DisplacementSettings { target: Some(f64::NAN), ..settings },
            DisplacementSettings { threshold: DisplacementThreshold::Nats(0.0), ..settings },
            DisplacementSettings { threshold: DisplacementThreshold::NatsPerToken(-1.0), ..settings },
        ] {
            assert!(DisplacementDetector::new(bad).is_err(), "{bad:?}");
        }
        assert!(toml::from_str::<DisplacementSettings>("treshold = { nats = 10 }").is_err());
    }
}

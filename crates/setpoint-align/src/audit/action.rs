//! The one change that the audit recommends, if something is wrong.

use super::feasibility::{FEASIBILITY_TOLERANCE, least_level};
use super::findings::{MOST, level};
use super::{AuditReport, AuditSettings, Groups, PromptGroup, Severity, Subject};
use crate::log_z0::LogZ0;

/// β as a share of the rewards' standard deviation that led to about 1 nat of KL on small models (`docs/METHODS.md`).
const USUAL_BETA: f64 = 0.25;

/// Returns the most important change as a sentence that begins with a verb, with a setting and a value that would do. `level_at`: the
/// level that the settings lead to at another β, if they lead to any.
pub(super) fn action(
    report: &AuditReport,
    settings: &AuditSettings,
    groups: &Groups<'_>,
    level_at: impl Fn(f64) -> Option<f64>,
) -> Option<String> {
    let warned = |subject| report.findings.iter().any(|f| f.subject == subject && f.severity >= Severity::Warning);
    if warned(Subject::EqualRewards) {
        return Some("give the responses rewards that differ: equal ones teach nothing.".into());
    }
    if let Some(highest) = report.masses.as_ref().and_then(|masses| masses.highest_level) {
        return Some(lower_level(report, settings, highest));
    }
    if warned(Subject::Feasibility)
        && let Some(beta) = larger_beta(settings, groups, level_at)
    {
        return Some(format!(
            "set align.{} = {beta}: at most half of the prompts then ask for more probability than there is.",
            settings.beta_setting()
        ));
    }
    let usual = match settings.beta_sigma {
        Some(_) => USUAL_BETA,
        None => rounded(USUAL_BETA * report.rewards.std, 2, f64::ceil),
    };
    let usual =
        || format!("set align.{} = {usual}, a quarter of the rewards' standard deviation.", settings.beta_setting());
    let falls = warned(Subject::SteepFall) || warned(Subject::Chosen);
    let mean = report.recommended.mean;
    if warned(Subject::Beta) {
        Some(usual())
    } else if falls && report.log_z0 - mean > 1e-9 * (1.0 + mean.abs()) {
        Some(format!("set {}: responses above the mean reward then gain probability.", to_mean(report, settings)))
    } else if warned(Subject::SteepFall) && report.beta < USUAL_BETA * report.rewards.std {
        Some(usual())
    } else if warned(Subject::Offsets) {
        Some("set align.reward_transform = \"center_per_prompt\": only differences within a prompt then count.".into())
    } else if warned(Subject::Estimate) {
        let samples = report.estimated.map_or(0, |estimated| 4 * estimated.samples);
        Some(format!("draw more samples of the reference model: setpoint annotate --reference-samples {samples}."))
    } else {
        None
    }
}

/// Names a level at which the share of the responses in the file does not fall.
fn lower_level(report: &AuditReport, settings: &AuditSettings, highest: f64) -> String {
    let number = match settings.log_z0 {
        LogZ0::BreakEvenReward(_) => {
            format!("align.break_even_reward = {}", rounded(report.beta * highest, 4, f64::floor))
        }
        _ => format!("align.log_z0 = {}", rounded(highest, 4, f64::floor)),
    };
    if settings.log_z0 == LogZ0::PerPrompt {
        // The level is measured: what is outside the file is better.
        return format!(
            "add samples of the reference model to the responses in the file, since their rewards are higher; or set {number}."
        );
    }
    let mean = report.recommended.mean;
    let setting = if mean <= highest && mean < report.log_z0 { to_mean(report, settings) } else { number };
    format!("set {setting}: the responses in the file then keep at least the probability that they have.")
}

/// Returns the setting at which the mean reward breaks even, in the form that the settings use.
fn to_mean(report: &AuditReport, settings: &AuditSettings) -> String {
    match settings.log_z0 {
        LogZ0::BreakEvenReward(_) => format!("align.break_even_reward = {}", level(report.rewards.mean)),
        _ => "align.log_z0 = \"mean\"".into(),
    }
}

/// Returns a value of the setting of β, a larger one, at which at most half of the prompts are infeasible, if there is one within three
/// orders of magnitude.
fn larger_beta(settings: &AuditSettings, groups: &Groups<'_>, level_at: impl Fn(f64) -> Option<f64>) -> Option<f64> {
    if settings.log_z0 == LogZ0::PerPrompt {
        // Their levels at another β are not known here.
        return None;
    }
    let (own, unit) = (settings.beta_sigma.unwrap_or(settings.beta), settings.beta_unit());
    let mut candidates = (1..=31).map(|steps| rounded(own * 1.25_f64.powi(steps), 2, f64::ceil));
    candidates.find(|&value| {
        let beta = value * unit;
        let Some(level) = level_at(beta) else { return false };
        let excess = |group: &PromptGroup| least_level(group, beta, settings.length_normalize) - level;
        let infeasible = groups.iter().filter(|group| excess(group) > FEASIBILITY_TOLERANCE).count();
        infeasible as f64 <= MOST * groups.len() as f64
    })
}

/// Rounds a number to `digits` significant digits, up or down as `round` does.
fn rounded(value: f64, digits: i32, round: fn(f64) -> f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let places = digits - 1 - value.abs().log10().floor() as i32;
    // A multiplication may miss a whole number by a little.
    let whole = |value: f64| if (value - value.round()).abs() < 1e-9 { value.round() } else { round(value) };
    let scale = 10.0_f64.powi(places.abs());
    if places >= 0 { whole(value * scale) / scale } else { whole(value / scale) * scale }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::{at, heavy, row};
    use crate::audit::{AuditPrompt, Verdict, audit};
    use crate::prompt_log_z::PromptLogZ;

    fn number(action: &str, setting: &str) -> f64 {
        let rest = action.strip_prefix(&format!("set {setting} = ")).unwrap_or_else(|| panic!("{action}"));
        rest.split([':', ',']).next().unwrap().parse().unwrap_or_else(|e| panic!("{action}: {e}"))
    }

    fn verdict(report: &AuditReport) -> Verdict {
        report.masses.as_ref().unwrap().verdict
    }

    /// The likely response is the bad one: 0.2/e + 0.01·e is less than 0.21 at the mean reward, which is 0.
    fn likely_and_bad() -> Vec<AuditPrompt> {
        vec![row(1, 0, &[(1, -1.0, 0.2f64.ln()), (2, 1.0, 0.01f64.ln())])]
    }

    #[test]
    fn the_level_that_it_names_leaves_the_file_its_share() {
        let data = likely_and_bad();
        let highest = ((0.2 * (-1f64).exp() + 0.01 * 1f64.exp()) / 0.21).ln();
        for form in [LogZ0::Mean, LogZ0::Nats(0.0), LogZ0::Nats(3.0), LogZ0::KEEP_CHOSEN] {
            let report = audit(&data, &AuditSettings::new(1.0, form)).unwrap();
            assert_eq!(verdict(&report), Verdict::Falls);
            let level = number(report.action.as_ref().unwrap(), "align.log_z0");
            assert!((highest - 1e-3..=highest).contains(&level), "{level} for {highest}");
            assert_ne!(verdict(&at(&data, 1.0, level)), Verdict::Falls);
            assert_eq!(verdict(&at(&data, 1.0, level + 2e-3)), Verdict::Falls);
        }
        // In the form that was used: a reward, at β = 2 as well.
        let form = LogZ0::BreakEvenReward(1.0);
        let report = audit(&data, &AuditSettings::new(2.0, form)).unwrap();
        let reward = number(report.action.as_ref().unwrap(), "align.break_even_reward");
        let again = audit(&data, &AuditSettings::new(2.0, LogZ0::BreakEvenReward(reward))).unwrap();
        assert!(verdict(&report) == Verdict::Falls && verdict(&again) != Verdict::Falls, "{reward}");
    }

    #[test]
    fn the_mean_is_named_if_it_is_low_enough() {
        // (0.1·e + 0.05)/0.15 = e^0.76; the mean reward is 0.5.
        let data = [row(1, 0, &[(1, 1.0, 0.1f64.ln()), (2, 0.0, 0.05f64.ln())])];
        let report = at(&data, 1.0, 1.0);
        assert_eq!(verdict(&report), Verdict::Falls);
        assert!(report.action.as_ref().unwrap().starts_with("set align.log_z0 = \"mean\": "), "{:?}", report.action);
        let report = audit(&data, &AuditSettings::new(1.0, LogZ0::BreakEvenReward(1.0))).unwrap();
        assert_eq!(number(report.action.as_ref().unwrap(), "align.break_even_reward"), 0.5);
        let mean = audit(&data, &AuditSettings::new(1.0, LogZ0::Mean)).unwrap();
        assert_eq!((verdict(&mean), mean.action), (Verdict::Rises, None));
    }

    #[test]
    fn a_measured_level_is_not_called_wrong() {
        let mut data = likely_and_bad();
        data[0].log_z = Some(PromptLogZ { log_z: 1.0, samples: 8, effective_samples: 8.0 });
        let report = audit(&data, &AuditSettings::new(1.0, LogZ0::PerPrompt)).unwrap();
        assert_eq!(verdict(&report), Verdict::Falls);
        assert!(report.action.unwrap().starts_with("add samples of the reference model to the responses in the file"));
    }

    #[test]
    fn a_larger_beta_is_named_if_most_prompts_ask_for_too_much() {
        // Nothing reaches the file's 100 % but targets that add up to more.
        let report = at(&[heavy(1, 0)], 0.5, 0.0);
        let beta = number(report.action.as_ref().unwrap(), "align.beta");
        assert!(at(&[heavy(1, 0)], beta, 0.0).feasibility.infeasible_share <= 0.5);
        assert!(at(&[heavy(1, 0)], beta / 1.3, 0.0).feasibility.infeasible_share > 0.5);
    }

    #[test]
    fn other_faults_have_their_setting_and_nothing_wrong_has_none() {
        let action = |data: &[AuditPrompt], beta, log_z0| at(data, beta, log_z0).action;
        let row = |rewards: [f64; 2]| [row(1, 0, &[(1, rewards[0], -500.0), (2, rewards[1], -500.0)])];
        // Deviation 2: a quarter is 0.5.
        assert_eq!(number(&action(&row([2.0, -2.0]), 0.1, 0.0).unwrap(), "align.beta"), 0.5);
        assert!(action(&row([1.0, 1.0]), 1.0, 1.0).unwrap().starts_with("give the responses rewards that differ"));
        assert!(action(&row([1.0, -1.0]), 0.5, 50.0).unwrap().starts_with("set align.log_z0 = \"mean\""));
        assert_eq!(action(&row([1.0, -1.0]), 0.5, 0.0), None);
    }

    #[test]
    fn a_beta_in_deviations_is_named_in_deviations() {
        let with = |data: &[AuditPrompt], beta: f64, share: f64, log_z0: f64| {
            let settings = AuditSettings::new(beta, LogZ0::Nats(log_z0));
            audit(data, &AuditSettings { beta_sigma: Some(share), ..settings }).unwrap()
        };
        // A deviation of 2 would be a β of 2, and β is 0.5.
        let report = with(&[heavy(1, 0)], 0.5, 0.25, 0.0);
        let share = number(report.action.as_ref().unwrap(), "align.beta_sigma");
        assert!(at(&[heavy(1, 0)], 2.0 * share, 0.0).feasibility.infeasible_share <= 0.5);
        assert!(at(&[heavy(1, 0)], 2.0 * share / 1.3, 0.0).feasibility.infeasible_share > 0.5);
        // A small share: a quarter is 0.25, whatever the deviation.
        let row = [row(1, 0, &[(1, 2.0, -500.0), (2, -2.0, -500.0)])];
        let report = with(&row, 0.1, 0.05, 0.0);
        assert_eq!(number(report.action.as_ref().unwrap(), "align.beta_sigma"), 0.25);
        let text: String = report.findings.iter().map(|finding| finding.message.clone() + "\n").collect();
        assert!(text.contains("beta_sigma = 0.1 is a tenth of a deviation, 0.25 a quarter."), "{text}");
        // Nothing that is said leads to the setting that is not used.
        let report = with(&[heavy(1, 0)], 0.05, 0.25, 50.0);
        let said = report.findings.iter().map(|finding| finding.message.as_str()).chain(report.action.as_deref());
        for sentence in said {
            let leads = ["larger beta ", "align.beta ", "; beta = "].iter().any(|text| sentence.contains(text));
            assert!(!leads, "{sentence}");
        }
    }

    #[test]
    fn a_level_given_as_a_reward_is_advised_as_a_reward() {
        let settings = AuditSettings::new(0.5, LogZ0::BreakEvenReward(25.0));
        let report = audit(&[row(1, 0, &[(1, 1.0, -500.0), (2, -1.0, -500.0)])], &settings).unwrap();
        let said: Vec<&str> = report.findings.iter().map(|finding| finding.message.as_str()).collect();
        assert!(said.iter().any(|text| text.contains("; break_even_reward = 0 lets those above the mean")), "{said:?}");
        assert!(said.iter().all(|text| !text.contains("; log_z0 =") && !text.contains("higher log_z0")), "{said:?}");
    }

    #[test]
    fn values_are_rounded_to_digits_that_still_do() {
        let down = [0.0, 1.23456, -1.23456, 1234.56, 56789.0, -0.00012345, 2.5].map(|v| rounded(v, 4, f64::floor));
        assert_eq!(down, [0.0, 1.234, -1.235, 1234.0, 56780.0, -0.0001235, 2.5]);
        let up = [0.07, 0.121, 7.0, 9.99, 123.0].map(|v| rounded(v, 2, f64::ceil));
        assert_eq!(up, [0.07, 0.13, 7.0, 10.0, 130.0]);
    }
}

//! The loss of a training at its end, from its log.

use std::path::Path;

use serde_json::{Map, Value};
use setpoint_eval::Trend;
use setpoint_train::RunDir;

use super::figures::Entry;

/// Returns the slope of the training loss over the last fifth of the run in a folder; `None` if there are too few steps or no log.
pub fn loss_trend(folder: &Path) -> Option<Trend> {
    let text = setpoint_files::read_text_up_to(&folder.join(RunDir::METRICS), setpoint_files::LARGE).ok()?;
    let point = |line: &str| {
        let row: Map<String, Value> = serde_json::from_str(line).ok()?;
        Some((row.get("step")?.as_f64()?, row.get("loss")?.as_f64()?))
    };
    Trend::of_last_fifth(&text.lines().filter_map(point).collect::<Vec<_>>())
}

/// Returns the number of tokens that the policy sampled while it trained, from the log of the run in a folder; `None` if it sampled none.
pub fn sampled_tokens(folder: &Path) -> Option<f64> {
    let text = setpoint_files::read_text_up_to(&folder.join(RunDir::METRICS), setpoint_files::LARGE).ok()?;
    let of_round = |line: &str| serde_json::from_str::<Map<String, Value>>(line).ok()?.get("rollout/tokens")?.as_f64();
    text.lines().filter_map(of_round).reduce(|sum, tokens| sum + tokens)
}

/// Returns the trainings whose loss was still falling when they stopped, in a sentence; `None` if there is none.
pub fn still_falling(entries: &[Entry]) -> Option<String> {
    /// More trials are counted.
    const NAMED: usize = 3;
    let mut falling: Vec<(&Entry, Trend)> = Vec::new();
    for entry in entries {
        // A training that was measured on two parts of the prompts is named once.
        let new = falling.iter().all(|(other, _)| other.trial != entry.trial);
        falling.extend(entry.loss_trend.filter(|trend| new && trend.is_falling()).map(|trend| (entry, trend)));
    }
    if falling.is_empty() {
        return None;
    }
    let named = falling
        .iter()
        .take(NAMED)
        .map(|(entry, trend)| format!("{} ({:+.2e} ± {:.0e} a step)", entry.trial, trend.slope, trend.std_error));
    let more = match falling.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("the loss was still falling over the last fifth of {}{more}", named.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trend_is_that_of_the_training_loss() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(loss_trend(dir.path()), None);
        let mut log = String::new();
        for step in 1..=25 {
            log += &format!("{{\"step\":{step},\"loss\":{},\"grad_norm\":1.0}}\n", 10.0 - 0.25 * f64::from(step));
            log += &format!("{{\"step\":{step},\"eval_loss\":{step}}}\n");
        }
        // A run that was killed may have half a last line.
        std::fs::write(dir.path().join(RunDir::METRICS), log + "{\"step\":26,\"lo").unwrap();
        let trend = loss_trend(dir.path()).unwrap();
        assert_eq!((trend.slope, trend.points), (-0.25, 5));
    }

    #[test]
    fn the_trials_are_named() {
        let entry = |trial: &str, slope: f64| Entry {
            trial: trial.to_owned(),
            loss_trend: Some(Trend { slope, std_error: 0.01, points: 5 }),
            ..Entry::default()
        };
        assert_eq!(still_falling(&[entry("a", 0.5), entry("b", -0.015)]), None);
        let one = still_falling(&[entry("a", -0.5), entry("b", 0.0), entry("a", -0.5)]).unwrap();
        assert_eq!(one, "the loss was still falling over the last fifth of a (-5.00e-1 ± 1e-2 a step)");
        let many: Vec<Entry> = ["a", "b", "c", "d", "e"].map(|name| entry(name, -1.0)).into();
        assert!(still_falling(&many).unwrap().ends_with(" and 2 more"));
    }
}

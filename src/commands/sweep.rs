//! `setpoint sweep`: runs the trials and prints their table.

use std::path::Path;

use setpoint::search::{Entry, failures};
use setpoint::sweep::{self, SweepConfig, keys, plain};
use setpoint::{Outcome, Session};
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::progress;

/// Runs a sweep.
pub fn run(session: &Session, config: &SweepConfig, folder: &Path, resume: bool) -> Outcome {
    let report = sweep::run(session, config, folder, resume)?;
    progress::say(table(&report.entries));
    progress::say(format!(
        "sorted by {} on the held-out prompts; the first is the best of {} tries, so measure it again on other prompts\n\
         written to {}: sweep.json, sweep.csv, trials/",
        report.metric.name(),
        report.entries.len(),
        folder.display()
    ));
    failures(&report.entries, folder)
}

fn table(entries: &[Entry]) -> String {
    let keys = keys(entries);
    let mut builder = Builder::default();
    let figures = ["win rate", "reward", "KL", "pair accuracy", "chosen", "rejected", "tokens", "seconds", "memory"]
        .map(str::to_owned);
    builder.push_record([vec!["trial".to_owned()], keys.clone(), figures.to_vec()].concat());
    for entry in entries {
        let mut row = vec![entry.trial.clone()];
        row.extend(keys.iter().map(|key| entry.settings.get(key).map_or_else(String::new, plain)));
        match (&entry.figures, &entry.trained) {
            (Some(f), Some(t)) => row.extend([
                format!("{:.3} [{:.3}, {:.3}]", f.win_rate, f.win_rate_low, f.win_rate_high),
                format!("{:.3}", f.reward),
                format!("{:.2}", f.kl),
                f.pair_accuracy.map_or_else(String::new, |v| format!("{v:.3}")),
                f.chosen_log_ratio.map_or_else(String::new, |v| format!("{v:+.2}")),
                f.rejected_log_ratio.map_or_else(String::new, |v| format!("{v:+.2}")),
                format!("{:.1}", f.tokens),
                format!("{}{:.0}", if t.resumed { "over " } else { "" }, t.seconds),
                t.peak_memory
                    .map_or_else(String::new, |bytes| format!("{:.2} GiB", bytes as f64 / f64::from(1u32 << 30))),
            ]),
            _ => row.push("failed".to_owned()),
        }
        builder.push_record(row);
    }
    builder.build().with(Style::rounded()).to_string()
}

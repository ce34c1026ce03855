//! `setpoint compare`: runs the trials and prints the methods side by side.

use std::path::Path;

use setpoint::compare::{self, CompareConfig, Results};
use setpoint::search::{Figures, failures, plus_minus, written};
use setpoint::{Outcome, Session};
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::progress;

/// Runs a comparison.
pub fn run(session: &Session, config: &CompareConfig, folder: &Path, resume: bool) -> Outcome {
    let report = compare::run(session, config, folder, resume)?;
    progress::say(table(&report.results));
    progress::say(format!("written to {}: compare.json, compare.csv, trials/", folder.display()));
    failures(&report.entries, folder)
}

fn table(results: &Results) -> String {
    let mut builder = Builder::default();
    builder.push_record([
        "method",
        "selected settings",
        "tried",
        "win rate",
        "reward",
        "KL",
        "pair accuracy",
        "chosen",
        "rejected",
        "tokens",
        "seconds",
        "memory",
    ]);
    if let Some(figures) = results.methods.iter().find_map(|m| m.figures.first()) {
        let (reward, tokens) = (format!("{:.3}", figures.baseline_reward), format!("{:.1}", figures.baseline_tokens));
        builder.push_record(["SFT", "", "", "", &reward, "", "", "", "", &tokens, "", ""]);
    }
    for m in &results.methods {
        let figure = |digits, figure: fn(&Figures) -> Option<f64>| plus_minus(&m.of(figure), digits);
        let rate = match &m.win_rate {
            None => "failed".to_owned(),
            Some(e) => format!("{} [{:.3}, {:.3}]", figure(3, |f| Some(f.win_rate)), e.low, e.high),
        };
        let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1u32 << 30));
        builder.push_record([
            m.name.to_owned(),
            m.point.as_ref().map_or_else(String::new, written),
            m.tried.to_string(),
            rate,
            figure(3, |f| Some(f.reward)),
            figure(2, |f| Some(f.kl)),
            figure(3, |f| f.pair_accuracy),
            figure(2, |f| f.chosen_log_ratio),
            figure(2, |f| f.rejected_log_ratio),
            figure(1, |f| Some(f.tokens)),
            plus_minus(&m.seconds(), 0),
            m.peak_memory().map_or_else(String::new, gib),
        ]);
    }
    let table = builder.build().with(Style::rounded()).to_string();
    let selection = results.selected_by.map_or_else(String::new, |metric| {
        format!("; settings selected by {} on separate held-out prompts, not reported here", metric.name())
    });
    format!(
        "{table}\nmean ± deviation over seeds; win rate against SFT with its interval over prompts; KL and log-ratios to SFT, nats; {} \
         steps each{selection}",
        results.steps,
    )
}

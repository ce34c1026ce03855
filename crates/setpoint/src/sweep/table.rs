//! The trials of a sweep, side by side.

use toml::Value;

use crate::search::{Entry, cell};
use crate::session::{TextTable, memory};

/// Returns the trials with their settings and figures.
pub fn table(entries: &[Entry]) -> TextTable {
    let keys = keys(entries);
    let figures = ["win rate", "reward", "KL", "pair accuracy", "chosen", "rejected", "tokens", "seconds", "memory"]
        .map(str::to_owned);
    let mut table = TextTable::framed([vec!["trial".to_owned()], keys.clone(), figures.to_vec()].concat());
    for entry in entries {
        let mut row = vec![entry.trial.clone()];
        row.extend(keys.iter().map(|key| entry.settings.get(key).map_or_else(String::new, plain)));
        match (&entry.figures, &entry.trained) {
            (Some(f), Some(t)) => row.extend([
                format!("{:.3} [{:.3}, {:.3}]", f.win_rate, f.win_rate_low, f.win_rate_high),
                format!("{:.3}", f.reward),
                format!("{:.2}", f.divergence()),
                f.pair_accuracy.map_or_else(String::new, |v| format!("{v:.3}")),
                f.chosen_log_ratio.map_or_else(String::new, |v| format!("{v:+.2}")),
                f.rejected_log_ratio.map_or_else(String::new, |v| format!("{v:+.2}")),
                format!("{:.1}", f.tokens),
                format!("{}{:.0}", if t.resumed { "over " } else { "" }, t.seconds),
                t.peak_memory.map_or_else(String::new, |bytes| memory::size(bytes as f64)),
            ]),
            _ => row.push("failed".to_owned()),
        }
        table.push(row);
    }
    table
}

/// Returns the settings that trials differ in.
fn keys(entries: &[Entry]) -> Vec<String> {
    entries.first().map(|entry| entry.settings.keys().cloned().collect()).unwrap_or_default()
}

/// Returns the trials as a table of texts, its header first.
pub fn rows(entries: &[Entry]) -> Vec<Vec<String>> {
    let keys = keys(entries);
    let figures = [
        "seed",
        "win_rate",
        "win_rate_low",
        "win_rate_high",
        "reward",
        "baseline_reward",
        "kl",
        "kl_exact",
        "pair_accuracy",
        "chosen_log_ratio",
        "rejected_log_ratio",
        "tokens",
        "truncated",
        "seconds",
        "resumed",
        "peak_memory_bytes",
        "error",
    ];
    let mut rows = vec![[vec!["trial".to_owned()], keys.clone(), figures.map(str::to_owned).to_vec()].concat()];
    for entry in entries {
        let mut row = vec![entry.trial.clone()];
        row.extend(keys.iter().map(|key| entry.settings.get(key).map_or_else(String::new, plain)));
        row.push(entry.seed.to_string());
        let f = entry.figures.as_ref();
        row.extend([
            cell(f.map(|f| f.win_rate)),
            cell(f.map(|f| f.win_rate_low)),
            cell(f.map(|f| f.win_rate_high)),
            cell(f.map(|f| f.reward)),
            cell(f.map(|f| f.baseline_reward)),
            cell(f.map(|f| f.kl)),
            cell(f.and_then(|f| f.kl_exact)),
            cell(f.and_then(|f| f.pair_accuracy)),
            cell(f.and_then(|f| f.chosen_log_ratio)),
            cell(f.and_then(|f| f.rejected_log_ratio)),
            cell(f.map(|f| f.tokens)),
            cell(f.map(|f| f.truncated)),
        ]);
        let t = entry.trained.as_ref();
        row.push(cell(t.map(|t| t.seconds)));
        row.push(t.map_or_else(String::new, |t| t.resumed.to_string()));
        row.push(t.and_then(|t| t.peak_memory).map_or_else(String::new, |bytes| bytes.to_string()));
        row.push(entry.error.clone().unwrap_or_default());
        rows.push(row);
    }
    rows
}

/// Returns a value without the quotes of a string.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

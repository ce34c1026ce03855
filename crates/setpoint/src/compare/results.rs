//! The table of a comparison, and its data.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value as Json, json};
use setpoint_eval::{Bootstrap, Estimate, mean_and_deviation};
use toml::Value;

use super::Measured;
use super::contender::Contender;
use super::plan::{Candidate, Choice};
use crate::failure::Outcome;
use crate::frontier::Frontier;
use crate::search::{Done, Entry, Figures, HeldOut, Point, Rule, Trained, cell, csv, plus_minus, written};
use crate::session::{TextTable, memory};

/// The figures of a method, seed by seed.
#[derive(Debug)]
pub struct MethodResult {
    /// The method's name.
    pub name: String,
    /// The number of settings that were tried.
    pub tried: usize,
    /// The selected ones; `None` if every training failed, or none is near enough to the SFT model.
    pub point: Option<Point>,
    /// The step whose model was selected, if it is not the last one.
    pub step: Option<u64>,
    /// A sentence that none is near enough.
    pub too_far: Option<String>,
    /// Seeds that were trained and measured.
    pub seeds: Vec<u64>,
    /// The figures of each seed.
    pub figures: Vec<Figures>,
    /// The cost of each training.
    pub trained: Vec<Trained>,
    /// The tokens that the policy sampled in each training, for methods that sample.
    pub sampled_tokens: Vec<f64>,
    /// The win rate: each prompt's wins are averaged over the seeds, then prompts are resampled.
    pub win_rate: Option<Estimate>,
}

impl MethodResult {
    /// Collects a method's trials.
    pub(super) fn new(
        method: &Candidate,
        choice: Option<Choice>,
        too_far: Option<String>,
        reported: &[Measured],
        held_out: &HeldOut,
    ) -> Outcome<Self> {
        let name = method.method.name();
        let step = choice.and_then(|choice| choice.step);
        let mine = |measured: &&Measured| Contender::of(&measured.trial.config).name() == name;
        let finished = reported.iter().filter(mine).filter_map(|m| Some((m, m.outcome.as_ref().ok()?)));
        let done: Vec<(u64, &Trained, &Figures, &Vec<f64>)> = finished
            .filter_map(|(m, done)| {
                let (figures, wins) = at(done, step)?;
                Some((m.trial.config.train.seed, &done.trained, figures, wins))
            })
            .collect();
        let bootstrap = Bootstrap { resamples: held_out.resamples, level: held_out.level, ..Bootstrap::default() };
        // Every seed was measured on the same prompts.
        let prompts = done.iter().map(|(.., wins)| wins.len()).min().unwrap_or(0);
        let wins: Vec<f64> =
            (0..prompts).map(|i| done.iter().map(|(.., wins)| wins[i]).sum::<f64>() / done.len() as f64).collect();
        Ok(Self {
            name: name.clone(),
            tried: method.points.len(),
            point: choice.map(|choice| method.points[choice.point].clone()),
            step,
            too_far,
            seeds: done.iter().map(|(seed, ..)| *seed).collect(),
            figures: done.iter().map(|(_, _, figures, _)| (*figures).clone()).collect(),
            trained: done.iter().map(|(_, trained, ..)| (*trained).clone()).collect(),
            sampled_tokens: reported
                .iter()
                .filter(mine)
                .filter_map(|measured| measured.outcome.as_ref().ok()?.sampled_tokens)
                .collect(),
            win_rate: if wins.is_empty() { None } else { Some(bootstrap.mean(&wins)?) },
        })
    }

    /// Returns the selected settings as one line, empty if there are none.
    fn selected(&self) -> String {
        let settings = self.point.as_ref().map_or_else(String::new, written);
        match (self.step, settings.is_empty()) {
            (None, _) => settings,
            (Some(step), true) => format!("step {step}"),
            (Some(step), false) => format!("{settings}, step {step}"),
        }
    }

    /// Returns a figure of every seed that has it.
    pub fn of(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Vec<f64> {
        self.figures.iter().filter_map(figure).collect()
    }

    /// Returns the seconds of the trainings that one process did whole.
    pub fn seconds(&self) -> Vec<f64> {
        self.trained.iter().filter(|trained| !trained.resumed).map(|trained| trained.seconds).collect()
    }

    /// Returns the greatest peak memory over the seeds, bytes.
    pub fn peak_memory(&self) -> Option<u64> {
        self.trained.iter().filter_map(|trained| trained.peak_memory).max()
    }

    /// Every figure by name.
    fn all(&self) -> Vec<(&'static str, Vec<f64>)> {
        vec![
            ("win_rate", self.of(|f| Some(f.win_rate))),
            ("reward", self.of(|f| Some(f.reward))),
            ("baseline_reward", self.of(|f| Some(f.baseline_reward))),
            ("kl", self.of(|f| Some(f.kl))),
            ("kl_exact", self.of(|f| f.kl_exact)),
            ("pair_accuracy", self.of(|f| f.pair_accuracy)),
            ("chosen_log_ratio", self.of(|f| f.chosen_log_ratio)),
            ("rejected_log_ratio", self.of(|f| f.rejected_log_ratio)),
            ("tokens", self.of(|f| Some(f.tokens))),
            ("baseline_tokens", self.of(|f| Some(f.baseline_tokens))),
            ("truncated", self.of(|f| Some(f.truncated))),
            ("seconds", self.seconds()),
            ("sampled_tokens", self.sampled_tokens.clone()),
        ]
    }
}

/// Returns what a trial reached at a step: figures, and wins prompt by prompt. Without a step, at its end.
fn at(done: &Done, step: Option<u64>) -> Option<(&Figures, &Vec<f64>)> {
    match step {
        None => Some((&done.figures, &done.wins)),
        Some(step) => done.earlier.iter().find(|e| e.step == step).map(|e| (&e.figures, &e.wins)),
    }
}

/// The methods, side by side.
#[derive(Debug)]
pub struct Results {
    /// In the order they were named.
    pub methods: Vec<MethodResult>,
    /// Optimizer steps of every training.
    pub steps: u64,
    /// The rule that settings were selected by; `None` where no method had a choice.
    pub selected_by: Option<Rule>,
    /// The methods at equal KL.
    pub frontier: Frontier,
}

#[derive(Serialize)]
struct Spread {
    mean: f64,
    deviation: Option<f64>,
}

impl Results {
    /// Returns the results as JSON, with every trial.
    pub fn json(&self, searched: &[Entry], reported: &[Entry]) -> Json {
        let method = |m: &MethodResult| {
            let spread = |(name, values): (&'static str, Vec<f64>)| {
                Some((name, mean_and_deviation(&values).map(|(mean, deviation)| Spread { mean, deviation })?))
            };
            let settings: Option<BTreeMap<String, Value>> = m.point.clone().map(|point| point.into_iter().collect());
            json!({
                "method": m.name,
                "settings": settings,
                "step": m.step,
                "too_far": m.too_far,
                "tried": m.tried,
                "seeds": m.seeds,
                "win_rate": m.win_rate,
                "figures": m.all().into_iter().filter_map(spread).collect::<BTreeMap<_, _>>(),
                "peak_memory_bytes": m.peak_memory(),
            })
        };
        json!({
            "steps": self.steps,
            "selected_by": self.selected_by.map(|rule| rule.metric),
            "max_kl": self.selected_by.and_then(|rule| rule.max_kl),
            "frontier": self.frontier,
            "methods": self.methods.iter().map(method).collect::<Vec<_>>(),
            "selection": searched,
            "report": reported,
        })
    }

    /// Returns the results as CSV, a row a method.
    pub fn csv(&self) -> String {
        let mut header: Vec<String> =
            ["method", "settings", "tried", "seeds", "win_rate_low", "win_rate_high", "peak_memory_bytes"]
                .map(str::to_owned)
                .into();
        let names = self.methods.first().map(MethodResult::all).unwrap_or_default();
        header.extend(names.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("{name}_deviation")]));
        let mut rows = vec![header];
        for m in &self.methods {
            let mut row = vec![
                m.name.clone(),
                m.selected(),
                m.tried.to_string(),
                m.seeds.len().to_string(),
                cell(m.win_rate.as_ref().map(|e| e.low)),
                cell(m.win_rate.as_ref().map(|e| e.high)),
                m.peak_memory().map_or_else(String::new, |bytes| bytes.to_string()),
            ];
            for (_, values) in m.all() {
                let spread = mean_and_deviation(&values);
                row.extend([cell(spread.map(|s| s.0)), cell(spread.and_then(|s| s.1))]);
            }
            rows.push(row);
        }
        csv(&rows)
    }

    /// Returns the results as a table, a row a method.
    pub fn table(&self) -> TextTable {
        let mut table = TextTable::framed([
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
        if let Some(figures) = self.methods.iter().find_map(|m| m.figures.first()) {
            let (reward, tokens) =
                (format!("{:.3}", figures.baseline_reward), format!("{:.1}", figures.baseline_tokens));
            table.push(["SFT", "", "", "", &reward, "", "", "", "", &tokens, "", ""]);
        }
        for m in &self.methods {
            let figure = |digits, figure: fn(&Figures) -> Option<f64>| plus_minus(&m.of(figure), digits);
            let rate = match &m.win_rate {
                None if m.too_far.is_some() => "none near enough".to_owned(),
                None => "failed".to_owned(),
                Some(e) => format!("{} [{:.3}, {:.3}]", figure(3, |f| Some(f.win_rate)), e.low, e.high),
            };
            table.push([
                m.name.clone(),
                m.selected(),
                m.tried.to_string(),
                rate,
                figure(3, |f| Some(f.reward)),
                figure(2, |f| Some(f.divergence())),
                figure(3, |f| f.pair_accuracy),
                figure(2, |f| f.chosen_log_ratio),
                figure(2, |f| f.rejected_log_ratio),
                figure(1, |f| Some(f.tokens)),
                plus_minus(&m.seconds(), 0),
                m.peak_memory().map_or_else(String::new, |bytes| memory::size(bytes as f64)),
            ]);
        }
        table
    }

    /// Says how many tokens methods sampled while they trained, if any did.
    pub fn sampled(&self) -> Option<String> {
        let sampling = self.methods.iter().filter(|m| !m.sampled_tokens.is_empty());
        let each: Vec<String> = sampling.map(|m| format!("{} {}", m.name, plus_minus(&m.sampled_tokens, 0))).collect();
        (!each.is_empty()).then(|| {
            format!("tokens sampled in a training: {}; the other methods train on the file alone", each.join(", "))
        })
    }

    /// Says how the figures of the table were measured.
    pub fn legend(&self) -> String {
        let selection = self.selected_by.map_or_else(String::new, |rule| {
            format!("; settings selected by {} on separate held-out prompts, not reported here", rule.text())
        });
        format!(
            "mean ± deviation over seeds; win rate against SFT with its interval over prompts; KL and log-ratios to SFT, nats; {} \
             steps each{selection}",
            self.steps,
        )
    }
}

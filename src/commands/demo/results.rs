//! The results of the demo's trainings, side by side.

use std::collections::BTreeMap;

use serde_json::Value;
use setpoint::eval::{self, EvalReport};
use setpoint::frontier::{Frontier, KL, Model, REWARD};
use setpoint::session::TextTable;
use setpoint::{Failure, Outcome};
use setpoint_eval::{Bootstrap, Estimate, mean};

use super::Variant;
use super::gold::Gold;
use crate::progress;

/// The name of the gold quality among the metrics.
const GOLD: &str = "gold";

/// Prompts whose answers are shown.
const SHOWN_PROMPTS: usize = 3;

/// A training, measured on the held-out prompts.
pub struct Measured {
    method: &'static str,
    setting: &'static str,
    report: EvalReport,
    /// Mean gold quality of each prompt's answers.
    gold: Vec<f64>,
    /// The same of the SFT model's.
    baseline_gold: Vec<f64>,
}

impl Measured {
    /// Judges the answers of an evaluation by what is true.
    ///
    /// # Errors
    /// When a prompt is not one of the demo's.
    pub fn of(variant: &Variant, report: EvalReport, gold: &Gold) -> Outcome<Self> {
        let judge = |answers: fn(&eval::Answered) -> &Vec<String>| -> Outcome<Vec<f64>> {
            let quality = |answered: &eval::Answered| {
                let values = answers(answered).iter().map(|text| gold.quality(&answered.question, text));
                let values: Option<Vec<f64>> = values.collect();
                values
                    .map(|values| mean(&values))
                    .ok_or_else(|| Failure::run(format!("`{}` is not one of the demo's questions", answered.question)))
            };
            report.answered.iter().map(quality).collect()
        };
        let (gold, baseline_gold) = (judge(|a| &a.policy)?, judge(|a| &a.baseline)?);
        Ok(Self { method: variant.method, setting: variant.setting, report, gold, baseline_gold })
    }

    /// Returns the result as `setpoint eval` writes it, with the gold quality of each prompt.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which would be a fault of the program.
    pub fn written(&self) -> Outcome<Value> {
        let mut value = eval::written(&self.report)?;
        value["distributions"][format!("metric.{GOLD}")] = serde_json::to_value(&self.gold)?;
        Ok(value)
    }

    fn model(&self) -> Model {
        let values = [(KL, &self.report.kls), (REWARD, &self.report.rewards), (GOLD, &self.gold)];
        Model {
            method: self.method.to_owned(),
            settings: self.setting.to_owned(),
            name: format!("{} {}", self.method, self.setting),
            values: values.into_iter().map(|(name, values)| (name.to_owned(), values.clone())).collect(),
            trend: None,
        }
    }

    fn kl(&self) -> f64 {
        self.report.kl.best().mean
    }
}

/// Returns the table: the SFT model and a row for each training, at most 80 columns.
pub fn table(measured: &[Measured]) -> String {
    let mut table = TextTable::framed(["method", "setting", "reward", "less SFT [95 %]", "KL, nats", "gold"]);
    table.keys = 2;
    if let Some(first) = measured.first() {
        let gold = mean(&first.baseline_gold);
        table.push(["SFT", "", &format!("{:.2}", first.report.baseline_reward), "", "0", &format!("{gold:.2}")]);
    }
    for one in measured {
        let difference = &one.report.win_rate.difference;
        table.push([
            one.method.to_owned(),
            one.setting.to_owned(),
            format!("{:.2}", one.report.reward),
            format!("{:+.2} [{:+.2}, {:+.2}]", difference.value, difference.low, difference.high),
            format!("{:.2} ± {:.2}", one.kl(), one.report.kl.best().std_error),
            format!("{:.2}", mean(&one.gold)),
        ]);
    }
    progress::drawn(&table)
}

/// Returns sentences on who is ahead at the same distance from the SFT model.
///
/// # Errors
/// When the models cannot be compared, which would be a fault of the program.
pub fn verdict(measured: &[Measured]) -> Outcome<String> {
    let models: Vec<Model> = measured.iter().map(Measured::model).collect();
    let Some(kl) = shared_kl(&models, ["DRO", "DPO"]) else {
        let reach = |method: &str| {
            let kls = measured.iter().filter(|one| one.method == method).map(Measured::kl);
            let (low, high) = kls.fold((f64::INFINITY, 0.0_f64), |(low, high), kl| (low.min(kl), high.max(kl)));
            format!("{method} {low:.1} to {high:.1}")
        };
        return Ok(format!(
            "{} and {} nats from the SFT model\n\
             have no distance in common: the table cannot say which does more with it.",
            reach("DRO"),
            reach("DPO")
        ));
    };
    let frontier = Frontier::of(&models, &[kl], "DPO", &Bootstrap::default())?;
    let difference = |metric: &str| -> Option<&Estimate> {
        let lines = frontier.metrics.iter().find(|lines| lines.metric == metric)?;
        lines.at.iter().find(|at| at.method == "DRO")?.difference.as_ref()
    };
    let said = [(REWARD, "reward"), (GOLD, "gold quality")].into_iter().filter_map(|(metric, name)| {
        let e = difference(metric)?;
        let word = match (e.low > 0.0, e.high < 0.0) {
            (true, _) => "above",
            (_, true) => "below",
            _ => "not told from",
        };
        Some(format!("DRO's {name} is {word} DPO's: {:+.2} [{:+.2}, {:+.2}]", e.value, e.low, e.high))
    });
    let said: Vec<String> = said.collect();
    let control = match best_gold(measured) {
        Some("NLL") => {
            "\nThe control, NLL, has the best gold quality: it imitates the best response\n\
             alone, and whoever wrote these responses is better than the SFT model."
        }
        _ => "",
    };
    Ok(format!(
        "At {kl:.1} nats from the SFT model,\n  {}.\nGold quality (-1 to 4) is judged by somebody who knows the facts; nothing was\n\
         trained on it.{control}",
        said.join(";\n  ")
    ))
}

/// Returns the method whose answers have the best gold quality.
fn best_gold(measured: &[Measured]) -> Option<&'static str> {
    measured.iter().max_by(|a, b| mean(&a.gold).total_cmp(&mean(&b.gold))).map(|best| best.method)
}

/// Returns the KL in the middle of those that both methods reach.
fn shared_kl(models: &[Model], methods: [&str; 2]) -> Option<f64> {
    let ends = methods.map(|method| {
        let kls = models.iter().filter(|model| model.method == method).map(|model| mean(&model.values[KL]));
        kls.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), kl| (low.min(kl), high.max(kl)))
    });
    let (low, high) = (ends[0].0.max(ends[1].0), ends[0].1.min(ends[1].1));
    (low <= high).then_some((low + high) / 2.0)
}

/// Returns answers to the first prompts, the SFT model's and those of the training of each method that is nearest to the shared KL.
pub fn side_by_side(measured: &[Measured]) -> String {
    let models: Vec<Model> = measured.iter().map(Measured::model).collect();
    let kl = shared_kl(&models, ["DRO", "DPO"]).unwrap_or(1.0);
    let mut nearest: BTreeMap<&str, &Measured> = BTreeMap::new();
    for one in measured {
        let best = nearest.entry(one.method).or_insert(one);
        if (one.kl() - kl).abs() < (best.kl() - kl).abs() {
            *best = one;
        }
    }
    let mut lines = vec!["Samples at temperature 1, the first of each prompt:".to_owned()];
    let Some(first) = measured.first() else { return String::new() };
    for (i, answered) in first.report.answered.iter().take(SHOWN_PROMPTS).enumerate() {
        lines.push(format!("\n{}", answered.question));
        let mut say = |who: &str, answers: &[String]| {
            lines.push(format!("  {who:12} {}", answers.first().map_or("", |text| text.trim())));
        };
        say("SFT", &answered.baseline);
        for one in ["DRO", "DPO", "NLL"].iter().filter_map(|method| nearest.get(method)) {
            say(&format!("{} {}", one.method, one.setting), &one.report.answered[i].policy);
        }
    }
    lines.join("\n")
}

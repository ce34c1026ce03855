//! The comparison with a baseline as a job, and the parts that the jobs of the benchmarks share.

use std::borrow::Cow;
use std::path::Path;

use serde::Serialize;
use setpoint_data::counted;
use setpoint_eval::{Estimate, KlEstimates, MeanError, p_value_text};

use super::reward::{self, EvalConfig, report};
use super::{EvalReport, Evaluated, write_json, written};
use crate::failure::Outcome;
use crate::job::{DATA, DryRun, Flag, Job, MODEL, OUTPUT, Work};
use crate::session::Session;

/// `setpoint eval`.
#[derive(Debug)]
pub struct Reward;

impl Job for Reward {
    type Config = EvalConfig;

    const COMMAND: &'static str = "eval";
    const FLAGS: &'static [Flag] = &[MODEL, DATA, OUTPUT];
    const WORK: Work<EvalConfig> = Work::Result(compare_with_baseline);
    const DRY_RUN: DryRun<EvalConfig> = DryRun::Text(reward::dry_run);

    fn about() -> Cow<'static, str> {
        "Compare a policy with a baseline: reward win rate, KL, pair accuracy; or run a benchmark".into()
    }

    fn help() -> Cow<'static, str> {
        "Example:\n  setpoint eval --model runs/dro/model --set baseline.path=runs/sft/model \\\n    \
         --set reward.path=runs/reward/model --data prompts.jsonl\n\nAll settings with their defaults: setpoint inspect config eval"
            .into()
    }
}

/// `--model` of the benchmarks that ask for answers.
pub(super) const ANSWERING_MODEL: Flag =
    Flag { help: "Hugging Face folder of the model that answers (setting model.path)", ..MODEL };
/// `--output` of the benchmarks.
pub(super) const OUTPUT_FOLDER: Flag = Flag { value: "DIR", help: "Folder for the results (setting output)", ..OUTPUT };

/// Compares a policy with a baseline under a source of rewards, prints the figures and writes them.
fn compare_with_baseline(session: &Session, config: &EvalConfig) -> Outcome {
    let report = report(session, config)?;
    session.say(figures(&report));
    if report.is_unchanged() {
        log::warn!(
            "the policy hardly differs from the baseline (KL 0.000): train it for more steps or at a higher learning rate \
             (docs/LEARNING_RATES.md)"
        );
    }
    if let Some(path) = &config.output {
        write_json(path, &written(&report)?)?;
        log::info!("written to {}", path.display());
    }
    Ok(())
}

/// Writes the scores of a benchmark.
pub(super) fn write<S: Serialize>(evaluated: Evaluated<S>, output: Option<&Path>) -> Outcome {
    if let Some(dir) = output {
        evaluated.write(dir)?;
        log::info!("written to {}", dir.display());
    }
    Ok(())
}

/// Returns the figures of an evaluation under a reward model, one a line.
fn figures(report: &EvalReport) -> String {
    let estimate =
        |e: &Estimate, digits: usize| format!("{:.digits$} [{:.digits$}, {:.digits$}]", e.value, e.low, e.high);
    let mut lines = vec![
        format!("{}, {} each", counted(report.prompts, "prompt"), counted(report.samples, "sample")),
        format!("reward            {:.3}, baseline {:.3}", report.reward, report.baseline_reward),
        format!("difference        {}", estimate(&report.win_rate.difference, 3)),
        format!(
            "win rate          {}  (sign test p {})",
            estimate(&report.win_rate.rate, 3),
            p_value_text(report.win_rate.p_value, 3)
        ),
        kl_lines(&report.kl),
        format!("response length   {:.1} tokens, baseline {:.1}", report.tokens, report.baseline_tokens),
        format!("cut at the limit  {:.1} %", 100.0 * report.truncated),
    ];
    if let Some(pairs) = &report.pairs {
        lines.push(format!("chosen log-ratio  {} nats", estimate(&pairs.chosen_log_ratio, 2)));
        lines.push(format!("rejected          {} nats", estimate(&pairs.rejected_log_ratio, 2)));
        let accuracy = &pairs.accuracy.accuracy;
        let rounding = match undecided(&pairs.chosen, &pairs.rejected) {
            0 => String::new(),
            count => format!(
                "; the log-ratios of {count} of {} differ by rounding alone",
                counted(pairs.chosen.len(), "pair")
            ),
        };
        lines.push(format!(
            "pair accuracy     {:.3} [{:.3}, {:.3}]{rounding}",
            accuracy.value, accuracy.low, accuracy.high
        ));
    }
    lines.join("\n")
}

/// Returns the estimates of the KL, the one that sums over the vocabulary first.
fn kl_lines(kl: &KlEstimates) -> String {
    let of = |estimate: &MeanError| format!("{:.3} ± {:.3} nats per response", estimate.mean, estimate.std_error);
    let sampled = of(&kl.k1);
    match &kl.exact {
        Some(exact) => format!(
            "KL to baseline    {}, summed over the vocabulary\n                  {sampled}, from the sampled tokens alone",
            of(exact)
        ),
        None => format!("KL to baseline    {sampled}, from the sampled tokens alone"),
    }
}

/// Returns the number of pairs whose log-ratios differ by no more than rounding, as those of an untrained policy do. They count as wrong or
/// right by chance.
fn undecided(chosen: &[f64], rejected: &[f64]) -> usize {
    /// Nats, far more than the rounding of a sum over some hundred tokens, and far less than a training changes.
    const ROUNDING: f64 = 1e-3;
    chosen.iter().zip(rejected).filter(|(chosen, rejected)| (*chosen - *rejected).abs() < ROUNDING).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_estimates_of_the_kl_are_printed() {
        let sampled = setpoint_eval::kl_estimates(&[-10.0, -12.0], &[-10.5, -12.7]).unwrap();
        assert_eq!(
            kl_lines(&sampled),
            "KL to baseline    0.600 ± 0.100 nats per response, from the sampled tokens alone"
        );
        // Mean 0.65, deviation 0.0707 over √2.
        let both = kl_lines(&sampled.with_exact(&[0.6, 0.7]).unwrap());
        let lines: Vec<&str> = both.lines().collect();
        assert_eq!(lines[0], "KL to baseline    0.650 ± 0.050 nats per response, summed over the vocabulary");
        assert_eq!(lines[1].trim(), "0.600 ± 0.100 nats per response, from the sampled tokens alone");
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn the_pairs_of_an_untrained_policy_are_undecided() {
        assert_eq!(undecided(&[2e-6, -1e-5, 0.0], &[0.0, 3e-6, 0.0]), 3);
        assert_eq!(undecided(&[0.5, -0.25, 4.0001], &[0.25, 1e-6, 4.0]), 1);
    }
}

//! The audit's answer in plain lines: where the targets send probability.

use super::findings::{nats, share};
use super::{AuditReport, Masses, Severity, Subject, Verdict};

/// The width of the text, columns.
const WIDTH: usize = 80;
/// The most lines of the summary, the level of the targets left out.
const SUMMARY: usize = 5;

impl AuditReport {
    /// Returns the answer to where these targets send probability, in lines of at most 80 columns, the most important first. The
    /// recommended change, [`AuditReport::advice`], is left for the end of everything that is printed.
    pub fn answer(&self) -> String {
        let mut lines = vec!["Where do these targets send probability?".to_owned()];
        let Some(masses) = &self.masses else {
            lines.extend(self.about_masses());
            return lines.join("\n");
        };
        match masses.verdict {
            // With the way to a level that is measured.
            Verdict::Negligible => lines.extend(self.about_masses()),
            _ => lines.extend(wrapped(&masses.verdict_in_words())),
        }
        lines.extend(table(masses));
        lines.extend(wrapped(&means(self, masses)));
        lines.extend(wrapped(&extremes(masses)));
        lines.extend(wrapped(&quarters(masses)));
        if self.feasibility.infeasible > 0 {
            let text = format!(
                "{} of {} prompts ask for more probability than there is; they count with all of it.",
                self.feasibility.infeasible, self.prompts
            );
            lines.extend(wrapped(&text));
        }
        lines.join("\n")
    }

    /// Returns the recommended change in lines of at most 80 columns; `None` if nothing is wrong.
    pub fn advice(&self) -> Option<String> {
        let action = self.action.as_ref()?;
        Some(wrapped(&format!("Recommended: {action}")).join("\n"))
    }

    /// Returns the few sentences that `setpoint align` prints before training, after the level of the targets: where probability goes,
    /// what ruins a model or teaches it nothing, and the recommended change. At most five.
    pub fn summary(&self) -> Vec<(Severity, String)> {
        // Targets that cannot be reached and responses that fall a little are no reason to stop: no warnings.
        let order = [
            (Subject::Masses, Severity::Warning),
            (Subject::EqualRewards, Severity::Error),
            (Subject::SteepFall, Severity::Warning),
            (Subject::Beta, Severity::Warning),
            (Subject::Estimate, Severity::Warning),
            (Subject::Feasibility, Severity::Info),
            (Subject::Chosen, Severity::Info),
        ];
        let mut said: Vec<(Severity, String)> = Vec::new();
        for (subject, most) in order {
            let found = self.findings.iter().find(|finding| finding.subject == subject);
            said.extend(found.map(|finding| (finding.severity.min(most), finding.message.clone())));
        }
        said.truncate(SUMMARY - usize::from(self.action.is_some()));
        said.extend(self.action.as_ref().map(|action| (Severity::Info, format!("recommended: {action}"))));
        said
    }

    /// Returns the finding about the masses.
    fn about_masses(&self) -> Vec<String> {
        let found = self.findings.iter().find(|finding| finding.subject == Subject::Masses);
        found.map(|finding| wrapped(&finding.message)).unwrap_or_default()
    }
}

impl Masses {
    /// Returns what becomes of the share of the responses in the file, as one or two sentences.
    pub fn verdict_in_words(&self) -> String {
        match self.verdict {
            Verdict::Falls => "These targets take probability from the responses in the file and give it to responses \
                               without a reward."
                .into(),
            Verdict::Stays => "These targets leave the responses in the file the probability that they have.".into(),
            Verdict::Rises => {
                "These targets give probability to the responses in the file, and take it from responses \
                               without a reward."
                    .into()
            }
            Verdict::Negligible => format!(
                "Nearly all probability is outside the file: a prompt's responses, of {:.0} tokens on average, have \
                 e^{:.0} of it under the reference and e^{:.0} under the targets (medians). Such shares say little about \
                 where probability goes.",
                self.tokens, self.log_reference.median, self.log_target.median
            ),
        }
    }
}

/// Returns how probability is divided, one line for the reference and one for the targets.
fn table(masses: &Masses) -> Vec<String> {
    let line = |name: &str, cells: [String; 3]| format!("  {name:<19}{:>15}{:>17}{:>18}", cells[0], cells[1], cells[2]);
    let shares = |shares: &super::Shares| [share(shares.best), share(shares.other), share(shares.unscored)];
    vec![
        line("", ["best response", "other responses", "without a reward"].map(Into::into)),
        line("under the reference", shares(&masses.reference)),
        line("under the targets", shares(&masses.target)),
    ]
}

fn means(report: &AuditReport, masses: &Masses) -> String {
    let prompts = report.prompts;
    let means = format!("Means over {prompts} prompt{}", if prompts == 1 { "" } else { "s" });
    if masses.verdict == Verdict::Negligible {
        return format!("{means}.");
    }
    let median = |log: f64| share(log.min(0.0).exp());
    format!(
        "{means}; the responses in the file together have {} and {} (medians: {} and {}).",
        share(masses.reference.in_file()),
        share(masses.target.in_file()),
        median(masses.log_reference.median),
        median(masses.log_target.median)
    )
}

fn extremes(masses: &Masses) -> String {
    let best = times(masses.best.median);
    match &masses.worst {
        Some(worst) => format!(
            "A prompt's best response becomes {best} as likely, its worst {} (medians of the targets).",
            times(worst.median)
        ),
        None => format!("A prompt's response becomes {best} as likely (median of the targets)."),
    }
}

fn quarters(masses: &Masses) -> String {
    let gaining: Vec<String> = masses.quarters.iter().map(|quarter| share(quarter.gaining)).collect();
    match gaining.as_slice() {
        [lowest, rest @ .., highest] if masses.quarters.len() == 4 => format!(
            "Responses that gain, by quarter of the rewards from the lowest to the highest: {lowest}, {}, {highest}.",
            rest.join(", ")
        ),
        _ => {
            let all: usize = masses.quarters.iter().map(|quarter| quarter.responses).sum();
            let some = masses.quarters.iter().map(|quarter| quarter.gaining * quarter.responses as f64).sum::<f64>();
            format!("{some:.0} of {all} responses gain probability.")
        }
    }
}

/// Returns the factor e^nats in words.
fn times(target: f64) -> String {
    match target {
        // Below 0.01 and above 100 the exponent says more.
        target if target.abs() <= 4.6 => format!("{} times", nats(target.exp())),
        target => format!("e^{} times", nats(target)),
    }
}

/// Breaks a text at blanks into lines of at most [`WIDTH`] columns; a number stays with its percent sign.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.replace(" %", "\u{a0}%").split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.into_iter().map(|line| line.replace('\u{a0}', " ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::{at, row};
    use crate::audit::{AuditSettings, audit};
    use crate::log_z0::LogZ0;

    /// Four responses with half of the probability of a prompt, and 320 such prompts.
    fn report(beta: f64, log_z0: f64) -> AuditReport {
        let responses = [(1, 1.0, 0.2f64.ln()), (2, 0.5, 0.1f64.ln()), (3, -0.5, 0.1f64.ln()), (4, -1.0, 0.1f64.ln())];
        let data: Vec<_> = (0..320).map(|i| row(i, i as usize, &responses)).collect();
        at(&data, beta, log_z0)
    }

    #[test]
    fn the_answer_comes_first_and_fits_80_columns() {
        // At level 1 the masses are 0.2 and 0.1·(e^-0.5 + e^-1.5 + e^-2) = 0.096.
        let report = report(1.0, 1.0);
        let text = report.answer();
        let lines: Vec<&str> = text.lines().collect();
        let expected = [
            "Where do these targets send probability?",
            "These targets take probability from the responses in the file and give it to",
            "responses without a reward.",
            "                       best response  other responses  without a reward",
            "  under the reference         20.0 %           30.0 %            50.0 %",
            "  under the targets           20.0 %            9.6 %            70.4 %",
            "Means over 320 prompts; the responses in the file together have 50.0 % and",
            "29.6 % (medians: 50.0 % and 29.6 %).",
        ];
        assert_eq!(lines[..expected.len()], expected);
        for text in ["best response becomes 1 times as likely, its worst 0.14 times", ": 0.0 %, 0.0 %, 0.0 %, 0.0 %."] {
            assert!(lines.join(" ").contains(text), "{text:?} is missing in {lines:#?}");
        }
        // 0.2·e + 0.1·(e^0.5 + e^-0.5 + e^-1) = 0.806, or e^0.478 of the half.
        assert_eq!(
            report.advice().unwrap().replace('\n', " "),
            "Recommended: set align.log_z0 = \"mean\": the responses in the file then keep at least the probability that they \
             have."
        );
    }

    #[test]
    fn every_text_is_short() {
        let long = at(&[row(1, 0, &[(1, 1.0, -700.0), (2, 0.0, -900.0)])], 0.1, 5.0);
        let open = {
            let settings = AuditSettings { level_weight: 0.0, ..AuditSettings::new(1.0, LogZ0::Mean) };
            audit(&[row(1, 0, &[(1, 1.0, -7.0), (2, 0.0, -9.0)])], &settings).unwrap()
        };
        for report in [report(1.0, 1.0), report(1.0, 0.0), report(0.01, 0.0), report(0.5, 50.0), long.clone(), open] {
            let text = format!("{}\n{}", report.answer(), report.advice().unwrap_or_default());
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(text.lines().count() <= 16, "{text}");
            let summary = report.summary();
            assert!((1..=5).contains(&summary.len()), "{summary:#?}");
            assert_eq!(summary.last().unwrap().1.starts_with("recommended: "), report.action.is_some(), "{summary:#?}");
        }
        let text = long.answer();
        assert!(text.contains("e^-700") && text.contains("--reference-samples"), "{text}");
    }

    #[test]
    fn the_summary_begins_with_where_probability_goes() {
        let (falling, rising) = (report(1.0, 1.0).summary(), report(1.0, 0.0).summary());
        assert_eq!(falling[0].0, Severity::Warning);
        assert_eq!(
            falling[0].1,
            "These targets take probability from the responses in the file and give it to responses without a reward (the \
             file's responses have 50.0 % under the reference and 29.6 % under the targets, as means over the prompts)."
        );
        assert!(
            rising[0].0 == Severity::Info && rising[0].1.starts_with("These targets give probability"),
            "{rising:?}"
        );
    }

    #[test]
    fn factors_are_numbers_or_powers() {
        assert_eq!(
            [0.0, -2.0, 4.0, -12.34, 38.5].map(times),
            ["1 times", "0.14 times", "54.6 times", "e^-12.34 times", "e^38.5 times"]
        );
    }
}

//! The picture of where a run's targets send probability.

use setpoint_align::{Masses, Shares};

use super::chart::{Chart, Group, Key, Look, Words, grouped};
use super::number::percent;
use super::read::Run;

/// A name, and its share of the probability.
type Part = (&'static str, fn(&Shares) -> f64);

/// The parts into which probability is divided.
const PARTS: [Part; 3] =
    [("best response", |s| s.best), ("other responses", |s| s.other), ("without a reward", |s| s.unscored)];

/// Draws how probability is divided under the reference and under the targets. `None` for runs without targets, and for those whose
/// folder does not say.
pub fn picture(subject: usize, run: &Run) -> Option<Chart> {
    let masses = run.masses.as_ref().filter(|masses| is_sound(&masses.reference) && is_sound(&masses.target))?;
    let name = format!("Probability by response: {}", run.name);
    let verdict = masses.verdict_in_words();
    let words = Words { title: &name, x: "responses of a prompt", y: "probability, %", good: &verdict };
    let group = |&(name, share): &Part| Group {
        name,
        bars: vec![(Look::Grey, share(&masses.reference)), (Look::Solid, share(&masses.target))],
    };
    let groups: Vec<Group<'_>> = PARTS.iter().map(group).collect();
    let mut chart = grouped(&words, subject, &groups, in_words(&run.name, masses));
    chart.legend = vec![
        Key { subject: None, look: Look::Grey, name: "under the reference".to_owned() },
        Key { subject: Some(subject), look: Look::Solid, name: "under the targets".to_owned() },
    ];
    Some(chart)
}

/// Returns the picture in words.
fn in_words(name: &str, masses: &Masses) -> String {
    let part = |(part, share): &(&str, fn(&Shares) -> f64)| {
        format!("{part} {} before and {} after", percent(share(&masses.reference)), percent(share(&masses.target)))
    };
    let parts: Vec<String> = PARTS.iter().map(part).collect();
    format!("Probability by response of {name}, under the reference and under the targets: {}", parts.join(", "))
}

/// Returns whether these are shares: the file may come from anywhere.
fn is_sound(shares: &Shares) -> bool {
    PARTS.iter().all(|(_, share)| (-1e-6..=1.0 + 1e-6).contains(&share(shares)))
}

#[cfg(test)]
mod tests {
    use setpoint_align::{AuditPrompt, AuditSettings, LogZ0, PromptRewards, audit};

    use super::*;

    /// Two responses with a quarter and a half of all probability: exp(r/β − level) is 1 and ½.
    fn run() -> Run {
        let ln2 = 2f64.ln();
        let data = [AuditPrompt {
            prompt: 1,
            name: "rows.jsonl:1".into(),
            rewards: PromptRewards::new(0, vec![ln2, 0.0]),
            ids: vec![1, 2],
            ref_logps: vec![-2.0 * ln2, -ln2],
            tokens: vec![3, 2],
            log_z: None,
        }];
        let report = audit(&data, &AuditSettings::new(1.0, LogZ0::Nats(ln2))).unwrap();
        Run { name: "dro".into(), masses: report.masses, ..Run::default() }
    }

    #[test]
    fn the_picture_has_the_numbers_of_the_audit() {
        let run = run();
        let chart = picture(3, &run).unwrap();
        let json = serde_json::to_value(&chart).unwrap();
        let texts: Vec<String> = json["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| label["text"].as_str().unwrap().replace('\u{a0}', " "))
            .collect();
        assert_eq!(texts, ["25.0 %", "25.0 %", "50.0 %", "25.0 %", "25.0 %", "50.0 %"]);
        assert!(
            chart.good.starts_with("These targets take probability from the responses in the file"),
            "{}",
            chart.good
        );
        let alt = json["alt"].as_str().unwrap().replace('\u{a0}', " ");
        assert!(alt.ends_with("without a reward 25.0 % before and 50.0 % after"), "{alt}");
        assert_eq!((chart.legend.len(), chart.legend[1].subject), (2, Some(3)));
    }

    #[test]
    fn shares_that_are_none_are_not_drawn() {
        assert_eq!(picture(0, &Run::default()), None);
        for odd in [f64::NAN, f64::INFINITY, -0.5, 7.0] {
            let mut run = run();
            run.masses.as_mut().unwrap().target.other = odd;
            assert_eq!(picture(0, &run), None, "{odd}");
        }
    }
}

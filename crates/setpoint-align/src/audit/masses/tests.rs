use super::*;
use crate::audit::tests::{at, row};
use crate::audit::{AuditPrompt, AuditReport, Severity, Subject, audit};
use crate::log_z0::LogZ0;

fn masses(data: &[AuditPrompt], settings: &AuditSettings) -> Masses {
    audit(data, settings).unwrap().masses.unwrap()
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12 * expected.abs().max(1.0), "{found}, expected {expected}");
}

fn warns(report: &AuditReport) -> bool {
    report.findings.iter().any(|f| f.subject == Subject::Masses && f.severity == Severity::Warning)
}

/// Two prompts whose responses are a fifth and a tenth of all, with (probability, reward).
const FILE: [&[(f64, f64)]; 2] = [&[(0.15, 1.0), (0.05, -1.0)], &[(0.06, 0.5), (0.03, 0.0), (0.01, 2.0)]];

fn file() -> Vec<AuditPrompt> {
    let prompt = |(i, responses): (usize, &&[(f64, f64)])| {
        let responses: Vec<(u64, f64, f64)> =
            responses.iter().enumerate().map(|(j, (p, reward))| (j as u64, *reward, p.ln())).collect();
        row(i as u64, i, &responses)
    };
    FILE.iter().enumerate().map(prompt).collect()
}

/// The mean over the prompts of the mass of the targets, each at most 1, computed without logarithms.
fn by_hand(beta: f64, levels: [f64; 2]) -> f64 {
    let mass = |(responses, level): (&&[(f64, f64)], f64)| -> f64 {
        responses.iter().map(|(p, reward)| p * (reward / beta - level).exp()).sum::<f64>().min(1.0)
    };
    FILE.iter().zip(levels).map(mass).sum::<f64>() / 2.0
}

#[test]
fn all_sequences_with_the_exact_level_keep_all_probability() {
    let (probabilities, rewards, beta): ([f64; 3], [f64; 3], f64) = ([0.5, 0.3, 0.2], [1.0, 0.25, -1.0], 0.5);
    let z: f64 = probabilities.iter().zip(rewards).map(|(p, r)| p * (r / beta).exp()).sum();
    let responses = [0, 1, 2].map(|j| (j as u64, rewards[j], probabilities[j].ln()));
    let report = at(&[row(1, 0, &responses)], beta, z.ln());
    let found = report.masses.as_ref().unwrap();
    close(found.reference.in_file(), 1.0);
    close(found.reference.best, 0.5);
    close(found.target.in_file(), 1.0);
    close(found.target.best, 0.5 * 2f64.exp() / z);
    assert!(found.reference.unscored.abs() < 1e-12 && found.target.unscored.abs() < 1e-12, "{found:?}");
    close(found.best.median, 2.0 - z.ln());
    close(found.worst.unwrap().median, -2.0 - z.ln());
    assert_eq!((found.verdict, found.highest_level, warns(&report)), (Verdict::Stays, None, false));
    // A level a little higher gives some of it away, to nothing that exists.
    let report = at(&[row(1, 0, &responses)], beta, z.ln() + 0.1);
    let found = report.masses.as_ref().unwrap();
    close(found.target.unscored, 1.0 - (-0.1f64).exp());
    assert!(found.verdict == Verdict::Falls && warns(&report));
    assert!((found.highest_level.unwrap() - z.ln()).abs() < 2e-6, "{found:?}");
}

#[test]
fn it_warns_exactly_if_the_mean_of_the_targets_is_lower() {
    for beta in [0.3, 0.5, 1.0, 3.0] {
        let mut falls = 0;
        for step in -20..=42 {
            let level = f64::from(step) / 7.0;
            let report = at(&file(), beta, level);
            let found = report.masses.as_ref().unwrap();
            let expected = by_hand(beta, [level; 2]);
            close(found.target.in_file(), expected);
            close(found.reference.in_file(), 0.15);
            close(found.target.in_file() + found.target.unscored, 1.0);
            assert_eq!(warns(&report), expected < 0.15, "β = {beta}, level {level}: {expected}");
            falls += u32::from(warns(&report));
            // The highest level is that at which nothing changes.
            if let Some(highest) = found.highest_level {
                let there = by_hand(beta, [highest; 2]);
                assert!((0.15..0.15 + 1e-6).contains(&(there + 1e-12)), "β = {beta}: {there}");
                assert!(highest < level);
            }
        }
        assert!((1..=62).contains(&falls), "β = {beta} has both outcomes");
    }
}

#[test]
fn every_form_of_the_level_is_followed() {
    let beta = 0.5;
    // The mean of the five rewards is 0.5, and the best two are 1 and 2.
    let forms = [
        (LogZ0::Nats(1.25), 1.25),
        (LogZ0::Mean, 1.0),
        (LogZ0::KEEP_CHOSEN, 3.0),
        (LogZ0::KeepChosen { chosen_shift: 2.0 }, 1.0),
        (LogZ0::AUTO, 3.0),
        (LogZ0::Auto { chosen_shift: -1.0 }, 4.0),
        (LogZ0::BreakEvenReward(0.75), 1.5),
    ];
    for (form, level) in forms {
        let report = audit(&file(), &AuditSettings::new(beta, form)).unwrap();
        close(report.masses.as_ref().unwrap().target.in_file(), by_hand(beta, [level; 2]));
        assert_eq!(warns(&report), by_hand(beta, [level; 2]) < 0.15, "{form:?}");
    }
    // Each prompt has its own.
    let mut data = file();
    for (row, log_z) in data.iter_mut().zip([0.25, 2.5]) {
        row.log_z = Some(PromptLogZ { log_z, samples: 8, effective_samples: 8.0 });
    }
    let report = audit(&data, &AuditSettings::new(beta, LogZ0::PerPrompt)).unwrap();
    let found = report.masses.as_ref().unwrap();
    close(found.target.in_file(), by_hand(beta, [0.25, 2.5]));
    close(found.best.max, 1.0 / beta - 0.25);
    close(found.best.min, 2.0 / beta - 2.5);
}

#[test]
fn repeated_responses_count_once() {
    let one = at(&file(), 0.5, 0.0).masses.unwrap();
    let mut data = file();
    // The first response of the second prompt once more in its row, and the first row twice.
    let again = (data[1].ids[0], data[1].ref_logps[0], data[1].tokens[0], data[1].rewards.rewards[0]);
    data[1].ids.push(again.0);
    data[1].ref_logps.push(again.1);
    data[1].tokens.push(again.2);
    data[1].rewards.rewards.push(again.3);
    data.push(data[0].clone());
    assert_eq!(at(&data, 0.5, 0.0).masses.unwrap(), one);
}

#[test]
fn responses_of_hundreds_of_tokens_do_not_underflow_and_are_said_to_tell_little() {
    // e^-1400 is 0 in f64.
    let mut data = [row(1, 0, &[(1, 1.0, -1400.0), (2, -1.0, -1400.0)]), row(2, 1, &[(1, 0.0, -1500.0)])];
    data.iter_mut().for_each(|row| row.tokens.iter_mut().for_each(|tokens| *tokens = 600));
    let report = at(&data, 0.1, 5.0);
    let found = report.masses.as_ref().unwrap();
    close(found.log_reference.max, -1400.0 + 2f64.ln());
    close(found.log_target.max, -1400.0 + 10.0 - 5.0 + (1.0 + (-20f64).exp()).ln());
    close(found.log_target.min, -1505.0);
    assert_eq!((found.reference.in_file(), found.reference.unscored, found.tokens), (0.0, 1.0, 600.0));
    assert_eq!((found.verdict, warns(&report)), (Verdict::Negligible, false));
    let finding = report.findings.iter().find(|f| f.subject == Subject::Masses).unwrap();
    // The median of −1399.3 and −1500 is −1449.7.
    for text in ["600 tokens on average", "e^-1450 of it", "log_z0 = \"per_prompt\"", "--reference-samples 8"] {
        assert!(finding.message.contains(text), "{text:?} is missing in {}", finding.message);
    }
    let json = serde_json::to_value(found).unwrap();
    assert!(json["log_target"].as_object().unwrap().values().all(serde_json::Value::is_number), "{json}");
    // With targets that make a response likely they say a lot.
    let raised = at(&data, 0.1, -1400.0);
    assert_eq!(raised.masses.unwrap().verdict, Verdict::Rises);
    // Where the level is measured, or counted per token, nothing is suggested.
    data.iter_mut().for_each(|row| {
        row.log_z = Some(PromptLogZ { log_z: 1.0, samples: 8, effective_samples: 8.0 });
    });
    let settings = AuditSettings::new(0.1, LogZ0::PerPrompt);
    let per_token = AuditSettings { length_normalize: true, ..AuditSettings::new(10.0, LogZ0::Mean) };
    for settings in [settings, per_token] {
        let report = audit(&data, &settings).unwrap();
        assert_eq!(report.masses.as_ref().unwrap().verdict, Verdict::Negligible);
        assert!(report.findings.iter().all(|finding| !finding.message.contains("reference-samples")));
    }
}

#[test]
fn a_prompt_that_asks_for_more_than_there_is_counts_with_all_of_it() {
    // ½·4 = 2 and ¼·2 = ½.
    let ln2 = 2f64.ln();
    let heavy = row(1, 0, &[(1, ln2, -ln2), (2, 0.5 * ln2, -2.0 * ln2)]);
    let found = at(std::slice::from_ref(&heavy), 0.5, 0.0).masses.unwrap();
    close(found.target.best, 2.0 / 2.5);
    close(found.target.other, 0.5 / 2.5);
    close(found.target.unscored, 0.0);
    close(found.log_target.max, 2.5f64.ln());
    // Next to a prompt that loses nearly everything, the mean is no higher than a half: 0.75 and 0.75 before.
    let lost = row(2, 1, &[(1, -10.0, -ln2), (2, -10.0, -2.0 * ln2)]);
    let report = at(&[heavy, lost], 0.5, 0.0);
    let target = report.masses.as_ref().unwrap().target.in_file();
    assert!((target - 0.5).abs() < 1e-8 && warns(&report), "{target}");
}

#[test]
fn quarters_of_the_rewards_and_their_gains() {
    let responses: Vec<(u64, f64, f64)> = (0..8).map(|i| (i, i as f64, -3.0)).collect();
    let found = at(&[row(1, 0, &responses)], 1.0, 4.5).masses.unwrap();
    let shown: Vec<(usize, f64, f64, f64)> =
        found.quarters.iter().map(|q| (q.responses, q.lowest, q.highest, q.gaining)).collect();
    assert_eq!(shown, [(2, 0.0, 1.0, 0.0), (2, 2.0, 3.0, 0.0), (2, 4.0, 5.0, 0.5), (2, 6.0, 7.0, 1.0)]);
    // A response at the level keeps its probability: it does not gain.
    let few = at(&[row(1, 0, &[(1, 2.0, -3.0)])], 1.0, 2.0).masses.unwrap();
    assert_eq!((few.quarters.len(), few.quarters[0].gaining, few.worst), (1, 0.0, None));
}

#[test]
fn targets_per_token_grow_with_the_length() {
    let mut data = [row(1, 0, &[(1, 1.0, 0.2f64.ln()), (2, 0.0, 0.1f64.ln())])];
    data[0].tokens = vec![2, 3];
    let settings = |level| AuditSettings { length_normalize: true, ..AuditSettings::new(1.0, LogZ0::Nats(level)) };
    let mass = |level: f64| 0.2 * (2.0 * (1.0 - level)).exp() + 0.1 * (-3.0 * level).exp();
    let found = masses(&data, &settings(0.9));
    close(found.target.in_file(), mass(0.9));
    assert_eq!(found.verdict, Verdict::Falls);
    let highest = found.highest_level.unwrap();
    assert!((0.3..0.3 + 1e-5).contains(&(mass(highest) + 1e-12)), "{highest}");
    assert_eq!(masses(&data, &settings(highest - 1e-3)).verdict, Verdict::Rises);
}

#[test]
fn without_a_weight_on_the_level_nothing_is_said_of_where_probability_goes() {
    let settings = AuditSettings { level_weight: 0.0, ..AuditSettings::new(0.5, LogZ0::Nats(50.0)) };
    let report = audit(&file(), &settings).unwrap();
    assert_eq!((&report.masses, &report.action), (&None, &None));
    let of_level = [Subject::Feasibility, Subject::SteepFall, Subject::Chosen, Subject::Rejected];
    assert!(report.findings.iter().all(|finding| !of_level.contains(&finding.subject)), "{:?}", report.findings);
    assert!(report.answer().contains("level_weight = 0"), "{}", report.answer());
}

#[test]
fn it_is_read_back_as_it_was_written() {
    let found = at(&file(), 0.5, 1.0).masses.unwrap();
    let json = serde_json::to_string(&found).unwrap();
    assert!(json.starts_with("{\"verdict\":\""), "{json}");
    let read: Masses = serde_json::from_str(&json).unwrap();
    assert_eq!(read.verdict, found.verdict);
    assert!((read.target.best - found.target.best).abs() < 1e-15);
}

use super::*;

pub(super) fn row(prompt: u64, number: usize, responses: &[(u64, f64, f64)]) -> AuditPrompt {
    AuditPrompt {
        prompt,
        name: format!("rows.jsonl:{number}"),
        rewards: PromptRewards::new(number, responses.iter().map(|r| r.1).collect()),
        ids: responses.iter().map(|r| r.0).collect(),
        ref_logps: responses.iter().map(|r| r.2).collect(),
        tokens: vec![100; responses.len()],
        log_z: None,
    }
}

pub(super) fn at(data: &[AuditPrompt], beta: f64, log_z0: f64) -> AuditReport {
    audit(data, &AuditSettings::new(beta, LogZ0::Nats(log_z0))).unwrap()
}

fn messages(report: &AuditReport, severity: Severity) -> Vec<&str> {
    let found = report.findings.iter().filter(|finding| finding.severity == severity);
    found.map(|finding| finding.message.as_str()).collect()
}

/// Responses of probability ½ and ¼ with exp(r/β) = 4 and 2: a mass of 2.5.
pub(super) fn heavy(prompt: u64, number: usize) -> AuditPrompt {
    let (ln2, beta) = (2f64.ln(), 0.5);
    row(prompt, number, &[(1, 2.0 * ln2 * beta, -ln2), (2, ln2 * beta, -2.0 * ln2)])
}

#[test]
fn excess_is_the_log_of_the_targets_sum() {
    let report = at(&[heavy(1, 40), row(2, 41, &[(1, 0.0, -1.0)])], 0.5, 0.0);
    let found = &report.feasibility;
    assert_eq!((found.infeasible, found.infeasible_share), (1, 0.5));
    assert_eq!((found.worst[0].row, found.worst[0].responses), (40, 2));
    assert!((found.worst[0].excess - 2.5f64.ln()).abs() < 1e-12);
    assert!((report.recommended.all_feasible - 2.5f64.ln()).abs() < 1e-12);
    let finding = |report: &AuditReport| {
        let found = report.findings.iter().find(|finding| finding.subject == Subject::Feasibility).unwrap();
        (found.severity, found.message.clone())
    };
    let (severity, message) = finding(&report);
    assert_eq!(severity, Severity::Info, "one of two is not most");
    assert!(message.starts_with("1 of 2 prompts (50.0 %) are infeasible at log_z0 = 0"), "{message}");
    assert!(message.contains("rows.jsonl:40, by 0.92 nats"), "{message}");
    assert_eq!(finding(&at(&[heavy(1, 40)], 0.5, 0.0)).0, Severity::Warning);

    // At the recommended value nothing is infeasible, and nothing less would do.
    let enough = report.recommended.all_feasible;
    assert_eq!(at(&[heavy(1, 40)], 0.5, enough).feasibility.infeasible, 0);
    assert_eq!(at(&[heavy(1, 40)], 0.5, enough - 1e-6).feasibility.infeasible, 1);
}

#[test]
fn repeated_responses_count_once_also_across_rows() {
    let one = at(&[heavy(1, 0)], 0.5, 0.0);
    let mut twice = heavy(1, 0);
    twice.ids.push(2);
    twice.ref_logps.push(twice.ref_logps[1]);
    twice.tokens.push(100);
    let again = twice.rewards.rewards[1];
    twice.rewards.rewards.push(again);
    let repeated = at(&[twice, heavy(1, 1)], 0.5, 0.0);
    assert_eq!(repeated.feasibility.log_mass.max, one.feasibility.log_mass.max);
    assert_eq!((repeated.prompts, repeated.rows, repeated.responses), (1, 2, 5));
    assert_eq!((repeated.duplicate_responses, repeated.conflicting_rewards), (3, 0));

    // Other responses of the same prompt share its probability.
    let split = [row(1, 0, &[(1, 0.0, 0.6f64.ln())]), row(1, 1, &[(2, 0.0, 0.6f64.ln())])];
    assert!((at(&split, 1.0, 0.0).feasibility.worst[0].excess - 1.2f64.ln()).abs() < 1e-12);
}

#[test]
fn conflicting_rewards_are_counted_and_averaged() {
    let report = at(&[row(1, 0, &[(1, 1.0, -1.0), (1, 3.0, -1.0)])], 1.0, 0.0);
    assert_eq!((report.duplicate_responses, report.conflicting_rewards), (1, 1));
    assert!((report.feasibility.log_mass.max - (2.0 - 1.0)).abs() < 1e-12);
    assert!(messages(&report, Severity::Warning).iter().any(|m| m.starts_with("1 responses occur")));
}

#[test]
fn log_sum_exp_survives_long_responses() {
    let responses = [ScoredResponse { ref_logp: -1e4, reward: 1e3 }, ScoredResponse { ref_logp: -1e4, reward: 1e3 }];
    assert_eq!(prompt_log_mass(&responses, 0.1), 2f64.ln());
    let far = [ScoredResponse { ref_logp: -2e4, reward: 0.0 }];
    assert_eq!(prompt_log_mass(&far, 0.1), -2e4);
    assert_eq!(prompt_log_mass(&[], 0.1), f64::NEG_INFINITY);
}

#[test]
fn ninety_nine_percent_leaves_one_in_a_hundred() {
    let data: Vec<AuditPrompt> = (0..200).map(|i| row(i, i as usize, &[(0, i as f64, -1000.0)])).collect();
    let report = at(&data, 1.0, 0.0);
    assert_eq!(report.recommended.all_feasible, 199.0 - 1000.0);
    assert_eq!(report.recommended.feasible_99, 197.0 - 1000.0);
    assert_eq!(at(&data, 1.0, 197.0 - 1000.0).feasibility.infeasible, 2);
}

#[test]
fn targets_by_role() {
    // Break-even at 0.1·20 = 2; chosen 3 and 1 (targets 10, −10), rejected 2.5, 2 and −1.
    let data = [
        row(1, 0, &[(1, 3.0, -500.0), (2, 2.5, -500.0)]),
        row(2, 1, &[(1, 1.0, -500.0), (2, -1.0, -500.0)]),
        row(3, 2, &[(1, 2.0, -500.0), (2, 4.0, -500.0)]),
    ];
    let mut data = data;
    data[2].rewards.labels = vec![Some(Role::Rejected), None];
    let report = at(&data, 0.1, 20.0);
    assert_eq!((report.chosen.count, report.chosen.losing, report.chosen.gaining), (2, 0.5, 0.5));
    assert!(report.chosen.targets.unwrap().mean.abs() < 1e-12);
    assert_eq!(report.rejected.count, 3);
    assert!((report.rejected.gaining - 1.0 / 3.0).abs() < 1e-12, "2 breaks even: neither");
    assert!((report.rejected.losing - 1.0 / 3.0).abs() < 1e-12);
    assert!((report.rejected.targets.unwrap().min + 30.0).abs() < 1e-12);
    assert!((report.recommended.auto.unwrap() - 20.0).abs() < 1e-12);
    assert_eq!(report.break_even_reward, 2.0);
    assert!((report.target_range - 50.0).abs() < 1e-12);
}

#[test]
fn the_papers_values_are_found_to_lower_chosen_responses() {
    let data = [row(1, 0, &[(1, 1.0, -200.0), (2, -1.0, -150.0)])];
    let report = at(&data, 0.1, 50.0);
    let warnings = messages(&report, Severity::Warning);
    assert_eq!(warnings.len(), 1, "{:?}", report.findings);
    assert_eq!(
        warnings[0],
        "100.0 % of the 1 best response have a reward below the break-even reward 5 and will lose probability, 40 nats on \
         average, 0.4 per token (mean target of all of them: -40 nats); log_z0 = 0 (\"mean\") lets those above the mean \
         reward gain."
    );
    // The mean of the two rewards is 0, and the better response goes to 1/0.1 − 0.
    let mean = audit(&data, &AuditSettings::new(0.1, LogZ0::Mean)).unwrap();
    assert_eq!((mean.log_z0, mean.chosen.targets.unwrap().mean, mean.chosen.fall), (0.0, 10.0, None));
    assert!(messages(&mean, Severity::Warning).is_empty(), "{:?}", mean.findings);
    let auto = audit(&data, &AuditSettings::new(0.1, LogZ0::AUTO)).unwrap();
    assert_eq!(auto.chosen.losing, 0.0);
    assert!(messages(&auto, Severity::Warning).is_empty(), "{:?}", auto.findings);
}

#[test]
fn chosen_responses_that_are_to_fall_steeply() {
    // β 0.5, log_z0 8: targets 2·3 − 8 = −2 and 2·(−1) − 8 = −10 nats. The second row's chosen response gains.
    let data = |tokens| {
        let mut data =
            [row(1, 0, &[(1, 3.0, -500.0), (2, -1.0, -500.0)]), row(2, 1, &[(1, 5.0, -500.0), (2, -1.0, -500.0)])];
        data[0].tokens = vec![tokens, 5];
        data
    };
    let report = at(&data(1), 0.5, 8.0);
    let chosen = &report.chosen;
    assert_eq!((chosen.losing, chosen.falling_steeply), (0.5, 0.5));
    assert_eq!(chosen.fall, Some(Fall { nats: 2.0, per_token: 2.0 }));
    let steep = |report: &AuditReport| report.findings.iter().any(|f| f.subject == Subject::SteepFall);
    assert!(steep(&report), "{:?}", report.findings);
    // One nat per token is not more than one.
    let gentle = at(&data(2), 0.5, 8.0);
    assert_eq!((gentle.chosen.falling_steeply, gentle.chosen.fall.unwrap().per_token), (0.0, 1.0));
    assert!(!steep(&gentle), "{:?}", gentle.findings);
    // Rejected responses may fall as far as they like.
    assert_eq!(gentle.rejected.falling_steeply, 0.5);
}

#[test]
fn beta_is_compared_with_the_deviation_of_the_rewards() {
    // Rewards ±2: deviation 2.
    let data = [row(1, 0, &[(1, 2.0, -500.0), (2, -2.0, -500.0)])];
    let about_beta = |beta| {
        let report = at(&data, beta, 0.0);
        (report.beta_in_deviations, report.findings.iter().any(|f| f.subject == Subject::Beta))
    };
    assert_eq!(about_beta(0.1), (Some(0.05), true));
    assert_eq!(about_beta(0.2), (Some(0.1), false));
    assert_eq!(about_beta(1.0), (Some(0.5), false));
    let equal = at(&[row(1, 0, &[(1, 2.0, -500.0), (2, 2.0, -500.0)])], 1e-6, 0.0);
    assert_eq!(equal.beta_in_deviations, None);
}

#[test]
fn offsets_between_prompts() {
    // Offsets ±10 around differences of ±1: var(means) = 100, within = 2·1/(2·1) = 2.
    let offset = |c: f64| PromptRewards::new(0, vec![c - 1.0, c + 1.0]);
    let offsets = Offsets::of([offset(-10.0), offset(10.0)].into_iter()).unwrap();
    assert!((offsets.variance_of_means - 100.0).abs() < 1e-12);
    assert!((offsets.variance_within - 2.0).abs() < 1e-12);
    // Two rows of two: the means vary by 2·½·½ on their own.
    assert!((offsets.variance_of_offsets - 99.5).abs() < 1e-12);
    assert!((offsets.share - 99.5 / 101.5).abs() < 1e-12);

    assert_eq!(Offsets::of([offset(0.0), offset(0.0)].into_iter()).unwrap().share, 0.0);
    assert_eq!(Offsets::of([offset(0.0)].into_iter()), None);
    assert_eq!(Offsets::of([PromptRewards::new(0, vec![1.0]), PromptRewards::new(1, vec![2.0])].into_iter()), None);

    let data = [row(1, 0, &[(1, 9.0, -500.0), (2, 11.0, -500.0)]), row(2, 1, &[(1, -11.0, -500.0), (2, -9.0, -500.0)])];
    let report = at(&data, 1.0, 0.0);
    assert!(messages(&report, Severity::Warning).iter().any(|m| m.contains("center_per_prompt")));
}

#[test]
fn labels_that_rewards_contradict() {
    let mut data = [row(1, 0, &[(1, 1.0, -500.0), (2, 2.0, -500.0), (3, 0.0, -500.0)])];
    assert_eq!(at(&data, 1.0, 0.0).label_disagreement, None);
    data[0].rewards.labels = vec![Some(Role::Chosen), Some(Role::Rejected), Some(Role::Rejected)];
    let report = at(&data, 1.0, 0.0);
    assert_eq!(report.label_disagreement, Some(LabelDisagreement { pairs: 2, contradicted: 1 }));
    assert!(
        messages(&report, Severity::Warning)
            .contains(&"In 1 of 2 labelled pairs (50.0 %) the chosen response's reward is not the higher one.")
    );
}

#[test]
fn equal_rewards_are_an_error() {
    let report = at(&[row(1, 0, &[(1, 1.5, -50.0), (2, 1.5, -50.0)])], 1.0, 1.5);
    assert_eq!(
        messages(&report, Severity::Error),
        ["All 2 rewards equal 1.5, so nothing distinguishes one response from another."]
    );
    // The order: worst first.
    assert!(report.findings.is_sorted_by(|a, b| a.severity >= b.severity));
}

#[test]
fn bad_input_is_named() {
    let settings = AuditSettings::new(0.1, LogZ0::AUTO);
    assert!(matches!(audit(&[], &settings), Err(Error::Empty { .. })));
    assert!(matches!(
        audit(&[heavy(1, 0)], &AuditSettings::new(0.0, LogZ0::AUTO)),
        Err(Error::Setting { name: "beta", .. })
    ));
    let error = |change: fn(&mut AuditPrompt)| {
        let mut bad = heavy(1, 9);
        change(&mut bad);
        audit(&[heavy(0, 0), bad], &settings).unwrap_err()
    };
    assert!(matches!(error(|row| row.rewards.rewards[1] = f64::NAN), Error::Reward { row: 9, response: 1, .. }));
    assert!(matches!(error(|row| row.ref_logps[1] = 0.5), Error::RefLogp { row: 9, response: 1, .. }));
    assert!(matches!(error(|row| row.ref_logps[0] = f64::NAN), Error::RefLogp { row: 9, response: 0, .. }));
    assert!(matches!(error(|row| row.ids.push(3)), Error::Lengths { row: 9, what: "response ids", .. }));
    assert!(matches!(error(|row| row.ref_logps.clear()), Error::Lengths { row: 9, found: 0, .. }));
    assert!(matches!(error(|row| row.tokens.clear()), Error::Lengths { row: 9, what: "numbers of tokens", .. }));
}

#[test]
fn the_report_serialises() {
    let report = at(&[heavy(1, 0)], 0.5, 0.0);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["feasibility"]["infeasible"], 1);
    assert_eq!(json["findings"][0]["severity"], "warning");
    assert_eq!(json["findings"][0]["subject"], "feasibility");
    assert_eq!(json["offsets"], serde_json::Value::Null);
}

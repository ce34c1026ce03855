//! The numbers of a round that are known before its first step, and the signs that a run goes wrong.

use setpoint_align::online::{
    RoundSigns, SamplingCorrection, correlation, equal_share, limited_share, repetitive_share, rollout_metrics,
    sampling_weights, source_metrics,
};
use setpoint_align::{Method, PromptIndex};

use super::settings::{RolloutSection, compares, estimates_kl};
use super::store::{Distance, RolloutRow};
use super::watch::SecondReward;
use crate::failure::Outcome;
use crate::training::RoundSummary;

/// The mean reward of the second source.
const WATCHED: &str = "watch/reward";

/// The numbers of a round.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundMetrics {
    /// Name and value, under trl's names where it has any.
    values: Vec<(String, f64)>,
    signs: RoundSigns,
    tokens: usize,
}

impl RoundMetrics {
    /// Measures the responses of a round.
    ///
    /// # Units
    /// `objective/kl`: nats of a response, the mean of `log π − log π_ref` (Schulman's k1); `objective/entropy`: nats of a response, the mean of
    /// `−log π`; `sampling/…`: nats of a token.
    ///
    /// # Errors
    /// When a prompt has no response.
    pub fn of(round: u64, rows: &[RolloutRow]) -> Outcome<Self> {
        let counts: Vec<usize> = rows.iter().map(|row| row.tokens.len()).collect();
        let prompts = PromptIndex::from_counts(&counts)?;
        let responses: Vec<&[u32]> = rows.iter().flat_map(|row| row.tokens.iter().map(Vec::as_slice)).collect();
        let lengths: Vec<usize> = responses.iter().map(|ids| ids.len()).collect();
        let stopped: Vec<bool> = rows.iter().flat_map(|row| row.stopped.iter().copied()).collect();
        let known = |row: &RolloutRow| -> Vec<f64> { row.rewards.iter().map(|r| r.unwrap_or(f64::NAN)).collect() };
        let rewards: Vec<f64> = rows.iter().flat_map(known).collect();
        let (count, tokens) = (responses.len().max(1) as f64, lengths.iter().sum::<usize>());

        let shared = rollout_metrics(&rewards, &lengths, &stopped, &prompts);
        let named = |name: &str| shared.get(name).copied();
        let nats: f64 = rows.iter().flat_map(|row| &row.logps).sum();
        let ratios: Vec<f64> =
            rows.iter().flat_map(|row| row.logps.iter().zip(&row.ref_logps).map(|(own, other)| own - other)).collect();
        let kl = (!ratios.is_empty()).then(|| ratios.iter().sum::<f64>() / ratios.len() as f64);
        let distances: Vec<Distance> = rows.iter().flat_map(distances).collect();
        let compared: usize = distances.iter().map(|distance| distance.tokens).sum();
        // A server may be silent about them.
        let difference =
            (compared > 0).then(|| distances.iter().map(|distance| distance.sum).sum::<f64>() / compared as f64);
        let exact: Vec<f64> = lengths.iter().map(|&length| length as f64).collect();
        let signs = RoundSigns {
            round,
            kl,
            sampling_difference: difference,
            entropy: Some(-nats / tokens.max(1) as f64),
            mean_tokens: named("completions/mean_length"),
            length_correlation: correlation(&rewards, &exact),
            clipped_ratio: named("completions/clipped_ratio"),
            zero_std: named("frac_reward_zero_std"),
            reward: named("reward"),
            repetitive: Some(repetitive_share(&responses)),
            equal: Some(equal_share(&responses, &prompts)),
            ..RoundSigns::default()
        };
        let mut values: Vec<(String, f64)> = shared.into_iter().collect();
        let mut add = |name: &str, value: f64| values.push((name.to_owned(), value));
        if let Some(kl) = kl {
            add("objective/kl", kl);
        }
        add("objective/entropy", -nats / count);
        if let Some(difference) = difference {
            add("sampling/sampling_logp_difference/mean", difference);
            add("sampling/sampling_logp_difference/max", distances.iter().map(|own| own.max).fold(0.0, f64::max));
        }
        add("rollout/tokens", tokens as f64);
        add("rollout/unscored", rewards.iter().filter(|reward| reward.is_nan()).count() as f64);
        Ok(Self { values, signs, tokens })
    }

    /// Adds the rewards as their sources gave them: without weights, and without the penalty for a missing stop token. `names`: those of the
    /// sources.
    pub fn add_sources(&mut self, names: &[&str], penalty: f64, rows: &[RolloutRow]) {
        for name in names {
            let given = |row: &RolloutRow| -> Vec<f64> {
                let alone = || {
                    let given = |(reward, &stopped): (&Option<f64>, &bool)| {
                        reward.map(|reward| if stopped { reward } else { reward + penalty })
                    };
                    row.rewards.iter().zip(&row.stopped).map(given).collect()
                };
                let rewards = row.source_rewards.get(*name).cloned().unwrap_or_else(alone);
                rewards.into_iter().map(|reward| reward.unwrap_or(f64::NAN)).collect()
            };
            let rewards: Vec<f64> = rows.iter().flat_map(given).collect();
            self.values.extend(source_metrics(name, &rewards));
        }
    }

    /// Adds the share of tokens or responses that are above the limit of the correction for what sampled, if there is one.
    pub fn add_correction(&mut self, correction: Option<(SamplingCorrection, f64)>, rows: &[RolloutRow]) {
        let Some((correction, max)) = correction else { return };
        let responses = || rows.iter().flat_map(|row| row.token_logps.iter().zip(&row.sampling_token_logps));
        let counts: Vec<usize> = responses().map(|(own, _)| own.len()).collect();
        let (own, sampled): (Vec<f64>, Vec<f64>) =
            responses().flat_map(|(own, sampled)| own.iter().copied().zip(sampled.iter().copied())).unzip();
        let weights = sampling_weights(&own, &sampled, &counts, correction, max);
        self.signs.limited = limited_share(&weights, &counts, correction, max);
        self.values.extend(self.signs.limited.map(|share| ("sampling/limited_frac".to_owned(), share)));
    }

    /// Adds the mean reward of the second source.
    pub fn add_watched(&mut self, watched: Option<SecondReward>) {
        self.values.extend(watched.map(|watched| (WATCHED.to_owned(), watched.reward)));
    }

    /// Returns the numbers that the guards look at, without those of the second source.
    pub fn signs(&self) -> RoundSigns {
        self.signs
    }

    /// Returns the numbers with a line for people. `own`: further numbers of the method.
    pub fn summary(self, examples: usize, own: Vec<(String, f64)>, warnings: Vec<String>) -> RoundSummary {
        let RoundSigns { round, kl, mean_tokens, clipped_ratio, reward, .. } = self.signs;
        let kl = kl.map_or_else(String::new, |kl| format!(", KL {kl:.3} nats"));
        let second = self.values.iter().find(|(name, _)| name == WATCHED);
        let second = second.map_or_else(String::new, |(_, reward)| format!(", watched {reward:.4}"));
        let line = format!(
            "round {round}: reward {:.4}{second}{kl}, {} tokens, {:.1} a response, {:.0} % stopped; {examples} examples",
            reward.unwrap_or(f64::NAN),
            self.tokens,
            mean_tokens.unwrap_or_default(),
            100.0 * (1.0 - clipped_ratio.unwrap_or_default())
        );
        let mut metrics = self.values;
        // A method's own numbers are those of the responses that it trains on.
        metrics.retain(|(name, _)| own.iter().all(|(other, _)| other != name));
        metrics.push(("rollout/examples".to_owned(), examples as f64));
        metrics.extend(own);
        RoundSummary { metrics, line, warnings }
    }
}

/// Returns the signs of a round that mean something for a method. Equal rewards teach a method that compares no responses all the same. The
/// mean log-ratio of samples that are not the policy's own may be as negative as it likes, and says how far the policy is only if it is large.
pub fn meaningful(signs: RoundSigns, method: &Method, rollout: &RolloutSection) -> RoundSigns {
    RoundSigns {
        zero_std: signs.zero_std.filter(|_| compares(&method.training())),
        kl: signs.kl.map(|kl| if estimates_kl(method, rollout) { kl } else { kl.max(0.0) }),
        ..signs
    }
}

/// Returns the distances of a row's responses between what sampled them and training. Rows of older builds have the sums of responses alone.
fn distances(row: &RolloutRow) -> Vec<Distance> {
    if !row.sampling_distances.is_empty() {
        return row.sampling_distances.clone();
    }
    let of = |((own, other), ids): ((&f64, &f64), &Vec<u32>)| {
        let sum = (own - other).abs();
        Distance { tokens: ids.len(), sum, max: sum / ids.len() as f64 }
    };
    row.logps.iter().zip(&row.sampling_logps).zip(&row.tokens).map(of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use setpoint_align::online::Guards;

    use super::super::remote::ReloadSettings;
    use super::*;
    use crate::server::ServerSettings;

    fn row(
        rewards: &[Option<f64>],
        tokens: &[usize],
        stopped: &[bool],
        logps: &[f64],
        ref_logps: &[f64],
    ) -> RolloutRow {
        RolloutRow {
            prompt: "a question".into(),
            responses: vec![String::new(); tokens.len()],
            rewards: rewards.to_vec(),
            source_rewards: Default::default(),
            row: 0,
            tokens: tokens
                .iter()
                .enumerate()
                .map(|(i, &count)| (0..count as u32).map(|t| 100 * i as u32 + t).collect())
                .collect(),
            stopped: stopped.to_vec(),
            logps: logps.to_vec(),
            sampling_logps: logps.to_vec(),
            sampling_distances: Vec::new(),
            sampling_token_logps: Vec::new(),
            ref_logps: ref_logps.to_vec(),
            ref_prompt_logp: 0.0,
            token_logps: Vec::new(),
            ref_token_logps: Vec::new(),
            values: Vec::new(),
            template: Map::new(),
        }
    }

    #[test]
    fn a_round_is_measured_by_hand() {
        let rows = [
            row(&[Some(1.0), Some(3.0)], &[2, 4], &[true, false], &[-1.0, -2.0], &[-2.0, -2.0]),
            row(&[Some(5.0), None], &[6, 8], &[true, true], &[-3.0, -4.0], &[-3.0, -4.5]),
        ];
        let found = RoundMetrics::of(7, &rows).unwrap();
        let value = |name: &str| found.values.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        for (name, expected) in [
            ("reward", 3.0),
            ("reward_std", 2.0),
            ("completions/mean_length", 5.0),
            ("completions/clipped_ratio", 0.25),
            ("completions/mean_terminated_length", 16.0 / 3.0),
            ("objective/kl", 1.5 / 4.0),
            ("objective/entropy", 2.5),
            ("sampling/sampling_logp_difference/max", 0.0),
            ("rollout/tokens", 20.0),
            ("rollout/unscored", 1.0),
        ] {
            let found = value(name).unwrap_or_else(|| panic!("no {name}"));
            assert!((found - expected).abs() < 1e-12, "{name}: {found}");
        }
        assert_eq!((found.signs.round, found.signs.entropy), (7, Some(0.5)));
        let summary = found.summary(3, vec![("own".to_owned(), 0.5)], Vec::new());
        assert_eq!(
            summary.metrics[summary.metrics.len() - 2..],
            [("rollout/examples".to_owned(), 3.0), ("own".to_owned(), 0.5)]
        );
        assert!(summary.line.starts_with("round 7: reward 3.0000, KL 0.375 nats, 20 tokens"), "{}", summary.line);
        // No distance without the generator's numbers, as a server may not tell them.
        let silent = RolloutRow { sampling_logps: Vec::new(), ..rows[0].clone() };
        let alone = RoundMetrics::of(0, &[silent]).unwrap();
        assert!(alone.signs.sampling_difference.is_none());
        assert!(alone.values.iter().all(|(name, _)| !name.starts_with("sampling/")));
        // Token by token where that is known: differences do not cancel.
        let told = RolloutRow {
            sampling_distances: vec![
                Distance::of(&[-0.5, -0.5], &[-0.25, -0.75]),
                Distance::of(&[-2.0], &[-1.0, -1.0]),
            ],
            ..rows[0].clone()
        };
        let found = RoundMetrics::of(0, &[told]).unwrap();
        let value = |name: &str| found.values.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        assert_eq!(value("sampling/sampling_logp_difference/mean"), Some(0.5));
        assert_eq!(value("sampling/sampling_logp_difference/max"), Some(1.0));
        // No log-ratios without a reference.
        let alone = RoundMetrics::of(0, &[row(&[Some(1.0)], &[3], &[true], &[-1.0], &[])]).unwrap();
        assert!(alone.signs.kl.is_none() && alone.values.iter().all(|(name, _)| name != "objective/kl"));
    }

    #[test]
    fn sources_are_told_of_without_the_penalty_for_a_missing_stop_token() {
        let rows = [row(&[Some(1.0), Some(1.0)], &[2, 4], &[true, false], &[-1.0; 2], &[])];
        let mut found = RoundMetrics::of(0, &rows).unwrap();
        found.add_sources(&["rule"], 2.0, &rows);
        let value = |name: &str| found.values.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        assert_eq!((value("reward"), value("rewards/rule/mean")), (Some(1.0), Some(2.0)));
        assert_eq!(value("rewards/rule/std"), Some(2f64.sqrt()));
        // Several sources have their own numbers in the rows.
        let own = |rewards: [Option<f64>; 2]| Vec::from(rewards);
        let source_rewards = [("model".to_owned(), own([Some(3.0), None])), ("rule".to_owned(), own([Some(0.5); 2]))];
        let rows = [RolloutRow { source_rewards: source_rewards.into(), ..rows[0].clone() }];
        let mut found = RoundMetrics::of(0, &rows).unwrap();
        found.add_sources(&["model", "rule"], 2.0, &rows);
        let value = |name: &str| found.values.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        assert_eq!((value("rewards/model/mean"), value("rewards/rule/mean")), (Some(3.0), Some(0.5)));
    }

    #[test]
    fn a_limit_that_leaves_most_out_is_a_sign() {
        // Ratios of 2 and 1.5, and of 1.
        let own = vec![vec![2f64.ln(), 1.5f64.ln()], vec![0.0]];
        let rows = [RolloutRow {
            token_logps: own,
            sampling_token_logps: vec![vec![0.0; 2], vec![0.0]],
            ..row(&[Some(1.0), Some(2.0)], &[2, 1], &[true, true], &[-1.0; 2], &[])
        }];
        let share = |correction, max| {
            let mut found = RoundMetrics::of(0, &rows).unwrap();
            found.add_correction(Some((correction, max)), &rows);
            (found.signs.limited, Guards::default().observe(&found.signs()).iter().map(ToString::to_string).collect())
        };
        let (found, said): (_, Vec<String>) = share(SamplingCorrection::TokenMask, 1e-6);
        assert_eq!(found, Some(1.0));
        assert!(
            said.iter().any(|said| said.contains("100 % of the samples") && said.contains("correction_max")),
            "{said:?}"
        );
        let (found, said) = share(SamplingCorrection::SequenceMask, 2.5);
        assert_eq!((found, said.len()), (Some(0.5), 0), "{said:?}");
        assert_eq!(share(SamplingCorrection::TokenTruncate, 3.0).0, Some(0.0));
    }

    #[test]
    fn signs_count_for_the_methods_and_samples_that_they_mean_something_for() {
        let signs = RoundSigns { kl: Some(-3.0), zero_std: Some(1.0), reward: Some(0.5), ..RoundSigns::default() };
        let of = |name: &str, rollout: RolloutSection| {
            let found = meaningful(signs, &Method::named(name).unwrap(), &rollout);
            assert_eq!(found.reward, Some(0.5));
            (found.kl, found.zero_std)
        };
        let at = |temperature| RolloutSection { temperature, ..RolloutSection::default() };
        for name in ["grpo", "rloo", "dpo", "kto"] {
            assert_eq!(of(name, at(1.0)), (Some(-3.0), Some(1.0)), "{name}");
        }
        // Their baseline is a value, or the mean of the round.
        for name in ["ppo", "reinforce_pp", "dro_v"] {
            assert_eq!(of(name, at(1.0)), (Some(-3.0), None), "{name}");
        }
        // GRPO trains the policy at the temperature of the samples, DPO the one at 1.
        assert_eq!(of("grpo", at(0.7)).0, Some(-3.0));
        assert_eq!(of("dpo", at(0.7)).0, Some(0.0));
        assert_eq!(of("dpo", RolloutSection { top_k: Some(8), ..at(1.0) }).0, Some(0.0));
        assert_eq!(of("dpo", RolloutSection { top_p: Some(0.9), ..at(1.0) }).0, Some(0.0));
        assert_eq!(of("dpo", RolloutSection { top_p: Some(1.0), ..at(1.0) }).0, Some(-3.0));
        let server = RolloutSection { server: Some(ServerSettings::default()), ..at(1.0) };
        assert_eq!(of("dpo", server.clone()).0, Some(0.0), "it keeps the weights that it has");
        let reload = Some(ReloadSettings::default());
        assert_eq!(of("dpo", RolloutSection { reload, ..server }).0, Some(-3.0));
        // A large one is a sign in any case.
        let far = meaningful(RoundSigns { kl: Some(80.0), ..signs }, &Method::named("dpo").unwrap(), &at(0.7));
        assert_eq!(far.kl, Some(80.0));
    }

    #[test]
    fn the_guards_see_the_signs_of_a_round() {
        let good = row(&[Some(1.0), Some(2.0)], &[4, 5], &[true, true], &[-1.0, -2.0], &[-1.5, -2.5]);
        let said = |row: RolloutRow| {
            let mut guards = Guards::default();
            let mut watch = |round, rows: &[RolloutRow]| {
                let warnings = guards.observe(&RoundMetrics::of(round, rows).unwrap().signs());
                warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            assert_eq!(watch(0, std::slice::from_ref(&good)), Vec::<String>::new());
            watch(1, &[row]).join("\n")
        };
        for (row, words) in [
            (RolloutRow { ref_logps: vec![-80.0, -90.0], ..good.clone() }, "KL divergence"),
            (RolloutRow { sampling_logps: vec![-9.0, -9.0], ..good.clone() }, "generator"),
            (RolloutRow { rewards: vec![Some(1.0); 2], ..good.clone() }, "rollout.samples"),
            (RolloutRow { stopped: vec![false; 2], ..good.clone() }, "rollout.max_new_tokens"),
            (RolloutRow { tokens: vec![(0..16).collect(); 2], ..good.clone() }, "repeat another"),
            (RolloutRow { tokens: vec![vec![1; 8], vec![2; 9]], ..good.clone() }, "repeat themselves"),
        ] {
            let said = said(row);
            assert!(said.starts_with("round 1: ") && said.contains(words), "{words}: {said}");
        }
        // All samples are the same short answer, to this prompt and to the next.
        assert_eq!(said(RolloutRow { tokens: vec![vec![1, 2, 3]; 2], ..good.clone() }), "");
    }
}

//! The responses of a round: sampled, scored and rewarded in parts, each of which is written before the next one begins.

use std::time::Instant;

use setpoint_align::Training;
use setpoint_data::TextEncoder;
use setpoint_reward::{RewardModel, value_rows};
use setpoint_train::{HeadOptions, ScoredSequence, Sequence, score_batches_with};
use setpoint_transformer::{CausalLm, Finish, Generated, GenerationConfig};

use super::super::reference::load_reference;
use super::super::reference_dir;
use super::super::settings::AlignConfig;
use super::judge::{Answer, Judge};
use super::prompts::Prompts;
use super::remote::Remote;
use super::sampler::{Part, sample};
use super::settings::{
    Keep, RolloutSection, RoundReference, has_one_temperature, policy_temperature, trained_temperature, trains_at_once,
};
use super::store::{Distance, RolloutRow, Store};
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::setup;
use crate::tasks::pass_tokens;

/// The model whose log-probabilities are the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// None: the method has no reference, and its KL divergence is not logged.
    None,
    /// The policy that samples.
    Previous,
    /// A model that stays in memory.
    Held,
    /// A model that is read from the disk in each round.
    OnDisk,
}

/// Everything that makes the responses of rounds.
pub struct Rollouts<'a> {
    /// The devices, and the program around the job.
    pub session: &'a Session,
    /// All settings.
    pub config: &'a AlignConfig,
    /// The settings of rollouts.
    pub rollout: &'a RolloutSection,
    /// The policy's tokenizer and template.
    pub encoder: &'a TextEncoder,
    /// The prompts of the data.
    pub prompts: &'a Prompts,
    /// The sampling of responses.
    pub generation: GenerationConfig,
    /// The kind of reference.
    pub reference: Reference,
    /// The reference model, if it is in memory.
    pub reference_model: Option<CausalLm>,
    /// The source of the rewards.
    pub judge: Judge<'a>,
    /// The rounds in the run folder.
    pub store: Store,
    /// The server that generates, if the policy does not do it here.
    pub remote: Option<Remote<'a>>,
    /// The times of the round that was made last.
    pub timing: Timing,
}

/// The times of a round, as far as this process made it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// Seconds in which responses were sampled.
    pub generating: f64,
    /// Seconds in which they were scored by the policy, the reference and the source of rewards, and written.
    pub scoring: f64,
    /// Tokens that were sampled.
    pub tokens: usize,
}

impl Timing {
    /// Returns the times as metrics; none if nothing was sampled.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        if self.tokens == 0 {
            return Vec::new();
        }
        let named = |name: &str, value: f64| (format!("rollout/{name}"), value);
        vec![
            named("seconds", self.generating),
            named("tokens_per_second", self.tokens as f64 / self.generating.max(1e-9)),
            named("scoring_seconds", self.scoring),
        ]
    }
}

impl Rollouts<'_> {
    /// Returns the responses of a round: the parts that an earlier process left, and the others from `policy`, the model at its beginning.
    /// `value` is the value network, if one is trained.
    ///
    /// # Errors
    /// When the host wants to stop; when a model, the source of rewards or the disk fails.
    pub fn make(&mut self, round: u64, policy: &CausalLm, value: Option<&RewardModel>) -> Outcome<Vec<RolloutRow>> {
        let places = self.prompts.of_round(self.config.train.seed, round, self.rollout.prompts());
        let per_chunk = (self.rollout.chunk_rows() / self.rollout.samples).max(1);
        let parts: Vec<&[usize]> = places.chunks(per_chunk).collect();
        let kept = |(chunk, part): (usize, &&[usize])| {
            let is_same = |rows: &Vec<RolloutRow>| rows.iter().map(|row| row.row).eq(part.iter().copied());
            self.store.chunk(round, chunk).filter(is_same)
        };
        let mut made: Vec<Option<Vec<RolloutRow>>> = parts.iter().enumerate().map(kept).collect();
        let missing: Vec<usize> = (0..parts.len()).filter(|&chunk| made[chunk].is_none()).collect();
        self.timing = Timing::default();
        // Each device samples a chunk, which is the same on any; then all of them score one after the other. A server takes turns as well, so
        // that what it has answered is scored and written.
        let at_once = if self.remote.is_some() { 1 } else { self.session.devices.len() };
        for wave in missing.chunks(at_once) {
            if self.session.host.should_stop() {
                return Err(stopped(round));
            }
            let begun = Instant::now();
            let asked: Vec<Part<'_>> =
                wave.iter().map(|&chunk| Part { first: chunk * per_chunk, rows: parts[chunk] }).collect();
            let generated = self.generate(round, &asked, policy)?;
            let sampled = Instant::now();
            self.timing.generating += (sampled - begun).as_secs_f64();
            for (&chunk, generated) in wave.iter().zip(generated) {
                self.timing.tokens += generated.iter().map(|response| response.ids.len()).sum::<usize>();
                let rows = self.make_chunk(parts[chunk], &generated, (policy, value));
                let rows = rows.map_err(|failure| failure.at(format_args!("round {round}")))?;
                self.store.write_chunk(round, chunk, &rows)?;
                made[chunk] = Some(rows);
            }
            self.timing.scoring += sampled.elapsed().as_secs_f64();
        }
        let is_unscored = |row: &RolloutRow| row.rewards.iter().any(Option::is_none);
        let has_unscored = |part: &Option<Vec<RolloutRow>>| part.iter().flatten().any(is_unscored);
        let unscored: Vec<usize> = (0..made.len()).filter(|&chunk| has_unscored(&made[chunk])).collect();
        let rows: Vec<RolloutRow> = made.into_iter().flatten().flatten().collect();
        if let Some(remote) = &mut self.remote {
            remote.end_round();
        }
        let Timing { generating, scoring, tokens } = self.timing;
        if tokens > 0 && !self.session.quiet {
            log::info!(
                "round {round}: {tokens} tokens sampled in {generating:.2} seconds, {:.0} tokens/s; scored in {scoring:.2} seconds",
                tokens as f64 / generating.max(1e-9)
            );
        }
        let rewards = || rows.iter().flat_map(|row| &row.rewards);
        let ended = self.judge.end_round(round, rewards().filter(|reward| reward.is_none()).count(), rewards().count());
        if ended.is_err() {
            // A run that goes on asks again about what had no reward. The same responses are sampled, and what the source answered is kept.
            unscored.into_iter().try_for_each(|chunk| self.store.remove_chunk(round, chunk))?;
        }
        ended.map(|()| rows)
    }

    /// Returns the responses to the prompts of some parts, by the policy on the devices or by the server.
    fn generate(&mut self, round: u64, parts: &[Part<'_>], policy: &CausalLm) -> Outcome<Vec<Vec<Generated>>> {
        let (samples, seed) = (self.rollout.samples, seed_of(self.config.train.seed, round));
        let (prompts, generation) = (self.prompts, &self.generation);
        if let Some(remote) = &mut self.remote {
            let answers = parts.iter().map(|part| {
                let asked = (part.first, part.rows, samples);
                remote.answers((round, seed), asked, (policy, generation), (prompts, &self.store))
            });
            return answers.collect();
        }
        let generated = sample(self.session, policy, parts, prompts, (generation, seed, samples))?;
        if self.session.host.should_stop() {
            return Err(stopped(round));
        }
        Ok(generated)
    }

    /// Scores and rewards the responses to some prompts of a round.
    fn make_chunk(
        &mut self,
        part: &[usize],
        generated: &[Generated],
        (policy, value): (&CausalLm, Option<&RewardModel>),
    ) -> Outcome<Vec<RolloutRow>> {
        let samples = self.rollout.samples;
        if self.rollout.correction.is_some() && generated.iter().all(|response| response.logps.is_empty()) {
            let place =
                self.rollout.server.as_ref().map_or_else(String::new, |server| format!(" at {}", server.base_url));
            return Err(Failure::run(format!(
                "the server{place} tells no log-probabilities, and the loss is to be corrected by them"
            ))
            .hint("let the server send them, or leave rollout.correction out"));
        }
        let prompts: Vec<Vec<u32>> =
            part.iter().flat_map(|&row| std::iter::repeat_n(self.prompts.ids[row].clone(), samples)).collect();
        let sequences = self.sequences(&prompts, generated);
        let own = match trains_at_once(self.config, self.rollout) {
            true => generated.iter().map(as_generated).collect(),
            false => self.score(policy, &sequences, policy_temperature(&self.config.align, self.rollout))?,
        };
        let reference = self.reference_scores(policy, &own, &sequences)?;
        let values = self.values(value, &sequences)?;
        let texts: Vec<String> = prompts
            .iter()
            .zip(generated)
            .map(|(prompt, answer)| setup::answer_text(self.encoder, prompt, &answer.ids))
            .collect::<Outcome<_>>()?;
        let answers: Vec<Answer<'_>> = generated
            .iter()
            .zip(&texts)
            .enumerate()
            .map(|(at, (g, text))| Answer { row: part[at / samples], index: at % samples, ids: &g.ids, text })
            .collect();
        let rewards = self.judge.rewards(&answers, self.encoder, self.prompts)?;
        let penalty = self.judge.missing_stop_penalty();
        let by_token = matches!(self.config.align.training(), Training::Sampled(_));
        let tokens = |scores: &[ScoredSequence]| -> Vec<Vec<f64>> {
            let of = |score: &ScoredSequence| -> Vec<f64> {
                score.token_logps[score.prompt_tokens..].iter().map(|&logp| f64::from(logp)).collect()
            };
            if by_token { scores.iter().map(of).collect() } else { Vec::new() }
        };
        let mut rows = Vec::with_capacity(part.len());
        for (i, &row) in part.iter().enumerate() {
            let range = i * samples..(i + 1) * samples;
            let (prompt, template) = self.prompts.columns(row)?;
            let stopped: Vec<bool> = generated[range.clone()].iter().map(|g| g.finish == Finish::Stop).collect();
            let reward = |(reward, &stopped): (&Option<f64>, &bool)| {
                reward.map(|reward| if stopped { reward } else { reward - penalty })
            };
            let by_source = rewards.by_source.iter();
            rows.push(RolloutRow {
                prompt,
                responses: texts[range.clone()].to_vec(),
                rewards: rewards.sums[range.clone()].iter().zip(&stopped).map(reward).collect(),
                source_rewards: by_source.map(|(name, own)| (name.clone(), own[range.clone()].to_vec())).collect(),
                row,
                tokens: generated[range.clone()].iter().map(|g| g.ids.clone()).collect(),
                stopped,
                logps: own[range.clone()].iter().map(|score| score.response_logp).collect(),
                sampling_logps: self.sampling_logps(&generated[range.clone()], &own[range.clone()]),
                sampling_distances: self.sampling_distances(&generated[range.clone()], &own[range.clone()]),
                sampling_token_logps: self.sampling_token_logps(&generated[range.clone()], &own[range.clone()]),
                ref_logps: match &reference {
                    Some(scores) => scores[range.clone()].iter().map(|score| score.response_logp).collect(),
                    None => Vec::new(),
                },
                ref_prompt_logp: reference.as_ref().map_or(0.0, |scores| scores[range.start].prompt_logp),
                token_logps: tokens(&own[range.clone()]),
                ref_token_logps: match &reference {
                    // The KL divergence of a method without a reference is a number of whole responses.
                    Some(scores) if self.config.align.about().reference => tokens(&scores[range.clone()]),
                    _ => Vec::new(),
                },
                values: values.get(range.clone()).map_or_else(Vec::new, <[Vec<f64>]>::to_vec),
                template,
            });
        }
        Ok(rows)
    }

    /// Returns prompts and responses as training sees them.
    fn sequences(&self, prompts: &[Vec<u32>], generated: &[Generated]) -> Vec<Sequence> {
        let sequence = |(prompt, answer): (&Vec<u32>, &Generated)| Sequence {
            ids: [prompt.as_slice(), &answer.ids].concat(),
            prompt_len: prompt.len(),
            scored_from: self.prompts.t0.unwrap_or(prompt.len()),
        };
        prompts.iter().zip(generated).map(sequence).collect()
    }

    /// Returns the log-probability of each response as whatever sampled it computed it, nats; nothing if that is not known of all of them. A
    /// stop token that a server is silent about counts as `own`.
    fn sampling_logps(&self, generated: &[Generated], own: &[ScoredSequence]) -> Vec<f64> {
        if !self.can_compare() {
            return Vec::new();
        }
        let sum = |(response, own): (&Generated, &ScoredSequence)| {
            let rest = own.token_logps[own.prompt_tokens..].get(response.logps.len()..)?;
            (!response.logps.is_empty())
                .then(|| response.logps.iter().chain(rest).map(|&logp| f64::from(logp)).sum::<f64>())
        };
        generated.iter().zip(own).map(sum).collect::<Option<Vec<f64>>>().unwrap_or_default()
    }

    /// Returns the distance of each response's log-probabilities between what sampled it and training; nothing if they are not known.
    fn sampling_distances(&self, generated: &[Generated], own: &[ScoredSequence]) -> Vec<Distance> {
        if !self.can_compare() || generated.iter().all(|response| response.logps.is_empty()) {
            return Vec::new();
        }
        let of = |(response, own): (&Generated, &ScoredSequence)| {
            Distance::of(&response.logps, &own.token_logps[own.prompt_tokens..])
        };
        generated.iter().zip(own).map(of).collect()
    }

    /// Returns whether there are log-probabilities of the training path that those of whatever samples can be compared with: a server's are
    /// those before the temperature.
    fn can_compare(&self) -> bool {
        !trains_at_once(self.config, self.rollout)
            && (self.remote.is_none() || policy_temperature(&self.config.align, self.rollout) == 1.0)
    }

    /// Returns the log-probability of each token as whatever sampled it computed it, nats, if the loss is corrected for that. A token that a
    /// server is silent about counts as `own`, and is not corrected.
    fn sampling_token_logps(&self, generated: &[Generated], own: &[ScoredSequence]) -> Vec<Vec<f64>> {
        if self.rollout.correction.is_none() {
            return Vec::new();
        }
        let of = |(response, own): (&Generated, &ScoredSequence)| -> Vec<f64> {
            let own = &own.token_logps[own.prompt_tokens..];
            let rest = own.get(response.logps.len()..).unwrap_or_default();
            response.logps.iter().chain(rest).map(|&logp| f64::from(logp)).collect()
        };
        generated.iter().zip(own).map(of).collect()
    }

    /// Returns the values of the responses' slots, if the method looks at them token by token.
    fn values(&self, value: Option<&RewardModel>, sequences: &[Sequence]) -> Outcome<Vec<Vec<f64>>> {
        let (Training::Sampled(objective), Some(value)) = (self.config.align.training(), value) else {
            return Ok(Vec::new());
        };
        let row = |sequence: &Sequence| {
            let tokens = sequence.ids.len() - sequence.prompt_len;
            let slots = objective.value_slots(tokens, self.rollout.max_new_tokens);
            // The value of a token is read before it.
            (sequence.ids[..sequence.prompt_len - 1 + slots].to_vec(), sequence.prompt_len - 1)
        };
        let (rows, from): (Vec<Vec<u32>>, Vec<usize>) = sequences.iter().map(row).unzip();
        let tokens = pass_tokens(self.config.train.micro_batch);
        Ok(value_rows(&self.session.devices, value, &rows, &from, tokens)?)
    }

    /// Returns the reference's log-probabilities, if there is a reference. `own` are those of the policy.
    fn reference_scores(
        &mut self,
        policy: &CausalLm,
        own: &[ScoredSequence],
        sequences: &[Sequence],
    ) -> Outcome<Option<Vec<ScoredSequence>>> {
        match self.reference {
            Reference::None => Ok(None),
            Reference::Previous if has_one_temperature(&self.config.align, self.rollout) => Ok(Some(own.to_vec())),
            Reference::Previous | Reference::Held | Reference::OnDisk => {
                self.score_reference(policy, sequences).map(Some)
            }
        }
    }

    /// Returns the reference's log-probabilities of further sequences. `policy` is the model at the beginning of the round.
    ///
    /// # Errors
    /// When the model cannot be read.
    pub fn score_reference(&mut self, policy: &CausalLm, sequences: &[Sequence]) -> Outcome<Vec<ScoredSequence>> {
        let is_other = matches!(self.reference, Reference::Held | Reference::OnDisk);
        if is_other && self.reference_model.is_none() {
            let dir = reference_dir(self.config)?;
            self.reference_model = Some(load_reference(self.session, self.config, self.encoder, dir)?);
        }
        let model = self.reference_model.as_ref().filter(|_| is_other).unwrap_or(policy);
        self.score(model, sequences, trained_temperature(&self.config.align, self.rollout))
    }

    /// Ends the work of a round: a model that is read in each round leaves memory.
    pub fn end_round(&mut self) {
        if self.reference == Reference::OnDisk {
            self.reference_model = None;
        }
    }

    /// Scores sequences by the path that training takes, at a temperature.
    fn score(&self, model: &CausalLm, sequences: &[Sequence], temperature: f64) -> Outcome<Vec<ScoredSequence>> {
        let mut scored: Vec<Option<ScoredSequence>> = vec![None; sequences.len()];
        let tokens = pass_tokens(self.config.train.micro_batch);
        let options = HeadOptions::at_temperature(temperature);
        score_batches_with(&self.session.devices, model, sequences, tokens, &options, &mut |batch| {
            batch.into_iter().for_each(|(index, score)| scored[index] = Some(score));
            Ok(())
        })?;
        // Every sequence was in exactly one batch.
        Ok(scored.into_iter().flatten().collect())
    }
}

/// Returns the log-probabilities of a response as the generator computed them.
fn as_generated(response: &Generated) -> ScoredSequence {
    ScoredSequence {
        prompt_logp: 0.0,
        response_logp: response.logps.iter().map(|&logp| f64::from(logp)).sum(),
        prompt_tokens: 0,
        response_tokens: response.ids.len(),
        token_logps: response.logps.clone(),
    }
}

/// Returns which model the reference of a run is. `shares`: the policy before training shares its weights with the one that is trained, as
/// with an adapter, so that it takes no memory.
pub fn reference(config: &AlignConfig, rollout: &RolloutSection, shares: bool) -> Reference {
    // The log alone is no reason to fail: random weights are in no folder that they could be read from again.
    let is_logged = rollout.log_kl && (rollout.keep == Keep::Memory || config.model.path.is_some());
    match (rollout.reference, rollout.keep) {
        _ if !config.align.about().reference && !is_logged => Reference::None,
        (RoundReference::Previous, _) => Reference::Previous,
        (RoundReference::Initial, Keep::Reload) if !shares || config.reference.is_some() => Reference::OnDisk,
        (RoundReference::Initial, _) => Reference::Held,
    }
}

/// Returns the seed of a round's samples.
fn seed_of(seed: u64, round: u64) -> u64 {
    let hash = setup::text_hash(&format!("setpoint rollout {seed} {round}"));
    u64::from_str_radix(&hash[..16], 16).unwrap_or(seed ^ round)
}

fn stopped(round: u64) -> Failure {
    Failure::Stopped { message: format!("stopped while the responses of round {round} were made") }
}

#[cfg(test)]
mod tests {
    use super::seed_of;

    #[test]
    fn rounds_and_seeds_have_samples_of_their_own() {
        let seeds = [seed_of(0, 0), seed_of(0, 1), seed_of(1, 0), seed_of(10, 0), seed_of(1, 1)];
        let mut distinct = seeds.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), seeds.len());
        assert_eq!(seed_of(7, 3), seed_of(7, 3));
    }
}

//! Any objective on pairs of responses as a task of the engine.

use std::collections::HashMap;

use burn::tensor::Tensor;
use setpoint_align::{Metrics, Pair, ResponsePoint, Role, constant_like, match_by_rank, mixed, token_mean_nll};
use setpoint_train::{
    Error, ExampleNumbers, Forward, HeadOptions, MicroBatch, PromptLogps, ResponseValues, Sequence, SequenceLogps,
    Survey, Task, score_sequences, sequence_logps_with, shared_tokens,
};
use setpoint_transformer::CausalLm;

use super::pair_objective::{PairBatch, PairOutput, Ranks, WeightedObjective};
use super::{Place, ScoredPrompt, host, mean_loss, metric_sums, pass_tokens};

/// Prompts with pairs of responses, and the objectives to train by.
#[derive(Debug)]
pub struct PairwiseTask {
    /// The data.
    pub prompts: Vec<ScoredPrompt>,
    /// `(prompt, chosen response, rejected response)`.
    pub pairs: Vec<(usize, usize, usize)>,
    /// The objectives; the implicit rewards that are logged are those of the first.
    pub objectives: Vec<WeightedObjective>,
    /// Weight of the NLL of the chosen responses.
    pub nll_weight: f64,
    /// Whether any objective has a reference: without, there are no log-ratios.
    pub reference: bool,
}

impl PairwiseTask {
    fn prompt_nll(&self) -> bool {
        self.objectives.iter().any(|o| o.objective.prompt_nll())
    }

    fn sequence(&self, (prompt, response): Place) -> &Sequence {
        &self.prompts[prompt].sequences[response]
    }

    /// Tokens that the NLL counts: of a chosen response, and with its prompt. The first token is predicted from nothing.
    fn nll_tokens(&self, example: usize) -> [f64; 2] {
        let (prompt, chosen, _) = self.pairs[example];
        let sequence = self.sequence((prompt, chosen));
        [sequence.ids.len() - sequence.prompt_len, sequence.ids.len() - 1].map(|tokens| tokens as f64)
    }

    /// Whether an objective looks at the order of a whole batch.
    fn ranked(&self) -> bool {
        self.objectives.iter().any(|o| o.objective.ranked())
    }

    /// The values of the whole batch by rank. `probed`: the log-probabilities of each chosen and rejected response.
    fn ranks(&self, batch: &[usize], probed: &ExampleNumbers) -> ExampleNumbers {
        let side = |of: fn(&(usize, usize, usize)) -> usize, index: usize| -> [Vec<f64>; 2] {
            let reference = |e: &usize| self.prompts[self.pairs[*e].0].ref_logps[of(&self.pairs[*e])];
            [batch.iter().map(|e| probed[e][index]).collect(), batch.iter().map(reference).collect()]
        };
        let ([chosen, ref_chosen], [rejected, ref_rejected]) = (side(|pair| pair.1, 0), side(|pair| pair.2, 1));
        let minus = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
        let margins = match_by_rank(&minus(&chosen, &rejected), &minus(&ref_chosen, &ref_rejected));
        let (h_w, h_l) = (minus(&chosen, &ref_chosen), minus(&rejected, &ref_rejected));
        let (below, above) = (match_by_rank(&h_w, &h_l), match_by_rank(&h_l, &h_w));
        batch.iter().enumerate().map(|(i, &e)| (e, vec![margins[i], below[i], above[i]])).collect()
    }

    /// The responses of some pairs, each once although it may stand in several pairs, and the pairs among them.
    fn places(&self, examples: &[usize]) -> Places {
        let mut responses = Vec::new();
        let mut known = HashMap::new();
        let mut place = |response: Place| {
            *known.entry(response).or_insert_with(|| {
                responses.push(response);
                responses.len() - 1
            })
        };
        let pairs = examples
            .iter()
            .map(|&e| {
                let (prompt, chosen, rejected) = self.pairs[e];
                (place((prompt, chosen)), place((prompt, rejected)))
            })
            .collect();
        Places { responses, pairs }
    }

    /// A number for each response of a micro-batch.
    fn each(&self, places: &Places, value: impl Fn(&ScoredPrompt, usize) -> f64) -> Vec<f64> {
        places.responses.iter().map(|&(prompt, response)| value(&self.prompts[prompt], response)).collect()
    }

    fn logps(&self, model: &CausalLm, places: &Places) -> Result<SequenceLogps, Error> {
        let sequences = places.responses.iter().map(|&response| self.sequence(response));
        if !self.prompt_nll() {
            let sequences: Vec<&Sequence> = sequences.collect();
            return sequence_logps_with(model, &sequences, PromptLogps::Skip, &HeadOptions::default());
        }
        // The prompt counts on the chosen side alone: elsewhere nothing of it passes through the head.
        let mut chosen = vec![false; places.responses.len()];
        places.pairs.iter().for_each(|&(w, _)| chosen[w] = true);
        let part = |(sequence, chosen): (&Sequence, bool)| {
            let scored_from = if chosen { sequence.scored_from } else { sequence.prompt_len };
            Sequence { scored_from, ..sequence.clone() }
        };
        let sequences: Vec<Sequence> = sequences.zip(chosen).map(part).collect();
        sequence_logps_with(model, &sequences, PromptLogps::Tracked, &HeadOptions::default())
    }

    /// What the objectives look at.
    fn batch(
        &self,
        logps: &SequenceLogps,
        places: &Places,
        examples: &[usize],
        denominator: f64,
        survey: &Survey,
    ) -> PairBatch {
        let like = |values: Vec<f64>| constant_like(&values, &logps.response);
        let gather = |values: Tensor<1>| Pair::gather(values, &places.pairs);
        let tokens =
            |prompt: &ScoredPrompt, j: usize| (prompt.sequences[j].ids.len() - prompt.sequences[j].prompt_len) as f64;
        let models =
            places.responses.iter().map(|&(prompt, _)| self.prompts[prompt].reward_models()).min().unwrap_or(0);
        let both = gather(logps.response.clone());
        let response_nll = token_mean_nll(both.chosen.clone(), denominator, survey.batch[0]);
        let whole_nll = if self.prompt_nll() {
            let whole = both.chosen.clone() + gather(logps.prompt.clone()).chosen;
            token_mean_nll(whole, denominator, survey.batch[1])
        } else {
            response_nll.clone()
        };
        let ranks = (!survey.examples.is_empty()).then(|| {
            let ranked = |k: usize| like(examples.iter().map(|e| survey.examples[e][k]).collect());
            Ranks { ref_margins: ranked(0), log_ratios: Pair { chosen: ranked(1), rejected: ranked(2) } }
        });
        PairBatch {
            ref_logps: gather(like(self.each(places, |prompt, j| prompt.ref_logps[j]))),
            tokens: gather(like(self.each(places, tokens))),
            rewards: (0..models)
                .map(|model| gather(like(self.each(places, |prompt, j| prompt.reward(model, j)))))
                .collect(),
            logps: both,
            response_nll,
            whole_nll,
            ranks,
            progress: survey.progress,
        }
    }

    /// What is logged of both sides of each pair. A response that stands in several pairs is logged with each.
    fn responses(&self, logps: &[f64], places: &Places, examples: &[usize]) -> ResponseValues {
        let mut responses = ResponseValues::default();
        for (&example, &(w, l)) in examples.iter().zip(&places.pairs) {
            for (place, role) in [(w, Role::Chosen), (l, Role::Rejected)] {
                let (prompt, j) = places.responses[place];
                let prompt = &self.prompts[prompt];
                let found = match self.reference {
                    true => ("log_ratio", logps[place] - prompt.ref_logps[j]),
                    false => ("logp", logps[place]),
                };
                responses.push(example, prompt.known(j, Some(role)).into_iter().chain([found]));
            }
        }
        responses
    }

    /// trl's metrics by the first objective's rewards, each objective's own, and of several objectives each one's loss.
    fn metrics(&self, logps: &[f64], places: &Places, response_nll: Tensor<1>, outputs: Vec<PairOutput>) -> Metrics {
        let mut metrics = Metrics::default();
        let ref_logps = self.each(places, |prompt, j| prompt.ref_logps[j]);
        if let Some(first) = outputs.first() {
            let rewards = [&first.loss.rewards.chosen, &first.loss.rewards.rejected].map(|side| host(side.clone()));
            let point = |place: usize, reward: f64| ResponsePoint {
                logp: logps[place],
                log_ratio: self.reference.then(|| logps[place] - ref_logps[place]),
                reward,
            };
            for (i, &(w, l)) in places.pairs.iter().enumerate() {
                metrics.record_pair(&point(w, rewards[0][i]), &point(l, rewards[1][i]));
            }
        }
        let mut record = |name: &str, values: Tensor<1>| {
            host(values).into_iter().for_each(|value| metrics.record(name, value));
        };
        for (objective, output) in self.objectives.iter().zip(outputs) {
            if self.objectives.len() > 1 {
                record(&format!("loss/{}", objective.name), output.loss.losses);
            }
            output.metrics.into_iter().for_each(|(name, values)| record(name, values));
        }
        // ORPO has logged its own.
        if self.nll_weight != 0.0 && metrics.get("nll_loss").is_none() {
            host(response_nll).into_iter().for_each(|value| metrics.record("nll_loss", value));
        }
        metrics
    }
}

/// The responses of a micro-batch, and its pairs as places among them.
struct Places {
    responses: Vec<Place>,
    /// `(chosen, rejected)`.
    pairs: Vec<(usize, usize)>,
}

impl Task for PairwiseTask {
    type Model = CausalLm;

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn weight(&self, _example: usize) -> f64 {
        1.0
    }

    fn cost(&self, example: usize) -> usize {
        let (prompt, chosen, rejected) = self.pairs[example];
        let sides = [chosen, rejected].map(|response| self.sequence((prompt, response)));
        // A prompt that is scored on one side is no common one.
        if self.prompt_nll() { sides.iter().map(|side| side.ids.len()).sum() } else { shared_tokens(&sides) }
    }

    fn tokens(&self, example: usize) -> usize {
        let (prompt, chosen, rejected) = self.pairs[example];
        self.sequence((prompt, chosen)).ids.len() + self.sequence((prompt, rejected)).ids.len()
    }

    /// Log-probabilities of the chosen and the rejected response, where they are ranked.
    fn probe(&self, model: &CausalLm, examples: &[usize], micro_batch: MicroBatch) -> Result<ExampleNumbers, Error> {
        if !self.ranked() {
            return Ok(ExampleNumbers::new());
        }
        let side = |of: fn(&(usize, usize, usize)) -> usize| -> Result<Vec<f64>, Error> {
            let sequence = |&e: &usize| self.sequence((self.pairs[e].0, of(&self.pairs[e])));
            let sequences: Vec<&Sequence> = examples.iter().map(sequence).collect();
            let scored = score_sequences(model, &sequences, pass_tokens(micro_batch), &mut |_| ())?;
            Ok(scored.iter().map(|scored| scored.response_logp).collect())
        };
        let (chosen, rejected) = (side(|pair| pair.1)?, side(|pair| pair.2)?);
        Ok(examples.iter().zip(chosen.into_iter().zip(rejected)).map(|(&e, (w, l))| (e, vec![w, l])).collect())
    }

    /// Numbers of tokens for the NLL, and ranks.
    fn survey(&self, batch: &[usize], probed: &ExampleNumbers) -> Result<Survey, Error> {
        let mut totals = [0.0; 2];
        for &example in batch {
            for (total, tokens) in totals.iter_mut().zip(self.nll_tokens(example)) {
                *total += tokens;
            }
        }
        let examples = if self.ranked() { self.ranks(batch, probed) } else { ExampleNumbers::new() };
        Ok(Survey { batch: totals.to_vec(), examples, ..Survey::default() })
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], denominator: f64) -> Result<Forward, Error> {
        let probed = self.probe(model, examples, MicroBatch::Examples(examples.len()))?;
        let survey = self.survey(examples, &probed)?;
        self.forward_surveyed(model, examples, denominator, &survey)
    }

    fn forward_surveyed(
        &self,
        model: &CausalLm,
        examples: &[usize],
        denominator: f64,
        survey: &Survey,
    ) -> Result<Forward, Error> {
        let places = self.places(examples);
        let logps = self.logps(model, &places)?;
        let batch = self.batch(&logps, &places, examples, denominator, survey);
        let outputs: Vec<PairOutput> = self.objectives.iter().map(|o| o.objective.losses(&batch)).collect();
        let mut parts: Vec<(f64, Tensor<1>)> =
            self.objectives.iter().zip(&outputs).map(|(o, output)| (o.weight, output.loss.losses.clone())).collect();
        if self.nll_weight != 0.0 {
            parts.push((self.nll_weight, batch.response_nll.clone()));
        }
        let losses = mixed(parts);
        let found = host(logps.response.clone());
        let metrics = self.metrics(&found, &places, batch.response_nll, outputs);
        let responses = self.responses(&found, &places, examples);
        Ok(mean_loss(losses, denominator, metric_sums(&metrics), responses, logps))
    }

    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        setpoint_data::Order::new(seed).epoch(epoch, self.len())
    }

    fn describe(&self, example: usize) -> String {
        self.prompts[self.pairs[example].0].name.clone()
    }
}

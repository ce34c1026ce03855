//! Any objective on pairs of responses as a task of the engine.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use burn::tensor::Tensor;
use setpoint_align::{
    Error as AlignError, Metrics, Pair, PairLoss, ResponsePoint, constant_like, match_by_rank, mixed, token_mean_nll,
    weighted_sum,
};
use setpoint_train::{
    Error, Forward, HeadOptions, MicroBatch, PromptLogps, Sequence, Survey, Task, score_sequences, sequence_logps_with,
    shared_tokens,
};
use setpoint_transformer::CausalLm;

use super::{ScoredPrompt, metric_sums, pass_tokens, record_entropy};

/// What a pairwise objective may look at: a micro-batch of `b` pairs.
pub struct PairBatch {
    /// `log π_θ(y|x)` of both sides, nats, with their graph, `[b]` each.
    pub logps: Pair,
    /// `log π_ref(y|x)`; zeros for objectives without a reference, which do not look.
    pub ref_logps: Pair,
    /// Tokens of the responses.
    pub tokens: Pair,
    /// Rewards of the responses, by reward model; empty where the data has none.
    pub rewards: Vec<Pair>,
    /// Each pair's share of the token-mean NLL of the batch's chosen responses, `[b]`.
    pub response_nll: Tensor<1>,
    /// The same with the chosen responses' prompts, where [`PairObjective::prompt_nll`] asks for it.
    pub whole_nll: Tensor<1>,
    /// What stands at the same rank of the whole batch, where [`PairObjective::ranked`] asks for it.
    pub ranks: Option<Ranks>,
}

impl PairBatch {
    /// `h` of both sides, `[b]` each.
    pub fn log_ratios(&self) -> Pair {
        self.logps.clone().minus(self.ref_logps.clone())
    }

    /// What stands at the same ranks.
    ///
    /// # Panics
    /// Where no objective of the task asked for it.
    pub fn ranks(&self) -> &Ranks {
        self.ranks.as_ref().expect("an objective that looks at ranks says so")
    }

    /// Log-probs per token, `[b]` each.
    pub fn mean_logps(&self) -> Pair {
        self.logps.clone().divided_by(self.tokens.clone())
    }
}

/// Values of other pairs of the whole batch, by rank; see [`setpoint_align::aot`] and [`setpoint_align::aot_unpaired`].
pub struct Ranks {
    /// The reference's margin of the rank of the pair's own margin, `[b]`.
    pub ref_margins: Tensor<1>,
    /// The other side's log-ratio of the rank of each side's own, `[b]` each.
    pub log_ratios: Pair,
}

/// A loss per pair, with what is logged beside it.
pub struct PairOutput {
    /// Losses and implicit rewards.
    pub loss: PairLoss,
    /// Further values per pair, by the name they are logged under.
    pub metrics: Vec<(&'static str, Tensor<1>)>,
}

impl From<PairLoss> for PairOutput {
    fn from(loss: PairLoss) -> Self {
        Self { loss, metrics: Vec::new() }
    }
}

/// An objective of `setpoint-align` with its settings, brought into one form.
pub trait PairObjective: fmt::Debug {
    /// Checks the settings' ranges.
    fn validate(&self) -> Result<(), AlignError>;

    /// The loss of each pair.
    fn losses(&self, batch: &PairBatch) -> PairOutput;

    /// Whether it looks at [`PairBatch::whole_nll`] beyond the response.
    fn prompt_nll(&self) -> bool {
        false
    }

    /// Files with the rewards of further reward models.
    fn reward_files(&self) -> &[PathBuf] {
        &[]
    }

    /// Whether it looks at [`PairBatch::ranks`]: a pass over the whole batch without a graph before every step.
    fn ranked(&self) -> bool {
        false
    }
}

/// A prompt of a task and one of its responses.
type Place = (usize, usize);

/// One of the objectives that a task adds up.
#[derive(Debug)]
pub struct WeightedObjective {
    /// Its name, for metrics.
    pub name: &'static str,
    /// Its weight.
    pub weight: f64,
    /// The objective.
    pub objective: Box<dyn PairObjective>,
}

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

    /// The values of the whole batch by rank, from a pass without a graph.
    fn ranks(
        &self,
        model: &CausalLm,
        batch: &[usize],
        micro_batch: MicroBatch,
    ) -> Result<HashMap<usize, Vec<f64>>, Error> {
        let side = |pick: fn(&(usize, usize, usize)) -> usize| -> Result<[Vec<f64>; 2], Error> {
            let places: Vec<Place> = batch.iter().map(|&e| (self.pairs[e].0, pick(&self.pairs[e]))).collect();
            let sequences: Vec<&Sequence> = places.iter().map(|&place| self.sequence(place)).collect();
            let scored = score_sequences(model, &sequences, pass_tokens(micro_batch), &mut |_| ())?;
            let reference = places.iter().map(|&(prompt, response)| self.prompts[prompt].ref_logps[response]);
            Ok([scored.iter().map(|s| s.response_logp).collect(), reference.collect()])
        };
        let [chosen, ref_chosen] = side(|pair| pair.1)?;
        let [rejected, ref_rejected] = side(|pair| pair.2)?;
        let minus = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
        let margins = match_by_rank(&minus(&chosen, &rejected), &minus(&ref_chosen, &ref_rejected));
        let (h_w, h_l) = (minus(&chosen, &ref_chosen), minus(&rejected, &ref_rejected));
        let (below, above) = (match_by_rank(&h_w, &h_l), match_by_rank(&h_l, &h_w));
        Ok(batch.iter().enumerate().map(|(i, &e)| (e, vec![margins[i], below[i], above[i]])).collect())
    }

    /// The responses of some pairs, each once although it may stand in several pairs, and the pairs as places among them.
    fn responses(&self, examples: &[usize]) -> (Vec<Place>, Vec<(usize, usize)>) {
        let mut responses = Vec::new();
        let mut places = HashMap::new();
        let mut place = |response: Place| {
            *places.entry(response).or_insert_with(|| {
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
        (responses, pairs)
    }
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
        shared_tokens(&[self.sequence((prompt, chosen)), self.sequence((prompt, rejected))])
    }

    fn tokens(&self, example: usize) -> usize {
        let (prompt, chosen, rejected) = self.pairs[example];
        self.sequence((prompt, chosen)).ids.len() + self.sequence((prompt, rejected)).ids.len()
    }

    /// Numbers of tokens for the NLL, and ranks.
    fn survey(&self, model: &CausalLm, batch: &[usize], micro_batch: MicroBatch) -> Result<Survey, Error> {
        let mut totals = [0.0; 2];
        for &example in batch {
            for (total, tokens) in totals.iter_mut().zip(self.nll_tokens(example)) {
                *total += tokens;
            }
        }
        let examples = if self.objectives.iter().any(|o| o.objective.ranked()) {
            self.ranks(model, batch, micro_batch)?
        } else {
            HashMap::new()
        };
        Ok(Survey { batch: totals.to_vec(), examples })
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], denominator: f64) -> Result<Forward, Error> {
        let survey = self.survey(model, examples, MicroBatch::Examples(examples.len()))?;
        self.forward_surveyed(model, examples, denominator, &survey)
    }

    fn forward_surveyed(
        &self,
        model: &CausalLm,
        examples: &[usize],
        denominator: f64,
        survey: &Survey,
    ) -> Result<Forward, Error> {
        let (responses, pairs) = self.responses(examples);
        let sequences: Vec<&Sequence> = responses.iter().map(|&response| self.sequence(response)).collect();
        let of = |value: &dyn Fn(&ScoredPrompt, usize) -> f64| -> Vec<f64> {
            responses.iter().map(|&(prompt, response)| value(&self.prompts[prompt], response)).collect()
        };
        let prompt_nll = self.prompt_nll();
        let found = if prompt_nll {
            // The prompt counts on the chosen side alone: elsewhere nothing of it passes through the head.
            let mut chosen = vec![false; sequences.len()];
            pairs.iter().for_each(|&(w, _)| chosen[w] = true);
            let part = |(sequence, chosen): (&&Sequence, bool)| {
                let scored_from = if chosen { sequence.scored_from } else { sequence.prompt_len };
                Sequence { scored_from, ..(*sequence).clone() }
            };
            let sequences: Vec<Sequence> = sequences.iter().zip(chosen).map(part).collect();
            sequence_logps_with(model, &sequences, PromptLogps::Tracked, &HeadOptions::default())?
        } else {
            sequence_logps_with(model, &sequences, PromptLogps::Skip, &HeadOptions::default())?
        };

        let like = |values: &[f64]| constant_like(values, &found.response);
        let gather = |values: Tensor<1>| Pair::gather(values, &pairs);
        let ref_logps = of(&|prompt, j| prompt.ref_logps[j]);
        let tokens = of(&|prompt, j| (prompt.sequences[j].ids.len() - prompt.sequences[j].prompt_len) as f64);
        let models = responses.iter().map(|&(prompt, _)| self.prompts[prompt].reward_models()).min().unwrap_or(0);
        let [response_tokens, whole_tokens] = [0, 1].map(|i| survey.batch.get(i).copied().unwrap_or(f64::NAN));
        let both = gather(found.response.clone());
        let response_nll = token_mean_nll(both.chosen.clone(), denominator, response_tokens);
        let whole_nll = if prompt_nll {
            let whole = both.chosen.clone() + gather(found.prompt.clone()).chosen;
            token_mean_nll(whole, denominator, whole_tokens)
        } else {
            response_nll.clone()
        };
        let ranks = (!survey.examples.is_empty()).then(|| {
            let ranked = |k: usize| like(&examples.iter().map(|e| survey.examples[e][k]).collect::<Vec<_>>());
            Ranks { ref_margins: ranked(0), log_ratios: Pair { chosen: ranked(1), rejected: ranked(2) } }
        });
        let batch = PairBatch {
            ref_logps: gather(like(&ref_logps)),
            tokens: gather(like(&tokens)),
            rewards: (0..models).map(|k| gather(like(&of(&|prompt, j| prompt.reward(k, j))))).collect(),
            logps: both,
            response_nll,
            whole_nll,
            ranks,
        };

        let outputs: Vec<PairOutput> = self.objectives.iter().map(|o| o.objective.losses(&batch)).collect();
        let mut parts: Vec<(f64, Tensor<1>)> =
            self.objectives.iter().zip(&outputs).map(|(o, output)| (o.weight, output.loss.losses.clone())).collect();
        if self.nll_weight != 0.0 {
            parts.push((self.nll_weight, batch.response_nll.clone()));
        }
        let losses = mixed(parts);
        let loss = weighted_sum(losses.clone(), &vec![1.0 / denominator; examples.len()]);

        let mut metrics = Metrics::default();
        let logps = host(found.response.clone());
        if let Some(first) = outputs.first() {
            let rewards = [&first.loss.rewards.chosen, &first.loss.rewards.rejected].map(|side| host(side.clone()));
            let point = |place: usize, reward: f64| ResponsePoint {
                logp: logps[place],
                log_ratio: self.reference.then(|| logps[place] - ref_logps[place]),
                reward,
            };
            for (i, &(w, l)) in pairs.iter().enumerate() {
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
        if self.nll_weight != 0.0 && metrics.get("nll_loss").is_none() {
            host(batch.response_nll).into_iter().for_each(|value| metrics.record("nll_loss", value));
        }
        let per_example = losses.into_data().iter::<f32>().collect();
        let mut metrics = metric_sums(&metrics);
        record_entropy(&mut metrics, &found);
        Ok(Forward { loss, metrics, per_example, tape: found.tape })
    }

    fn order(&self, seed: u64, epoch: u64) -> Vec<usize> {
        setpoint_data::Order::new(seed).epoch(epoch, self.len())
    }

    fn describe(&self, example: usize) -> String {
        self.prompts[self.pairs[example].0].name.clone()
    }
}

fn host(values: Tensor<1>) -> Vec<f64> {
    values.into_data().iter::<f64>().collect()
}

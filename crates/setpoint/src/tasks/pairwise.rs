//! Any objective on pairs of responses as a task of the engine.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use burn::tensor::Tensor;
use setpoint_align::{
    Metrics, Pair, PairBatch, PairOutput, ResponsePoint, Role, Sides, SurveyedPair, WeightedObjective, constant_like,
    mixed, token_mean_nll,
};
use setpoint_train::{
    BatchContext, Error, Forward, MetricSums, MicroBatch, OnDemand, PromptLogps, ResponseValues, Sequence,
    SequenceLogps, Task, Unread, score_sequences, sequence_logps, shared_tokens,
};
use setpoint_transformer::{CausalLm, RopeSwitch};

use super::logps::Logps;
use super::stages::{PairedPrompt, unscored};
use super::{Place, mean_loss, metric_sums, pass_tokens};

/// Prompts with pairs of responses, and the objectives to train by.
#[derive(Debug)]
pub struct PairwiseTask {
    prompts: OnDemand<PairedPrompt>,
    pairs: Vec<PairPlace>,
    /// The log-probabilities of objectives with a reference: without, there are no log-ratios.
    reference: Option<Logps>,
    /// The implicit rewards that are logged are those of the first.
    objectives: Arc<[WeightedObjective]>,
    nll_weight: f64,
}

/// The place of a pair, and what is known of it without its tokens.
#[derive(Debug, Clone, Copy)]
struct PairPlace {
    prompt: u32,
    chosen: u32,
    rejected: u32,
    /// The tokens that go through the model.
    cost: u32,
    /// The tokens of both sequences.
    tokens: u32,
}

impl PairPlace {
    fn chosen(&self) -> Place {
        (self.prompt as usize, self.chosen as usize)
    }

    fn rejected(&self) -> Place {
        (self.prompt as usize, self.rejected as usize)
    }
}

/// The prompts of some pairs, by number.
type Prompts = HashMap<usize, PairedPrompt>;

fn sequence(prompts: &Prompts, (prompt, response): Place) -> &Sequence {
    &prompts[&prompt].prompt.sequences[response]
}

/// The facts about a whole batch of pairs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairSurvey {
    /// Tokens of the chosen responses that the NLL counts.
    pub nll: NllTokens,
    /// The columns of each objective ([`setpoint_align::PairObjective::survey`]) for each pair, by example; if any objective looks at
    /// the whole batch.
    pub objectives: Option<HashMap<usize, Vec<Vec<f64>>>>,
}

/// Numbers of tokens that the NLL of chosen responses counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NllTokens {
    /// Tokens of the responses.
    pub responses: f64,
    /// Tokens of prompts and responses, without the first ones, which nothing predicts.
    pub sequences: f64,
}

impl PairwiseTask {
    /// Makes a task of the prompts' pairs. Each prompt is made once here. `reference` is there for objectives with a reference model.
    /// `nll_weight` is the weight of the NLL of the chosen responses, `switch` that of the model.
    ///
    /// # Errors
    /// When a prompt cannot be read, or the reference's log-probability of a response is missing.
    pub fn new(
        prompts: impl Into<OnDemand<PairedPrompt>>,
        reference: Option<Logps>,
        objectives: Arc<[WeightedObjective]>,
        nll_weight: f64,
        switch: RopeSwitch,
    ) -> Result<Self, Error> {
        let mut task = Self { prompts: prompts.into(), pairs: Vec::new(), reference, objectives, nll_weight };
        let prompt_nll = task.prompt_nll();
        for (number, prompt) in task.prompts.iter().enumerate() {
            let PairedPrompt { prompt, pairs, .. } = prompt?;
            for (chosen, rejected) in pairs {
                let sides = [chosen, rejected].map(|response| &prompt.sequences[response]);
                let tokens: usize = sides.iter().map(|side| side.ids.len()).sum();
                let is_scored = |response| match &task.reference {
                    Some(reference) => reference.response((number, response)).is_some(),
                    None => true,
                };
                if !is_scored(chosen) || !is_scored(rejected) {
                    return Err(Error::task(unscored(&prompt.name)));
                }
                task.pairs.push(PairPlace {
                    prompt: number as u32,
                    chosen: chosen as u32,
                    rejected: rejected as u32,
                    // A prompt that is scored on one side is no common one.
                    cost: if prompt_nll { tokens } else { shared_tokens(&sides, switch) } as u32,
                    tokens: tokens as u32,
                });
            }
        }
        Ok(task)
    }

    fn prompt_nll(&self) -> bool {
        self.objectives.iter().any(|o| o.objective.prompt_nll())
    }

    /// Reads the prompts of some pairs.
    fn read(&self, examples: &[usize]) -> Result<Prompts, Error> {
        let mut prompts = Prompts::new();
        for &example in examples {
            let prompt = self.pairs[example].prompt as usize;
            if let Entry::Vacant(place) = prompts.entry(prompt) {
                place.insert(self.prompts.get(prompt)?);
            }
        }
        Ok(prompts)
    }

    /// Returns the reference's log-probabilities of a pair, if there is a reference.
    fn known_ref_logps(&self, example: usize) -> Option<Sides> {
        let (reference, pair) = (self.reference.as_ref()?, self.pairs[example]);
        Some(Sides { chosen: reference.response(pair.chosen())?, rejected: reference.response(pair.rejected())? })
    }

    /// The same; zeros without a reference, which no objective looks at then.
    fn ref_logps_of(&self, example: usize) -> Sides {
        self.known_ref_logps(example).unwrap_or_default()
    }

    /// Counts the tokens of a batch for the NLL.
    fn nll_tokens(&self, batch: &[usize]) -> Result<NllTokens, Error> {
        let mut tokens = NllTokens::default();
        let prompts = self.read(batch)?;
        for &example in batch {
            let sequence = sequence(&prompts, self.pairs[example].chosen());
            tokens.responses += (sequence.ids.len() - sequence.prompt_len) as f64;
            tokens.sequences += (sequence.ids.len() - 1) as f64;
        }
        Ok(tokens)
    }

    /// Returns whether an objective looks at the whole batch.
    fn surveys(&self) -> bool {
        self.objectives.iter().any(|o| o.objective.surveys())
    }

    /// Lets every objective survey the whole batch. `logps` are the policy's log-probabilities of each pair.
    fn survey_objectives(&self, batch: &[usize], logps: &[Sides]) -> HashMap<usize, Vec<Vec<f64>>> {
        let pair = |(&example, &logps): (&usize, &Sides)| SurveyedPair { logps, ref_logps: self.ref_logps_of(example) };
        let pairs: Vec<SurveyedPair> = batch.iter().zip(logps).map(pair).collect();
        let columns: Vec<Vec<Vec<f64>>> = self.objectives.iter().map(|o| o.objective.survey(&pairs)).collect();
        let of_pair = |i: usize| columns.iter().map(|own| own.iter().map(|column| column[i]).collect()).collect();
        batch.iter().enumerate().map(|(i, &example)| (example, of_pair(i))).collect()
    }

    /// Returns the columns that an objective has found out about the whole batch, for some of its pairs.
    fn columns(&self, objective: usize, examples: &[usize], survey: &PairSurvey, like: &Tensor<1>) -> Vec<Tensor<1>> {
        let Some(found) = &survey.objectives else { return Vec::new() };
        let columns = examples.first().map_or(0, |example| found[example][objective].len());
        let column = |c: usize| -> Vec<f64> { examples.iter().map(|example| found[example][objective][c]).collect() };
        (0..columns).map(|c| constant_like(&column(c), like)).collect()
    }

    /// The responses of some pairs, each once although it may stand in several pairs, and the pairs among them.
    fn places(&self, examples: &[usize]) -> Result<Places, Error> {
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
            .map(|&example| {
                let pair = self.pairs[example];
                (place(pair.chosen()), place(pair.rejected()))
            })
            .collect();
        let ref_logps = examples.iter().map(|&example| self.known_ref_logps(example)).collect();
        Ok(Places { examples: examples.to_vec(), prompts: self.read(examples)?, responses, pairs, ref_logps })
    }

    fn logps(&self, model: &CausalLm, places: &Places) -> Result<SequenceLogps, Error> {
        let sequences = places.responses.iter().map(|&response| sequence(&places.prompts, response));
        if !self.prompt_nll() {
            let sequences: Vec<&Sequence> = sequences.collect();
            return sequence_logps(model, &sequences, PromptLogps::Skip);
        }
        // The prompt counts on the chosen side alone: elsewhere nothing of it passes through the head.
        let mut chosen = vec![false; places.responses.len()];
        places.pairs.iter().for_each(|&(w, _)| chosen[w] = true);
        let part = |(sequence, chosen): (&Sequence, bool)| {
            let scored_from = if chosen { sequence.scored_from } else { sequence.prompt_len };
            Sequence { scored_from, ..sequence.clone() }
        };
        let sequences: Vec<Sequence> = sequences.zip(chosen).map(part).collect();
        sequence_logps(model, &sequences, PromptLogps::Tracked)
    }

    /// Collects the numbers that the objectives look at.
    fn batch(&self, logps: &SequenceLogps, places: &Places, context: &BatchContext<PairSurvey>) -> PairBatch {
        let BatchContext { denominator, progress, survey } = context;
        let like = |values: Vec<f64>| constant_like(&values, &logps.response);
        let gather = |values: Tensor<1>| Pair::gather(values, &places.pairs);
        let tokens = |prompt: &PairedPrompt, j: usize| prompt.prompt.response_ids(j).len() as f64;
        let models = places.responses.iter().map(|(prompt, _)| places.prompts[prompt].rewards.len()).min().unwrap_or(0);
        let side =
            |value: fn(Sides) -> f64| like(places.examples.iter().map(|&e| value(self.ref_logps_of(e))).collect());
        let both = gather(logps.response.clone());
        let response_nll = token_mean_nll(both.chosen.clone(), *denominator, survey.nll.responses);
        let whole_nll = if self.prompt_nll() {
            let whole = both.chosen.clone() + gather(logps.prompt.clone()).chosen;
            token_mean_nll(whole, *denominator, survey.nll.sequences)
        } else {
            response_nll.clone()
        };
        PairBatch {
            ref_logps: Pair { chosen: side(|logps| logps.chosen), rejected: side(|logps| logps.rejected) },
            tokens: gather(like(places.each(tokens))),
            rewards: (0..models).map(|model| gather(like(places.each(|prompt, j| prompt.rewards[model][j])))).collect(),
            logps: both,
            response_nll,
            whole_nll,
            survey: Vec::new(),
            progress: *progress,
        }
    }

    /// Collects what is logged: trl's metrics by the first objective's rewards, each objective's own, and of several objectives each one's loss.
    fn logged(
        &self,
        logps: &SequenceLogps,
        places: Places,
        response_nll: Tensor<1>,
        outputs: Vec<PairOutput>,
    ) -> Unread<(MetricSums, ResponseValues)> {
        let rewards = outputs.first().map(|first| first.loss.rewards.clone());
        let rewards = rewards.into_iter().flat_map(|Pair { chosen, rejected }| [chosen, rejected]).map(Unread::of);
        let mut columns: Vec<(String, Tensor<1>)> = Vec::new();
        for (objective, output) in self.objectives.iter().zip(outputs) {
            if self.objectives.len() > 1 {
                columns.push((format!("loss/{}", objective.name), output.loss.losses));
            }
            columns.extend(output.metrics.into_iter().map(|(name, values)| (name.to_owned(), values)));
        }
        // ORPO has logged its own.
        if self.nll_weight != 0.0 && columns.iter().all(|(name, _)| name != "nll_loss") {
            columns.push(("nll_loss".to_owned(), response_nll));
        }
        let (names, columns): (Vec<String>, Vec<Tensor<1>>) = columns.into_iter().unzip();
        let columns = Unread::all(columns.into_iter().map(Unread::of));
        let seen = Unread::of(logps.response.clone()).and(Unread::all(rewards)).and(columns);
        seen.map(move |((logps, rewards), columns)| {
            let mut metrics = Metrics::default();
            if let [chosen, rejected] = &rewards[..] {
                places.record(&logps, chosen, rejected, &mut metrics);
            }
            for (name, values) in names.iter().zip(columns) {
                values.into_iter().for_each(|value| metrics.record(name, value));
            }
            (metric_sums(&metrics), places.values(&logps))
        })
    }
}

/// The responses of a micro-batch, and its pairs as places among them.
struct Places {
    /// The examples that the pairs are.
    examples: Vec<usize>,
    prompts: Prompts,
    responses: Vec<Place>,
    /// `(chosen, rejected)`.
    pairs: Vec<(usize, usize)>,
    /// The reference's log-probabilities of each pair, if there is a reference.
    ref_logps: Vec<Option<Sides>>,
}

impl Places {
    /// A number for each response of a micro-batch.
    fn each(&self, value: impl Fn(&PairedPrompt, usize) -> f64) -> Vec<f64> {
        self.responses.iter().map(|(prompt, response)| value(&self.prompts[prompt], *response)).collect()
    }

    /// Collects the logged values of both sides of each pair. A response in several pairs is logged with each.
    fn values(&self, logps: &[f64]) -> ResponseValues {
        let mut responses = ResponseValues::default();
        for ((&example, &(w, l)), ref_logps) in self.examples.iter().zip(&self.pairs).zip(&self.ref_logps) {
            let sides = [
                (w, Role::Chosen, ref_logps.map(|logps| logps.chosen)),
                (l, Role::Rejected, ref_logps.map(|logps| logps.rejected)),
            ];
            for (place, role, ref_logp) in sides {
                let (prompt, j) = self.responses[place];
                let PairedPrompt { prompt, .. } = &self.prompts[&prompt];
                let found = match ref_logp {
                    Some(ref_logp) => ("log_ratio", logps[place] - ref_logp),
                    None => ("logp", logps[place]),
                };
                // Rewards of which some are missing are not logged.
                let reward = prompt.rewards[j].filter(|_| prompt.rewards.iter().all(Option::is_some));
                responses.push(example, prompt.logged(j, Some(role), reward).into_iter().chain([found]));
            }
        }
        responses
    }

    /// Records trl's metrics of the pairs, by the implicit rewards of both sides.
    fn record(&self, logps: &[f64], chosen: &[f64], rejected: &[f64], metrics: &mut Metrics) {
        let point = |place: usize, ref_logp: Option<f64>, reward: f64| ResponsePoint {
            logp: logps[place],
            log_ratio: ref_logp.map(|ref_logp| logps[place] - ref_logp),
            reward,
        };
        for (i, (&(w, l), ref_logps)) in self.pairs.iter().zip(&self.ref_logps).enumerate() {
            let chosen = point(w, ref_logps.map(|logps| logps.chosen), chosen[i]);
            let rejected = point(l, ref_logps.map(|logps| logps.rejected), rejected[i]);
            metrics.record_pair(&chosen, &rejected);
        }
    }
}

impl Task for PairwiseTask {
    type Model = CausalLm;
    /// The log-probabilities of the pair's responses, nats; if an objective looks at the whole batch.
    type Probe = Option<Sides>;
    type Survey = PairSurvey;

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn weight(&self, _example: usize) -> f64 {
        1.0
    }

    fn cost(&self, example: usize) -> usize {
        self.pairs[example].cost as usize
    }

    fn tokens(&self, example: usize) -> usize {
        self.pairs[example].tokens as usize
    }

    fn probe(
        &self,
        model: &CausalLm,
        examples: &[usize],
        micro_batch: MicroBatch,
    ) -> Result<Vec<Option<Sides>>, Error> {
        if !self.surveys() {
            return Ok(vec![None; examples.len()]);
        }
        let prompts = self.read(examples)?;
        let side = |of: fn(&PairPlace) -> Place| -> Result<Vec<f64>, Error> {
            let sequences: Vec<&Sequence> =
                examples.iter().map(|&example| sequence(&prompts, of(&self.pairs[example]))).collect();
            let scored = score_sequences(model, &sequences, pass_tokens(micro_batch), &mut |_| ())?;
            Ok(scored.iter().map(|scored| scored.response_logp).collect())
        };
        let (chosen, rejected) = (side(PairPlace::chosen)?, side(PairPlace::rejected)?);
        Ok(chosen.into_iter().zip(rejected).map(|(chosen, rejected)| Some(Sides { chosen, rejected })).collect())
    }

    fn survey(&self, batch: &[usize], logps: &[Option<Sides>]) -> Result<PairSurvey, Error> {
        let logps: Option<Vec<Sides>> = logps.iter().copied().collect();
        let objectives = logps.map(|logps| self.survey_objectives(batch, &logps));
        Ok(PairSurvey { nll: self.nll_tokens(batch)?, objectives })
    }

    fn forward(
        &self,
        model: &CausalLm,
        examples: &[usize],
        context: &BatchContext<PairSurvey>,
    ) -> Result<Forward, Error> {
        let places = self.places(examples)?;
        let logps = self.logps(model, &places)?;
        let mut batch = self.batch(&logps, &places, context);
        let survey = |k: usize| self.columns(k, examples, &context.survey, &logps.response);
        let losses = |(k, part): (usize, &WeightedObjective)| {
            batch.survey = survey(k);
            part.objective.losses(&batch)
        };
        let outputs: Vec<PairOutput> = self.objectives.iter().enumerate().map(losses).collect();
        let mut parts: Vec<(f64, Tensor<1>)> =
            self.objectives.iter().zip(&outputs).map(|(o, output)| (o.weight, output.loss.losses.clone())).collect();
        if self.nll_weight != 0.0 {
            parts.push((self.nll_weight, batch.response_nll.clone()));
        }
        let losses = mixed(parts);
        let logged = self.logged(&logps, places, batch.response_nll, outputs);
        Ok(mean_loss(losses, context.denominator, logged, logps))
    }

    fn describe(&self, example: usize) -> String {
        let found = self.prompts.get(self.pairs[example].prompt as usize);
        found.map_or_else(|_| format!("pair {example}"), |found| found.prompt.name)
    }
}

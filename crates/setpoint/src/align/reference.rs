//! The reference model's log-probabilities: computed once, kept in the run folder, and the model gone before the policy trains.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use setpoint_train::{ReferenceKey, ReferenceRow, ReferenceStore, ScoredSequence, Sequence, score_batches};
use setpoint_transformer::CausalLm;

use super::prepare::{Prepared, PreparedSet};
use super::settings::AlignConfig;
use crate::config::sections::ModelSection;
use crate::failure::Outcome;
use crate::session::Session;
use crate::setup;
use crate::tasks::{Place, ScoredPrompt, pass_tokens};

/// A data set with its reference log-probs.
pub struct ReferenceSet {
    /// The prompts.
    pub prompts: Vec<ScoredPrompt>,
    /// Prompts with another prompt's responses, for KTO.
    pub mismatched: Vec<ScoredPrompt>,
}

/// Prompts with their reference log-probs, for training and for evaluation. With a `folder` they are kept there, row by row, and a killed
/// run goes on where it stood; a file that belongs to another model, tokenizer or data set is refused. Without a reference, for methods that
/// have none, nothing is loaded or computed.
pub fn with_reference(
    session: &Session,
    config: &AlignConfig,
    prepared: &Prepared,
    reference: Option<&Path>,
    folder: Option<&Path>,
) -> Outcome<(ReferenceSet, Option<ReferenceSet>)> {
    let mut scorer = reference.map(|reference| Scorer {
        session,
        config,
        prepared,
        reference,
        pairs: config.align.pairwise().is_some(),
        model: None,
        hash: None,
    });
    let mut scored = |set: &PreparedSet, name: &str| -> Outcome<ReferenceSet> {
        let Some(scorer) = &mut scorer else {
            let zeros =
                |prompt: &ScoredPrompt| ScoredPrompt { ref_logps: vec![0.0; prompt.sequences.len()], ..prompt.clone() };
            return Ok(ReferenceSet { prompts: set.prompts.iter().map(zeros).collect(), mismatched: Vec::new() });
        };
        let file = |name: String| folder.map(|f| f.join(name));
        let prompts = scorer.score(&set.prompts, &set.hash, file(format!("reference-{name}.jsonl")))?;
        let mismatched = if set.mismatched.is_empty() {
            Vec::new()
        } else {
            let hash = format!("{} mismatched", set.hash);
            scorer.score(&set.mismatched, &hash, file(format!("reference-{name}-mismatched.jsonl")))?
        };
        Ok(ReferenceSet { prompts, mismatched })
    };
    let train = scored(&prepared.train, "train")?;
    let eval = prepared.eval.as_ref().map(|set| scored(set, "eval")).transpose()?;
    Ok((train, eval))
}

/// The reference model, loaded when the first row needs it.
struct Scorer<'a> {
    session: &'a Session,
    config: &'a AlignConfig,
    prepared: &'a Prepared,
    reference: &'a Path,
    /// Whether only the responses that stand in a pair count.
    pairs: bool,
    model: Option<CausalLm>,
    hash: Option<String>,
}

impl Scorer<'_> {
    fn score(&mut self, set: &[ScoredPrompt], examples: &str, file: Option<PathBuf>) -> Outcome<Vec<ScoredPrompt>> {
        let mut store = match file {
            None => None,
            Some(file) => Some(ReferenceStore::open(file, &self.key(examples)?)?),
        };
        let pairs = self.pairs;
        let wanted = |prompt: &ScoredPrompt, j: usize| !pairs || prompt.pairs.iter().any(|&(w, l)| w == j || l == j);
        let places: Vec<Place> = set
            .iter()
            .enumerate()
            .flat_map(|(i, prompt)| (0..prompt.sequences.len()).map(move |j| (i, j)))
            .filter(|&(i, j)| wanted(&set[i], j))
            .collect();
        let complete = store.as_ref().is_some_and(|s| places.iter().all(|&(i, j)| s.get(i, j).is_some()));
        let rows = if complete {
            self.rows(set, &places, &mut store)?
        } else {
            let (session, key) = (self.session, self.shared_key(set, &places));
            session.once("reference", key, || self.rows(set, &places, &mut store))?
        };
        if let Some(store) = &mut store {
            // The run has its own file, whoever computed what is in it.
            for row in &rows {
                if store.get(row.row, row.response).is_none() {
                    store.append(row.clone())?;
                }
            }
            store.sync()?;
        }
        let mut prompts = set.to_vec();
        for prompt in &mut prompts {
            prompt.ref_logps = vec![f64::NAN; prompt.sequences.len()];
        }
        for row in rows {
            prompts[row.row].ref_logps[row.response] = row.response_logp;
            prompts[row.row].ref_prompt_logp = row.prompt_logp;
        }
        Ok(prompts)
    }

    /// The log-probs of some responses: what is stored, and what is not, which is computed and stored.
    fn rows(
        &mut self,
        set: &[ScoredPrompt],
        places: &[Place],
        store: &mut Option<ReferenceStore>,
    ) -> Outcome<Vec<ReferenceRow>> {
        let found = |&(i, j): &Place| store.as_ref().and_then(|store| store.get(i, j)).cloned();
        let mut rows: Vec<ReferenceRow> = places.iter().filter_map(found).collect();
        let missing: Vec<Place> = places.iter().copied().filter(|place| found(place).is_none()).collect();
        if missing.is_empty() {
            return Ok(rows);
        }
        let sequences: Vec<&Sequence> = missing.iter().map(|&(i, j)| &set[i].sequences[j]).collect();
        let model = match &self.model {
            Some(model) => model,
            None => {
                let section = ModelSection {
                    path: Some(self.reference.to_owned()),
                    from_scratch: None,
                    ..self.config.model.clone()
                };
                let shape = setup::model_config(&section, &self.prepared.encoder)?;
                self.model.insert(setup::policy(self.session, &section, &shape, 0, self.session.device())?)
            }
        };
        let start = Instant::now();
        let bar = self.session.bar("reference", sequences.len());
        let mut done = 0;
        let mut store_one = |(at, score): (usize, ScoredSequence)| {
            done += 1;
            bar.reach(done);
            let (row, response) = missing[at];
            let row = ReferenceRow {
                row,
                response,
                prompt_tokens: score.prompt_tokens,
                response_tokens: score.response_tokens,
                prompt_logp: score.prompt_logp,
                response_logp: score.response_logp,
            };
            if let Some(store) = store.as_mut() {
                store.append(row.clone())?;
            }
            rows.push(row);
            Ok(())
        };
        let batch_tokens = pass_tokens(self.config.train.micro_batch);
        let scored = score_batches(&self.session.devices, model, &sequences, batch_tokens, &mut |batch| {
            batch.into_iter().try_for_each(&mut store_one)
        });
        bar.clear();
        scored?;
        if !self.session.quiet {
            let tokens: usize = sequences.iter().map(|sequence| sequence.ids.len()).sum();
            let seconds = start.elapsed().as_secs_f64();
            log::info!(
                "reference log-probabilities of {} responses in {seconds:.2} seconds, {:.0} tokens/s",
                sequences.len(),
                tokens as f64 / seconds.max(1e-9)
            );
        }
        Ok(rows)
    }

    /// What decides the log-probs, for trials that share them. Prompts are numbered as the method has them, so their order counts.
    fn shared_key<'s>(
        &self,
        set: &'s [ScoredPrompt],
        places: &'s [Place],
    ) -> impl FnOnce() -> Outcome<Value> + use<'s> {
        let (hash, reference) = (self.hash.clone(), self.reference.to_owned());
        let precision = format!("{:?} on {:?}", self.config.model.dtype, self.session.device());
        let batch_tokens = pass_tokens(self.config.train.micro_batch);
        move || {
            Ok(json!({
                "setpoint": env!("CARGO_PKG_VERSION"),
                "model": hash.map_or_else(|| setup::model_hash(&reference), Ok)?,
                "precision": precision,
                "batch_tokens": batch_tokens,
                "places": places,
                "sequences": setup::sequences_hash(places.iter().map(|&(i, j)| &set[i].sequences[j])),
            }))
        }
    }

    fn key(&mut self, examples: &str) -> Outcome<ReferenceKey> {
        let hash = match &self.hash {
            Some(hash) => hash.clone(),
            None => self.hash.insert(setup::model_hash(self.reference)?).clone(),
        };
        Ok(ReferenceKey {
            model: format!("{hash} {:?}", self.config.model.dtype),
            tokenizer: self.prepared.encoder.fingerprint(),
            examples: examples.to_owned(),
        })
    }
}

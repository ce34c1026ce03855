//! The reference model's log-probabilities: computed once, kept in the run folder, and the model gone before the policy trains.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use setpoint_data::TextEncoder;
use setpoint_train::{ReferenceKey, ReferenceRow, ReferenceStore, ScoredSequence, Sequence, score_batches};
use setpoint_transformer::CausalLm;

use super::data::{Reference, SetReference, SetView};
use super::prepare::Prepared;
use super::settings::AlignConfig;
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::session::{Meter, Session};
use crate::setup;
use crate::tasks::stages::{PreparedPrompt, ReferenceLogps};
use crate::tasks::{Place, pass_tokens};

/// The model whose log-probabilities are the reference.
pub struct ReferenceModel<'a> {
    /// Its folder.
    pub dir: &'a Path,
    /// The model on a device without autodiff, if it is in memory anyway; else it is loaded when the first row needs it.
    pub model: Option<CausalLm>,
}

/// Returns the folder of the reference model: the one that the settings name, else the policy as it is before training.
///
/// # Errors
/// When the settings name no model.
pub fn reference_dir(config: &AlignConfig) -> Outcome<&Path> {
    let adapter = config.adapter.as_ref().and_then(|adapter| adapter.path.as_deref());
    let named = config.reference.as_deref().or(adapter).or(config.model.path.as_deref());
    named.ok_or_else(|| Failure::usage("model.path", "no model"))
}

/// Loads the reference model from its folder, onto the first device, without autodiff.
pub fn load_reference(session: &Session, config: &AlignConfig, encoder: &TextEncoder, dir: &Path) -> Outcome<CausalLm> {
    let section = ModelSection { path: Some(dir.to_owned()), from_scratch: None, ..config.model.clone() };
    let shape = setup::model_config(&section, encoder)?;
    setup::policy(session, &section, &shape, 0, session.device())
}

/// Computes the reference log-probs of the training data and the held-out data. With a `folder` they are kept there, row by row, and a
/// killed run goes on where it stopped; a file that belongs to another model, tokenizer or data set is refused. Without a reference, for
/// methods that have none, nothing is loaded or computed.
pub fn reference_logps(
    session: &Session,
    config: &AlignConfig,
    prepared: &Prepared,
    reference: Option<ReferenceModel<'_>>,
    folder: Option<&Path>,
) -> Outcome<Reference> {
    let mut scorer = reference.map(|ReferenceModel { dir, model }| Scorer {
        session,
        config,
        prepared,
        reference: dir,
        model,
        hash: None,
    });
    let mut score = |set: &SetView<'_>, name: &str| -> Outcome<SetReference> {
        let mut part = |prompts: &[&dyn PreparedPrompt], hash: &str, file: String| match &mut scorer {
            Some(scorer) => scorer.score(prompts, hash, folder.map(|folder| folder.join(file))),
            None => Ok(prompts.iter().map(|prompt| ReferenceLogps::zeros(prompt.prompt().sequences.len())).collect()),
        };
        let prompts = part(&set.prompts, set.hash, format!("reference-{name}.jsonl"))?;
        let hash = format!("{} mismatched", set.hash);
        let mismatched =
            set.mismatched.as_ref().map(|set| part(set, &hash, format!("reference-{name}-mismatched.jsonl")));
        Ok(SetReference { prompts, mismatched: mismatched.transpose()? })
    };
    let (train, eval) = prepared.data.sets();
    Ok(Reference { train: score(&train, "train")?, eval: eval.map(|set| score(&set, "eval")).transpose()? })
}

/// Describes the precision of a model's weights.
fn precision(model: &ModelSection) -> String {
    match model.quantized() {
        None => format!("{:?}", model.dtype),
        Some(quantize) => format!("{:?} {quantize:?}", model.dtype),
    }
}

/// The reference model and its answers.
struct Scorer<'a> {
    session: &'a Session,
    config: &'a AlignConfig,
    prepared: &'a Prepared,
    reference: &'a Path,
    model: Option<CausalLm>,
    hash: Option<String>,
}

impl Scorer<'_> {
    fn score(
        &mut self,
        set: &[&dyn PreparedPrompt],
        examples: &str,
        file: Option<PathBuf>,
    ) -> Outcome<Vec<ReferenceLogps>> {
        let mut store = match file {
            None => None,
            Some(file) => Some(ReferenceStore::open(file, &self.key(examples)?)?),
        };
        let places: Vec<Place> = set
            .iter()
            .enumerate()
            .flat_map(|(i, prompt)| (0..prompt.prompt().sequences.len()).map(move |j| (i, j)))
            .filter(|&(i, j)| set[i].needs_reference(j))
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
        let unknown = |prompt: &&dyn PreparedPrompt| ReferenceLogps {
            responses: vec![None; prompt.prompt().sequences.len()],
            prompt: 0.0,
        };
        let mut logps: Vec<ReferenceLogps> = set.iter().map(unknown).collect();
        for row in rows {
            logps[row.row].responses[row.response] = Some(row.response_logp);
            logps[row.row].prompt = row.prompt_logp;
        }
        Ok(logps)
    }

    /// The log-probs of some responses: what is stored, and what is not, which is computed and stored.
    fn rows(
        &mut self,
        set: &[&dyn PreparedPrompt],
        places: &[Place],
        store: &mut Option<ReferenceStore>,
    ) -> Outcome<Vec<ReferenceRow>> {
        let found = |&(i, j): &Place| store.as_ref().and_then(|store| store.get(i, j)).cloned();
        let mut rows: Vec<ReferenceRow> = places.iter().filter_map(found).collect();
        let missing: Vec<Place> = places.iter().copied().filter(|place| found(place).is_none()).collect();
        if missing.is_empty() {
            return Ok(rows);
        }
        let sequences: Vec<&Sequence> = missing.iter().map(|&(i, j)| &set[i].prompt().sequences[j]).collect();
        let model = match &self.model {
            Some(model) => model,
            None => {
                let model = load_reference(self.session, self.config, &self.prepared.encoder, self.reference)?;
                self.model.insert(model)
            }
        };
        let start = Instant::now();
        let mut meter = Meter::new(self.session, sequences.len(), "reference", "responses");
        let mut done = 0;
        let mut store_one = |(at, score): (usize, ScoredSequence)| {
            done += 1;
            meter.reach(done);
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
        meter.finish();
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

    /// Collects the inputs that decide the log-probs, for trials that share them. Prompts are numbered as the method has them, so their
    /// order counts.
    fn shared_key<'s>(
        &self,
        set: &'s [&'s dyn PreparedPrompt],
        places: &'s [Place],
    ) -> impl FnOnce() -> Outcome<Value> + use<'s> {
        let (hash, reference) = (self.hash.clone(), self.reference.to_owned());
        let precision = format!("{} on {:?}", precision(&self.config.model), self.session.device());
        let batch_tokens = pass_tokens(self.config.train.micro_batch);
        move || {
            Ok(json!({
                "setpoint": env!("CARGO_PKG_VERSION"),
                "model": hash.map_or_else(|| setup::model_hash(&reference), Ok)?,
                "precision": precision,
                "batch_tokens": batch_tokens,
                "places": places,
                "sequences": setup::sequences_hash(places.iter().map(|&(i, j)| &set[i].prompt().sequences[j])),
            }))
        }
    }

    fn key(&mut self, examples: &str) -> Outcome<ReferenceKey> {
        let hash = match &self.hash {
            Some(hash) => hash.clone(),
            None => self.hash.insert(setup::model_hash(self.reference)?).clone(),
        };
        Ok(ReferenceKey {
            model: format!("{hash} {}", precision(&self.config.model)),
            tokenizer: self.prepared.encoder.fingerprint(),
            examples: examples.to_owned(),
        })
    }
}

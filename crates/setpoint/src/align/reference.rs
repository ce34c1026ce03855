//! The reference model's log-probabilities: computed once, kept in the run folder, and the model gone before the policy trains.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use setpoint_data::TextEncoder;
use setpoint_train::{
    DeviceGroup, Error, ReferenceKey, ReferenceRow, ReferenceStore, ScoredSequence, Sequence, score_batches,
};
use setpoint_transformer::CausalLm;

use super::data::{Reference, SetReference, SetView};
use super::prepare::Prepared;
use super::settings::AlignConfig;
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::session::{Meter, Session};
use crate::setup::{self, SequencesHash};
use crate::tasks::logps::{Logps, LogpsTable};
use crate::tasks::stages::PromptList;
use crate::tasks::{PART_TOKENS, Place, pass_tokens};

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
        let mut part = |prompts: &dyn PromptList, hash: &str, file: String| match &mut scorer {
            Some(scorer) => scorer.score(prompts, hash, folder.map(|folder| folder.join(file))),
            None => Ok(Logps::zeros()),
        };
        let prompts = part(set.prompts, set.hash, format!("reference-{name}.jsonl"))?;
        let hash = format!("{} mismatched", set.hash);
        let mismatched = set.mismatched.map(|set| part(set, &hash, format!("reference-{name}-mismatched.jsonl")));
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

/// Scores the responses that are wanted, a part of the prompts after the other, and gives each to `take` with the tokens of its sequence.
fn score_parts(
    devices: &DeviceGroup,
    model: &CausalLm,
    set: &dyn PromptList,
    batch_tokens: usize,
    table: &mut LogpsTable,
    take: &mut dyn FnMut(ReferenceRow, usize) -> Result<(), Error>,
) -> Outcome {
    let mut rest = 0..set.len();
    loop {
        let part = next_part(set, table, &mut rest)?;
        if part.is_empty() {
            return Ok(());
        }
        let (places, sequences): (Vec<Place>, Vec<Sequence>) = part.into_iter().unzip();
        score_batches(devices, model, &sequences, batch_tokens, &mut |batch| {
            batch.into_iter().try_for_each(|(at, score): (usize, ScoredSequence)| {
                let (row, response) = places[at];
                table.set(places[at], score.response_logp, score.prompt_logp);
                let row = ReferenceRow {
                    row,
                    response,
                    prompt_tokens: score.prompt_tokens,
                    response_tokens: score.response_tokens,
                    prompt_logp: score.prompt_logp,
                    response_logp: score.response_logp,
                };
                take(row, sequences[at].ids.len())
            })
        })?;
    }
}

/// Reads the next responses that are wanted, those of a prompt together; nothing at the end.
fn next_part(set: &dyn PromptList, table: &LogpsTable, rest: &mut Range<usize>) -> Outcome<Vec<(Place, Sequence)>> {
    let (mut part, mut tokens) = (Vec::new(), 0);
    while tokens < PART_TOKENS
        && let Some(number) = rest.next()
    {
        let prompt = set.get(number)?;
        for (response, sequence) in prompt.prompt().sequences.iter().enumerate() {
            if table.is_wanted((number, response)) {
                tokens += sequence.ids.len();
                part.push(((number, response), sequence.clone()));
            }
        }
    }
    Ok(part)
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
    fn score(&mut self, set: &dyn PromptList, examples: &str, file: Option<PathBuf>) -> Outcome<Logps> {
        let mut table = LogpsTable::default();
        for prompt in set.iter() {
            let prompt = prompt?;
            table.push((0..prompt.prompt().sequences.len()).map(|response| prompt.needs_reference(response)));
        }
        // Trials share whole rows.
        let shares = self.session.shared.is_some();
        let mut rows = Vec::new();
        let mut take = |row: ReferenceRow| {
            table.set((row.row, row.response), row.response_logp, row.prompt_logp);
            if shares && table.is_used((row.row, row.response)) {
                rows.push(row);
            }
        };
        let mut store = match file {
            None => None,
            Some(file) => Some(ReferenceStore::open(file, &self.key(examples)?, &mut take)?),
        };
        if table.wanted() > 0 && shares {
            let (session, key) = (self.session, self.shared_key(set, &table)?);
            let mut computed = table.clone();
            let rows = session.once(
                "reference",
                || Ok(key),
                || {
                    self.compute(set, &mut computed, &mut store, &mut |row| rows.push(row))?;
                    Ok(rows)
                },
            )?;
            // The run has its own file, whoever computed what is in it.
            for row in rows {
                let place = (row.row, row.response);
                if let Some(store) = store.as_mut().filter(|_| computed.is_wanted(place)) {
                    store.append(&row)?;
                }
                table.set(place, row.response_logp, row.prompt_logp);
            }
        } else {
            self.compute(set, &mut table, &mut store, &mut |_| ())?;
        }
        if let Some(store) = &mut store {
            store.sync()?;
        }
        Ok(table.into())
    }

    /// Computes and stores the log-probs that are wanted, some of the sequences after the other.
    fn compute(
        &mut self,
        set: &dyn PromptList,
        table: &mut LogpsTable,
        store: &mut Option<ReferenceStore>,
        take: &mut dyn FnMut(ReferenceRow),
    ) -> Outcome {
        let wanted = table.wanted();
        if wanted == 0 {
            return Ok(());
        }
        let model = match &self.model {
            Some(model) => model,
            None => {
                let model = load_reference(self.session, self.config, &self.prepared.encoder, self.reference)?;
                self.model.insert(model)
            }
        };
        let start = Instant::now();
        let mut meter = Meter::new(self.session, wanted, "reference", "responses");
        let (mut done, mut tokens) = (0, 0);
        let batch_tokens = pass_tokens(self.config.train.micro_batch);
        let scored = score_parts(&self.session.devices, model, set, batch_tokens, table, &mut |row, length| {
            done += 1;
            tokens += length;
            meter.reach(done);
            if let Some(store) = store.as_mut() {
                store.append(&row)?;
            }
            take(row);
            Ok(())
        });
        meter.finish();
        scored?;
        if !self.session.quiet {
            let seconds = start.elapsed().as_secs_f64();
            log::info!(
                "reference log-probabilities of {wanted} responses in {seconds:.2} seconds, {:.0} tokens/s",
                tokens as f64 / seconds.max(1e-9)
            );
        }
        Ok(())
    }

    /// Returns everything that decides the log-probs, for trials that share them. Prompts are numbered as the method has them, so their order counts.
    fn shared_key(&self, set: &dyn PromptList, table: &LogpsTable) -> Outcome<Value> {
        let mut sequences = SequencesHash::default();
        for (number, prompt) in set.iter().enumerate() {
            let prompt = prompt?;
            let used = prompt.prompt().sequences.iter().enumerate();
            used.filter(|(response, _)| table.is_used((number, *response)))
                .for_each(|(_, sequence)| sequences.add(sequence));
        }
        Ok(json!({
            "setpoint": env!("CARGO_PKG_VERSION"),
            "model": self.hash.clone().map_or_else(|| setup::model_hash(self.reference), Ok)?,
            "precision": format!("{} on {:?}", precision(&self.config.model), self.session.device()),
            "batch_tokens": pass_tokens(self.config.train.micro_batch),
            "places": table.used().collect::<Vec<Place>>(),
            "sequences": sequences.finish(),
        }))
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

//! The reference model's log-probabilities: computed once, kept in the run folder, and the model gone before the policy trains.

use std::path::{Path, PathBuf};
use std::time::Instant;

use setpoint_train::{ReferenceKey, ReferenceRow, ReferenceStore, Sequence, score_each};
use setpoint_transformer::CausalLm;

use super::prepare::{Prepared, PreparedSet};
use super::settings::AlignConfig;
use crate::config::sections::ModelSection;
use crate::failure::Outcome;
use crate::progress;
use crate::recipes::{Session, setup};
use crate::tasks::{ScoredPrompt, pass_tokens};

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
        // (prompt, response) of everything that is not stored.
        let pairs = self.pairs;
        let wanted = |prompt: &ScoredPrompt, j: usize| !pairs || prompt.pairs.iter().any(|&(w, l)| w == j || l == j);
        let places: Vec<(usize, usize)> = set
            .iter()
            .enumerate()
            .flat_map(|(i, prompt)| (0..prompt.sequences.len()).map(move |j| (i, j)))
            .filter(|&(i, j)| wanted(&set[i], j))
            .filter(|&(i, j)| store.as_ref().is_none_or(|s| s.get(i, j).is_none()))
            .collect();
        let sequences: Vec<Sequence> = places.iter().map(|&(i, j)| set[i].sequences[j].clone()).collect();
        let mut prompts = set.to_vec();
        for prompt in &mut prompts {
            prompt.ref_logps = vec![f64::NAN; prompt.sequences.len()];
        }
        if !sequences.is_empty() {
            let batch_tokens = pass_tokens(self.config.train.micro_batch);
            let model = match &self.model {
                Some(model) => model,
                None => {
                    let section = ModelSection {
                        path: Some(self.reference.to_owned()),
                        from_scratch: None,
                        ..self.config.model.clone()
                    };
                    let shape = setup::model_config(&section, &self.prepared.encoder)?;
                    self.model.insert(setup::policy(&section, &shape, 0, &self.session.device)?)
                }
            };
            let start = Instant::now();
            let bar = progress::bar(sequences.len(), "reference", self.session.quiet);
            let scored = score_each(model, &sequences, batch_tokens, &mut |at, score| {
                bar.inc(1);
                let (i, j) = places[at];
                prompts[i].ref_logps[j] = score.response_logp;
                prompts[i].ref_prompt_logp = score.prompt_logp;
                match &mut store {
                    None => Ok(()),
                    Some(store) => store.append(ReferenceRow {
                        row: i,
                        response: j,
                        prompt_tokens: score.prompt_tokens,
                        response_tokens: score.response_tokens,
                        prompt_logp: score.prompt_logp,
                        response_logp: score.response_logp,
                    }),
                }
            });
            bar.finish_and_clear();
            scored?;
            if !self.session.quiet {
                let tokens: usize = sequences.iter().map(|sequence| sequence.ids.len()).sum();
                let seconds = start.elapsed().as_secs_f64();
                progress::note(format!(
                    "reference log-probabilities of {} responses in {seconds:.2} seconds, {:.0} tokens/s",
                    sequences.len(),
                    tokens as f64 / seconds.max(1e-9)
                ));
            }
        }
        if let Some(store) = store {
            store.sync()?;
            // What is used is what is stored, so that a resumed run uses the same bits.
            for (i, prompt) in prompts.iter_mut().enumerate() {
                for j in 0..prompt.sequences.len() {
                    if let Some(row) = store.get(i, j) {
                        prompt.ref_logps[j] = row.response_logp;
                        if j == 0 {
                            prompt.ref_prompt_logp = row.prompt_logp;
                        }
                    }
                }
            }
        }
        Ok(prompts)
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

//! From the configuration to prompts with rewards, and every check of the input on the way.

use std::path::{Path, PathBuf};

use setpoint_align::{FittedTransform, PromptRewards, PromptTerm, chosen_rewards};
use setpoint_data::{DatasetConfig, EncodeReport, Example, T0, TextEncoder, content_hash};
use setpoint_train::{MicroBatch, ReferenceKey, ReferenceRow, ReferenceStore, Sequence, score_each};
use setpoint_transformer::{CausalLm, ModelConfig};

use super::settings::{AlignConfig, DroSection, Method, T0Name, T0Setting};
use crate::config::sections::ModelSection;
use crate::failure::{Failure, Outcome};
use crate::progress;
use crate::recipes::{Session, setup};
use crate::tasks::ScoredPrompt;

/// Everything that is known before weights are read.
pub struct Prepared {
    /// Tokenizer and template.
    pub encoder: TextEncoder,
    /// The shape of the policy.
    pub model_config: ModelConfig,
    /// Training data.
    pub train: PreparedSet,
    /// Held-out data.
    pub eval: Option<PreparedSet>,
    /// What was dropped, cut or merged in the training data.
    pub report: EncodeReport,
}

/// One data set: prompts without their reference log-probs.
pub struct PreparedSet {
    /// Prompts with rewards; the reference log-probs are still missing.
    pub prompts: Vec<ScoredPrompt>,
    /// Hash of the examples as tokens.
    pub hash: String,
}

impl Prepared {
    /// The level of the targets, in nats.
    pub fn log_z0(&self, dro: &DroSection) -> Outcome<f64> {
        let rewards: Vec<PromptRewards> = self.train.prompts.iter().enumerate().map(prompt_rewards).collect();
        Ok(dro.level().resolve(dro.beta, &chosen_rewards(&rewards))?)
    }

    /// Identity of what the training settings do not say.
    pub fn fingerprint(&self, config: &AlignConfig, reference: &Path) -> Outcome<String> {
        let model = config.model.path.as_deref().map(setup::model_hash).transpose()?.unwrap_or_default();
        let reference = setup::model_hash(reference)?;
        let objective = serde_json::to_string(&config.align)?;
        Ok(setup::text_hash(&[model, reference, self.train.hash.clone(), objective].join("\n")))
    }
}

fn prompt_rewards((row, prompt): (usize, &ScoredPrompt)) -> PromptRewards {
    PromptRewards::new(row, prompt.rewards.clone()).with_labels(prompt.roles.clone())
}

/// Reads, encodes and checks the data.
pub fn prepare(session: &Session, config: &AlignConfig) -> Outcome<Prepared> {
    let encoder = setup::encoder(&config.model)?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let (train, report) = read_set(session, config, &config.data, &encoder, "training data")?;
    let (train, transform) = score(config, train, None)?;
    let eval = match &config.eval_data {
        None => None,
        Some(data) => {
            let (eval, _) = read_set(session, config, data, &encoder, "evaluation data")?;
            Some(score(config, eval, transform.as_ref())?.0)
        }
    };
    Ok(Prepared { encoder, model_config, train, eval, report })
}

/// Examples as tokens, each with the length of t0.
struct ReadSet {
    examples: Vec<Example>,
    t0: usize,
}

fn read_set(
    session: &Session,
    config: &AlignConfig,
    data: &DatasetConfig,
    encoder: &TextEncoder,
    what: &str,
) -> Outcome<(ReadSet, EncodeReport)> {
    let encoded = setup::examples(data, &config.encode, encoder, what, session)?;
    let t0 = match &config.align {
        Method::Dpo(_) => 1,
        // Without the prompt term no prompt's log-ratio is used, and t0 decides nothing.
        Method::Dro(dro) if dro.prompt_term == PromptTerm::Off => 1,
        Method::Dro(dro) => {
            let rule = match dro.t0 {
                T0Setting::Named(T0Name::FirstToken) => T0::FirstToken,
                T0Setting::Named(T0Name::CommonPrefix) => T0::CommonPrefix,
                T0Setting::Tokens(n) => T0::Tokens(n),
            };
            rule.resolve(&encoded.examples).map_err(|e| {
                Failure::from(e).hint(
                    "DRO derives every prompt's normaliser from a beginning that all prompts share: use a template or a \
                     tokenizer that begins with a fixed token, or do without with align.prompt_term = \"off\"",
                )
            })?
        }
    };
    Ok((ReadSet { examples: encoded.examples, t0 }, encoded.report))
}

/// Gives each response its role and its transformed reward. The transform is fitted on the training data.
fn score(
    config: &AlignConfig,
    set: ReadSet,
    fitted: Option<&FittedTransform>,
) -> Outcome<(PreparedSet, Option<FittedTransform>)> {
    let hash = content_hash(&set.examples);
    let mut prompts: Vec<ScoredPrompt> = set.examples.iter().map(|example| scored_prompt(example, set.t0)).collect();
    let mut transform = None;
    match &config.align {
        Method::Dro(dro) => {
            for (prompt, example) in prompts.iter().zip(&set.examples) {
                if prompt.rewards.len() < example.responses.len() {
                    return Err(Failure::run(format!(
                        "{}: a response without a reward; DRO needs one for every response",
                        example.source
                    ))
                    .hint("run `setpoint annotate` on the file first, or use a format with rewards"));
                }
            }
            let raw: Vec<PromptRewards> = prompts.iter().enumerate().map(prompt_rewards).collect();
            let fit = match fitted {
                Some(fitted) => fitted.clone(),
                None => dro.reward_transform.fit(&raw, dro.reward_scale)?,
            };
            for (prompt, raw) in prompts.iter_mut().zip(&raw) {
                let applied = fit.apply(raw)?;
                prompt.roles = applied.roles();
                prompt.pair = applied.pair();
                prompt.rewards = applied.rewards;
            }
            transform = Some(fit);
        }
        Method::Dpo(_) => {
            let before = prompts.len();
            for (prompt, example) in prompts.iter_mut().zip(&set.examples) {
                prompt.pair = setup::pair(example);
                if prompt.rewards.len() == prompt.sequences.len() {
                    prompt.roles = prompt_rewards((0, prompt)).roles();
                }
            }
            prompts.retain(|prompt| prompt.pair.is_some());
            if prompts.is_empty() {
                return Err(Failure::run(format!(
                    "{}: none of its {before} rows has a chosen and a rejected response, or two different rewards",
                    config.data.path
                ))
                .hint("DPO trains on pairs: give `chosen` and `rejected` columns, or rewards to form pairs from"));
            }
            if prompts.len() < before {
                progress::note(format!("{} of {before} rows have no pair and are left out", before - prompts.len()));
            }
        }
    }
    Ok((PreparedSet { prompts, hash }, transform))
}

fn scored_prompt(example: &Example, t0: usize) -> ScoredPrompt {
    let rewards: Vec<f64> = example.responses.iter().filter_map(|r| r.reward).collect();
    ScoredPrompt {
        name: example.source.to_string(),
        sequences: sequences(example, t0),
        rewards,
        roles: example.responses.iter().map(|r| r.label.map(setup::role)).collect(),
        pair: None,
        ref_logps: Vec::new(),
        ref_prompt_logp: 0.0,
    }
}

/// An example's responses, each behind its prompt.
pub fn sequences(example: &Example, t0: usize) -> Vec<Sequence> {
    example
        .responses
        .iter()
        .map(|response| Sequence {
            ids: [example.prompt.as_slice(), response.ids.as_slice()].concat(),
            prompt_len: example.prompt.len(),
            scored_from: t0,
        })
        .collect()
}

/// Prompts with their reference log-probs. With a `folder` they are kept there, row by row, and a killed run goes on where it stood; a
/// file that belongs to another model, tokenizer or data set is refused.
pub fn with_reference(
    session: &Session,
    config: &AlignConfig,
    prepared: &Prepared,
    reference: &Path,
    folder: Option<&Path>,
) -> Outcome<(Vec<ScoredPrompt>, Option<Vec<ScoredPrompt>>)> {
    let mut scorer = Scorer { session, config, prepared, reference, model: None, hash: None };
    let train = scorer.score(&prepared.train, folder.map(|f| f.join("reference-train.jsonl")))?;
    let eval = match &prepared.eval {
        None => None,
        Some(set) => Some(scorer.score(set, folder.map(|f| f.join("reference-eval.jsonl")))?),
    };
    Ok((train, eval))
}

/// The reference model, loaded when the first row needs it.
struct Scorer<'a> {
    session: &'a Session,
    config: &'a AlignConfig,
    prepared: &'a Prepared,
    reference: &'a Path,
    model: Option<CausalLm>,
    hash: Option<String>,
}

impl Scorer<'_> {
    fn score(&mut self, set: &PreparedSet, file: Option<PathBuf>) -> Outcome<Vec<ScoredPrompt>> {
        let mut store = match file {
            None => None,
            Some(file) => Some(ReferenceStore::open(file, &self.key(set)?)?),
        };
        // (prompt, response) of everything that is not stored.
        let places: Vec<(usize, usize)> = set
            .prompts
            .iter()
            .enumerate()
            .flat_map(|(i, prompt)| (0..prompt.sequences.len()).map(move |j| (i, j)))
            .filter(|&(i, j)| store.as_ref().is_none_or(|s| s.get(i, j).is_none()))
            .collect();
        let sequences: Vec<Sequence> = places.iter().map(|&(i, j)| set.prompts[i].sequences[j].clone()).collect();
        let mut prompts = set.prompts.clone();
        for prompt in &mut prompts {
            prompt.ref_logps = vec![f64::NAN; prompt.sequences.len()];
        }
        if !sequences.is_empty() {
            let batch_tokens = self.batch_tokens();
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

    fn key(&mut self, set: &PreparedSet) -> Outcome<ReferenceKey> {
        let hash = match &self.hash {
            Some(hash) => hash.clone(),
            None => self.hash.insert(setup::model_hash(self.reference)?).clone(),
        };
        Ok(ReferenceKey {
            model: format!("{hash} {:?}", self.config.model.dtype),
            tokenizer: self.prepared.encoder.fingerprint(),
            examples: set.hash.clone(),
        })
    }

    fn batch_tokens(&self) -> usize {
        match self.config.train.micro_batch {
            MicroBatch::Tokens(tokens) => tokens,
            MicroBatch::Examples(_) => 8192,
        }
    }
}

//! From the configuration to prompts with rewards, and every check of the input on the way.

use std::path::{Path, PathBuf};

use setpoint_align::{FittedTransform, PromptRewards, PromptTerm, Role, chosen_rewards, reward_quantile};
use setpoint_data::{DatasetConfig, EncodeReport, Example, T0, TextEncoder, content_hash};
use setpoint_train::{MicroBatch, ReferenceKey, ReferenceRow, ReferenceStore, Sequence, score_each};
use setpoint_transformer::{CausalLm, ModelConfig};

use super::ensemble;
use super::pairs::pairs;
use super::settings::{AlignConfig, Desirable, DroSection, Method, T0Name, T0Setting};
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
    /// Prompts with another prompt's responses, for KTO's reference point; else empty.
    pub mismatched: Vec<ScoredPrompt>,
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
    pub fn fingerprint(&self, config: &AlignConfig, reference: Option<&Path>) -> Outcome<String> {
        let model = config.model.path.as_deref().map(setup::model_hash).transpose()?.unwrap_or_default();
        let reference = reference.map(setup::model_hash).transpose()?.unwrap_or_default();
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
    let (mut train, transform) = score(config, train, None)?;
    if let Some(method) = config.align.pairwise() {
        ensemble::read(config, &method.ensemble, &encoder, session, &mut train.prompts)?;
    }
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
        _ => 1,
    };
    Ok((ReadSet { examples: encoded.examples, t0 }, encoded.report))
}

/// Gives each response its role, its transformed reward and its pairs. A transform is fitted on the training data.
fn score(
    config: &AlignConfig,
    set: ReadSet,
    fitted: Option<&FittedTransform>,
) -> Outcome<(PreparedSet, Option<FittedTransform>)> {
    let hash = content_hash(&set.examples);
    let mut prompts: Vec<ScoredPrompt> = set.examples.iter().map(|example| scored_prompt(example, set.t0)).collect();
    let about = config.align.about();
    if about.rewards {
        all_rewarded(&prompts, &about.name.to_uppercase())?;
    }
    let (mut transform, mut mismatched) = (None, Vec::new());
    match &config.align {
        Method::Dro(dro) => {
            let raw: Vec<PromptRewards> = prompts.iter().enumerate().map(prompt_rewards).collect();
            let fit = match fitted {
                Some(fitted) => fitted.clone(),
                None => dro.reward_transform.fit(&raw, dro.reward_scale)?,
            };
            for (prompt, raw) in prompts.iter_mut().zip(&raw) {
                let applied = fit.apply(raw)?;
                prompt.roles = applied.roles();
                prompt.pairs = applied.pair().into_iter().collect();
                prompt.rewards = applied.rewards;
            }
            transform = Some(fit);
        }
        Method::Qrpo(_) => {
            for prompt in &mut prompts {
                if prompt.rewards.len() < 2 {
                    return Err(Failure::run(format!(
                        "{}: one response alone; QRPO takes a reward's quantile among the responses of its prompt",
                        prompt.name
                    ))
                    .hint("give every prompt several responses of the reference model: setpoint generate --set generate.samples=6"));
                }
                prompt.roles = prompt_rewards((0, prompt)).roles();
                prompt.rewards =
                    prompt.rewards.iter().map(|&reward| reward_quantile(reward, &prompt.rewards)).collect();
            }
        }
        Method::Kto(kto) => {
            for prompt in &mut prompts {
                desirable(prompt, kto.desirable);
            }
            mismatched = mismatch(&mut prompts, config)?;
        }
        _ => {
            let rule = config.align.pairwise().map(|method| method.pairs).unwrap_or_default();
            let before = prompts.len();
            for (prompt, example) in prompts.iter_mut().zip(&set.examples) {
                prompt.pairs = pairs(rule, example, config.train.seed);
            }
            prompts.retain(|prompt| !prompt.pairs.is_empty());
            if prompts.is_empty() {
                return Err(Failure::run(format!(
                    "{}: none of its {before} rows has a chosen and a rejected response, or two different rewards",
                    config.data.path
                ))
                .hint(format!(
                    "`{}` trains on pairs: give `chosen` and `rejected` columns, or rewards to form pairs from",
                    about.name
                )));
            }
            if prompts.len() < before {
                progress::note(format!("{} of {before} rows have no pair and are left out", before - prompts.len()));
            }
        }
    }
    Ok((PreparedSet { prompts, mismatched, hash }, transform))
}

/// That every response has a reward.
fn all_rewarded(prompts: &[ScoredPrompt], method: &str) -> Outcome {
    match prompts.iter().find(|prompt| prompt.rewards.len() < prompt.sequences.len()) {
        None => Ok(()),
        Some(prompt) => Err(Failure::run(format!(
            "{}: a response without a reward; {method} needs one for every response",
            prompt.name
        ))
        .hint("run `setpoint annotate` on the file first, or use a format with rewards")),
    }
}

/// Which of a prompt's responses are desirable: by label where there is one, else by reward.
fn desirable(prompt: &mut ScoredPrompt, rule: Desirable) {
    if prompt.roles.iter().any(Option::is_some) || prompt.rewards.len() < prompt.sequences.len() {
        return;
    }
    prompt.roles = match rule {
        Desirable::Best => prompt_rewards((0, prompt)).roles(),
        Desirable::Above(least) => {
            let role = |&reward: &f64| Some(if reward > least { Role::Chosen } else { Role::Rejected });
            prompt.rewards.iter().map(role).collect()
        }
    };
}

/// Every prompt with the responses of the one before it (the first with those of the last), as many as it has itself. Prompts without a
/// good or a bad response are dropped first.
fn mismatch(prompts: &mut Vec<ScoredPrompt>, config: &AlignConfig) -> Outcome<Vec<ScoredPrompt>> {
    let before = prompts.len();
    prompts.retain(|prompt| prompt.roles.iter().any(Option::is_some));
    if prompts.len() < 2 {
        return Err(Failure::run(format!(
            "{}: {} of its {before} rows have a good or a bad response; KTO needs two, since it compares with other prompts' responses",
            config.data.path,
            prompts.len()
        ))
        .hint("give responses a label (true or false), or rewards to tell good from bad by"));
    }
    if prompts.len() < before {
        progress::note(format!(
            "{} of {before} rows have neither label nor reward and are left out",
            before - prompts.len()
        ));
    }
    let other = |i: usize| &prompts[(i + prompts.len() - 1) % prompts.len()].sequences;
    let mismatched = prompts.iter().enumerate().map(|(i, prompt)| {
        let others = other(i);
        let sequences = prompt.sequences.iter().enumerate().map(|(j, own)| {
            let response = &others[j % others.len()];
            Sequence { ids: [&own.ids[..own.prompt_len], &response.ids[response.prompt_len..]].concat(), ..own.clone() }
        });
        ScoredPrompt { sequences: sequences.collect(), ..prompt.clone() }
    });
    Ok(mismatched.collect())
}

fn scored_prompt(example: &Example, t0: usize) -> ScoredPrompt {
    let rewards: Vec<f64> = example.responses.iter().filter_map(|r| r.reward).collect();
    ScoredPrompt {
        name: example.source.to_string(),
        sequences: sequences(example, t0),
        rewards,
        ensemble: Vec::new(),
        roles: example.responses.iter().map(|r| r.label.map(setup::role)).collect(),
        pairs: Vec::new(),
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

    fn batch_tokens(&self) -> usize {
        match self.config.train.micro_batch {
            MicroBatch::Tokens(tokens) | MicroBatch::Padded(tokens) => tokens,
            MicroBatch::Examples(_) => 8192,
        }
    }
}

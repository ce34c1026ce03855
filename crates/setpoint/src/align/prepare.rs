//! From the configuration to prompts with rewards, and every check of the input on the way.

use std::path::Path;

use setpoint_align::{
    Error, FittedTransform, LogZ0, PromptRewards, Role, Summary, T0Name, T0Setting, Training, check_targets,
};
use setpoint_data::{DatasetConfig, EncodeOptions, EncodeReport, Example, T0, TextEncoder, Use, Uses, content_hash};
use setpoint_train::Sequence;
use setpoint_transformer::ModelConfig;

use super::desirable::{desirable, good_and_bad};
use super::ensemble;
use super::pairs::pairs;
use super::settings::AlignConfig;
use crate::failure::{Failure, Outcome};
use crate::identity::{Origin, Row, prompt_and_responses};
use crate::session::Session;
use crate::setup;
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
    /// The rows as they were read, for the identity of the run.
    pub rows: Vec<Row>,
}

impl Prepared {
    /// Returns the level of the targets, in nats, and a summary of the rewards to compare it with.
    pub fn level(&self, beta: f64, level: LogZ0) -> Outcome<(f64, Summary)> {
        let rewards = self.train.rewards();
        let all: Vec<f64> = rewards.iter().flat_map(|prompt| prompt.rewards.iter().copied()).collect();
        let log_z0 = level.resolve(beta, &level.basis(&rewards))?;
        Ok((log_z0, Summary::of(&all).ok_or(Error::Empty { what: "the training data" })?))
    }

    /// What the run is made from, before the reference model has scored anything.
    pub fn origin(&self, config: &AlignConfig, reference: Option<&Path>) -> Outcome<Origin> {
        let model = config.model.path.as_deref().map(setup::model_hash).transpose()?.unwrap_or_default();
        let reference_model = match reference {
            Some(path) if config.model.path.as_deref() == Some(path) => model.clone(),
            Some(path) => setup::model_hash(path)?,
            None => String::new(),
        };
        let ensemble: Vec<&Vec<Vec<f64>>> = self.train.prompts.iter().map(|prompt| &prompt.ensemble).collect();
        let ensemble = setup::text_hash(&serde_json::to_string(&ensemble)?);
        let objective = objective_in_version_1(config)?;
        let version_1 = [&model, &reference_model, &self.train.hash, &objective, &ensemble].map(String::as_str);
        let mut origin = Origin::new(config, setup::text_hash(&version_1.join("\n")))?;
        if let Some(path) = &config.model.path {
            origin.model("model.path", path, model);
        }
        if let Some(path) = reference {
            origin.model("reference", path, reference_model);
        }
        origin.encoder(&config.model, &self.encoder);
        origin.data("data", &config.data.path, self.train.rows.clone(), prompt_and_responses)?;
        if let (Some(set), Some(data)) = (&self.eval, &config.eval_data) {
            origin.data("eval_data", &data.path, set.rows.clone(), prompt_and_responses)?;
        }
        origin.ensemble(ensemble);
        Ok(origin)
    }
}

/// The settings of the method as version 1 of a run's identity held them: without those that came later.
fn objective_in_version_1(config: &AlignConfig) -> Outcome<String> {
    const LATER: [&str; 1] = ["preset"];
    let mut settings = serde_json::to_value(&config.align)?;
    if let Some(table) = settings.as_object_mut() {
        table.retain(|key, _| !LATER.contains(&key.as_str()));
    }
    Ok(settings.to_string())
}

impl PreparedSet {
    fn rewards(&self) -> Vec<PromptRewards> {
        self.prompts.iter().enumerate().map(prompt_rewards).collect()
    }

    /// Checks that the rewards can be trained on, before anything long is started.
    fn check_targets(&self, beta: f64, log_z0: f64) -> Outcome {
        check_targets(&self.rewards(), beta, log_z0).map_err(|e| named(e, &self.prompts))
    }
}

/// An error of the objectives' crate, which numbers rows from 0, with the row's place in its file.
pub fn named(error: Error, prompts: &[ScoredPrompt]) -> Failure {
    let name = error.row().and_then(|row| Some((row, &prompts.get(row)?.name)));
    let Some((row, name)) = name else { return error.into() };
    let message = error.to_string().replacen(&format!("row {row}"), name, 1);
    match error {
        Error::LargeReward { .. } | Error::TransformedReward { .. } => Failure::run(message)
            .hint("bring the rewards to an ordinary scale: by align.reward_transform = \"zscore\" where there is one, or in the file"),
        _ => Failure::run(message),
    }
}

pub(super) fn prompt_rewards((row, prompt): (usize, &ScoredPrompt)) -> PromptRewards {
    PromptRewards::new(row, prompt.rewards.clone()).with_labels(prompt.roles.clone())
}

/// Reads, encodes and checks the data.
pub fn prepare(session: &Session, config: &AlignConfig) -> Outcome<Prepared> {
    let encoder = setup::encoder(&config.model)?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let encode = setup::within(&config.encode, &model_config);
    let (train, report) = read_set(session, config, &config.data, &encoder, &encode, "training data")?;
    let train = ReadSet { training: true, ..train };
    let (mut train, transform) = score(config, train, None)?;
    if let Some(method) = config.align.pairwise() {
        ensemble::read(config, &method.reward_files(), &encoder, &encode, session, &mut train.prompts)?;
    }
    let eval = match &config.eval_data {
        None => None,
        Some(data) => {
            let (eval, _) = read_set(session, config, data, &encoder, &encode, "evaluation data")?;
            Some(score(config, eval, transform.as_ref())?.0)
        }
    };
    let prepared = Prepared { encoder, model_config, train, eval, report };
    let (beta, log_z0) = match config.align.targets() {
        Some((beta, level)) => (beta, prepared.level(beta, level)?.0),
        // Their rewards enter the loss as they are.
        None => (1.0, 0.0),
    };
    if config.align.about().rewards {
        for set in [&prepared.train].into_iter().chain(&prepared.eval) {
            set.check_targets(beta, log_z0)?;
        }
    }
    Ok(prepared)
}

/// Examples as tokens.
struct ReadSet {
    /// Where they come from, for messages.
    path: String,
    examples: Vec<Example>,
    /// Whether it is what is trained on.
    training: bool,
    /// The prompts' tokens that are not scored; `None` where no prompt is.
    t0: Option<usize>,
}

fn read_set(
    session: &Session,
    config: &AlignConfig,
    data: &DatasetConfig,
    encoder: &TextEncoder,
    encode: &EncodeOptions,
    what: &str,
) -> Outcome<(ReadSet, EncodeReport)> {
    let data = &setup::looking_at(data, uses(config));
    let encoded = setup::examples(data, encode, encoder, what, session)?;
    let common_prefix = match config.align.training() {
        Training::Prompts(objective) => objective.scored_prompts(),
        Training::Pairs(_) | Training::Rows(_) | Training::RowsWithValue(_) => None,
    };
    let t0 = match common_prefix {
        Some(t0) => {
            let rule = match t0 {
                T0Setting::Named(T0Name::FirstToken) => T0::FirstToken,
                T0Setting::Named(T0Name::CommonPrefix) => T0::CommonPrefix,
                T0Setting::Tokens(n) => T0::Tokens(n),
            };
            let t0 = rule.resolve(&encoded.examples).map_err(|e| {
                Failure::from(e).hint(
                    "the prompt term derives every prompt's normaliser from a beginning that all prompts share: let text prompts \
                     become user turns of a chat template (data.text_prompts = \"user\", and model.template where the model has \
                     none), use a tokenizer that begins with a fixed token, or do without, as is the default, with \
                     align.prompt_term = \"off\"",
                )
            })?;
            Some(t0)
        }
        None => config.align.scores_prompts().then_some(1),
    };
    Ok((ReadSet { path: data.path.clone(), examples: encoded.examples, training: false, t0 }, encoded.report))
}

/// The optional columns that a method looks at.
fn uses(config: &AlignConfig) -> Uses {
    match config.align.training() {
        Training::Rows(objective) if objective.desirable().is_some() => Uses { labels: Use::Always, ..Uses::PAIRS },
        _ if config.align.about().rewards => Uses { rewards: Use::Always, ..Uses::PAIRS },
        _ => Uses::PAIRS,
    }
}

/// Gives each response its role, its transformed reward and its pairs. A transform is fitted on the training data.
fn score(
    config: &AlignConfig,
    set: ReadSet,
    fitted: Option<&FittedTransform>,
) -> Outcome<(PreparedSet, Option<FittedTransform>)> {
    let hash = content_hash(&set.examples);
    let rows = Row::of_examples(&set.examples);
    let mut prompts: Vec<ScoredPrompt> = set.examples.iter().map(|example| scored_prompt(example, set.t0)).collect();
    let about = config.align.about();
    if about.rewards {
        all_rewarded(&prompts, &about.name.to_uppercase())?;
    }
    let (mut transform, mut mismatched) = (None, Vec::new());
    match config.align.training() {
        Training::Prompts(objective) => {
            let (rule, scale) = objective.reward_transform();
            let raw: Vec<PromptRewards> = prompts.iter().enumerate().map(prompt_rewards).collect();
            let fit = match fitted {
                Some(fitted) => fitted.clone(),
                None => rule.fit(&raw, scale).map_err(|e| named(e, &prompts))?,
            };
            let applied: Result<Vec<PromptRewards>, Error> = raw.iter().map(|raw| fit.apply(raw)).collect();
            let applied = applied.map_err(|e| named(e, &prompts))?;
            for (prompt, applied) in prompts.iter_mut().zip(applied) {
                prompt.roles = applied.roles();
                prompt.pairs = applied.pair().into_iter().collect();
                prompt.rewards = applied.rewards;
            }
            transform = Some(fit);
        }
        Training::Rows(objective) => {
            for prompt in &mut prompts {
                match objective.desirable() {
                    Some(rule) => desirable(prompt, rule),
                    None => prompt.roles = prompt_rewards((0, prompt)).roles(),
                }
                if about.rewards {
                    let rewards = objective.rewards(&prompt.rewards);
                    prompt.rewards = rewards.map_err(|lack| {
                        Failure::run(format!("{}: {lack}", prompt.name)).hint(
                            "give every prompt several responses of the reference model: setpoint generate --set generate.samples=6",
                        )
                    })?;
                }
            }
            if objective.baseline().is_some() {
                mismatched = mismatch(&mut prompts, &set.path, about.name)?;
            }
            if let (true, Some(rule)) = (set.training, objective.desirable()) {
                good_and_bad(&prompts, &set.examples, &set.path, rule, about.name)?;
            }
        }
        Training::RowsWithValue(_) => {
            for prompt in &mut prompts {
                prompt.roles = prompt_rewards((0, prompt)).roles();
            }
        }
        Training::Pairs(method) => {
            let before = prompts.len();
            for (prompt, example) in prompts.iter_mut().zip(&set.examples) {
                prompt.pairs = pairs(method.pairs, example, config.train.seed);
            }
            prompts.retain(|prompt| !prompt.pairs.is_empty());
            if prompts.is_empty() {
                return Err(Failure::run(format!(
                    "{}: none of its {before} rows has a chosen and a rejected response, or two different rewards",
                    set.path
                ))
                .hint(format!(
                    "`{}` trains on pairs: give `chosen` and `rejected` columns, or rewards to form pairs from",
                    about.name
                )));
            }
            if prompts.len() < before {
                log::info!("{} of {before} rows have no pair and are left out", before - prompts.len());
            }
        }
    }
    Ok((PreparedSet { prompts, mismatched, hash, rows }, transform))
}

/// That every response has a reward.
fn all_rewarded(prompts: &[ScoredPrompt], method: &str) -> Outcome {
    match prompts.iter().find(|prompt| prompt.rewards.len() < prompt.sequences.len()) {
        None => Ok(()),
        Some(prompt) => {
            let has = |role| prompts.iter().any(|prompt| prompt.roles.contains(&Some(role)));
            let is_pair = |prompt: &ScoredPrompt| {
                [Role::Chosen, Role::Rejected].iter().all(|role| prompt.roles.contains(&Some(*role)))
            };
            let other = match () {
                () if prompts.iter().any(is_pair) => {
                    "; pairs without rewards are enough for other methods, as in --set align.method=dpo"
                }
                () if has(Role::Chosen) && has(Role::Rejected) => {
                    "; labels without rewards are enough for --set align.method=kto"
                }
                () => "",
            };
            Err(Failure::run(format!(
                "{}: a response without a reward; {method} needs one for every response",
                prompt.name
            ))
            .hint(format!("run `setpoint annotate` on the file first, or use a format with rewards{other}")))
        }
    }
}

/// Every prompt with the responses of the nearest other prompt before it (the first with those of the last), as many as it has itself.
/// Prompts without a good or a bad response are dropped first.
fn mismatch(prompts: &mut Vec<ScoredPrompt>, path: &str, method: &str) -> Outcome<Vec<ScoredPrompt>> {
    let before = prompts.len();
    prompts.retain(|prompt| prompt.roles.iter().any(Option::is_some));
    let text = |i: usize| {
        let first: &Sequence = &prompts[i].sequences[0];
        &first.ids[..first.prompt_len]
    };
    if (1..prompts.len()).all(|i| text(i) == text(0)) {
        return Err(Failure::run(format!(
            "{path}: {} of its {before} rows have a good or a bad response, and all of those the same prompt; {} needs two prompts, since \
             it compares with other prompts' responses",
            prompts.len(),
            method.to_uppercase()
        ))
        .hint("give responses a label (true or false), or rewards to tell good from bad by"));
    }
    if prompts.len() < before {
        log::info!("{} of {before} rows have neither label nor reward and are left out", before - prompts.len());
    }
    // Rows of the same prompt often stand together.
    let n = prompts.len();
    let other = |i: usize| {
        let before = (1..n).map(|back| (i + n - back) % n);
        let nearest = before.into_iter().find(|&k| text(k) != text(i)).unwrap_or(i);
        &prompts[nearest].sequences
    };
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

fn scored_prompt(example: &Example, t0: Option<usize>) -> ScoredPrompt {
    let rewards: Vec<f64> = example.responses.iter().filter_map(|r| r.reward).collect();
    let roles: Vec<Option<Role>> = example.responses.iter().map(|r| r.label.map(setup::role)).collect();
    ScoredPrompt {
        name: example.source.to_string(),
        sequences: setup::sequences(example, t0),
        rewards,
        ensemble: Vec::new(),
        labelled: roles.iter().any(Option::is_some),
        roles,
        pairs: Vec::new(),
        ref_logps: Vec::new(),
        ref_prompt_logp: 0.0,
    }
}

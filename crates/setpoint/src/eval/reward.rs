//! `setpoint eval` without a benchmark's name: a policy against a baseline under a reward model, and on held-out pairs.

use std::path::PathBuf;

use burn::tensor::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use setpoint_data::{
    DatasetConfig, EncodeOptions, Example, Prompt, Record, ResponseEnd, TextEncoder, Uses, counted, load_records,
};
use setpoint_eval::{Bootstrap, Manifest, content_digest, kl_estimates, mean, pair_accuracy, win_rate};
use setpoint_reward::RewardSource;
use setpoint_train::Sequence;
use setpoint_transformer::{CausalLm, Finish};

use super::judging::{Judge, judged, rewards_key};
use super::result;
use super::reward_report::{Answered, EvalReport, PairReport};
use crate::annotate;
use crate::config::flat::flat_section;
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, Wanted, validate_data, validate_encode};
use crate::config::{Config, Problems};
use crate::failure::{Failure, Outcome};
use crate::generate::{SamplingSection, sample, warn_of_identical};
use crate::scoring::{score, score_diverging, score_keeping};
use crate::session::Session;
use crate::setup;
use crate::setup::Reading;
use crate::sources::{self, Judges, ModelSettings};

/// Settings of `setpoint eval`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", deny_unknown_fields)]
#[schemars(rename = "EvalConfig")]
pub struct EvalConfig {
    /// The policy.
    pub model: ModelSection,
    /// The model that the policy is compared with, usually the SFT model it was aligned from.
    pub baseline: ModelSection,
    /// The reward model that judges; or another source of rewards.
    pub reward: ModelSection,
    /// The other sources that can judge, `rule` and so on.
    #[serde(flatten, skip_deserializing)]
    pub judges: Judges,
    /// Rows whose prompts are answered by both.
    pub data: DatasetConfig,
    /// Held-out pairs, for the accuracy of the implicit reward and the log-ratios.
    pub pairs: Option<DatasetConfig>,
    /// The conversion of rows to tokens.
    pub encode: EncodeOptions,
    /// The sampling of both models.
    pub generate: SamplingSection,
    /// The number of resamples of the bootstrap.
    #[schemars(range(min = 100))]
    pub resamples: usize,
    /// Confidence level of the intervals.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub level: f64,
    /// Tokens in one forward pass.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub batch_tokens: usize,
    /// The JSON file to write.
    pub output: Option<PathBuf>,
}

flat_section!(EvalConfig, judges: Judges, after "reward");

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            baseline: ModelSection::default(),
            reward: ModelSection::default(),
            judges: Judges::default(),
            data: DatasetConfig::new(""),
            pairs: None,
            encode: EncodeOptions { max_length: None, max_prompt_length: None, ..EncodeOptions::default() },
            generate: SamplingSection { temperature: Some(1.0), samples: Some(1), ..SamplingSection::default() },
            resamples: 10_000,
            level: 0.95,
            batch_tokens: 8192,
            output: None,
        }
    }
}

impl Config for EvalConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::LanguageModel, problems);
        self.baseline.validate("baseline", Wanted::LanguageModel, problems);
        let model = ModelSettings::raw(&self.reward);
        let entries = sources::with_model("reward", &model, self.judges.entries());
        sources::require_chosen("source of rewards", "", "reward.path", &entries, problems);
        sources::validate("", &entries, ("give one judge", None), problems);
        validate_data(&self.data, "data", problems);
        validate_encode(&self.encode, problems);
        if let Some(pairs) = &self.pairs {
            validate_data(pairs, "pairs", problems);
        }
        validate_output(self.output.as_ref(), Target::File, problems);
        self.generate.validate("generate", problems);
        problems.require(self.resamples >= 100, "resamples", "must be at least 100");
        problems.require(self.level > 0.0 && self.level < 1.0, "level", "must lie between 0 and 1");
        problems.require(self.batch_tokens > 0, "batch_tokens", "must be at least 1");
    }
}

/// The data of an evaluation, read and checked.
pub struct EvalData {
    /// The policy's and the baseline's tokenizer and template.
    pub encoder: TextEncoder,
    /// The reward model's, where one judges.
    pub reward_encoder: Option<TextEncoder>,
    /// The place at which the reward model reads the score.
    pub reading: Option<Reading>,
    /// Rows whose prompts are answered.
    pub prompts: Vec<Record>,
    /// The same as the reward model sees them, where one judges.
    pub judged_prompts: Vec<Record>,
    /// The tokens of the prompts.
    pub prompt_ids: Vec<Vec<u32>>,
    pairs: Vec<Example>,
}

/// Collects the inputs that decide the figures. The baseline is what both are compared with, so it is part of it.
fn manifest(config: &EvalConfig, judge: Judge<'_>, data: &EvalData) -> Outcome<Manifest> {
    let prompts: Vec<String> = data.prompts.iter().map(|r| annotate::prompt_text(&r.prompt)).collect();
    let digest = content_digest(prompts.iter().map(String::as_str));
    let fingerprint = data.encoder.fingerprint();
    let mut manifest = result::manifest("reward", result::identity(&config.model, None, fingerprint.clone())?, digest);
    manifest.baseline = Some(result::identity(&config.baseline, None, fingerprint)?);
    let model_config = setup::model_config(&config.model, &data.encoder)?;
    let settings = config.generate.resolve(&config.model, &model_config, &data.encoder)?;
    manifest.decoding = super::answers::decoding(&settings, config.generate.seed);
    manifest.judge = match &data.reward_encoder {
        Some(encoder) => json!({ "reward_model": result::identity(&config.reward, None, encoder.fingerprint())? }),
        None => judge.identity()?,
    };
    manifest.scoring = json!({ "samples": config.generate.samples.unwrap_or(1) });
    Ok(manifest)
}

/// Checks everything that can be checked without sampling, and returns what would be sampled, in a sentence.
///
/// # Errors
/// Everything of [`report`] that can be found without the weights.
pub fn dry_run(session: &Session, config: &EvalConfig) -> Outcome<String> {
    let data = read(session, config)?;
    Ok(format!(
        "{}, {} each by both models, {}",
        counted(data.prompts.len(), "prompt"),
        counted(config.generate.samples.unwrap_or(1), "sample"),
        counted(data.pairs.len(), "pair")
    ))
}

fn read(session: &Session, config: &EvalConfig) -> Outcome<EvalData> {
    let encoder = setup::encoder(&config.model)?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let settings = config.generate.resolve(&config.model, &model_config, &encoder)?;
    warn_of_identical(&settings, config.generate.samples.unwrap_or(1));
    let baseline = setup::encoder(&config.baseline)?;
    setup::model_config(&config.baseline, &baseline)?;
    if !encoder.agrees_with(&baseline) {
        return Err(Failure::run("the policy and the baseline have different tokenizers or templates, so their log-probabilities are not comparable")
            .hint("compare with the model that the policy was aligned from, or set model.tokenizer and baseline.tokenizer"));
    }
    let reward_encoder = match &config.reward.path {
        Some(_) => Some(setup::encoder(&config.reward)?),
        None => None,
    };
    let reading = match &reward_encoder {
        Some(encoder) => Some(Reading::of(&config.reward, encoder, ResponseEnd::Auto)?),
        None => None,
    };
    let (mut prompts, read) = load_records(&setup::looking_at(&config.data, Uses::PROMPT))?;
    setup::note_left_out("prompts", &read);
    if prompts.is_empty() {
        return Err(Failure::run(format!("{} holds no rows", config.data.name())));
    }
    let (_, prompt_ids) = setup::prompts(&prompts, &config.data, &encoder, "prompts", session)?;
    for section in [&config.model, &config.baseline] {
        let shape = setup::model_config(section, &encoder)?;
        let settings = config.generate.resolve(section, &shape, &encoder)?;
        setup::check_room(&prompts, &prompt_ids, &settings, None, &shape)?;
    }
    if reward_encoder.is_none() {
        // A rule may compare with any column, an answer that the format knows as a response for example.
        let fields = annotate::fields::of_rows(&config.data, &prompts)?;
        prompts.iter_mut().zip(fields).for_each(|(record, fields)| record.extra = fields);
    }
    let judged_prompts = match &reward_encoder {
        Some(encoder) => setup::seen(&prompts, &config.data, encoder),
        None => Vec::new(),
    };
    let pairs = match &config.pairs {
        None => Vec::new(),
        Some(pairs) => {
            setup::examples(&setup::looking_at(pairs, Uses::PAIRS), &config.encode, &encoder, "pairs", session)?
                .examples
        }
    };
    Ok(EvalData { encoder, reward_encoder, reading, prompts, judged_prompts, prompt_ids, pairs })
}

/// One model's samples and everything known of them.
#[derive(Serialize, Deserialize)]
pub struct Answers {
    /// One list per prompt.
    pub ids: Vec<Vec<Vec<u32>>>,
    truncated: usize,
}

impl Answers {
    fn of(
        session: &Session,
        model: &CausalLm,
        section: &ModelSection,
        config: &EvalConfig,
        data: &EvalData,
    ) -> Outcome<Self> {
        let model_config = setup::model_config(section, &data.encoder)?;
        let settings = config.generate.resolve(section, &model_config, &data.encoder)?;
        let samples = config.generate.samples.unwrap_or(1);
        let rows = sample(session, model, &data.prompt_ids, &settings, config.generate.seed, samples)?;
        let truncated = rows.iter().flatten().filter(|g| g.finish == Finish::Length).count();
        let ids = rows.into_iter().map(|row| row.into_iter().map(|g| g.ids).collect()).collect();
        Ok(Self { ids, truncated })
    }

    fn mean_tokens(&self) -> f64 {
        let lengths: Vec<usize> = self.ids.iter().flatten().map(Vec::len).collect();
        lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64
    }

    /// Returns the mean length of each prompt's answers, tokens.
    fn lengths(&self) -> Vec<f64> {
        let length = |row: &Vec<Vec<u32>>| row.iter().map(Vec::len).sum::<usize>() as f64 / row.len().max(1) as f64;
        self.ids.iter().map(length).collect()
    }

    /// Returns the mean over each prompt's answers of what was computed for each of [`sequences`](Self::sequences). An answer without a token
    /// counts as 0.
    fn by_prompt(&self, values: &[f64]) -> Vec<f64> {
        let mut rest = values.iter();
        let mean = |row: &Vec<Vec<u32>>| {
            let answered = row.iter().filter(|answer| !answer.is_empty()).count();
            rest.by_ref().take(answered).sum::<f64>() / row.len().max(1) as f64
        };
        self.ids.iter().map(mean).collect()
    }

    fn sequences(&self, data: &EvalData) -> Vec<Sequence> {
        let prompts = data.prompt_ids.iter().zip(&self.ids);
        prompts
            .flat_map(|(prompt, answers)| answers.iter().filter(|a| !a.is_empty()).map(move |answer| (prompt, answer)))
            .map(|(prompt, answer)| Sequence {
                ids: [prompt.as_slice(), answer.as_slice()].concat(),
                prompt_len: prompt.len(),
                scored_from: prompt.len(),
            })
            .collect()
    }
}

/// Samples from both models, scores the samples by the source that the settings choose, and compares them.
///
/// # Errors
/// When the settings choose no source, when a model or the data cannot be read or do not fit, and when an answer cannot be scored.
pub fn report(session: &Session, config: &EvalConfig) -> Outcome<EvalReport> {
    let model = ModelSettings::raw(&config.reward);
    let chosen = sources::chosen(("reward", &model), &config.judges.entries())
        .ok_or_else(|| Failure::usage("reward.path", "no judge"))?;
    compare(session, config, Judge::Chosen(chosen))
}

/// Samples from both models, scores the samples by a source of the caller's, and compares them. A source that reads tokens gets those of
/// the models that are compared.
///
/// # Errors
/// When the settings choose a source as well; else those of [`report`].
pub fn report_with(session: &Session, config: &EvalConfig, source: &dyn RewardSource) -> Outcome<EvalReport> {
    let model = ModelSettings::raw(&config.reward);
    if let Some((key, settings)) = sources::chosen(("reward", &model), &config.judges.entries()) {
        let message = "the program brings a source of rewards: leave out that of the settings";
        return Err(Failure::usage(settings.chosen_by(key), message));
    }
    compare(session, config, Judge::Own(source))
}

fn compare(session: &Session, config: &EvalConfig, judge: Judge<'_>) -> Outcome<EvalReport> {
    let data = read(session, config)?;
    let load = |section: &ModelSection, device: &Device| -> Outcome<CausalLm> {
        let model_config = setup::model_config(section, &data.encoder)?;
        setup::policy(session, section, &model_config, 0, device)
    };
    let policy = load(&config.model, session.device())?;
    let answers = Answers::of(session, &policy, &config.model, config, &data)?;
    let own = answers.sequences(&data);
    let pair_sequences: Vec<Sequence> = data.pairs.iter().flat_map(|e| setup::sequences(e, None)).collect();
    let score = |model: &CausalLm, what: &str, rows: &[Sequence]| -> Outcome<Vec<f64>> {
        let scores = score(session, (what, "responses"), model, rows, &vec![1; rows.len()], config.batch_tokens)?;
        Ok(scores.iter().map(|s| s.response_logp).collect())
    };
    let what = ("policy's log-probs of answers", "responses");
    let (scores, predictions) = score_keeping(session, what, &policy, &own, config.batch_tokens)?;
    let policy_logps: Vec<f64> = scores.iter().map(|s| s.response_logp).collect();
    let policy_pairs = score(&policy, "policy's log-probs of pairs", &pair_sequences)?;
    drop(policy);
    let baseline = load(&config.baseline, session.device())?;
    // What the baseline does by itself is the same for every policy that is compared with it.
    let alone = || {
        let answers = Answers::of(session, &baseline, &config.baseline, config, &data)?;
        Ok((answers, score(&baseline, "baseline's log-probs of pairs", &pair_sequences)?))
    };
    let key = || baseline_key(session, config, &data, &pair_sequences);
    let (baseline_answers, baseline_pairs): (Answers, Vec<f64>) = session.once("baseline", key, alone)?;
    let what = "baseline's log-probs of answers";
    let (baseline_logps, divergences): (Vec<f64>, Option<Vec<f64>>) = if predictions.fits(&baseline) {
        let found = score_diverging(session, (what, "responses"), &baseline, &predictions, &own)?;
        (found.iter().map(|d| d.scored.response_logp).collect(), Some(found.iter().map(|d| d.kl).collect()))
    } else {
        log::warn!(
            "the heads of the policy and the baseline have different numbers of rows: the KL is estimated from the sampled tokens alone"
        );
        (score(&baseline, what, &own)?, None)
    };
    drop((baseline, predictions));

    let source = judge.open(session, config, &data)?;
    let source = source.as_ref();
    let rewards = judged(session, source, &answers, &data)?;
    let key = || rewards_key(session, config, judge, &data, &baseline_answers);
    let baseline_rewards =
        session.once("baseline-rewards", key, || judged(session, source, &baseline_answers, &data))?;
    let rows = data.prompts.iter().map(|record| &record.source);
    source.finish().map_err(|error| sources::failure(session, error, rows))?;
    let bootstrap = Bootstrap { resamples: config.resamples, level: config.level, ..Bootstrap::default() };
    let pairs = if data.pairs.is_empty() {
        None
    } else {
        Some(pair_report(&data.pairs, &policy_pairs, &baseline_pairs, &bootstrap)?)
    };
    let manifest = manifest(config, judge, &data)?;
    let answered: usize = answers.ids.iter().map(Vec::len).sum();
    let sampled = kl_estimates(&policy_logps, &baseline_logps)?;
    let kl = divergences.as_ref().map_or(Ok(sampled), |divergences| sampled.with_exact(divergences))?;
    let log_ratios: Vec<f64> = policy_logps.iter().zip(&baseline_logps).map(|(policy, base)| policy - base).collect();
    Ok(EvalReport {
        prompts: data.prompts.len(),
        samples: config.generate.samples.unwrap_or(1),
        reward: mean(&rewards),
        baseline_reward: mean(&baseline_rewards),
        win_rate: win_rate(&rewards, &baseline_rewards, &bootstrap)?,
        kl,
        tokens: answers.mean_tokens(),
        baseline_tokens: baseline_answers.mean_tokens(),
        truncated: answers.truncated as f64 / answered.max(1) as f64,
        pairs,
        rewards,
        baseline_rewards,
        kls: answers.by_prompt(divergences.as_deref().unwrap_or(&log_ratios)),
        lengths: answers.lengths(),
        log_ratios,
        divergences: divergences.unwrap_or_default(),
        answered: answered_texts(&data, &answers, &baseline_answers)?,
        manifest: Some(manifest),
    })
}

/// Returns the answers of both models as text, prompt by prompt.
fn answered_texts(data: &EvalData, policy: &Answers, baseline: &Answers) -> Outcome<Vec<Answered>> {
    let texts = |prompt: &[u32], row: &[Vec<u32>]| -> Outcome<Vec<String>> {
        row.iter().map(|answer| setup::answer_text(&data.encoder, prompt, answer)).collect()
    };
    let rows = data.prompts.iter().zip(&data.prompt_ids).zip(policy.ids.iter().zip(&baseline.ids));
    rows.map(|((record, prompt), (policy, baseline))| {
        let question = match &record.prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Messages(messages) => messages.last().map_or_else(String::new, |last| last.content.clone()),
        };
        Ok(Answered { question, policy: texts(prompt, policy)?, baseline: texts(prompt, baseline)? })
    })
    .collect()
}

/// Collects the inputs that decide the baseline's answers and its log-probs of the pairs.
fn baseline_key(session: &Session, config: &EvalConfig, data: &EvalData, pairs: &[Sequence]) -> Outcome<Value> {
    let model_config = setup::model_config(&config.baseline, &data.encoder)?;
    let settings = config.generate.resolve(&config.baseline, &model_config, &data.encoder)?;
    Ok(json!({
        "setpoint": env!("CARGO_PKG_VERSION"),
        "model": result::computes(session, &config.baseline)?,
        "decoding": format!("{settings:?}"),
        "seed": config.generate.seed,
        "samples": config.generate.samples,
        "prompts": setup::text_hash(&serde_json::to_string(&data.prompt_ids)?),
        "pairs": setup::sequences_hash(pairs),
        "batch_tokens": config.batch_tokens,
    }))
}

fn pair_report(pairs: &[Example], policy: &[f64], baseline: &[f64], bootstrap: &Bootstrap) -> Outcome<PairReport> {
    let (mut chosen, mut rejected) = (Vec::new(), Vec::new());
    let mut at = 0;
    for example in pairs {
        let ratio = |j: usize| policy[at + j] - baseline[at + j];
        if let Some((w, l)) = setup::pair(example) {
            chosen.push(ratio(w));
            rejected.push(ratio(l));
        }
        at += example.responses.len();
    }
    Ok(PairReport {
        chosen_log_ratio: bootstrap.mean(&chosen)?,
        rejected_log_ratio: bootstrap.mean(&rejected)?,
        accuracy: pair_accuracy(&chosen, &rejected, bootstrap.level)?,
        chosen,
        rejected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_answers_become_those_of_prompts() {
        let ids = vec![vec![vec![1, 2], vec![3]], vec![vec![], vec![4, 5, 6]], vec![vec![7], vec![8]]];
        let answers = Answers { ids, truncated: 0 };
        // Five answers have tokens.
        assert_eq!(answers.by_prompt(&[1.0, 2.0, 6.0, -1.0, 2.0]), [1.5, 3.0, 0.5]);
        assert_eq!(answers.lengths(), [1.5, 1.5, 1.0]);
    }
}

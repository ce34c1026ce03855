//! `setpoint eval alpaca`: AlpacaEval 2, from generation to the length-controlled win rate; or the scores of annotations that exist.

mod job;
mod paired;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use setpoint_eval::{
    AlpacaAnnotation, AlpacaExample, AlpacaJudge, AlpacaOutput, AlpacaWinRate, EvalItem, GlmPenalty, GlmReference,
    JudgeSettings, LengthControlled, Manifest, ModelIdentity, alpaca_win_rate, content_digest, length_controlled,
    read_annotations, read_examples, read_outputs,
};
use setpoint_reward::RewardSource;
use setpoint_transformer::GenerationConfig;

pub use self::job::Alpaca;
use self::paired::{OutputPair, paired};
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, Wanted};
use crate::config::{Config, Problems};
use crate::eval::answers::{Answerer, conversation, decoding};
use crate::eval::local_judge;
use crate::eval::result::{self, Evaluated};
use crate::failure::{Failure, Outcome};
use crate::generate::SamplingSection;
use crate::judge;
use crate::session::Meter;
use crate::session::Session;
use crate::setup;

/// Settings of `setpoint eval alpaca`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlpacaConfig {
    /// Annotations that exist: `annotations.json`, or CSV with lengths and preferences. They are scored as they are.
    pub annotations: Option<PathBuf>,
    /// The baseline's `model_outputs.json`: the model answers its instructions and is compared with its outputs.
    pub baseline: Option<PathBuf>,
    /// The model's `model_outputs.json`, if its answers exist; or give `model`.
    pub outputs: Option<PathBuf>,
    /// The model that answers.
    pub model: ModelSection,
    /// The model's name in the results.
    pub name: Option<String>,
    /// The model's sampling.
    pub generate: SamplingSection,
    /// The largest number of instructions, from the first.
    #[schemars(range(min = 2))]
    pub max_rows: Option<usize>,
    /// The judge; or give `reward`.
    pub judge: JudgeSettings,
    /// A reward model that judges, without any network: the preference is the Bradley–Terry probability of its two rewards.
    pub reward: ModelSection,
    /// The length-controlled win rate.
    pub length_control: LengthControlSection,
    /// Folder for `result.json`, `model_outputs.json`, `annotations.json` and the judge's answers.
    pub output: Option<PathBuf>,
}

/// `[length_control]`: the inputs of the GLM beside the annotations.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LengthControlSection {
    /// AlpacaEval's `instruction_difficulty.csv`.
    pub difficulty: Option<PathBuf>,
    /// AlpacaEval's `df_gamed.csv`.
    pub gamed: Option<PathBuf>,
    /// The L1 penalty of the regression; `cross_validated` as on the leaderboard.
    pub penalty: GlmPenalty,
}

impl Default for AlpacaConfig {
    fn default() -> Self {
        Self {
            annotations: None,
            baseline: None,
            outputs: None,
            model: ModelSection::default(),
            name: None,
            generate: SamplingSection { max_new_tokens: Some(2048), ..SamplingSection::default() },
            max_rows: None,
            judge: JudgeSettings { model: Some("gpt-4-1106-preview".into()), ..JudgeSettings::default() },
            reward: ModelSection::default(),
            length_control: LengthControlSection::default(),
            output: None,
        }
    }
}

impl Config for AlpacaConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        validate_output(self.output.as_ref(), Target::Folder, problems);
        if self.annotations.is_some() {
            let excess = self.baseline.is_some() || self.outputs.is_some() || self.model.path.is_some();
            problems.require(
                !excess,
                "annotations",
                "annotations are scored as they are: leave out `baseline`, `outputs` and `model`",
            );
            judge::validate_address(&self.judge, "judge", problems);
            return;
        }
        problems.require(
            self.baseline.is_some(),
            "baseline",
            "nothing to score: give --annotations FILE, or --baseline FILE (a model_outputs.json) to compare with",
        );
        match (&self.outputs, &self.model.path) {
            (Some(_), Some(_)) => problems.add("outputs", "`outputs` and `model` exclude each other"),
            (Some(_), None) => {}
            (None, _) => self.model.validate("model", Wanted::LanguageModel, problems),
        }
        match &self.reward.path {
            Some(_) => {
                self.reward.validate("reward", Wanted::RewardModel, problems);
                judge::validate_address(&self.judge, "judge", problems);
            }
            None => judge::validate_judge(&self.judge, "judge", problems),
        }
        problems.require(self.output.is_some(), "output", "nowhere to write: give --output DIR");
        problems.require(self.max_rows.is_none_or(|n| n >= 2), "max_rows", "must be at least 2");
        self.generate.validate("generate", problems);
        problems.require(
            self.generate.samples.unwrap_or(1) == 1,
            "generate.samples",
            "AlpacaEval takes one answer per instruction",
        );
    }
}

/// The results of AlpacaEval.
#[derive(Debug, Clone, Serialize)]
pub struct AlpacaReport {
    /// The model's name.
    pub model: String,
    /// Win rates and counts.
    #[serde(flatten)]
    pub win_rate: AlpacaWinRate,
    /// The length-controlled win rate, where it could be fitted.
    #[serde(flatten)]
    pub length_controlled: Option<LengthControlled>,
}

/// Generates and judges what does not exist yet, and scores.
///
/// # Errors
/// When a file cannot be read or written, the judge cannot be asked, or no judgment is valid.
pub fn run(session: &Session, config: &AlpacaConfig) -> Outcome<Evaluated<AlpacaReport>> {
    evaluate(session, config, None)
}

/// Does the same with a source of the caller's as the judge: the preference is the Bradley–Terry probability of its two rewards.
///
/// # Errors
/// The errors of [`run`], and when the source reads tokens.
pub fn run_with(
    session: &Session,
    config: &AlpacaConfig,
    source: &dyn RewardSource,
) -> Outcome<Evaluated<AlpacaReport>> {
    evaluate(session, config, Some(source))
}

fn evaluate(
    session: &Session,
    config: &AlpacaConfig,
    source: Option<&dyn RewardSource>,
) -> Outcome<Evaluated<AlpacaReport>> {
    let reference =
        GlmReference::read(config.length_control.difficulty.as_deref(), config.length_control.gamed.as_deref())?;
    let (rows, manifest) = match &config.annotations {
        Some(path) => existing(config, path)?,
        None => judged(session, config, source)?,
    };
    if rows.iter().all(|row| row.preference.is_none()) {
        return Err(Failure::run(format!("no score: all {} judgments failed", rows.len())));
    }
    let win_rate = alpaca_win_rate(&rows)?;
    let fitted = length_controlled(&rows, &reference, config.length_control.penalty);
    if let Err(error) = &fitted {
        log::info!("no length-controlled win rate: {error}");
    }
    let scores = AlpacaReport { model: manifest.model.name.clone(), win_rate, length_controlled: fitted.ok() };
    let items = rows.iter().enumerate().filter_map(|(i, row)| {
        let value = row.preference.map(|p| if p == 0.0 { 0.5 } else { p - 1.0 })?;
        Some(EvalItem { id: format!("alpaca_eval/{i}"), value })
    });
    Ok(Evaluated { items: items.collect(), scores, manifest })
}

/// Checks everything that can be checked without generating or asking, and returns what would be scored, in a sentence.
///
/// # Errors
/// Everything of [`run`] that can be found without a model and a judge.
pub fn dry_run(session: &Session, config: &AlpacaConfig) -> Outcome<String> {
    GlmReference::read(config.length_control.difficulty.as_deref(), config.length_control.gamed.as_deref())?;
    if let Some(path) = &config.annotations {
        let rows = read_annotations(path)?;
        return Ok(format!("{} annotations to score", rows.len()));
    }
    let baseline = baseline(config)?;
    match &config.outputs {
        Some(path) => drop(paired(&baseline, &read_outputs(path)?, path)?),
        None => {
            let answerer = Answerer::open(session, &config.model)?;
            prompts(config, &answerer, &answerer.settings(&config.generate)?, &baseline)?;
        }
    }
    Ok(format!("{} instructions", baseline.len()))
}

/// Collects the inputs that decide the scores, for the manifest.
fn scoring(config: &AlpacaConfig) -> Outcome<Value> {
    let digest = |path: &Option<PathBuf>| -> Outcome<Option<String>> {
        let read = |path: &PathBuf| {
            let text = setpoint_files::read_text_up_to(path, setpoint_files::LARGE)?;
            Ok(content_digest([text.as_str()]))
        };
        path.as_ref().map(read).transpose()
    };
    Ok(json!({
        "difficulty": digest(&config.length_control.difficulty)?,
        "gamed": digest(&config.length_control.gamed)?,
        "penalty": config.length_control.penalty,
    }))
}

fn existing(config: &AlpacaConfig, path: &Path) -> Outcome<(Vec<AlpacaAnnotation>, Manifest)> {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let named = |name: String| ModelIdentity { name: config.name.clone().unwrap_or(name), ..ModelIdentity::default() };
    let rows = read_annotations(path)?;
    let mut manifest = if path.extension().is_some_and(|e| e == "csv") {
        // Without texts, the lengths of the baseline's outputs tell the instructions and the baseline.
        let lengths: Vec<String> = rows.iter().map(|r| r.baseline_length.to_string()).collect();
        result::manifest("alpaca_eval", named(stem), content_digest(lengths.iter().map(String::as_str)))
    } else {
        let examples = read_examples(path)?;
        let name = examples.first().map_or(stem, |e| e.generator_2.clone());
        let mut manifest = result::manifest("alpaca_eval", named(name), data_digest(&examples));
        let first = examples.first();
        manifest.baseline = first.map(|e| ModelIdentity { name: e.generator_1.clone(), ..ModelIdentity::default() });
        manifest.judge = json!({ "annotator": first.and_then(|e| e.annotator.clone()) });
        manifest
    };
    manifest.scoring = scoring(config)?;
    Ok((rows, manifest))
}

/// Instructions and the baseline's answers.
fn data_digest(examples: &[AlpacaExample]) -> String {
    content_digest(examples.iter().flat_map(|e| [e.instruction.as_str(), e.output_1.as_str()]))
}

fn baseline(config: &AlpacaConfig) -> Outcome<Vec<AlpacaOutput>> {
    let path = config.baseline.as_deref().ok_or_else(|| Failure::usage("baseline", "no baseline"))?;
    let mut rows = read_outputs(path)?;
    rows.truncate(config.max_rows.unwrap_or(usize::MAX));
    Ok(rows)
}

fn judged(
    session: &Session,
    config: &AlpacaConfig,
    source: Option<&dyn RewardSource>,
) -> Outcome<(Vec<AlpacaAnnotation>, Manifest)> {
    let dir = config.output.as_deref().ok_or_else(|| Failure::usage("output", "nowhere to write"))?;
    let baseline = baseline(config)?;
    result::folder(dir)?;
    // Opened first: a key that is missing should not be noticed after an hour of generation.
    let client = match source.is_some() || config.reward.path.is_some() {
        true => None,
        false => Some(judge::open(&config.judge, Some(dir))?),
    };
    let (pairs, identity, decoding) = match &config.outputs {
        Some(path) => {
            let outputs = read_outputs(path)?;
            let pairs = paired(&baseline, &outputs, path)?;
            let name = config.name.clone().or_else(|| pairs.first().map(|(_, own)| own.generator.clone()));
            let identity = ModelIdentity { name: name.unwrap_or_default(), ..ModelIdentity::default() };
            (pairs, identity, Value::Null)
        }
        None => generated(session, config, &baseline, dir)?,
    };
    let mut examples: Vec<AlpacaExample> = pairs
        .into_iter()
        .map(|(base, own)| AlpacaExample {
            instruction: base.instruction,
            output_1: base.output,
            generator_1: base.generator,
            output_2: own.output,
            generator_2: identity.name.clone(),
            annotator: None,
            preference: None,
            extra: base.extra,
        })
        .collect();
    let judge = match &client {
        Some(client) => {
            let mut meter = Meter::new(session, examples.len(), "judged", "judgments");
            let failed = AlpacaJudge::new(client).annotate(&mut examples, &mut |done| meter.reach(done));
            meter.finish();
            let failed = failed?;
            log::info!("judge: {}", judge::spending(client));
            if failed > 0 {
                log::info!("{failed} of {} pairs have no preference and count in no rate", examples.len());
            }
            judge::identity(&config.judge, "alpaca_eval_clf_gpt4_turbo")
        }
        None => by_reward(session, config, source, &mut examples)?,
    };
    result::write_json(&dir.join("annotations.json"), &examples)?;
    let mut manifest = result::manifest("alpaca_eval", identity, data_digest(&examples));
    let name = baseline.first().map(|b| b.generator.clone()).unwrap_or_default();
    manifest.baseline = Some(ModelIdentity { name, ..ModelIdentity::default() });
    manifest.judge = judge;
    manifest.decoding = decoding;
    manifest.scoring = scoring(config)?;
    Ok((examples.iter().map(AlpacaExample::annotation).collect(), manifest))
}

/// The instructions as tokens, each with room for an answer.
fn prompts(
    config: &AlpacaConfig,
    answerer: &Answerer<'_>,
    settings: &GenerationConfig,
    baseline: &[AlpacaOutput],
) -> Outcome<Vec<Vec<u32>>> {
    let ids: Vec<Vec<u32>> = baseline
        .iter()
        .map(|b| answerer.ids(conversation([("user", b.instruction.as_str())])))
        .collect::<Outcome<_>>()?;
    let file = config.baseline.as_deref().unwrap_or(Path::new("baseline")).display();
    let name = |row: usize| format!("{file}: instruction {}", row + 1);
    answerer.check_room(&ids, &name, settings, config.generate.max_new_tokens)?;
    Ok(ids)
}

fn generated(
    session: &Session,
    config: &AlpacaConfig,
    baseline: &[AlpacaOutput],
    dir: &Path,
) -> Outcome<(Vec<OutputPair>, ModelIdentity, Value)> {
    let answerer = Answerer::open(session, &config.model)?;
    let settings = answerer.settings(&config.generate)?;
    let identity = result::identity(&config.model, config.name.as_deref(), answerer.encoder.fingerprint())?;
    let decoding = decoding(&settings, config.generate.seed);
    let digest = content_digest(baseline.iter().map(|b| b.instruction.as_str()));
    let path = dir.join("model_outputs.json");
    if result::is_generated(dir, &identity, &decoding, &digest) {
        log::info!("answers are taken from {}", path.display());
        return Ok((paired(baseline, &read_outputs(&path)?, &path)?, identity, decoding));
    }
    let ids = prompts(config, &answerer, &settings, baseline)?;
    let model = answerer.load()?;
    let mut meter = answerer.meter(ids.len(), &settings);
    let texts = answerer.answer(&model, &ids, &settings, config.generate.seed, &[], &mut meter);
    meter.finish();
    let texts = texts?;
    let outputs: Vec<AlpacaOutput> = baseline
        .iter()
        .zip(texts)
        .map(|(base, output)| {
            let mut extra = Map::new();
            extra.extend(base.extra.get("dataset").map(|d| ("dataset".to_owned(), d.clone())));
            AlpacaOutput { instruction: base.instruction.clone(), output, generator: identity.name.clone(), extra }
        })
        .collect();
    // Written before the judge is asked: an evaluation that is killed there goes on from here.
    result::write_json(&path, &outputs)?;
    result::mark_generated(dir, &identity, &decoding, &digest)?;
    Ok((paired(baseline, &outputs, &path)?, identity, decoding))
}

/// Preferences by rewards, of a reward model unless the caller brings a source: `1 + logistic(r(model) − r(baseline))`.
fn by_reward(
    session: &Session,
    config: &AlpacaConfig,
    source: Option<&dyn RewardSource>,
    examples: &mut [AlpacaExample],
) -> Outcome<Value> {
    let pairs: Vec<(&str, &str)> = examples
        .iter()
        .flat_map(|e| [&e.output_1, &e.output_2].map(|output| (e.instruction.as_str(), output.as_str())))
        .collect();
    let (annotator, judge, rewards) = match source {
        Some(source) => {
            let rewards = local_judge::rewards_by(session, source, &pairs)?;
            (source.describe(), json!({ "source": source.identity() }), rewards)
        }
        None => {
            let encoder = setup::encoder(&config.reward)?;
            let identity = result::identity(&config.reward, None, encoder.fingerprint())?;
            let rewards = local_judge::rewards_of(session, &config.reward, &encoder, &pairs)?;
            (identity.name.clone(), json!({ "reward_model": identity }), rewards)
        }
    };
    for (example, rewards) in examples.iter_mut().zip(rewards.chunks(2)) {
        example.annotator = Some(annotator.clone());
        // The same output twice is a draw, whatever a reward is rounded to.
        let is_same = example.output_1 == example.output_2;
        example.preference = Some(if is_same { 1.5 } else { 1.0 + 1.0 / (1.0 + (rewards[0] - rewards[1]).exp()) });
    }
    Ok(judge)
}

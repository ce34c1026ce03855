//! `setpoint eval arena-hard`: answers, judgments and scores of Arena-Hard-Auto v2.0 in its own formats; or the scores of judgments that exist.

mod answers;
mod job;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use setpoint_data::counted;
use setpoint_eval::{
    ArenaAnswer, ArenaJudge, ArenaJudging, ArenaJudgment, ArenaQuestion, ArenaScore, ArenaStyleScores, EvalItem,
    JudgeSettings, Manifest, ModelIdentity, arena_baseline, arena_preference, arena_scores, arena_style_scores,
    content_digest, read_arena_answers, read_arena_judgments, read_arena_questions,
};

use self::answers::{check_prompts, generated, with_styles};
pub use self::job::ArenaHard;
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, Wanted};
use crate::config::{Config, Problems};
use crate::eval::result::{self, Evaluated};
use crate::failure::{Failure, Outcome};
use crate::generate::SamplingSection;
use crate::judge;
use crate::session::{Meter, Session};

/// Whose prompts the judge is asked with.
const PROMPTS: &str = "arena-hard-v2.0";

/// Settings of `setpoint eval arena-hard`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArenaHardConfig {
    /// Judgments that exist: a file, or a folder with a file for each model. They are scored as they are.
    pub judgments: Option<PathBuf>,
    /// The prompts: `question.jsonl`.
    pub questions: Option<PathBuf>,
    /// The model's answers, if they exist; or give `model`.
    pub answers: Option<PathBuf>,
    /// The model that answers.
    pub model: ModelSection,
    /// The model's name in the results.
    pub name: Option<String>,
    /// The folder `model_answer` with the baselines' answers. To score judgments at equal styles it must hold those of their models, too.
    pub baselines: Option<PathBuf>,
    /// The baseline of all categories; by default each has its published one.
    pub baseline_name: Option<String>,
    /// The folder of the tokenizer that counts the tokens of answers, for style control: GPT-4o's, as published. Without it the answers must have
    /// their `metadata`.
    pub style_tokenizer: Option<PathBuf>,
    /// The model's sampling.
    pub generate: SamplingSection,
    /// The largest number of prompts, from the first.
    #[schemars(range(min = 1))]
    pub max_rows: Option<usize>,
    /// The judge.
    pub judge: JudgeSettings,
    /// The judge's temperature.
    #[schemars(range(min = 0))]
    pub judge_temperature: f64,
    /// The greatest length of a judgment.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub judge_max_tokens: u32,
    /// Folder for `result.json`, `model_answer/`, `model_judgment/` and the judge's answers.
    pub output: Option<PathBuf>,
}

impl Default for ArenaHardConfig {
    fn default() -> Self {
        let judging = ArenaJudging::default();
        Self {
            judgments: None,
            questions: None,
            answers: None,
            model: ModelSection::default(),
            name: None,
            baselines: None,
            baseline_name: None,
            style_tokenizer: None,
            generate: SamplingSection { max_new_tokens: Some(4096), ..SamplingSection::default() },
            max_rows: None,
            judge: JudgeSettings { model: Some("gpt-4.1".into()), ..JudgeSettings::default() },
            judge_temperature: judging.temperature,
            judge_max_tokens: judging.max_tokens,
            output: None,
        }
    }
}

impl Config for ArenaHardConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        validate_output(self.output.as_ref(), Target::Folder, problems);
        if self.judgments.is_some() {
            let excess = self.answers.is_some() || self.model.path.is_some() || self.questions.is_some();
            problems.require(
                !excess,
                "judgments",
                "judgments are scored as they are: leave out `model`, `answers` and `questions`",
            );
            judge::validate_address(&self.judge, "judge", problems);
            return;
        }
        problems.require(
            self.questions.is_some(),
            "questions",
            "nothing to score: give --judgments FILE, or --questions FILE (Arena-Hard's question.jsonl)",
        );
        problems.require(
            self.baselines.is_some(),
            "baselines",
            "nothing to compare with: give --baselines DIR, the folder model_answer with the baselines' answers",
        );
        match (&self.answers, &self.model.path) {
            (Some(_), Some(_)) => problems.add("answers", "`answers` and `model` exclude each other"),
            (Some(_), None) => {}
            (None, _) => self.model.validate("model", Wanted::LanguageModel, problems),
        }
        judge::validate_judge(&self.judge, "judge", problems);
        let temperature = self.judge_temperature;
        problems.require(
            temperature.is_finite() && temperature >= 0.0,
            "judge_temperature",
            format!("is {temperature}, expected a number of at least 0"),
        );
        problems.require(self.judge_max_tokens > 0, "judge_max_tokens", "must be at least 1");
        problems.require(self.output.is_some(), "output", "nowhere to write: give --output DIR");
        problems.require(self.max_rows != Some(0), "max_rows", "must be at least 1");
        self.generate.validate("generate", problems);
        problems.require(
            self.generate.samples.unwrap_or(1) == 1,
            "generate.samples",
            "Arena-Hard takes one answer per prompt",
        );
    }
}

/// The results of Arena-Hard.
#[derive(Debug, Clone, Serialize)]
pub struct ArenaHardReport {
    /// The scores of all models by category, the best first.
    pub categories: BTreeMap<String, Vec<ArenaScore>>,
    /// The scores at equal styles, for categories whose answers have styles.
    pub style_control: BTreeMap<String, ArenaStyleScores>,
}

/// Judgments with the answers they are of.
struct Judged {
    judgments: Vec<ArenaJudgment>,
    answers: Vec<ArenaAnswer>,
    manifest: Manifest,
}

/// Generates and judges what does not exist yet, and scores.
///
/// # Errors
/// When a file cannot be read or written, an answer is missing, the judge cannot be asked, or no judgment is valid.
pub fn run(session: &Session, config: &ArenaHardConfig) -> Outcome<Evaluated<ArenaHardReport>> {
    let Judged { judgments, answers, mut manifest } = match &config.judgments {
        Some(path) => existing(config, path)?,
        None => judged(session, config)?,
    };
    let categories = arena_scores(&judgments)?;
    if categories.is_empty() {
        let message = format!("no score: none of the {} judgments has a verdict in both rounds", judgments.len());
        return Err(Failure::run(message));
    }
    let mut style_control = BTreeMap::new();
    for category in categories.keys() {
        match arena_style_scores(&judgments, &answers, category) {
            Ok(scores) => drop(style_control.insert(category.clone(), scores)),
            Err(error) => log::info!("{category}: {error}"),
        }
    }
    manifest.scoring = json!({ "battles_of_a_clear_verdict": 3, "style_control": ["length", "markdown"] });
    let own = judgments.iter().filter(|judgment| judgment.model == manifest.model.name);
    let item = |judgment: &ArenaJudgment| {
        let value = arena_preference(judgment)?;
        Some(EvalItem { id: format!("arena_hard/{}", judgment.uid), value })
    };
    let items = own.filter_map(item).collect();
    Ok(Evaluated { scores: ArenaHardReport { categories, style_control }, manifest, items })
}

/// Checks everything that can be checked without generating or asking, and returns what would be scored, in a sentence.
///
/// # Errors
/// Everything of [`run`] that can be found without a model and a judge.
pub fn dry_run(session: &Session, config: &ArenaHardConfig) -> Outcome<String> {
    if let Some(path) = &config.judgments {
        let judged = existing(config, path)?;
        return Ok(format!("{} to score", counted(judged.judgments.len(), "judgment")));
    }
    let questions = questions(config)?;
    let baselines = with_styles(config, baselines(config, &questions)?)?;
    for question in &questions {
        let name = baseline_of(config, question);
        if !baselines.iter().any(|answer| answer.model == name && answer.uid == question.uid) {
            return Err(Failure::run(format!("{name} has no answer to the question {}", question.uid)));
        }
    }
    match &config.answers {
        Some(path) => drop(read_arena_answers(path)?),
        None => check_prompts(session, config, &questions)?,
    }
    Ok(format!("{}, {} to ask for", counted(questions.len(), "prompt"), counted(2 * questions.len(), "judgment")))
}

fn questions(config: &ArenaHardConfig) -> Outcome<Vec<ArenaQuestion>> {
    let path = config.questions.as_deref().ok_or_else(|| Failure::usage("questions", "no questions"))?;
    let mut questions = read_arena_questions(path)?;
    questions.truncate(config.max_rows.unwrap_or(usize::MAX));
    Ok(questions)
}

fn baseline_of<'a>(config: &'a ArenaHardConfig, question: &ArenaQuestion) -> &'a str {
    config.baseline_name.as_deref().or_else(|| arena_baseline(&question.category)).unwrap_or_default()
}

/// Reads the answers of the baselines that the questions need.
fn baselines(config: &ArenaHardConfig, questions: &[ArenaQuestion]) -> Outcome<Vec<ArenaAnswer>> {
    let dir = config.baselines.as_deref().ok_or_else(|| Failure::usage("baselines", "no baselines"))?;
    let names: BTreeSet<&str> = questions.iter().map(|question| baseline_of(config, question)).collect();
    answers_of(dir, names)
}

/// Reads `MODEL.jsonl` of a folder for each of these models.
fn answers_of<'a>(dir: &Path, models: impl IntoIterator<Item = &'a str>) -> Outcome<Vec<ArenaAnswer>> {
    let mut answers = Vec::new();
    for model in models {
        // The published files leave out the part before the slash; the rows may have it.
        let names = [result::file_name(model), result::file_name(model.rsplit('/').next().unwrap_or(model))];
        let paths = names.map(|name| dir.join(format!("{name}.jsonl")));
        let path = paths.iter().find(|path| path.is_file()).unwrap_or(&paths[0]);
        let own = read_arena_answers(path)?;
        answers.extend(own.into_iter().map(|answer| ArenaAnswer { model: model.to_owned(), ..answer }));
    }
    Ok(answers)
}

fn existing(config: &ArenaHardConfig, path: &Path) -> Outcome<Judged> {
    let mut judgments = Vec::new();
    for file in judgment_files(path)? {
        judgments.extend(read_arena_judgments(&file)?);
    }
    let first = &judgments[0];
    let identity = |name: &str| ModelIdentity { name: name.to_owned(), ..ModelIdentity::default() };
    let ids: BTreeSet<&str> = judgments.iter().map(|judgment| judgment.uid.as_str()).collect();
    let name = config.name.as_deref().unwrap_or(&first.model);
    let mut manifest = result::manifest("arena_hard", identity(name), content_digest(ids));
    manifest.baseline = Some(identity(&first.baseline));
    manifest.judge = json!({ "model": first.judge, "prompt": PROMPTS });
    let answers = match &config.baselines {
        Some(dir) => {
            let models = judgments.iter().flat_map(|judgment| [judgment.model.as_str(), judgment.baseline.as_str()]);
            let answers = answers_of(dir, models.collect::<BTreeSet<_>>())?;
            with_styles(config, answers)?
        }
        None => Vec::new(),
    };
    Ok(Judged { judgments, answers, manifest })
}

/// Returns the file, or the JSON lines of the folder, of which there must be one at least.
fn judgment_files(path: &Path) -> Outcome<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| Failure::run(format!("cannot list {}: {e}", path.display())))?;
    let files = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|e| e == "jsonl")).collect();
    files.sort();
    if files.is_empty() {
        return Err(Failure::run(format!("{}: expected judgments, MODEL.jsonl, found none", path.display()))
            .hint("name the folder of one judge, as in --judgments model_judgment/gpt-4.1"));
    }
    Ok(files)
}

fn digest(questions: &[ArenaQuestion]) -> String {
    content_digest(questions.iter().flat_map(|question| [question.category.as_str(), question.prompt.as_str()]))
}

fn judged(session: &Session, config: &ArenaHardConfig) -> Outcome<Judged> {
    let dir = config.output.as_deref().ok_or_else(|| Failure::usage("output", "nowhere to write"))?;
    let questions = questions(config)?;
    let baselines = with_styles(config, baselines(config, &questions)?)?;
    result::folder(dir)?;
    // Opened first: a key that is missing should not be noticed after an hour of generation.
    let client = judge::open(&config.judge, Some(dir))?;
    let (answers, identity, decoding) = match &config.answers {
        Some(path) => {
            let answers = with_styles(config, read_arena_answers(path)?)?;
            let name = config.name.clone().unwrap_or_else(|| answers[0].model.clone());
            (answers, ModelIdentity { name, ..ModelIdentity::default() }, Value::Null)
        }
        None => generated(session, config, &questions, dir)?,
    };
    let name = identity.name.clone();
    let answers: Vec<ArenaAnswer> =
        answers.into_iter().map(|answer| ArenaAnswer { model: name.clone(), ..answer }).collect();
    let judging = ArenaJudging { temperature: config.judge_temperature, max_tokens: config.judge_max_tokens };
    let mut meter = Meter::new(session, 2 * questions.len(), "judged", "judgments");
    let judge = ArenaJudge::new(&client, &questions, judging);
    let only = config.baseline_name.as_deref();
    let judgments = judge.judge(&name, &answers, &baselines, only, &mut |done| meter.reach(done));
    meter.finish();
    log::info!("judge: {}", judge::spending(&client));
    let judgments = judgments?;
    let folder = dir.join("model_judgment").join(result::file_name(client.model()));
    result::folder(&folder)?;
    result::write_lines(&folder.join(format!("{}.jsonl", result::file_name(&name))), &judgments)?;
    let mut manifest = result::manifest("arena_hard", identity, digest(&questions));
    let names: BTreeSet<&str> = questions.iter().map(|question| baseline_of(config, question)).collect();
    let baseline = names.into_iter().collect::<Vec<_>>().join(", ");
    manifest.baseline = Some(ModelIdentity { name: baseline, ..ModelIdentity::default() });
    manifest.decoding = decoding;
    manifest.judge = judge::identity(&config.judge, PROMPTS);
    manifest.judge["temperature"] = json!(config.judge_temperature);
    let answers = [answers, baselines].concat();
    Ok(Judged { judgments, answers, manifest })
}

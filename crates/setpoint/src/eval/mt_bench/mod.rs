//! `setpoint eval mt-bench`: answers, judgments and scores of MT-Bench in FastChat's formats; or the scores of judgments that exist.

mod items;
mod job;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use setpoint_data::counted;
use setpoint_eval::{
    JudgeSettings, Manifest, ModelIdentity, MtAnswer, MtChoice, MtContestant, MtJudge, MtModelScores, MtPairJudgment,
    MtPairScores, MtQuestion, MtSingleJudgment, category_temperature, content_digest, is_pairwise, pair_scores,
    read_answers, read_pair_judgments, read_questions, read_single_judgments, single_scores,
};
use setpoint_transformer::{CausalLm, GenerationConfig};

use self::items::{pair_items, single_items};
pub use self::job::MtBench;
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, Wanted};
use crate::config::{Config, Problems};
use crate::eval::answers::{Answerer, conversation, decoding};
use crate::eval::result::{self, Evaluated};
use crate::failure::{Failure, Outcome};
use crate::generate::GenerationMeter;
use crate::generate::SamplingSection;
use crate::judge;
use crate::session::Meter;
use crate::session::Session;
use crate::setup;

/// Whose prompts the judge is asked with.
const PROMPTS: &str = "fastchat";

/// Settings of `setpoint eval mt-bench`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MtBenchConfig {
    /// Judgments that exist, single or pairwise. They are scored as they are.
    pub judgments: Option<PathBuf>,
    /// The 80 questions: `question.jsonl`.
    pub questions: Option<PathBuf>,
    /// Reference answers for maths, reasoning and coding: `reference_answer/gpt-4.jsonl`.
    pub references: Option<PathBuf>,
    /// The model's answers, if they exist; or give `model`.
    pub answers: Option<PathBuf>,
    /// The model that answers.
    pub model: ModelSection,
    /// The model's name in the results.
    pub name: Option<String>,
    /// Answers of another model to compare with, pair by pair and in both orders; without them answers are rated alone.
    pub baseline_answers: Option<PathBuf>,
    /// The model that pairwise judgments compare with; those with others are left out.
    pub baseline_name: Option<String>,
    /// The model's sampling; by default each category has its temperature.
    pub generate: SamplingSection,
    /// The largest number of questions, from the first.
    #[schemars(range(min = 1))]
    pub max_rows: Option<usize>,
    /// The judge.
    pub judge: JudgeSettings,
    /// Folder for `result.json`, `model_answer/`, `model_judgment/` and the judge's answers.
    pub output: Option<PathBuf>,
}

impl Default for MtBenchConfig {
    fn default() -> Self {
        Self {
            judgments: None,
            questions: None,
            references: None,
            answers: None,
            model: ModelSection::default(),
            name: None,
            baseline_answers: None,
            baseline_name: None,
            generate: SamplingSection { max_new_tokens: Some(1024), ..SamplingSection::default() },
            max_rows: None,
            judge: JudgeSettings { model: Some("gpt-4".into()), ..JudgeSettings::default() },
            output: None,
        }
    }
}

impl Config for MtBenchConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        validate_output(self.output.as_ref(), Target::Folder, problems);
        if self.judgments.is_some() {
            let excess = self.answers.is_some() || self.model.path.is_some() || self.baseline_answers.is_some();
            problems.require(
                !excess,
                "judgments",
                "judgments are scored as they are: leave out `model`, `answers` and `baseline_answers`",
            );
            judge::validate_address(&self.judge, "judge", problems);
            return;
        }
        problems.require(
            self.questions.is_some(),
            "questions",
            "nothing to score: give --judgments FILE, or --questions FILE (MT-Bench's question.jsonl)",
        );
        match (&self.answers, &self.model.path) {
            (Some(_), Some(_)) => problems.add("answers", "`answers` and `model` exclude each other"),
            (Some(_), None) => {}
            (None, _) => self.model.validate("model", Wanted::LanguageModel, problems),
        }
        judge::validate_judge(&self.judge, "judge", problems);
        problems.require(self.output.is_some(), "output", "nowhere to write: give --output DIR");
        problems.require(self.max_rows != Some(0), "max_rows", "must be at least 1");
        self.generate.validate("generate", problems);
        problems.require(
            self.generate.samples.unwrap_or(1) == 1,
            "generate.samples",
            "MT-Bench takes one answer per question",
        );
    }
}

/// Judgments of either kind.
enum Judgments {
    Single(Vec<MtSingleJudgment>),
    Pairs(Vec<MtPairJudgment>),
}

/// The results of MT-Bench.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum MtBenchReport {
    /// Ratings of single answers.
    Single {
        /// The scores of each model.
        single: Vec<MtModelScores>,
    },
    /// Comparisons with the baseline.
    Pairs {
        /// The scores of each model.
        pairs: Vec<MtPairScores>,
        /// Judgments without a verdict.
        failed: usize,
    },
}

/// Generates and judges what does not exist yet, and scores.
///
/// # Errors
/// When a file cannot be read or written, the judge cannot be asked, or no judgment is valid.
pub fn run(session: &Session, config: &MtBenchConfig) -> Outcome<Evaluated<MtBenchReport>> {
    let questions = match &config.questions {
        Some(path) => questions(config, path)?,
        None => Vec::new(),
    };
    let (judgments, manifest) = match &config.judgments {
        Some(path) => existing(config, path, &questions)?,
        None => judged(session, config, &questions)?,
    };
    let (scores, items) = match &judgments {
        Judgments::Single(rows) => {
            let single = single_scores(rows, &questions);
            if single.iter().all(|model| model.average.is_none()) {
                let never: usize = single.iter().map(|model| model.errors).sum();
                return Err(no_score(
                    rows.len(),
                    &format!("{never} never came, {} hold no rating or were cut off", rows.len() - never),
                ));
            }
            (MtBenchReport::Single { single }, single_items(rows, &manifest.model.name))
        }
        Judgments::Pairs(rows) => {
            let (pairs, failed) = pair_scores(rows, config.baseline_name.as_deref());
            if pairs.is_empty() {
                let others = rows.len() - failed;
                return Err(no_score(
                    rows.len(),
                    &format!("{failed} without a verdict, {others} not against the baseline"),
                ));
            }
            (MtBenchReport::Pairs { pairs, failed }, pair_items(rows, &manifest.model.name))
        }
    };
    Ok(Evaluated { scores, manifest, items })
}

/// Not a single judgment counts.
fn no_score(judgments: usize, why: &str) -> Failure {
    Failure::run(format!("no score: none of the {judgments} judgments is valid ({why})"))
}

/// Checks everything that can be checked without generating or asking, and returns what would be scored, in a sentence.
///
/// # Errors
/// Everything of [`run`] that can be found without a model and a judge.
pub fn dry_run(session: &Session, config: &MtBenchConfig) -> Outcome<String> {
    if let Some(path) = &config.judgments {
        existing(config, path, &[])?;
        return Ok(format!("judgments of {} to score", path.display()));
    }
    let path = config.questions.as_deref().ok_or_else(|| Failure::usage("questions", "no questions"))?;
    let questions = questions(config, path)?;
    for path in [&config.references, &config.answers, &config.baseline_answers].into_iter().flatten() {
        read_answers(path)?;
    }
    if config.answers.is_none() {
        let answerer = Answerer::open(session, &config.model)?;
        check_room(&answerer, &answerer.settings(&config.generate)?, &questions)?;
    }
    Ok(counted(questions.len(), "question"))
}

fn questions(config: &MtBenchConfig, path: &Path) -> Outcome<Vec<MtQuestion>> {
    let mut questions = read_questions(path)?;
    questions.truncate(config.max_rows.unwrap_or(usize::MAX));
    Ok(questions)
}

fn existing(config: &MtBenchConfig, path: &Path, questions: &[MtQuestion]) -> Outcome<(Judgments, Manifest)> {
    let (judgments, name, judge, ids): (_, _, _, BTreeSet<u64>) = if is_pairwise(path)? {
        let rows = read_pair_judgments(path)?;
        let (name, judge) = (rows[0].model_1.clone(), rows[0].judge.0.clone());
        let ids = rows.iter().map(|r| r.question_id).collect();
        (Judgments::Pairs(rows), name, judge, ids)
    } else {
        let rows = read_single_judgments(path)?;
        let (name, judge) = (rows[0].model.clone(), rows[0].judge.0.clone());
        let ids = rows.iter().map(|r| r.question_id).collect();
        (Judgments::Single(rows), name, judge, ids)
    };
    let name = config.name.clone().unwrap_or(name);
    // Judgments hold no questions: without their file, the numbers stand for them.
    let data = match questions {
        [] => content_digest(ids.iter().map(u64::to_string).collect::<Vec<_>>().iter().map(String::as_str)),
        questions => digest(questions),
    };
    let mut manifest = result::manifest("mt_bench", ModelIdentity { name, ..ModelIdentity::default() }, data);
    manifest.judge = json!({ "model": judge, "prompt": PROMPTS });
    manifest.scoring = mode(&judgments);
    Ok((judgments, manifest))
}

fn digest(questions: &[MtQuestion]) -> String {
    content_digest(questions.iter().flat_map(|q| q.turns.iter().map(String::as_str)))
}

fn mode(judgments: &Judgments) -> Value {
    json!({ "mode": match judgments { Judgments::Single(_) => "single", Judgments::Pairs(_) => "pairwise" } })
}

fn judged(session: &Session, config: &MtBenchConfig, questions: &[MtQuestion]) -> Outcome<(Judgments, Manifest)> {
    let dir = config.output.as_deref().ok_or_else(|| Failure::usage("output", "nowhere to write"))?;
    result::folder(dir)?;
    let client = judge::open(&config.judge, Some(dir))?;
    let references = config.references.as_deref().map(read_answers).transpose()?.unwrap_or_default();
    let baseline = config.baseline_answers.as_deref().map(read_answers).transpose()?;
    let (answers, identity, decoding) = match &config.answers {
        Some(path) => {
            let answers = read_answers(path)?;
            let name = config.name.clone().unwrap_or_else(|| answers[0].model_id.clone());
            (answers, ModelIdentity { name, ..ModelIdentity::default() }, Value::Null)
        }
        None => generated(session, config, questions, dir)?,
    };
    let contestant = MtContestant::new(identity.name.clone(), &answers);
    let judge = MtJudge::new(&client, questions, &references);
    let mut manifest = result::manifest("mt_bench", identity, digest(questions));
    manifest.decoding = decoding;
    manifest.judge = judge::identity(&config.judge, PROMPTS);
    let turns: usize = questions.iter().map(|q| q.turns.len().min(2)).sum();
    let asked = turns * if baseline.is_some() { 2 } else { 1 };
    let mut meter = Meter::new(session, asked, "judged", "judgments");
    let mut advance = |done: usize| meter.reach(done);
    let judgments = match &baseline {
        None => judge.single(&contestant, &mut advance).map(Judgments::Single),
        Some(answers) => {
            let name = config.baseline_name.clone().unwrap_or_else(|| answers[0].model_id.clone());
            manifest.baseline = Some(ModelIdentity { name: name.clone(), ..ModelIdentity::default() });
            judge.pairs(&contestant, &MtContestant::new(name, answers), &mut advance).map(Judgments::Pairs)
        }
    };
    meter.finish();
    log::info!("judge: {}", judge::spending(&client));
    let judgments = judgments?;
    manifest.scoring = mode(&judgments);
    let folder = dir.join("model_judgment");
    result::folder(&folder)?;
    let file = |kind: &str| folder.join(format!("{}_{kind}.jsonl", result::file_name(client.model())));
    match &judgments {
        Judgments::Single(rows) => result::write_lines(&file("single"), rows)?,
        Judgments::Pairs(rows) => result::write_lines(&file("pair"), rows)?,
    }
    Ok((judgments, manifest))
}

/// Answers both turns of every question; questions of one temperature go through the model together.
fn generated(
    session: &Session,
    config: &MtBenchConfig,
    questions: &[MtQuestion],
    dir: &Path,
) -> Outcome<(Vec<MtAnswer>, ModelIdentity, Value)> {
    let answerer = Answerer::open(session, &config.model)?;
    let identity = result::identity(&config.model, config.name.as_deref(), answerer.encoder.fingerprint())?;
    let settings = answerer.settings(&config.generate)?;
    let mut decoding = decoding(&settings, config.generate.seed);
    if config.generate.temperature.is_none() {
        decoding["temperature"] = json!("by category");
    }
    let folder = dir.join("model_answer");
    let path = folder.join(format!("{}.jsonl", result::file_name(&identity.name)));
    if result::is_generated(dir, &identity, &decoding, &digest(questions)) {
        log::info!("answers are taken from {}", path.display());
        return Ok((read_answers(&path)?, identity, decoding));
    }
    check_room(&answerer, &settings, questions)?;
    let model = answerer.load()?;
    let mut groups: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (i, question) in questions.iter().enumerate() {
        let temperature = config.generate.temperature.unwrap_or_else(|| category_temperature(&question.category));
        groups.entry(temperature.to_bits()).or_default().push(i);
    }
    let mut turns: Vec<Vec<String>> = vec![Vec::new(); questions.len()];
    let mut meter = answerer.meter(questions.iter().map(|q| q.turns.len().min(2)).sum(), &settings);
    for (temperature, rows) in groups {
        let temperature = f64::from_bits(temperature);
        let section = SamplingSection { temperature: Some(temperature), ..config.generate.clone() };
        let settings = answerer.settings(&section)?;
        for turn in 0..2 {
            let seed = config.generate.seed;
            answer_turn(&answerer, &model, &settings, seed, questions, &rows, turn, &mut turns, &mut meter)?;
        }
    }
    meter.finish();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let answers: Vec<MtAnswer> = questions
        .iter()
        .zip(turns)
        .map(|(question, turns)| {
            let digest =
                setup::text_hash(&format!("{}\n{}\n{}", identity.name, question.question_id, turns.join("\n")));
            MtAnswer {
                question_id: question.question_id,
                answer_id: digest[..22].to_owned(),
                model_id: identity.name.clone(),
                choices: vec![MtChoice { index: 0, turns }],
                extra: Map::from_iter([("tstamp".to_owned(), json!(now))]),
            }
        })
        .collect();
    result::folder(&folder)?;
    result::write_lines(&path, &answers)?;
    result::mark_generated(dir, &identity, &decoding, &digest(questions))?;
    Ok((answers, identity, decoding))
}

/// The tokens of a question's turn, behind the earlier turns and their answers.
fn turn_ids(answerer: &Answerer<'_>, question: &MtQuestion, turn: usize, answers: &[String]) -> Outcome<Vec<u32>> {
    let answered = question.turns[..turn].iter().zip(answers);
    let before = answered.flat_map(|(q, a)| [("user", q.as_str()), ("assistant", a.as_str())]);
    answerer.ids(conversation(before.chain([("user", question.turns[turn].as_str())])))
}

/// Checks that the model has room for an answer to the first turns, and for one to the second turns behind the shortest of answers.
fn check_room(answerer: &Answerer<'_>, settings: &GenerationConfig, questions: &[MtQuestion]) -> Outcome {
    let shortest = [".".to_owned()];
    for turn in 0..2 {
        let asked: Vec<&MtQuestion> = questions.iter().filter(|q| q.turns.len() > turn).collect();
        let ids: Vec<Vec<u32>> =
            asked.iter().map(|q| turn_ids(answerer, q, turn, &shortest)).collect::<Outcome<_>>()?;
        let name = |row: usize| format!("question {}, turn {}", asked[row].question_id, turn + 1);
        answerer.check_room(&ids, &name, settings, None)?;
    }
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "one step of a loop")]
fn answer_turn(
    answerer: &Answerer<'_>,
    model: &CausalLm,
    settings: &GenerationConfig,
    seed: u64,
    questions: &[MtQuestion],
    rows: &[usize],
    turn: usize,
    turns: &mut [Vec<String>],
    meter: &mut GenerationMeter,
) -> Outcome {
    let (mut asked, mut ids) = (Vec::new(), Vec::new());
    for &i in rows.iter().filter(|&&i| questions[i].turns.len() > turn) {
        let prompt = turn_ids(answerer, &questions[i], turn, &turns[i])?;
        if settings.room(prompt.len(), answerer.config.max_position_embeddings) == 0 {
            log::warn!(
                "question {}, turn {}: the model has no room for an answer behind its first one, so the answer is empty",
                questions[i].question_id,
                turn + 1
            );
            turns[i].push(String::new());
            continue;
        }
        asked.push(i);
        ids.push(prompt);
    }
    // Another stream for the second turn.
    let texts = answerer.answer(model, &ids, settings, seed.wrapping_add(turn as u64), &[], meter)?;
    for (i, text) in asked.into_iter().zip(texts) {
        turns[i].push(text.trim().to_owned());
    }
    Ok(())
}

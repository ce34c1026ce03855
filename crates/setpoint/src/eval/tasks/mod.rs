//! `setpoint eval tasks`: MMLU, GSM8K, ARC and other tasks, by likelihood or by chain of thought.

mod job;
mod sample;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use setpoint_data::{Hub, Prompt, counted};
use setpoint_eval::{
    EvalItem, Gold, MeanScore, Task, TaskDoc, TaskMode, TaskRequest, TaskScore, TaskSet, content_digest,
    extract_answer, grade_text, pooled_mean,
};
use setpoint_train::Sequence;
use setpoint_transformer::{CausalLm, GenerationConfig};

pub use self::job::Tasks;
use self::sample::{Grade, Sample, grade_choices};
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, Wanted};
use crate::config::{Config, Problems};
use crate::eval::answers::{Answerer, conversation, decoding};
use crate::eval::result::{self, Evaluated};
use crate::failure::{Failure, Outcome};
use crate::generate::SamplingSection;
use crate::scoring::score;
use crate::session::Session;

/// The value of `data` that stands for the hub's own data sets.
const HUB: &str = "hub";

/// Settings of `setpoint eval tasks`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TasksConfig {
    /// The model.
    pub model: ModelSection,
    /// The tasks, by name.
    pub tasks: Vec<Task>,
    /// Folder of the data sets; `hub` for the hub's, as lm-evaluation-harness reads them.
    pub data: Option<PathBuf>,
    /// Other places of single tasks: a hub id, `owner/name` or `owner/name@revision`, or the folder of a copy.
    pub sources: BTreeMap<Task, String>,
    /// The way in which the model is asked.
    pub mode: TaskMode,
    /// Few-shot examples; by default lm-evaluation-harness's: 5 for GSM8K, else none.
    pub shots: Option<usize>,
    /// The largest number of examples of a task (of MMLU: of each subject), from the first.
    #[schemars(range(min = 1))]
    pub max_rows: Option<usize>,
    /// Renders prompts to be answered with the chat template; by default if the model has one and `mode` is `cot`.
    pub chat: Option<bool>,
    /// Length and batches of generated answers; they are greedy.
    pub generate: SamplingSection,
    /// Tokens in one forward pass.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub batch_tokens: usize,
    /// The model's name in the results.
    pub name: Option<String>,
    /// Folder for `result.json` and `samples_TASK.jsonl`.
    pub output: Option<PathBuf>,
}

impl Default for TasksConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            tasks: Task::by_default().collect(),
            data: None,
            sources: BTreeMap::new(),
            mode: TaskMode::Likelihood,
            shots: None,
            max_rows: None,
            chat: None,
            generate: SamplingSection {
                max_new_tokens: Some(512),
                temperature: Some(0.0),
                ..SamplingSection::default()
            },
            batch_tokens: 8192,
            name: None,
            output: None,
        }
    }
}

impl Config for TasksConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::LanguageModel, problems);
        validate_output(self.output.as_ref(), Target::Folder, problems);
        let homeless: Vec<&str> =
            self.tasks.iter().filter(|t| !self.sources.contains_key(t)).map(|t| t.name()).collect();
        problems.require(
            self.data.is_some() || homeless.is_empty(),
            "data",
            format!(
                "no data for {}: give --data DIR, the folder of the data sets, --data hub, or --data TASK=owner/name",
                homeless.join(", ")
            ),
        );
        for task in self.sources.keys().filter(|t| !self.tasks.contains(t)) {
            problems.add(&format!("sources.{}", task.name()), "data for a task that is not in `tasks`");
        }
        problems.require(!self.tasks.is_empty(), "tasks", "no task");
        let mut sorted = self.tasks.clone();
        sorted.sort();
        sorted.dedup();
        problems.require(sorted.len() == self.tasks.len(), "tasks", "a task is named twice");
        problems.require(self.max_rows != Some(0), "max_rows", "must be at least 1");
        problems.require(self.batch_tokens > 0, "batch_tokens", "must be at least 1");
        self.generate.validate("generate", problems);
        problems.require(
            self.generate.temperature == Some(0.0),
            "generate.temperature",
            "must be 0: answers are greedy",
        );
        problems.require(
            self.generate.samples.unwrap_or(1) == 1,
            "generate.samples",
            "a task takes one answer per example",
        );
    }
}

/// The results of the tasks.
#[derive(Debug, Clone, Serialize)]
pub struct TasksReport {
    /// The scores of each task, metric by metric.
    pub tasks: BTreeMap<&'static str, BTreeMap<&'static str, TaskScore>>,
    /// The mean of the tasks.
    pub average: Option<MeanScore>,
    /// The names of the tasks in the order of the settings.
    #[serde(skip)]
    pub order: Vec<&'static str>,
}

/// Asks and grades. The graded examples are written into the folder of the settings, if there is one.
///
/// # Errors
/// When a file cannot be read or written, or the model has no room for a prompt.
pub fn run(session: &Session, config: &TasksConfig) -> Outcome<Evaluated<TasksReport>> {
    let sets = read(config)?;
    let answerer = Answerer::open(session, &config.model)?;
    let settings = answerer.settings(&config.generate)?;
    // Every prompt is built before the weights are read: missing few-shot examples and a lack of room show at once.
    let requests: Vec<Vec<TaskRequest>> =
        sets.iter().map(|set| Ok(set.requests(config.mode, shots(config, set.task))?)).collect::<Outcome<_>>()?;
    let asked: Vec<Asked> =
        requests.iter().map(|requests| asked(config, &answerer, &settings, requests)).collect::<Outcome<_>>()?;
    let identity = result::identity(&config.model, config.name.as_deref(), answerer.encoder.fingerprint())?;
    let model = answerer.load()?;
    if let Some(dir) = &config.output {
        result::folder(dir)?;
    }
    let (mut scores, mut items) = (BTreeMap::new(), Vec::new());
    for ((set, requests), asked) in sets.iter().zip(requests).zip(asked) {
        let likelihood = matches!(asked, Asked::Continuations(_));
        let samples = match asked {
            Asked::Continuations(rows) => by_likelihood(session, config, &model, set, requests, &rows)?,
            Asked::Prompts(ids) => by_answer(config, &answerer, &model, &settings, set, requests, &ids)?,
        };
        let main = if likelihood { "acc" } else { "flexible" };
        items.extend(samples.iter().map(|s| EvalItem { id: s.id.clone(), value: s.grades[main].value() }));
        scores.insert(set.task.name(), summarize(set, &samples)?);
        if let Some(dir) = &config.output {
            result::write_lines(&dir.join(format!("samples_{}.jsonl", set.task.name())), &samples)?;
        }
    }
    let mains: Vec<MeanScore> =
        scores.values().filter_map(|m| m.get("acc").or_else(|| m.get("flexible"))).map(|s| s.overall).collect();
    let average = pooled_mean(&mains);
    let mut manifest = result::manifest("tasks", identity, digest(&sets));
    manifest.decoding = decoding(&settings, config.generate.seed);
    manifest.scoring = scoring(config, &answerer);
    let order = sets.iter().map(|set| set.task.name()).collect();
    Ok(Evaluated { scores: TasksReport { tasks: scores, average, order }, manifest, items })
}

/// Checks everything and returns what would be asked, a line for each task.
///
/// # Errors
/// Everything of [`run`] that can be found without the weights.
pub fn dry_run(session: &Session, config: &TasksConfig) -> Outcome<String> {
    let sets = read(config)?;
    let answerer = Answerer::open(session, &config.model)?;
    let settings = answerer.settings(&config.generate)?;
    let mut lines = Vec::new();
    for set in &sets {
        let requests = set.requests(config.mode, shots(config, set.task))?;
        if let Err(failure) = asked(config, &answerer, &settings, &requests) {
            log::warn!("{}: {}", set.task.name(), failure.sentence());
        }
        let continuations: usize = requests.iter().map(|r| r.continuations.len()).sum();
        let examples = counted(requests.len(), "example");
        let work = if continuations > 0 {
            format!("{} to score", counted(continuations, "continuation"))
        } else {
            "each answered".to_owned()
        };
        lines.push(format!("{}: {examples}, {work}", set.task.name()));
    }
    Ok(lines.join("\n"))
}

fn read(config: &TasksConfig) -> Outcome<Vec<TaskSet>> {
    config.tasks.iter().map(|&task| read_one(config, task)).collect()
}

fn read_one(config: &TasksConfig, task: Task) -> Outcome<TaskSet> {
    let with_shots = shots(config, task) > 0;
    let published = |source: &str| TaskSet::read_published(task, source, with_shots, &Hub::from_env());
    let mut set = match (config.sources.get(&task), config.data.as_deref()) {
        (Some(source), _) => published(source)?,
        // A folder of this name wins, as it does over a hub id.
        (None, Some(dir)) if dir == Path::new(HUB) && !dir.is_dir() => published(task.hub_id())?,
        (None, Some(dir)) => TaskSet::read(task, dir, with_shots)?,
        (None, None) => return Err(Failure::usage("data", "no data")),
    };
    if set.undecided > 0 {
        log::info!(
            "{}: {} examples are left out, the file does not tell which of their choices is right",
            task.name(),
            set.undecided
        );
    }
    if let Some(most) = config.max_rows {
        let mut seen: BTreeMap<Option<String>, usize> = BTreeMap::new();
        set.docs.retain(|doc| {
            let count = seen.entry(doc.subject.clone()).or_default();
            *count += 1;
            *count <= most
        });
    }
    Ok(set)
}

fn shots(config: &TasksConfig, task: Task) -> usize {
    config.shots.unwrap_or_else(|| task.default_shots(config.mode))
}

fn uses_chat(config: &TasksConfig, answerer: &Answerer<'_>) -> bool {
    config.chat.unwrap_or(config.mode == TaskMode::Cot && answerer.encoder.template().is_some())
}

fn scoring(config: &TasksConfig, answerer: &Answerer<'_>) -> Value {
    let shots: BTreeMap<&str, usize> = config.tasks.iter().map(|&t| (t.name(), shots(config, t))).collect();
    json!({ "prompts": "lm-evaluation-harness 0.4", "mode": config.mode, "shots": shots, "chat": uses_chat(config, answerer) })
}

/// Questions, choices and answers of all tasks.
fn digest(sets: &[TaskSet]) -> String {
    let mut texts = Vec::new();
    for (set, doc) in sets.iter().flat_map(|set| set.docs.iter().map(move |doc| (set, doc))) {
        texts.extend([doc.id(set.task), doc.question.clone()]);
        texts.extend(doc.choices.iter().cloned());
        texts.push(match &doc.gold {
            Gold::Choice(index) => index.to_string(),
            Gold::Choices(indices) => indices.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
            Gold::Solution(solution) => solution.clone(),
        });
    }
    content_digest(texts.iter().map(String::as_str))
}

/// The requests of a task as tokens.
enum Asked {
    /// Continuations to score.
    Continuations(Vec<Sequence>),
    /// Prompts to answer.
    Prompts(Vec<Vec<u32>>),
}

fn asked(
    config: &TasksConfig,
    answerer: &Answerer<'_>,
    settings: &GenerationConfig,
    requests: &[TaskRequest],
) -> Outcome<Asked> {
    if requests.first().is_some_and(|r| !r.continuations.is_empty()) {
        let rows: Vec<Vec<Sequence>> = requests.iter().map(|r| sequences(answerer, r)).collect::<Outcome<_>>()?;
        return Ok(Asked::Continuations(rows.concat()));
    }
    let chat = uses_chat(config, answerer);
    // As in the harness, what does not fit in front of the answer is cut off on the left.
    let room = answerer.config.max_position_embeddings.saturating_sub(settings.max_new_tokens);
    if room == 0 {
        let (asked, positions) = (settings.max_new_tokens, answerer.config.max_position_embeddings);
        let message = format!(
            "{asked} new tokens leave no room for a prompt, as the model takes {positions} in all; lower it, as in --set \
             generate.max_new_tokens={}",
            (positions / 2).max(1)
        );
        return Err(Failure::usage("generate.max_new_tokens", message));
    }
    let ids = requests.iter().map(|r| {
        let mut ids = match chat {
            true => answerer.ids(conversation([("user", r.context.as_str())]))?,
            false => answerer.ids(Prompt::Text(r.context.clone()))?,
        };
        Ok(ids.split_off(ids.len().saturating_sub(room)))
    });
    Ok(Asked::Prompts(ids.collect::<Outcome<_>>()?))
}

/// The harness's `_encode_pair`: spaces at the end of the context belong to the continuation, and the continuation's tokens are those
/// of the whole text behind the context's. What does not fit into the model is cut off on the left.
fn sequences(answerer: &Answerer<'_>, request: &TaskRequest) -> Outcome<Vec<Sequence>> {
    if !request.contexts.is_empty() {
        let pairs = request.contexts.iter().zip(&request.continuations);
        return pairs.map(|(context, text)| continued(answerer, context, text)).collect();
    }
    let trimmed = request.context.trim_end();
    let spaces = &request.context[trimmed.len()..];
    let ids = answerer.ids(Prompt::Text(trimmed.to_owned()))?;
    let continuations = request.continuations.iter();
    continuations.map(|text| sequence(answerer, trimmed, ids.clone(), format!("{spaces}{text}"))).collect()
}

/// The only continuation of a context.
fn continued(answerer: &Answerer<'_>, context: &str, text: &str) -> Outcome<Sequence> {
    let trimmed = context.trim_end();
    let ids = answerer.ids(Prompt::Text(trimmed.to_owned()))?;
    sequence(answerer, trimmed, ids, format!("{}{text}", &context[trimmed.len()..]))
}

/// A continuation of a context whose tokens are `ids`.
fn sequence(answerer: &Answerer<'_>, trimmed: &str, mut ids: Vec<u32>, continuation: String) -> Outcome<Sequence> {
    let whole = answerer.ids(Prompt::Text(format!("{trimmed}{continuation}")))?;
    let prompt = ids.len();
    ids.extend(whole.iter().skip(prompt));
    let added = ids.len() - prompt;
    let most = answerer.config.max_position_embeddings;
    if added == 0 || added > most {
        return Err(Failure::run(format!(
            "the continuation `{continuation}` has {added} tokens, expected 1 to {most}"
        )));
    }
    let ids = ids.split_off(ids.len().saturating_sub(most + 1));
    let prompt_len = ids.len() - added;
    Ok(Sequence { ids, prompt_len, scored_from: prompt_len })
}

fn by_likelihood(
    session: &Session,
    config: &TasksConfig,
    model: &CausalLm,
    set: &TaskSet,
    requests: Vec<TaskRequest>,
    sequences: &[Sequence],
) -> Outcome<Vec<Sample>> {
    let counts: Vec<usize> = requests.iter().map(|r| r.continuations.len()).collect();
    let scores = score(session, (set.task.name(), "examples"), model, sequences, &counts, config.batch_tokens)?;
    let mut scores = scores.into_iter().map(|s| s.response_logp);
    let sample = |(doc, request): (&TaskDoc, TaskRequest)| {
        let loglikelihoods: Vec<f64> = scores.by_ref().take(request.continuations.len()).collect();
        let grades = grade_choices(set.task, doc, &loglikelihoods)?;
        let TaskRequest { context, contexts, continuations } = request;
        let id = doc.id(set.task);
        Ok(Sample { id, context, contexts, continuations, loglikelihoods, answer: None, extracted: None, grades })
    };
    set.docs.iter().zip(requests).map(sample).collect()
}

fn by_answer(
    config: &TasksConfig,
    answerer: &Answerer<'_>,
    model: &CausalLm,
    settings: &GenerationConfig,
    set: &TaskSet,
    requests: Vec<TaskRequest>,
    ids: &[Vec<u32>],
) -> Outcome<Vec<Sample>> {
    let mut meter = answerer.meter(ids.len(), settings);
    let stops = set.stops(config.mode);
    let answers = answerer.answer(model, ids, settings, config.generate.seed, &stops, &mut meter);
    meter.finish();
    let answers = answers?;
    let sample = |((doc, request), answer): ((&TaskDoc, TaskRequest), String)| {
        let extracted = extract_answer(set.task, config.mode, &doc.choices, &answer);
        let grade = grade_text(doc, &extracted);
        Sample {
            id: doc.id(set.task),
            context: request.context,
            contexts: Vec::new(),
            continuations: Vec::new(),
            loglikelihoods: Vec::new(),
            answer: Some(answer),
            extracted: Some(extracted),
            grades: BTreeMap::from([
                ("strict", Grade::Right(grade.strict)),
                ("flexible", Grade::Right(grade.flexible)),
            ]),
        }
    };
    Ok(set.docs.iter().zip(requests).zip(answers).map(sample).collect())
}

/// Metric by metric.
fn summarize(set: &TaskSet, samples: &[Sample]) -> Outcome<BTreeMap<&'static str, TaskScore>> {
    let metrics: Vec<&'static str> = samples.first().map(|s| s.grades.keys().copied().collect()).unwrap_or_default();
    let score = |metric: &'static str| {
        let grades: Vec<f64> = samples.iter().map(|s| s.grades[metric].value()).collect();
        Ok((metric, TaskScore::of(&set.docs, &grades)?))
    };
    metrics.into_iter().map(score).collect()
}

//! A generative reward model: a chat model is asked to score a response, and its score is read from the answer.
//!
//! The source is in this crate because it joins two that do not know each other: `RewardSource` of setpoint-reward and the judge's client of
//! setpoint-eval.

use std::ops::ControlFlow;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_eval::{
    ChatAnswer, ChatMessage, ChatRequest, ChatResult, JudgeClient, JudgeSettings, OnFailure, ScoreReader,
    fill_template, mean,
};
use setpoint_reward::{Error, RewardSource, Scored};

use super::{Opening, SourceSettings, TEMPLATE};
use crate::config::Problems;
use crate::config::output::{Target, validate_target};
use crate::failure::{Failure, Outcome};
use crate::judge::{self, spending};
use crate::setup;

/// `[generative]`: what is asked, and how the answer is read.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-chosen-by" = "judge.model"))]
pub struct GenerativeSection {
    /// The user's message; `{prompt}` and `{response}` stand for the row's, `{column}` for a further text column of it.
    pub template: String,
    /// A file that holds the template.
    pub template_file: Option<PathBuf>,
    /// The system message.
    pub system: Option<String>,
    /// The pattern whose first group is the score, at its last match; or give `field`.
    pub pattern: String,
    /// The dotted path of the score in the last JSON object of the answer that has it.
    pub field: Option<String>,
    /// The smallest score; an answer with one below it has none.
    pub min: Option<f64>,
    /// The greatest score; an answer with one above it has none.
    pub max: Option<f64>,
    /// The number of answers per response; the reward is the mean of their scores.
    #[schemars(range(min = 1), extend("x-unit" = "answers"))]
    pub samples: u32,
    /// The sampling temperature.
    #[schemars(range(min = 0))]
    pub temperature: f64,
    /// The greatest number of new tokens of an answer.
    #[schemars(range(min = 1), extend("x-unit" = "tokens"))]
    pub max_tokens: u32,
    /// The endpoint of the judge.
    pub judge: JudgeSettings,
}

impl Default for GenerativeSection {
    fn default() -> Self {
        Self {
            template: "Rate how helpful, correct and harmless the response is, from 1 to 10. Give a short reason, then the rating in \
                       double brackets, as in [[5]].\n\n[Prompt]\n{prompt}\n\n[Response]\n{response}"
                .to_owned(),
            template_file: None,
            system: None,
            pattern: r"\[\[(-?\d+(?:\.\d+)?)\]\]".to_owned(),
            field: None,
            min: None,
            max: None,
            samples: 1,
            temperature: 0.0,
            max_tokens: 1024,
            judge: JudgeSettings::default(),
        }
    }
}

impl GenerativeSection {
    /// Notes what is wrong with the settings of a judge that is asked. They are in the section `section`.
    fn validate_all(&self, section: &str, problems: &mut Problems<'_>) {
        let at = |name: &str| format!("{section}.{name}");
        for (key, message) in self.judge.problems() {
            problems.add(&at(&format!("judge.{key}")), message);
        }
        validate_target(self.judge.cache.as_ref(), Target::File, &at("judge.cache"), problems);
        if self.template_file.is_none() {
            problems.require(
                self.template.contains("{response}"),
                &at("template"),
                "names no `{response}`: every response would get the same score",
            );
        }
        if let Err(reason) = ScoreReader::pattern(&self.pattern) {
            problems.add(&at("pattern"), reason);
        }
        let bounds = |least: f64, most: f64| least < most;
        problems.require(
            self.min.zip(self.max).is_none_or(|(least, most)| bounds(least, most)),
            &at("min"),
            format!("must be less than {section}.max"),
        );
        problems.require(self.samples > 0, &at("samples"), "must be at least 1");
        problems.require(
            self.samples <= 1 || self.temperature > 0.0,
            &at("temperature"),
            "several samples at temperature 0 are one and the same: set a temperature",
        );
        problems.require(
            self.temperature.is_finite() && self.temperature >= 0.0,
            &at("temperature"),
            "must be a number, 0 or greater",
        );
        for (name, bound) in [("min", self.min), ("max", self.max)] {
            problems.require(bound.is_none_or(|bound| !bound.is_nan()), &at(name), "must be a number");
        }
        problems.require(self.max_tokens > 0, &at("max_tokens"), "must be at least 1");
    }
}

impl SourceSettings for GenerativeSection {
    fn chosen_by(&self, key: &str) -> String {
        format!("{key}.judge.model")
    }

    fn advice(&self, key: &str) -> String {
        format!("`{}`", self.chosen_by(key))
    }

    fn is_given(&self) -> bool {
        self.judge.model.is_some()
    }

    fn validate(&self, key: &str, problems: &mut Problems<'_>) {
        if self.is_given() {
            self.validate_all(key, problems);
        } else {
            judge::validate_address(&self.judge, &format!("{key}.judge"), problems);
        }
    }

    fn questions(&self) -> Option<usize> {
        Some(self.samples as usize)
    }

    fn inputs(&self) -> Outcome<Vec<(&'static str, String)>> {
        let Some(path) = self.template_file.as_ref().filter(|_| self.is_given()) else { return Ok(Vec::new()) };
        Ok(vec![(TEMPLATE, setup::text_hash(&setpoint_files::read_text(path)?))])
    }

    fn open(&self, opening: &Opening<'_>) -> Outcome<Box<dyn RewardSource>> {
        Ok(Box::new(GenerativeSource::open(self, opening)?))
    }
}

/// A source of rewards behind a chat endpoint.
pub struct GenerativeSource {
    section: GenerativeSection,
    /// The key of its section, for messages.
    key: String,
    template: String,
    reader: ScoreReader,
    client: JudgeClient,
}

impl GenerativeSource {
    /// Reads the template and the key, opens the cache: beside the job's output unless the settings name another. Nothing is sent.
    ///
    /// # Errors
    /// When a file cannot be read, the template or the pattern is none, or the key is not there.
    pub fn open(section: &GenerativeSection, opening: &Opening<'_>) -> Outcome<Self> {
        let key = opening.key("generative");
        let template = match &section.template_file {
            None => section.template.clone(),
            Some(path) => setpoint_files::read_text(path)?,
        };
        if !template.contains("{response}") {
            return Err(Failure::usage(format!("{key}.template_file"), "the template names no `{response}`"));
        }
        let reader = match &section.field {
            Some(field) => ScoreReader::Field(field.clone()),
            None => ScoreReader::pattern(&section.pattern).map_err(|e| Failure::usage(format!("{key}.pattern"), e))?,
        };
        let mut judge = section.judge.clone();
        // No file can be put beside a device or a pipe.
        let output = opening.output.filter(|path| path.is_file() || !path.exists());
        judge.cache = judge.cache.or_else(|| output.map(|path| path.with_extension("judge_cache.jsonl")));
        let client = judge::client(&judge, &format!("{key}.judge"))?;
        Ok(Self { section: section.clone(), key, template, reader, client })
    }

    fn requests(&self, item: &Scored<'_>) -> impl Iterator<Item = ChatRequest> {
        let text = fill_template(&self.template, |name| match name {
            "prompt" => Some(item.prompt),
            "response" => Some(item.response),
            column => item.fields?.get(column)?.as_str(),
        });
        let system = self.section.system.iter().map(|text| ChatMessage::new("system", text.as_str()));
        let messages: Vec<ChatMessage> = system.chain([ChatMessage::new("user", text)]).collect();
        let (temperature, max_tokens) = (self.section.temperature, Some(self.section.max_tokens));
        (0..self.section.samples).map(move |sample| ChatRequest {
            messages: messages.clone(),
            temperature,
            max_tokens,
            top_logprobs: None,
            sample,
        })
    }

    fn score(&self, answer: &ChatAnswer) -> Option<f64> {
        let within = |s: &f64| self.section.min.is_none_or(|m| *s >= m) && self.section.max.is_none_or(|m| *s <= m);
        // An answer that was cut off may not have come to its score yet.
        if answer.is_truncated() { None } else { self.reader.read(&answer.content).filter(within) }
    }

    /// Explains why a response has no score, from the first of its answers.
    fn complaint(&self, answer: &ChatResult) -> String {
        match answer {
            Ok(answer) => match self.reader.read(&answer.content) {
                Some(score) if !answer.is_truncated() => {
                    let key = &self.key;
                    format!("its score {score} lies outside of {key}.min and {key}.max")
                }
                _ => answer.complaint(),
            },
            Err(reason) => reason.clone(),
        }
    }
}

impl RewardSource for GenerativeSource {
    fn describe(&self) -> String {
        format!("judge {}", self.client.model())
    }

    fn reads_fields(&self) -> bool {
        true
    }

    fn remedy(&self) -> Option<String> {
        let skip = format!("--set {}.judge.on_failure=skip leaves out responses without a score", self.key);
        Some(match self.client.cache() {
            Some(path) => {
                let kept = path.display();
                format!(
                    "usable answers are kept in {kept}: the same command asks only for those that are missing; {skip}"
                )
            }
            None => skip,
        })
    }

    fn rate(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error> {
        let scores = self.ask(items, true, progress)?;
        // One that ends at the first failure leaves none out.
        Ok(scores.into_iter().flatten().collect())
    }

    fn score_available(
        &self,
        items: &[Scored<'_>],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Option<f64>>, Error> {
        self.ask(items, self.client.on_failure(OnFailure::Error) == OnFailure::Error, progress)
    }
}

impl GenerativeSource {
    /// The mean score of each response's answers. A response of which no answer holds a score ends the asking at once if
    /// `fails`, and has none otherwise.
    fn ask(
        &self,
        items: &[Scored<'_>],
        fails: bool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Option<f64>>, Error> {
        let samples = self.section.samples as usize;
        let failed = |item: &Scored<'_>, source: Box<dyn std::error::Error + Send + Sync>| Error::Source {
            source_name: self.describe(),
            row: item.row,
            response: item.response_index,
            source,
        };
        let Some(first) = items.first() else { return Ok(Vec::new()) };
        let requests: Vec<ChatRequest> = items.iter().flat_map(|item| self.requests(item)).collect();
        let (mut done, mut open, mut scored) = (0, vec![samples; items.len()], vec![false; items.len()]);
        let mut arrived = |places: &[usize], answer: &ChatResult| {
            done += places.len();
            progress(done / samples);
            let has_score = answer.as_ref().is_ok_and(|answer| self.score(answer).is_some());
            let mut end = ControlFlow::Continue(());
            for item in places.iter().map(|place| place / samples) {
                open[item] -= 1;
                scored[item] |= has_score;
                if fails && open[item] == 0 && !scored[item] {
                    end = ControlFlow::Break(());
                }
            }
            end
        };
        let answers = self.client.ask_each(&requests, &|answer| self.score(answer).is_some(), &mut arrived);
        log::info!("judge: {}", spending(&self.client));
        let answers = answers.map_err(|error| failed(first, error.into()))?;
        let mut without: Vec<(&Scored<'_>, String)> = Vec::new();
        let mut rewards = Vec::with_capacity(items.len());
        for (item, answers) in items.iter().zip(answers.chunks(samples)) {
            let scores: Vec<f64> = answers.iter().flatten().flatten().filter_map(|a| self.score(a)).collect();
            if scores.is_empty()
                && let [Some(answer), ..] = answers
                && answers.iter().all(Option::is_some)
            {
                without.push((item, self.complaint(answer)));
            }
            rewards.push((!scores.is_empty()).then(|| mean(&scores)));
        }
        match without.first() {
            Some((item, reason)) if fails => Err(failed(item, reason.clone().into())),
            Some((item, reason)) => {
                log::warn!(
                    "{} of {} responses have no score and are left out; the first is response {} of row {}: {reason}",
                    without.len(),
                    items.len(),
                    item.response_index,
                    item.row
                );
                Ok(rewards)
            }
            None => Ok(rewards),
        }
    }
}

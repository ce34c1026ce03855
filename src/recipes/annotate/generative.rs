//! A generative reward model: a chat model is asked to score a response, and its score is read from the answer.
//!
//! The source stands here because it joins two crates that do not know each other: `RewardSource` of setpoint-reward and the judge's
//! client of setpoint-eval.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use setpoint_eval::{ChatMessage, ChatRequest, JudgeClient, JudgeSettings, ScoreReader, fill_template};
use setpoint_reward::{Error, RewardSource, Scored};

use crate::config::Problems;
use crate::failure::{Failure, Outcome};
use crate::progress;

/// `[generative]`: what is asked, and how the answer is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerativeSection {
    /// The user's message; `{prompt}` and `{response}` stand for the row's, `{column}` for a further text column of it.
    pub template: String,
    /// A file that holds the template.
    pub template_file: Option<PathBuf>,
    /// The system message.
    pub system: Option<String>,
    /// Reads the score: the first group of this pattern, where it matches last; or `field`.
    pub pattern: String,
    /// Reads the score: a number at this dotted path of the JSON object in the answer.
    pub field: Option<String>,
    /// Scores outside of these bounds count as none.
    pub min: Option<f64>,
    /// See `min`.
    pub max: Option<f64>,
    /// Answers per response; the reward is the mean of the scores that they hold.
    pub samples: u32,
    /// Sampling temperature.
    pub temperature: f64,
    /// Greatest number of new tokens of an answer.
    pub max_tokens: u32,
    /// The endpoint.
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
    /// Whether a judge is named, which makes this the source of rewards.
    pub fn is_given(&self) -> bool {
        self.judge.model.is_some()
    }

    /// Notes what is wrong.
    pub fn validate(&self, problems: &mut Problems<'_>) {
        for (key, message) in self.judge.problems() {
            problems.add(&format!("generative.judge.{key}"), message);
        }
        if self.template_file.is_none() {
            problems.require(
                self.template.contains("{response}"),
                "generative.template",
                "names no `{response}`: every response would get the same score",
            );
        }
        if let Err(reason) = ScoreReader::pattern(&self.pattern) {
            problems.add("generative.pattern", reason);
        }
        let bounds = |least: f64, most: f64| least < most;
        problems.require(
            self.min.zip(self.max).is_none_or(|(least, most)| bounds(least, most)),
            "generative.min",
            "must be less than generative.max",
        );
        problems.require(self.samples > 0, "generative.samples", "must be at least 1");
        problems.require(
            self.samples <= 1 || self.temperature > 0.0,
            "generative.temperature",
            "several samples at temperature 0 are one and the same: set a temperature",
        );
        problems.require(self.temperature >= 0.0, "generative.temperature", "must be at least 0");
        problems.require(self.max_tokens > 0, "generative.max_tokens", "must be at least 1");
    }
}

/// A source of rewards behind a chat endpoint.
pub struct GenerativeSource {
    section: GenerativeSection,
    template: String,
    reader: ScoreReader,
    client: JudgeClient,
}

impl GenerativeSource {
    /// Reads the template and the key, opens the cache. Nothing is sent.
    pub fn open(section: &GenerativeSection) -> Outcome<Self> {
        let template = match &section.template_file {
            None => section.template.clone(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| Failure::run(format!("cannot read {}: {e}", path.display())))?,
        };
        if !template.contains("{response}") {
            return Err(Failure::usage("generative.template_file", "the template names no `{response}`"));
        }
        let reader = match &section.field {
            Some(field) => ScoreReader::Field(field.clone()),
            None => ScoreReader::pattern(&section.pattern).map_err(|e| Failure::usage("generative.pattern", e))?,
        };
        let client = JudgeClient::open(&section.judge)?;
        Ok(Self { section: section.clone(), template, reader, client })
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

    fn score(&self, answer: &str) -> Option<f64> {
        let within = |s: &f64| self.section.min.is_none_or(|m| *s >= m) && self.section.max.is_none_or(|m| *s <= m);
        self.reader.read(answer).filter(within)
    }
}

impl RewardSource for GenerativeSource {
    fn describe(&self) -> String {
        format!("judge {}", self.client.model())
    }

    fn rate(&self, items: &[Scored<'_>], progress: &mut dyn FnMut(usize)) -> Result<Vec<f64>, Error> {
        let samples = self.section.samples as usize;
        let failed = |item: &Scored<'_>, source: Box<dyn std::error::Error + Send + Sync>| Error::Source {
            source_name: self.describe(),
            row: item.row,
            response: item.response_index,
            source,
        };
        let Some(first) = items.first() else { return Ok(Vec::new()) };
        let requests: Vec<ChatRequest> = items.iter().flat_map(|item| self.requests(item)).collect();
        let answers = self.client.ask_all(&requests, &mut |done| progress(done / samples));
        let answers = answers.map_err(|error| failed(first, error.into()))?;
        progress::note(format!("judge: {}", crate::recipes::eval::spending(&self.client)));
        items
            .iter()
            .zip(answers.chunks(samples))
            .map(|(item, answers)| {
                let scores: Vec<f64> =
                    answers.iter().filter_map(|a| a.as_ref().ok()).filter_map(|a| self.score(&a.content)).collect();
                if scores.is_empty() {
                    let reason = match &answers[0] {
                        Ok(answer) => format!("no score in its answer `{}`", shortened(&answer.content)),
                        Err(reason) => reason.clone(),
                    };
                    return Err(failed(item, reason.into()));
                }
                Ok(scores.iter().sum::<f64>() / scores.len() as f64)
            })
            .collect()
    }
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    text.chars().take(LONGEST).collect()
}

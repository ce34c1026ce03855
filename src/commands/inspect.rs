//! `setpoint inspect`: data as tokens, a checkpoint's shape, a job's settings.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use burn::tensor::FloatDType;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use setpoint_data::{DatasetConfig, EncodeOptions, Segment, SegmentKind, Uses, counted, load_records, segments};
use setpoint_transformer::checkpoint::Checkpoint;
use setpoint_transformer::lora::LoraConfig;

use crate::host::session;
use crate::progress::{self, say, say_file, say_json, say_painted};
use setpoint::config::schema::with_lists;
use setpoint::config::sections::{ModelSection, validate_sft_training_data};
use setpoint::config::{Config, Given, Problems};
use setpoint::fetching::fetch_weights_of;
use setpoint::jobs::{self, AnyJob, JOBS, View};
use setpoint::model_folder::ModelFolder;
use setpoint::session::memory::size;
use setpoint::training::ParameterBytes;
use setpoint::{Failure, Outcome, setup};

/// The view that follows from the rows.
pub const AUTO: &str = "auto";

/// Settings of `setpoint inspect data`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectConfig {
    /// The model whose tokenizer and template are used.
    pub model: ModelSection,
    /// The rows.
    pub data: DatasetConfig,
    /// The conversion of rows to tokens.
    pub encode: EncodeOptions,
    /// The job whose view is shown.
    pub job: InspectedJob,
}

/// Whose view of the rows `setpoint inspect data` shows: that of a job, or by default the one that follows from the rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct InspectedJob(Option<&'static dyn AnyJob>);

impl InspectedJob {
    fn view(self) -> Option<View> {
        self.0?.view()
    }
}

impl Serialize for InspectedJob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.map_or(AUTO, |job| job.command()))
    }
}

impl<'de> Deserialize<'de> for InspectedJob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == AUTO {
            return Ok(Self(None));
        }
        let jobs = || JOBS.iter().copied().filter(|job| job.view().is_some());
        match jobs().find(|job| job.command() == name) {
            Some(job) => Ok(Self(Some(job))),
            None => {
                let names: Vec<String> = jobs().map(|job| format!(", `{}`", job.command())).collect();
                Err(D::Error::custom(format_args!(
                    "unknown variant `{name}`, expected one of `{AUTO}`{}",
                    names.concat()
                )))
            }
        }
    }
}

impl Default for InspectConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            data: DatasetConfig::new(""),
            encode: setup::training_lengths(),
            job: InspectedJob::default(),
        }
    }
}

impl Config for InspectConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        match self.job.view() {
            Some(view) => (view.validate)(&self.data, "data", problems),
            // Rows that no job was named for may select responses.
            None => validate_sft_training_data(&self.data, "data", problems),
        }
    }
}

/// Prints rows as tokens, each kind in its colour; between marks with `plain`, and wherever there are no colours.
pub fn data(config: &InspectConfig, plain: bool) -> Outcome {
    let plain = plain || !progress::has_colours();
    let encoder = setup::encoder(&config.model)?;
    let (job, view) = inspected(config)?;
    if !view.selects && !config.encode.learns_thoughts() {
        let message =
            format!("`encode.train_on_thoughts` is a setting of `setpoint sft` alone: `setpoint {job}` has none");
        return Err(Failure::usage("encode.train_on_thoughts", message));
    }
    let (mut data, encode) = (view.read)(&config.data, &config.encode);
    // The first rows of each data set are shown.
    for source in &mut data.sources {
        source.max_rows = source.max_rows.into_iter().chain(config.data.max_rows).min();
    }
    let encode = match setup::model_config(&config.model, &encoder) {
        Ok(model) => setup::within(&encode, &model),
        // A tokenizer's folder will do.
        Err(_) => encode,
    };
    let (setup::Encoded { examples, report }, read) = setup::encoded(&data, &encode, &encoder, "data", false)?;
    for example in &examples {
        if progress::is_closed() {
            return Ok(());
        }
        say(format!("── {} ", example.source));
        for (j, response) in example.responses.iter().enumerate() {
            let segments = segments(&encoder, example, j, 1)?;
            say_painted(line(&segments, plain));
            let mut facts = vec![format!(
                "{}, {}",
                counted(example.prompt.len(), "prompt token"),
                counted(response.ids.len(), "response token")
            )];
            facts.extend(response.reward.map(|r| format!("reward {r}")));
            facts.extend(response.label.map(|l| format!("{l:?}").to_lowercase()));
            say(format!("   {}", facts.join(", ")));
        }
    }
    let first = if read.rows == 1 { "the first row of".to_owned() } else { format!("the first {} rows of", read.rows) };
    let first = if config.data.max_rows.is_some_and(|most| read.sources.iter().any(|set| set.rows >= most)) {
        first
    } else {
        "all rows of".to_owned()
    };
    let them = if first == "the first row of" { "it" } else { "them" };
    say(format!("{first} {}, as `setpoint {job}` sees {them}: {report}", config.data.name()));
    if !plain {
        say_painted(format!(
            "colours: {} {} {} {} {}",
            paint("t0", SegmentKind::T0, false),
            paint("prompt", SegmentKind::Prompt, false),
            paint("earlier assistant turn", SegmentKind::AssistantEarlier, false),
            paint("response", SegmentKind::Response, false),
            paint("stop", SegmentKind::Stop, false),
        ));
    }
    Ok(())
}

/// Returns the job whose view is shown: the one that is named; else one that selects responses if each row has one or the settings select
/// some; else one that looks at all.
fn inspected(config: &InspectConfig) -> Outcome<(&'static str, View)> {
    let selects = match (config.job.0, config.data.responses) {
        (Some(_), _) => None,
        (None, Some(_)) => Some(true),
        (None, None) => {
            let (records, _) = load_records(&setup::looking_at(&config.data, Uses::TEXT))?;
            Some(records.iter().all(|record| record.responses.len() <= 1))
        }
    };
    let candidates = config.job.0.into_iter().chain(JOBS.iter().copied());
    candidates
        .filter_map(|job| Some((job.command(), job.view()?)))
        .find(|(_, view)| selects.is_none_or(|selects| view.selects == selects))
        .ok_or_else(|| Failure::usage("job", "no job looks at rows"))
}

/// The tokens of one response behind its prompt: every other token is underlined, or `|` stands between tokens, so that one sees where
/// they end.
fn line(tokens: &[Segment], plain: bool) -> String {
    let mut text = String::new();
    let mut last = None;
    for (i, token) in tokens.iter().enumerate() {
        let shown = setpoint::visible::visible(&token.text);
        match (plain, last == Some(token.kind)) {
            (true, true) => text.push_str(&format!("|{shown}")),
            (true, false) => text.push_str(&format!("[{}]{shown}", name(token.kind))),
            (false, _) => text.push_str(&paint(&token.text, token.kind, i % 2 == 1)),
        }
        last = Some(token.kind);
    }
    text
}

fn name(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::T0 => "t0",
        SegmentKind::Prompt => "prompt",
        SegmentKind::AssistantEarlier => "earlier",
        SegmentKind::Response => "response",
        SegmentKind::Stop => "stop",
        SegmentKind::AfterStop => "after",
    }
}

fn paint(text: &str, kind: SegmentKind, underlined: bool) -> String {
    let style = match kind {
        SegmentKind::T0 => AnsiColor::Magenta.on_default(),
        SegmentKind::Prompt => Style::new().dimmed(),
        SegmentKind::AssistantEarlier => AnsiColor::Cyan.on_default(),
        SegmentKind::Response => AnsiColor::Green.on_default(),
        SegmentKind::Stop => AnsiColor::Yellow.on_default().bold(),
        SegmentKind::AfterStop => AnsiColor::Yellow.on_default(),
    };
    progress::paint(text, if underlined { style.underline() } else { style })
}

/// Prints a checkpoint's family, shape, parameters and the memory each job needs.
pub fn model(dir: &Path, tensors: bool) -> Outcome {
    let folder = ModelFolder::open(dir)?;
    let config = folder.config()?;
    let parameters = config.num_parameters();
    say(format!("{}", dir.display()));
    if let Some(adapter) = folder.adapter() {
        let LoraConfig { rank, alpha, .. } = adapter.config;
        say(format!("  adapter           rank {rank}, alpha {alpha}, on {}", folder.base().display()));
    }
    say(format!("  architecture      {:?} on {:?}", config.architecture, config.model_type));
    say(format!("  parameters        {parameters}"));
    say(format!(
        "  shape             {} layers, hidden {}, intermediate {}, {} heads ({} for keys and values) of {}",
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim
    ));
    say(format!(
        "  vocabulary        {}{}",
        config.vocab_size,
        if config.tie_word_embeddings { ", embeddings tied" } else { "" }
    ));
    say(format!(
        "  context           {} tokens{}",
        config.max_position_embeddings,
        config
            .rope
            .switch()
            .tokens()
            .map_or_else(String::new, |most| format!("; texts of more than {most} have LongRoPE's long factors"))
    ));
    let p = parameters as f64;
    say(format!(
        "  memory            {} to generate in f32 ({} in bf16), {} of weights, gradients and optimizer to train in f32 ({} in bf16), \
         and the activations",
        size(4.0 * p),
        size(2.0 * p),
        size(ParameterBytes::of(FloatDType::F32).total() * p),
        size(ParameterBytes::of(FloatDType::BF16).total() * p)
    ));
    if tensors {
        fetch_weights_of(&session(None, false)?, folder.base(), false)?;
        let checkpoint = Checkpoint::open(folder.base())?;
        for name in checkpoint.names() {
            say(format!("  {name:<56} {:?}", checkpoint.shape(name).unwrap_or_default()));
        }
    }
    Ok(())
}

/// Prints every setting of a job with its meaning.
pub fn config(job: &str, set: &[String]) -> Outcome {
    let job = named(job)?;
    let neighbours = Some(jobs::neighbours(job.command()));
    let given = Given { set: set.to_vec(), neighbours, ..Given::default() };
    say_file(job.annotated(&given)?.trim_end());
    Ok(())
}

/// Prints a schema of the settings of a job, or of all.
pub fn schema(job: Option<&str>) -> Outcome {
    let mut schema = match job {
        Some(job) => named(job)?.schema(),
        None => jobs::schema(),
    };
    with_lists(&mut schema);
    say_json(&serde_json::to_string_pretty(&schema)?);
    Ok(())
}

fn named(settings: &str) -> Outcome<&'static dyn AnyJob> {
    jobs::of_settings(settings).ok_or_else(|| Failure::usage("JOB", "no such job"))
}

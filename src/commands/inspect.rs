//! `setpoint inspect`: data as tokens, a checkpoint's shape, a job's settings.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use burn::tensor::FloatDType;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use setpoint_data::{DatasetConfig, EncodeOptions, Responses, Segment, SegmentKind, Uses, load_records, segments};
use setpoint_transformer::ModelConfig;
use setpoint_transformer::checkpoint::Checkpoint;

use crate::progress::{self, say, say_painted};
use setpoint::Outcome;
use setpoint::config::load::{Given, load_unchecked, to_table};
use setpoint::config::sections::{ModelSection, validate_data, validate_sft_data};
use setpoint::config::{Config, Problems};
use setpoint::training::ParameterBytes;
use setpoint::{align, annotate, compare, eval, generate, logps, reward, setup, sft, sweep};

/// Jobs with a configuration.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum JobName {
    /// `setpoint sft`
    Sft,
    /// `setpoint reward`
    Reward,
    /// `setpoint annotate`
    Annotate,
    /// `setpoint logps`
    Logps,
    /// `setpoint audit` and `setpoint align`
    Align,
    /// `setpoint sweep`
    Sweep,
    /// `setpoint compare`
    Compare,
    /// `setpoint generate`
    Generate,
    /// `setpoint eval`
    Eval,
    /// `setpoint eval alpaca`
    EvalAlpaca,
    /// `setpoint eval mt-bench`
    EvalMtBench,
    /// `setpoint eval tasks`
    EvalTasks,
}

/// Settings of `setpoint inspect data`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectConfig {
    /// The model whose tokenizer and template are used.
    pub model: ModelSection,
    /// The rows.
    pub data: DatasetConfig,
    /// How rows become tokens.
    pub encode: EncodeOptions,
    /// The job whose view is shown.
    pub job: InspectedJob,
}

/// Whose view of the rows `setpoint inspect data` shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum InspectedJob {
    /// That of `align` where a row has several responses and `data.responses` selects none, else that of `sft`.
    #[default]
    Auto,
    /// `setpoint sft`: every assistant turn that the row does not exclude is learned.
    Sft,
    /// `setpoint align`, `reward` and `logps`: the responses of each prompt.
    Align,
}

impl Default for InspectConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            data: DatasetConfig::new(""),
            encode: setup::training_lengths(),
            job: InspectedJob::Auto,
        }
    }
}

impl Config for InspectConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        match self.job {
            InspectedJob::Align => validate_data(&self.data, "data", problems),
            InspectedJob::Auto | InspectedJob::Sft => validate_sft_data(&self.data, "data", problems),
        }
    }
}

/// Prints rows as tokens, each kind in its colour; between marks with `plain`, and wherever there are no colours.
pub fn data(config: &InspectConfig, plain: bool) -> Outcome {
    let plain = plain || !progress::has_colours();
    let encoder = setup::encoder(&config.model)?;
    let job = inspected(config)?;
    let (data, encode) = match job {
        InspectedJob::Sft => {
            let encode = EncodeOptions { assistant_spans: true, ..sft::turns(&config.encode) };
            (sft::reading(&config.data, Some(Responses::Auto)), encode)
        }
        _ => (setup::looking_at(&config.data, Uses::TEXT), config.encode.clone()),
    };
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
            let mut facts =
                vec![format!("{} prompt tokens, {} response tokens", example.prompt.len(), response.ids.len())];
            facts.extend(response.reward.map(|r| format!("reward {r}")));
            facts.extend(response.label.map(|l| format!("{l:?}").to_lowercase()));
            say(format!("   {}", facts.join(", ")));
        }
    }
    let job = if job == InspectedJob::Sft { "sft" } else { "align" };
    say(format!("{} rows read from {}, as `setpoint {job}` sees them; {report}", read.rows, config.data.path));
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

/// The job whose view is shown.
fn inspected(config: &InspectConfig) -> Outcome<InspectedJob> {
    match (config.job, config.data.responses) {
        (InspectedJob::Auto, Some(_)) => Ok(InspectedJob::Sft),
        (InspectedJob::Auto, None) => {
            let (records, _) = load_records(&setup::looking_at(&config.data, Uses::TEXT))?;
            let several = records.iter().any(|record| record.responses.len() > 1);
            Ok(if several { InspectedJob::Align } else { InspectedJob::Sft })
        }
        (job, _) => Ok(job),
    }
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
    let config = ModelConfig::from_file(&dir.join("config.json"))?;
    let parameters = config.num_parameters();
    say(format!("{}", dir.display()));
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
    say(format!("  context           {} tokens", config.max_position_embeddings));
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    let p = parameters as f64;
    say(format!(
        "  memory            {:.2} GiB to generate in f32 ({:.2} in bf16), {:.2} GiB of weights, gradients and optimizer to train in f32 \
         ({:.2} in bf16), activations beside it",
        gib(4.0 * p),
        gib(2.0 * p),
        gib(ParameterBytes::of(FloatDType::F32).total() * p),
        gib(ParameterBytes::of(FloatDType::BF16).total() * p)
    ));
    if tensors {
        let checkpoint = Checkpoint::open(dir)?;
        for name in checkpoint.names() {
            say(format!("  {name:<56} {:?}", checkpoint.shape(name).unwrap_or_default()));
        }
    }
    Ok(())
}

/// Prints all settings of a job with their defaults.
pub fn config(job: JobName, set: &[String]) -> Outcome {
    fn print<C: Config>(set: &[String]) -> Outcome {
        let given = Given { set: set.to_vec(), ..Given::default() };
        let config: C = load_unchecked(&given)?;
        say(toml::to_string(&to_table(&config))?);
        Ok(())
    }
    match job {
        JobName::Sft => print::<sft::SftConfig>(set),
        JobName::Reward => print::<reward::RewardConfig>(set),
        JobName::Annotate => print::<annotate::AnnotateConfig>(set),
        JobName::Logps => print::<logps::LogpsConfig>(set),
        JobName::Align => print::<align::AlignConfig>(set),
        JobName::Sweep => print::<sweep::SweepConfig>(set),
        JobName::Compare => print::<compare::CompareConfig>(set),
        JobName::Generate => print::<generate::GenerateConfig>(set),
        JobName::Eval => print::<eval::EvalConfig>(set),
        JobName::EvalAlpaca => print::<eval::alpaca::AlpacaConfig>(set),
        JobName::EvalMtBench => print::<eval::mt_bench::MtBenchConfig>(set),
        JobName::EvalTasks => print::<eval::tasks::TasksConfig>(set),
    }
}

//! `setpoint generate`: samples responses for a file of prompts, or for one prompt.

mod meter;
mod source;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use setpoint_data::{
    DatasetConfig, Message, Prompt, Record, Response, TextEncoder, TextPrompts, Uses, counted, load_records,
};
use setpoint_transformer::{CausalLm, Finish, Generated, GenerationConfig, ModelConfig};

pub use self::meter::GenerationMeter;
use self::source::Generator;
pub use self::source::cache_path;
use crate::config::output::{Target, validate_output};
use crate::config::sections::{ModelSection, Wanted, validate_data};
use crate::config::{Config, Problems};
use crate::failure::Outcome;
use crate::job::{DATA, DryRun, Flag, Job, MODEL, OUTPUT, Work};
use crate::partial::{self, PartialRows};
pub use crate::sampling::SamplingSection;
use crate::server::ServerSettings;
use crate::session::{Printed, Session, memory};
use crate::setup;

/// Settings of `setpoint generate`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateConfig {
    /// The model.
    pub model: ModelSection,
    /// Rows whose prompts are answered; or give `prompt`.
    pub data: DatasetConfig,
    /// One prompt; a user's message if the model has a chat template (`data.text_prompts`).
    pub prompt: Option<String>,
    /// The sampling of answers.
    pub generate: SamplingSection,
    /// A server that generates in place of this program. `model` then gives the tokenizer and the sizes alone: its weights are not loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSettings>,
    /// The JSONL file to write; standard output by default.
    pub output: Option<PathBuf>,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            model: ModelSection::default(),
            data: DatasetConfig::new(""),
            prompt: None,
            generate: SamplingSection::default(),
            server: None,
            output: None,
        }
    }
}

impl Config for GenerateConfig {
    fn validate(&self, problems: &mut Problems<'_>) {
        self.model.validate("model", Wanted::LanguageModel, problems);
        match (&self.prompt, self.data.path.is_empty() && self.data.sources.is_empty()) {
            (None, true) => problems.add("data.path", "nothing to answer: give --prompt TEXT or --data FILE"),
            (Some(_), false) => problems.add("prompt", "`prompt` and `data.path` exclude each other"),
            (None, false) => validate_data(&self.data, "data", problems),
            (Some(_), true) => {}
        }
        validate_output(self.output.as_ref(), Target::File, problems);
        self.generate.validate("generate", problems);
        if let Some(server) = &self.server {
            server.validate("server", problems);
        }
    }
}

/// `setpoint generate`.
#[derive(Debug)]
pub struct Generate;

impl Job for Generate {
    type Config = GenerateConfig;

    const COMMAND: &'static str = "generate";
    const FLAGS: &'static [Flag] = &[
        MODEL,
        Flag { excludes: Some("prompt"), help: "Rows whose prompts are answered (setting data.path)", ..DATA },
        Flag::text("prompt", "TEXT", "prompt", "One prompt, as a user's message"),
        Flag { help: "JSONL file to write; standard output by default (setting output)", ..OUTPUT },
    ];
    const WORK: Work<GenerateConfig> = Work::Rows(run);
    const DRY_RUN: DryRun<GenerateConfig> = DryRun::Text(dry_run);
    const ONE_DEVICE: bool = true;

    fn about() -> Cow<'static, str> {
        "Sample responses for a file of prompts or one prompt".into()
    }

    fn help() -> Cow<'static, str> {
        "Examples:\n  setpoint generate --model DIR --prompt \"Why is the sky blue?\"\n  \
         setpoint generate --model DIR --data prompts.jsonl --output samples.jsonl --set generate.samples=4"
            .into()
    }
}

/// Everything of a generation but the weights.
struct Prepared {
    encoder: TextEncoder,
    model_config: ModelConfig,
    settings: GenerationConfig,
    records: Vec<Record>,
    /// The tokens of the prompts.
    ids: Vec<Vec<u32>>,
}

/// Reads and checks everything but the weights.
fn prepare(session: &Session, config: &GenerateConfig) -> Outcome<Prepared> {
    partial::check(session, config.output.as_deref())?;
    let encoder = setup::encoder(&config.model)?;
    let model_config = setup::model_config(&config.model, &encoder)?;
    let settings = config.generate.resolve(&config.model, &model_config, &encoder)?;
    warn_of_identical(&settings, config.generate.samples.unwrap_or(1));
    let (records, ids) = prompts(session, config, &encoder)?;
    setup::check_room(&records, &ids, &settings, config.generate.max_new_tokens, &model_config)?;
    Ok(Prepared { encoder, model_config, settings, records, ids })
}

/// Samples, and writes a line per prompt: the prompt and its responses.
pub fn run(session: &Session, config: &GenerateConfig) -> Outcome {
    let Prepared { encoder, model_config, settings, records, ids } = prepare(session, config)?;
    let samples = config.generate.samples.unwrap_or(1);
    check_memory(&ids, &settings, samples)?;
    let mut file = match &config.output {
        Some(path) => {
            let identity = identity(session, config, &encoder, &settings, &records)?;
            if partial::is_complete(session, path, &identity)? {
                return Ok(());
            }
            Some(PartialRows::open(session, path, &identity)?)
        }
        None => None,
    };
    let mut done = file.as_ref().map_or(0, PartialRows::done);
    let shape = (&encoder, &model_config);
    let mut generator = Generator::open(session, config, shape, (&records, &ids), &settings, done)?;
    // Answers written, and those left out as unfinished or empty.
    let [mut written, mut cut, mut empty] = match file.as_ref().map(PartialRows::tally) {
        Some(&[written, cut, empty]) => [written, cut, empty],
        _ => [0; 3],
    };
    let start = std::time::Instant::now();
    let (mut answers, mut tokens) = (0, 0);
    // Each part is generated by itself, so that a command that goes on after some of them ends in the same answers.
    let part = prompts_of_a_part(&settings, samples);
    while done < ids.len() && !(file.is_none() && session.host.is_closed()) {
        let end = (done + part).min(ids.len());
        let generated = generator.answers(&ids, done..end, &settings, &config.generate)?;
        answers += generated.len();
        tokens += generated.iter().map(|g| g.ids.len()).sum::<usize>();
        let mut lines = Vec::new();
        for (i, row) in (done..end).zip(generated.chunks(samples.max(1))) {
            let kept: Vec<&Generated> =
                row.iter().filter(|g| !config.generate.only_finished || g.finish == Finish::Stop).collect();
            let answer = |g: &&Generated| Ok(Response::new(setup::answer_text(&encoder, &ids[i], &g.ids)?));
            let mut responses: Vec<Response> = kept.iter().map(answer).collect::<Outcome<_>>()?;
            // No job reads a row with an empty response.
            responses.retain(|answer| !answer.message.is_empty());
            written += responses.len();
            cut += row.len() - kept.len();
            empty += kept.len() - responses.len();
            if file.is_none() && config.prompt.is_some() {
                generator.finish();
                responses.iter().for_each(|answer| session.host.print(Printed::Text(answer.text())));
            } else if !responses.is_empty() {
                let mut record = records[i].clone();
                record.responses = responses;
                lines.push(serde_json::to_string(&setpoint_data::pointwise_row(&record)?)?);
            }
        }
        done = end;
        match &mut file {
            Some(file) => file.push(&lines, done, &[written, cut, empty])?,
            None => lines.iter().for_each(|line| session.host.print(Printed::Json(line))),
        }
    }
    generator.finish();
    generator.report();
    if config.prompt.is_none() && answers > 0 {
        let seconds = start.elapsed().as_secs_f64();
        log::info!(
            "{} of {} in {seconds:.2} seconds, {:.0} tokens a second",
            counted(answers, "answer"),
            counted(tokens, "token"),
            tokens as f64 / seconds
        );
    }
    let all = written + cut + empty;
    if cut > 0 {
        log::info!("{cut} of {all} answers ran into the length limit and are left out");
    }
    if empty > 0 {
        log::info!("{empty} of {all} answers are empty and left out: the model ended them before the first word");
    }
    if let (Some(file), Some(path)) = (file, &config.output) {
        file.finish()?;
        log::info!(
            "{} to {} written to {}",
            counted(written, "response"),
            counted(ids.len(), "prompt"),
            path.display()
        );
    }
    Ok(())
}

/// Batches of answers after which those so far are written. Places of a batch stay empty while the last answers of a part end, for half a
/// batch on average: a thirtieth of the time with this many, an eighth with 4.
const PART: usize = 16;

/// Returns how many prompts with this many samples each are answered before the answers are written.
pub(crate) fn prompts_of_a_part(settings: &GenerationConfig, samples: usize) -> usize {
    (PART * settings.batch_size).div_ceil(samples.max(1)).max(1)
}

/// Collects the inputs that decide the answers.
fn identity(
    session: &Session,
    config: &GenerateConfig,
    encoder: &TextEncoder,
    settings: &GenerationConfig,
    records: &[Record],
) -> Outcome<Value> {
    let dir = config.model.path.as_deref().unwrap_or(Path::new(""));
    let inputs = [
        ("model", setup::model_hash(dir)?),
        ("tokenizer or template", encoder.fingerprint()),
        ("model's sampling settings", setup::text_hash(&format!("{settings:?}"))),
        ("data", partial::records_hash(records)),
    ];
    let server = config.server.as_ref().map(ServerSettings::deciding);
    partial::identity(session, "generate", &GenerateConfig { server, ..config.clone() }, &inputs)
}

/// Checks everything and returns what would be sampled, in a sentence.
///
/// # Errors
/// Everything of [`run`] that can be found without the weights.
pub fn dry_run(session: &Session, config: &GenerateConfig) -> Outcome<String> {
    let Prepared { settings, records, .. } = prepare(session, config)?;
    Ok(format!(
        "{}, {} each, at most {}, stop tokens {:?}",
        counted(records.len(), "prompt"),
        counted(config.generate.samples.unwrap_or(1), "sample"),
        counted(settings.max_new_tokens, "new token"),
        settings.stop_token_ids
    ))
}

/// The rows as they are written, and the tokens of their prompts.
fn prompts(session: &Session, config: &GenerateConfig, encoder: &TextEncoder) -> Outcome<(Vec<Record>, Vec<Vec<u32>>)> {
    let Some(text) = &config.prompt else {
        let (records, read) = load_records(&setup::looking_at(&config.data, Uses::PROMPT))?;
        setup::note_left_out("prompts", &read);
        let (seen, ids) = setup::prompts(&records, &config.data, encoder, "prompts", session)?;
        // A text stays a text, which the next job reads as this one did. The system turn of the settings it would not know.
        return Ok((if config.data.system.is_some() { seen } else { records }, ids));
    };
    let asked = match config.data.text_prompts {
        TextPrompts::User => Prompt::Messages(vec![Message::user(text)]),
        TextPrompts::Auto | TextPrompts::Plain => Prompt::Text(text.clone()),
    };
    // A question asked on the command line needs no line about what becomes of it.
    let mut records = vec![Record::new(asked, Vec::new())];
    setup::text_prompts_become_turns(&mut records, &config.data, encoder);
    let source = records[0].source.to_string();
    let ids = records.iter().map(|record| setup::prompt_ids(encoder, record)).collect::<Outcome<_>>();
    Ok((records, ids.map_err(|failure| failure.with_place(&source, "--prompt"))?))
}

/// Fails where prompts, answers and what is kept with them exceed the memory that is left.
fn check_memory(prompts: &[Vec<u32>], settings: &GenerationConfig, samples: usize) -> Outcome {
    // What an answer takes besides its tokens, and how many tokens one has at least a chance of having.
    const ROW: u128 = 256;
    const ANSWER: usize = 256;
    let row = |p: &Vec<u32>| ROW + 4 * (p.len() + settings.max_new_tokens.min(ANSWER)) as u128;
    let bytes = samples as u128 * prompts.iter().map(row).sum::<u128>();
    let what = format!("{} with {} each", counted(prompts.len(), "prompt"), counted(samples, "sample"));
    let remedy = "lower generate.samples or data.max_rows, and generate in parts";
    memory::require(bytes, &what, remedy)
}

/// Says so if several samples of a prompt are bound to be equal.
pub(crate) fn warn_of_identical(settings: &GenerationConfig, samples: usize) {
    let likeliest = if !settings.do_sample {
        "the likeliest token is always taken (generate.temperature = 0, or do_sample = false in generation_config.json)"
    } else if settings.top_k == Some(1) {
        "the likeliest token is always taken (top_k = 1)"
    } else {
        return;
    };
    if samples > 1 {
        log::warn!(
            "the {samples} samples of a prompt will be identical: {likeliest}; --set generate.temperature=1 samples"
        );
    }
}

/// `samples` answers to every prompt, with progress. A row's answers depend on the seed and the row alone.
pub fn sample(
    session: &Session,
    model: &CausalLm,
    prompts: &[Vec<u32>],
    settings: &GenerationConfig,
    seed: u64,
    samples: usize,
) -> Outcome<Vec<Vec<Generated>>> {
    check_memory(prompts, settings, samples)?;
    let rows: Vec<Vec<u32>> = prompts.iter().flat_map(|p| std::iter::repeat_n(p.clone(), samples)).collect();
    let mut meter = GenerationMeter::new(session, "samples", rows.len(), settings.max_new_tokens);
    meter.begin(&rows, settings, model.decoder().max_positions());
    let answers = setpoint_transformer::generate_stream(model, &rows, settings, seed, |row, id| {
        meter.token(row, id, false);
        ControlFlow::Continue(())
    });
    meter.finish();
    let mut answers = answers?.into_iter();
    Ok(prompts.iter().map(|_| answers.by_ref().take(samples).collect()).collect())
}

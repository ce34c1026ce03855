//! A data set's rows as tokens, and what is said of those that are left out.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use setpoint_data::{
    BadRows, DatasetConfig, EncodeOptions, EncodeReport, Example, ExampleStore, Prompt, ReadReport, Record, Source,
    SourceReport, TextEncoder, TextPrompts, Uses, counted, read_records, text_prompts_as_turns,
};
use setpoint_train::Sequence;

use super::prompt_ids;
use super::stream::stream;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// A data set as tokens, with what was read and what was left out.
#[derive(Debug)]
pub struct Encoded {
    /// The rows that are left.
    pub examples: Vec<Example>,
    /// Counts of everything dropped, cut or merged.
    pub report: EncodeReport,
}

/// A data set as a job reads it that looks at these optional columns.
pub fn looking_at(data: &DatasetConfig, uses: Uses) -> DatasetConfig {
    DatasetConfig { uses, ..data.clone() }
}

/// Reads and encodes data sets.
pub fn examples(
    data: &DatasetConfig,
    encode: &EncodeOptions,
    encoder: &TextEncoder,
    what: &str,
    session: &Session,
) -> Outcome<Encoded> {
    let mut examples = Vec::new();
    let report = each_example(data, encode, encoder, what, session, &mut |example| {
        examples.push(example);
        Ok(())
    })?;
    Ok(Encoded { examples, report })
}

/// The same with the examples on disk if they are many. `folder`: where a file goes.
pub fn stored(
    data: &DatasetConfig,
    encode: &EncodeOptions,
    encoder: &TextEncoder,
    what: &str,
    session: &Session,
    folder: &Path,
) -> Outcome<(ExampleStore, EncodeReport)> {
    let mut store = ExampleStore::new(folder, session.rows_in_memory);
    let report = each_example(data, encode, encoder, what, session, &mut |example| Ok(store.push(&example)?))?;
    Ok((store, report))
}

/// Returns the folder that the rows of a run go to if they are many: that of the run, which need not exist, or the nearest one around it.
/// Without a run, that of temporary files.
pub fn folder_of_rows(run: Option<&Path>) -> PathBuf {
    match run {
        Some(run) => run.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new(".")).to_owned(),
        None => std::env::temp_dir(),
    }
}

/// The same without holding the examples: each is given to `take`.
pub fn each_example(
    data: &DatasetConfig,
    encode: &EncodeOptions,
    encoder: &TextEncoder,
    what: &str,
    session: &Session,
    take: &mut dyn FnMut(Example) -> Outcome,
) -> Outcome<EncodeReport> {
    let mut first_prompt: Option<Source> = None;
    let mut noted = |example: Example| {
        if example.responses.is_empty() {
            first_prompt.get_or_insert_with(|| example.source.clone());
        }
        take(example)
    };
    let (report, read) = stream(data, encode, encoder, what, session.quiet, &mut noted)?;
    if report.kept == 0 {
        let mut rows = read_records(data).into_iter().flatten().flatten();
        if let Some(record) = rows.find(|record| record.responses.is_empty()) {
            return Err(unanswered(what, &record.source));
        }
        let mut message = format!("{what}: none of the {} rows of {} is left", read.rows, data.name());
        if let Some(first) = report.examples_of_invalid.first().or(read.examples.first()) {
            message.push_str(&format!("; the first bad one: {first}"));
        }
        return Err(Failure::run(message)
            .hint("`setpoint inspect data` shows the rows as tokens; see encode.max_length and encode.long_rows"));
    }
    if let Some(source) = first_prompt {
        return Err(unanswered(what, &source));
    }
    let sets = kept_of_sets(&report, &read, what)?;
    let text = report.to_string();
    if !session.quiet {
        sets.iter().for_each(|line| log::info!("{what}: {line}"));
        log::info!("{what}: {text}");
    } else if report.kept < report.rows || report.cut > 0 {
        // Rows that do not take part are no progress, which is all that may be left out.
        log::info!("{what}: {}", text.lines().next().unwrap_or_default());
    }
    Ok(report)
}

/// Says how many rows of each data set are kept, if there are several.
///
/// # Errors
/// When none of a data set is.
fn kept_of_sets(report: &EncodeReport, read: &ReadReport, what: &str) -> Outcome<Vec<String>> {
    let kept = |set: usize| report.sets.get(set).map_or(0, |counts| counts.examples);
    let sets = read.sources.iter().enumerate();
    if let Some((_, source)) = sets.clone().find(|(set, _)| kept(*set) == 0) {
        let message = format!("{what}: none of the {} of {} is left", counted(source.rows, "row"), source.path);
        return Err(Failure::run(message)
            .hint("leave the data set out, or see encode.max_length, encode.long_rows and data.responses"));
    }
    let line = |(set, source): (usize, &SourceReport)| {
        format!("{}: {} of {} kept", source.path, kept(set), counted(source.rows, "row"))
    };
    Ok(if read.sources.len() > 1 { sets.map(line).collect() } else { Vec::new() })
}

/// Returns the failure of a job that reads responses and finds a prompt alone.
fn unanswered(what: &str, row: &Source) -> Failure {
    Failure::run(format!("{what}: {row} is a prompt without a response"))
        .hint("`setpoint generate` writes responses for prompts")
}

/// Data sets as tokens, as every job sees them, and what was read.
pub fn encoded(
    data: &DatasetConfig,
    encode: &EncodeOptions,
    encoder: &TextEncoder,
    what: &str,
    quiet: bool,
) -> Outcome<(Encoded, ReadReport)> {
    let mut examples = Vec::new();
    let (report, read) = stream(data, encode, encoder, what, quiet, &mut |example| {
        examples.push(example);
        Ok(())
    })?;
    Ok((Encoded { examples, report }, read))
}

/// Returns the failure of reading a data set, in which settings have the name of its section: the errors of `setpoint-data` name those of
/// `[data]`.
pub(super) fn of_section(error: setpoint_data::Error, what: &str) -> Failure {
    let section = match what {
        "evaluation data" => "eval_data",
        "SFT data" => "sft_data",
        "pairs" => "pairs",
        _ => "data",
    };
    match Failure::from(error) {
        Failure::Run { message, hint } => {
            let named = |text: String| text.replace("`data.", &format!("`{section}."));
            Failure::Run { message: named(message), hint: hint.map(named) }
        }
        other => other,
    }
}

/// Says once that answers end with a token which the chat template does not print.
pub(super) fn note_appended_stop(records: &[Record], encoder: &TextEncoder) {
    static SAID: Mutex<bool> = Mutex::new(false);
    let templated = |record: &Record| matches!(record.prompt, Prompt::Messages(_)) && !record.responses.is_empty();
    if let Some(token) = encoder.appended_stop().and_then(|id| encoder.decode(&[id]).ok())
        && records.iter().any(templated)
        && SAID.lock().is_ok_and(|mut said| !std::mem::replace(&mut *said, true))
    {
        log::info!("the chat template prints nothing after an answer: answers end with `{token}`, the tokenizer's EOS");
    }
}

/// Makes user turns of prompts of plain text where the settings leave it to the model and it has a chat template; whether there were any.
pub fn text_prompts_become_turns(records: &mut [Record], data: &DatasetConfig, encoder: &TextEncoder) -> bool {
    if encoder.template().is_none() {
        return false;
    }
    let sets = data.each();
    let mut any = false;
    for own in records.chunk_by_mut(|a, b| a.source.set == b.source.set) {
        if let Some(data) = sets.get(own[0].source.set).filter(|data| data.text_prompts == TextPrompts::Auto) {
            any |= text_prompts_as_turns(own, data) > 0;
        }
    }
    any
}

/// Records as a model with this tokenizer and template sees them, and the tokens of their prompts.
pub fn prompts(
    records: &[Record],
    data: &DatasetConfig,
    encoder: &TextEncoder,
    what: &str,
    session: &Session,
) -> Outcome<(Vec<Record>, Vec<Vec<u32>>)> {
    if records.iter().any(is_bare_text) {
        return Err(Failure::run(format!("{what}: rows of `text` alone have no prompt to answer"))
            .hint("if the texts are prompts: --set data.columns.prompt=text"));
    }
    let mut seen = records.to_vec();
    if text_prompts_become_turns(&mut seen, data, encoder) && !session.quiet {
        note_turns(what);
    }
    let ids = seen.iter().map(|record| prompt_ids(encoder, record)).collect::<Outcome<_>>()?;
    Ok((seen, ids))
}

/// Records as a model with this tokenizer and template sees them.
pub fn seen(records: &[Record], data: &DatasetConfig, encoder: &TextEncoder) -> Vec<Record> {
    let mut records = records.to_vec();
    text_prompts_become_turns(&mut records, data, encoder);
    records
}

/// Says that prompts of plain text become user turns.
pub fn note_turns(what: &str) {
    log::info!(
        "{what}: prompts of plain text become user turns of the chat template (data.text_prompts = \"plain\" keeps them plain)"
    );
}

/// Returns whether a record is a text without a prompt.
pub(super) fn is_bare_text(record: &Record) -> bool {
    record.whole
}

/// Says that texts without a prompt are learned as they are, by a model that talks.
pub(super) fn note_texts(what: &str) {
    log::info!("{what}: texts without a prompt are learned whole, without the chat template");
}

/// Returns the options of the conversion of a data set's rows to tokens: a row that cannot be encoded is as bad as one that cannot be read.
pub(super) fn encoding(data: &DatasetConfig, encode: &EncodeOptions) -> EncodeOptions {
    let on_bad_row = if data.on_bad_row == BadRows::Drop { BadRows::Drop } else { encode.on_bad_row };
    EncodeOptions { on_bad_row, ..encode.clone() }
}

/// Says which rows were bad when they were read.
pub fn note_left_out(what: &str, read: &ReadReport) {
    if let Some(first) = read.examples.first() {
        log::info!("{what}: {} of {} rows are bad and left out; the first: {first}", read.dropped, read.rows);
    }
}

/// Returns an example's responses, each behind its prompt, of which the tokens after the first `t0` are scored, or none.
pub fn sequences(example: &Example, t0: Option<usize>) -> Vec<Sequence> {
    example
        .responses
        .iter()
        .map(|response| Sequence {
            ids: [example.prompt.as_slice(), response.ids.as_slice()].concat(),
            prompt_len: example.prompt.len(),
            scored_from: t0.unwrap_or(example.prompt.len()),
        })
        .collect()
}

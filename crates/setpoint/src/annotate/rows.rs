//! The rows that are scored, as records and as tokens.

use std::collections::HashSet;

use setpoint_data::{EncodeOptions, LostText, Record, Uses, load_records};

use super::scoring::RowTokens;
use super::{AnnotateConfig, Needs};
use crate::failure::{Failure, Outcome};
use crate::session::Session;
use crate::setup::{self, Reading};

/// Reads the rows. `says`: says which are left out.
pub(super) fn read(config: &AnnotateConfig, says: bool) -> Outcome<Vec<Record>> {
    let (mut records, read) = load_records(&setup::looking_at(&config.data, Uses::TEXT))?;
    if says {
        setup::note_left_out("data", &read);
    }
    let models = [&config.model, &config.reference.model];
    if let Some(model) = models.into_iter().find(|model| model.tokenizer_dir().is_some())
        && config.data.system.is_some()
    {
        // The next job would not know the system turn of these settings: it is written with the prompt.
        setup::text_prompts_become_turns(&mut records, &config.data, &setup::encoder(model)?);
    }
    Ok(records)
}

/// Returns the place at which a reward model reads the rewards, if one gives them.
pub(super) fn reading(config: &AnnotateConfig) -> Outcome<Option<Reading>> {
    if config.model.path.is_none() {
        return Ok(None);
    }
    let encoder = setup::encoder(&config.model)?;
    setup::model_config(&config.model, &encoder)?;
    Ok(Some(Reading::of(&config.model, &encoder, config.encode.response_end)?))
}

/// The rows as tokens for a source that reads tokens, none for another. Rows that do not become tokens, too long ones for example, are left
/// out of the records and counted, unless the settings make them an error.
pub(super) fn tokens(
    session: &Session,
    config: &AnnotateConfig,
    needs: &Needs,
    records: &mut Vec<Record>,
) -> Outcome<Vec<RowTokens>> {
    let Some(why) = needs.tokens else { return Ok(Vec::new()) };
    if config.model.tokenizer_dir().is_none() {
        return Err(Failure::usage(
            "model.tokenizer",
            format!("{why}: set `model.tokenizer` to a folder with tokenizer.json"),
        ));
    }
    let reading = needs.reading.as_ref();
    let encoder = setup::encoder(&config.model)?;
    // A reward model may be meant to read the answers without their thoughts, but its user should know.
    let response_end = reading.map_or(config.encode.response_end, |reading| reading.end);
    let mut options = EncodeOptions { lost_text: LostText::Count, response_end, ..config.encode.clone() };
    if reading.is_some() {
        options = setup::within(&options, &setup::model_config(&config.model, &encoder)?);
    }
    let mut seen = records.clone();
    if setup::text_prompts_become_turns(&mut seen, &config.data, &encoder) && !session.quiet {
        setup::note_turns("data");
    }
    let (examples, report) = encoder.encode_all(&seen, &options)?;
    if let Some(first) = &report.first_lost {
        log::warn!(
            "the reward model does not see all of the responses of {} of {} rows; the first: {first}",
            report.lost,
            report.rows
        );
    }
    let kept: HashSet<usize> = examples.iter().map(|example| example.row).collect();
    if let Some(first) = (0..records.len()).find(|row| !kept.contains(row)) {
        let counts = report.to_string();
        let counts = counts.lines().next().unwrap_or_default();
        log::info!("data: {counts}; the first that is left out: {}", records[first].source);
        if kept.is_empty() {
            return Err(Failure::run(format!("none of the {} rows of {} is left", records.len(), config.data.name()))
                .hint("`setpoint inspect data` shows the rows as tokens; see encode.max_length and encode.long_rows"));
        }
        let mut row = 0..;
        records.retain(|_| row.next().is_some_and(|row| kept.contains(&row)));
    }
    Ok(examples.into_iter().map(RowTokens::from).collect())
}

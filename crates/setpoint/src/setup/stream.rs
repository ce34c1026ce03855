//! Rows on their way to tokens, a part at a time: no more of them are in memory at once than a part has.

use setpoint_data::{
    BadRows, DatasetConfig, EncodeOptions, EncodeReport, EncodeTally, Example, Label, ReadReport, Record, RecordChunks,
    Responses, Source, TextEncoder, select_responses,
};

use super::rows::{
    encoding, is_bare_text, note_appended_stop, note_left_out, note_texts, note_turns, of_section,
    text_prompts_become_turns,
};
use crate::failure::Outcome;

/// Reads and encodes data sets, and gives each example to `take`. Of a row's responses those are kept that `data.responses` says; prompts
/// of plain text become turns as the settings say.
pub fn stream(
    data: &DatasetConfig,
    encode: &EncodeOptions,
    encoder: &TextEncoder,
    what: &str,
    quiet: bool,
    take: &mut dyn FnMut(Example) -> Outcome,
) -> Outcome<(EncodeReport, ReadReport)> {
    let sets = data.each();
    let mut selections: Vec<Selection> = sets.iter().map(|_| Selection::default()).collect();
    let mut chunks = RecordChunks::open(data);
    let mut tally = EncodeTally::default();
    let (mut first, mut turned, mut bare) = (0, false, false);
    while let Some(mut records) = chunks.next_chunk().map_err(|error| of_section(error, what))? {
        let set = records[0].source.set;
        selections[set].select(&mut records, &sets[set])?;
        turned |= text_prompts_become_turns(&mut records, data, encoder);
        bare |= encode.weighted_turns && encoder.template().is_some() && records.iter().any(is_bare_text);
        note_appended_stop(&records, encoder);
        let examples = encoder.encode_part(&records, first, &encoding(&sets[set], encode), &mut tally)?;
        first += records.len();
        for example in examples {
            take(example)?;
        }
    }
    note_left_out(what, &chunks.report);
    for (selection, data) in selections.iter().zip(&sets) {
        selection.tell(data, what);
    }
    if turned && !quiet {
        note_turns(what);
    }
    if bare && !quiet {
        note_texts(what);
    }
    Ok((tally.report(), chunks.report))
}

/// The rows that `data.responses` selects from a data set.
#[derive(Debug, Default)]
struct Selection {
    rows: usize,
    kept: usize,
    /// Rows that do not say which response is to be trained, and the error of the first.
    bad: usize,
    first_bad: Option<String>,
    /// Rows whose only response is labelled as bad, and the first of them.
    undesired: usize,
    first_undesired: Option<Source>,
}

impl Selection {
    /// Keeps the responses that `data.responses` says.
    fn select(&mut self, records: &mut Vec<Record>, data: &DatasetConfig) -> Outcome {
        let Some(rule) = data.responses else { return Ok(()) };
        self.rows += records.len();
        let mut kept = Vec::with_capacity(records.len());
        for mut record in records.drain(..) {
            match select_responses(&mut record, rule) {
                Ok(true) => kept.push(record),
                Ok(false) => {}
                Err(problem) => {
                    let error = setpoint_data::Error::Row { at: record.source.clone(), problem };
                    if data.on_bad_row == BadRows::Error {
                        return Err(error.into());
                    }
                    self.bad += 1;
                    self.first_bad.get_or_insert_with(|| error.to_string());
                }
            }
        }
        self.kept += kept.len();
        let is_bad = |record: &&Record| {
            record.responses.iter().any(|r| matches!(r.label, Some(Label::Rejected | Label::Undesirable)))
        };
        for record in kept.iter().filter(is_bad).filter(|_| rule == Responses::Auto) {
            self.undesired += 1;
            self.first_undesired.get_or_insert_with(|| record.source.clone());
        }
        *records = kept;
        Ok(())
    }

    /// Says which rows have none.
    fn tell(&self, data: &DatasetConfig, what: &str) {
        let Self { rows, kept, bad, undesired, .. } = self;
        if let Some(first) = &self.first_bad {
            log::info!("{what}: {bad} of {rows} rows are bad and left out; the first: {first}");
        }
        let none = rows - bad - kept;
        if let (Some(Responses::Above(least)), true) = (data.responses, none > 0) {
            log::info!("{what}: {none} of {rows} rows have no response with a reward above {least} and are left out");
        }
        if let Some(first) = &self.first_undesired {
            log::warn!(
                "{what}: {undesired} of {rows} rows have one response alone and it is labelled as bad, but is trained; the first: \
                 {first}. data.responses = \"chosen\" with data.on_bad_row = \"drop\" leaves them out"
            );
        }
    }
}

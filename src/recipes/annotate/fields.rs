//! The columns of a row as they stand in the file, those that its format understands included.

use std::collections::HashMap;

use serde_json::{Map, Value};
use setpoint_data::{DatasetConfig, Record, Source, read_rows};

use crate::failure::Outcome;

/// Returns the columns of each record's row, under the file's names and under those that `columns` gives them.
///
/// A record keeps only the columns that its format does not use, and a reward may be taken from any: so the file is read again.
pub fn of_rows(data: &DatasetConfig, records: &[Record]) -> Outcome<Vec<Map<String, Value>>> {
    let places: HashMap<&Source, usize> = records.iter().enumerate().map(|(i, r)| (&r.source, i)).collect();
    let mut fields: Vec<Map<String, Value>> = records.iter().map(|r| r.extra.clone()).collect();
    let as_in_file = DatasetConfig { columns: Default::default(), ..data.clone() };
    for row in read_rows(&as_in_file)? {
        // A row that cannot be parsed became no record, or was an error already.
        let Ok((source, row)) = row else { continue };
        if let Some(&at) = places.get(&source) {
            let renamed = data.columns.iter().filter_map(|(name, own)| Some((name.clone(), row.get(own)?.clone())));
            let renamed: Vec<_> = renamed.collect();
            fields[at].extend(row);
            fields[at].extend(renamed);
        }
    }
    Ok(fields)
}

//! The columns of a row as they stand in the file, those that its format understands included.

use std::collections::HashMap;

use serde_json::{Map, Value};
use setpoint_data::{DatasetConfig, Record, Source, read_rows};

use crate::config::nearest;
use crate::failure::{Failure, Outcome};

/// Returns the columns of each record's row, under the file's names and under those that `columns` gives them.
///
/// A record keeps only the columns that its format does not use, and a reward may be taken from any: so the file is read again.
pub fn of_rows(data: &DatasetConfig, records: &[Record]) -> Outcome<Vec<Map<String, Value>>> {
    let places: HashMap<&Source, usize> = records.iter().enumerate().map(|(i, r)| (&r.source, i)).collect();
    let mut fields: Vec<Map<String, Value>> = records.iter().map(|r| r.extra.clone()).collect();
    for (set, data) in data.each().into_iter().enumerate() {
        let as_in_file = DatasetConfig { columns: Default::default(), ..data.clone() };
        for row in read_rows(&as_in_file)? {
            // A row that cannot be parsed became no record, or was an error already.
            let Ok((source, row)) = row else { continue };
            if let Some(&at) = places.get(&Source { set, ..source }) {
                let renamed = data.columns.iter().filter_map(|(name, own)| Some((name.clone(), row.get(own)?.clone())));
                let renamed: Vec<_> = renamed.collect();
                fields[at].extend(row);
                fields[at].extend(renamed);
            }
        }
    }
    Ok(fields)
}

/// Says what is wrong with the column of a row, and which columns there are if it has none of this name.
pub fn wrong_column(
    record: Option<&Record>,
    fields: Option<&Map<String, Value>>,
    column: &str,
    expected: &str,
    found: &str,
) -> Failure {
    let place = record.map_or_else(String::new, |record| format!("{}: ", record.source));
    let failure = Failure::run(format!("{place}the column `{column}` should hold {expected}, found {found}"));
    match fields.filter(|fields| !fields.contains_key(column)) {
        None => failure,
        Some(fields) => match nearest(column, fields.keys().map(String::as_str)) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => {
                let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                failure.hint(format!("the row's columns: {}", names.join(", ")))
            }
        },
    }
}

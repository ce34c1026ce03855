//! Tables of results.

use setpoint::session::TextTable;
use tabled::builder::Builder;
use tabled::settings::Style;

/// Returns a table as lines.
pub fn drawn(table: &TextTable) -> String {
    let mut drawn = Builder::from_iter(table.rows.clone()).build();
    match table.is_framed {
        true => drawn.with(Style::rounded()),
        false => drawn.with(Style::blank()),
    };
    drawn.to_string()
}

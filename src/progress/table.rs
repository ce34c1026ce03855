//! Tables of results. On a terminal they are as wide as it is at most.

use std::io::{self, IsTerminal as _};

use setpoint::session::TextTable;
use tabled::Table;
use tabled::builder::Builder;
use tabled::settings::peaker::Priority;
use tabled::settings::{Style, Width};
use terminal_size::terminal_size_of;

/// Returns the width of the terminal that results are printed on; `None` if they go elsewhere.
pub fn width() -> Option<usize> {
    let out = io::stdout();
    out.is_terminal().then(|| terminal_size_of(out)).flatten().map(|(width, _)| usize::from(width.0))
}

/// Returns a table as lines, which fit the terminal if they go to one.
pub fn drawn(table: &TextTable) -> String {
    fitted(table, width().unwrap_or(usize::MAX))
}

/// Returns a table in lines of at most `width` columns. A table that is too wide is cut into several, one below the other, which all begin
/// with the columns that name the rows; a column that is too wide by itself is wrapped.
fn fitted(table: &TextTable, width: usize) -> String {
    let columns = table.rows.iter().map(Vec::len).max().unwrap_or(0);
    let keys: Vec<usize> = (0..table.keys.min(columns)).collect();
    let mut groups = vec![keys.clone()];
    for column in keys.len()..columns {
        let last = groups.len() - 1;
        groups[last].push(column);
        if groups[last].len() > keys.len() + 1 && part(table, &groups[last]).total_width() > width {
            groups[last].pop();
            groups.push([keys.as_slice(), &[column]].concat());
        }
    }
    let parts = groups.iter().map(|group| {
        let mut part = part(table, group);
        if part.total_width() > width {
            part.with(Width::wrap(width).keep_words(true).priority(Priority::max(true)));
        }
        part.to_string()
    });
    parts.collect::<Vec<_>>().join("\n\n")
}

/// Returns some columns as a table of their own.
fn part(table: &TextTable, columns: &[usize]) -> Table {
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let rows = table.rows.iter().map(|row| columns.iter().map(|&column| cell(row, column)).collect::<Vec<_>>());
    let mut drawn = Builder::from_iter(rows).build();
    match table.is_framed {
        true => drawn.with(Style::rounded()),
        false => drawn.with(Style::blank()),
    };
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TextTable {
        let mut table = TextTable::framed(["method", "win rate", "reward", "selected settings"]);
        table.push([
            "dro",
            "0.612 ± 0.010",
            "1.090",
            "align.beta = 0.1, train.learning_rate = 0.0000005, train.epochs = 2",
        ]);
        table.push(["dpo", "0.598 ± 0.020", "1.070"]);
        table
    }

    fn widest(text: &str) -> usize {
        text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
    }

    #[test]
    fn a_table_that_fits_stays_whole() {
        let text = fitted(&table(), usize::MAX);
        assert_eq!(text.matches("method").count(), 1);
        let natural = widest(&text);
        assert!(natural > 80, "{natural}");
        assert_eq!(fitted(&table(), natural), text);
    }

    #[test]
    fn a_table_that_is_too_wide_is_folded_and_each_part_names_the_rows() {
        for width in [100, 80, 60, 40] {
            let text = fitted(&table(), width);
            assert!(widest(&text) <= width, "{width}:\n{text}");
            let parts: Vec<&str> = text.split("\n\n").collect();
            assert!(parts.len() > 1 || width > 100, "{width}:\n{text}");
            assert!(parts.iter().all(|part| ["method", "dro", "dpo"].iter().all(|name| part.contains(name))), "{text}");
            // Nothing is lost.
            let words = ["0.612", "1.070", "align.beta", "train.epochs"];
            assert!(words.iter().all(|word| text.contains(word)), "{width}:\n{text}");
        }
    }

    #[test]
    fn rows_that_two_columns_name_keep_both() {
        let mut table = TextTable { keys: 2, ..TextTable::plain(["task", "run", "mean", "difference [95 %]"]) };
        table.push(["mmlu", "sft", "0.4000"]);
        table.push(["", "dro", "0.4100", "+0.0100 [-0.0020, +0.0220]"]);
        let text = fitted(&table, 30);
        let parts: Vec<&str> = text.split("\n\n").collect();
        assert_eq!(parts.len(), 2, "{text}");
        assert!(parts.iter().all(|part| part.contains("mmlu") && part.contains("dro")), "{text}");
    }

    #[test]
    fn an_empty_table_is_drawn() {
        assert!(fitted(&TextTable::plain(["task", "value"]), 80).contains("task"));
    }
}

//! Tables of results. On a terminal they are as wide as it is at most.

use std::io::{self, IsTerminal as _};

use setpoint::session::TextTable;
use tabled::Table;
use tabled::builder::Builder;
use tabled::grid::util::string::get_text_width;
use tabled::settings::Style;
use terminal_size::terminal_size_of;

use super::wrap::cell;

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
        let draw = |rows| drawn_rows(rows, table.is_framed);
        narrowed(&rows_of(table, group), width, draw).to_string()
    });
    parts.collect::<Vec<_>>().join("\n\n")
}

/// Returns some columns as a table of their own.
fn part(table: &TextTable, columns: &[usize]) -> Table {
    drawn_rows(rows_of(table, columns), table.is_framed)
}

/// Returns the rows of some columns.
fn rows_of(table: &TextTable, columns: &[usize]) -> Vec<Vec<String>> {
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    table.rows.iter().map(|row| columns.iter().map(|&column| cell(row, column)).collect()).collect()
}

fn drawn_rows(rows: Vec<Vec<String>>, is_framed: bool) -> Table {
    let mut drawn = Builder::from_iter(rows).build();
    match is_framed {
        true => drawn.with(Style::rounded()),
        false => drawn.with(Style::blank()),
    };
    drawn
}

/// Returns the table that `draw` makes of the rows. If it is wider than `width`, the columns with the longest lines become narrower, and
/// their texts are broken at words.
pub fn narrowed(rows: &[Vec<String>], width: usize, draw: impl Fn(Vec<Vec<String>>) -> Table) -> Table {
    let table = draw(rows.to_vec());
    let excess = table.total_width().saturating_sub(width);
    if excess == 0 {
        return table;
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|text| get_text_width(text)).max();
    let mut widths: Vec<usize> = (0..columns).map(|column| widest(column).unwrap_or(0)).collect();
    for _ in 0..excess {
        if let Some(width) = widths.iter_mut().max().filter(|width| **width > 1) {
            *width -= 1;
        }
    }
    let wrap = |row: &Vec<String>| row.iter().zip(&widths).map(|(text, width)| cell(text, *width)).collect();
    draw(rows.iter().map(wrap).collect())
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
    fn a_column_that_is_too_wide_is_broken_at_words() {
        let mut table = TextTable::plain(["name", "meaning"]);
        table.push(["tau", "how much of the target network is taken over after each of the steps"]);
        let text = fitted(&table, 40);
        assert!(widest(&text) <= 40, "{text}");
        // No line of the cell begins with a space, and each is as long as its words allow.
        let lines: Vec<&str> = text.lines().skip(1).filter_map(|line| line.get(8..)).map(str::trim_end).collect();
        let words = ["how much of the target network", "is taken over after each of the", "steps"];
        assert_eq!(lines, words, "{text}");
    }

    #[test]
    fn an_empty_table_is_drawn() {
        assert!(fitted(&TextTable::plain(["task", "value"]), 80).contains("task"));
    }
}

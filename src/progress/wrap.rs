//! Long lines, broken at words where they go to a terminal. Lines for files and pipes are never broken: scripts read them.

use std::borrow::Cow;

use tabled::grid::util::string::get_line_width;

/// Below this width, lines are left to the terminal: words would hardly fit.
const NARROWEST: usize = 20;

/// Returns the text with each line that is wider than `width` broken at spaces. The lines that follow are indented by two columns more than
/// their line, or as far as the text behind a label of a few columns. Commands can be copied: a text between backquotes stays on one line if
/// it fits, and a command behind a colon (`next: setpoint …`) is never broken. A longer word is left to the terminal.
pub fn wrapped(text: &str, width: usize) -> Cow<'_, str> {
    if width < NARROWEST || text.lines().all(|line| get_line_width(line) <= width) {
        return Cow::Borrowed(text);
    }
    let lines = text.split('\n').map(|line| match get_line_width(line) <= width {
        true => line.to_owned(),
        false => filled(line, width, hang(line).min(width / 3)).join("\n"),
    });
    Cow::Owned(lines.collect::<Vec<_>>().join("\n"))
}

/// Returns the lines of a cell, at most `width` columns wide: broken at spaces, and within a word only if it does not fit by itself.
pub fn cell(text: &str, width: usize) -> String {
    let width = width.max(1);
    let lines = text.split('\n').flat_map(|line| filled(line, width, 0)).flat_map(|line| pieces(&line, width));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the column at which the lines that follow `line` begin.
fn hang(line: &str) -> usize {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let label = line[indent..].find("  ").map(|end| {
        let gap = &line[indent + end..];
        let column = indent + end + gap.len() - gap.trim_start_matches(' ').len();
        get_line_width(&line[..column])
    });
    label.filter(|column| *column <= 24).unwrap_or(indent + 2)
}

/// Returns a line as several of at most `width` columns, those after the first indented by `hang`.
fn filled(line: &str, width: usize, hang: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (gap, word) in words(line, width.saturating_sub(hang)) {
        let last = lines.len() - 1;
        let current = &mut lines[last];
        let fits = |column: usize| column + get_line_width(word) <= width;
        // A word that no line holds may as well stay where it is.
        if current.trim().is_empty() || fits(get_line_width(current) + gap.len()) || !fits(hang) {
            current.push_str(gap);
            current.push_str(word);
        } else {
            lines.push(" ".repeat(hang) + word);
        }
    }
    lines
}

/// Returns the words of a line, each with the spaces before it. A quoted text of at most `width` columns is one word, and so is a command
/// behind a colon.
fn words(line: &str, width: usize) -> impl Iterator<Item = (&str, &str)> {
    let (mut rest, mut behind_colon) = (line, false);
    std::iter::from_fn(move || {
        let start = rest.find(|c| c != ' ')?;
        let (gap, from) = rest.split_at(start);
        let is_command = behind_colon && from.starts_with("setpoint ");
        let (word, after) = from.split_at(if is_command { from.len() } else { word_end(from, width) });
        (rest, behind_colon) = (after, word.ends_with(':'));
        Some((gap, word))
    })
}

/// Returns where the word at the beginning of `text` ends.
fn word_end(text: &str, width: usize) -> usize {
    let space = |text: &str| text.find(' ').unwrap_or(text.len());
    let end = space(text);
    let quotes = text[..end].matches('`').count();
    if quotes.is_multiple_of(2) {
        return end;
    }
    let quoted = text[end..].find('`').map(|quote| {
        let after = end + quote + 1;
        after + space(&text[after..])
    });
    quoted.filter(|end| get_line_width(&text[..*end]) <= width).unwrap_or(end)
}

/// Returns a line cut into pieces of at most `width` columns.
fn pieces(line: &str, width: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for c in line.chars() {
        let last = pieces.len() - 1;
        let mut longer = pieces[last].clone();
        longer.push(c);
        if get_line_width(&longer) <= width || pieces[last].is_empty() {
            pieces[last] = longer;
        } else {
            pieces.push(c.to_string());
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_break_at_words_and_keep_every_word() {
        let text = "warning: the learning rate of 0.5 is far above those of models of this size\nmodel  runs/sft/model";
        for width in [20, 30, 47, 60] {
            let shown = wrapped(text, width);
            assert!(shown.lines().all(|line| line.chars().count() <= width), "{width}:\n{shown}");
            assert!(shown.split_whitespace().eq(text.split_whitespace()), "{width}:\n{shown}");
        }
        assert_eq!(wrapped("one two three four five six", 20), "one two three four\n  five six");
        assert_eq!(wrapped("  a b c d e f g h i j k l", 20), "  a b c d e f g h i\n    j k l");
    }

    #[test]
    fn lines_that_fit_and_narrow_terminals_leave_the_text_as_it_is() {
        assert!(matches!(wrapped("short\nlines", 20), Cow::Borrowed(_)));
        assert!(matches!(wrapped("a line that is longer than its terminal", 19), Cow::Borrowed(_)));
        let path = "/a/path/that/is/longer/than/the/terminal.jsonl";
        assert_eq!(wrapped(path, 20), path);
        assert_eq!(wrapped(&format!("written to {path}: 3 rows"), 20), format!("written to {path}:\n  3 rows"));
    }

    #[test]
    fn the_lines_below_a_label_are_aligned_with_its_text() {
        let line = "rewards    mean 0.25, deviation 1.5, from -2 to 3";
        assert_eq!(wrapped(line, 36), "rewards    mean 0.25, deviation 1.5,\n           from -2 to 3");
    }

    #[test]
    fn commands_stay_on_one_line() {
        let command = "setpoint chat --model runs/sft/model --set generate.temperature=0.7";
        let next = format!("next: {command}");
        assert_eq!(wrapped(&next, 40), next);
        assert_eq!(wrapped(&next, 70), format!("next:\n  {command}"));
        let text = "to go on, type `setpoint sft --resume` again (`--quiet` is optional)";
        assert_eq!(wrapped(text, 31), "to go on, type\n  `setpoint sft --resume` again\n  (`--quiet` is optional)");
        // A quotation that is longer than a line is broken like any text.
        assert!(wrapped("see `a b c d e f g h i j k l m n`", 20).lines().all(|line| line.len() <= 20));
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(wrapped("日本語 日本語 日本語 日本語", 20), "日本語 日本語 日本語\n  日本語");
    }

    #[test]
    fn a_cell_is_never_wider_than_its_column() {
        assert_eq!(cell("beta = 0.1, tau = 2", 11), "beta = 0.1,\ntau = 2");
        assert_eq!(cell("align.learning_rate", 8), "align.le\narning_r\nate");
        assert_eq!(cell("", 3), "");
    }
}

//! The examples at the end of the help. Those that are too long for a line of 80 columns are broken as a shell would read them.

use clap::Command;

/// The columns of a terminal, at least.
const WIDTH: usize = 80;

/// Returns the command with the examples in its help, and in that of the commands below it, in lines that fit.
pub fn with_examples(command: Command) -> Command {
    let command = match command.get_after_help().map(ToString::to_string) {
        Some(help) => command.after_help(folded(&help)),
        None => command,
    };
    command.mut_subcommands(with_examples)
}

/// Returns the text with its examples, which are indented, in lines that fit. A line that goes on ends with `\`.
fn folded(help: &str) -> String {
    let lines = help.lines().map(|line| match line.starts_with("  ") && line.len() > WIDTH {
        true => broken(line),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns a command in several lines, each of which after the first begins with a flag or a redirection.
fn broken(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let mut parts = vec![line[..indent].to_owned()];
    for (i, word) in line[indent..].split(' ').enumerate() {
        let last = parts.len() - 1;
        match i > 0 && (word.starts_with("--") || word == ">") {
            true => parts.push(word.to_owned()),
            false => parts[last] += &format!("{}{word}", if i == 0 { "" } else { " " }),
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            // Two columns for the mark at its end.
            Some(current) if current.len() + 1 + part.len() + 2 <= WIDTH => *current += &format!(" {part}"),
            Some(_) => lines.push(format!("    {part}")),
            None => lines.push(part),
        }
    }
    lines.join(" \\\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::Cli;
    use super::*;

    #[test]
    fn a_long_example_is_broken_before_its_flags() {
        let command =
            "  setpoint eval tasks --model runs/dro/model --data tests/golden/tasks --tasks arc_easy,arc_challenge";
        let help = format!(
            "Examples:\n{command}\n\nA sentence that is longer than a line stays as it is, as the terminal decides on it --always."
        );
        let shown = folded(&help);
        let expected = "  setpoint eval tasks --model runs/dro/model --data tests/golden/tasks \\\n    --tasks arc_easy,arc_challenge";
        assert!(shown.contains(expected), "{shown}");
        assert!(shown.ends_with("decides on it --always."), "{shown}");
    }

    #[test]
    fn the_examples_of_all_commands_fit() {
        fn check(command: &Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                assert!(line.chars().count() <= WIDTH, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&with_examples(Cli::command()));
    }
}

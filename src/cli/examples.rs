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

/// Returns a command in several lines, each of which after the first begins with a flag.
fn broken(line: &str) -> String {
    let mut lines = vec![String::new()];
    for (i, part) in line.split(" --").enumerate() {
        let part = if i == 0 { part.to_owned() } else { format!("--{part}") };
        let last = lines.len() - 1;
        // Two columns for the mark at its end.
        if i == 0 || lines[last].len() + 1 + part.len() + 2 <= WIDTH {
            lines[last] += &format!("{}{part}", if i == 0 { "" } else { " " });
        } else {
            lines.push(format!("    {part}"));
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

//! `setpoint completions` and `setpoint man`: the command line as shells and `man` know it.

use std::path::Path;
use std::{fs, io};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use setpoint::config::output::{Target, require_target};
use setpoint::{Failure, Outcome};

use crate::progress;

/// Prints the script with which a shell completes the command.
pub fn completions(mut command: Command, shell: Shell) -> Outcome {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    progress::say_part(&String::from_utf8_lossy(&script));
    Ok(())
}

/// Writes a page for the command and for each one below it.
pub fn pages(command: Command, folder: &Path) -> Outcome {
    require_target(folder, Target::Folder, "DIR")?;
    let failed = |error| Failure::run(format!("cannot write pages to {}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_pages(&command, folder).map_err(failed)?;
    progress::note(format!("written to {}: man -l {}", folder.display(), folder.join("setpoint.1").display()));
    Ok(())
}

/// Writes the page of a command and those of the commands below it.
fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| write_pages(below, folder))?;
    let page = Man::new(command.clone());
    fs::write(folder.join(page.get_filename()), rendered(&page, command)?)
}

/// Returns a page: the sections that `clap_mangen` makes, and the examples line by line.
fn rendered(page: &Man, command: &Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        page.render_options_section(&mut text)?;
    }
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(help) = command.get_after_help() {
        examples(&help.to_string()).to_writer(&mut text)?;
    }
    if command.get_version().is_some() {
        page.render_version_section(&mut text)?;
    }
    Ok(text)
}

/// Returns the text after a command's help as a section. Its indented lines, which are commands and files, are neither filled nor
/// justified.
fn examples(help: &str) -> Roff {
    let mut section = Roff::new();
    let titles = ["Example:", "Examples:"];
    let (title, text) = match help.split_once('\n').filter(|(first, _)| titles.contains(first)) {
        Some((_, rest)) => ("EXAMPLES", rest),
        None => ("NOTES", help),
    };
    section.control("SH", [title]).control("ad", ["l"]);
    let (mut is_literal, mut is_prose) = (false, false);
    for line in text.lines() {
        let indented = line.starts_with("  ");
        if indented != is_literal {
            section.control(if indented { "nf" } else { "fi" }, []);
            is_literal = indented;
        }
        // Each line of prose begins anew.
        if is_prose && !indented && !line.is_empty() {
            section.control("br", []);
        }
        is_prose = !indented && !line.is_empty();
        match line {
            "" => section.control("PP", []),
            _ => section.text([roman(line.strip_prefix("  ").unwrap_or(line))]),
        };
    }
    if is_literal {
        section.control("fi", []);
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_literal_in_a_page() {
        let help = "Examples:\n  setpoint a \\\n    --b\n  setpoint c\n\nTasks: a\nAll settings: setpoint d";
        let page = examples(help).render();
        let lines: Vec<&str> =
            page.lines().filter(|line| !line.starts_with(".ie") && !line.starts_with(".el")).collect();
        let expected = [
            ".SH EXAMPLES",
            ".ad l",
            ".nf",
            "setpoint a \\\\",
            "  \\-\\-b",
            "setpoint c",
            ".fi",
            ".PP",
            "Tasks: a",
            ".br",
            "All settings: setpoint d",
        ];
        assert_eq!(lines, expected, "{page}");
    }
}

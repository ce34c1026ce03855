//! The two streams. Standard output remembers that it failed instead of panicking: work that is done for a file goes on without it.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use anstream::{AutoStream, ColorChoice};
use anstyle::Style;
use setpoint::visible::{indented, one_line, shortened, visible, visible_json, without_codes};
use setpoint::{Failure, Outcome};
use terminal_size::{Width, terminal_size_of};

use super::table::width;
use super::wrap::wrapped;

/// The first write to standard output that failed. Nothing is written after it.
static FAILED: OnceLock<io::Error> = OnceLock::new();

fn send(text: &str) {
    if FAILED.get().is_none() {
        let mut out = io::stdout().lock();
        keep(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }
}

fn keep(written: io::Result<()>) {
    if let Err(error) = written {
        // Only the first one counts.
        let _ = FAILED.set(error);
    }
}

/// Returns whether standard output is gone, so that work for it alone may end.
pub fn is_closed() -> bool {
    FAILED.get().is_some()
}

/// Ends a command's output. A reader that has seen enough, as `head` does, is no failure.
///
/// # Errors
/// When standard output could not be written for another reason.
pub fn complete() -> Outcome {
    match FAILED.get() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::run(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a result. On a terminal, long lines are broken at words.
pub fn say(text: impl Display) {
    let text = text.to_string();
    send(&format!("{}\n", wrapped(&visible(&text), width().unwrap_or(usize::MAX))));
}

/// Prints the text of a file, such as settings. Its lines stay as they are.
pub fn say_file(text: impl Display) {
    send(&format!("{}\n", visible(&text.to_string())));
}

/// Prints a result that is JSON.
pub fn say_json(json: &str) {
    send(&format!("{}\n", visible_json(json)));
}

/// Prints a text that is itself the result, such as a model's answer: as it is, but on a terminal its control characters are displayed.
pub fn say_text(text: &str) {
    say_part(text);
    send("\n");
}

/// Prints a part of such a text, at once.
pub fn say_part(text: &str) {
    match io::stdout().is_terminal() {
        true => send(&visible(text)),
        false => send(text),
    }
}

/// Prints a text made of parts that [`paint`] returned, and of others without control characters.
pub fn say_painted(text: impl Display) {
    send(&format!("{text}\n"));
}

/// Turns colours off on a dumb terminal, unless `CLICOLOR_FORCE` asks for them. Without this, continuous integration (`CI`) counts as a
/// terminal with colours whatever `TERM` is.
pub fn heed_dumb_terminals() {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty() && value != "0");
    if set("TERM").is_some_and(|term| term == "dumb") && set("CLICOLOR_FORCE").is_none() {
        ColorChoice::Never.write_global();
    }
}

/// Returns whether results are coloured: on a terminal, unless `NO_COLOR`, `CLICOLOR` or `TERM` forbids it; elsewhere if
/// `CLICOLOR_FORCE` asks for it.
pub fn has_colours() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// Returns the text in a style if results are coloured.
pub fn paint(text: &str, style: Style) -> String {
    let text = visible(text);
    if has_colours() { format!("{style}{text}{style:#}") } else { text.into_owned() }
}

/// Prints what went wrong.
pub fn complain(failure: &Failure) {
    tell(&failure.to_string());
}

/// Prints a remark next to the results.
pub fn note(text: impl Display) {
    tell(&indented(&text.to_string()));
}

/// Prints a warning. Nothing silences it.
pub fn warn(text: impl Display) {
    note(shortened(&without_codes(&format!("warning: {text}"))));
}

/// Prints a message on standard error. On a terminal, long lines are broken at words.
fn tell(text: &str) {
    let stream = io::stderr();
    let width = stream.is_terminal().then(|| terminal_size_of(&stream)).flatten();
    let text = wrapped(text, width.map_or(usize::MAX, |(Width(width), _)| usize::from(width)));
    // There is no other place to report that standard error cannot be written.
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Prints the answer of the command line's parser: help, the version, or what is wrong. Returns the exit code.
pub fn answer(said: &clap::Error) -> u8 {
    let code = u8::try_from(said.exit_code()).unwrap_or(2);
    if !said.use_stderr() {
        keep(said.print().and_then(|()| io::stdout().flush()));
    } else if std::env::args_os().any(|argument| one_line(&argument.to_string_lossy()) != argument.to_string_lossy()) {
        tell(indented(&said.render().to_string()).trim_end());
    } else {
        let _ = said.print();
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_painted_is_visible() {
        let style = Style::new().bold();
        let painted = paint("a\u{1b}[31mb", style);
        assert!(painted.contains("a\\u{1b}[31mb"), "{painted:?}");
    }
}

//! The bar that progress is drawn with.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use setpoint::session::Bar;
use setpoint::visible::one_line;

/// A bar on a terminal.
#[derive(Debug)]
pub struct TerminalBar(ProgressBar);

/// Returns a bar over `total` units, `start` of which are done. It is drawn on a terminal alone.
pub fn bar(what: &str, start: u64, total: u64) -> TerminalBar {
    // Nothing is drawn before the bar is complete: methods that begin with `set` draw.
    let mut bar = ProgressBar::new(total).with_position(start).with_prefix(one_line(what).into_owned());
    // A bar is redrawn by control codes, which a dumb terminal shows as text.
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    // The text is never cut off: the bar takes the columns that are left.
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{wide_bar}] {pos}/{len} {msg}") {
        bar = bar.with_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    TerminalBar(bar)
}

impl Bar for TerminalBar {
    fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    fn reach(&self, done: u64) {
        self.0.set_position(done);
    }

    fn message(&self, text: String) {
        self.0.set_message(text);
    }

    fn above(&self, print: &mut dyn FnMut()) {
        self.0.suspend(print);
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_begins_where_the_work_does() {
        let TerminalBar(bar) = bar("SFT", 46, 400);
        assert_eq!((bar.position(), bar.length()), (46, Some(400)));
        assert_eq!(bar.prefix(), "SFT");
    }
}

//! The bar that progress is drawn with.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use setpoint::session::Bar;
use setpoint::visible::one_line;

/// A bar on a terminal.
#[derive(Debug)]
pub struct TerminalBar(ProgressBar);

/// Returns a bar over `total` units. It is drawn on a terminal alone. `eta`: whether it tells the time that is left.
pub fn bar(what: &str, total: usize, eta: bool) -> TerminalBar {
    let bar = ProgressBar::new(total as u64);
    // A bar is redrawn by control codes, which a dumb terminal shows as text.
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let time = if eta { "{elapsed}<{eta}" } else { "{elapsed}" };
    if let Ok(style) =
        ProgressStyle::with_template(&format!("{{prefix:>12}} [{{bar:32}}] {{pos}}/{{len}} {time} {{wide_msg}}"))
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(one_line(what).into_owned());
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

    fn restart_clock(&self) {
        self.0.reset_eta();
    }

    fn above(&self, print: &mut dyn FnMut()) {
        self.0.suspend(print);
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

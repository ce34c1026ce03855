//! What the command prints: progress on standard error, results on standard output.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one place that prints")]

mod meter;

use std::fmt::Display;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::Failure;

pub use meter::{Meter, Pace};

/// Prints what went wrong.
pub fn complain(failure: &Failure) {
    eprintln!("{failure}");
}

/// Prints a result.
pub fn say(text: impl Display) {
    println!("{text}");
}

/// Prints a result without a line end, at once.
pub fn say_part(text: impl Display) {
    use std::io::Write as _;
    print!("{text}");
    // A closed pipe ends the program at the next line anyway.
    let _ = std::io::stdout().flush();
}

/// Prints a remark beside the results.
pub fn note(text: impl Display) {
    eprintln!("{text}");
}

/// A bar over `total` units; nothing is drawn where standard error is no terminal or `quiet` is set.
pub fn bar(total: usize, what: &str, quiet: bool) -> ProgressBar {
    drawn(total, what, quiet, "{prefix:>12} [{bar:32}] {pos}/{len} {elapsed}<{eta} {wide_msg}")
}

fn drawn(total: usize, what: &str, quiet: bool, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

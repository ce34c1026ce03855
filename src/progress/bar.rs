//! The bar that both kinds of progress are drawn with.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::one_line;

/// Returns a bar over `total` units. It is drawn on a terminal alone, and not if `quiet` is set.
pub fn bar(total: usize, what: &str, quiet: bool) -> ProgressBar {
    drawn(total, what, quiet, "{prefix:>12} [{bar:32}] {pos}/{len} {elapsed}<{eta} {wide_msg}")
}

pub(super) fn drawn(total: usize, what: &str, quiet: bool, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    // A bar is redrawn by control codes, which a dumb terminal shows as text.
    if quiet || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(one_line(what).into_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

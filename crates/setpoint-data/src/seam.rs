//! The seam behind which other people's parsers run: a panic of theirs becomes an error.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// True if a panic of this thread is expected, and so not printed.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// The message about a panic.
const STOPPED: &str = "its parser stopped: it is damaged, or of a kind that is not known";

/// Runs a function whose panics become errors and are not printed. Whatever the function borrowed must not be used after a
/// panic: it may be half changed.
pub(crate) fn contain<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CONTAINED.get() {
                before(info);
            }
        }));
    });
    let outer = CONTAINED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    CONTAINED.set(outer);
    // What a panic says is for the programmers of the parser.
    result.map_err(|_| STOPPED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors() {
        assert_eq!(contain(|| 7), Ok(7));
        let failed: Result<(), _> = contain(|| panic!("no {}\nmore", "luck"));
        assert_eq!(failed, Err(STOPPED.into()));
        let inner = contain(|| contain(|| panic!("inner")).unwrap_err());
        assert_eq!(inner, Ok(STOPPED.into()));
    }
}

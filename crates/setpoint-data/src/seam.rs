//! The seam behind which other people's parsers run: a panic of theirs becomes an error.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is expected, and so not printed.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

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
    result.map_err(|panic| reason(&*panic))
}

fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("no reason given");
    let line = text.lines().next().unwrap_or_default();
    format!("its parser stopped: {}", line.chars().take(200).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors() {
        assert_eq!(contain(|| 7), Ok(7));
        let failed: Result<(), _> = contain(|| panic!("no {}\nmore", "luck"));
        assert_eq!(failed, Err("its parser stopped: no luck".into()));
        let inner = contain(|| contain(|| panic!("inner")).unwrap_err());
        assert_eq!(inner, Ok("its parser stopped: inner".into()));
    }
}

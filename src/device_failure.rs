//! What goes wrong on a device. Burn tells of it by a panic wherever a result is read: of memory that is used up, of a server that is gone.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::{Mutex, MutexGuard, PoisonError};

use setpoint::{Failure, Outcome};

/// The first failure, on whichever thread it was.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

fn first() -> MutexGuard<'static, Option<String>> {
    FIRST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a command; what a device failed of becomes an error with an exit code, and any other panic goes on.
pub fn caught(command: impl FnOnce() -> Outcome) -> Outcome {
    let usual = take_hook();
    set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        let mut first = first();
        match reason(panic.payload_as_str().unwrap_or_default()) {
            Some(reason) => _ = first.get_or_insert(reason),
            // What follows from a failure is not told.
            None if first.is_some() => {}
            None => usual(panic),
        }
    }));
    let done = catch_unwind(AssertUnwindSafe(command));
    let failed = first().take();
    match (done, failed) {
        (Ok(Ok(())), _) => Ok(()),
        (Ok(Err(_)) | Err(_), Some(reason)) => {
            let hint = "what was saved is whole: a training goes on with --resume";
            Err(Failure::run(format!("a device failed: {reason}")).hint(hint))
        }
        (Ok(Err(failure)), None) => Err(failure),
        (Err(panic), None) => resume_unwind(panic),
    }
}

/// What Burn says of a device, without what it says of its own functions.
fn reason(panic: &str) -> Option<String> {
    let (said, cause) = panic.split_once("Caused by:")?;
    let of_a_device = said.contains("An error happened during execution") || said.contains("The device is poisoned");
    of_a_device.then(|| cause.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use burn::tensor::ExecutionError;

    use super::*;

    #[test]
    fn burns_errors_are_known_by_their_words() {
        let errors = [
            ExecutionError::generic("no memory\n  left"),
            ExecutionError::with_context("no memory left"),
            ExecutionError::DevicePoisoned { reason: "no memory left".into() },
        ];
        for error in errors {
            // As `expect` writes it.
            assert_eq!(
                reason(&format!("Error while reading data: {error}")).as_deref(),
                Some("no memory left"),
                "{error}"
            );
        }
        assert_eq!(reason("index out of bounds: the len is 3 but the index is 3"), None);
        assert_eq!(reason("Caused by: something else"), None);
    }
}

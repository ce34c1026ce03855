//! Failures of a device. Burn tells of them by a panic wherever a result is read: of memory that is used up, of a server that is gone.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::{Mutex, MutexGuard, PoisonError};

use setpoint::{Failure, Outcome};
use setpoint_train::{device_failure, is_handled};

/// The first failure, on whichever thread it was.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

fn first() -> MutexGuard<'static, Option<String>> {
    FIRST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a command; what a device failed of becomes an error with an exit code, and any other panic goes on.
pub fn caught(command: impl FnOnce() -> Outcome) -> Outcome {
    let usual = take_hook();
    set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        let message = panic.payload_as_str().unwrap_or_default();
        // The work is tried again with less, or ends in an error of its own.
        if is_handled(message) {
            return;
        }
        // What follows from a failure is not told.
        let is_told = {
            let mut first = first();
            match device_failure(message) {
                Some(reason) => {
                    first.get_or_insert(reason);
                    false
                }
                None => first.is_none(),
            }
        };
        // The lock is free again: the usual hook may be another one of these.
        if is_told {
            usual(panic);
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

#[cfg(test)]
mod tests {
    use burn::tensor::ExecutionError;
    use setpoint_train::attempt;

    use super::*;

    fn fail(reason: &str) -> ! {
        let error = ExecutionError::with_context(reason);
        panic!("Error while reading data: {error:?}");
    }

    #[test]
    fn memory_that_ran_out_in_an_attempt_is_no_failure_of_the_command() {
        let handled = || {
            let attempted = attempt::<()>(|| fail("out of device memory allocating 3 bytes"));
            assert!(attempted.is_ok_and(|attempted| attempted.is_err()));
        };
        let failure = caught(|| {
            handled();
            Err(Failure::run("another reason"))
        });
        assert_eq!(failure.unwrap_err().sentence(), "another reason");
        let failure = caught(|| {
            handled();
            fail("the server is gone")
        });
        assert_eq!(failure.unwrap_err().sentence(), "a device failed: the server is gone");
    }
}

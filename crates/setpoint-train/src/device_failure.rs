//! Failures of a device. Burn reports them by a panic wherever a result is read: of memory that is used up, of a server that is gone.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::Error;

/// The messages of CubeCL 0.11, of CUDA, HIP and wgpu about an allocation that failed, in lower case.
const NO_MEMORY: [&str; 6] = [
    "out of device memory",
    "out of memory",
    "out-of-memory",
    "error_out_of_memory",
    // Larger than any buffer of the device.
    "can't allocate buffer of size",
    "every page size the memory tracks still holds live allocations",
];

/// The message of wgpu for a buffer that it cannot make, which is no error of Burn.
const WGPU_NO_MEMORY: &str = "wgpu error: Out of Memory";

thread_local! {
    /// Tells whether this thread is in an [`attempt`].
    static ATTEMPTS: Cell<bool> = const { Cell::new(false) };
}

/// An allocation on a device that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The device's own words.
    pub reason: String,
}

/// Returns the reason that a panic or an error gives for the failure of a device, without what Burn says of its own functions. `None` if
/// the message is about something else.
pub fn device_failure(message: &str) -> Option<String> {
    cause(message).map(|cause| cause.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Returns whether a panic with this message, on this thread, says that memory ran out inside an [`attempt`], whose caller handles it.
pub fn is_handled(message: &str) -> bool {
    ATTEMPTS.get() && out_of_memory(message).is_some()
}

/// Runs work that may need more memory than its device has.
///
/// Only a result that is read shows whether the memory sufficed, so `work` has to read one that depends on all it has computed. On the CPU
/// an allocation that fails aborts the process.
///
/// # Errors
/// The inner error if a device ran out of memory, the outer one for any other error of the work.
///
/// # Panics
/// When the work panics for another reason.
pub fn attempt<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<Result<R, OutOfMemory>, Error> {
    let outer = ATTEMPTS.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    ATTEMPTS.set(outer);
    match done {
        Ok(Ok(result)) => Ok(Ok(result)),
        Ok(Err(error)) => match out_of_memory(&error.to_string()) {
            Some(failed) => Ok(Err(failed)),
            None => Err(error),
        },
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            match text.and_then(out_of_memory) {
                Some(failed) => Ok(Err(failed)),
                None => resume_unwind(panic),
            }
        }
    }
}

/// The part of a message that follows Burn's own words on a device that failed.
fn cause(message: &str) -> Option<&str> {
    let (said, cause) = message.split_once("Caused by:")?;
    let of_a_device = said.contains("An error happened during execution") || said.contains("The device is poisoned");
    of_a_device.then_some(cause)
}

/// A failure for lack of memory; `None` for any other, and if the device cannot be used any more.
fn out_of_memory(message: &str) -> Option<OutOfMemory> {
    let failed = |reason: &str| OutOfMemory { reason: reason.split_whitespace().collect::<Vec<_>>().join(" ") };
    if message.contains(WGPU_NO_MEMORY) {
        return Some(failed(WGPU_NO_MEMORY));
    }
    let cause = cause(message)?;
    if message.contains("The device is poisoned") || message.contains("The device was poisoned") {
        return None;
    }
    let says = |line: &&str| {
        let line = line.to_lowercase();
        NO_MEMORY.iter().any(|words| line.contains(words))
    };
    cause.lines().find(says).map(failed)
}

#[cfg(test)]
mod tests {
    use burn::tensor::ExecutionError;

    use super::*;

    /// The message of a read that failed.
    fn read(error: ExecutionError) -> String {
        format!("Error while reading data: use `try_into_data` instead to catch the error at runtime: {error:?}")
    }

    #[test]
    fn burns_errors_are_known_by_their_words() {
        let errors = [
            ExecutionError::generic("no memory\n  left"),
            ExecutionError::with_context("no memory left"),
            ExecutionError::DevicePoisoned { reason: "no memory left".into() },
        ];
        for error in errors {
            let message = read(error);
            assert_eq!(device_failure(&message).as_deref(), Some("no memory left"), "{message}");
        }
        assert_eq!(device_failure("index out of bounds: the len is 3 but the index is 3"), None);
        assert_eq!(device_failure("Caused by: something else"), None);
    }

    #[test]
    fn an_allocation_that_fails_is_told_from_other_failures() {
        for (cause, words) in [
            // CubeCL's `IoError`, `LaunchError` and their parents.
            (
                "An IO error happened\nCaused by:\n  out of device memory allocating 4096 bytes\n<backtrace>",
                "out of device memory allocating 4096 bytes",
            ),
            (
                "The bytes were never written (failure #1, still claiming 2 buffer(s))\n  a: skipped\nCaused by:\n  \
                 An IO error happened\nCaused by:\n  can't allocate buffer of size: 68719476736\n<backtrace>",
                "can't allocate buffer of size: 68719476736",
            ),
            (
                "A launch error happened\nCaused by:\n  An out-of-memory error happened during launch\nCaused by:\n  x",
                "An out-of-memory error happened during launch",
            ),
            (
                "Unknown error happened during execution: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"x\")",
                "Unknown error happened during execution: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"x\")",
            ),
        ] {
            let found = out_of_memory(&read(ExecutionError::with_context(cause)));
            assert_eq!(found.map(|found| found.reason).as_deref(), Some(words));
        }
        assert_eq!(out_of_memory("wgpu error: Out of Memory").unwrap().reason, "wgpu error: Out of Memory");
        for message in [
            read(ExecutionError::with_context("the server is gone")),
            read(ExecutionError::DevicePoisoned { reason: "out of device memory allocating 3 bytes".into() }),
            // Of another origin.
            "out of memory".to_owned(),
            "cannot read model.safetensors: Cannot allocate memory (os error 12)".to_owned(),
        ] {
            assert_eq!(out_of_memory(&message), None, "{message}");
        }
    }

    #[test]
    fn panics_and_errors_for_lack_of_memory_are_caught_and_all_others_go_on() {
        let words = || read(ExecutionError::with_context("out of device memory allocating 3 bytes"));
        let reason = "out of device memory allocating 3 bytes".to_owned();
        let failed = Err(OutOfMemory { reason });
        assert_eq!(attempt(|| Ok(1)).unwrap(), Ok(1));
        assert_eq!(attempt::<()>(|| panic!("{}", words())).unwrap(), failed);
        assert_eq!(attempt::<()>(|| Err(Error::task(words()))).unwrap(), failed);
        assert!(matches!(attempt::<()>(|| Err(Error::Interrupted)), Err(Error::Interrupted)));
        let other = catch_unwind(|| attempt::<()>(|| panic!("another")));
        assert_eq!(*other.unwrap_err().downcast::<&str>().unwrap(), "another");
        // Outside of an attempt nobody handles them.
        assert!(!is_handled(&words()));
        let within = attempt(|| Ok((is_handled(&words()), is_handled("another")))).unwrap();
        assert_eq!(within, Ok((true, false)));
    }
}

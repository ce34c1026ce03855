//! Runs the tokenizers library so that it ends: its panics are errors, and a tokenizer that may take long has a deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Once};
use std::time::Duration;

use crate::seam::contain;

/// The time that reading a file and encoding a text may take, and how much more for each MiB.
const LOAD: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(2));
const ENCODE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(8));
/// The stacks of the threads: in reading a file, the compiler of regular expressions recurses along nested groups.
const STACK_TO_LOAD: usize = 64 << 20;
const STACK_TO_ENCODE: usize = 8 << 20;
/// Limits of the regular expressions, which by themselves have none for a whole search or its memory.
const MOST_RETRIES: u64 = 50_000_000;
const MOST_STACKED: u32 = 16 << 20;

/// Remembers whether a tokenizer has missed its deadline. Its thread cannot be stopped, so that nothing more is asked of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Guard {
    stuck: Arc<AtomicBool>,
}

/// Reads a file.
pub(super) fn load<T: Send + 'static>(bytes: usize, run: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    static LIMITS: Once = Once::new();
    LIMITS.call_once(|| {
        // SAFETY: both set a number that Oniguruma reads when a search begins; `Once` keeps two threads from setting them.
        unsafe {
            onig_sys::onig_set_retry_limit_in_search(MOST_RETRIES as std::os::raw::c_ulong);
            onig_sys::onig_set_match_stack_limit_size(MOST_STACKED);
        }
    });
    Guard::default().within(allowance(LOAD, bytes), STACK_TO_LOAD, run)
}

fn allowance((base, per_mib): (Duration, Duration), bytes: usize) -> Duration {
    base + per_mib.mul_f64(bytes as f64 / (1 << 20) as f64)
}

impl Guard {
    /// Encodes or decodes a text of some bytes with a deadline.
    pub(super) fn encode<T: Send + 'static>(
        &self,
        bytes: usize,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        self.within(allowance(ENCODE, bytes), STACK_TO_ENCODE, run)
    }

    fn within<T: Send + 'static>(
        &self,
        time: Duration,
        stack: usize,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err("it did not finish with an earlier text".into());
        }
        let (send, receive) = channel();
        let thread = std::thread::Builder::new().name("tokenizer".into()).stack_size(stack);
        let started = thread.spawn(move || drop(send.send(contain(run))));
        started.map_err(|e| format!("no thread for it: {e}"))?;
        match receive.recv_timeout(time) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                self.stuck.store(true, Ordering::Relaxed);
                Err(format!("it did not finish within {:.0} s", time.as_secs_f64()))
            }
            Err(RecvTimeoutError::Disconnected) => Err("its thread ended without a result".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_holds_and_is_remembered() {
        let guard = Guard::default();
        assert_eq!(guard.within(Duration::from_secs(5), 1 << 20, || 7), Ok(7));
        let panic: Result<(), _> = guard.within(Duration::from_secs(5), 1 << 20, || panic!("no luck"));
        assert!(panic.is_err_and(|reason| reason.starts_with("its parser stopped")));
        let slow = guard.within(Duration::from_millis(20), 1 << 20, || std::thread::sleep(Duration::from_secs(2)));
        assert_eq!(slow, Err("it did not finish within 0 s".into()));
        assert_eq!(
            guard.within(Duration::from_secs(5), 1 << 20, || 7),
            Err("it did not finish with an earlier text".into())
        );
    }
}

//! SIGINT and SIGTERM during a training: it finishes its step, saves and ends. A second signal ends the process at once.
//!
//! Outside a training a signal does what it does by default, so that everything else ends at once. Nothing needs more: files appear whole
//! or not at all, and logs are cut where a checkpoint or their last whole line ends.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Tells whether signals do what they do by default.
static IDLE: AtomicBool = AtomicBool::new(true);
/// Tells whether a stop is asked for.
static ASKED: AtomicBool = AtomicBool::new(false);
/// The last signal.
static SIGNAL: AtomicUsize = AtomicUsize::new(0);

/// Begins to watch: the first signal asks for a stop instead of ending the process. Whoever watches looks at [`requested`].
pub fn watch() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        for signal in [SIGINT, SIGTERM] {
            // In this order. A system that refuses leaves the default.
            let _ = flag::register_conditional_default(signal, &IDLE);
            let _ = flag::register_conditional_shutdown(signal, i32::from(code(signal)), &ASKED);
            let _ = flag::register_usize(signal, &SIGNAL, signal.unsigned_abs() as usize);
            let _ = flag::register(signal, &ASKED);
        }
    });
    IDLE.store(false, Ordering::SeqCst);
}

/// Ends to watch: signals do what they do by default.
pub fn ignore() {
    IDLE.store(true, Ordering::SeqCst);
}

/// Returns whether a stop is asked for.
pub fn requested() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Asks for a stop, as a signal does.
pub fn request() {
    ASKED.store(true, Ordering::SeqCst);
}

/// Returns whether no one watches.
pub fn is_idle() -> bool {
    IDLE.load(Ordering::SeqCst)
}

/// Returns the exit code that shells give a process that the last signal ended.
pub fn exit_code() -> u8 {
    let signal = i32::try_from(SIGNAL.load(Ordering::SeqCst)).unwrap_or(0);
    code(if signal == 0 { SIGTERM } else { signal })
}

/// 130 for SIGINT, 143 for SIGTERM.
fn code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(1)
}

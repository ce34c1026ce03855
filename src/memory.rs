//! What the allocator does with memory that is free again. `MIMALLOC_PURGE_DELAY` in the environment decides where it is set.

use crate::failure::{Failure, Outcome};

/// `mi_option_purge_delay` of mimalloc.h, which the bindings do not name: milliseconds until the system gets free pages back; never if
/// negative.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Gives back what is free now, and from now on what becomes free at once: what reading a model's files takes is not needed again.
pub fn give_pages_back() {
    // Nothing is collected while there is no delay.
    purge_after(1);
    // SAFETY: it may be called at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
    purge_after(0);
}

/// Keeps freed memory for what comes next instead of giving it back: where tensors are large, page faults cost more than the arithmetic.
pub fn keep_pages() {
    // Not for ever, as that could not be given back later.
    purge_after(3_600_000);
}

/// Keeps freed memory for a moment: enough for what comes and goes within an operation, while the places of gradients and activations go back.
pub fn keep_pages_briefly() {
    purge_after(10);
}

/// Returns the bytes that this process may still take: what the system has left, within the limits set for the process and its
/// group. `None` if the system does not tell.
pub fn available() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    let field = |text: &str, name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    let left = read("/proc/meminfo").and_then(|text| Some(1024 * field(&text, "MemAvailable:")?));
    let taken = read("/proc/self/status").and_then(|text| Some(1024 * field(&text, "VmSize:")?));
    let allowed = read("/proc/self/limits").and_then(|text| field(&text, "Max address space"));
    let of_process = allowed.map(|allowed| allowed.saturating_sub(taken.unwrap_or(0)));
    let group = |name: &str| read(&format!("/sys/fs/cgroup/{name}")).and_then(number);
    let of_group = group("memory.max").map(|most| most.saturating_sub(group("memory.current").unwrap_or(0)));
    [left, of_process, of_group].into_iter().flatten().min()
}

/// Fails if the memory left is less than `bytes`. `what` begins the sentence and `remedy` ends it.
pub fn require(bytes: u128, what: &str, remedy: &str) -> Outcome {
    match available() {
        Some(left) if u128::from(left) < bytes => Err(Failure::usage(
            what,
            format!(
                "needs {bytes} bytes ({:.1} GiB) of memory, and {left} are available; {remedy}",
                bytes as f64 / (1u64 << 30) as f64
            ),
        )),
        _ => Ok(()),
    }
}

fn purge_after(milliseconds: core::ffi::c_long) {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: one number, which the allocator may read before or after.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds) };
    }
}

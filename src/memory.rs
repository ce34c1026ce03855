//! The treatment of free memory by the allocator (`MIMALLOC_PURGE_DELAY` in the environment decides it if it is set).

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

fn purge_after(milliseconds: core::ffi::c_long) {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: one number, which the allocator may read before or after.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds) };
    }
}

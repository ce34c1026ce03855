//! Operations of this thread that fail, for tests.

use std::cell::Cell;

thread_local! {
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    static FIRED: Cell<bool> = const { Cell::new(false) };
    static ONCE: Cell<bool> = const { Cell::new(false) };
    pub(crate) static SKIP_SYNCS: Cell<bool> = const { Cell::new(false) };
    pub(crate) static FULL: Cell<bool> = const { Cell::new(false) };
    pub(crate) static FREE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Lets `count` operations succeed; all later ones fail, as for a process that has died. `None` lets everything succeed.
pub fn after(count: Option<u64>) {
    LEFT.set(count);
    ONCE.set(false);
    FIRED.set(false);
}

/// Lets a single operation fail, the one after `count` others.
pub fn once_after(count: u64) {
    after(Some(count));
    ONCE.set(true);
}

/// Returns whether the failure has come up.
pub fn fired() -> bool {
    FIRED.get()
}

/// Lets syncs do nothing, in tests of hundreds of runs: only a power failure would show it.
pub fn skip_syncs() {
    SKIP_SYNCS.set(true);
}

/// Leaves no room on the disk for the next file; there is room again for those after it.
pub fn fill() {
    FULL.set(true);
}

/// Sets the free space of the disk, in bytes.
pub fn leave(bytes: Option<u64>) {
    FREE.set(bytes);
}

pub(crate) fn fires() -> bool {
    let fires = LEFT.get() == Some(0);
    if fires {
        FIRED.set(true);
    }
    LEFT.set(LEFT.get().filter(|_| !(fires && ONCE.get())).map(|left| left.saturating_sub(1)));
    fires
}

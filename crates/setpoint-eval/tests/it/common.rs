//! Test data that lives outside the repository.

use std::path::{Path, PathBuf};

/// A folder or file of the shared test data, or `None` after saying that the test is skipped.
#[allow(clippy::print_stderr, reason = "a skipped test must say so")]
pub fn test_data(name: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("SETPOINT_TEST_DATA") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    };
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is absent (set SETPOINT_TEST_DATA)", path.display());
    None
}

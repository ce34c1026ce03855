//! Test data that lives outside the repository. Every crate's tests include this file.

use std::path::{Path, PathBuf};

/// Returns a file or folder of the shared test data, or `None` after saying that the test is skipped.
///
/// The data are searched in `$SETPOINT_TEST_DATA`, then in `../shared/data` next to the repository.
///
/// # Panics
/// If the data are missing and `SETPOINT_REQUIRE_TEST_DATA` is `1`, as in continuous integration.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
pub fn test_data(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SETPOINT_TEST_DATA").map_or_else(beside_the_repository, PathBuf::from);
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    let sentence = format!("{} does not exist (SETPOINT_TEST_DATA names the folder of test data)", path.display());
    assert!(std::env::var_os("SETPOINT_REQUIRE_TEST_DATA").is_none_or(|value| value != "1"), "{sentence}");
    eprintln!("skipped: {sentence}");
    None
}

fn beside_the_repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().find(|folder| folder.join("tests/common/test_data.rs").is_file());
    root.unwrap_or(package).join("../shared/data")
}

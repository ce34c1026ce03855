//! The file of a program that a setting names.

use std::path::{Path, PathBuf};

/// Returns the file of the program that begins a list of words, or says why there is none.
///
/// # Errors
/// The sentence about the list.
pub fn find_program(run: &[String]) -> Result<PathBuf, String> {
    let Some(program) = run.first().filter(|program| !program.is_empty()) else {
        return Err("names no program: expected a list, as in [\"python3\", \"score.py\"]".to_owned());
    };
    if run.iter().any(|argument| argument.contains('\0')) {
        return Err("an argument has a zero byte, which no program can be given".to_owned());
    }
    let is_path = Path::new(program).components().count() > 1 || program.contains('/');
    let (folders, place) = match is_path {
        true => (vec![PathBuf::new()], "does not exist"),
        false => {
            let folders = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect());
            (folders.unwrap_or_default(), "is in no folder of PATH")
        }
    };
    let endings = if cfg!(windows) { &["", ".exe", ".cmd", ".bat"][..] } else { &[""] };
    let files: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| endings.iter().map(move |ending| folder.join(format!("{program}{ending}"))))
        .filter(|file| file.is_file())
        .collect();
    match files.iter().find(|file| is_executable(file)) {
        Some(file) => Ok(file.clone()),
        None if files.is_empty() => Err(format!("the program `{program}` {place}")),
        None => Err(format!("`{program}` is a file that cannot be run: make it executable, or name its interpreter")),
    }
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|data| data.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_: &Path) -> bool {
    true
}

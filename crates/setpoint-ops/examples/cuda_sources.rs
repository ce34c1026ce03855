//! Writes every kernel for GPUs as CUDA C++ into a folder, with a list of them. `benches/gpu/compile.py` compiles the files.

#![allow(clippy::print_stderr, reason = "the program says why it fails")]

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use setpoint_ops::cuda_sources;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("name the folder to write into");
        return ExitCode::from(2);
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut list = String::from("kernel\tcase\tentry\tunits\tshared\n");
    for source in cuda_sources()? {
        let _ =
            writeln!(list, "{}\t{}\t{}\t{}\t{}", source.kernel, source.case, source.entry, source.units, source.shared);
        std::fs::write(folder.join(format!("{}.cu", source.entry)), source.text).map_err(failed)?;
    }
    std::fs::write(folder.join("kernels.tsv"), list).map_err(failed)
}

//! Writes kernels for GPUs as CUDA C++ into a folder, with a list of them, each as soon as it is translated. `benches/gpu/compile.py` compiles
//! the files.
//!
//! usage: cuda_sources FOLDER [--only TEXT] [--limit SECONDS]
//!
//! TEXT is a part of the kernel's name and case, such as `attention::forward` or `bf16, 128`. A kernel that takes longer than the limit, by
//! default 300 seconds, is named and left out.

#![allow(clippy::print_stderr, reason = "the program says what it does and why it fails")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use setpoint_ops::{CudaKernel, cuda_sources};

struct Options {
    folder: PathBuf,
    only: String,
    limit: Duration,
}

fn main() -> ExitCode {
    match read_options().and_then(|options| write(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn read_options() -> Result<Options, String> {
    let (mut folder, mut only, mut limit) = (None, String::new(), Duration::from_secs(300));
    let mut arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--only" => only = value()?,
            "--limit" => {
                let text = value()?;
                let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                limit = seconds.ok_or_else(|| format!("--limit: expected seconds, found `{text}`"))?;
            }
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            path => folder = Some(PathBuf::from(path)),
        }
    }
    Ok(Options { folder: folder.ok_or("name the folder to write into")?, only, limit })
}

fn write(Options { folder, only, limit }: &Options) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut list = File::create(folder.join("kernels.tsv")).map_err(failed)?;
    writeln!(list, "file\tkernel\tcase\tentry\tunits\tshared").map_err(failed)?;
    let (mut count, mut failures) = (0, 0);
    cuda_sources(only, *limit, &mut |found| {
        count += 1;
        failures += usize::from(found.source.is_err());
        report(count, &found);
        add(&mut list, folder, count, &found).map_err(failed)
    })?;
    match (count, failures) {
        (0, _) => Err(format!("no kernel has `{only}` in its name and case")),
        (_, 0) => Ok(()),
        _ => Err(format!("{failures} of {count} kernels have not been translated")),
    }
}

fn report(number: usize, CudaKernel { kernel, case, time, source }: &CudaKernel) {
    let seconds = time.as_secs_f64();
    match source {
        Ok(source) => eprintln!("{number}: {kernel}, {case}: {} bytes in {seconds:.1} s", source.text.len()),
        Err(error) => eprintln!("{number}: {kernel}, {case}: {error}"),
    }
}

fn add(list: &mut File, folder: &Path, number: usize, found: &CudaKernel) -> std::io::Result<()> {
    let CudaKernel { kernel, case, source: Ok(source), .. } = found else { return Ok(()) };
    let file = format!("{number:03}.cu");
    std::fs::write(folder.join(&file), &source.text)?;
    writeln!(list, "{file}\t{kernel}\t{case}\t{}\t{}\t{}", source.entry, source.units, source.shared)
}

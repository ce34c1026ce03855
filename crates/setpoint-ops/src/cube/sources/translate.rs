//! The way from a kernel to CUDA C++, as on an H100 or H200.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use burn_cubecl::cubecl::define_kernel;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_cpp::target::Cuda;
use cubecl_server::compiler::Compiler;
use cubecl_server::kernel::CubeKernel;

use super::CudaSource;

/// Bytes of a translator's stack: it follows the uses of a number by recursion, and unrolled loops have long chains of them.
const STACK: usize = 256 << 20;

/// Returns what CubeCL's CUDA runtime asks of its compiler for sm_90.
fn options() -> CompilationOptions {
    let supports_features = CppSupportedFeatures {
        grid_constants: true,
        clusters: true,
        fast_math: true,
        fast_tanh: true,
        elect_sync: true,
        dp4a: true,
    };
    CompilationOptions { supports_features, ..Default::default() }
}

fn translate(kernel: &dyn CubeKernel) -> Result<CudaSource, String> {
    let definition = define_kernel(kernel).map_err(|error| error.to_string())?;
    let (entry, units) = (definition.settings.kernel_name.clone(), definition.settings.cube_dim.num_elems());
    let compiled = CppCompiler::<Cuda>::default().compile(definition, &options());
    let compiled = compiled.map_err(|error| error.to_string())?;
    Ok(CudaSource { entry, units, shared: compiled.shared_memory_size, text: compiled.source })
}

/// Turns a kernel into CUDA C++. A translation that takes longer than `limit` is left behind and goes on until the process ends.
pub(super) fn translate_within(kernel: Box<dyn CubeKernel>, limit: Duration) -> Result<CudaSource, String> {
    let late = || format!("CubeCL has not translated it after {} s", limit.as_secs_f32());
    if limit.is_zero() {
        return Err(late());
    }
    let (done, result) = channel();
    let work = move || {
        // Nobody listens any more if it took too long.
        let _ = done.send(translate(&*kernel));
    };
    thread::Builder::new().stack_size(STACK).spawn(work).map_err(|error| error.to_string())?;
    match result.recv_timeout(limit) {
        Ok(source) => source,
        Err(RecvTimeoutError::Timeout) => Err(late()),
        Err(RecvTimeoutError::Disconnected) => Err("CubeCL's translator panics".into()),
    }
}

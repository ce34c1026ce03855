//! `--device`: the only place that names a backend.

use burn::tensor::Device;

/// Every kind of device, compiled in or not.
const ALL: [&str; 4] = ["flex", "ndarray", "wgpu", "cuda"];

/// The devices this binary was built with, as written after `--device`.
pub fn compiled() -> Vec<&'static str> {
    let mut names = Vec::new();
    if cfg!(feature = "flex") {
        names.push("flex");
    }
    if cfg!(feature = "ndarray") {
        names.push("ndarray");
    }
    if cfg!(feature = "wgpu") {
        names.push("wgpu");
    }
    if cfg!(feature = "cuda") {
        names.push("cuda");
    }
    names
}

/// Opens `flex`, `ndarray`, `wgpu[:i]` or `cuda[:i]`; without a name the fastest that was compiled in.
///
/// # Errors
/// One sentence when the name is unknown, not compiled in, or its index is no number.
pub fn open(name: Option<&str>) -> Result<Device, String> {
    let compiled = compiled();
    let Some(name) = name.or_else(|| ["cuda", "flex", "wgpu", "ndarray"].into_iter().find(|n| compiled.contains(n)))
    else {
        return Err("this binary was built without any device: build it with --features flex".into());
    };
    let (kind, index) = match name.split_once(':') {
        None => (name, 0),
        Some((kind, index)) => {
            (kind, index.parse::<usize>().map_err(|_| format!("`{name}`: `{index}` is not a device number"))?)
        }
    };
    if matches!(kind, "flex" | "ndarray") && name.contains(':') {
        return Err(format!("`{name}`: {kind} is the CPU and takes no device number"));
    }
    // Only GPUs are numbered.
    #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
    let _ = index;
    match kind {
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)]
        "ndarray" => Ok(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        // Without a number wgpu's own choice, which also finds software adapters.
        "wgpu" if !name.contains(':') => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(burn::tensor::DeviceKind::DiscreteGpu(index))),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index)),
        known if ALL.contains(&known) => Err(format!(
            "`{kind}` is not in this binary, which has {}: build it with `cargo build --release --features {kind}`",
            compiled.join(", ")
        )),
        _ => Err(format!("`{name}` is not a device: expected flex, ndarray, wgpu[:i] or cuda[:i]")),
    }
}

/// Whether bf16 and f16 checkpoints keep their dtype on a device: on GPUs that compute in it. CPUs emulate it, which is slow.
pub fn keeps_half_precision(device: &Device) -> bool {
    let name = format!("{device:?}").to_lowercase();
    name.contains("cuda")
}

/// Whether a device computes in the machine's own memory.
pub fn is_cpu(device: &Device) -> bool {
    let name = format!("{device:?}").to_lowercase();
    name.contains("flex") || name.contains("ndarray")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_known() {
        for name in compiled() {
            // A GPU may be compiled in and not be there.
            if matches!(name, "flex" | "ndarray") {
                assert!(is_cpu(&open(Some(name)).unwrap()), "{name}");
            }
        }
    }
}

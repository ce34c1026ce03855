//! `--device`: the only place that names a backend.

pub mod remote;

use burn::backend::{Backend, DTypeUsage, DTypeUsageSet, Dispatch, DispatchDevice};
use burn::tensor::{DType, Device};
use setpoint::session::{Hardware, Place};
use setpoint_train::{DeviceGroup, SumOnFirst, SumThroughHost};

use setpoint::{Failure, Outcome};

/// Every kind of device of this machine, compiled in or not.
const LOCAL: [&str; 4] = ["flex", "ndarray", "wgpu", "cuda"];

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
    if cfg!(feature = "remote") {
        names.push("remote");
    }
    names
}

/// Opens what `--device` names: one device, or several that work together. Without a name the fastest one that was compiled in.
///
/// # Errors
/// One sentence when the name is unknown, not compiled in, or its number is none; when a server cannot be reached.
pub fn open(name: Option<&str>) -> Outcome<DeviceGroup> {
    let wrong = |message: String| Failure::usage("--device", message);
    let Some(name) = name.or(fastest()) else {
        return Err(wrong("this binary was built without any device: build it with --features flex".into()));
    };
    if name.starts_with(remote::PREFIX) {
        let servers = remote::parse(name).map_err(wrong)?;
        return Ok(DeviceGroup::new(remote::connect(&servers)?, SumThroughHost));
    }
    let (kind, numbers) = parse(name).map_err(wrong)?;
    #[cfg(feature = "autotune")]
    if matches!(kind, "wgpu" | "cuda") {
        announce_tuning();
    }
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    setpoint_ops::check_disabled_kernels().map_err(|error| Failure::usage(setpoint_ops::DISABLED_KERNELS, error))?;
    let devices = numbers.into_iter().map(|number| one(kind, number)).collect::<Outcome<Vec<_>>>()?;
    #[cfg(feature = "cuda")]
    if kind == "cuda" && devices.len() > 1 {
        if has_nccl() {
            return Ok(DeviceGroup::new(devices, setpoint_train::NativeAllReduce));
        }
        crate::progress::note(
            "warning: NCCL was not found, so gradients go from GPU to GPU through the machine's memory",
        );
    }
    Ok(DeviceGroup::new(devices, SumOnFirst))
}

/// Returns the kind and the number of devices that a name after `--device` stands for, compiled in or not. Without a name as [`open`].
///
/// # Errors
/// One sentence when the name is unknown.
fn describe(name: Option<&str>) -> Outcome<(Kind, usize)> {
    let Some(name) = name.or(fastest()) else { return Ok((Kind::Processor, 1)) };
    let wrong = |message: String| Failure::usage("--device", message);
    if name.starts_with(remote::PREFIX) {
        // How many a server lends is known to the server alone.
        return Ok((Kind::Elsewhere, remote::parse(name).map_err(wrong)?.iter().map(remote::Server::named).sum()));
    }
    let (kind, numbers) = parse(name).map_err(wrong)?;
    Ok((Kind::named(kind), numbers.len()))
}

/// Returns open devices as a plan sees them. `told`: the memory of each in bytes, if the user has said it.
pub fn place(devices: &DeviceGroup, told: Option<f64>) -> Place {
    let first = devices.first();
    let hardware = Hardware { keeps_half_precision: keeps_half_precision(first), ..Kind::of(first).hardware() };
    Place::new(hardware, devices.len(), told)
}

/// Returns the devices of a name, compiled in or not, as a plan sees them.
///
/// # Errors
/// One sentence if the name is not a device's.
pub fn place_named(name: Option<&str>, told: Option<f64>) -> Outcome<Place> {
    let (kind, count) = describe(name)?;
    Ok(Place::new(kind.hardware(), count, told))
}

/// The fastest kind of device that was compiled in.
fn fastest() -> Option<&'static str> {
    let compiled = compiled();
    ["cuda", "flex", "wgpu", "ndarray"].into_iter().find(|kind| compiled.contains(kind))
}

/// The kind of a device, as far as memory and precision are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The CPU, with the machine's own memory.
    Processor,
    /// A GPU through wgpu.
    Graphics,
    /// An NVIDIA GPU through CUDA.
    Cuda,
    /// A device of another machine.
    Elsewhere,
}

impl Kind {
    fn named(name: &str) -> Self {
        match name {
            "flex" | "ndarray" => Self::Processor,
            "cuda" => Self::Cuda,
            _ => Self::Graphics,
        }
    }

    /// Returns the kind of an open device.
    fn of(device: &Device) -> Self {
        match device.as_dispatch() {
            #[cfg(feature = "remote")]
            DispatchDevice::Remote(_) => Self::Elsewhere,
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            DispatchDevice::Cube(device) if device.runtime() == burn::backend::RuntimeId::Cuda => Self::Cuda,
            #[cfg(any(feature = "wgpu", feature = "cuda"))]
            DispatchDevice::Cube(_) => Self::Graphics,
            DispatchDevice::Autodiff(_) => Self::of(&device.clone().without_autodiff()),
            #[allow(unreachable_patterns, reason = "a binary may be built without a CPU")]
            _ => Self::Processor,
        }
    }

    /// Returns what a plan has to know of it, which opens no device: GPUs with CUDA are expected to compute in bf16.
    fn hardware(self) -> Hardware {
        Hardware { keeps_half_precision: self == Self::Cuda, is_cpu: self == Self::Processor }
    }
}

/// Returns whether bf16 and f16 checkpoints keep their dtype on an open device, as it answers itself; a remote device asks its server.
fn keeps_half_precision(device: &Device) -> bool {
    keeps(Kind::of(device), Dispatch::dtype_usage(device.as_dispatch(), DType::BF16))
}

/// Returns whether bf16 checkpoints keep their dtype on a device of a kind that can do `usage` with bf16: a GPU that computes in it. CPUs
/// emulate it, which is slow. A device of another machine may be one: there matrix units for bf16 tell a GPU.
fn keeps(kind: Kind, usage: DTypeUsageSet) -> bool {
    match kind {
        Kind::Processor => false,
        Kind::Graphics | Kind::Cuda => usage.is_superset(DTypeUsage::general()),
        Kind::Elsewhere => usage.is_superset(DTypeUsage::general() | DTypeUsage::Accelerated),
    }
}

/// Takes `flex`, `wgpu:1`, `cuda:0,1`, `cuda:0-3` or `flex,flex` apart: the kind, and the number of each device.
fn parse(name: &str) -> Result<(&'static str, Vec<Option<usize>>), String> {
    let mut kind = None;
    let mut numbers = vec![];
    for item in name.split(',') {
        let (found, number) = match (item.split_once(':'), kind) {
            (Some((found, number)), _) => (found, Some(number)),
            (None, Some(kind)) if item.starts_with(|c: char| c.is_ascii_digit()) => (kind, Some(item)),
            (None, _) => (item, None),
        };
        let known = kind_named(found).ok_or_else(|| {
            format!(
                "`{item}` is not a device: expected cpu, flex, ndarray, wgpu[:i], cuda[:i] or remote:HOST:PORT, as in cuda:1 or cuda:0,1"
            )
        })?;
        if kind.is_some_and(|kind| kind != known) {
            return Err(format!("`{name}`: the devices of a run are of one kind"));
        }
        kind = Some(known);
        match number {
            Some(_) if matches!(known, "flex" | "ndarray") => {
                return Err(format!("`{name}`: {known} is the CPU and takes no device number"));
            }
            Some(number) => numbers
                .extend(range(number).ok_or_else(|| format!("`{name}`: `{number}` is not a device number"))?.map(Some)),
            None => numbers.push(None),
        }
    }
    let kind = kind.unwrap_or(LOCAL[0]);
    // The CPU may be named twice: what happens on several devices can be tried out on one machine.
    if matches!(kind, "wgpu" | "cuda")
        && let Some((_, number)) = numbers.iter().enumerate().find(|(at, number)| numbers[..*at].contains(number))
    {
        let twice = number.map_or_else(|| kind.to_owned(), |number| format!("{kind}:{number}"));
        return Err(format!("`{name}`: {twice} is named twice"));
    }
    Ok((kind, numbers))
}

/// Returns the kind of device that a name stands for: its own, in whatever case, or the one that torch and people have for it.
fn kind_named(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let first_compiled = |kinds: [&'static str; 2]| {
        let compiled = compiled();
        kinds.into_iter().find(|kind| compiled.contains(kind)).unwrap_or(kinds[0])
    };
    match name.as_str() {
        "cpu" => Some(first_compiled(["flex", "ndarray"])),
        "gpu" => Some(first_compiled(["cuda", "wgpu"])),
        "nvidia" => Some("cuda"),
        "mps" | "metal" | "vulkan" | "webgpu" | "directx" => Some("wgpu"),
        _ => LOCAL.into_iter().find(|known| *known == name),
    }
}

/// `3`, or `0-3` with both ends; no machine has as many devices as is refused here.
fn range(text: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last - first < 1024).then_some(first..=last)
}

/// Returns the failure of naming a device or command that this binary was built without.
pub fn not_compiled(feature: &str) -> Failure {
    Failure::usage(
        "--device",
        format!(
            "`{feature}` is not in this binary, which has {}: build it with `cargo build --release --features {feature}`",
            compiled().join(", ")
        ),
    )
}

/// One device of a known kind.
fn one(kind: &str, number: Option<usize>) -> Outcome<Device> {
    // Only GPUs are numbered.
    #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
    let _ = number;
    match kind {
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)]
        "ndarray" => Ok(Device::ndarray()),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(match number {
            // wgpu's own choice, which also finds software adapters.
            None => burn::tensor::DeviceKind::DefaultDevice,
            Some(number) => burn::tensor::DeviceKind::DiscreteGpu(number),
        })),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(number.unwrap_or(0))),
        absent => Err(not_compiled(absent)),
    }
}

/// Says that the first steps are slower than all others, unless this machine has tuned kernels before.
#[cfg(feature = "autotune")]
fn announce_tuning() {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

    // The configuration says where the file is.
    CubeClRuntimeConfig::get();
    let file = cubecl::environment::path();
    if !file.exists() {
        crate::progress::note(format!(
            "warm-up: the first steps measure which kernels are the fastest for each shape, and are slower; the results are kept in {}",
            file.display()
        ));
    }
}

/// Returns whether GPUs can reach each other without this machine's memory.
#[cfg(feature = "cuda")]
fn has_nccl() -> bool {
    cubecl::Device::cuda(0).is_ok_and(|device| device.client().has_device_transport())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_known() {
        for name in compiled() {
            // A GPU may be compiled in and not be there.
            if matches!(name, "flex" | "ndarray") {
                assert_eq!(Kind::of(open(Some(name)).unwrap().first()), Kind::Processor, "{name}");
                assert_eq!(open(Some(&format!("{name},{name}"))).unwrap().len(), 2);
            }
        }
    }

    #[test]
    fn a_cpu_does_not_keep_half_precision() {
        for name in compiled() {
            // Those that are there in any case.
            if matches!(name, "flex" | "ndarray") {
                assert!(!keeps_half_precision(open(Some(name)).unwrap().first()), "{name}");
            }
        }
    }

    #[test]
    fn a_gpu_keeps_half_precision_if_it_computes_in_it() {
        let (stored, general) = (DTypeUsage::Storage | DTypeUsage::Accelerated, DTypeUsage::general());
        let all = general | DTypeUsage::Accelerated;
        for (kind, of_none, of_stored, of_general, of_all) in [
            (Kind::Processor, false, false, false, false),
            (Kind::Graphics, false, false, true, true),
            (Kind::Cuda, false, false, true, true),
            // Without matrix units it may be a CPU.
            (Kind::Elsewhere, false, false, false, true),
        ] {
            let kept = [DTypeUsageSet::empty(), stored, general, all].map(|usage| keeps(kind, usage));
            assert_eq!(kept, [of_none, of_stored, of_general, of_all], "{kind:?}");
        }
    }

    #[test]
    fn a_device_of_autodiff_is_of_the_kind_of_the_device_that_computes() {
        for name in compiled() {
            if matches!(name, "flex" | "ndarray") {
                assert_eq!(Kind::of(&open(Some(name)).unwrap().first().clone().autodiff()), Kind::Processor, "{name}");
            }
        }
    }

    #[test]
    fn a_name_is_described_without_opening_it() {
        for (name, kind, count) in [
            ("flex,flex", Kind::Processor, 2),
            ("ndarray", Kind::Processor, 1),
            ("wgpu:1", Kind::Graphics, 1),
            ("cuda:0-7", Kind::Cuda, 8),
            ("remote:gpu1:3000", Kind::Elsewhere, 1),
            ("remote:gpu1:3000/0-3,remote:gpu2:3000", Kind::Elsewhere, 5),
        ] {
            assert_eq!(describe(Some(name)).unwrap(), (kind, count), "{name}");
        }
        for name in ["tpu", "cuda:x", "remote:nowhere"] {
            assert!(describe(Some(name)).is_err(), "{name}");
        }
        assert_eq!(describe(None).unwrap().0, Kind::of(open(None).unwrap().first()));
    }

    #[test]
    fn devices_are_named_one_by_one_or_by_a_range() {
        let of = |name: &str| parse(name).unwrap();
        assert_eq!(of("cuda"), ("cuda", vec![None]));
        assert_eq!(of("wgpu:1"), ("wgpu", vec![Some(1)]));
        let four = ("cuda", vec![Some(0), Some(1), Some(2), Some(5)]);
        for name in ["cuda:0,1,2,5", "cuda:0-2,5", "cuda:0,cuda:1-2,cuda:5"] {
            assert_eq!(of(name), four, "{name}");
        }
        assert_eq!(of("flex,flex"), ("flex", vec![None, None]));
    }

    #[test]
    fn other_names_for_a_device_are_known() {
        let kind = |name| parse(name).map(|(kind, _)| kind);
        assert!(["flex", "ndarray"].contains(&kind("cpu").unwrap()));
        assert!(["cuda", "wgpu"].contains(&kind("GPU").unwrap()));
        assert_eq!(kind("mps").unwrap(), "wgpu");
        assert_eq!(parse("CUDA:1,2").unwrap(), ("cuda", vec![Some(1), Some(2)]));
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said() {
        for (name, said) in [
            ("tpu", "`tpu` is not a device"),
            ("", "`` is not a device"),
            ("0,1", "`0` is not a device"),
            ("cuda:x", "`x` is not a device number"),
            ("cuda:", "`` is not a device number"),
            ("cuda:3-1", "`3-1` is not a device number"),
            ("cuda:0-9999999999", "`0-9999999999` is not a device number"),
            ("cuda:0,", "`` is not a device"),
            ("flex:1", "flex is the CPU and takes no device number"),
            ("flex,1", "flex is the CPU and takes no device number"),
            ("cuda:0,wgpu:1", "the devices of a run are of one kind"),
            ("cuda:0-2,1", "cuda:1 is named twice"),
            ("wgpu,wgpu", "wgpu is named twice"),
        ] {
            let error = parse(name).unwrap_err();
            assert!(error.contains(said), "{name}: {error}");
        }
    }
}

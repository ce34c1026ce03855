//! Each kernel on the default device against the composition there and against its formula in f64.

mod attention;
mod nf4;
mod optimizer;
mod rows;

use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::tensor::{Device, DeviceKind, FloatDType, TensorData};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend as Cube, CubeDevice};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::choice::{DISABLED_KERNELS, Kernel, Needs};
use super::launch::{needs_nothing, needs_sums};
use crate::backend::Kernels;
use crate::count_launches;

/// The distance from the formula in f64, as a part of the largest number, or of a gradient's norm.
const TOLERANCE: f64 = 1e-5;

/// Numbers in [-1, 1).
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn tensor<const D: usize>(x: &[f32], shape: [usize; D]) -> CubeTensor {
    Cube::float_from_data(TensorData::new(x.to_vec(), shape), &CubeDevice::default())
}

fn indices(x: &[i32]) -> CubeTensor {
    Cube::int_from_data(TensorData::new(x.to_vec(), [x.len()]), &CubeDevice::default())
}

fn values(x: CubeTensor) -> Vec<f64> {
    burn::tensor::read_sync(Cube::float_into_data(x)).unwrap().iter::<f64>().collect()
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// Compares a kernel's result with that of the composition and with the formula, element by element.
#[track_caller]
fn assert_result(what: &str, kernel: CubeTensor, composed: CubeTensor, exact: &[f64]) {
    let (found, composed) = (values(kernel), values(composed));
    assert_eq!(found.len(), exact.len(), "{what}");
    let size = exact.iter().fold(1.0f64, |size, x| size.max(x.abs()));
    for (i, ((found, composed), exact)) in found.iter().zip(&composed).zip(exact).enumerate() {
        assert!((found - exact).abs() <= TOLERANCE * size, "{what}[{i}]: {found} against {exact}");
        assert!((found - composed).abs() <= 2.0 * TOLERANCE * size, "{what}[{i}]: {found}, composed {composed}");
    }
}

/// Compares a gradient with that of the composition and with the formula, by the norm of the difference.
#[track_caller]
fn assert_gradient(what: &str, kernel: CubeTensor, composed: CubeTensor, exact: &[f64]) {
    let (found, composed) = (values(kernel), values(composed));
    assert_eq!(found.len(), exact.len(), "{what}");
    let size = norm(exact.iter().copied());
    let distance = |a: &[f64], b: &[f64]| norm(a.iter().zip(b).map(|(a, b)| a - b)) / size;
    let from_formula = distance(&found, exact);
    assert!(from_formula <= TOLERANCE, "{what}: {from_formula:e} of its norm from the formula");
    let from_composition = distance(&found, &composed);
    assert!(from_composition <= 2.0 * TOLERANCE, "{what}: {from_composition:e} of its norm from the composition");
}

fn half(x: CubeTensor) -> CubeTensor {
    Cube::float_cast(x, FloatDType::F16)
}

#[test]
fn the_device_has_what_kernels_need() {
    let client = CubeDevice::default().client();
    assert!(Kernel::RmsNorm.is_used(&client, needs_sums(5), None));
    assert!(Kernel::Attention.is_used(&client, super::attention::NEEDS, None));
}

#[test]
fn what_a_device_lacks_is_named() {
    let client = CubeDevice::default().client();
    let needs = Needs { units: 1, shared: 1 << 40, buffers: 1 };
    let reason = Kernel::SwiGlu.obstacle(&client, needs).unwrap();
    assert!(reason.starts_with("it needs 1099511627776 bytes of shared memory, and this device has "), "{reason}");
    assert!(Kernel::SwiGlu.obstacle(&client, Needs { units: 1 << 20, shared: 0, buffers: 1 }).is_some());
    assert!(Kernel::SwiGlu.obstacle(&client, Needs { units: 1, shared: 0, buffers: 1 << 40 }).is_some());
}

#[test]
fn a_kernel_is_not_used_for_what_it_does_not_take() {
    let client = CubeDevice::default().client();
    assert!(!Kernel::SwiGlu.is_used(&client, needs_nothing(3), Some("it does not take f64".into())));
    // It takes other inputs as before.
    assert!(Kernel::SwiGlu.is_used(&client, needs_nothing(3), None));
}

/// Does its work in a process of its own, which the next test starts: what is disabled is read once.
#[test]
fn in_a_process_with_disabled_kernels() {
    if std::env::var_os(DISABLED_KERNELS).is_none() {
        return;
    }
    let own = |work: &dyn Fn()| {
        let launches = count_launches(&Device::wgpu(DeviceKind::DefaultDevice), work);
        assert!(!launches.is_empty());
        launches.keys().any(|kernel| kernel.contains("setpoint_ops::cube"))
    };
    let x = || tensor(&numbers(1, 64), [4, 16]);
    assert!(!own(&|| drop(Cube::swiglu_forward(x(), x()))));
    assert!(own(&|| drop(Cube::rms_norm_forward(x(), tensor(&[1.0; 16], [16]), 1e-5))));
}

#[test]
fn kernels_that_the_user_names_are_not_launched() {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "cube::tests::in_a_process_with_disabled_kernels"]).env(DISABLED_KERNELS, "swiglu");
    let done = child.output().unwrap();
    let said = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

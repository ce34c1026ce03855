//! The devices under test, and the way numbers get on and off them.

use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};

/// A device with a graph and a float dtype that it computes in.
pub struct Platform {
    pub name: &'static str,
    pub device: Device,
    pub dtype: DType,
    /// The distance from 1 to the next number.
    pub epsilon: f64,
}

/// Every compiled device on the CPU.
fn processors() -> Vec<(&'static str, Device)> {
    #[expect(deprecated, reason = "the second opinion, as long as Burn has it")]
    let ndarray = Device::ndarray();
    vec![("flex", Device::flex().autodiff()), ("ndarray", ndarray.autodiff())]
}

/// How often a test gets wgpu.
const TIMES: usize = 24;

/// wgpu, which computes in f32, for the first so many times that a test asks (tests have threads of their own): an operation there takes some
/// thousand times as long, most of it for starting it.
#[cfg(feature = "test-wgpu")]
fn graphics(times: usize) -> Option<(&'static str, Device)> {
    thread_local!(static ASKED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });
    ASKED.set(ASKED.get() + 1);
    let device = || Device::wgpu(burn::tensor::DeviceKind::DefaultDevice).autodiff();
    (ASKED.get() <= times).then(|| ("wgpu", device()))
}

#[cfg(not(feature = "test-wgpu"))]
fn graphics(_times: usize) -> Option<(&'static str, Device)> {
    None
}

/// Every compiled device in f32.
pub fn single() -> Vec<Platform> {
    single_for(TIMES)
}

fn single_for(times: usize) -> Vec<Platform> {
    of(processors().into_iter().chain(graphics(times)).collect(), DType::F32, f64::from(f32::EPSILON))
}

/// Every compiled device that computes in f64, where identities hold to many digits.
pub fn double() -> Vec<Platform> {
    of(processors(), DType::F64, f64::EPSILON)
}

/// Every compiled device in every dtype.
pub fn all() -> Vec<Platform> {
    all_for(TIMES)
}

/// Returns the same platforms, with wgpu only the first `times` times: for properties that try many objectives each time.
pub fn all_for(times: usize) -> Vec<Platform> {
    let mut all = single_for(times);
    all.extend(double());
    all
}

/// Every compiled device on the CPU in every dtype, for properties that many numbers are tried on.
pub fn on_processors() -> Vec<Platform> {
    let mut all = of(processors(), DType::F32, f64::from(f32::EPSILON));
    all.extend(double());
    all
}

fn of(devices: Vec<(&'static str, Device)>, dtype: DType, epsilon: f64) -> Vec<Platform> {
    let capable = devices.into_iter().filter(|(_, device)| device.supports_dtype(dtype));
    let platforms: Vec<Platform> = capable.map(|(name, device)| Platform { name, device, dtype, epsilon }).collect();
    assert!(!platforms.is_empty(), "no device computes in {dtype:?}");
    platforms
}

impl Platform {
    /// Host numbers as a constant.
    pub fn constant(&self, values: &[f64]) -> Tensor<1> {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        Tensor::from_data(data, (&self.device, self.dtype))
    }

    /// Host numbers as a leaf whose gradient is kept.
    pub fn leaf(&self, values: &[f64]) -> Tensor<1> {
        self.constant(values).require_grad()
    }

    /// Returns the error that rounding may cause in a result of a dozen operations on numbers up to `magnitude`.
    pub fn rounding(&self, magnitude: f64) -> f64 {
        12.0 * self.epsilon * magnitude
    }

    /// Asserts that every number is within `tolerance` of the expected one.
    pub fn assert_close(&self, what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len(), "{what} on {self:?}");
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= tolerance,
                "{what}[{i}] on {self:?}: found {found}, expected {expected}, tolerance {tolerance:e}"
            );
        }
    }
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.name, self.dtype)
    }
}

/// A tensor's numbers on the host.
pub fn host(tensor: &Tensor<1>) -> Vec<f64> {
    tensor.try_to_vec_as::<f64>().expect("a tensor can be read")
}

/// A leaf's gradient on the host; zeros where none reached it.
pub fn gradient(leaf: &Tensor<1>, gradients: &Gradients) -> Vec<f64> {
    leaf.grad(gradients).map_or_else(|| vec![0.0; leaf.dims()[0]], |gradient| host(&gradient))
}

/// The largest magnitude.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

/// A number that f32 holds exactly, so that every platform starts from the same input.
pub fn exact(value: f64) -> f64 {
    f64::from(value as f32)
}

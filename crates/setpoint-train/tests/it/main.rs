//! Tests of the engine through its public interface, on every CPU backend.

#[path = "../common/mod.rs"]
mod common;

#[path = "../common/seeded.rs"]
mod seeded;

mod accumulation;
mod best;
#[cfg(feature = "test-wgpu")]
mod budget;
mod closing;
mod crash;
mod divergence;
mod dropout;
mod eight_bit;
mod engine;
mod fitting;
mod golden;
mod half_precision;
mod logps;
mod longrope;
mod lora;
mod memory;
mod only_model;
#[path = "../../../setpoint-transformer/tests/oracle.rs"]
mod oracle;
mod rounds;
mod several_devices;
mod sharded;
#[path = "../../../../tests/common/test_data.rs"]
mod test_data;

use burn::tensor::Device;

/// The devices that training runs on here.
fn devices() -> [Device; 2] {
    [Device::flex().autodiff(), ndarray()]
}

/// A GPU, or Mesa's imitation of one, in the build of the root package's feature `wgpu`.
#[cfg(feature = "test-wgpu")]
fn graphics() -> Option<Device> {
    Some(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice).autodiff())
}

#[cfg(not(feature = "test-wgpu"))]
fn graphics() -> Option<Device> {
    None
}

#[allow(deprecated, reason = "the second opinion on the CPU; burn 0.23 drops it")]
fn ndarray() -> Device {
    Device::ndarray().autodiff()
}

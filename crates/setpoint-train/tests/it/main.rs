//! Tests of the engine through its public interface, on every CPU backend.

#[path = "../common/mod.rs"]
mod common;

mod accumulation;
mod crash;
mod engine;
mod fitting;
mod golden;
mod logps;
mod several_devices;

use burn::tensor::Device;

/// The devices that training runs on here.
fn devices() -> [Device; 2] {
    [Device::flex().autodiff(), ndarray()]
}

#[allow(deprecated, reason = "the second opinion on the CPU; burn 0.23 drops it")]
fn ndarray() -> Device {
    Device::ndarray().autodiff()
}

//! Which kernels are used: those that nobody has disabled, on devices that have what they need.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use burn_cubecl::cubecl::client::Client;

/// The environment variable that names kernels for GPUs which Burn's operations replace, for comparison.
pub const DISABLED_KERNELS: &str = "SETPOINT_DISABLED_KERNELS";

/// The name that stands for all kernels.
const ALL: &str = "all";

/// A kernel, or several that belong together, as users name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    AdamW,
    Attention,
    CachedAttention,
    Dropout,
    Embedding,
    Nf4,
    Nf4Product,
    RmsNorm,
    Rotate,
    SumOfSquares,
    SwiGlu,
    TokenScores,
}

/// The least that a device must have for a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Units of a cube.
    pub(super) units: usize,
    /// Bytes that the units of a cube share.
    pub(super) shared: usize,
    /// Buffers, besides the one with sizes and numbers.
    pub(super) buffers: usize,
}

impl Kernel {
    const EVERY: [Self; 12] = [
        Self::AdamW,
        Self::Attention,
        Self::CachedAttention,
        Self::Dropout,
        Self::Embedding,
        Self::Nf4,
        Self::Nf4Product,
        Self::RmsNorm,
        Self::Rotate,
        Self::SumOfSquares,
        Self::SwiGlu,
        Self::TokenScores,
    ];

    /// Returns the name by which users disable the kernel.
    const fn name(self) -> &'static str {
        match self {
            Self::AdamW => "adamw",
            Self::Attention => "attention",
            Self::CachedAttention => "cached-attention",
            Self::Dropout => "dropout",
            Self::Embedding => "embedding",
            Self::Nf4 => "nf4",
            Self::Nf4Product => "nf4-product",
            Self::RmsNorm => "rms-norm",
            Self::Rotate => "rotate",
            Self::SumOfSquares => "sum-of-squares",
            Self::SwiGlu => "swiglu",
            Self::TokenScores => "token-scores",
        }
    }

    /// Returns the kernel's place in a set.
    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Returns whether the kernel is used on a device for inputs that it cannot take for the reason `problem`, if there is one. The first time
    /// that it is not used, the reason is logged.
    pub(super) fn is_used(self, client: &Client, needs: Needs, problem: Option<String>) -> bool {
        let Some(reason) = self.obstacle(client, needs).or(problem) else { return true };
        static SAID: AtomicU32 = AtomicU32::new(0);
        if SAID.fetch_or(self.bit(), Ordering::Relaxed) & self.bit() == 0 {
            log::warn!("the kernel `{}` is replaced by Burn's operations: {reason}", self.name());
        }
        false
    }

    /// Returns why the kernel is not used, if so.
    pub(super) fn obstacle(self, client: &Client, needs: Needs) -> Option<String> {
        if disabled() & self.bit() != 0 {
            return Some(format!("{DISABLED_KERNELS} names it"));
        }
        let hardware = &client.properties().hardware;
        let Needs { units, shared, buffers } = needs;
        let lacks = |what: &str, needed: usize, found: usize| {
            (found < needed).then(|| format!("it needs {needed} {what}, and this device has {found}"))
        };
        lacks("units in a cube", units, hardware.max_units_per_cube as usize)
            .or_else(|| lacks("units along the first axis", units, hardware.max_cube_dim.0 as usize))
            .or_else(|| lacks("bytes of shared memory", shared, hardware.max_shared_memory_size))
            .or_else(|| lacks("buffers", buffers + 1, hardware.max_bindings as usize))
    }
}

/// Returns the set of disabled kernels.
fn disabled() -> u32 {
    static SET: OnceLock<u32> = OnceLock::new();
    *SET.get_or_init(|| {
        from_environment().unwrap_or_else(|error| {
            log::warn!("{DISABLED_KERNELS}: {error}");
            0
        })
    })
}

fn from_environment() -> Result<u32, String> {
    parse(&std::env::var_os(DISABLED_KERNELS).unwrap_or_default().to_string_lossy())
}

/// Reads names that commas separate.
fn parse(text: &str) -> Result<u32, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.into_iter().try_fold(0, |set, name| {
        if name == ALL {
            return Ok(Kernel::EVERY.iter().fold(set, |set, kernel| set | kernel.bit()));
        }
        match Kernel::EVERY.iter().find(|kernel| kernel.name() == name) {
            Some(kernel) => Ok(set | kernel.bit()),
            None => {
                let known = Kernel::EVERY.map(Kernel::name).join(", ");
                Err(format!("`{name}` is not a kernel: expected {known} or {ALL}"))
            }
        }
    })
}

/// Checks the names in [`DISABLED_KERNELS`].
///
/// # Errors
/// One sentence if a name is not a kernel's.
pub fn check_disabled_kernels() -> Result<(), String> {
    from_environment().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!(parse(""), Ok(0));
        assert_eq!(parse("attention, adamw,"), Ok(Kernel::Attention.bit() | Kernel::AdamW.bit()));
        let all = parse("all").unwrap();
        assert!(Kernel::EVERY.iter().all(|kernel| parse(kernel.name()) == Ok(kernel.bit()) && all & kernel.bit() != 0));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = parse("attention,softmax").unwrap_err();
        assert!(error.starts_with("`softmax` is not a kernel: expected adamw, att"), "{error}");
    }
}

//! The file of an optimizer's state, which holds one optimizer however many devices divide it among them.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, TensorData};

use crate::Error;
use crate::storage::Digest;
use crate::tensor_file::{TensorSpec, TensorWriter};

/// The state of a whole optimizer, wherever its parts are.
pub(crate) trait OptimizerState {
    /// Returns the tensors of each parameter that has been moved, by the path of the parameter.
    ///
    /// # Errors
    /// When a device does not answer.
    fn tensors(&self) -> Result<BTreeMap<String, Vec<TensorSpec>>, Error>;

    /// Reads one of them from its device; `None` if there is no such tensor.
    ///
    /// # Errors
    /// When a device does not answer.
    fn read(&self, path: &str, tensor: &str) -> Result<Option<TensorData>, Error>;
}

/// Writes the state, one tensor at a time.
pub(crate) fn save(state: &dyn OptimizerState, path: &Path) -> Result<Digest, Error> {
    let tensors = state.tensors()?;
    let all = || tensors.iter().flat_map(|(path, specs)| specs.iter().map(move |spec| (path, spec)));
    // Larger elements first keep every tensor aligned.
    let of_type = |dtype: DType| all().filter(move |(_, spec)| spec.dtype == dtype);
    let ordered: Vec<(&String, &TensorSpec)> =
        [DType::I64, DType::F32, DType::U8].into_iter().flat_map(of_type).collect();
    let mut writer = TensorWriter::create(path, ordered.iter().map(|(_, spec)| (*spec).clone()).collect())?;
    for (parameter, spec) in ordered {
        let data = state.read(parameter, &spec.name)?;
        let data = data.ok_or_else(|| Error::corrupt(path, format!("the optimizer has no `{}`", spec.name)))?;
        writer.write(&spec.name, &data)?;
    }
    writer.finish()
}

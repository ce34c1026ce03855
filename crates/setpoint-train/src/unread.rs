//! Values that follow from numbers on a device, so that the numbers of many passes are read at once.

use std::fmt;

use burn::tensor::{DType, FloatDType, Tensor};

/// A value that follows from small tensors, whose numbers are still on their device.
///
/// A read waits for all that a device has been asked to do, and over a network for the network. So a forward pass reads nothing, and the
/// engine reads once when all micro-batches of a step have been asked for.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use setpoint_train::Unread;
///
/// let numbers = |values: [f32; 2]| Unread::of(Tensor::<1>::from_floats(values, &Device::flex()));
/// let largest = numbers([1.0, 3.0]).map(|values| values.into_iter().fold(0.0, f64::max));
/// let both = largest.and(numbers([0.5, 0.25]));
/// assert_eq!(both.read(), (3.0, vec![0.5, 0.25]));
/// ```
pub struct Unread<T> {
    /// On plain devices.
    tensors: Vec<Tensor<1>>,
    /// Makes the value of the tensors' numbers, a vector for each.
    finish: Box<dyn FnOnce(Vec<Vec<f64>>) -> T>,
}

impl Unread<Vec<f64>> {
    /// Returns the numbers of a tensor, whose graph does not matter.
    pub fn of(tensor: Tensor<1>) -> Self {
        Self::new(vec![tensor], |mut numbers| numbers.pop().unwrap_or_default())
    }
}

impl<T: 'static> Unread<T> {
    /// Creates a value of tensors, whose graph does not matter. `finish` is given the numbers of each.
    pub fn new(tensors: Vec<Tensor<1>>, finish: impl FnOnce(Vec<Vec<f64>>) -> T + 'static) -> Self {
        Self { tensors: tensors.into_iter().map(Tensor::inner).collect(), finish: Box::new(finish) }
    }

    /// Creates a value that is known already.
    pub fn known(value: T) -> Self {
        Self::new(vec![], |_| value)
    }

    /// Makes another value of this one.
    #[must_use]
    pub fn map<U>(self, of: impl FnOnce(T) -> U + 'static) -> Unread<U> {
        let Self { tensors, finish } = self;
        Unread { tensors, finish: Box::new(move |numbers| of(finish(numbers))) }
    }

    /// Joins two values, to be read together.
    #[must_use]
    pub fn and<U: 'static>(self, other: Unread<U>) -> Unread<(T, U)> {
        let (Self { mut tensors, finish }, own) = (self, other.tensors);
        let first = tensors.len();
        tensors.extend(own);
        let finish = move |mut numbers: Vec<Vec<f64>>| {
            let rest = numbers.split_off(first);
            (finish(numbers), (other.finish)(rest))
        };
        Unread { tensors, finish: Box::new(finish) }
    }

    /// Joins any number of values, to be read together.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Unread<Vec<T>> {
        let (mut tensors, mut rest) = (vec![], vec![]);
        for Self { tensors: own, finish } in parts {
            rest.push((own.len(), finish));
            tensors.extend(own);
        }
        let finish = move |numbers: Vec<Vec<f64>>| -> Vec<T> {
            let mut numbers = numbers.into_iter();
            rest.into_iter().map(|(count, finish)| finish(numbers.by_ref().take(count).collect())).collect()
        };
        Unread { tensors, finish: Box::new(finish) }
    }

    /// Reads the numbers, those of one device at once, and returns the value.
    ///
    /// # Panics
    /// If the device fails.
    pub fn read(self) -> T {
        let lengths: Vec<usize> = self.tensors.iter().map(|tensor| tensor.dims()[0]).collect();
        let mut numbers = read(self.tensors).into_iter();
        (self.finish)(lengths.into_iter().map(|length| numbers.by_ref().take(length).collect()).collect())
    }
}

impl<T> fmt::Debug for Unread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").field("tensors", &self.tensors).finish_non_exhaustive()
    }
}

/// Reads tensors, one after another.
fn read(tensors: Vec<Tensor<1>>) -> Vec<f64> {
    let values = |tensor: Tensor<1>| -> Vec<f64> { tensor.into_data().iter::<f64>().collect() };
    // Those of a model spread over several devices are read one by one.
    let together = tensors.iter().all(|tensor| tensor.device() == tensors[0].device());
    match together && tensors.len() > 1 {
        true => values(Tensor::cat(tensors.into_iter().map(as_f32).collect(), 0)),
        false => tensors.into_iter().flat_map(values).collect(),
    }
}

/// Returns numbers that others can be put behind: scores of a bf16 model are bf16, log-probabilities f32.
fn as_f32(tensor: Tensor<1>) -> Tensor<1> {
    if tensor.dtype() == DType::F32 { tensor } else { tensor.cast(FloatDType::F32) }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn numbers(values: &[f32]) -> Tensor<1> {
        Tensor::from_data(values, &Device::flex())
    }

    #[test]
    fn each_value_has_the_numbers_of_its_own_tensors() {
        let sum = |values: &[f32]| Unread::of(numbers(values)).map(|values| values.iter().sum::<f64>());
        let pair = Unread::new(vec![numbers(&[1.0]), numbers(&[2.0, 4.0])], |all| all);
        let parts = Unread::all([sum(&[8.0, 16.0]), Unread::known(0.5), sum(&[32.0])]);
        let nothing = Unread::all(Vec::<Unread<u8>>::new());
        let read = pair.and(parts).and(nothing).and(Unread::of(numbers(&[64.0]))).read();
        assert_eq!(read, (((vec![vec![1.0], vec![2.0, 4.0]], vec![24.0, 0.5, 32.0]), vec![]), vec![64.0]));
        assert_eq!(Unread::known(3).read(), 3);
    }

    #[test]
    fn numbers_of_any_format_and_with_a_graph_are_read_together() {
        let leaf = numbers(&[0.1]).autodiff().require_grad();
        let half = numbers(&[1.5]).cast(FloatDType::BF16);
        let read = Unread::of(leaf * 2.0).and(Unread::of(half)).read();
        assert_eq!(read, (vec![f64::from(0.2f32)], vec![1.5]));
    }
}

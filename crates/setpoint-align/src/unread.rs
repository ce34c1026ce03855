//! Values that follow from numbers on a device, for a caller that reads those of many at once.

use std::fmt;

use burn::tensor::Tensor;

/// A value that follows from small tensors, whose numbers are still on their device.
///
/// A read waits for all that a device has been asked to do. So objectives read nothing: a training loop reads the tensors of a whole step
/// together, and [`read`](Self::read) those of one value.
pub struct Unread<T> {
    /// The tensors, without a graph.
    pub tensors: Vec<Tensor<1>>,
    /// Makes the value of the tensors' numbers, a vector for each.
    pub finish: Box<dyn FnOnce(Vec<Vec<f64>>) -> T>,
}

impl<T> Unread<T> {
    /// Creates a value of tensors, whose graph does not matter.
    pub(crate) fn new<const N: usize>(
        tensors: [&Tensor<1>; N],
        finish: impl FnOnce([Vec<f64>; N]) -> T + 'static,
    ) -> Self {
        let finish = move |numbers: Vec<Vec<f64>>| {
            finish(numbers.try_into().unwrap_or_else(|_| panic!("expected the numbers of {N} tensors")))
        };
        Self { tensors: tensors.map(|tensor| tensor.clone().inner()).into(), finish: Box::new(finish) }
    }

    /// Makes another value of this one.
    pub(crate) fn map<U>(self, of: impl FnOnce(T) -> U + 'static) -> Unread<U>
    where
        T: 'static,
    {
        let finish = self.finish;
        Unread { tensors: self.tensors, finish: Box::new(move |numbers| of(finish(numbers))) }
    }

    /// Reads the tensors and returns the value.
    ///
    /// # Panics
    /// If the device fails.
    pub fn read(self) -> T {
        let numbers = |tensor: Tensor<1>| tensor.into_data().iter::<f64>().collect();
        (self.finish)(self.tensors.into_iter().map(numbers).collect())
    }
}

impl<T> fmt::Debug for Unread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").field("tensors", &self.tensors).finish_non_exhaustive()
    }
}

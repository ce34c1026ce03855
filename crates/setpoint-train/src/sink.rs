//! The way of gradients: accumulate → all-reduce → norm → clip → step.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, FloatDType, Gradients, Int, Tensor};
use setpoint_ops::{add_rows, sum_of_squares};
use setpoint_transformer::checkpoint::ParamPath;

use crate::Unread;

/// Gradients on their way from backward passes to the optimizer, keyed by parameter path.
///
/// They are summed in f32 whatever the parameters' dtype, so that many small micro-batches do not
/// lose what a large one would keep. A backward pass may hand over the whole model's gradients at
/// once or those of one block after another.
///
/// # Shapes
/// Each gradient is kept flat, `[parameters]`, beside its shape: a step needs no rank.
#[derive(Debug, Default)]
pub struct GradientSink {
    gradients: BTreeMap<String, Gradient>,
}

#[derive(Debug)]
struct Gradient {
    /// f32, on the plain device.
    flat: Tensor<1>,
    /// Length of the last dimension, for summing rows before the sum of rows.
    row: usize,
}

/// The gradients of a sink by path: what several devices have to know of each other before they add up.
pub(crate) type GradientShapes = BTreeMap<String, GradientShape>;

/// The lengths of a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GradientShape {
    parameters: usize,
    row: usize,
}

impl GradientSink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the gradients of `module`'s trainable parameters, taking them out of `gradients`.
    ///
    /// `prefix` is the module's path in the model, empty for the model itself.
    pub fn accept<M: Module>(&mut self, prefix: &str, module: &M, gradients: &mut Gradients) {
        let mut visitor = Accept { path: ParamPath::below(prefix), gradients, sink: self };
        module.visit(&mut visitor);
    }

    /// Adds to some rows of the gradient of a table of `height` rows: what a pass over a few tokens says of their embeddings. A row may
    /// occur more than once.
    ///
    /// # Shapes
    /// `ids [t]`, `rows [t, d]`, on the plain device.
    pub(crate) fn accept_rows(&mut self, path: &str, height: usize, ids: Tensor<1, Int>, rows: Tensor<2>) {
        let width = rows.dims()[1];
        let table: Tensor<2> = match self.gradients.remove(path) {
            // [n] -> [height, d]
            Some(earlier) => earlier.flat.reshape([height, width]),
            // On flex `zeros` would make it twice.
            None => Tensor::full([height, width], 0.0, (&rows.device(), DType::F32)),
        };
        let sum = add_rows(table, ids, rows.cast(FloatDType::F32));
        // [height, d] -> [n]
        let gradient = Gradient { flat: sum.reshape([height * width]), row: width };
        self.gradients.insert(path.to_owned(), gradient);
    }

    /// The paths of the parameters that have a gradient.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.gradients.keys().map(String::as_str)
    }

    /// A parameter's gradient so far, flat.
    pub fn gradient(&self, path: &str) -> Option<&Tensor<1>> {
        self.gradients.get(path).map(|gradient| &gradient.flat)
    }

    /// Global 2-norm over all gradients, `√(Σ g²)`, as `torch.nn.utils.get_total_norm`.
    ///
    /// Squares are summed on the device in a fixed order, so that a repeated run gives the same bits; the sum over tensors is taken in f64 on the host. One read for the whole model.
    pub fn norm(&self) -> f64 {
        norm_of(&self.squares().read())
    }

    /// Returns the sum of squares of each gradient.
    pub(crate) fn squares(&self) -> Unread<Squares> {
        unread_squares(self.device_squares())
    }

    /// The sum of squares of each gradient, still on its device.
    ///
    /// # Shapes
    /// `[1]` each.
    pub(crate) fn device_squares(&self) -> Vec<(String, Tensor<1>)> {
        let square = |gradient: &Gradient| sum_of_squares(gradient.flat.clone(), gradient.row);
        self.gradients.iter().map(|(path, gradient)| (path.clone(), square(gradient))).collect()
    }

    /// Returns the shapes of the gradients that have arrived.
    pub(crate) fn shapes(&self) -> GradientShapes {
        let shape = |gradient: &Gradient| GradientShape { parameters: gradient.flat.dims()[0], row: gradient.row };
        self.gradients.iter().map(|(path, gradient)| (path.clone(), shape(gradient))).collect()
    }

    /// The gradients of some parameters, in their order; zeros on `device` for one that has none here.
    pub(crate) fn into_parts(mut self, shapes: &GradientShapes, device: &Device) -> Vec<Tensor<1>> {
        let zeros = |shape: &GradientShape| Tensor::zeros([shape.parameters], (device, DType::F32));
        shapes.iter().map(|(path, shape)| self.take(path).unwrap_or_else(|| zeros(shape))).collect()
    }

    /// A sink of these gradients, in the order of their parameters.
    pub(crate) fn of_parts(shapes: GradientShapes, parts: Vec<Tensor<1>>) -> Self {
        let of_part =
            |((path, shape), flat): ((String, GradientShape), Tensor<1>)| (path, Gradient { flat, row: shape.row });
        Self { gradients: shapes.into_iter().zip(parts).map(of_part).collect() }
    }

    /// Takes all gradients out but that of `path`.
    pub(crate) fn take_all_but(&mut self, path: &str) -> Self {
        let kept = self.gradients.remove_entry(path).into_iter().collect();
        Self { gradients: std::mem::replace(&mut self.gradients, kept) }
    }

    /// Number of parameters with a gradient.
    pub fn len(&self) -> usize {
        self.gradients.len()
    }

    /// Returns whether no gradient has arrived.
    pub fn is_empty(&self) -> bool {
        self.gradients.is_empty()
    }

    /// Takes a parameter's gradient out, flat and in f32.
    pub(crate) fn take(&mut self, path: &str) -> Option<Tensor<1>> {
        Some(self.gradients.remove(path)?.flat)
    }

    /// A path that no parameter has asked for.
    pub(crate) fn left_over(&self) -> Option<&str> {
        self.gradients.keys().next().map(String::as_str)
    }
}

/// Sums of squares by the path of the parameter.
pub(crate) type Squares = BTreeMap<String, f64>;

/// Returns sums of squares that are on their devices, `[1]` each.
pub(crate) fn unread_squares(squares: Vec<(String, Tensor<1>)>) -> Unread<Squares> {
    let (paths, squares): (Vec<String>, Vec<Tensor<1>>) = squares.into_iter().unzip();
    Unread::new(squares, |values| {
        let mut sums = Squares::new();
        for (path, value) in paths.into_iter().zip(values.concat()) {
            *sums.entry(path).or_default() += value;
        }
        sums
    })
}

/// The square root of the sum of squares. It is added up in the order of the paths, so it does not depend on who has computed which.
pub(crate) fn norm_of(squares: &Squares) -> f64 {
    squares.values().fold(0.0, |sum, square| sum + square).sqrt()
}

struct Accept<'a> {
    path: ParamPath,
    gradients: &'a mut Gradients,
    sink: &'a mut GradientSink,
}

impl ModuleVisitor for Accept<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.base();
        if !tensor.is_require_grad() {
            return;
        }
        let Some(gradient) = tensor.grad_remove(self.gradients) else {
            return;
        };
        let dims = gradient.dims();
        // [..] -> [n]
        let flat: Tensor<1> = gradient.cast(FloatDType::F32).reshape([dims.iter().product::<usize>()]);
        let path = self.path.name();
        let sum = match self.sink.gradients.remove(&path) {
            Some(earlier) => earlier.flat + flat,
            None => flat,
        };
        let row = dims.last().copied().unwrap_or(1);
        self.sink.gradients.insert(path, Gradient { flat: sum, row });
    }
}

/// Factor that brings a gradient of norm `norm` down to `max_norm`:
/// `min(1, max_norm / (norm + 1e-6))`, as `torch.nn.utils.clip_grad_norm_`.
///
/// ```
/// use setpoint_train::clip_scale;
///
/// assert_eq!(clip_scale(0.5, 1.0), 1.0);
/// assert!((clip_scale(4.0, 1.0) - 0.25).abs() < 1e-6);
/// ```
pub fn clip_scale(norm: f64, max_norm: f64) -> f64 {
    (max_norm / (norm + 1e-6)).min(1.0)
}

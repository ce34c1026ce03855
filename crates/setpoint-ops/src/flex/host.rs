//! Tensors as slices, matrix products between them, and work shared out among threads.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::TensorMetadata;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};

pub(super) fn all_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|tensor| TensorMetadata::dtype(*tensor) == DType::F32)
}

/// The values of a tensor in row-major order; copied only where they lie otherwise.
pub(super) struct Values(FlexTensor);

impl Values {
    pub(super) fn of(tensor: FlexTensor) -> Self {
        Self(tensor.to_contiguous())
    }

    pub(super) fn f32(&self) -> &[f32] {
        &self.0.storage()[self.range()]
    }

    pub(super) fn u8(&self) -> &[u8] {
        &self.0.storage()[self.range()]
    }

    fn range(&self) -> Range<usize> {
        let start = self.0.layout().start_offset();
        start..start + self.0.layout().num_elements()
    }
}

/// The values of a tensor, to be changed in place where nobody else holds them.
pub(super) fn own(tensor: FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    let whole = layout.start_offset() == 0 && layout.num_elements() == tensor.storage::<f32>().len();
    if tensor.is_contiguous() && whole { tensor } else { tensor.to_contiguous() }
}

/// The values of an index tensor.
pub(super) fn indices(tensor: FlexTensor) -> Vec<usize> {
    tensor.into_data().iter::<i64>().map(|index| index as usize).collect()
}

/// A tensor of the given values.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(Shape::from(shape)), DType::F32)
}

/// Values that are all going to be written: memory is not cleared first.
pub(super) struct Fresh {
    /// Room for them; empty.
    values: Vec<f32>,
    len: usize,
}

impl Fresh {
    pub(super) fn new(len: usize) -> Self {
        Self { values: Vec::with_capacity(len), len }
    }

    /// Where to write them one by one.
    pub(super) fn slots(&mut self) -> &mut [MaybeUninit<f32>] {
        &mut self.values.spare_capacity_mut()[..self.len]
    }

    /// Where several threads write them, each in places of its own.
    pub(super) fn shared(&mut self) -> Shared<'_> {
        let slice = self.slots();
        Shared { start: slice.as_mut_ptr().cast(), len: slice.len(), slice: PhantomData }
    }

    /// # Safety
    /// All values must have been written.
    pub(super) unsafe fn tensor<const D: usize>(mut self, shape: [usize; D]) -> FlexTensor {
        assert_eq!(shape.iter().product::<usize>(), self.len, "as many values as there is room for");
        // SAFETY: written, by the caller's promise.
        unsafe { self.values.set_len(self.len) };
        tensor(self.values, shape)
    }
}

/// A matrix in a slice: element `(i, j)` at `i · stride + j`, or at `j · stride + i` if transposed.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// # Panics
    /// If the slice is too short.
    pub(super) fn new(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * stride + columns <= values.len(),
            "a matrix within its slice"
        );
        Self { values, rows, columns, row_stride: stride, column_stride: 1 }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// `count` columns from `start` on.
    pub(super) fn columns_from(self, start: usize, count: usize) -> Self {
        assert!(start + count <= self.columns, "columns of the matrix");
        Self { values: &self.values[start * self.column_stride..], columns: count, ..self }
    }

    /// `count` rows from `start` on.
    pub(super) fn rows_from(self, start: usize, count: usize) -> Self {
        self.transposed().columns_from(start, count).transposed()
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A slice that several threads write to, each in places of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: the only access is through `Shared::part`, `Shared::write` and `multiply_into`, whose callers promise not to overlap.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// # Safety
    /// The elements must have values. While the result lives nobody else may touch these elements.
    pub(super) unsafe fn part(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start + len <= self.len, "a part within the slice");
        // SAFETY: within the slice by the check, and not shared by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// Writes elements, which need not have had values.
    ///
    /// # Safety
    /// Nobody else may touch these elements meanwhile.
    #[inline(always)]
    pub(super) unsafe fn write<const N: usize>(self, start: usize, values: [f32; N]) {
        assert!(start + N <= self.len, "a part within the slice");
        // SAFETY: within the slice by the check, and not shared by the caller's promise.
        unsafe { self.start.add(start).cast::<[f32; N]>().write_unaligned(values) };
    }
}

/// Does `count` pieces of work, each on the thread that is free next, and answers their results in order: where the largest come first, no
/// thread waits for more than a small piece at the end. `start` makes what a thread needs for its pieces.
pub(super) fn share_out<S, T: Send + Sync>(
    count: usize,
    start: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let mut results: Vec<OnceLock<T>> = Vec::new();
    results.resize_with(count, OnceLock::new);
    rayon::scope(|scope| {
        for _ in 0..rayon::current_num_threads().min(count) {
            scope.spawn(|_| {
                let pieces = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                let mut state = None;
                for piece in pieces.take_while(|&piece| piece < count) {
                    results[piece].get_or_init(|| work(state.get_or_insert_with(&start), piece));
                }
            });
        }
    });
    // Every piece was somebody's.
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

/// On this thread: `to = a · b · scale`, or `to += a · b · scale` if `add`; `to` is a matrix of rows `stride` apart.
pub(super) fn multiply(to: &mut [f32], stride: usize, add: bool, a: Matrix<'_>, b: Matrix<'_>, scale: f32) {
    let to = Shared::new(to);
    // SAFETY: the slice is borrowed exclusively.
    unsafe { multiply_into(to, 0, stride, add, a, b, scale) }
}

/// [`multiply`] into the matrix that begins at `start` of a shared slice.
///
/// # Safety
/// Nobody else may touch the elements of that matrix meanwhile. If `add`, they must have values.
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn multiply_into(
    to: Shared<'_>,
    start: usize,
    stride: usize,
    add: bool,
    a: Matrix<'_>,
    b: Matrix<'_>,
    scale: f32,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    assert_eq!(k, b.rows, "factors that fit");
    assert!(stride >= n && start + (m - 1) * stride + n <= to.len, "a product within its slice");
    // SAFETY: `Matrix::new` and the checks above keep all three matrices within their slices, and the caller keeps the target to itself.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to.start.add(start),
            1,
            stride as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            // Products are parts of work that is shared out among the threads already.
            gemm::Parallelism::None,
        );
    }
}

//! Passes of generation: keys and values that stay in place from step to step, and what is needed of the logits.

use std::sync::Arc;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Int, Tensor};

use crate::composed;
use crate::heads::Heads;

/// Consecutive new tokens of a text whose earlier tokens have their keys and values in a slot of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The text's slot.
    pub slot: usize,
    /// Position of the first token in its text: the number of those before it.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
}

impl Span {
    /// Number of the text's tokens with the new ones.
    pub fn end(&self) -> usize {
        self.start + self.len
    }
}

/// The new tokens of a pass, one after the other without padding. Clones share their content.
///
/// ```
/// use setpoint_ops::{Span, Spans};
///
/// // A prompt of three tokens, and the next token of a text of seven.
/// let spans = Spans::new(vec![Span { slot: 0, start: 0, len: 3 }, Span { slot: 1, start: 7, len: 1 }]);
/// assert_eq!(spans.tokens(), 4);
/// assert_eq!(spans.positions(), [0, 1, 2, 7]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans {
    spans: Arc<[Span]>,
    tokens: usize,
}

impl Spans {
    /// The spans of a pass in the order of their tokens.
    ///
    /// # Panics
    /// If one is empty, or two are of one slot.
    pub fn new(spans: Vec<Span>) -> Self {
        assert!(spans.iter().all(|span| span.len > 0), "a span has at least one token");
        let mut slots: Vec<usize> = spans.iter().map(|span| span.slot).collect();
        slots.sort_unstable();
        assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "a slot has one span in a pass");
        Self { tokens: spans.iter().map(|span| span.len).sum(), spans: spans.into() }
    }

    /// The spans.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Number of new tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The position of each new token in its text.
    pub fn positions(&self) -> Vec<i32> {
        self.spans.iter().flat_map(|span| span.start..span.end()).map(|position| position as i32).collect()
    }

    /// Number of tokens of the longest text, with the new ones.
    pub fn longest(&self) -> usize {
        self.spans.iter().map(Span::end).max().unwrap_or(0)
    }
}

/// Passes of generation, without autodiff.
#[backend_extension(Flex: cfg(feature = "flex"), NdArray: cfg(feature = "ndarray"), Cube: cfg(feature = "cube"), Remote: cfg(feature = "remote"), Fusion: cfg(feature = "fusion"))]
pub trait GenerationOps: Backend {
    /// `[slots, g, capacity, n]`, `[t, g·n]` -> `[slots, g, capacity, n]`
    #[fusion(default)]
    fn cache_write(cache: FloatTensor<Self>, new: FloatTensor<Self>, spans: Spans) -> FloatTensor<Self> {
        composed::cache::write::<Self>(cache, new, &spans)
    }

    /// `[slots, g, capacity, n]` -> `[slots, g, capacity, n]`
    #[fusion(default)]
    fn cache_copy(cache: FloatTensor<Self>, from: usize, to: usize, len: usize) -> FloatTensor<Self> {
        composed::cache::copy::<Self>(cache, from, to, len)
    }

    /// `[t, h·n]`, `[slots, g, capacity, n]`, `[slots, g, capacity, n]` -> `[t, h·n]`
    #[fusion(dtype = q, shape = q)]
    fn cached_attention(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        heads: Heads,
        spans: Spans,
    ) -> FloatTensor<Self> {
        composed::cache::attention::<Self>(q, keys, values, heads, &spans)
    }

    /// `[b, v]` -> `[b]`, `[b, 2]`: the likeliest token; the highest logit and `log Σ e^(z − highest)`
    #[fusion(default)]
    fn likeliest(logits: FloatTensor<Self>) -> (IntTensor<Self>, FloatTensor<Self>) {
        composed::likeliest::<Self>(logits)
    }
}

#[cfg(feature = "ndarray")]
impl GenerationOps for burn::backend::NdArray {}

#[cfg(feature = "remote")]
impl GenerationOps for burn::backend::Remote {}

/// Writes the keys, or the values, of new tokens into a cache, in place where nobody else holds it and the backend can.
///
/// # Shapes
/// `cache [slots, g, capacity, n]`, `new [t, g·n]`, on one device without autodiff; the result is the cache.
///
/// # Panics
/// If the shapes do not agree with `spans`, or a span does not fit the capacity.
pub fn cache_write(cache: Tensor<4>, new: Tensor<2>, spans: &Spans) -> Tensor<4> {
    let [slots, g, capacity, n] = cache.dims();
    assert_eq!(new.dims(), [spans.tokens(), g * n], "the new tokens of {} spans", spans.spans().len());
    assert!(spans.longest() <= capacity, "{} tokens in a cache for {capacity}", spans.longest());
    assert!(spans.spans().iter().all(|span| span.slot < slots), "a span of one of the {slots} slots");
    let cache = <Dispatch as GenerationOps>::cache_write(cache.into_dispatch(), new.into_dispatch(), spans.clone());
    Tensor::from_dispatch(cache)
}

/// Copies the first `len` tokens of a slot to another: texts that begin alike have the same keys and values there.
///
/// # Shapes
/// `cache [slots, g, capacity, n]` on a device without autodiff; the result is the cache.
///
/// # Panics
/// If there are no such slots or tokens.
pub fn cache_copy(cache: Tensor<4>, from: usize, to: usize, len: usize) -> Tensor<4> {
    let [slots, _, capacity, _] = cache.dims();
    assert!(from < slots && to < slots, "slots {from} and {to} of {slots}");
    assert!(len <= capacity, "{len} tokens of a cache for {capacity}");
    if from == to || len == 0 {
        return cache;
    }
    Tensor::from_dispatch(<Dispatch as GenerationOps>::cache_copy(cache.into_dispatch(), from, to, len))
}

/// Causal attention of new tokens to their texts, whose keys and values are in a cache, those of the new tokens included (Vaswani et al.,
/// <https://arxiv.org/abs/1706.03762>, equation 1), as far as the window of `heads` reaches. The softmax is f32.
///
/// # Shapes
/// `q [t, h·n]`, `keys` and `values` `[slots, g, capacity, n]`, on one device without autodiff; the result is `[t, h·n]`.
///
/// # Panics
/// If the shapes do not agree with `heads` and `spans`, or a window is 0.
pub fn cached_attention(q: Tensor<2>, keys: Tensor<4>, values: Tensor<4>, heads: Heads, spans: &Spans) -> Tensor<2> {
    let [slots, g, capacity, n] = keys.dims();
    assert_eq!(q.dims(), [spans.tokens(), heads.query * heads.dim], "the queries of {heads:?}");
    assert_eq!([g, n], [heads.kv, heads.dim], "the cache of {heads:?}");
    assert_eq!(values.dims(), keys.dims(), "keys and values");
    assert_ne!(heads.window, Some(0), "a token sees itself");
    assert!(spans.longest() <= capacity, "{} tokens in a cache for {capacity}", spans.longest());
    assert!(spans.spans().iter().all(|span| span.slot < slots), "a span of one of the {slots} slots");
    Tensor::from_dispatch(<Dispatch as GenerationOps>::cached_attention(
        q.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        heads,
        spans.clone(),
    ))
}

/// The likeliest token, and the numbers that turn logits into log-probabilities: `log π(i) = z_i − highest − log_sum`.
#[derive(Clone, Debug)]
pub struct Likeliest {
    /// The token with the highest logit, `[b]`; the first of equals on CPUs.
    pub ids: Tensor<1, Int>,
    /// The highest logit and `log_sum = log Σ e^(z − highest)`, `[b, 2]`. Not both are finite where the logits are no distribution.
    pub norms: Tensor<2>,
}

/// The likeliest token of each row of logits.
///
/// # Shapes
/// f32 `[b, v]` on a device without autodiff.
pub fn likeliest(logits: Tensor<2>) -> Likeliest {
    let (ids, norms) = <Dispatch as GenerationOps>::likeliest(logits.into_dispatch());
    Likeliest { ids: Tensor::from_dispatch(ids), norms: Tensor::from_dispatch(norms) }
}

//! The operations on tensors.

use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};

use crate::backend::TransformerOps;
use crate::heads::Heads;
use crate::packing::Packing;

/// A linear map, `y = x · Wᵀ + b`, with the weight as Hugging Face stores it.
///
/// # Shapes
/// `x [t, in]`, `weight [out, in]`, `bias [out]`; the result is `[t, out]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    add_bias(Tensor::from_dispatch(Dispatch::linear(x.into_dispatch(), weight.into_dispatch())), bias)
}

/// The factors of a low-rank update of a linear map: `ΔW = scale · B · A`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `A`, `[r, in]`.
    pub a: Tensor<2>,
    /// `B`, `[out, r]`.
    pub b: Tensor<2>,
    /// The factor of the product.
    pub scale: f64,
}

/// A linear map with a low-rank update (Hu et al., <https://arxiv.org/abs/2106.09685>, equation 3), without the dense product `B · A`:
/// `y = x · Wᵀ + scale · (x · Aᵀ) · Bᵀ + b`.
///
/// The weight and the bias are frozen: only `x`, `A` and `B` get gradients. The factors may be wider than the weight; the sum is then taken in
/// their dtype and rounded once to that of `x`.
///
/// # Shapes
/// `x [t, in]`, `weight [out, in]`, `bias [out]`; the result is `[t, out]`.
///
/// # Panics
/// If the factors do not fit the weight.
pub fn linear_lora(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, update: LowRank) -> Tensor<2> {
    check_factors(weight.dims(), &update);
    let LowRank { a, b, scale } = update;
    let (x, weight, a, b) = (x.into_dispatch(), weight.into_dispatch(), a.into_dispatch(), b.into_dispatch());
    add_bias(Tensor::from_dispatch(Dispatch::linear_lora(x, weight, a, b, scale)), bias)
}

/// Panics if the factors of an update do not fit the weight.
pub(crate) fn check_factors([outputs, inputs]: [usize; 2], LowRank { a, b, .. }: &LowRank) {
    let ([rank, columns], [rows, columns_of_b]) = (a.dims(), b.dims());
    assert_eq!([columns, rows, columns_of_b], [inputs, outputs, rank], "factors of an update of [{outputs}, {inputs}]");
}

/// `[t, out]`, `[out]` -> `[t, out]`
pub(crate) fn add_bias(product: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    match bias {
        None => product,
        // [out] -> [1, out]
        Some(bias) => product + bias.unsqueeze(),
    }
}

/// Lengths of the rows of a linear map, `[out]` each.
#[derive(Clone, Debug)]
pub struct RowLengths {
    /// The lengths `m` that the rows are brought to.
    pub magnitude: Tensor<1>,
    /// The lengths `n` that they have: see [`row_norms`].
    pub norms: Tensor<1>,
}

/// Completes a linear map whose rows have a trained length (Liu et al., "DoRA", <https://arxiv.org/abs/2402.09353>, equation 5) from the product
/// of its input and the weight with its update: `y = (m/n) ∘ product + b`.
///
/// Only the product and the magnitude `m` get gradients. The lengths `n` are constants, as in section 4.3 of the paper.
///
/// # Shapes
/// `product [t, out]`, `bias [out]`; the result is `[t, out]`.
///
/// # Panics
/// If the lengths do not fit the product.
pub fn rescale(product: Tensor<2>, lengths: RowLengths, bias: Option<Tensor<1>>) -> Tensor<2> {
    let (RowLengths { magnitude, norms }, [_, outputs]) = (lengths, product.dims());
    assert_eq!([magnitude.dims(), norms.dims()], [[outputs]; 2], "a length of each row");
    let (product, magnitude, norms) = (product.into_dispatch(), magnitude.into_dispatch(), norms.into_dispatch());
    add_bias(Tensor::from_dispatch(Dispatch::rescale(product, magnitude, norms)), bias)
}

/// Computes the lengths of the rows of `W + scale · B · A`, without a graph, in the dtype of the factors. The dense sum does not exist as a
/// whole. A row of zeros counts as long as the smallest normal number, so that its length divides.
///
/// # Shapes
/// `weight [out, in]`; the result is `[out]`.
///
/// # Panics
/// If the factors do not fit the weight.
pub fn row_norms(weight: Tensor<2>, update: LowRank) -> Tensor<1> {
    check_factors(weight.dims(), &update);
    let LowRank { a, b, scale } = update;
    Tensor::from_dispatch(Dispatch::row_norms(weight.into_dispatch(), a.into_dispatch(), b.into_dispatch(), scale))
}

/// Root mean square normalisation (Zhang and Sennrich, <https://arxiv.org/abs/1910.07467>, equation 4):
/// `y = w · x / sqrt(mean(x²) + eps)`, the fraction in f32 and rounded to the dtype of `x` before `w` is applied.
///
/// # Shapes
/// `x [t, d]`, `weight [d]`; the result is `[t, d]`.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), eps))
}

/// Rotary position embedding in the rotate-half layout (Su et al., <https://arxiv.org/abs/2104.09864>, equation 34, with element `i` of a
/// head paired with `i + n/2`): `(a, b) -> (a cos - b sin, b cos + a sin)`, in f32.
///
/// # Shapes
/// `x [t, heads · n]`, `cos` and `sin` `[t, n/2]`, f32 and without a graph; the result is `[t, heads · n]`.
pub fn rotate(x: Tensor<2>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::rotate(x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch()))
}

/// The gate of SwiGLU (Shazeer, <https://arxiv.org/abs/2002.05202>, equation 6): `silu(gate) · up`.
///
/// # Shapes
/// `[t, f]` each.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

/// The gate of GeGLU (Shazeer, <https://arxiv.org/abs/2002.05202>, equation 6) with GELU by its approximation with tanh (Hendrycks and Gimpel,
/// <https://arxiv.org/abs/1606.08415>): `gelu(gate) · up`.
///
/// # Shapes
/// `[t, f]` each.
pub fn geglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::geglu(gate.into_dispatch(), up.into_dispatch()))
}

/// Causal attention within the segments of a batch (Vaswani et al., <https://arxiv.org/abs/1706.03762>, equation 1): each token sees the
/// tokens before it in its segment, itself and the whole of the segment's prefix, as far as the window of `heads` reaches. The softmax is
/// f32.
///
/// # Shapes
/// `q [t, h · n]`, `k` and `v` `[t, g · n]`; the result is `[t, h · n]`.
///
/// # Panics
/// If the shapes do not agree with `heads` and `packing`, or a window is 0.
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, heads: Heads, packing: &Packing) -> Tensor<2> {
    let tokens = packing.tokens();
    assert_eq!(q.dims(), [tokens, heads.query * heads.dim], "the queries of {heads:?} over {tokens} tokens");
    assert_eq!(k.dims(), [tokens, heads.kv * heads.dim], "the keys of {heads:?} over {tokens} tokens");
    assert_eq!(v.dims(), k.dims(), "keys and values");
    assert_ne!(heads.window, Some(0), "a token sees itself");
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    Tensor::from_dispatch(Dispatch::attention(q, k, v, heads, packing.clone()))
}

/// Log-probabilities and entropies of some tokens.
#[derive(Clone, Debug)]
pub struct TokenScores {
    /// `log π(token)`, nats; f32 `[n]`, with a graph where the inputs have one.
    pub logps: Tensor<1>,
    /// `−Σ_v π(v) log π(v)`, nats; f32 `[n]`, without a graph.
    pub entropy: Tensor<1>,
}

/// The computation of logits, and the number of them that may exist at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logits {
    /// Positions whose logits are worked on at a time, at least 1.
    pub chunk: usize,
    /// True if the logits of all positions stay from the forward pass for the backward pass, which computes them again otherwise. Without
    /// autodiff none stays.
    pub keep: bool,
    /// The bound `c` of the logits, if they have one: a logit `z` becomes `c · tanh(z / c)` (Gemma 2, <https://arxiv.org/abs/2408.00118>,
    /// section 2).
    pub soft_cap: Option<f64>,
}

/// Log-probabilities of tokens under a language model's head, without more logits at a time than `logits` says, forward and backward:
/// `logp_i = z_i[y_i] − log Σ_v exp z_i[v]` with `z_i = W · x_{rows[i]}`.
///
/// Logits are rounded to the dtype of `x`, everything after them is f32.
///
/// # Shapes
/// `x [t, d]`, `weight [v, d]`, `rows` and `targets` `[n]`: position `rows[i]` predicts token `targets[i]`.
///
/// # Panics
/// If `rows` and `targets` differ in length, or `n` or the chunk is 0.
pub fn token_logps(
    x: Tensor<2>,
    weight: Tensor<2>,
    rows: Tensor<1, Int>,
    targets: Tensor<1, Int>,
    logits: Logits,
) -> TokenScores {
    let [n] = targets.dims();
    assert_eq!(rows.dims(), [n], "a position for each token");
    assert!(n > 0 && logits.chunk > 0, "there must be a token, and a chunk of at least one");
    let scores: Tensor<2> = Tensor::from_dispatch(Dispatch::token_scores(
        x.into_dispatch(),
        weight.into_dispatch(),
        rows.into_dispatch(),
        targets.into_dispatch(),
        logits,
    ));
    // [n, 2] -> [n, 1] -> [n]
    let column = |scores: Tensor<2>, i: usize| scores.narrow(1, i, 1).reshape([n]);
    TokenScores { logps: column(scores.clone(), 0), entropy: column(scores.inner(), 1) }
}

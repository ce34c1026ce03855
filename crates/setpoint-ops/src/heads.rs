//! The heads of attention, and how their scores become weights.

/// The heads of grouped-query attention (Ainslie et al., <https://arxiv.org/abs/2305.13245>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Query heads `h`, a multiple of `kv`.
    pub query: usize,
    /// Key and value heads `g`. Query head `i` reads key head `i · g / h`.
    pub kv: usize,
    /// Elements of a head `n`.
    pub dim: usize,
    /// The factor of the scores.
    pub scale: f64,
    /// The bound `c` of the scores, if they have one: a score `s` becomes `c · tanh(s / c)` (Gemma 2, <https://arxiv.org/abs/2408.00118>,
    /// section 2).
    pub soft_cap: Option<f64>,
    /// The tokens that a token sees at most, itself included: those just before it (Beltagy et al., "Longformer",
    /// <https://arxiv.org/abs/2004.05150>, section 3.1). All before it by default.
    pub window: Option<usize>,
}

impl Heads {
    /// Creates heads whose scores are scaled by `1/sqrt(dim)`, without bound or window.
    pub fn new(query: usize, kv: usize, dim: usize) -> Self {
        Self { query, kv, dim, scale: (dim as f64).sqrt().recip(), soft_cap: None, window: None }
    }

    /// Returns the first token that the last of `seen` tokens sees.
    #[cfg(feature = "flex")]
    pub(crate) fn first_seen(&self, seen: usize) -> usize {
        self.window.map_or(0, |window| seen.saturating_sub(window))
    }
}

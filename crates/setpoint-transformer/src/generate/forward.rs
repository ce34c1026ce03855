//! The forward pass of new tokens behind those whose keys and values are in the cache.

use burn::tensor::{Int, Tensor};
use setpoint_ops::{Heads, Spans, rotate};

use super::cache::{Cache, LayerCache};
use crate::block::{Block, SelfAttention};
use crate::{Decoder, pack};

/// What all blocks of one pass share.
struct CachedPass<'a> {
    /// `[t, n/2]`
    cos: Tensor<2>,
    /// `[t, n/2]`
    sin: Tensor<2>,
    spans: &'a Spans,
}

impl Decoder {
    /// The hidden states of new tokens after the final norm, of all or of those in the places `wanted`; the keys and values of all of them go
    /// into the cache.
    ///
    /// # Shapes
    ///
    /// `t` tokens, `[w] -> [w, d]`; without `wanted` `[t, d]`
    pub(super) fn forward_cached(
        &self,
        ids: &[u32],
        spans: &Spans,
        wanted: Option<&Tensor<1, Int>>,
        cache: &mut Cache,
    ) -> Tensor<2> {
        let mut x = self.embed_tokens.forward_packed(pack(&[ids], &self.device()));
        let (cos, sin) = self.rope.tables(&spans.positions(), &x.device());
        let pass = CachedPass { cos, sin, spans };
        cache.reserve(spans.longest());
        let caches = std::mem::take(&mut cache.layers);
        for (i, (layer, cached)) in self.layers.iter().zip(caches).enumerate() {
            let (y, cached) = layer.forward_cached(x, &pass, self.wanted_of(i, wanted), cached);
            cache.layers.push(cached);
            x = y;
        }
        self.norm.forward_packed(x)
    }
}

impl Block {
    fn forward_cached(
        &self,
        x: Tensor<2>,
        pass: &CachedPass<'_>,
        wanted: Option<&Tensor<1, Int>>,
        cache: LayerCache,
    ) -> (Tensor<2>, LayerCache) {
        let (mixed, cache) = self.self_attn.mix(self.input_layernorm.forward_packed(x.clone()), pass, cache);
        (self.finish_packed(x, mixed, wanted), cache)
    }
}

impl SelfAttention {
    /// What each new token gathers from its text, by head, `[t, h·n]`.
    fn mix(&self, x: Tensor<2>, pass: &CachedPass<'_>, cache: LayerCache) -> (Tensor<2>, LayerCache) {
        let heads = Heads { query: self.heads, kv: self.kv_heads, dim: self.head_dim };
        let turned = |x: Tensor<2>| rotate(x, pass.cos.clone(), pass.sin.clone());
        let q = turned(self.q_proj.forward_packed(x.clone()));
        let k = turned(self.k_proj.forward_packed(x.clone()));
        let cache = cache.write(k, self.v_proj.forward_packed(x), pass.spans);
        (cache.attend(q, heads, pass.spans), cache)
    }
}

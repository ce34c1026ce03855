//! The forward pass of new tokens behind those whose keys and values are in the cache.

use burn::tensor::{Int, Tensor};
use setpoint_ops::Spans;

use super::cache::Cache;
use crate::block::Projections;
use crate::{Decoder, pack};

impl Decoder {
    /// The hidden states of new tokens after the final norm, of all or of those in the places `wanted`; the keys and values of all of them go
    /// into the cache. `texts` has the number of tokens of each token's text, those that are read later included.
    ///
    /// # Shapes
    ///
    /// `t` tokens, `[w] -> [w, d]`; without `wanted` `[t, d]`
    pub(super) fn forward_cached(
        &self,
        ids: &[u32],
        texts: &[usize],
        spans: &Spans,
        wanted: Option<&Tensor<1, Int>>,
        cache: &mut Cache,
    ) -> Tensor<2> {
        let mut x = self.scaled(self.embed_tokens.forward(pack(&[ids], &self.device()).into_tensor()));
        let rotations = self.rotations(&spans.positions(), texts, &x.device());
        cache.reserve(spans.longest());
        let caches = std::mem::take(&mut cache.layers);
        for (i, (layer, cached)) in self.layers.iter().zip(caches).enumerate() {
            let Projections { q, k, v } = layer.project(x.clone(), &rotations, None);
            let cached = cached.write(k, v, spans);
            let mixed = cached.attend(q, layer.self_attn.heads(), spans);
            cache.layers.push(cached);
            x = layer.finish(x, mixed, self.wanted_of(i, wanted), None);
        }
        self.norm.forward(x)
    }
}

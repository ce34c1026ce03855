use burn::tensor::{Device, Tensor};
use setpoint_ops::{Heads, Spans, cache_copy, cache_write, cached_attention};

use crate::Decoder;

/// Keys and values of one layer for all rows in flight, `[slots, g, capacity, n]` each. New ones are written in place, where the backend can.
#[derive(Debug)]
pub(super) struct LayerCache {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl LayerCache {
    /// Adds the keys and values of new tokens.
    ///
    /// # Shapes
    ///
    /// `[t, g·n]`, twice
    pub(super) fn write(self, keys: Tensor<2>, values: Tensor<2>, spans: &Spans) -> Self {
        Self { keys: cache_write(self.keys, keys, spans), values: cache_write(self.values, values, spans) }
    }

    /// Computes what the new tokens, whose keys and values have been written, gather from their texts.
    ///
    /// # Shapes
    ///
    /// `[t, h·n] -> [t, h·n]`
    pub(super) fn attend(&self, q: Tensor<2>, heads: Heads, spans: &Spans) -> Tensor<2> {
        cached_attention(q, self.keys.clone(), self.values.clone(), heads, spans)
    }

    fn map(self, f: impl Fn(Tensor<4>) -> Tensor<4>) -> Self {
        Self { keys: f(self.keys), values: f(self.values) }
    }
}

/// Keys and values of all layers. A slot holds one row's.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) layers: Vec<LayerCache>,
    slots: usize,
    /// Tokens for which there is room in each slot.
    capacity: usize,
    /// Tokens that no row ever exceeds.
    most: usize,
}

impl Cache {
    /// Without room for any token yet.
    pub(super) fn new(decoder: &Decoder, slots: usize, most: usize, device: &Device) -> Self {
        let dtype = decoder.embed_tokens.weight.dtype();
        let empty = |g, n| Tensor::zeros([slots, g, 0, n], (device, dtype));
        let layers = decoder.layers.iter().map(|layer| {
            let heads = layer.self_attn.heads();
            LayerCache { keys: empty(heads.kv, heads.dim), values: empty(heads.kv, heads.dim) }
        });
        Self { layers: layers.collect(), slots, capacity: 0, most }
    }

    fn map(&mut self, f: impl Fn(Tensor<4>) -> Tensor<4>) {
        self.layers = std::mem::take(&mut self.layers).into_iter().map(|layer| layer.map(&f)).collect();
    }

    /// Makes room for texts of `tokens`: half as much again at a time, so that copies stay rare and shapes few.
    pub(super) fn reserve(&mut self, tokens: usize) {
        if tokens <= self.capacity {
            return;
        }
        let capacity = (tokens + tokens / 2).next_multiple_of(64).min(self.most).max(tokens);
        let (slots, before) = (self.slots, self.capacity);
        self.capacity = capacity;
        self.map(|cache| {
            let [_, g, _, n] = cache.dims();
            let wider = Tensor::zeros([slots, g, capacity, n], (&cache.device(), cache.dtype()));
            if before == 0 { wider } else { wider.slice_assign([0..slots, 0..g, 0..before, 0..n], cache) }
        });
    }

    /// Copies the first `len` tokens of a slot to another.
    pub(super) fn copy(&mut self, from: usize, to: usize, len: usize) {
        self.map(|cache| cache_copy(cache, from, to, len));
    }
}

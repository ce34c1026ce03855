//! The dropout of an adapter: masks that follow from the seed, the step, the map and the text.

use std::sync::Arc;

use setpoint_ops::{DropoutMask, Packing, extend_key};

use super::adapter::HasDecoder;
use crate::checkpoint::name_hash;

/// Tells apart the masks of the steps of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskSeed(u64);

impl MaskSeed {
    /// The seed of the masks of a step in a run with the seed `seed`.
    pub fn of_step(seed: u64, step: u64) -> Self {
        Self(extend_key(extend_key(0, seed), step))
    }

    /// Returns the seed of the masks of a part of the model that has the parameter paths of another part.
    #[must_use]
    pub fn of_part(self, name: &str) -> Self {
        Self(extend_key(self.0, name_hash(name)))
    }
}

/// Returns the model as a training step computes it, in which each element of the input of an update's `A` is 0 with the probability of
/// [`LoraConfig::dropout`](super::LoraConfig::dropout), and divided by the probability of the contrary otherwise. All tensors are shared. `None`
/// if the adapter has no dropout: the step computes the model itself.
///
/// The masks are a function of `seed`, the path of the linear map, the tokens up to the one in question, and the place in its hidden state. So
/// passes with and without a graph, recomputed blocks, micro-batches of any size and any number of devices drop the same elements, and equal
/// beginnings of texts are one text. Nothing but this function turns dropout on.
pub fn with_dropout<M: HasDecoder>(model: &M, seed: MaskSeed) -> Option<M> {
    (model.decoder().dropout.rate > 0.0).then(|| {
        let mut model = model.clone();
        model.decoder_mut().dropout.seed = Some(seed);
        model
    })
}

/// The dropout of a decoder's adapter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dropout {
    /// The probability that an element is dropped, where masks are made.
    rate: f64,
    /// The masks to make; none outside the steps of a training.
    seed: Option<MaskSeed>,
}

impl Dropout {
    /// Dropout that is not turned on.
    pub(crate) fn at_rate(rate: f64) -> Self {
        Self { rate, seed: None }
    }

    /// Makes the masks of a pass over tokens, of which the last layer answers those in the places `wanted`.
    pub(crate) fn masks(&self, ids: &[i32], packing: &Packing, wanted: Option<&[usize]>) -> Option<Masks> {
        let seed = self.seed?;
        let keys = text_keys(seed, ids, packing);
        let mask = |keys: Vec<u64>| DropoutMask::new(Arc::from(keys), self.rate);
        let wanted = wanted.map(|places| mask(places.iter().map(|&place| keys[place]).collect()));
        Some(Masks { all: mask(keys), wanted })
    }
}

/// Returns a key of each token: one of all tokens up to it, those of its segment's prefix included.
fn text_keys(seed: MaskSeed, ids: &[i32], packing: &Packing) -> Vec<u64> {
    let mut keys: Vec<u64> = Vec::with_capacity(ids.len());
    for segment in packing.segments() {
        let prefix = packing.prefix(segment);
        let mut key = if prefix.is_empty() { seed.0 } else { keys[prefix.end - 1] };
        for &id in &ids[segment.tokens()] {
            key = extend_key(key, id as u64);
            keys.push(key);
        }
    }
    keys
}

/// The masks of a pass.
#[derive(Clone, Debug)]
pub(crate) struct Masks {
    /// The mask of all tokens.
    pub(crate) all: DropoutMask,
    /// The mask of the tokens that the last layer answers, if it does not answer all.
    wanted: Option<DropoutMask>,
}

impl Masks {
    /// Returns the masks behind the attention of a layer that answers all tokens or those that are wanted.
    pub(crate) fn answered(&self, only_wanted: bool) -> &DropoutMask {
        self.wanted.as_ref().filter(|_| only_wanted).unwrap_or(&self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text has the same keys whole and as a prompt that others continue, whatever stands next to it.
    #[test]
    fn keys_follow_from_the_text_alone() {
        let seed = MaskSeed::of_step(1, 2);
        let keys = |ids: &[i32], packing: &Packing| text_keys(seed, ids, packing);
        let whole = keys(&[5, 6, 7, 8, 9], &Packing::rows([5]));
        let mut packed = Packing::builder();
        packed.push(2, None);
        let prompt = packed.push(3, None);
        packed.push(1, Some(prompt));
        packed.push(2, Some(prompt));
        let packed = keys(&[5, 7, 5, 6, 7, 9, 8, 9], &packed.build());
        assert_eq!(packed[2..5], whole[..3]);
        assert_eq!(packed[6..], whole[3..]);
        assert_eq!(packed[0], whole[0], "the same beginning");
        // Another token, another place and another beginning.
        let others = [packed[1], packed[5], keys(&[6, 6, 7], &Packing::rows([3]))[2]];
        assert!(others.iter().all(|key| !whole.contains(key)));
        let other = |seed| text_keys(seed, &[5, 6, 7, 8, 9], &Packing::rows([5]));
        for seed in [MaskSeed::of_step(1, 3), MaskSeed::of_step(2, 2), MaskSeed::of_step(2, 1), seed.of_part("value")] {
            assert!(other(seed).iter().all(|key| !whole.contains(key)));
        }
    }
}

//! The tokens of a batch that belong together.

use std::ops::Range;
use std::sync::Arc;

/// Consecutive tokens of a batch. Each sees those before it in the segment and, if there is one, the whole of the segment's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Position of the first token in the batch.
    pub start: usize,
    /// Number of tokens, at least 1.
    pub len: usize,
    /// Index of the segment that stands before this one: a prompt that several responses continue. A prefix has no prefix itself.
    pub prefix: Option<usize>,
}

impl Segment {
    /// The tokens' places in the batch.
    pub fn tokens(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// The tokens of a batch, one after the other without padding, cut into segments.
///
/// A prompt with three responses is four segments; the prompt is computed once. Clones share their content.
///
/// ```
/// use setpoint_ops::Packing;
///
/// let mut batch = Packing::builder();
/// let prompt = batch.push(5, None);
/// batch.push(2, Some(prompt));
/// batch.push(3, Some(prompt));
/// let batch = batch.build();
/// assert_eq!(batch.tokens(), 10);
/// assert_eq!(batch.positions(), [0, 1, 2, 3, 4, 5, 6, 5, 6, 7]);
/// assert_eq!(batch.text_lengths(), [8; 10]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    segments: Arc<[Segment]>,
    /// For each segment the number of tokens of the longest text that it is a part of.
    texts: Arc<[usize]>,
    tokens: usize,
}

/// Collects the segments of a [`Packing`].
#[derive(Clone, Debug, Default)]
pub struct PackingBuilder {
    segments: Vec<Segment>,
    texts: Vec<usize>,
    tokens: usize,
}

impl PackingBuilder {
    /// Adds `len` tokens, behind those of the segment `prefix` where one is given, and answers the new segment's index.
    ///
    /// # Panics
    /// If `len` is 0, or `prefix` is no earlier segment or has a prefix itself.
    pub fn push(&mut self, len: usize, prefix: Option<usize>) -> usize {
        self.push_of(len, prefix, 0)
    }

    /// [`push`](Self::push) for a segment of a text of `text` tokens, of which some at the end may not be in the batch.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    pub fn push_of(&mut self, len: usize, prefix: Option<usize>, text: usize) -> usize {
        assert!(len > 0, "a segment has at least one token");
        let mut text = text.max(len);
        if let Some(prefix) = prefix {
            assert!(self.segments[prefix].prefix.is_none(), "a prefix has no prefix itself");
            text = text.max(self.segments[prefix].len + len);
            self.texts[prefix] = self.texts[prefix].max(text);
        }
        self.segments.push(Segment { start: self.tokens, len, prefix });
        self.texts.push(text);
        self.tokens += len;
        self.segments.len() - 1
    }

    /// The finished packing.
    pub fn build(self) -> Packing {
        let Self { segments, texts, tokens } = self;
        // The prefix holds that of the longest text.
        let texts =
            segments.iter().zip(&texts).map(|(segment, &own)| segment.prefix.map_or(own, |prefix| texts[prefix]));
        Packing { texts: texts.collect(), segments: segments.into(), tokens }
    }
}

impl Packing {
    /// A packing without segments, to add to.
    pub fn builder() -> PackingBuilder {
        PackingBuilder::default()
    }

    /// Separate rows of the given lengths.
    pub fn rows(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut builder = Self::builder();
        for len in lengths {
            builder.push(len, None);
        }
        builder.build()
    }

    /// The segments, in the order of their tokens.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The tokens before the segment that its tokens see, as places in the batch.
    pub fn prefix(&self, segment: &Segment) -> Range<usize> {
        segment.prefix.map_or(0..0, |prefix| self.segments[prefix].tokens())
    }

    /// The position of each token in its own text: those of a prefix count.
    pub fn positions(&self) -> Vec<i32> {
        self.segments
            .iter()
            .flat_map(|segment| {
                let before = self.prefix(segment).len();
                (before..before + segment.len).map(|position| position as i32)
            })
            .collect()
    }

    /// For each token the number of tokens of its text. Texts with a common prefix all count as the longest of them.
    pub fn text_lengths(&self) -> Vec<usize> {
        self.segments
            .iter()
            .zip(&*self.texts)
            .flat_map(|(segment, &text)| std::iter::repeat_n(text, segment.len))
            .collect()
    }

    /// Segments that are connected: each list is a prefix followed by all that continue it, or one segment that stands alone.
    #[cfg(feature = "flex")]
    pub(crate) fn groups(&self) -> Vec<Vec<Segment>> {
        let mut groups: Vec<Vec<Segment>> = vec![];
        let mut group_of: Vec<usize> = Vec::with_capacity(self.segments.len());
        for segment in self.segments.iter() {
            match segment.prefix {
                Some(prefix) => {
                    let group = group_of[prefix];
                    groups[group].push(*segment);
                    group_of.push(group);
                }
                None => {
                    group_of.push(groups.len());
                    groups.push(vec![*segment]);
                }
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_one_after_the_other() {
        let packing = Packing::rows([2, 3]);
        assert_eq!(packing.positions(), [0, 1, 0, 1, 2]);
        assert_eq!(packing.segments()[1].tokens(), 2..5);
        assert_eq!(packing.prefix(&packing.segments()[1]), 0..0);
    }

    #[test]
    fn texts_count_the_tokens_that_are_not_in_the_batch() {
        let mut builder = Packing::builder();
        let prompt = builder.push_of(2, None, 3);
        builder.push_of(1, Some(prompt), 4);
        builder.push(1, Some(prompt));
        builder.push(5, None);
        assert_eq!(builder.build().text_lengths(), [4, 4, 4, 4, 5, 5, 5, 5, 5]);
    }

    #[test]
    #[should_panic(expected = "a prefix has no prefix itself")]
    fn prefixes_are_one_deep() {
        let mut builder = Packing::builder();
        let prompt = builder.push(1, None);
        let turn = builder.push(1, Some(prompt));
        builder.push(1, Some(turn));
    }
}

//! What the encoder makes of a record.

use std::ops::Range;

use crate::record::{Label, Source};

/// A record as token ids. The responses share the prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Index of the record in the data set.
    pub row: usize,
    /// The place that the record came from.
    pub source: Source,
    /// Every token before the response, the header that opens the last assistant turn included; never empty.
    pub prompt: Vec<u32>,
    /// The responses, in the record's order.
    pub responses: Vec<EncodedResponse>,
    /// By how much chosen is better than rejected.
    pub margin: Option<f64>,
    /// Earlier assistant turns as ranges of `prompt`, each with its stop token; empty unless asked for. Where thoughts are not learned, the
    /// parts of the turns around them.
    pub assistant_spans: Vec<Range<usize>>,
}

/// A response as token ids.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedResponse {
    /// Index among the record's responses.
    pub index: usize,
    /// Its tokens, the last of them the stop token (unless [`ResponseEnd::Template`](super::ResponseEnd) adds more).
    pub ids: Vec<u32>,
    /// Its reward.
    pub reward: Option<f64>,
    /// Its label.
    pub label: Option<Label>,
    /// True if SFT learns it: its message does not say otherwise (`"weight": 0`). True where only responses are trained.
    pub learned: bool,
    /// Its thoughts as ranges of `ids`, if SFT does not learn them ([`EncodeOptions::train_on_thoughts`](super::EncodeOptions)).
    pub thoughts: Vec<Range<usize>>,
}

impl Example {
    /// Tells which tokens of the prompt and one of the responses SFT learns: those of the earlier assistant turns that were asked for
    /// and those of the response, stop tokens included. Thoughts are not among them where they are not to be learned.
    ///
    /// # Panics
    /// When the example has no such response.
    #[must_use]
    pub fn learned(&self, response: usize) -> Vec<bool> {
        let response = &self.responses[response];
        let mut learned = vec![false; self.prompt.len()];
        for span in &self.assistant_spans {
            learned[span.clone()].fill(true);
        }
        learned.resize(self.prompt.len() + response.ids.len(), response.learned);
        for thought in &response.thoughts {
            learned[self.prompt.len()..][thought.clone()].fill(false);
        }
        learned
    }

    /// Tokens of the prompt and all responses: what a forward pass computes when the responses share the prompt.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.responses.iter().map(|r| r.ids.len()).sum::<usize>()
    }

    /// Tokens of the prompt and the longest response.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.prompt.len() + self.responses.iter().map(|r| r.ids.len()).max().unwrap_or(0)
    }

    /// The response labelled [`Label::Chosen`].
    #[must_use]
    pub fn chosen(&self) -> Option<&EncodedResponse> {
        self.responses.iter().find(|r| r.label == Some(Label::Chosen))
    }

    /// The response labelled [`Label::Rejected`].
    #[must_use]
    pub fn rejected(&self) -> Option<&EncodedResponse> {
        self.responses.iter().find(|r| r.label == Some(Label::Rejected))
    }
}

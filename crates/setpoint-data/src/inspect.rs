//! An example as segments of text, each of one kind: what `inspect data` prints in colour.

use crate::encode::{EncodedResponse, Example, TextEncoder};
use crate::error::Error;
use crate::seam::contain;

/// The role of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// The prompt's first tokens, which DRO leaves out.
    T0,
    /// The prompt, and turns and thoughts that are not learned.
    Prompt,
    /// An earlier assistant turn, which SFT learns.
    AssistantEarlier,
    /// The response.
    Response,
    /// A stop token, at the end of the response or of an earlier assistant turn.
    Stop,
    /// The text that the template prints behind the stop token, where it counts as response.
    AfterStop,
}

/// A token, or several that only together are whole characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its text.
    pub text: String,
    /// Its ids.
    pub ids: Vec<u32>,
    /// The role of the segment.
    pub kind: SegmentKind,
}

/// The tokens of an example's prompt and one of its responses, with what each counts as. `t0` is the number of tokens that
/// [`T0::resolve`](crate::T0::resolve) found.
///
/// The texts joined are the decoded example.
///
/// # Errors
/// [`Error::Tokenizer`] when the tokenizer's decoder fails.
///
/// # Panics
/// When the example has no such response.
pub fn segments(encoder: &TextEncoder, example: &Example, response: usize, t0: usize) -> Result<Vec<Segment>, Error> {
    let tokens = kinds(encoder, example, response, t0);
    let mut stream = encoder.tokenizer().decode_stream(false);
    let mut segments: Vec<Segment> = Vec::new();
    let mut pending: Vec<u32> = Vec::new();
    let mut pending_kind = SegmentKind::T0;
    for (id, kind) in tokens {
        if pending.is_empty() || kind != pending_kind {
            // Bytes that never became a character: shown as such.
            flush(&mut segments, &mut pending, pending_kind);
            pending_kind = kind;
        }
        pending.push(id);
        if let Some(text) = contain(|| stream.step(id).map_err(|e| e.to_string()))
            .and_then(|step| step)
            .map_err(|e| encoder.failed(e))?
        {
            segments.push(Segment { text, ids: std::mem::take(&mut pending), kind });
        }
    }
    flush(&mut segments, &mut pending, pending_kind);
    Ok(segments)
}

fn flush(segments: &mut Vec<Segment>, pending: &mut Vec<u32>, kind: SegmentKind) {
    if !pending.is_empty() {
        let ids = std::mem::take(pending);
        segments.push(Segment { text: String::new(), ids, kind });
    }
}

fn kinds(encoder: &TextEncoder, example: &Example, response: usize, t0: usize) -> Vec<(u32, SegmentKind)> {
    let prompt = example.prompt.iter().enumerate().map(|(i, &id)| {
        let span = example.assistant_spans.iter().find(|s| s.contains(&i));
        let kind = match span {
            _ if i < t0 => SegmentKind::T0,
            Some(span) if i + 1 == span.end && encoder.stop_ids().contains(&id) => SegmentKind::Stop,
            Some(_) => SegmentKind::AssistantEarlier,
            None => SegmentKind::Prompt,
        };
        (id, kind)
    });
    let EncodedResponse { ids, learned, thoughts, .. } = &example.responses[response];
    let stop = ids.iter().position(|id| encoder.stop_ids().contains(id)).unwrap_or(ids.len());
    let response = ids.iter().enumerate().map(|(i, &id)| {
        let kind = match i.cmp(&stop) {
            _ if !learned || thoughts.iter().any(|thought| thought.contains(&i)) => SegmentKind::Prompt,
            std::cmp::Ordering::Less => SegmentKind::Response,
            std::cmp::Ordering::Equal => SegmentKind::Stop,
            std::cmp::Ordering::Greater => SegmentKind::AfterStop,
        };
        (id, kind)
    });
    prompt.chain(response).collect()
}

//! Log-probabilities of tokens under a language model.
//!
//! A token at position `i` is predicted by the hidden state at position `i − 1`. Texts stand in a
//! batch one after the other without padding, and a prompt stands there once for all the responses
//! behind it. Only the positions that are asked for pass through the head, some at a time, and the
//! head's logits are cast to f32 before the softmax, whatever the model's dtype. Sums over tokens are f32 sums along a dimension:
//! on a GPU a matrix product would round its inputs to TF32.

mod batch;
mod divergence;
mod group;
mod head;
mod score;
mod sequence;

pub use batch::shared_tokens;
pub use divergence::{Divergence, Predictions, score_against, score_and_keep};
pub use head::{HeadOptions, kept_logits};
pub use score::{ScoredSequence, score_batches, score_batches_with, score_sequences};
pub use sequence::{
    PromptLogps, Sequence, SequenceLogps, TokenLogps, sequence_logps, sequence_logps_with, token_logps,
    token_logps_with,
};

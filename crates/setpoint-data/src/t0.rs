//! t0: the first tokens of every prompt, which DRO leaves out of the prompt's log-ratio.

use serde::{Deserialize, Serialize};

use crate::encode::Example;
use crate::error::Error;
use crate::store::ExampleStore;

/// The tokens of t0. All prompts must begin with the same ones: DRO normalises by the probability of everything
/// behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum T0 {
    /// The first token.
    #[default]
    FirstToken,
    /// As many tokens as all prompts share.
    CommonPrefix,
    /// This many tokens.
    Tokens(usize),
}

impl T0 {
    /// The number of tokens of t0.
    ///
    /// # Errors
    /// [`Error::T0`], naming the first row that differs from the first one or is too short; when a row cannot be read back. Needs no model,
    /// so this is found before any weights are loaded.
    pub fn resolve(self, examples: &ExampleStore) -> Result<usize, Error> {
        if examples.is_empty() {
            return Ok(0);
        }
        let first = examples.get(0)?;
        let wanted = match self {
            Self::FirstToken => 1,
            Self::Tokens(n) => n,
            Self::CommonPrefix => return common_prefix(&first, examples),
        };
        for example in examples.iter() {
            let example = example?;
            if example.prompt.len() < wanted {
                return Err(Error::T0 {
                    at: example.source,
                    reason: format!(
                        "t0 is {wanted} tokens but this prompt has only {}. Set `align.t0` to `first_token` or `common_prefix`",
                        example.prompt.len()
                    ),
                });
            }
            if let Some(at) = (0..wanted).find(|&i| example.prompt[i] != first.prompt[i]) {
                return Err(differs(&example, &first, at));
            }
        }
        Ok(wanted)
    }
}

/// Counts the tokens that all prompts share.
fn common_prefix(first: &Example, examples: &ExampleStore) -> Result<usize, Error> {
    let mut shared = first.prompt.len();
    for example in examples.iter() {
        let example = example?;
        shared = example.prompt.iter().zip(&first.prompt[..shared]).take_while(|(a, b)| a == b).count();
        if shared == 0 {
            return Err(differs(&example, first, 0));
        }
    }
    Ok(shared)
}

fn differs(example: &Example, first: &Example, at: usize) -> Error {
    Error::T0 {
        at: example.source.clone(),
        reason: format!(
            "token {at} of the prompt is {} where that of {} is {}: the prompts do not share t0. Let prompts of plain text become \
             turns of a chat template (`data.text_prompts = \"user\"`; `model.template` names one), use a tokenizer or template that \
             begins every prompt with the same token (BOS), or set `align.prompt_term = \"off\"`",
            example.prompt.get(at).map_or_else(|| "absent".into(), ToString::to_string),
            first.source,
            first.prompt.get(at).map_or_else(|| "absent".into(), ToString::to_string),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Source;

    fn examples(prompts: &[&[u32]]) -> ExampleStore {
        let example = |(row, prompt): (usize, &&[u32])| Example {
            row,
            source: Source::row(std::path::Path::new("f"), row),
            prompt: prompt.to_vec(),
            responses: vec![],
            margin: None,
            assistant_spans: vec![],
        };
        let examples: Vec<Example> = prompts.iter().enumerate().map(example).collect();
        ExampleStore::in_memory(&examples).unwrap()
    }

    #[test]
    fn lengths() {
        let shared = examples(&[&[1, 5, 6, 7], &[1, 5, 6], &[1, 5, 9, 7]]);
        assert_eq!(T0::FirstToken.resolve(&shared).unwrap(), 1);
        assert_eq!(T0::CommonPrefix.resolve(&shared).unwrap(), 2);
        assert_eq!(T0::Tokens(2).resolve(&shared).unwrap(), 2);
        assert_eq!(T0::Tokens(0).resolve(&shared).unwrap(), 0);
        assert_eq!(T0::CommonPrefix.resolve(&examples(&[&[1, 5, 6, 7]])).unwrap(), 4);
    }

    #[test]
    fn the_first_row_that_differs_is_named() {
        let differing = examples(&[&[1, 5], &[1, 6], &[2, 5], &[3]]);
        for t0 in [T0::FirstToken, T0::CommonPrefix] {
            let message = t0.resolve(&differing).unwrap_err().to_string();
            assert!(
                message.starts_with("f: row 2: token 0 of the prompt is 2 where that of f: row 0 is 1"),
                "{message}"
            );
        }
        let message = T0::Tokens(2).resolve(&differing).unwrap_err().to_string();
        assert!(message.starts_with("f: row 1: token 1 of the prompt is 6"), "{message}");
        let message = T0::Tokens(3).resolve(&differing).unwrap_err().to_string();
        assert!(message.starts_with("f: row 0: t0 is 3 tokens but this prompt has only 2"), "{message}");
    }
}

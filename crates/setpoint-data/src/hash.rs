//! Stable hashes: what precomputed numbers belong to.

use sha2::{Digest, Sha256};

use crate::encode::Example;
use crate::error::Error;
use crate::store::ExampleStore;

/// SHA-256 in hexadecimal over the token ids of the examples, in order: prompts and responses with their indices.
///
/// Reference log-probabilities are a function of these ids (and of model and tokenizer), so this is part of their key. Rewards,
/// labels and places in files do not change it.
#[must_use]
pub fn content_hash(examples: &[Example]) -> String {
    let mut hash = start(examples.len());
    examples.iter().for_each(|example| add(&mut hash, example));
    hex(&hash.finalize())
}

/// [`content_hash`] of the examples of a store.
///
/// # Errors
/// When one cannot be read back.
pub fn content_hash_of_store(examples: &ExampleStore) -> Result<String, Error> {
    let mut hash = start(examples.len());
    for example in examples.iter() {
        add(&mut hash, &example?);
    }
    Ok(hex(&hash.finalize()))
}

fn start(examples: usize) -> Sha256 {
    let mut hash = Sha256::new();
    hash.update(b"setpoint examples 1");
    number(&mut hash, examples);
    hash
}

fn add(hash: &mut Sha256, example: &Example) {
    ids(hash, &example.prompt);
    number(hash, example.responses.len());
    for response in &example.responses {
        number(hash, response.index);
        ids(hash, &response.ids);
    }
}

/// Lengths precede what they measure, so that no two contents have the same bytes.
fn number(hash: &mut Sha256, n: usize) {
    hash.update((n as u64).to_le_bytes());
}

fn ids(hash: &mut Sha256, ids: &[u32]) {
    number(hash, ids.len());
    for id in ids {
        hash.update(id.to_le_bytes());
    }
}

/// SHA-256 over parts, each preceded by its length.
pub(crate) fn hash_parts(domain: &str, parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    hash.update(domain.as_bytes());
    for part in parts {
        number(&mut hash, part.len());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// Returns bytes, such as a digest, as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::EncodedResponse;
    use crate::record::Source;

    fn example(prompt: &[u32], responses: &[&[u32]]) -> Example {
        let response = |(index, ids): (usize, &&[u32])| EncodedResponse {
            index,
            ids: ids.to_vec(),
            reward: None,
            label: None,
            learned: true,
            thoughts: vec![],
        };
        Example {
            row: 0,
            source: Source::row(std::path::Path::new("f"), 0),
            prompt: prompt.to_vec(),
            responses: responses.iter().enumerate().map(response).collect(),
            margin: None,
            assistant_spans: vec![],
        }
    }

    #[test]
    fn ids_count_and_nothing_else_does() {
        let base = content_hash(&[example(&[1, 2], &[&[3], &[4]])]);
        let mut other = example(&[1, 2], &[&[3], &[4]]);
        other.row = 9;
        other.responses[0].reward = Some(1.0);
        assert_eq!(base, content_hash(&[other]));
        let different = [
            vec![example(&[1], &[&[2, 3], &[4]])],
            vec![example(&[1, 2], &[&[3, 4]])],
            vec![example(&[1, 2], &[&[4], &[3]])],
            vec![example(&[1, 2], &[&[3]]), example(&[], &[&[4]])],
            vec![],
        ];
        for examples in different {
            assert_ne!(base, content_hash(&examples));
        }
    }

    #[test]
    fn the_bytes_are_fixed() {
        // Stored keys must stay valid: domain, one example, prompt of one id (7), no responses.
        let mut bytes = b"setpoint examples 1".to_vec();
        for n in [1u64, 1] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend(7u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        assert_eq!(content_hash(&[example(&[7], &[])]), hex(&Sha256::digest(bytes)));
        assert_ne!(hash_parts("d", &[b"ab", b"c"]), hash_parts("d", &[b"a", b"bc"]));
    }
}

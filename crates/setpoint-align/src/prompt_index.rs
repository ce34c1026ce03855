//! The prompt of each response of a flat batch.

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};

use crate::error::Error;

/// The mapping from the `n` responses of a batch to its `p` prompts.
///
/// Batches are flat: per-response values are `[n]` tensors, per-prompt values `[p]` tensors, and
/// a prompt may have any number of responses from 1 up.
///
/// ```
/// use setpoint_align::PromptIndex;
///
/// let prompts = PromptIndex::from_counts(&[2, 1, 3])?;
/// assert_eq!(prompts.prompt_of(), [0, 0, 1, 2, 2, 2]);
/// assert_eq!((prompts.prompts(), prompts.responses()), (3, 6));
/// # Ok::<(), setpoint_align::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptIndex {
    prompt_of: Vec<usize>,
    counts: Vec<usize>,
}

impl PromptIndex {
    /// The mapping in which response `j` belongs to prompt `prompt_of[j]` of `prompts`. Responses
    /// may stand in any order.
    ///
    /// # Errors
    /// [`Error::PromptOutOfRange`] where a response names a prompt that is not there,
    /// [`Error::PromptWithoutResponses`] where a prompt is named by none.
    pub fn new(prompt_of: Vec<usize>, prompts: usize) -> Result<Self, Error> {
        let mut counts = vec![0; prompts];
        for (response, &prompt) in prompt_of.iter().enumerate() {
            match counts.get_mut(prompt) {
                Some(count) => *count += 1,
                None => return Err(Error::PromptOutOfRange { response, found: prompt, prompts }),
            }
        }
        match counts.iter().position(|&count| count == 0) {
            Some(prompt) => Err(Error::PromptWithoutResponses { prompt }),
            None => Ok(Self { prompt_of, counts }),
        }
    }

    /// The mapping for responses that stand prompt after prompt, `counts[i]` of them for prompt `i`.
    ///
    /// # Errors
    /// [`Error::PromptWithoutResponses`] where a count is 0.
    pub fn from_counts(counts: &[usize]) -> Result<Self, Error> {
        let prompt_of =
            counts.iter().enumerate().flat_map(|(prompt, &count)| std::iter::repeat_n(prompt, count)).collect();
        Self::new(prompt_of, counts.len())
    }

    /// Number of prompts `p`.
    pub fn prompts(&self) -> usize {
        self.counts.len()
    }

    /// Number of responses `n`.
    pub fn responses(&self) -> usize {
        self.prompt_of.len()
    }

    /// The prompt of each response, `n` entries.
    pub fn prompt_of(&self) -> &[usize] {
        &self.prompt_of
    }

    /// The number of responses of each prompt, `p` entries.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Computes the mean over each prompt's responses.
    ///
    /// # Shapes
    /// `[n] -> [p]`
    ///
    /// # Panics
    /// If `per_response` does not have `n` entries.
    pub fn mean(&self, per_response: Tensor<1>) -> Tensor<1> {
        let (n, p) = (self.responses(), self.prompts());
        assert_eq!(per_response.dims(), [n], "one value per response");
        let (device, dtype) = (per_response.device(), per_response.dtype());
        let shares: Vec<f64> = self.counts.iter().map(|&count| 1.0 / count as f64).collect();
        let shares = Tensor::<2>::from_data(TensorData::new(shares, [p, 1]), (&device, dtype));
        // [n] -> [1, n] -> [p, n], [p] -> [p, 1] -> [p, n]: where a response is one of the prompt's. The device makes the matrix.
        let prompt_of = self.prompts_on(&device).reshape([1, n]).expand([p, n]);
        let prompts = Tensor::<1, Int>::arange(0..p as i64, &device).reshape([p, 1]).expand([p, n]);
        let shares = shares * prompts.equal(prompt_of).float().cast(FloatDType::from(dtype));
        // `sum_dim`, not a matrix product: a GPU would round its inputs to TF32.
        (shares * per_response.reshape([1, n])).sum_dim(1).reshape([p]) // [p, n] -> [p]
    }

    /// Gives every response its prompt's value.
    ///
    /// # Shapes
    /// `[p] -> [n]`
    ///
    /// # Panics
    /// If `per_prompt` does not have `p` entries.
    pub fn spread(&self, per_prompt: Tensor<1>) -> Tensor<1> {
        assert_eq!(per_prompt.dims(), [self.prompts()], "one value per prompt");
        let prompts = self.prompts_on(&per_prompt.device());
        per_prompt.select(0, prompts) // [p] -> [n]
    }

    /// Returns the prompt of each response on a device, `[n]`.
    fn prompts_on(&self, device: &Device) -> Tensor<1, Int> {
        let prompts: Vec<i64> = self.prompt_of.iter().map(|&prompt| prompt as i64).collect();
        Tensor::from_data(TensorData::new(prompts, [self.responses()]), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_order() {
        let index = PromptIndex::new(vec![1, 0, 1], 2).unwrap();
        assert_eq!(index.counts(), [1, 2]);
        assert_eq!(index, PromptIndex::new(vec![1, 0, 1], 2).unwrap());
        assert_ne!(index, PromptIndex::from_counts(&[1, 2]).unwrap());
    }

    #[test]
    fn bad_mappings_name_the_place() {
        assert_eq!(PromptIndex::new(vec![0, 3], 2), Err(Error::PromptOutOfRange { response: 1, found: 3, prompts: 2 }));
        assert_eq!(PromptIndex::from_counts(&[1, 0]), Err(Error::PromptWithoutResponses { prompt: 1 }));
    }
}

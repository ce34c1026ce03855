//! The reference model's log-probabilities of a data set: in memory, two numbers for each prompt and one for each response.

use std::sync::Arc;

use super::Place;
use super::stages::ReferenceLogps;

/// Of a response that the method does not look at.
const UNUSED: f64 = f64::NAN;
/// Of a response that has yet to be scored: no logarithm of a probability.
const WANTED: f64 = f64::INFINITY;

/// The reference model's log-probabilities of the prompts of a data set, nats.
#[derive(Debug, Clone, Default)]
pub struct LogpsTable {
    /// Where the responses of each prompt end.
    ends: Vec<usize>,
    responses: Vec<f64>,
    prompts: Vec<f64>,
}

impl LogpsTable {
    /// Adds a prompt. `wanted`: whether the method looks at each response.
    pub fn push(&mut self, wanted: impl IntoIterator<Item = bool>) {
        self.responses.extend(wanted.into_iter().map(|wanted| if wanted { WANTED } else { UNUSED }));
        self.ends.push(self.responses.len());
        self.prompts.push(0.0);
    }

    fn place(&self, (prompt, response): Place) -> Option<usize> {
        let end = self.ends.get(prompt)?;
        let start = prompt.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(start + response).filter(|place| place < end)
    }

    /// Returns whether the method looks at a response.
    pub fn is_used(&self, place: Place) -> bool {
        self.place(place).is_some_and(|place| !self.responses[place].is_nan())
    }

    /// Returns whether a response has yet to be scored.
    pub fn is_wanted(&self, place: Place) -> bool {
        self.place(place).is_some_and(|place| self.responses[place] == WANTED)
    }

    /// Counts the responses that have yet to be scored.
    pub fn wanted(&self) -> usize {
        self.responses.iter().filter(|logp| **logp == WANTED).count()
    }

    /// Returns the places of the responses that the method looks at.
    pub fn used(&self) -> impl Iterator<Item = Place> + '_ {
        let count = |prompt: usize| self.ends[prompt] - prompt.checked_sub(1).map_or(0, |before| self.ends[before]);
        let places = move |prompt| (0..count(prompt)).map(move |response| (prompt, response));
        (0..self.ends.len()).flat_map(places).filter(|place| self.is_used(*place))
    }

    /// Takes the log-probability of a response and its prompt in, if the method looks at the response.
    pub fn set(&mut self, place: Place, response_logp: f64, prompt_logp: f64) {
        if let Some(at) = self.place(place).filter(|at| !self.responses[*at].is_nan()) {
            self.responses[at] = response_logp;
            self.prompts[place.0] = prompt_logp;
        }
    }
}

/// The same as it is once everything is scored; cheap to clone. Methods without a reference have zeros, which they do not look at.
#[derive(Debug, Clone, Default)]
pub struct Logps(Option<Arc<LogpsTable>>);

impl Logps {
    /// Returns the zeros of a method without a reference.
    pub fn zeros() -> Self {
        Self::default()
    }

    /// Returns the log-probability of a response; `None` if it was not scored.
    pub fn response(&self, place: Place) -> Option<f64> {
        let Some(table) = &self.0 else { return Some(0.0) };
        table.place(place).map(|at| table.responses[at]).filter(|logp| !logp.is_nan() && *logp != WANTED)
    }

    /// Returns the log-probabilities of a prompt with so many responses.
    pub fn get(&self, prompt: usize, responses: usize) -> ReferenceLogps {
        let own = self.0.as_ref().and_then(|table| table.prompts.get(prompt));
        ReferenceLogps {
            responses: (0..responses).map(|response| self.response((prompt, response))).collect(),
            prompt: own.copied().unwrap_or_default(),
        }
    }
}

impl From<LogpsTable> for Logps {
    fn from(table: LogpsTable) -> Self {
        Self(Some(Arc::new(table)))
    }
}

impl FromIterator<ReferenceLogps> for Logps {
    fn from_iter<I: IntoIterator<Item = ReferenceLogps>>(prompts: I) -> Self {
        let mut table = LogpsTable::default();
        for (number, prompt) in prompts.into_iter().enumerate() {
            table.push(prompt.responses.iter().map(Option::is_some));
            let logps = prompt.responses.iter().enumerate();
            for (response, logp) in logps.filter_map(|(response, logp)| Some((response, (*logp)?))) {
                table.set((number, response), logp, prompt.prompt);
            }
        }
        table.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_unused_wanted_or_scored() {
        let mut table = LogpsTable::default();
        table.push([true, false]);
        table.push([]);
        table.push([true, true, true]);
        assert_eq!(table.used().collect::<Vec<_>>(), [(0, 0), (2, 0), (2, 1), (2, 2)]);
        table.set((0, 0), -1.0, -0.5);
        table.set((0, 1), -2.0, -0.25);
        table.set((2, 1), -3.0, -0.75);
        table.set((7, 0), -4.0, 0.0);
        assert_eq!((table.wanted(), table.is_wanted((2, 0)), table.is_wanted((2, 1))), (2, true, false));
        assert!(!table.is_used((0, 1)) && !table.is_used((0, 2)) && !table.is_used((3, 0)));
        let logps = Logps::from(table);
        let first = logps.get(0, 2);
        assert_eq!((first.responses, first.prompt), (vec![Some(-1.0), None], -0.5));
        assert_eq!(logps.get(2, 3).responses, [None, Some(-3.0), None]);
        assert_eq!((logps.response((2, 3)), Logps::zeros().response((5, 5))), (None, Some(0.0)));
        let again: Logps = [logps.get(0, 2), logps.get(2, 3)].into_iter().collect();
        assert_eq!(again.get(1, 3).responses, logps.get(2, 3).responses);
        assert_eq!(Logps::zeros().get(3, 2).responses, [Some(0.0); 2]);
    }
}

//! Supervised fine-tuning as a task of the engine.

use std::borrow::Cow;
use std::path::Path;

use setpoint_align::weighted_sum;
use setpoint_data::{Example, ExampleStore};
use setpoint_train::{BatchContext, Error, Forward, MetricSums, ResponseValues, Task, token_logps};
use setpoint_transformer::CausalLm;

/// A conversation as tokens.
#[derive(Debug, Clone)]
pub struct SftExample {
    /// File and row, for messages.
    pub name: String,
    /// Index of the data set among those of the job.
    pub set: usize,
    /// All tokens.
    pub ids: Vec<u32>,
    /// The tokens that the loss counts: the assistant's, stop tokens included.
    pub counted: Vec<bool>,
}

impl SftExample {
    /// Makes a conversation of each response of an example that is to be learned: a row with several is several conversations.
    pub fn all(example: &Example) -> impl Iterator<Item = Self> {
        (0..example.responses.len()).filter_map(|response| Self::of(example, response))
    }

    /// Makes a conversation of one response; `None` if no token of it is to be learned.
    fn of(example: &Example, response: usize) -> Option<Self> {
        let counted = example.learned(response);
        // Of a row's responses some may be excluded from training.
        counted.contains(&true).then(|| Self {
            name: example.source.to_string(),
            set: example.source.set,
            ids: [example.prompt.as_slice(), example.responses[response].ids.as_slice()].concat(),
            counted,
        })
    }

    /// Counts the tokens that the loss counts. The first has nothing before it to be predicted from.
    fn weight(&self) -> usize {
        self.counted.iter().skip(1).filter(|counted| **counted).count()
    }
}

/// Conversations; the loss is the mean cross-entropy over the counted tokens of the global batch.
#[derive(Debug)]
pub struct SftTask {
    conversations: Conversations,
}

/// The place of the conversations.
#[derive(Debug)]
enum Conversations {
    Held(Vec<SftExample>),
    Stored(SftStore),
}

/// Conversations of which an index is in memory; their tokens are on disk if there are many.
#[derive(Debug)]
pub struct SftStore {
    rows: ExampleStore,
    index: Vec<Entry>,
}

/// The facts about a conversation that need no tokens.
#[derive(Debug, Clone, Copy)]
struct Entry {
    row: usize,
    response: u32,
    set: u32,
    tokens: u32,
    weight: u32,
}

impl SftStore {
    /// Creates a store without conversations. `folder`: where a file goes if there are many.
    pub fn new(folder: &Path) -> Self {
        Self::of(ExampleStore::new(folder))
    }

    fn of(rows: ExampleStore) -> Self {
        Self { rows, index: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, example: &Example) -> Result<(), setpoint_data::Error> {
        let row = self.rows.len();
        for response in 0..example.responses.len() {
            if let Some(conversation) = SftExample::of(example, response) {
                self.index.push(Entry {
                    row,
                    response: response as u32,
                    set: conversation.set as u32,
                    tokens: conversation.ids.len() as u32,
                    weight: conversation.weight() as u32,
                });
            }
        }
        self.rows.push(example)
    }

    /// Returns the rows, also those without a conversation.
    pub fn rows(&self) -> &ExampleStore {
        &self.rows
    }

    /// Returns the data set of each conversation.
    pub fn sets(&self) -> Vec<usize> {
        self.index.iter().map(|entry| entry.set as usize).collect()
    }

    fn get(&self, example: usize) -> Result<SftExample, Error> {
        let Entry { row, response, .. } = self.index[example];
        let row = self.rows.get(row).map_err(Error::task)?;
        SftExample::of(&row, response as usize).ok_or_else(|| Error::task("a conversation has lost its tokens"))
    }
}

impl SftTask {
    /// Creates a task of conversations that are in memory.
    pub fn new(examples: Vec<SftExample>) -> Self {
        Self { conversations: Conversations::Held(examples) }
    }

    /// Creates a task of conversations that are read when they are needed.
    pub fn stored(store: SftStore) -> Self {
        Self { conversations: Conversations::Stored(store) }
    }

    fn example(&self, example: usize) -> Result<Cow<'_, SftExample>, Error> {
        match &self.conversations {
            Conversations::Held(examples) => Ok(Cow::Borrowed(&examples[example])),
            Conversations::Stored(store) => Ok(Cow::Owned(store.get(example)?)),
        }
    }
}

impl Task for SftTask {
    type Model = CausalLm;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        match &self.conversations {
            Conversations::Held(examples) => examples.len(),
            Conversations::Stored(store) => store.index.len(),
        }
    }

    fn weight(&self, example: usize) -> f64 {
        match &self.conversations {
            Conversations::Held(examples) => examples[example].weight() as f64,
            Conversations::Stored(store) => f64::from(store.index[example].weight),
        }
    }

    fn cost(&self, example: usize) -> usize {
        match &self.conversations {
            Conversations::Held(examples) => examples[example].ids.len(),
            Conversations::Stored(store) => store.index[example].tokens as usize,
        }
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<()>) -> Result<Forward, Error> {
        let read = examples.iter().map(|&example| self.example(example)).collect::<Result<Vec<_>, Error>>()?;
        let rows: Vec<(&[u32], &[bool])> =
            read.iter().map(|example| (example.ids.as_slice(), example.counted.as_slice())).collect();
        let logps = token_logps(model, &rows)?;
        let loss = weighted_sum(logps.sums.clone(), &vec![-1.0 / batch.denominator; rows.len()]);
        let sums: Vec<f64> = logps.sums.into_data().iter::<f64>().collect();
        let per_example = sums.iter().zip(&logps.counts).map(|(sum, &count)| (-sum / count as f64) as f32).collect();
        let mut responses = ResponseValues::default();
        for ((&example, &logp), &count) in examples.iter().zip(&sums).zip(&logps.counts) {
            responses.push(example, [("tokens", count as f64), ("logp", logp)]);
        }
        let metrics = MetricSums::new();
        Ok(Forward { loss, metrics, per_example, responses, tape: logps.tape, second_tape: None })
    }

    fn describe(&self, example: usize) -> String {
        self.example(example).map_or_else(|_| format!("example {example}"), |example| example.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use setpoint_data::{EncodedResponse, Source};

    use super::*;

    /// A row with up to three responses, of which some are not learned.
    fn row(row: usize) -> Example {
        let response = |index: usize| EncodedResponse {
            index,
            ids: vec![7; (row + index) % 5 + 1],
            reward: None,
            label: None,
            learned: !(row + index).is_multiple_of(3),
            // The first token of some.
            thoughts: (0..usize::from(index == 1)).map(|_| 0..1).collect(),
        };
        Example {
            row,
            source: Source { set: row % 2, ..Source::line(Path::new("rows.jsonl"), row, row + 1) },
            prompt: vec![row as u32; row % 4 + 1],
            responses: (0..row % 4).map(response).collect(),
            margin: None,
            assistant_spans: (0..usize::from(row.is_multiple_of(5))).map(|_| 0..1).collect(),
        }
    }

    #[test]
    fn conversations_on_disk_are_those_in_memory() {
        let rows: Vec<Example> = (0..40).map(row).collect();
        let held = SftTask::new(rows.iter().flat_map(SftExample::all).collect());
        assert!(held.len() > 30 && held.len() < 60, "some are not learned: {}", held.len());
        for limit in [usize::MAX, 300] {
            let folder = tempfile::tempdir().unwrap();
            let mut store = SftStore::of(ExampleStore::with_limit(folder.path(), limit));
            rows.iter().for_each(|row| store.push(row).unwrap());
            assert_eq!(store.rows().has_file(), limit == 300);
            let sets = store.sets();
            let stored = SftTask::stored(store);
            assert_eq!((stored.len(), sets.len()), (held.len(), held.len()));
            for example in (0..held.len()).rev() {
                let (one, other) = (held.example(example).unwrap(), stored.example(example).unwrap());
                assert_eq!(
                    (&one.name, one.set, &one.ids, &one.counted),
                    (&other.name, other.set, &other.ids, &other.counted)
                );
                assert_eq!(sets[example], one.set);
                assert_eq!(held.weight(example), stored.weight(example));
                assert_eq!(held.cost(example), stored.cost(example));
                assert_eq!(held.describe(example), stored.describe(example));
            }
            assert_eq!(stored.order(3, 1), held.order(3, 1));
        }
    }
}

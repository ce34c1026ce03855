//! Supervised fine-tuning as a task of the engine.

use std::path::Path;

use setpoint_align::weighted_sum;
use setpoint_data::{Example, ExampleStore};
use setpoint_train::{
    BatchContext, Error, Forward, MetricSums, OnDemand, PassNumbers, ResponseValues, Task, Unread, token_logps,
};
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
    conversations: OnDemand<SftExample>,
    sizes: Vec<Size>,
}

/// What is known of a conversation without its tokens: their number, and how many of them the loss counts.
#[derive(Debug, Clone, Copy)]
struct Size {
    tokens: u32,
    weight: u32,
}

impl Size {
    fn of(conversation: &SftExample) -> Self {
        Self { tokens: conversation.ids.len() as u32, weight: conversation.weight() as u32 }
    }
}

/// Conversations of which an index is in memory; their tokens are on disk if there are many.
#[derive(Debug)]
pub struct SftStore {
    rows: ExampleStore,
    index: Vec<Entry>,
    sizes: Vec<Size>,
}

/// The place of a conversation.
#[derive(Debug, Clone, Copy)]
struct Entry {
    row: u32,
    response: u32,
    set: u32,
}

impl SftStore {
    /// Creates a store without conversations. `folder`: where a file goes if there are more than `limit` bytes.
    pub fn new(folder: &Path, limit: usize) -> Self {
        Self { rows: ExampleStore::new(folder, limit), index: Vec::new(), sizes: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, example: &Example) -> Result<(), setpoint_data::Error> {
        let row = self.rows.len() as u32;
        for response in 0..example.responses.len() {
            if let Some(conversation) = SftExample::of(example, response) {
                self.index.push(Entry { row, response: response as u32, set: conversation.set as u32 });
                self.sizes.push(Size::of(&conversation));
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
}

impl SftTask {
    /// Creates a task of conversations, each of which is made once here.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn new(conversations: impl Into<OnDemand<SftExample>>) -> Result<Self, Error> {
        let conversations = conversations.into();
        let sizes =
            conversations.iter().map(|conversation| Ok(Size::of(&conversation?))).collect::<Result<_, Error>>()?;
        Ok(Self { conversations, sizes })
    }

    /// Creates a task of the conversations of a store.
    pub fn stored(store: SftStore) -> Self {
        let SftStore { rows, index, sizes } = store;
        let conversation = move |example: usize| {
            let Entry { row, response, .. } = index[example];
            let row = rows.get(row as usize).map_err(Error::task)?;
            SftExample::of(&row, response as usize).ok_or_else(|| Error::task("a conversation has lost its tokens"))
        };
        Self { conversations: OnDemand::new(sizes.len(), conversation), sizes }
    }
}

impl Task for SftTask {
    type Model = CausalLm;
    type Probe = ();
    type Survey = ();

    fn len(&self) -> usize {
        self.sizes.len()
    }

    fn weight(&self, example: usize) -> f64 {
        f64::from(self.sizes[example].weight)
    }

    fn cost(&self, example: usize) -> usize {
        self.sizes[example].tokens as usize
    }

    fn forward(&self, model: &CausalLm, examples: &[usize], batch: &BatchContext<()>) -> Result<Forward, Error> {
        let read =
            examples.iter().map(|&example| self.conversations.get(example)).collect::<Result<Vec<_>, Error>>()?;
        let rows: Vec<(&[u32], &[bool])> =
            read.iter().map(|example| (example.ids.as_slice(), example.counted.as_slice())).collect();
        let logps = token_logps(model, &rows)?;
        let loss = weighted_sum(logps.sums.clone(), &vec![-1.0 / batch.denominator; rows.len()]);
        let (examples, counts) = (examples.to_vec(), logps.counts);
        let numbers = Unread::of(logps.sums).map(move |sums| {
            let per_example = sums.iter().zip(&counts).map(|(sum, &count)| (-sum / count as f64) as f32).collect();
            let mut responses = ResponseValues::default();
            for ((&example, &logp), &count) in examples.iter().zip(&sums).zip(&counts) {
                responses.push(example, [("tokens", count as f64), ("logp", logp)]);
            }
            PassNumbers { metrics: MetricSums::new(), per_example, responses }
        });
        Ok(Forward { loss, numbers, tape: logps.tape, second_tape: None })
    }

    fn describe(&self, example: usize) -> String {
        self.conversations.get(example).map_or_else(|_| format!("example {example}"), |example| example.name)
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
        let held: Vec<SftExample> = rows.iter().flat_map(SftExample::all).collect();
        let held = SftTask::new(held).unwrap();
        assert!(held.len() > 30 && held.len() < 60, "some are not learned: {}", held.len());
        for limit in [usize::MAX, 300] {
            let folder = tempfile::tempdir().unwrap();
            let mut store = SftStore::new(folder.path(), limit);
            rows.iter().for_each(|row| store.push(row).unwrap());
            assert_eq!(store.rows().has_file(), limit == 300);
            let sets = store.sets();
            let stored = SftTask::stored(store);
            assert_eq!((stored.len(), sets.len()), (held.len(), held.len()));
            for example in (0..held.len()).rev() {
                let (one, other) =
                    (held.conversations.get(example).unwrap(), stored.conversations.get(example).unwrap());
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

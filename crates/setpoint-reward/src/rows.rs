//! Rows of tokens as a packed batch: what several of them begin with alike is computed once.

use burn::tensor::Device;
use setpoint_transformer::{PackedIds, Packing, PrefixGroup, RopeSwitch, Text, group_by_prefix, pack};

/// Rows that go through the model together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The rows of the batch.
    pub(crate) rows: Vec<usize>,
    /// Tokens that all of them begin with, which are computed once.
    shared: usize,
    /// Tokens that go through the model.
    pub(crate) cost: usize,
}

/// Cuts rows, none of which is empty, into groups that begin alike; none costs more than `budget`, but for a single row that does. `switch` is
/// the model's.
pub(crate) fn groups<R: AsRef<[u32]>>(rows: &[R], budget: usize, switch: RopeSwitch) -> Vec<Group> {
    let is_long = |row: &[u32]| switch.is_long(row.len());
    // Sorted, rows that begin alike are neighbours.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| (is_long(rows[i].as_ref()), rows[i].as_ref()));
    let text = |&i: &usize| {
        let row = rows[i].as_ref();
        // The last token is the one that is scored.
        Text { beginning: &row[..row.len() - 1], tokens: row.len(), is_long: is_long(row) }
    };
    let texts: Vec<Text<'_>> = order.iter().map(text).collect();
    let group =
        |found: PrefixGroup| Group { rows: order[found.members].to_vec(), shared: found.shared, cost: found.cost };
    group_by_prefix(&texts, budget).into_iter().map(group).collect()
}

/// A packed batch of rows.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The tokens.
    pub(crate) ids: PackedIds,
    /// The tokens that belong together.
    pub(crate) packing: Packing,
    /// The place of each row's last token.
    pub(crate) last: Vec<usize>,
    /// The places of all tokens of each row.
    pub(crate) rows: Vec<RowPlaces>,
}

/// The places of the tokens of a row in a packed batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowPlaces {
    /// The number of its first tokens that it shares with other rows.
    shared: usize,
    /// The place of the first of these.
    beginning: usize,
    /// The place of the first of its own tokens.
    own: usize,
}

impl RowPlaces {
    /// Returns the place in the batch of the token at a position of the row.
    pub(crate) fn place(self, position: usize) -> usize {
        match position.checked_sub(self.shared) {
            Some(own) => self.own + own,
            None => self.beginning + position,
        }
    }
}

impl Packed {
    /// Packs rows, none of which is empty, for a model with this switch.
    pub(crate) fn new<R: AsRef<[u32]>>(rows: &[R], switch: RopeSwitch, device: &Device) -> Self {
        let mut builder = Packing::builder();
        let mut texts: Vec<&[u32]> = vec![];
        let mut last = vec![0; rows.len()];
        let mut places = vec![RowPlaces::default(); rows.len()];
        let mut tokens = 0;
        for group in groups(rows, usize::MAX, switch) {
            let shared = &rows[group.rows[0]].as_ref()[..group.shared];
            let beginning = tokens;
            let prefix = (!shared.is_empty()).then(|| {
                texts.push(shared);
                tokens += shared.len();
                builder.push(shared.len(), None)
            });
            for row in group.rows {
                let own = &rows[row].as_ref()[group.shared..];
                builder.push(own.len(), prefix);
                texts.push(own);
                places[row] = RowPlaces { shared: group.shared, beginning, own: tokens };
                tokens += own.len();
                last[row] = tokens - 1;
            }
        }
        Self { ids: pack(&texts, device), packing: builder.build(), last, rows: places }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt: u32, response: &[u32]) -> Vec<u32> {
        [&[prompt; 20], response].concat()
    }

    #[test]
    #[allow(deprecated)]
    fn rows_of_a_prompt_share_it_wherever_they_stand() {
        let rows = [row(1, &[5, 6]), row(2, &[5]), row(1, &[7]), row(1, &[5, 6])];
        let found = groups(&rows, 1000, RopeSwitch::default());
        // The two equal rows have all but their last token in common, but the third has the prompt alone.
        assert_eq!(found[0], Group { rows: vec![0, 3, 2], shared: 20, cost: 20 + 2 + 2 + 1 });
        assert_eq!(found[1], Group { rows: vec![1], shared: 0, cost: 21 });
        let packed = Packed::new(&rows, RopeSwitch::default(), &Device::flex());
        assert_eq!(packed.packing.tokens(), 25 + 21);
        assert_eq!(packed.last, [21, 45, 24, 23]);
        let ids: Vec<i64> = packed.ids.into_tensor().into_data().iter().collect();
        assert_eq!(packed.last.iter().map(|&place| ids[place]).collect::<Vec<_>>(), [6, 5, 7, 6]);
        for (row, places) in rows.iter().zip(&packed.rows) {
            let found: Vec<i64> = (0..row.len()).map(|position| ids[places.place(position)]).collect();
            assert_eq!(found, row.iter().map(|&id| i64::from(id)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn long_rows_share_nothing_with_short_ones() {
        let rows = [row(1, &[5, 6]), row(1, &[5]), row(1, &[7, 8]), row(1, &[9])];
        let found = groups(&rows, 1000, RopeSwitch::at(21));
        assert_eq!(found[0], Group { rows: vec![1, 3], shared: 20, cost: 20 + 2 });
        assert_eq!(found[1], Group { rows: vec![0, 2], shared: 20, cost: 20 + 2 * 2 });
    }
}

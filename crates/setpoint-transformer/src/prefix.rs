//! Texts that begin alike, if computing their beginning once for all of them is worth it.

use std::ops::Range;

/// Equal tokens at the beginning of texts from which on they are worth a segment of their own.
const SHARED: usize = 16;

/// One of several texts, of which neighbours may share what they begin with.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The part that may be shared: at most all but its last token. Empty if nothing may.
    pub beginning: &'a [u32],
    /// Tokens that go through the model for it.
    pub tokens: usize,
    /// True if it is beyond the model's [`RopeSwitch`](crate::RopeSwitch). Texts on different sides share nothing.
    pub is_long: bool,
}

/// Neighbours that go through the model together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixGroup {
    /// The texts.
    pub members: Range<usize>,
    /// Tokens at the beginning of every text that are computed once. 0 where there is one text.
    pub shared: usize,
    /// Tokens that go through the model.
    pub cost: usize,
}

/// Cuts texts, in their order, into the groups that cost the least in all. None costs more than `budget`, but for a single text that does.
///
/// Texts that begin alike must be neighbours: sorting by [`is_long`](Text::is_long) and tokens makes them so.
pub fn group_by_prefix(texts: &[Text<'_>], budget: usize) -> Vec<PrefixGroup> {
    let alike = |a: Text<'_>, b: Text<'_>| match a.is_long == b.is_long {
        true => a.beginning.iter().zip(b.beginning).take_while(|(a, b)| a == b).count(),
        false => 0,
    };
    // What each text has in common with the one behind it.
    let common: Vec<usize> = texts.windows(2).map(|pair| alike(pair[0], pair[1])).collect();
    // For so many texts from the first on: what they cost at the least, and the last group then.
    let mut least = vec![0];
    let mut last: Vec<PrefixGroup> = Vec::with_capacity(texts.len());
    for end in 1..=texts.len() {
        let alone = texts[end - 1].tokens;
        let mut best = PrefixGroup { members: end - 1..end, shared: 0, cost: alone };
        let (mut tokens, mut shared) = (alone, usize::MAX);
        for start in (0..end - 1).rev() {
            tokens += texts[start].tokens;
            shared = shared.min(common[start]);
            let cost = tokens - shared * (end - start - 1);
            // A larger group has no more in common, and costs no less.
            if shared < SHARED || cost > budget {
                break;
            }
            if least[start] + cost < least[best.members.start] + best.cost {
                best = PrefixGroup { members: start..end, shared, cost };
            }
        }
        least.push(least[best.members.start] + best.cost);
        last.push(best);
    }
    let mut groups = vec![];
    let mut end = texts.len();
    while end > 0 {
        let group = last[end - 1].clone();
        end = group.members.start;
        groups.push(group);
    }
    groups.reverse();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `common` tokens that depend on `subject` alone, 3 of its own and `rest` that nobody shares.
    struct Made {
        beginning: Vec<u32>,
        tokens: usize,
    }

    fn made(subject: u32, common: usize, own: u32, rest: usize) -> Made {
        let mut beginning = vec![subject; common];
        beginning.extend([own, own, own]);
        Made { tokens: beginning.len() + rest, beginning }
    }

    fn found(texts: &[Made], budget: usize) -> Vec<(Range<usize>, usize, usize)> {
        let texts: Vec<Text<'_>> = texts
            .iter()
            .map(|made| Text { beginning: &made.beginning, tokens: made.tokens, is_long: made.tokens > 70 })
            .collect();
        group_by_prefix(&texts, budget).into_iter().map(|f| (f.members, f.shared, f.cost)).collect()
    }

    #[test]
    fn texts_of_a_subject_share_their_beginning() {
        let (one, two) = (|own, rest| made(1, 40, own, rest), |own| made(2, 30, own, 1));
        let all = [one(5, 2), one(6, 1), one(7, 1), two(5), two(6)];
        // Three times three tokens and four behind 40, twice three and one behind 30.
        assert_eq!(found(&all, 1000), [(0..3, 40, 40 + 3 * 3 + 4), (3..5, 30, 30 + 2 * 3 + 2)]);
        // A budget that holds two texts of the first subject.
        assert_eq!(found(&all, 50), [(0..2, 40, 49), (2..3, 0, 44), (3..5, 30, 38)]);
    }

    #[test]
    fn long_texts_share_nothing_with_short_ones() {
        let all = [made(1, 40, 5, 1), made(1, 40, 6, 1), made(1, 40, 7, 28), made(1, 40, 8, 40)];
        assert_eq!(found(&all, 1000), [(0..2, 40, 40 + 2 * 4), (2..4, 40, 40 + 31 + 43)]);
    }

    #[test]
    fn a_shorter_beginning_is_taken_only_where_it_saves() {
        let short = |own: u32| {
            let mut text = made(1, 20, 8, 1);
            text.beginning[20] = own;
            text
        };
        let long = |own| made(1, 60, own, 1);
        assert_eq!(found(&[long(5), long(6), long(7), short(5)], 1000).len(), 2, "3 * 20 is less than 2 * 60");
        assert_eq!(found(&[long(5), short(6)], 1000), [(0..2, 20, 64 + 24 - 20)]);
        // The first has the short beginning in common with the rest, but the rest has more among itself.
        assert_eq!(found(&[short(5), long(6), long(7)], 1000), [(0..1, 0, 24), (1..3, 60, 128 - 60)]);
        // Too short to be worth a segment.
        assert_eq!(found(&[made(1, SHARED - 1, 5, 1), made(1, SHARED - 1, 6, 1)], 1000).len(), 2);
        assert_eq!(found(&[], 1000), []);
    }

    /// Beside every way to cut a few texts.
    #[test]
    fn no_other_cut_costs_less() {
        let texts: Vec<Made> = [(30, 1), (30, 2), (20, 3), (50, 4), (50, 4), (18, 5), (18, 6), (3, 7)]
            .into_iter()
            .map(|(common, own)| made(1, common, own, 2))
            .collect();
        let cost = |texts: &[Made]| {
            let shared =
                |text: &Made| texts[0].beginning.iter().zip(&text.beginning).take_while(|(a, b)| a == b).count();
            let shared = texts.iter().map(shared).min().unwrap();
            let tokens: usize = texts.iter().map(|text| text.tokens).sum();
            let cost = tokens - shared * (texts.len() - 1);
            (texts.len() == 1 || shared >= SHARED && cost <= 120).then_some(cost)
        };
        let cuts = (0..1 << (texts.len() - 1)).filter_map(|cuts: u32| {
            let mut start = 0;
            let mut total = 0;
            for end in 1..=texts.len() {
                if end == texts.len() || cuts & (1 << (end - 1)) != 0 {
                    total += cost(&texts[start..end])?;
                    start = end;
                }
            }
            Some(total)
        });
        let total: usize = found(&texts, 120).iter().map(|(_, _, cost)| cost).sum();
        assert_eq!(Some(total), cuts.min());
    }
}

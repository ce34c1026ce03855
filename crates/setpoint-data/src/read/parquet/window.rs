//! How many values of a column that holds lists fall into a few consecutive rows.

use std::collections::VecDeque;

/// Counts the values in a number of consecutive rows.
pub(super) struct Window {
    rows: VecDeque<u64>,
    size: usize,
    sum: u64,
}

impl Window {
    pub(super) fn new(size: usize) -> Self {
        Self { rows: VecDeque::with_capacity(size + 1), size, sum: 0 }
    }

    /// The number of rows.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    fn add(&mut self, repetition: u64, count: u64) {
        if repetition != 0 {
            // They belong to the row that is open.
            if self.rows.is_empty() {
                self.rows.push_back(0);
            }
            if let Some(row) = self.rows.back_mut() {
                *row += count;
            }
            self.sum += count;
            return;
        }
        for _ in 0..count.min(self.size as u64 + 1) {
            self.rows.push_back(1);
            self.sum += 1;
            if self.rows.len() > self.size {
                self.sum -= self.rows.pop_front().unwrap_or_default();
            }
        }
    }

    /// Reads the repetition levels of a page (runs and bit-packed groups); whether no window holds more than `most` values.
    pub(super) fn read(&mut self, mut levels: &[u8], bits: u32, values: u64, most: u64) -> bool {
        let mut left = values;
        let width = bits.div_ceil(8) as usize;
        while left > 0 {
            let Some((header, rest)) = varint(levels) else {
                // No levels, or broken ones, which the library reports: all of it could be one row.
                return self.sum.saturating_add(left) <= most;
            };
            levels = rest;
            if header & 1 == 0 {
                let count = (header >> 1).min(left);
                let Some((value, rest)) = levels.split_at_checked(width) else { return true };
                self.add(u64::from(value.iter().any(|b| *b != 0)), count);
                (levels, left) = (rest, left - count);
                if count == 0 {
                    return true;
                }
            } else {
                let bytes = ((header >> 1).saturating_mul(u64::from(bits))).min(levels.len() as u64) as usize;
                let (packed, rest) = levels.split_at(bytes);
                let count = (packed.len() as u64 * 8 / u64::from(bits.max(1))).min(left);
                for i in 0..count {
                    let from = i * u64::from(bits);
                    let set = (from..from + u64::from(bits)).any(|b| packed[(b / 8) as usize] >> (b % 8) & 1 == 1);
                    self.add(u64::from(set), 1);
                    if self.sum > most {
                        return false;
                    }
                }
                (levels, left) = (rest, left - count);
                if count == 0 {
                    return true;
                }
            }
            if self.sum > most {
                return false;
            }
        }
        true
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_consecutive_rows() {
        // Runs: 3 rows of one value each, then 10 more values of the third.
        let levels = [6, 0, 20, 1];
        let read = |most| Window::new(2).read(&levels, 1, 13, most);
        assert!(read(12) && !read(11), "the second row and the third");
        // Bit-packed: 0 1 1 1 0 1 1 1.
        let read = |most| Window::new(1).read(&[3, 0b1110_1110], 1, 8, most);
        assert!(read(4) && !read(3));
        // A row goes on in the next page.
        let mut window = Window::new(1);
        assert!(window.read(&[2, 0, 8, 1], 1, 5, 8) && !window.read(&[8, 1], 1, 4, 8));
        // Without levels all values could be in one row.
        assert!(!Window::new(1).read(&[], 1, 9, 8));
    }
}

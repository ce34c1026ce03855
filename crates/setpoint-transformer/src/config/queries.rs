/// The growth of queries along the text: after each `step` positions they have a larger factor, so that attention stays as sharp as in
/// shorter texts (Nakanishi, "Scalable-Softmax", <https://arxiv.org/abs/2501.19399>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QueryGrowth {
    pub(super) beta: f64,
    /// In positions.
    pub(super) step: usize,
}

impl QueryGrowth {
    /// Returns the factor of a query: `1 + beta · ln(1 + floor(position / step))`
    pub(crate) fn factor(self, position: usize) -> f64 {
        1.0 + self.beta * ((1 + position / self.step.max(1)) as f64).ln()
    }
}

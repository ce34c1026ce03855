/// The length beyond which a model computes a text with other rotary frequencies (LongRoPE), all of its tokens included.
///
/// A text counts with its last token, whether or not that goes through the model. The default is a model that has one set of frequencies for
/// all texts.
///
/// ```
/// use setpoint_transformer::RopeSwitch;
///
/// let switch = RopeSwitch::at(4096);
/// assert!(!switch.is_long(4096) && switch.is_long(4097));
/// assert!(!RopeSwitch::default().is_long(usize::MAX));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RopeSwitch(Option<usize>);

impl RopeSwitch {
    /// Returns the switch of a model whose texts are long beyond `tokens` tokens.
    pub fn at(tokens: usize) -> Self {
        Self(Some(tokens))
    }

    /// Returns the number of tokens up to which a text has the first set of frequencies; `None` if there is no second one.
    pub fn tokens(self) -> Option<usize> {
        self.0
    }

    /// Returns whether a text of `tokens` tokens has the second set of frequencies.
    pub fn is_long(self, tokens: usize) -> bool {
        self.0.is_some_and(|most| tokens > most)
    }
}

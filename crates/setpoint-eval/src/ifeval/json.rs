//! The texts that Python's `json.loads` takes.

/// Digits of the longest whole number that Python converts.
const LONGEST_NUMBER: usize = 4300;

/// Returns whether `json.loads` reads the text. Unlike the standard it takes `NaN`, `Infinity` and single surrogates.
pub(super) fn is_json(text: &str) -> bool {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    scanner.document().is_some()
}

/// The containers around the current place.
#[derive(Clone, Copy, PartialEq)]
enum Container {
    Array,
    Object,
}

struct Scanner<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Reads the whole text. Without recursion, so that nothing a model writes can exhaust the stack.
    fn document(&mut self) -> Option<()> {
        let mut open: Vec<Container> = Vec::new();
        loop {
            self.skip_space();
            let opened = match self.peek()? {
                b'{' => Some(Container::Object),
                b'[' => Some(Container::Array),
                _ => None,
            };
            match opened {
                Some(container) => {
                    self.at += 1;
                    self.skip_space();
                    if self.take(closing(container)) {
                        // An empty container is a value like any other.
                    } else {
                        open.push(container);
                        if container == Container::Object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                None => self.scalar()?,
            }
            // Behind a value: the next one, or the ends of containers.
            loop {
                self.skip_space();
                let Some(&container) = open.last() else {
                    return (self.at == self.bytes.len()).then_some(());
                };
                if self.take(b',') {
                    if container == Container::Object {
                        self.skip_space();
                        self.key()?;
                    }
                    break;
                }
                if !self.take(closing(container)) {
                    return None;
                }
                open.pop();
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        self.string()?;
        self.skip_space();
        self.take(b':').then_some(())
    }

    fn scalar(&mut self) -> Option<()> {
        for word in ["null", "true", "false", "NaN", "Infinity", "-Infinity"] {
            if self.bytes[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Some(());
            }
        }
        if self.peek()? == b'"' { self.string() } else { self.number() }
    }

    fn string(&mut self) -> Option<()> {
        if !self.take(b'"') {
            return None;
        }
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => {
                    let escape = self.peek()?;
                    self.at += 1;
                    match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            let digits = self.bytes.get(self.at..self.at + 4)?;
                            if !digits.iter().all(u8::is_ascii_hexdigit) {
                                return None;
                            }
                            self.at += 4;
                        }
                        _ => return None,
                    }
                }
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        self.take(b'-');
        let whole = match self.peek()? {
            b'0' => {
                self.at += 1;
                1
            }
            b'1'..=b'9' => self.digits(),
            _ => return None,
        };
        let begin = self.at;
        if self.take(b'.') && self.digits() == 0 {
            self.at = begin;
        }
        let behind_fraction = self.at;
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            if self.digits() == 0 {
                self.at = behind_fraction;
            }
        }
        (self.at > begin || whole <= LONGEST_NUMBER).then_some(())
    }

    /// Reads digits and returns their number.
    fn digits(&mut self) -> usize {
        let count = self.bytes[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }
}

fn closing(container: Container) -> u8 {
    match container {
        Container::Array => b']',
        Container::Object => b'}',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_what_python_loads() {
        // Each was tried with json.loads of Python 3.11.
        for text in [
            "{}",
            "[]",
            " [1, -0.5e+3, 1E5, null, true, \"a\\u00e9\\ud800\"] ",
            "{\"a\": {\"b\": []}, \"a\": 2}",
            "NaN",
            "-Infinity",
            "\"\u{7f}\u{2028}\"",
            "0",
            "[[[]], {}]",
            "1e999",
        ] {
            assert!(is_json(text), "{text}");
        }
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\": 1,}",
            "{a: 1}",
            "{'a': 1}",
            "01",
            "1.",
            ".5",
            "-",
            "1e",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "[] []",
            "\u{feff}{}",
            "\u{a0}1",
            "{\"a\" 1}",
            "[}",
            "nul",
            "{\"a\":1]",
        ] {
            assert!(!is_json(text), "{text}");
        }
        assert!(
            is_json(&"9".repeat(4300)) && !is_json(&"9".repeat(4301)) && is_json(&format!("{}.0", "9".repeat(4301)))
        );
    }

    #[test]
    fn depth_is_bounded_by_memory_alone() {
        let deep = 1_000_000;
        assert!(is_json(&("[".repeat(deep) + &"]".repeat(deep))));
        assert!(!is_json(&"[".repeat(deep)));
    }
}

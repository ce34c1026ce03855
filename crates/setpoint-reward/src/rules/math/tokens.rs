//! The tokens of a mathematical answer, in LaTeX or as plain text.

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A decimal number without its commas: digits, and a fraction after a point.
    Number(String),
    /// A variable, or a constant such as `pi`.
    Name(String),
    /// A function of one argument, or `frac` and `sqrt`.
    Function(String),
    /// `+ - * / ^ ! % = < > |` and the like.
    Sign(char),
    /// An opening bracket, `{` for a group of LaTeX and `s` for a set.
    Open(char),
    /// The closing bracket of the same kind.
    Close(char),
    /// Between the entries of a list.
    Comma,
    /// `±`.
    PlusMinus,
}

/// Functions of one argument by their names, in LaTeX and in plain text.
const FUNCTIONS: &[&str] = &["sin", "cos", "tan", "arcsin", "arccos", "arctan", "log", "ln", "exp", "sqrt", "abs"];

/// Spaces and other commands of LaTeX without a meaning for the value.
const SPACING: &[&str] =
    &["left", "right", "quad", "qquad", "displaystyle", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "circ", "degree"];

/// Commands whose argument is a text, such as a unit.
const TEXTS: &[&str] = &["text", "textbf", "textit", "mathrm", "mathbf", "mbox", "operatorname"];

/// The most tokens of an answer: the depth of an expression is bounded by it.
const MOST: usize = 500;

/// Cuts an answer into tokens; `None` if something in it is no mathematics, or there are too many.
///
/// Texts of LaTeX (`\text{ cm}`) are left out.
pub(super) fn tokenize(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = match c {
            '\\' => command(rest, &mut tokens)?,
            '0'..='9' | '.' => number(rest, &mut tokens)?,
            _ if c.is_whitespace() || matches!(c, '$' | '~' | '°' | '&') => &rest[c.len_utf8()..],
            _ if c.is_alphabetic() => word(rest, &mut tokens)?,
            _ => {
                tokens.push(match c {
                    '+' | '*' | '/' | '^' | '!' | '=' | '<' | '>' | '|' | '%' => Token::Sign(c),
                    '-' | '\u{2212}' | '\u{2013}' => Token::Sign('-'),
                    '×' | '·' | '⋅' => Token::Sign('*'),
                    '÷' => Token::Sign('/'),
                    '≤' | '≥' => Token::Sign(c),
                    '√' => Token::Function("sqrt".to_owned()),
                    '∞' => Token::Name("infty".to_owned()),
                    '±' => Token::PlusMinus,
                    '∪' => Token::Sign('∪'),
                    ',' | ';' => Token::Comma,
                    '(' | '[' | '{' => Token::Open(c),
                    ')' => Token::Close('('),
                    ']' => Token::Close('['),
                    '}' => Token::Close('{'),
                    _ => return None,
                });
                &rest[c.len_utf8()..]
            }
        };
    }
    (tokens.len() <= MOST).then_some(tokens)
}

/// Reads a command of LaTeX; returns what follows it.
fn command<'a>(text: &'a str, tokens: &mut Vec<Token>) -> Option<&'a str> {
    let after = &text[1..];
    let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
    if letters == 0 {
        let c = after.chars().next()?;
        match c {
            '{' => tokens.push(Token::Open('s')),
            '}' => tokens.push(Token::Close('s')),
            '%' => tokens.push(Token::Sign('%')),
            '$' | '!' | ',' | ';' | ':' | ' ' | '\\' | '(' | ')' | '[' | ']' => {}
            _ => return None,
        }
        return Some(&after[c.len_utf8()..]);
    }
    let (name, after) = after.split_at(letters);
    let token = match name {
        "frac" | "dfrac" | "tfrac" | "cfrac" => Token::Function("frac".to_owned()),
        "cdot" | "times" => Token::Sign('*'),
        "div" => Token::Sign('/'),
        "pm" => Token::PlusMinus,
        "cup" => Token::Sign('∪'),
        "le" | "leq" | "leqslant" => Token::Sign('≤'),
        "ge" | "geq" | "geqslant" => Token::Sign('≥'),
        "lt" => Token::Sign('<'),
        "gt" => Token::Sign('>'),
        "lbrace" => Token::Open('s'),
        "rbrace" => Token::Close('s'),
        "infty" | "pi" | "emptyset" => Token::Name(name.to_owned()),
        _ if FUNCTIONS.contains(&name) => Token::Function(name.to_owned()),
        _ if SPACING.contains(&name) => {
            // "^\circ" is the sign of degrees.
            let degrees = matches!(name, "circ" | "degree");
            if degrees && tokens.last() == Some(&Token::Sign('^')) {
                tokens.pop();
            } else if degrees && tokens.ends_with(&[Token::Sign('^'), Token::Open('{')]) {
                tokens.truncate(tokens.len() - 2);
                return after.trim_start().strip_prefix('}');
            }
            return Some(after);
        }
        _ if TEXTS.contains(&name) => {
            let inside = after.trim_start().strip_prefix('{')?;
            return inside.split_once('}').map(|(_, after)| after);
        }
        // Greek letters and the like are variables.
        _ if name.len() > 1 => Token::Name(format!("\\{name}")),
        _ => return None,
    };
    tokens.push(token);
    // "\frac12" is "\frac{1}{2}" and "\sqrt2x" is "\sqrt{2}x".
    let arguments = match name {
        "frac" | "dfrac" | "tfrac" | "cfrac" => 2,
        "sqrt" => 1,
        _ => 0,
    };
    let mut after = after;
    for _ in 0..arguments {
        let Some(c) = after.trim_start().chars().next().filter(char::is_ascii_alphanumeric) else { break };
        let value = if c.is_ascii_digit() { Token::Number(c.into()) } else { Token::Name(c.into()) };
        tokens.extend([Token::Open('{'), value, Token::Close('{')]);
        after = &after.trim_start()[1..];
    }
    Some(after)
}

/// Reads a number with its thousands commas, as in `1,234.5` and `1{,}234`.
fn number<'a>(text: &'a str, tokens: &mut Vec<Token>) -> Option<&'a str> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let first = digits(text);
    let (mut found, mut rest) = (text[..first].to_owned(), &text[first..]);
    if (1..=3).contains(&first) {
        while let Some(group) = [",", "{,}", "\\,", "\\!", "{,}\\!", ",\\!"].iter().find_map(|comma| {
            let group = rest.strip_prefix(comma)?;
            (digits(group) == 3).then_some(group)
        }) {
            found.push_str(&group[..3]);
            rest = &group[3..];
        }
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if count == 0 {
            return None;
        }
        found.push('.');
        found.push_str(&fraction[..count]);
        rest = &fraction[count..];
    }
    // "3e-2" is a number; "3e" and "3e^2" are multiples of Euler's number.
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let (sign, exponent) = match exponent.strip_prefix(['-', '+']) {
            Some(rest) => (&exponent[..1], rest),
            None => ("+", exponent),
        };
        let count = digits(exponent);
        if count > 0 {
            let sign = Token::Sign(if sign == "-" { '-' } else { '+' });
            let ten = [Token::Sign('*'), Token::Number("10".to_owned()), Token::Sign('^'), Token::Open('{'), sign];
            tokens.extend([Token::Open('('), Token::Number(found)]);
            tokens.extend(ten);
            tokens.extend([Token::Number(exponent[..count].to_owned()), Token::Close('{'), Token::Close('(')]);
            return Some(&exponent[count..]);
        }
    }
    tokens.push(Token::Number(found));
    Some(rest)
}

/// Reads a word: a function, a constant, or one or two variables. Other words are no mathematics.
fn word<'a>(text: &'a str, tokens: &mut Vec<Token>) -> Option<&'a str> {
    let end = text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match name {
        "pi" | "π" => tokens.push(Token::Name("pi".to_owned())),
        "infinity" | "oo" => tokens.push(Token::Name("infty".to_owned())),
        _ if FUNCTIONS.contains(&name) => tokens.push(Token::Function(name.to_owned())),
        // Longer words are words: "cat" is not the product of its letters, which "act" would be as well.
        _ if name.chars().count() <= 2 => tokens.extend(name.chars().map(|c| Token::Name(c.into()))),
        _ => return None,
    }
    Some(rest)
}

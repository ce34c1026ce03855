//! Mathematical expressions: their grammar, and their values.

use std::collections::BTreeSet;

use super::rational::Rational;
use super::tokens::Token;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    /// A number as it is written.
    Number(String),
    /// A variable or constant.
    Name(String),
    Sum(Box<Expression>, Box<Expression>),
    Product(Box<Expression>, Box<Expression>),
    Quotient(Box<Expression>, Box<Expression>),
    Power(Box<Expression>, Box<Expression>),
    Negative(Box<Expression>),
    Factorial(Box<Expression>),
    /// A function by its name.
    Function(String, Box<Expression>),
}

/// The deepest nesting that is read: an answer of a million brackets must not exhaust the stack.
const DEPTH: usize = 64;

/// Reads an expression from all of some tokens; `None` if they are none.
pub(super) fn parse(tokens: &[Token]) -> Option<Expression> {
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let found = parser.sum()?;
    (parser.at == tokens.len()).then_some(found)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn sum(&mut self) -> Option<Expression> {
        self.depth += 1;
        if self.depth > DEPTH {
            return None;
        }
        let mut found = self.product()?;
        loop {
            if self.take(&Token::Sign('+')) {
                found = Expression::Sum(found.into(), self.product()?.into());
            } else if self.take(&Token::Sign('-')) {
                found = Expression::Sum(found.into(), Expression::Negative(self.product()?.into()).into());
            } else {
                self.depth -= 1;
                return Some(found);
            }
        }
    }

    fn product(&mut self) -> Option<Expression> {
        let mut found = self.signed()?;
        loop {
            if self.take(&Token::Sign('*')) {
                found = Expression::Product(found.into(), self.signed()?.into());
            } else if self.take(&Token::Sign('/')) {
                found = Expression::Quotient(found.into(), self.signed()?.into());
            } else if matches!(self.peek(), Some(Token::Name(_) | Token::Function(_) | Token::Open('(' | '[' | '{'))) {
                let mixed = self.is_mixed_number(&found);
                let next = self.power()?;
                // "2\frac{1}{2}" is 2.5, and "2x" and "2\sqrt{3}" are products.
                found = if mixed {
                    Expression::Sum(found.into(), next.into())
                } else {
                    Expression::Product(found.into(), next.into())
                };
            } else {
                return Some(found);
            }
        }
    }

    /// Returns whether a whole number is followed by a fraction of whole numbers.
    fn is_mixed_number(&self, before: &Expression) -> bool {
        let whole = |token: Option<&Token>| matches!(token, Some(Token::Number(digits)) if !digits.contains('.'));
        let next = |offset: usize| self.tokens.get(self.at + offset);
        matches!(before, Expression::Number(digits) if !digits.contains('.'))
            && next(0) == Some(&Token::Function("frac".to_owned()))
            && whole(next(2))
            && next(3) == Some(&Token::Close('{'))
            && whole(next(5))
            && next(6) == Some(&Token::Close('{'))
    }

    fn signed(&mut self) -> Option<Expression> {
        let mut negative = false;
        loop {
            if self.take(&Token::Sign('-')) {
                negative = !negative;
            } else if !self.take(&Token::Sign('+')) {
                let found = self.power()?;
                return Some(if negative { Expression::Negative(found.into()) } else { found });
            }
        }
    }

    fn power(&mut self) -> Option<Expression> {
        let mut base = self.atom()?;
        while self.take(&Token::Sign('!')) {
            base = Expression::Factorial(base.into());
        }
        if !self.take(&Token::Sign('^')) {
            return Some(base);
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return None;
        }
        // To the right: a^b^c is a^(b^c).
        let exponent = self.signed()?;
        self.depth -= 1;
        Some(Expression::Power(base.into(), exponent.into()))
    }

    fn atom(&mut self) -> Option<Expression> {
        let token = self.peek()?.clone();
        self.at += 1;
        match token {
            Token::Number(digits) => Some(Expression::Number(digits)),
            Token::Name(name) => Some(Expression::Name(name)),
            Token::Open(kind @ ('(' | '[' | '{')) => {
                let found = self.sum()?;
                self.take(&Token::Close(kind)).then_some(found)
            }
            Token::Sign('|') => {
                let found = self.sum()?;
                self.take(&Token::Sign('|')).then(|| Expression::Function("abs".to_owned(), found.into()))
            }
            Token::Function(name) => self.function(name),
            _ => None,
        }
    }

    fn function(&mut self, name: String) -> Option<Expression> {
        match name.as_str() {
            "frac" => {
                let above = self.group()?;
                Some(Expression::Quotient(above.into(), self.group()?.into()))
            }
            "sqrt" if self.peek() == Some(&Token::Open('[')) => {
                // \sqrt[3]{x}
                let degree = self.atom()?;
                let inverse = Expression::Quotient(Expression::Number("1".to_owned()).into(), degree.into());
                Some(Expression::Power(self.group()?.into(), inverse.into()))
            }
            _ => {
                self.depth += 1;
                if self.depth > DEPTH {
                    return None;
                }
                // \sin^2 x
                let power = self.take(&Token::Sign('^')).then(|| self.atom());
                let argument = match self.peek() {
                    Some(Token::Open(_)) => self.atom()?,
                    _ => self.bare_argument(&name)?,
                };
                self.depth -= 1;
                let found = Expression::Function(name, argument.into());
                match power {
                    Some(exponent) => Some(Expression::Power(found.into(), exponent?.into())),
                    None => Some(found),
                }
            }
        }
    }

    /// Reads an argument without brackets: one number or name for a root, else all that follow, as in `sin 2x`.
    fn bare_argument(&mut self, name: &str) -> Option<Expression> {
        let mut found = self.atom()?;
        while name != "sqrt" && matches!(self.peek(), Some(Token::Name(_) | Token::Number(_))) {
            found = Expression::Product(found.into(), self.atom()?.into());
        }
        Some(found)
    }

    /// Reads `{…}`.
    fn group(&mut self) -> Option<Expression> {
        matches!(self.peek(), Some(Token::Open('{'))).then(|| self.atom())?
    }
}

impl Expression {
    /// Adds the names of its variables.
    pub(super) fn variables(&self, found: &mut BTreeSet<String>) {
        match self {
            Self::Number(_) => {}
            Self::Name(name) => {
                if !matches!(name.as_str(), "pi" | "infty" | "e") {
                    found.insert(name.clone());
                }
            }
            Self::Negative(one) | Self::Factorial(one) | Self::Function(_, one) => one.variables(found),
            Self::Sum(a, b) | Self::Product(a, b) | Self::Quotient(a, b) | Self::Power(a, b) => {
                a.variables(found);
                b.variables(found);
            }
        }
    }

    /// Computes the value exactly; `None` if it is no rational number, or too large for one.
    pub(super) fn exact(&self) -> Option<Rational> {
        match self {
            Self::Number(digits) => Rational::parse(digits),
            Self::Sum(a, b) => a.exact()?.plus(b.exact()?),
            Self::Product(a, b) => a.exact()?.times(b.exact()?),
            Self::Quotient(a, b) => a.exact()?.divided_by(b.exact()?),
            Self::Power(base, exponent) => base.exact()?.to_the(exponent.exact()?),
            Self::Negative(one) => one.exact()?.negative(),
            Self::Factorial(one) => one.exact()?.factorial(),
            Self::Function(name, one) => match name.as_str() {
                "sqrt" => one.exact()?.square_root(),
                "abs" => one.exact()?.magnitude(),
                _ => None,
            },
            Self::Name(_) => None,
        }
    }

    /// Computes the value in f64; NaN where it has none.
    pub(super) fn value(&self, variable: &dyn Fn(&str) -> f64) -> f64 {
        match self {
            Self::Number(digits) => digits.parse().unwrap_or(f64::NAN),
            Self::Name(name) => match name.as_str() {
                "pi" => std::f64::consts::PI,
                "e" => std::f64::consts::E,
                "infty" => f64::INFINITY,
                _ => variable(name),
            },
            Self::Sum(a, b) => a.value(variable) + b.value(variable),
            Self::Product(a, b) => a.value(variable) * b.value(variable),
            Self::Quotient(a, b) => a.value(variable) / b.value(variable),
            Self::Power(a, b) => real_power(a.value(variable), b.value(variable), b.exact()),
            Self::Negative(one) => -one.value(variable),
            Self::Factorial(one) => {
                let n = one.value(variable);
                let whole = (0.0..=170.0).contains(&n) && n.fract() == 0.0;
                if whole { (1..=n as u32).map(f64::from).product() } else { f64::NAN }
            }
            Self::Function(name, one) => {
                let x = one.value(variable);
                match name.as_str() {
                    "sin" => x.sin(),
                    "cos" => x.cos(),
                    "tan" => x.tan(),
                    "arcsin" => x.asin(),
                    "arccos" => x.acos(),
                    "arctan" => x.atan(),
                    "log" | "ln" => x.ln(),
                    "exp" => x.exp(),
                    "sqrt" => x.sqrt(),
                    "abs" => x.abs(),
                    _ => f64::NAN,
                }
            }
        }
    }
}

/// Computes a power; an odd root of a negative number is the real one.
fn real_power(base: f64, exponent: f64, exact: Option<Rational>) -> f64 {
    match exact.map(Rational::parts) {
        Some((numerator, denominator)) if base < 0.0 && denominator % 2 == 1 => {
            let power = (-base).powf(exponent);
            if numerator % 2 == 0 { power } else { -power }
        }
        _ => base.powf(exponent),
    }
}

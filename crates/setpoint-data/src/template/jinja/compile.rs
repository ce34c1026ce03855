//! Templates as instructions of the engine, with every instruction replaced that could do unbounded work.
//!
//! The engine charges a rendering for its instructions and for the bytes it makes. It does not charge for walking a value: for
//! printing, comparing or hashing lists within lists. Nor does it notice a namespace that contains itself. So the operators that
//! walk values become calls of the functions in `operators`, which do notice. The engine offers no way to replace an operator;
//! its `unstable_machinery` lets the compiled instructions be rewritten. The version is pinned for that reason.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

use super::value::over_budget;

/// Longest source in bytes. Published templates have some 20,000.
const MAX_SOURCE: usize = 512 * 1024;
/// Most tokens within one pair of delimiters: the depth of an expression is at most this.
const MAX_TOKENS: usize = 4096;
/// Longest name in bytes: looking it up is not charged for.
const MAX_NAME: usize = 1024;
/// Most `elif` in a template: each is a level of nesting.
const MAX_ELIF: usize = 512;

/// Most bytes of constants that are multiplied while the template is compiled.
const MAX_CONSTANTS: f64 = 4_000_000.0;

const NAME: &str = "chat_template";

/// A template as instructions.
pub(super) struct Program {
    pub(super) main: Instructions<'static>,
    pub(super) blocks: BTreeMap<&'static str, Instructions<'static>>,
    /// The attributes of namespaces that the template sets, with the names of the functions that do so.
    pub(super) assignments: BTreeSet<Assignment>,
}

/// `{% set name.attribute = … %}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Assignment {
    pub(super) function: &'static str,
    pub(super) name: &'static str,
    pub(super) attribute: &'static str,
}

/// Compiles a template. The caller provides enough stack for the nesting that the limits allow.
pub(super) fn compile(source: &str, syntax: &SyntaxConfig) -> Result<Program, Error> {
    check_size(source, syntax)?;
    let source = intern(source);
    let tree = parse(source, NAME, syntax.clone())?;
    let mut generator = CodeGenerator::new(NAME, source);
    generator.compile_stmt(&tree);
    let (mut main, mut blocks) = generator.finish();
    let mut assignments = BTreeSet::new();
    main = rewrite(&main, source, &mut assignments)?;
    for block in blocks.values_mut() {
        *block = rewrite(block, source, &mut assignments)?;
    }
    Ok(Program { main, blocks, assignments })
}

/// Refuses a source whose tree would be too deep, or whose constants the engine would multiply while it compiles.
fn check_size(source: &str, syntax: &SyntaxConfig) -> Result<(), Error> {
    if source.len() > MAX_SOURCE {
        return Err(over_budget());
    }
    let (mut tag, mut elifs, mut constants) = (Tag::default(), 0, 0.0);
    for token in tokenize(source, false, syntax.clone()) {
        let (token, span) = token?;
        match token {
            Token::VariableStart | Token::BlockStart | Token::TemplateData(_) => {
                constants += tag.constants();
                tag = Tag { start: span.start_offset, ..Tag::default() };
            }
            Token::Ident("elif") => elifs += 1,
            Token::Ident(name) if name.len() > MAX_NAME => return Err(over_budget()),
            Token::Mul => tag.times = true,
            Token::BracketOpen => tag.bracket = true,
            Token::Pow => tag.power = true,
            Token::Int(n) => tag.factor(n as f64),
            Token::Int128(n) => tag.factor(*n as f64),
            _ => {}
        }
        tag.tokens += 1;
        tag.end = span.end_offset;
        if tag.tokens > MAX_TOKENS || elifs > MAX_ELIF {
            return Err(over_budget());
        }
    }
    if constants + tag.constants() > MAX_CONSTANTS { Err(over_budget()) } else { Ok(()) }
}

/// The content of one pair of delimiters.
#[derive(Default)]
struct Tag {
    start: u32,
    end: u32,
    tokens: usize,
    times: bool,
    bracket: bool,
    power: bool,
    product: f64,
    largest: f64,
}

impl Tag {
    fn factor(&mut self, n: f64) {
        self.product = self.product.max(1.0) * n.max(1.0);
        self.largest = self.largest.max(n);
    }

    /// Bytes that lists of this tag may have once they are multiplied. The engine evaluates `[1] * 100000000` when it compiles.
    fn constants(&self) -> f64 {
        if !(self.times && self.bracket) {
            return 0.0;
        }
        let factor = if self.power { self.product.powf(self.largest) } else { self.product };
        factor * f64::from(self.end - self.start)
    }
}

/// A text that lives as long as the program: instructions borrow from their source. Each text is kept once.
fn intern(text: &str) -> &'static str {
    static TEXTS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let texts = texts.get_or_insert_default();
    if let Some(known) = texts.get(text) {
        return known;
    }
    let kept: &'static str = Box::leak(text.into());
    texts.insert(kept);
    kept
}

/// The instructions with the operators replaced, and jumps to where their targets have moved.
fn rewrite(
    old: &Instructions<'static>,
    source: &'static str,
    assignments: &mut BTreeSet<Assignment>,
) -> Result<Instructions<'static>, Error> {
    let all = (0..).map_while(|at| old.get(at));
    let targets: BTreeSet<u32> = all.filter_map(target).collect();
    let pairs = (0..).map_while(|at| old.get(at).zip(old.get(at + 1)));
    let set = pairs.filter_map(|pair| match pair {
        (Instruction::Lookup(name), Instruction::SetAttr(_)) => Some(*name),
        _ => None,
    });
    let set: BTreeSet<&'static str> = set.collect();
    let mut new = Instructions::new(NAME, source);
    let mut moved = Vec::new();
    let mut count = 0;
    let mut at = 0;
    while old.get(at).is_some() {
        moved.push(count);
        for replacement in replace(old, at, &targets, &set, assignments)? {
            count = 1 + match (old.get_span(at), old.get_line(at)) {
                (Some(span), _) => new.add_with_span(replacement, span),
                (None, Some(line)) => new.add_with_line(replacement, u16::try_from(line).unwrap_or(u16::MAX)),
                (None, None) => new.add(replacement),
            };
        }
        at += 1;
    }
    moved.push(count);
    for at in 0..count {
        let to = new.get(at).and_then(target).map(|to| moved.get(to as usize).copied().unwrap_or(count));
        if let (
            Some(to),
            Some(
                Instruction::Jump(slot)
                | Instruction::JumpIfFalse(slot)
                | Instruction::JumpIfFalseOrPop(slot)
                | Instruction::JumpIfTrueOrPop(slot)
                | Instruction::Iterate(slot)
                | Instruction::BuildMacro(_, slot, _),
            ),
        ) = (to, new.get_mut(at))
        {
            *slot = to;
        }
    }
    Ok(new)
}

/// The instruction to which this one can jump.
fn target(instruction: &Instruction<'static>) -> Option<u32> {
    use Instruction::{BuildMacro, Iterate, Jump, JumpIfFalse, JumpIfFalseOrPop, JumpIfTrueOrPop};
    match instruction {
        Jump(to)
        | JumpIfFalse(to)
        | JumpIfFalseOrPop(to)
        | JumpIfTrueOrPop(to)
        | Iterate(to)
        | BuildMacro(_, to, _) => Some(*to),
        _ => None,
    }
}

/// An identifier for filters that are not cached.
const UNCACHED: u8 = u8::MAX;

fn call(function: &'static str, arguments: u16) -> Instruction<'static> {
    Instruction::ApplyFilter(function, Some(arguments), UNCACHED)
}

fn replace(
    code: &Instructions<'static>,
    at: u32,
    targets: &BTreeSet<u32>,
    set: &BTreeSet<&'static str>,
    assignments: &mut BTreeSet<Assignment>,
) -> Result<Vec<Instruction<'static>>, Error> {
    use Instruction as I;
    let Some(instruction) = code.get(at) else { return Ok(Vec::new()) };
    let before = at.checked_sub(1).and_then(|i| code.get(i));
    let count = |n: usize| u16::try_from(n).map_err(|_| over_budget());
    Ok(match instruction {
        I::StringConcat => vec![call("~", 2)],
        I::Add => vec![call("+", 2)],
        I::Mul => vec![call("*", 2)],
        I::Rem => vec![call("%", 2)],
        I::Eq => vec![call("==", 2)],
        I::Ne => vec![call("!=", 2)],
        I::Lt => vec![call("<", 2)],
        I::Lte => vec![call("<=", 2)],
        I::Gt => vec![call(">", 2)],
        I::Gte => vec![call(">=", 2)],
        I::In => vec![call("<in>", 2)],
        // The comparison's result on top of its right side.
        I::CompareAndPreserve(op) => {
            let function = intern(&format!("keep:{op:?}"));
            vec![call(function, 2), I::UnpackList(2)]
        }
        I::Slice => vec![call("[:]", 4)],
        // A list as a key would be hashed, and an index of a text counts its characters. A short constant text is harmless.
        I::GetItem => match before {
            Some(I::LoadConst(key)) if !targets.contains(&at) && key.as_str().is_some_and(|k| k.len() <= MAX_NAME) => {
                vec![I::GetItem]
            }
            _ => vec![call("[.]", 2)],
        },
        I::BuildList(Some(n)) => vec![call("[]", count(*n)?)],
        I::BuildList(None) => vec![I::ApplyFilter("[]", None, UNCACHED)],
        I::BuildTuple(Some(n)) => vec![call("()", count(*n)?)],
        I::BuildTuple(None) => vec![I::ApplyFilter("()", None, UNCACHED)],
        I::BuildMap(n) => vec![call("{}", count(2 * n)?)],
        // It compares its arguments with those of the last round.
        I::CallMethod("changed", Some(n)) => vec![call("<changed>", *n)],
        I::CallMethod("changed", None) => vec![I::ApplyFilter("<changed>", None, UNCACHED)],
        // The engine does not see that a macro which sets an attribute of a namespace needs the namespace.
        I::GetClosure => set.iter().map(|name| I::Enclose(name)).chain([I::GetClosure]).collect(),
        I::Lookup(name) => match code.get(at + 1) {
            Some(I::SetAttr(attribute)) => {
                let function = intern(&format!("{name}.{attribute}="));
                assignments.insert(Assignment { function, name, attribute });
                vec![call(function, 1), I::DiscardTop]
            }
            _ => vec![instruction.clone()],
        },
        I::SetAttr(_) => match before {
            // Done by the instruction before.
            Some(I::Lookup(_)) => Vec::new(),
            _ => return Err(Error::new(ErrorKind::SyntaxError, "only an attribute of a name can be set")),
        },
        other => vec![other.clone()],
    })
}

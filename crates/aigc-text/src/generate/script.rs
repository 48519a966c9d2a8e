//! Patterns of JSON schemas, which are JavaScript's, as regular expressions of strings as JSON writes them.

use super::schema::{CHARACTER, COUNT, either, escaped, times};

/// Characters with a short escape, and its letter.
const ESCAPES: [(char, char); 7] =
    [('"', '"'), ('\\', '\\'), ('\n', 'n'), ('\r', 'r'), ('\t', 't'), ('\u{8}', 'b'), ('\u{c}', 'f')];
/// JavaScript's classes.
const DECIMALS: &[(char, char)] = &[('0', '9')];
const WORDS: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
const SPACES: &[(char, char)] = &[
    ('\t', '\r'),
    (' ', ' '),
    ('\u{a0}', '\u{a0}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{2000}', '\u{200a}'),
    ('\u{2028}', '\u{2029}'),
    ('\u{202f}', '\u{202f}'),
    ('\u{205f}', '\u{205f}'),
    ('\u{3000}', '\u{3000}'),
    ('\u{feff}', '\u{feff}'),
];
const LINE_ENDS: &[(char, char)] = &[('\n', '\n'), ('\r', '\r'), ('\u{2028}', '\u{2029}')];
/// Groups inside of each other.
const GROUPS: usize = 20;

/// A part of a class of characters.
enum Part {
    Range(char, char),
    /// One of these ranges.
    Within(&'static [(char, char)]),
    /// None of these ranges.
    Without(&'static [(char, char)]),
    /// Of Unicode, as it is written.
    Property(String),
}

impl Part {
    /// Whether a character is of it, where that can be said.
    fn holds(&self, c: char) -> Option<bool> {
        let within = |ranges: &[(char, char)]| ranges.iter().any(|(a, b)| (*a..=*b).contains(&c));
        match self {
            Part::Range(a, b) => Some(within(&[(*a, *b)])),
            Part::Within(ranges) => Some(within(ranges)),
            Part::Without(ranges) => Some(!within(ranges)),
            Part::Property(_) => None,
        }
    }

    fn text(&self) -> String {
        let range = |(a, b): &(char, char)| format!(r"\x{{{:x}}}-\x{{{:x}}}", *a as u32, *b as u32);
        match self {
            Part::Range(a, b) => range(&(*a, *b)),
            Part::Within(ranges) => ranges.iter().map(range).collect(),
            Part::Without(ranges) => format!("[^{}]", ranges.iter().map(range).collect::<String>()),
            Part::Property(text) => text.clone(),
        }
    }
}

/// The letter of a character's short escape.
fn letter(c: char) -> Option<char> {
    ESCAPES.iter().find(|(of, _)| *of == c).map(|(_, letter)| *letter)
}

/// Characters of a class as they stand in JSON: themselves, or escaped.
fn class(parts: &[Part], is_negated: bool) -> String {
    // Of what cannot be told, the escapes are left out.
    let holds = |c: char| {
        let held: Vec<Option<bool>> = parts.iter().map(|part| part.holds(c)).collect();
        if held.contains(&Some(true)) { !is_negated } else { !held.contains(&None) && is_negated }
    };
    let inside: String = parts.iter().map(Part::text).collect();
    let sign = if is_negated { "^" } else { "" };
    let mut options = vec![format!(r#"[[{sign}{inside}]&&[^"\\\x00-\x1f]]"#)];
    let (short, long): (Vec<char>, Vec<char>) =
        ('\0'..=' ').chain(['"', '\\']).filter(|c| *c != ' ' && holds(*c)).partition(|c| letter(*c).is_some());
    if !short.is_empty() {
        let letters: String = short.into_iter().filter_map(letter).map(|letter| escaped(&letter.to_string())).collect();
        options.push(format!(r"\\[{letters}]"));
    }
    if !long.is_empty() {
        let codes: Vec<String> = long.into_iter().map(|c| format!("{:02x}", c as u32)).collect();
        options.push(format!(r"\\u00(?:{})", codes.join("|")));
    }
    either(options).unwrap_or_default()
}

/// A single character as it stands in JSON.
fn character(c: char) -> String {
    match letter(c) {
        Some(letter) => format!(r"\\{}", escaped(&letter.to_string())),
        None if c < ' ' => format!(r"\\u{:04x}", c as u32),
        None => escaped(&c.to_string()),
    }
}

/// The expression of what stands between the quotes of JSON's strings that `pattern` finds something in, or what the
/// pattern should be instead.
pub(super) fn expression(pattern: &str) -> Result<String, String> {
    Script { left: pattern.chars().rev().collect(), depth: 0 }.whole()
}

/// A JavaScript pattern as it is read.
struct Script {
    /// The last character first.
    left: Vec<char>,
    depth: usize,
}

impl Script {
    fn peek(&self) -> Option<char> {
        self.left.last().copied()
    }

    fn take(&mut self, c: char) -> bool {
        let is_next = self.peek() == Some(c);
        if is_next {
            self.left.pop();
        }
        is_next
    }

    /// All alternatives, each with what may stand around it.
    fn whole(&mut self) -> Result<String, String> {
        let mut options = Vec::new();
        loop {
            let around = |is_bound: bool| if is_bound { String::new() } else { format!("{CHARACTER}*") };
            let begins = self.take('^');
            let inside = self.sequence()?;
            let ends = self.take('$');
            options.push(format!("{}{inside}{}", around(begins), around(ends)));
            match self.left.pop() {
                None => return Ok(either(options).unwrap_or_default()),
                Some('|') => (),
                Some(')') => return Err("as many `(` as `)`".into()),
                Some(_) => return Err("`$` only where an alternative ends".into()),
            }
        }
    }

    /// One thing after the other, up to what ends an alternative.
    fn sequence(&mut self) -> Result<String, String> {
        let mut all = String::new();
        loop {
            let atom = match self.peek() {
                None | Some('|' | ')') => return Ok(all),
                Some('$') if self.depth == 0 => return Ok(all),
                Some(c @ ('^' | '$')) => {
                    return Err(format!("`{c}` only around a whole alternative, outside of groups"));
                }
                Some(c @ ('*' | '+' | '?' | '{')) => return Err(format!("something to repeat before `{c}`")),
                Some(c @ ('}' | ']')) => return Err(format!(r"`\{c}` for the character `{c}`")),
                Some(c) => {
                    self.left.pop();
                    match c {
                        '(' => self.group()?,
                        '[' => self.brackets()?,
                        '.' => class(&[Part::Within(LINE_ENDS)], true),
                        '\\' => match self.escape(false)? {
                            Part::Range(c, _) => character(c),
                            part => class(&[part], false),
                        },
                        c => character(c),
                    }
                }
            };
            match self.repetition()? {
                None => all.push_str(&atom),
                Some(times) => all.push_str(&format!("(?:{atom}){times}")),
            }
        }
    }

    /// What stands in `(…)`, behind its beginning.
    fn group(&mut self) -> Result<String, String> {
        if self.take('?') && !self.take(':') {
            return Err("groups `(…)` and `(?:…)` only, without look-around, names and flags".into());
        }
        self.depth += 1;
        if self.depth > GROUPS {
            return Err(format!("{GROUPS} groups inside of each other at most"));
        }
        let mut options = Vec::new();
        loop {
            options.push(self.sequence()?);
            match self.left.pop() {
                Some('|') => (),
                Some(')') => break,
                _ => return Err("as many `)` as `(`".into()),
            }
        }
        self.depth -= 1;
        Ok(either(options).unwrap_or_default())
    }

    fn repetition(&mut self) -> Result<Option<String>, String> {
        let times = match self.peek() {
            Some(c @ ('*' | '+' | '?')) => {
                self.left.pop();
                c.to_string()
            }
            Some('{') => {
                self.left.pop();
                let least = self.number();
                let most = if self.take(',') { self.number() } else { least };
                let is_open = most.is_none();
                let right =
                    self.take('}') && least.is_some_and(|least| is_open || most.is_some_and(|most| most >= least));
                if !right {
                    return Err(format!("repetitions as {{2}}, {{2,}} or {{2,3}}, up to {COUNT}"));
                }
                times(least.unwrap_or(0), most)
            }
            _ => return Ok(None),
        };
        self.take('?');
        Ok(Some(times))
    }

    /// A count; nothing if there is none, or it is too large, which what comes next is not read as.
    fn number(&mut self) -> Option<u64> {
        let mut number = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            let longer = number.unwrap_or(0) * 10 + u64::from(digit);
            if longer > COUNT {
                return None;
            }
            number = Some(longer);
            self.left.pop();
        }
        number
    }

    /// What stands in `[…]`, behind its beginning.
    fn brackets(&mut self) -> Result<String, String> {
        let is_negated = self.take('^');
        let mut parts = Vec::new();
        loop {
            let part = self.member()?;
            let Some(part) = part else { break };
            // A `-` before the end is one itself.
            let is_range = self.peek() == Some('-') && self.left.iter().rev().nth(1).is_some_and(|c| *c != ']');
            if !is_range {
                parts.push(part);
                continue;
            }
            self.left.pop();
            match (part, self.member()?) {
                (Part::Range(a, _), Some(Part::Range(b, _))) if a <= b => parts.push(Part::Range(a, b)),
                _ => return Err("ranges from a character to one that does not come before it".into()),
            }
        }
        if parts.is_empty() {
            return Err("a character at least in every `[…]`".into());
        }
        Ok(class(&parts, is_negated))
    }

    fn member(&mut self) -> Result<Option<Part>, String> {
        match self.left.pop() {
            None => Err("as many `]` as `[`".into()),
            Some(']') => Ok(None),
            Some('\\') => self.escape(true).map(Some),
            Some(c) => Ok(Some(Part::Range(c, c))),
        }
    }

    /// What stands behind `\`.
    fn escape(&mut self, in_class: bool) -> Result<Part, String> {
        let one = |c: char| Ok(Part::Range(c, c));
        match self.left.pop() {
            Some('d') => Ok(Part::Within(DECIMALS)),
            Some('D') => Ok(Part::Without(DECIMALS)),
            Some('w') => Ok(Part::Within(WORDS)),
            Some('W') => Ok(Part::Without(WORDS)),
            Some('s') => Ok(Part::Within(SPACES)),
            Some('S') => Ok(Part::Without(SPACES)),
            Some('t') => one('\t'),
            Some('n') => one('\n'),
            Some('r') => one('\r'),
            Some('v') => one('\u{b}'),
            Some('f') => one('\u{c}'),
            Some('b') if in_class => one('\u{8}'),
            Some('0') if !self.peek().is_some_and(|c| c.is_ascii_digit()) => one('\0'),
            Some('x') => self.code(2).map(|c| Part::Range(c, c)),
            Some('u') => self.code(4).map(|c| Part::Range(c, c)),
            Some(sign @ ('p' | 'P')) => {
                let mut name = String::new();
                let mut is_whole = self.take('{');
                while is_whole && !self.take('}') {
                    match self.left.pop() {
                        Some(c) if c.is_ascii_alphanumeric() || "_=".contains(c) => name.push(c),
                        _ => is_whole = false,
                    }
                }
                if is_whole && !name.is_empty() {
                    Ok(Part::Property(format!(r"\{sign}{{{name}}}")))
                } else {
                    Err(format!(r"a property of Unicode as \{sign}{{L}}"))
                }
            }
            Some(c) if c.is_ascii_punctuation() || c == ' ' => one(c),
            Some(c) => Err(format!(r"no `\{c}`, which cannot be expressed")),
            None => Err(r"a character behind `\`".into()),
        }
    }

    /// A character by its number in hexadecimal digits; `{…}` holds any number of them.
    fn code(&mut self, count: usize) -> Result<char, String> {
        let is_open = count == 4 && self.take('{');
        let mut digits = String::new();
        while digits.len() < if is_open { 8 } else { count }
            && let Some(c) = self.peek().filter(char::is_ascii_hexdigit)
        {
            digits.push(c);
            self.left.pop();
        }
        let is_whole = if is_open { self.take('}') } else { digits.len() == count };
        let code = u32::from_str_radix(&digits, 16).ok().filter(|_| is_whole).and_then(char::from_u32);
        code.ok_or_else(|| r"characters as \x41, \u0041 or \u{41}, those beyond U+FFFF as the last".into())
    }
}

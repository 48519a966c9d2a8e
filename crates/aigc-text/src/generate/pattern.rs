//! Texts that match a regular expression, or are JSON of a schema.
//!
//! The expression becomes an automaton over bytes. In each of its states the tokens are those whose bytes lead to a
//! state from which the text can still be brought to an end; they are found by one walk over a tree of all tokens'
//! bytes, and kept for the next text that comes to the state.

use super::{
    processor::{LogitsProcessor, Row},
    schema,
};
use crate::tokenizer::Tokenizer;
use aigc_core::{Error, Result};
use regex_automata::{
    Anchored, MatchKind,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson,
    util::{primitives::StateID, start},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The longest expression, in bytes.
pub(super) const LONGEST: usize = 1 << 17;
/// Bytes that an automaton may have, and as many to find it.
const AUTOMATON: usize = 64 << 20;
const NONDETERMINISTIC: usize = 16 << 20;
/// Masks to keep, of a bit per token each.
const MASKS: usize = 4096;
/// Steps along the tree of tokens to find out which states are of use; some seconds.
const STEPS: usize = 1 << 30;

/// Allows only tokens with which what is generated, the whole of it and without the prompt, can still match (the way of
/// Willard and Louf 2023, <https://arxiv.org/abs/2307.09702>).
///
/// A text is over where a token of `end` comes. The same tokens have to be the generator's `eos_token_id`; and a text
/// that is cut off by its greatest length is but the beginning of one that matches. Tokens without text and special
/// ones are never allowed, except to end.
///
/// Clones share all but the masks that they keep.
///
/// ```
/// # use aigc_text::{CharacterTokenizer, GenerationConfig, Generator, Gpt2Config, Pattern, Tokenizer};
/// # use aigc_text::generate::Tokens;
/// # fn main() -> aigc_core::Result<()> {
/// # let config = Gpt2Config { vocab_size: 14, n_positions: 32, n_embd: 8, n_head: 2, ..Default::default() };
/// # let config = Gpt2Config { bos_token_id: None, eos_token_id: None, ..config };
/// # let model = config.init(&aigc_core::device::device("flex")?)?;
/// let tokenizer = CharacterTokenizer::of("0123456789-at\n");
/// let end = tokenizer.encode("\n")?;
/// let date = Pattern::regex("[0-9]{4}-[0-9]{2}-[0-9]{2}", &tokenizer, &end)?;
/// let config = GenerationConfig { eos_token_id: Some(Tokens::Several(end)), ..Default::default() };
/// let prompt = tokenizer.encode("at")?;
/// let texts = Generator::new(&model, config)?.processor(date).generate(&[prompt])?;
/// let date = tokenizer.decode(texts[0].new_tokens());
/// assert_eq!(date.trim_end().split('-').map(str::len).collect::<Vec<_>>(), [4, 2, 2], "{date}");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Pattern {
    machine: Arc<Machine>,
    masks: HashMap<StateID, Arc<Mask>>,
}

impl Pattern {
    /// Texts that match `expression` as a whole, in the syntax of the `regex` crate; `end` has the tokens that may end
    /// them.
    ///
    /// Whether repetitions are greedy makes no difference, nor does the order of alternatives: every text that matches
    /// in some way can come. Without tokens to end it, a text goes on until nothing may follow, which is an error.
    ///
    /// # Errors
    /// [`Error::Config`] for an expression that is broken, too large (128 KiB of text, 64 MiB as an automaton), of a
    /// syntax that automata do not have (Unicode's `\b`), or that no text of the tokens matches.
    pub fn regex(expression: &str, tokenizer: &dyn Tokenizer, end: &[u32]) -> Result<Self> {
        Self::new("expression", expression, expression, tokenizer, end)
    }

    /// Texts that are JSON of `schema`, a JSON schema; `end` has the tokens that may end them.
    ///
    /// It is [JSON Schema](https://json-schema.org/draft/2020-12) as far as a finite automaton can hold a text to it:
    ///
    /// | of a schema | what is generated |
    /// |---|---|
    /// | `type`, one or a list | see below; a schema without it has to have one of the next three |
    /// | `enum`, `const` | any JSON; values that are not of the `type` are left out |
    /// | `anyOf`, `oneOf` | one of them; what `oneOf` gives may be another of its schemas as well |
    /// | `$ref` | a place in the schema (`#/$defs/…`); in itself four times, what is deeper is not generated |
    /// | string | `minLength`, `maxLength` in characters; or `pattern` |
    /// | integer | of 18 digits; `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum` |
    /// | number | of 18 digits before the point and 18 behind it, an exponent of two |
    /// | array | `items`, `minItems`, `maxItems`, `prefixItems`, with nothing behind them unless `items` says what |
    /// | object | `properties` in their order, those not in `required` may be left out; no others |
    ///
    /// `title`, `description`, `default`, `examples`, `deprecated`, `readOnly`, `writeOnly`, `$schema`, `$id` and
    /// `$comment` say nothing about a text and are passed over; any other keyword (`allOf`, `format`, …) is an error.
    /// One space may follow each `:` and `,`; there is no other whitespace.
    ///
    /// A `pattern` is JavaScript's, without look-around, word boundaries, flags and back references; `^` begins and `$`
    /// ends an alternative of it. Characters that JSON escapes do not come for a class with properties of Unicode
    /// (`\p{L}`).
    ///
    /// # Errors
    /// [`Error::Config`] for text that is no schema, for keywords that are not above, and as [`regex`](Self::regex).
    pub fn json_schema(schema: &str, tokenizer: &dyn Tokenizer, end: &[u32]) -> Result<Self> {
        Self::new("schema", &schema::expression(schema)?, schema, tokenizer, end)
    }

    /// `given` is what errors show as the value of `field`.
    fn new(field: &str, expression: &str, given: &str, tokenizer: &dyn Tokenizer, end: &[u32]) -> Result<Self> {
        let machine = Arc::new(Machine::new(field, expression, given, tokenizer, end)?);
        Ok(Self { machine, masks: HashMap::new() })
    }

    /// What may follow in a state.
    fn mask(&mut self, state: StateID) -> Arc<Mask> {
        if let Some(mask) = self.masks.get(&state) {
            return Arc::clone(mask);
        }
        if self.masks.len() >= MASKS {
            self.masks.clear();
        }
        let mask = Arc::new(self.machine.mask(state));
        self.masks.insert(state, Arc::clone(&mask));
        mask
    }
}

impl LogitsProcessor for Pattern {
    fn process(&mut self, row: Row<'_>, scores: &mut [f32]) -> Result<()> {
        let mut state = self.machine.start;
        for (at, token) in row.tokens.iter().enumerate().skip(row.prompt) {
            if self.machine.end.contains(token) {
                return Ok(());
            }
            state = self.machine.after(state, *token).ok_or_else(|| {
                let expected = "one that the pattern allows; see what else forces tokens";
                Error::config(format!("token {at} of the text"), token, expected)
            })?;
        }
        let mask = self.mask(state);
        if mask.is_empty && !mask.may_end {
            return Err(unending());
        }
        let end = if mask.may_end { &self.machine.end[..] } else { &[] };
        let mut left = false;
        for (token, score) in scores.iter_mut().enumerate() {
            if mask.allows(token) || end.iter().any(|end| *end as usize == token) {
                left |= *score > f32::NEG_INFINITY;
            } else {
                *score = f32::NEG_INFINITY;
            }
        }
        if left {
            return Ok(());
        }
        let expected = "one that the pattern and all other options allow, and finite weights";
        Err(Error::config("scores", "no token with a probability", expected))
    }
}

fn unending() -> Error {
    let expected = "the token that ends a text: this one matches the pattern, and nothing may follow";
    Error::config("end", "empty", expected)
}

/// Tokens that may follow.
struct Mask {
    /// One per token, from the lowest of each word on.
    bits: Vec<u64>,
    is_empty: bool,
    /// Whether the text may end here, and there is a token to end it.
    may_end: bool,
}

impl Mask {
    fn allows(&self, token: usize) -> bool {
        self.bits.get(token / 64).is_some_and(|bits| bits >> (token % 64) & 1 == 1)
    }
}

/// An automaton and the tokens that take it along.
struct Machine {
    automaton: dense::DFA<Vec<u32>>,
    start: StateID,
    /// States from which bytes lead to an end, by number.
    by_bytes: Vec<bool>,
    /// Those from which tokens do.
    by_tokens: Vec<bool>,
    tree: Tree,
    /// The bytes of every token; none of those that are never allowed.
    texts: Vec<Vec<u8>>,
    end: Vec<u32>,
}

impl Machine {
    fn new(field: &str, expression: &str, given: &str, tokenizer: &dyn Tokenizer, end: &[u32]) -> Result<Self> {
        let fault = |expected: &str| Error::config(field, short(given), expected);
        let automaton = automaton(expression).map_err(|expected| fault(&expected))?;
        let config = start::Config::new().anchored(Anchored::Yes);
        let start = automaton.start_state(&config).map_err(|error| fault(&error.to_string()))?;

        let text = |token: u32| {
            let is_text = !tokenizer.is_special(token) && !end.contains(&token);
            if is_text { tokenizer.bytes(token) } else { Vec::new() }
        };
        let texts: Vec<Vec<u8>> = (0..tokenizer.vocabulary() as u32).map(text).collect();
        let tree = Tree::new(&texts);
        let mut machine =
            Self { automaton, start, by_bytes: Vec::new(), by_tokens: Vec::new(), tree, texts, end: end.to_vec() };
        machine.by_bytes = machine.reaching(|state, next| {
            let classes = machine.automaton.byte_classes().representatives(..);
            next.extend(
                classes.filter_map(|class| class.as_u8()).map(|byte| machine.automaton.next_state(state, byte)),
            );
            true
        });
        let nothing = "an expression that some text matches";
        if !machine.is_alive(&machine.by_bytes, start) {
            return Err(fault(nothing));
        }
        let singles: HashSet<u8> =
            machine.texts.iter().filter_map(|text| if let [byte] = text[..] { Some(byte) } else { None }).collect();
        // With a token for each byte, whatever can be reached by bytes can be by tokens.
        if singles.len() == 256 {
            machine.by_tokens = machine.by_bytes.clone();
            return Ok(machine);
        }
        let mut left = STEPS;
        machine.by_tokens = machine.reaching(|state, next| {
            if !machine.is_alive(&machine.by_bytes, state) {
                return true;
            }
            let steps = machine.walk(state, |_, state| next.push(state));
            left = left.saturating_sub(steps);
            left > 0
        });
        if left == 0 {
            return Err(fault(TOO_LARGE));
        }
        if !machine.is_alive(&machine.by_tokens, start) {
            return Err(fault("an expression that some text of the tokenizer's tokens matches"));
        }
        Ok(machine)
    }

    fn is_alive(&self, alive: &[bool], state: StateID) -> bool {
        alive.get(self.number(state)).copied().unwrap_or(false)
    }

    /// States are numbered by where their transitions lie.
    fn number(&self, state: StateID) -> usize {
        state.as_usize() >> self.automaton.stride2()
    }

    /// Whether a text may end in a state. Matches are seen a byte late, after the end at the latest.
    fn may_end(&self, state: StateID) -> bool {
        self.automaton.is_match_state(self.automaton.next_eoi_state(state))
    }

    /// Which states, of those that can be reached from the start, lead to one where a text may end. `next` gives the
    /// states after one, and whether to go on.
    fn reaching(&self, mut next: impl FnMut(StateID, &mut Vec<StateID>) -> bool) -> Vec<bool> {
        let mut found = vec![self.start];
        let mut seen = vec![];
        let mut mark = |number: usize| {
            if number >= seen.len() {
                seen.resize(number + 1, false);
            }
            !std::mem::replace(&mut seen[number], true)
        };
        mark(self.number(self.start));
        let mut before: HashMap<StateID, Vec<StateID>> = HashMap::new();
        let mut after = Vec::new();
        let mut at = 0;
        while let Some(state) = found.get(at).copied() {
            at += 1;
            after.clear();
            if !next(state, &mut after) {
                return Vec::new();
            }
            after.sort_unstable();
            after.dedup();
            for to in after.iter().filter(|to| !self.automaton.is_dead_state(**to)) {
                before.entry(*to).or_default().push(state);
                if mark(self.number(*to)) {
                    found.push(*to);
                }
            }
        }
        let mut alive = vec![false; seen.len()];
        let mut open: Vec<StateID> = found.into_iter().filter(|state| self.may_end(*state)).collect();
        open.iter().for_each(|state| alive[self.number(*state)] = true);
        while let Some(state) = open.pop() {
            for from in before.remove(&state).unwrap_or_default() {
                if !std::mem::replace(&mut alive[self.number(from)], true) {
                    open.push(from);
                }
            }
        }
        alive
    }

    /// Calls `each` with the tokens whose bytes can be taken from a state on, and where they lead; returns how many
    /// steps this took.
    fn walk(&self, state: StateID, mut each: impl FnMut(u32, StateID)) -> usize {
        let mut states = vec![state];
        let (mut at, mut steps) = (0, 1);
        while let Some(node) = self.tree.nodes.get(at) {
            steps += 1;
            let to = self.automaton.next_state(states[node.depth], node.byte);
            if !self.is_alive(&self.by_bytes, to) {
                at = node.skip;
                continue;
            }
            self.tree.tokens[node.first..node.last].iter().for_each(|token| each(*token, to));
            states.truncate(node.depth + 1);
            states.push(to);
            at += 1;
        }
        steps
    }

    fn mask(&self, state: StateID) -> Mask {
        let mut bits = vec![0u64; self.texts.len().div_ceil(64)];
        self.walk(state, |token, to| {
            if self.is_alive(&self.by_tokens, to) {
                bits[token as usize / 64] |= 1 << (token % 64);
            }
        });
        let is_empty = bits.iter().all(|word| *word == 0);
        Mask { bits, is_empty, may_end: !self.end.is_empty() && self.may_end(state) }
    }

    /// Where a token leads; nothing if it is not allowed.
    fn after(&self, state: StateID, token: u32) -> Option<StateID> {
        let text = self.texts.get(token as usize).filter(|text| !text.is_empty())?;
        let to = text.iter().fold(state, |state, byte| self.automaton.next_state(state, *byte));
        self.is_alive(&self.by_tokens, to).then_some(to)
    }
}

const TOO_LARGE: &str = "a smaller one: fewer or shorter repetitions, or fewer Unicode classes";

/// The automaton of an expression, or what should be there instead.
fn automaton(expression: &str) -> Result<dense::DFA<Vec<u32>>, String> {
    if expression.len() > LONGEST {
        return Err(TOO_LARGE.into());
    }
    let config =
        thompson::Config::new().nfa_size_limit(Some(NONDETERMINISTIC)).which_captures(thompson::WhichCaptures::None);
    let nfa = thompson::Compiler::new().configure(config).build(expression);
    let nfa = nfa.map_err(|error| if error.size_limit().is_some() { TOO_LARGE.into() } else { reason(&error) })?;
    let config = dense::Config::new()
        // All ways to match, not the first: of `a|ab` both.
        .match_kind(MatchKind::All)
        .start_kind(StartKind::Anchored)
        .accelerate(false)
        .dfa_size_limit(Some(AUTOMATON))
        .determinize_size_limit(Some(AUTOMATON));
    let built = dense::Builder::new().configure(config).build_from_nfa(&nfa);
    built.map_err(|error| if error.is_size_limit_exceeded() { TOO_LARGE.into() } else { reason(&error) })
}

/// What an error comes from, in a line.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!("an expression that can be read: {}", last.trim_start_matches("error: "))
}

/// The beginning of a text, for errors.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

/// The bytes of all tokens as a tree, in the order of a walk that goes down first.
struct Tree {
    nodes: Vec<Node>,
    /// By their bytes.
    tokens: Vec<u32>,
}

struct Node {
    byte: u8,
    /// Bytes before it.
    depth: usize,
    /// The first node that is not below.
    skip: usize,
    /// The tokens that end here, in the tree's list.
    first: usize,
    last: usize,
}

impl Tree {
    fn new(texts: &[Vec<u8>]) -> Self {
        let mut tokens: Vec<u32> =
            (0..).zip(texts).filter(|(_, text)| !text.is_empty()).map(|(token, _)| token).collect();
        tokens.sort_by_key(|token| &texts[*token as usize]);
        let mut nodes: Vec<Node> = Vec::new();
        // Nodes from the root to the last one.
        let mut path: Vec<usize> = Vec::new();
        for (i, token) in tokens.iter().enumerate() {
            let text = &texts[*token as usize];
            let shared = path.iter().zip(text).take_while(|(node, byte)| nodes[**node].byte == **byte).count();
            let next = nodes.len();
            path.drain(shared..).for_each(|node| nodes[node].skip = next);
            for (depth, byte) in text.iter().enumerate().skip(shared) {
                path.push(nodes.len());
                nodes.push(Node { byte: *byte, depth, skip: 0, first: i, last: i });
            }
            // Of tokens that begin alike the shortest comes first, so what ends at a node does so from its first token
            // on.
            if let Some(node) = path.last() {
                nodes[*node].last = i + 1;
            }
        }
        let end = nodes.len();
        path.into_iter().for_each(|node| nodes[node].skip = end);
        Self { nodes, tokens }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use aigc_core::rng::Rng;
    use std::{collections::BTreeSet, path::Path};

    /// Tokens of any bytes.
    pub(in super::super) struct Pieces(pub Vec<Vec<u8>>);

    impl Pieces {
        fn of(pieces: &[&str]) -> Self {
            Self(pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect())
        }

        /// All bytes, and what else there is.
        pub(in super::super) fn bytes_and(pieces: &[&str]) -> Self {
            let bytes = (0..=255u8).map(|byte| vec![byte]);
            Self(bytes.chain(pieces.iter().map(|piece| piece.as_bytes().to_vec())).collect())
        }
    }

    impl Tokenizer for Pieces {
        fn encode(&self, _: &str) -> Result<Vec<u32>> {
            Err(Error::config("text", "any", "none: these tokens are for their bytes"))
        }

        fn bytes(&self, token: u32) -> Vec<u8> {
            self.0.get(token as usize).cloned().unwrap_or_default()
        }

        fn vocabulary(&self) -> usize {
            self.0.len()
        }

        fn is_special(&self, token: u32) -> bool {
            self.bytes(token).starts_with(b"<|")
        }

        fn save(&self, _: &Path) -> Result<()> {
            Ok(())
        }
    }

    /// Which of `count` tokens are allowed behind `tokens`.
    fn allowed(pattern: &mut Pattern, tokens: &[u32], count: usize) -> Result<Vec<usize>> {
        let mut scores = vec![0.0; count];
        pattern.process(Row { tokens, prompt: 0, item: 0, padding: 0 }, &mut scores)?;
        Ok((0..count).filter(|token| scores[*token] == 0.0).collect())
    }

    /// A text drawn from what is allowed, as bytes; nothing if it does not end.
    pub(in super::super) fn drawn(pattern: &mut Pattern, pieces: &Pieces, end: u32, rng: &mut Rng) -> Option<Vec<u8>> {
        let mut tokens: Vec<u32> = Vec::new();
        while tokens.len() < 3000 {
            let choice = allowed(pattern, &tokens, end as usize + 1).expect("something to go on with");
            let token = choice[rng.below(choice.len())] as u32;
            if token == end {
                return Some(tokens.iter().flat_map(|token| pieces.bytes(*token)).collect());
            }
            tokens.push(token);
        }
        None
    }

    /// Whether a whole text matches, byte by byte.
    pub(in super::super) fn matches(pattern: &Pattern, text: &[u8]) -> bool {
        let machine = &pattern.machine;
        let state = text.iter().fold(machine.start, |state, byte| machine.automaton.next_state(state, *byte));
        machine.may_end(state)
    }

    /// An expression, matched by trying everything.
    enum Expression {
        Byte(u8),
        Both(Box<Expression>, Box<Expression>),
        Either(Box<Expression>, Box<Expression>),
        Times(Box<Expression>, usize, usize, &'static str),
    }

    impl Expression {
        fn random(rng: &mut Rng, size: usize) -> Self {
            if size <= 1 {
                return Expression::Byte(b"ab"[rng.below(2)]);
            }
            let left = 1 + rng.below(size - 1);
            match rng.below(5) {
                0 | 1 => Expression::Both(Self::random(rng, left).into(), Self::random(rng, size - left).into()),
                2 => Expression::Either(Self::random(rng, left).into(), Self::random(rng, size - left).into()),
                _ => {
                    let kinds: [(usize, usize, &str); 7] = [
                        (0, 99, "*"),
                        (1, 99, "+"),
                        (0, 1, "?"),
                        (0, 99, "*?"),
                        (1, 99, "+?"),
                        (0, 1, "??"),
                        (1, 2, "{1,2}"),
                    ];
                    let (least, most, sign) = kinds[rng.below(kinds.len())];
                    Expression::Times(Self::random(rng, size - 1).into(), least, most, sign)
                }
            }
        }

        fn text(&self) -> String {
            match self {
                Expression::Byte(byte) => char::from(*byte).to_string(),
                Expression::Both(a, b) => format!("{}{}", a.text(), b.text()),
                Expression::Either(a, b) => format!("({}|{})", a.text(), b.text()),
                Expression::Times(a, _, _, sign) => format!("(?:{}){sign}", a.text()),
            }
        }

        /// Where a match that begins at `from` may end.
        fn ends(&self, text: &[u8], from: usize) -> BTreeSet<usize> {
            match self {
                Expression::Byte(byte) => (text.get(from) == Some(byte)).then_some(from + 1).into_iter().collect(),
                Expression::Both(a, b) => a.ends(text, from).into_iter().flat_map(|at| b.ends(text, at)).collect(),
                Expression::Either(a, b) => &a.ends(text, from) | &b.ends(text, from),
                Expression::Times(a, least, most, _) => {
                    let (mut ends, mut at) = (BTreeSet::new(), BTreeSet::from([from]));
                    for times in 0..=*most {
                        if times >= *least {
                            // From places that were reached before there is nothing new.
                            if at.is_subset(&ends) {
                                break;
                            }
                            ends.extend(&at);
                        }
                        at = at.into_iter().flat_map(|at| a.ends(text, at)).collect();
                    }
                    ends
                }
            }
        }

        fn matches(&self, text: &[u8]) -> bool {
            self.ends(text, 0).contains(&text.len())
        }
    }

    /// All texts of the pieces that have at most `most` bytes.
    fn texts_of(pieces: &[Vec<u8>], most: usize) -> BTreeSet<Vec<u8>> {
        let mut all = BTreeSet::new();
        let mut last = BTreeSet::from([Vec::new()]);
        while !last.is_empty() {
            all.extend(last.iter().cloned());
            let longer = |text: Vec<u8>| pieces.iter().map(move |piece| [&text[..], &piece[..]].concat());
            last = last.into_iter().flat_map(longer).filter(|text| text.len() <= most).collect();
        }
        all
    }

    #[test]
    fn masks_are_those_of_trying_everything() {
        let mut rng = Rng::new(11);
        // With as many bytes as the rest of a text has at most.
        let some: [(&[&str], usize); 4] = [
            (&["a", "b", "ab", "ba", "aab", "bbb"], 8),
            (&["ab", "b", "aa"], 10),
            (&["a", "bb"], 12),
            (&["abba", "b"], 16),
        ];
        let (mut seen, mut refused, mut ended) = (0, 0, 0);
        for round in 0..120 {
            let (own, most) = some[round % 4];
            // All bytes, or not: two ways to find out which states are of use.
            let pieces = if round % 8 < 4 { Pieces::of(own) } else { Pieces::bytes_and(own) };
            let is_useful = |piece: &&Vec<u8>| piece.iter().all(|byte| b"ab".contains(byte));
            let useful: Vec<Vec<u8>> = pieces.0.iter().filter(is_useful).cloned().collect();
            let every = texts_of(&useful, if useful.len() > own.len() { 8 } else { most });
            let size = 1 + rng.below(5);
            let expression = Expression::random(&mut rng, size);
            let end = pieces.0.len();
            let can_match = |start: &[u8]| every.iter().any(|rest| expression.matches(&[start, rest].concat()));
            let pattern = Pattern::regex(&expression.text(), &pieces, &[end as u32]);
            let Ok(mut pattern) = pattern else {
                assert!(!can_match(b""), "{}", expression.text());
                refused += 1;
                continue;
            };
            assert!(can_match(b""), "{}", expression.text());
            let mut tokens = Vec::new();
            for _ in 0..4 {
                let text: Vec<u8> = tokens.iter().flat_map(|token| pieces.bytes(*token)).collect();
                let may_follow = |token: &usize| match pieces.0.get(*token) {
                    Some(piece) => is_useful(&piece) && can_match(&[&text[..], &piece[..]].concat()),
                    None => expression.matches(&text),
                };
                let expected: Vec<usize> = (0..=end).filter(may_follow).collect();
                let got = allowed(&mut pattern, &tokens, end + 1).unwrap();
                assert_eq!(got, expected, "{} after {:?}", expression.text(), String::from_utf8_lossy(&text));
                seen += 1;
                match got[rng.below(got.len())] {
                    token if token == end => {
                        ended += 1;
                        break;
                    }
                    token => tokens.push(token as u32),
                }
            }
        }
        assert!(seen > 200 && refused > 10 && ended > 10, "{seen} {refused} {ended}");
    }

    #[test]
    fn the_order_of_alternatives_and_greed_make_no_difference() {
        let pieces = Pieces::bytes_and(&[]);
        for (expression, yes, no) in [
            ("a|ab", &["a", "ab"][..], &["", "b", "abb"][..]),
            ("a*?b??", &["", "a", "aab", "b"], &["abb", "ba"]),
            ("^(?:x|xy)$", &["x", "xy"], &["xx", "y"]),
            ("(?i)k", &["k", "K", "\u{212a}"], &["q"]),
        ] {
            let mut pattern = Pattern::regex(expression, &pieces, &[256]).unwrap();
            let tokens = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
            for text in yes {
                assert!(allowed(&mut pattern, &tokens(text), 257).unwrap().contains(&256), "{expression} {text}");
            }
            for text in no {
                let ends = allowed(&mut pattern, &tokens(text), 257).is_ok_and(|tokens| tokens.contains(&256));
                assert!(!ends, "{expression} {text}");
            }
        }
    }

    #[test]
    fn characters_may_be_split_over_tokens() {
        let pieces = Pieces::bytes_and(&["αβ", "γ!"]);
        let end = pieces.0.len() as u32;
        let mut pattern = Pattern::regex(r"\p{Greek}{2,3}!", &pieces, &[end]).unwrap();
        // U+03B1 is CE B1: after the first byte, only bytes that make a Greek letter of it.
        let second = allowed(&mut pattern, &[0xce], end as usize + 1).unwrap();
        let is_greek = |byte: &usize| matches!(*byte, 0x84 | 0x86 | 0x88..=0x8a | 0x8c | 0x8e..=0xa1 | 0xa3..=0xbf);
        assert_eq!(second, (0x80..=0xbf).filter(is_greek).collect::<Vec<_>>());
        let mut rng = Rng::new(3);
        for _ in 0..100 {
            let text = String::from_utf8(drawn(&mut pattern, &pieces, end, &mut rng).unwrap()).unwrap();
            let letters: Vec<char> = text.strip_suffix('!').unwrap().chars().collect();
            assert!((2..=3).contains(&letters.len()), "{text}");
            let is_greek = |c: &char| {
                matches!(*c as u32, 0x370..=0x3ff | 0x1f00..=0x1fff | 0x1d26..=0x1d6a | 0x1dbf | 0x2126 | 0xab65
                    | 0x10140..=0x101a0 | 0x1d200..=0x1d245)
            };
            assert!(letters.iter().all(is_greek), "{text}");
        }
    }

    #[test]
    fn special_tokens_and_those_without_text_are_not_allowed() {
        let mut pieces = Pieces::of(&["<", "|", "<|x|>", "", "<<", "x"]);
        let mut pattern = Pattern::regex(r"[<|x>]*", &pieces, &[5]).unwrap();
        // The last of them ends; the seventh score is of no token at all.
        assert_eq!(allowed(&mut pattern, &[], 7).unwrap(), [0, 1, 4, 5]);
        assert_eq!(allowed(&mut pattern, &[0], 7).unwrap(), [0, 1, 4, 5]);
        // Without "|" the text cannot end, however many bytes of it there are.
        pieces.0.remove(1);
        let error = Pattern::regex(r"<+\|", &pieces, &[]).err().unwrap().to_string();
        assert!(error.contains("tokens matches"), "{error}");
    }

    #[test]
    fn a_text_that_has_ended_is_left_alone() {
        let pieces = Pieces::bytes_and(&[]);
        let mut pattern = Pattern::regex("a+", &pieces, &[256]).unwrap();
        assert_eq!(allowed(&mut pattern, &[97, 256], 257).unwrap().len(), 257);
        assert_eq!(allowed(&mut pattern, &[97, 256, 5], 257).unwrap().len(), 257);
        // What the prompt says does not matter.
        let mut scores = vec![0.0; 257];
        pattern.process(Row { tokens: &[256, 3], prompt: 2, item: 0, padding: 0 }, &mut scores).unwrap();
        assert_eq!((0..257).filter(|token| scores[*token] == 0.0).collect::<Vec<_>>(), [97]);
    }

    #[test]
    fn nothing_to_go_on_with_is_an_error() {
        let pieces = Pieces::bytes_and(&[]);
        let mut pattern = Pattern::regex("ab", &pieces, &[]).unwrap();
        assert_eq!(allowed(&mut pattern, &[97], 257).unwrap(), [98]);
        let error = allowed(&mut pattern, &[97, 98], 257).unwrap_err().to_string();
        assert!(error.contains("`end` is empty"), "{error}");
        let error = allowed(&mut pattern, &[98], 257).unwrap_err().to_string();
        assert!(error.contains("token 0 of the text"), "{error}");
        // Forced elsewhere to what the pattern forbids, and scores that are no numbers.
        for value in [f32::NEG_INFINITY, f32::NAN] {
            let mut scores = vec![0.0; 257];
            scores[97] = value;
            let row = Row { tokens: &[], prompt: 0, item: 0, padding: 0 };
            let error = pattern.process(row, &mut scores).unwrap_err().to_string();
            assert!(error.contains("no token with a probability"), "{error}");
        }
    }

    #[test]
    fn expressions_that_cannot_be_had_are_errors() {
        let pieces = Pieces::bytes_and(&[]);
        for (expression, part) in [
            (r"[a&&b]", "some text matches"),
            (r"a$b", "some text matches"),
            (r"(a", "unclosed group"),
            (r"\bword\b", "word boundar"),
            (r"(?:(?:\w{100}){100}){100}", "a smaller one"),
            (r"(?:a|b)*a(?:a|b){40}", "a smaller one"),
            (&"a".repeat(LONGEST + 1), "a smaller one"),
        ] {
            let error = Pattern::regex(expression, &pieces, &[256]).err().unwrap().to_string();
            assert!(error.contains("`expression`") && error.contains(part) && error.len() < 400, "{error}");
        }
    }

    #[test]
    fn masks_that_are_kept_are_those_of_their_states() {
        let pieces = Pieces::bytes_and(&["ab"]);
        let mut warm = Pattern::regex("(?:ab|c)*d", &pieces, &[]).unwrap();
        let texts: [&[u32]; 5] = [&[], &[97], &[97, 98], &[256, 99], &[99, 97]];
        for text in texts.iter().chain(&texts) {
            let mut cold = Pattern { machine: Arc::clone(&warm.machine), masks: HashMap::new() };
            assert_eq!(allowed(&mut warm, text, 257).unwrap(), allowed(&mut cold, text, 257).unwrap());
        }
        assert!(warm.masks.len() < texts.len());
    }
}

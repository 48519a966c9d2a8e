//! Texts that match a regular expression, or are JSON of a schema, by llguidance.

use super::processor::{GenerationState, LogitsProcessor};
use crate::tokenizer::Tokenizer;
use aigc_core::{Error, Result};
use llguidance::{
    JsonCompileOptions, Matcher, ParserFactory,
    api::{GrammarInit, ParserLimits, TopLevelGrammar},
    derivre::RegexAst,
    earley::{Grammar, SymbolProps, lexerspec::LexerSpec},
    panic_utils::catch_unwind,
    toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::Value;
use std::{collections::HashMap, fmt::Display, panic::AssertUnwindSafe, sync::Arc};

/// The longest expression or schema, in bytes: what the library makes of one takes memory by the
/// square of its length.
const LONGEST: usize = 1 << 14;
/// Values that the schemas of a schema may be once all references are replaced by what they refer
/// to.
const MERGED: u64 = 100_000;
/// The largest `multipleOf` that the library computes with.
const LARGEST_STEP: f64 = 1e8;
/// States of the automaton, of one or two kilobytes each.
const AUTOMATON: usize = 50_000;
/// Beginnings of texts to keep.
const KEPT: usize = 256;
/// Schemas may refer to each other in a long row, which is followed by recursion.
const STACK: usize = 1 << 28;

/// Allows only tokens with which what is generated, the whole of it and without the prompt, can
/// still match ([llguidance](https://github.com/guidance-ai/llguidance); Willard and Louf 2023,
/// <https://arxiv.org/abs/2307.09702>).
///
/// A text is over where a token of `end` comes. The same tokens have to be the generator's
/// `eos_token_id`; and a text that is cut off by its greatest length is but the beginning of one
/// that matches. Tokens without text and special ones are never allowed, except to end.
///
/// Where the tokenizer lacks a token for some bytes, a text may get to where no token goes on,
/// which is an error.
///
/// ```
/// # use aigc_text::{CharacterTokenizer, GenerationConfig, TextGenerator, Gpt2Config, GrammarConstraint, Tokenizer};
/// # use aigc_text::generate::TokenIds;
/// # fn main() -> aigc_core::Result<()> {
/// # let config = Gpt2Config { vocab_size: 14, n_positions: 32, n_embd: 8, n_head: 2, ..Default::default() };
/// # let config = Gpt2Config { bos_token_id: None, eos_token_id: None, ..config };
/// # let model = config.init(&aigc_core::device::device("flex")?)?;
/// let tokenizer = CharacterTokenizer::of("0123456789-at\n");
/// let end = tokenizer.encode("\n")?;
/// let date = GrammarConstraint::regex("[0-9]{4}-[0-9]{2}-[0-9]{2}", &tokenizer, &end)?;
/// let config = GenerationConfig { eos_token_id: Some(TokenIds::Several(end)), ..Default::default() };
/// let prompt = tokenizer.encode("at")?;
/// let texts = TextGenerator::new(&model, config)?.processor(date).generate(&[prompt])?;
/// let date = tokenizer.decode(texts[0].new_tokens());
/// assert_eq!(date.trim_end().split('-').map(str::len).collect::<Vec<_>>(), [4, 2, 2], "{date}");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct GrammarConstraint {
    /// As it was made: clones of another share its automaton, which has a greatest size.
    new: Matcher,
    start: State,
    /// By the tokens that lead to them.
    states: HashMap<Vec<u32>, State>,
    end: Vec<u32>,
}

impl GrammarConstraint {
    /// Texts that match `expression` as a whole, in the syntax of the `regex` crate; `end` has the
    /// tokens that may end them.
    ///
    /// Whether repetitions are greedy makes no difference, nor does the order of alternatives:
    /// every text that matches in some way can come. Without tokens to end it, a text goes on until
    /// nothing may follow, which is an error.
    ///
    /// # Errors
    /// [`Error::Config`] for an expression that is broken, too large (16 KiB), of a syntax that
    /// automata do not have (`\b`, `^` and `$` elsewhere than around the whole), with a group that
    /// is named `stop`, or that no text of the tokens matches.
    pub fn regex(expression: &str, tokenizer: &dyn Tokenizer, end: &[u32]) -> Result<Self> {
        within("expression", expression)?;
        if ["(?P<stop>", "(?<stop>"]
            .iter()
            .any(|group| expression.contains(group))
        {
            return Err(fault(
                "expression",
                expression,
                "groups of any name but `stop`, which has a meaning of its own",
            ));
        }
        let grammar = catch_unwind(AssertUnwindSafe(|| {
            let mut lexer = LexerSpec::new()?;
            lexer.setup_lexeme_class(RegexAst::NoMatch)?;
            let all = RegexAst::Regex(expression.to_string());
            let lexeme = lexer.add_greedy_lexeme("text".into(), all, false, None, usize::MAX)?;
            let mut grammar = Grammar::new(None);
            let start = grammar.fresh_symbol_ext(
                "start",
                SymbolProps {
                    is_start: true,
                    ..SymbolProps::default()
                },
            );
            let text = grammar.fresh_symbol_ext("text", SymbolProps::default());
            grammar.make_terminal(text, lexeme, &lexer)?;
            grammar.add_rule(start, vec![text])?;
            Ok(GrammarInit::Internal(grammar, lexer))
        }));
        let grammar = grammar.map_err(|error| fault("expression", expression, error))?;
        Self::new("expression", expression, grammar, tokenizer, end)
    }

    /// Texts that are JSON of `schema`, a JSON schema; `end` has the tokens that may end them.
    ///
    /// It is [JSON Schema](https://json-schema.org/draft/2020-12) as far as llguidance [knows
    /// it](https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md): properties
    /// come in their order, and others only behind them, where `additionalProperties` is not
    /// `false`; what `oneOf` gives may be another of its schemas as well; `$ref` is a place in the
    /// schema (`#/$defs/…`). Numbers have any number of digits, and those of a schema are 64-bit
    /// floats. Keywords that it does not know are errors, those of no standard are passed over.
    ///
    /// One space may follow each `:` and `,`; there is no other whitespace.
    ///
    /// # Errors
    /// [`Error::Config`] for text that is no schema, for keywords that cannot be held to, and as
    /// [`regex`](Self::regex).
    pub fn json_schema(schema: &str, tokenizer: &dyn Tokenizer, end: &[u32]) -> Result<Self> {
        within("schema", schema)?;
        let mut value: Value =
            serde_json::from_str(schema).map_err(|error| fault("schema", schema, error))?;
        if !value.is_object() {
            return Err(fault("schema", schema, "not an object"));
        }
        Expansion::check(&value).map_err(|error| fault("schema", schema, error))?;
        let options = JsonCompileOptions {
            item_separator: ", ?".into(),
            key_separator: ": ?".into(),
            whitespace_flexible: false,
            coerce_one_of: true,
            ..JsonCompileOptions::default()
        };
        options.apply_to(&mut value);
        let grammar = GrammarInit::Serialized(TopLevelGrammar::from_json_schema(value));
        Self::new("schema", schema, grammar, tokenizer, end)
    }

    /// `given` is what errors show as the value of `field`.
    fn new(
        field: &str,
        given: &str,
        grammar: GrammarInit,
        tokenizer: &dyn Tokenizer,
        end: &[u32],
    ) -> Result<Self> {
        let fault = |error: &dyn Display| fault(field, given, error);
        let text = |token: u32| {
            let is_text = !tokenizer.is_special(token) && !end.contains(&token);
            if is_text {
                tokenizer.token_bytes(token)
            } else {
                Vec::new()
            }
        };
        let mut texts: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32).map(text).collect();
        // For the library, a token of its own stands for all that end a text, of which there may be
        // none.
        texts.push(Vec::new());
        let build = || {
            catch_unwind(AssertUnwindSafe(|| {
                let info = TokRxInfo::new(texts.len() as u32, texts.len() as u32 - 1);
                let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &texts)));
                let mut factory = ParserFactory::new_simple(&tokens)?;
                factory.quiet();
                *factory.limits_mut() = ParserLimits {
                    verbose_errors: false,
                    max_lexer_states: AUTOMATON,
                    ..ParserLimits::default()
                };
                Ok(Matcher::new(
                    factory.create_parser_from_init_default(grammar),
                ))
            }))
            .map_err(|error| error.to_string())
            .and_then(|new| Ok((State::of(new.deep_clone())?, new)))
        };
        let thread = std::thread::Builder::new().stack_size(STACK);
        let built = std::thread::scope(|scope| {
            thread
                .spawn_scoped(scope, build)
                .map(|thread| thread.join())
        });
        let (start, new) = match built {
            Ok(Ok(made)) => made.map_err(|error| fault(&error))?,
            Ok(Err(_)) => return Err(fault(&"it cannot be built")),
            Err(error) => return Err(fault(&error)),
        };
        Ok(Self {
            new,
            start,
            states: HashMap::new(),
            end: end.to_vec(),
        })
    }

    /// What may follow `tokens`, of which the first is token `first` of the text.
    fn state(&mut self, tokens: &[u32], first: usize) -> Result<&State> {
        if self.reach(tokens, first).is_err() {
            // The automaton may have become too large by texts before.
            self.start = State::of(self.new.deep_clone())
                .map_err(|error| fault("pattern", "at its beginning", error))?;
            self.states.clear();
            self.reach(tokens, first)?;
        }
        Ok(self.states.get(tokens).unwrap_or(&self.start))
    }

    /// Computes it, if it is not known.
    fn reach(&mut self, tokens: &[u32], first: usize) -> Result<()> {
        let known = (1..=tokens.len())
            .rev()
            .find(|known| self.states.contains_key(&tokens[..*known]))
            .unwrap_or(0);
        if known < tokens.len() {
            let mut matcher = self
                .states
                .get(&tokens[..known])
                .unwrap_or(&self.start)
                .matcher
                .clone();
            for (at, token) in tokens.iter().enumerate().skip(known) {
                matcher.consume_token(*token).map_err(|error| {
                    let reason = reason(&error);
                    let expected = format!(
                        "one that the pattern allows; see what else forces tokens ({reason})"
                    );
                    Error::config(format!("token {} of the text", first + at), token, expected)
                })?;
            }
            let state = State::of(matcher)
                .map_err(|error| fault("pattern", "without an end here", error))?;
            if self.states.len() >= KEPT {
                // Those of other rows, which have as many tokens, or had in the step before.
                self.states
                    .retain(|kept, _| (kept.len()..=kept.len() + 1).contains(&tokens.len()));
            }
            self.states.insert(tokens.to_vec(), state);
        }
        Ok(())
    }
}

impl LogitsProcessor for GrammarConstraint {
    fn process(&mut self, row: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let new = &row.tokens[row.prompt_len..];
        if new.iter().any(|token| self.end.contains(token)) {
            return Ok(());
        }
        let end = self.end.clone();
        let allowed = &self.state(new, row.prompt_len)?.allowed;
        let last = allowed.len() - 1;
        let may_end = allowed.get(last);
        if may_end && end.is_empty() && allowed.num_set() == 1 {
            let expected =
                "the token that ends a text: this one matches the pattern, and nothing may follow";
            return Err(Error::config("end", "empty", expected));
        }
        let mut left = false;
        for (token, score) in scores.iter_mut().enumerate() {
            if token < last && allowed.get(token) || may_end && end.contains(&(token as u32)) {
                left |= *score > f32::NEG_INFINITY;
            } else {
                *score = f32::NEG_INFINITY;
            }
        }
        if left {
            return Ok(());
        }
        let expected = "one that the pattern and all other options allow, and finite weights";
        Err(Error::config(
            "scores",
            "no token with a probability",
            expected,
        ))
    }
}

/// A text as far as it has come.
#[derive(Clone)]
struct State {
    matcher: Matcher,
    /// Tokens that may follow; the last, which the tokenizer does not have, stands for the end.
    allowed: SimpleVob,
}

impl State {
    fn of(mut matcher: Matcher) -> std::result::Result<Self, String> {
        match matcher.compute_mask_or_eos() {
            Ok(allowed) => Ok(Self { matcher, allowed }),
            Err(error) if error.to_string().starts_with("NoExtension") => {
                Err("no token may follow".into())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What a schema becomes where references are replaced by what they refer to, as they are in
/// schemas that are merged.
struct Expansion<'a> {
    root: &'a Value,
    /// Of what is referred to; nothing while it is being counted.
    sizes: HashMap<&'a str, Option<u64>>,
    /// Whether anything is merged.
    merges: bool,
}

impl<'a> Expansion<'a> {
    /// Fails if it is too large, or holds what the library does not compute with.
    fn check(root: &'a Value) -> Result<(), String> {
        let mut expansion = Self {
            root,
            sizes: HashMap::new(),
            merges: false,
        };
        let size = expansion.size(root)?;
        if expansion.merges && size > MERGED {
            return Err(format!(
                "references and what stands beside them make more than {MERGED} values, which is too large"
            ));
        }
        Ok(())
    }

    fn size(&mut self, schema: &'a Value) -> Result<u64, String> {
        match schema {
            Value::Array(values) => values.iter().try_fold(1, |sum: u64, value| {
                Ok(sum.saturating_add(self.size(value)?))
            }),
            Value::Object(fields) => {
                // Any keyword beside one of these may have to be merged with it.
                let combined = ["$ref", "allOf", "anyOf", "oneOf"]
                    .iter()
                    .any(|name| fields.contains_key(*name));
                let several = fields
                    .get("allOf")
                    .and_then(Value::as_array)
                    .is_some_and(|all| all.len() > 1);
                let beside = fields.keys().filter(|name| {
                    !["title", "description", "default", "$defs"].contains(&&***name)
                });
                self.merges |= several || combined && beside.count() > 1;
                if fields
                    .get("multipleOf")
                    .and_then(Value::as_f64)
                    .is_some_and(|step| step > LARGEST_STEP)
                {
                    return Err(format!("`multipleOf` above {LARGEST_STEP}"));
                }
                let mut sum: u64 = 1;
                for (name, value) in fields {
                    let size = match value {
                        Value::String(to) if name == "$ref" => self.referred(to)?,
                        other => self.size(other)?,
                    };
                    sum = sum.saturating_add(size);
                }
                Ok(sum)
            }
            _ => Ok(1),
        }
    }

    fn referred(&mut self, to: &'a str) -> Result<u64, String> {
        if let Some(known) = self.sizes.get(to) {
            return Ok(known.unwrap_or(1));
        }
        let place = to
            .strip_prefix('#')
            .filter(|place| place.is_empty() || place.starts_with('/'));
        let Some(place) = place else {
            return Err(format!(
                "`$ref` to {}, where a place in the schema was expected (`#/…`)",
                short(to)
            ));
        };
        self.sizes.insert(to, None);
        let size = match self.root.pointer(place) {
            Some(schema) => self.size(schema)?,
            None => 1,
        };
        self.sizes.insert(to, Some(size));
        Ok(size)
    }
}

fn within(field: &str, given: &str) -> Result<()> {
    if given.len() <= LONGEST {
        Ok(())
    } else {
        Err(fault(
            field,
            given,
            format!("too long, of {} bytes", given.len()),
        ))
    }
}

/// An error of the library's, by its last line that says something.
fn reason(error: &dyn Display) -> String {
    let error = error.to_string();
    let reason = error.split("\n<").next().unwrap_or_default();
    short(reason.rsplit("error: ").next().unwrap_or_default())
}

fn fault(field: &str, given: &str, error: impl Display) -> Error {
    Error::config(
        field,
        short(given),
        format!("one that can be held to: {}", reason(&error)),
    )
}

/// The beginning of a text, for errors.
fn short(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::rng::Rng;
    use serde_json::{Value, json};
    use std::{collections::BTreeSet, path::Path, time::Instant};

    /// Tokens of any bytes.
    struct Pieces(Vec<Vec<u8>>);

    impl Pieces {
        fn of(pieces: &[&str]) -> Self {
            Self(
                pieces
                    .iter()
                    .map(|piece| piece.as_bytes().to_vec())
                    .collect(),
            )
        }

        /// All bytes, and what else there is.
        fn bytes_and(pieces: &[&str]) -> Self {
            let bytes = (0..=255u8).map(|byte| vec![byte]);
            Self(
                bytes
                    .chain(pieces.iter().map(|piece| piece.as_bytes().to_vec()))
                    .collect(),
            )
        }
    }

    impl Tokenizer for Pieces {
        fn encode(&self, _: &str) -> Result<Vec<u32>> {
            Err(Error::config(
                "text",
                "any",
                "none: these tokens are for their bytes",
            ))
        }

        fn token_bytes(&self, token: u32) -> Vec<u8> {
            self.0.get(token as usize).cloned().unwrap_or_default()
        }

        fn vocab_size(&self) -> usize {
            self.0.len()
        }

        fn is_special(&self, token: u32) -> bool {
            self.token_bytes(token).starts_with(b"<|")
        }

        fn save(&self, _: &Path) -> Result<()> {
            Ok(())
        }
    }

    /// Which of `count` tokens are allowed behind `tokens`.
    fn allowed(
        pattern: &mut GrammarConstraint,
        tokens: &[u32],
        count: usize,
    ) -> Result<Vec<usize>> {
        let mut scores = vec![0.0; count];
        pattern.process(
            GenerationState {
                tokens,
                prompt_len: 0,
                prompt_index: 0,
                padding: 0,
            },
            &mut scores,
        )?;
        Ok((0..count).filter(|token| scores[*token] == 0.0).collect())
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
                return Expression::Byte(b"ab"[rng.random_index(2)]);
            }
            let left = 1 + rng.random_index(size - 1);
            match rng.random_index(5) {
                0 | 1 => Expression::Both(
                    Self::random(rng, left).into(),
                    Self::random(rng, size - left).into(),
                ),
                2 => Expression::Either(
                    Self::random(rng, left).into(),
                    Self::random(rng, size - left).into(),
                ),
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
                    let (least, most, sign) = kinds[rng.random_index(kinds.len())];
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
                Expression::Byte(byte) => (text.get(from) == Some(byte))
                    .then_some(from + 1)
                    .into_iter()
                    .collect(),
                Expression::Both(a, b) => a
                    .ends(text, from)
                    .into_iter()
                    .flat_map(|at| b.ends(text, at))
                    .collect(),
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
            let longer = |text: Vec<u8>| {
                pieces
                    .iter()
                    .map(move |piece| [&text[..], &piece[..]].concat())
            };
            last = last
                .into_iter()
                .flat_map(longer)
                .filter(|text| text.len() <= most)
                .collect();
        }
        all
    }

    #[test]
    fn masks_are_those_of_trying_everything() {
        let mut rng = Rng::new(11);
        let own = ["ab", "ba", "aab", "bbb"];
        let (mut seen, mut ended) = (0, 0);
        for round in 0..120 {
            let pieces = if round % 2 == 0 {
                Pieces::of(&["a", "b"])
            } else {
                Pieces::bytes_and(&own)
            };
            let is_useful = |piece: &&Vec<u8>| piece.iter().all(|byte| b"ab".contains(byte));
            // With as many bytes as the rest of a text has at most.
            let every = texts_of(&[b"a".to_vec(), b"b".to_vec()], 8);
            let size = 1 + rng.random_index(5);
            let expression = Expression::random(&mut rng, size);
            let end = pieces.0.len();
            let can_match = |start: &[u8]| {
                every
                    .iter()
                    .any(|rest| expression.matches(&[start, rest].concat()))
            };
            let mut pattern =
                GrammarConstraint::regex(&expression.text(), &pieces, &[end as u32]).unwrap();
            let mut tokens = Vec::new();
            for _ in 0..4 {
                let text: Vec<u8> = tokens
                    .iter()
                    .flat_map(|token| pieces.token_bytes(*token))
                    .collect();
                let may_follow = |token: &usize| match pieces.0.get(*token) {
                    Some(piece) => {
                        is_useful(&piece) && can_match(&[&text[..], &piece[..]].concat())
                    }
                    None => expression.matches(&text),
                };
                let expected: Vec<usize> = (0..=end).filter(may_follow).collect();
                let got = allowed(&mut pattern, &tokens, end + 1).unwrap();
                assert_eq!(
                    got,
                    expected,
                    "{} after {:?}",
                    expression.text(),
                    String::from_utf8_lossy(&text)
                );
                seen += 1;
                match got[rng.random_index(got.len())] {
                    token if token == end => {
                        ended += 1;
                        break;
                    }
                    token => tokens.push(token as u32),
                }
            }
        }
        assert!(seen > 200 && ended > 10, "{seen} {ended}");
    }

    #[test]
    fn special_tokens_and_those_without_text_are_not_allowed() {
        let pieces = Pieces::of(&["<", "|", "<|x|>", "", "<<", "x"]);
        let mut pattern = GrammarConstraint::regex(r"[<|x>]*", &pieces, &[5]).unwrap();
        // The last of them ends; the seventh score is of no token at all.
        assert_eq!(allowed(&mut pattern, &[], 7).unwrap(), [0, 1, 4, 5]);
        assert_eq!(allowed(&mut pattern, &[0], 7).unwrap(), [0, 1, 4, 5]);
        // What lacks a token is missed where it comes.
        let mut pattern = GrammarConstraint::regex("<(?:xy|x)", &pieces, &[5]).unwrap();
        assert_eq!(allowed(&mut pattern, &[], 7).unwrap(), [0]);
        assert!(
            GrammarConstraint::regex("y", &pieces, &[5])
                .err()
                .unwrap()
                .to_string()
                .contains("no token may follow")
        );
    }

    #[test]
    fn a_text_that_has_ended_is_left_alone() {
        let pieces = Pieces::bytes_and(&[]);
        let mut pattern = GrammarConstraint::regex("a+", &pieces, &[256]).unwrap();
        assert_eq!(allowed(&mut pattern, &[97, 256], 257).unwrap().len(), 257);
        assert_eq!(
            allowed(&mut pattern, &[97, 256, 5], 257).unwrap().len(),
            257
        );
        // What the prompt says does not matter.
        let mut scores = vec![0.0; 257];
        pattern
            .process(
                GenerationState {
                    tokens: &[256, 3],
                    prompt_len: 2,
                    prompt_index: 0,
                    padding: 0,
                },
                &mut scores,
            )
            .unwrap();
        assert_eq!(
            (0..257)
                .filter(|token| scores[*token] == 0.0)
                .collect::<Vec<_>>(),
            [97]
        );
    }

    #[test]
    fn nothing_to_go_on_with_is_an_error() {
        let pieces = Pieces::bytes_and(&[]);
        let mut pattern = GrammarConstraint::regex("ab", &pieces, &[]).unwrap();
        assert_eq!(allowed(&mut pattern, &[97], 257).unwrap(), [98]);
        let error = allowed(&mut pattern, &[97, 98], 257)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`end` is empty"), "{error}");
        let error = allowed(&mut pattern, &[98], 257).unwrap_err().to_string();
        assert!(error.contains("token 0 of the text"), "{error}");
        // WordConstraint elsewhere to what the pattern forbids, and scores that are no numbers.
        for value in [f32::NEG_INFINITY, f32::NAN] {
            let mut scores = vec![0.0; 257];
            scores[97] = value;
            let row = GenerationState {
                tokens: &[],
                prompt_len: 0,
                prompt_index: 0,
                padding: 0,
            };
            let error = pattern.process(row, &mut scores).unwrap_err().to_string();
            assert!(error.contains("no token with a probability"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        let pieces = Pieces::bytes_and(&[]);
        let begin = Instant::now();
        let long = "a".repeat(LONGEST + 1);
        for (expression, part) in [
            (r"[a&&b]", "no token may follow"),
            (r"a$b", "lookarounds"),
            (r"(a", "unclosed group"),
            (r"a\", "incomplete escape"),
            (r"\bword\b", "lookarounds"),
            (&long, "too long"),
            ("(?P<stop>a)b", "groups of any name"),
        ] {
            let error = GrammarConstraint::regex(expression, &pieces, &[256])
                .err()
                .unwrap()
                .to_string();
            assert!(
                error.contains("`expression`") && error.contains(part) && error.len() < 400,
                "{error}"
            );
        }
        let mut row = json!({"a0": {"type": "null"}});
        for i in 1..300 {
            row[format!("a{i}")] = json!({"$ref": format!("#/$defs/a{}", i - 1)});
        }
        let mut doubled = json!({"a0": {"type": "null"}});
        for i in 1..40 {
            let next = json!({"$ref": format!("#/$defs/a{}", i - 1)});
            doubled[format!("a{i}")] =
                json!({"type": "array", "prefixItems": [next, next], "minItems": 2});
        }
        // The same merged with something.
        let mut merged = json!({"a0": {"type": "null"}});
        for i in 1..40 {
            let next = json!({"type": "array", "$ref": format!("#/$defs/a{}", i - 1)});
            merged[format!("a{i}")] = json!({"type": "array", "prefixItems": [next, next]});
        }
        let every: Vec<Value> = (0..60)
            .map(|i| json!({"anyOf": [{"minimum": i}, {"maxLength": i}]}))
            .collect();
        let huge = json!({"type": "array", "items": {"type": "integer"}, "minItems": u32::MAX, "maxItems": u64::MAX});
        for (schema, part) in [
            (json!(3), "not an object"),
            (json!({"type": "strin"}), "strin"),
            (json!({"type": "string", "pattern": "(?=a)"}), "look"),
            (json!({"type": "string", "pattern": "(a"}), "unclosed"),
            (
                json!({"type": "object", "dependentRequired": {}}),
                "dependentRequired",
            ),
            (json!({"not": {"type": "null"}}), "not"),
            (json!({"$ref": "https://example.com/x"}), "example.com"),
            (json!({"$ref": "#/$defs/x"}), "not found"),
            (
                json!({"type": "integer", "minimum": 3, "maximum": 2}),
                "minimum",
            ),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
                "no token may follow",
            ),
            (json!({"allOf": every}), "too large"),
            (
                json!({"type": "number", "multipleOf": 1e-300}),
                "too many digits",
            ),
            (json!({"type": "number", "multipleOf": 1e9}), "multipleOf"),
            (
                json!({"$ref": "#/$defs/a39", "$defs": merged}),
                "more than 100000 values",
            ),
            (json!({"const": "a".repeat(LONGEST)}), "too long"),
        ] {
            let error = GrammarConstraint::json_schema(&schema.to_string(), &pieces, &[256]).err();
            let error = error
                .unwrap_or_else(|| panic!("{}", short(&schema.to_string())))
                .to_string();
            assert!(
                error.contains("`schema`") && error.contains(part) && error.len() < 400,
                "{error}"
            );
        }
        for text in ["", "{", "{\"type\":\"null\"} x", &"[".repeat(100_000)] {
            let error = GrammarConstraint::json_schema(text, &pieces, &[])
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains("`schema`") && error.len() < 400, "{error}");
        }
        // What is long, but no more than that.
        for defs in [row, doubled] {
            let last = defs.as_object().unwrap().len() - 1;
            let schema = json!({"$ref": format!("#/$defs/a{last}"), "$defs": defs});
            GrammarConstraint::json_schema(&schema.to_string(), &pieces, &[256]).unwrap();
        }
        GrammarConstraint::regex(r"(?:(?:\w{100}){100}){100}", &pieces, &[256]).unwrap();
        GrammarConstraint::json_schema(&huge.to_string(), &pieces, &[256]).unwrap();
        assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    }

    #[test]
    fn texts_may_be_taken_back_and_gone_on_with() {
        let pieces = Pieces::bytes_and(&["ab"]);
        let mut warm = GrammarConstraint::regex("(?:ab|c)*d", &pieces, &[]).unwrap();
        let texts: [&[u32]; 6] = [
            &[99, 97, 98, 256],
            &[],
            &[97],
            &[97, 98],
            &[256, 99],
            &[99, 97],
        ];
        for text in texts.iter().chain(&texts) {
            let mut cold = GrammarConstraint {
                states: HashMap::new(),
                ..warm.clone()
            };
            assert_eq!(
                allowed(&mut warm, text, 257).unwrap(),
                allowed(&mut cold, text, 257).unwrap()
            );
        }
        for length in 0..2 * KEPT {
            assert_eq!(
                allowed(&mut warm, &vec![99; length], 257).unwrap(),
                [97, 99, 100, 256]
            );
        }
        assert!(warm.states.len() <= KEPT);
        // So do those of many rows.
        for row in 0..2 * KEPT as u32 {
            let text: Vec<u32> = (0..9)
                .map(|bit| if row >> bit & 1 == 1 { 256 } else { 99 })
                .collect();
            assert_eq!(allowed(&mut warm, &text, 257).unwrap(), [97, 99, 100, 256]);
        }
        assert!(warm.states.len() >= 2 * KEPT, "{}", warm.states.len());
    }

    #[test]
    fn an_automaton_that_becomes_too_large_is_begun_again() {
        let pieces = Pieces::bytes_and(&[]);
        let mut pattern = GrammarConstraint::regex("[ab]*a[ab]{24}!", &pieces, &[256]).unwrap();
        let mut rng = Rng::new(4);
        for _ in 0..400 {
            let text: Vec<u32> = (0..200).map(|_| 97 + rng.random_index(2) as u32).collect();
            let expected = if text[text.len() - 25] == 97 {
                vec![33, 97, 98]
            } else {
                vec![97, 98]
            };
            assert_eq!(allowed(&mut pattern, &text, 257).unwrap(), expected);
        }
    }

    #[test]
    fn json_has_no_whitespace_but_a_space_behind_signs() {
        let pieces = Pieces::bytes_and(&[]);
        let properties =
            json!({"b": {"type": "integer"}, "a": {"type": "array", "items": {"type": "null"}}});
        let schema =
            json!({"type": "object", "properties": properties, "additionalProperties": false});
        let mut pattern =
            GrammarConstraint::json_schema(&schema.to_string(), &pieces, &[256]).unwrap();
        let mut is_of = |text: &str| {
            let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
            allowed(&mut pattern, &tokens, 257).is_ok_and(|tokens| tokens.contains(&256))
        };
        for text in [
            r#"{"b":1,"a":[null,null]}"#,
            r#"{"b": 1, "a": [null, null]}"#,
            "{}",
            r#"{"a":[]}"#,
        ] {
            assert!(is_of(text), "{text}");
        }
        for text in [
            r#"{"a":[],"b":1}"#,
            r#"{"b" :1}"#,
            r#"{"b":  1}"#,
            " {}",
            "{ }",
            "{}\n",
            r#"{"c":1}"#,
            "{",
        ] {
            assert!(!is_of(text), "{text}");
        }
    }
}

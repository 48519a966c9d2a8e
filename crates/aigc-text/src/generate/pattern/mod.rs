//! Sequences that match a regular expression or a JSON schema, by llguidance.

mod schema;
#[cfg(test)]
mod tests;

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
use schema::Expansion;
use serde_json::Value;
use std::{collections::HashMap, fmt::Display, panic::AssertUnwindSafe, sync::Arc};

/// Limit on the expression or schema, in bytes: the library's memory grows with the square of the
/// length.
const LONGEST: usize = 1 << 14;
/// Limit on the states of the automaton, which have one or two kilobytes each.
const AUTOMATON: usize = 50_000;
/// Number of matcher states to keep.
const KEPT: usize = 256;
/// Stack size: long chains of references are expanded recursively.
const STACK: usize = 1 << 28;

/// Allows only tokens after which the generated text, without the prompt, can still match the whole
/// pattern ([llguidance](https://github.com/guidance-ai/llguidance); Willard and Louf 2023,
/// <https://arxiv.org/abs/2307.09702>).
///
/// A token of `end` ends a sequence; the generator's `eos_token_id` must contain the same tokens. A
/// sequence that ends because of its length is only the beginning of a match. Special tokens and
/// tokens without text are never allowed, except to end a sequence.
///
/// If the tokenizer has no tokens for some bytes, a sequence may reach a state without an allowed
/// token, which is an error.
///
/// ```
/// # use aigc_text::{CharacterTokenizer, GenerationConfig, Gpt2Config, GrammarConstraint};
/// # use aigc_text::{TextGenerator, Tokenizer};
/// # use aigc_text::generate::TokenIds;
/// # fn main() -> aigc_core::Result<()> {
/// # let config = Gpt2Config { vocab_size: 14, n_positions: 32, ..Default::default() };
/// # let config = Gpt2Config { n_embd: 8, n_head: 2, ..config };
/// # let config = Gpt2Config { bos_token_id: None, eos_token_id: None, ..config };
/// # let model = config.init(&aigc_core::device::device("flex")?)?;
/// let tokenizer = CharacterTokenizer::from_text("0123456789-at\n");
/// let end = tokenizer.encode("\n")?;
/// let date = GrammarConstraint::regex("[0-9]{4}-[0-9]{2}-[0-9]{2}", &tokenizer, &end)?;
/// let config = GenerationConfig {
///     eos_token_id: Some(TokenIds::Several(end)),
///     ..Default::default()
/// };
/// let prompt = tokenizer.encode("at")?;
/// let generator = TextGenerator::new(&model, config)?.with_logits_processor(date);
/// let texts = generator.generate(&[prompt])?;
/// let date = tokenizer.decode(texts[0].new_tokens());
/// assert_eq!(date.trim_end().split('-').map(str::len).collect::<Vec<_>>(), [4, 2, 2], "{date}");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct GrammarConstraint {
    /// An unused matcher: clones of a used one share its automaton, whose size is limited.
    new: Matcher,
    start: State,
    /// Matcher states by the new tokens before them.
    states: HashMap<Vec<u32>, State>,
    end: Vec<u32>,
}

impl GrammarConstraint {
    /// A constraint to texts that match `expression` as a whole, in the syntax of the `regex`
    /// crate; tokens of `end` may end the text.
    ///
    /// Greediness of repetitions and order of alternatives do not matter: every matching text can
    /// be generated. If `end` is empty, a sequence grows until no token is allowed, which is an
    /// error.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an expression that is invalid, too large (16 KiB), has syntax
    /// that automata do not support (`\b`, `^` and `$` except around the whole), a group named
    /// `stop`, or no matching text of the tokens.
    pub fn regex(expression: &str, tokenizer: &dyn Tokenizer, end: &[u32]) -> Result<Self> {
        within("expression", expression)?;
        if ["(?P<stop>", "(?<stop>"]
            .iter()
            .any(|group| expression.contains(group))
        {
            return Err(fault(
                "expression",
                expression,
                "groups of any name but `stop`, which is reserved",
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

    /// A constraint to JSON that matches `schema`, a JSON schema; tokens of `end` may end the text.
    ///
    /// The schema is a [JSON Schema](https://json-schema.org/draft/2020-12) with the keywords that
    /// llguidance
    /// [supports](https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md).
    /// Properties are generated in the order of the schema, and additional ones only after them,
    /// unless `additionalProperties` is `false`. A value for `oneOf` may match several of its
    /// schemas. `$ref` is a path within the schema (`#/$defs/…`). Numbers have any number of
    /// digits, and numbers in the schema are 64-bit floats. Unsupported keywords of the standard
    /// are errors; unknown keywords are ignored.
    ///
    /// One space may follow each `:` and `,`; there is no other whitespace.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a text that is not a schema, for unsupported keywords, and as
    /// for [`regex`](Self::regex).
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

    /// Error messages show `given` as the value of `field`.
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
        // The library has one token for all that end a text, even if there are none.
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
            Ok(Ok(built)) => built.map_err(|error| fault(&error))?,
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

    /// The state after `tokens`, of which the first is token number `first` of the sequence.
    fn state(&mut self, tokens: &[u32], first: usize) -> Result<&State> {
        if self.reach(tokens, first).is_err() {
            // Earlier sequences may have made the automaton too large.
            self.start = State::of(self.new.deep_clone())
                .map_err(|error| fault("pattern", "at its beginning", error))?;
            self.states.clear();
            self.reach(tokens, first)?;
        }
        Ok(self.states.get(tokens).unwrap_or(&self.start))
    }

    /// Computes the state after `tokens`, unless it is known.
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
                        "one that the pattern allows; see which option forces tokens ({reason})"
                    );
                    Error::argument(format!("token {} of the text", first + at), token, expected)
                })?;
            }
            let state = State::of(matcher)
                .map_err(|error| fault("pattern", "without an end here", error))?;
            if self.states.len() >= KEPT {
                // Keeps the states of other batch elements, which have as many tokens, or one less.
                self.states
                    .retain(|kept, _| (kept.len()..=kept.len() + 1).contains(&tokens.len()));
            }
            self.states.insert(tokens.to_vec(), state);
        }
        Ok(())
    }
}

impl LogitsProcessor for GrammarConstraint {
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let new = &state.tokens[state.prompt_len..];
        if new.iter().any(|token| self.end.contains(token)) {
            return Ok(());
        }
        let end = self.end.clone();
        let allowed = &self.state(new, state.prompt_len)?.allowed;
        let last = allowed.len() - 1;
        let may_end = allowed.get(last);
        if may_end && end.is_empty() && allowed.num_set() == 1 {
            let expected = "a token that ends a sequence, since the text matches the pattern and no token may follow";
            return Err(Error::argument("end", "empty", expected));
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

/// The state of a sequence.
#[derive(Clone)]
struct State {
    matcher: Matcher,
    /// Tokens that may follow; the last, which the tokenizer does not have, is the end.
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

/// The last informative line of an error message of the library.
fn reason(error: &dyn Display) -> String {
    let error = error.to_string();
    let reason = error.split("\n<").next().unwrap_or_default();
    short(reason.rsplit("error: ").next().unwrap_or_default())
}

fn fault(field: &str, given: &str, error: impl Display) -> Error {
    Error::argument(
        field,
        short(given),
        format!("a supported one: {}", reason(&error)),
    )
}

/// The beginning of a text, for error messages.
fn short(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}

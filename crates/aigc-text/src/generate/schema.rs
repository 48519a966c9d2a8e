//! JSON schemas as regular expressions.

use super::{
    pattern::{LONGEST, short},
    script,
};
use aigc_core::{Error, Result};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;
use std::fmt;

/// Schemas inside of each other.
const DEEPEST: usize = 64;
/// How often a reference is followed inside of itself.
const NESTED: usize = 4;
/// Bytes to write at most, those of parts that are written again included, and what a schema counts beside its text.
const WORK: usize = 1 << 23;
const VISIT: usize = 64;
/// The greatest number of digits of an integer, so that readers need no more than 64 bits.
const DIGITS: usize = 18;
/// The greatest count of characters or items.
pub(super) const COUNT: u64 = 65_535;

const COMMA: &str = ", ?";
const COLON: &str = ": ?";
const NUMBER: &str = r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?";
/// A character inside a string. Two escapes make one character beyond U+FFFF, and neither half of them comes alone.
pub(super) const CHARACTER: &str = concat!(
    r#"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u(?:[0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}"#,
    r"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})))"
);
/// Keywords that say nothing about a text.
const PASSED_OVER: [&str; 12] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
];
const BOUNDS: [&str; 4] = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"];

/// The expression of JSON that a schema allows.
///
/// # Errors
/// [`Error::Config`] for text that is no schema, or one with what cannot be expressed; its field is the place in the
/// schema, as a JSON pointer.
pub(super) fn expression(schema: &str) -> Result<String> {
    if schema.len() > LONGEST {
        return Err(Error::config("schema", short(schema), format!("smaller: {LONGEST} bytes at most")));
    }
    let root: Json = serde_json::from_str(schema)
        .map_err(|error| Error::config("schema", short(schema), format!("a JSON schema: {error}")))?;
    let mut writer = Writer { root: &root, open: vec!["#"], left: WORK };
    let written = writer.schema(&root, "#", 0)?;
    written.ok_or_else(|| {
        let expected = format!("a schema that some JSON satisfies, nested at most {NESTED} times in itself");
        Error::config("schema", short(schema), expected)
    })
}

/// JSON whose objects keep their order.
enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some((name, value)) = access.next_entry::<String, Json>()? {
            if !names.insert(name.clone()) {
                return Err(serde::de::Error::custom(format!("{name:?} comes twice in an object")));
            }
            entries.push((name, value));
        }
        Ok(Json::Object(entries))
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comma = |i| if i == 0 { "" } else { "," };
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(value) => write!(f, "{value}"),
            Json::String(text) => f.write_str(&quoted(text)),
            Json::Array(items) => {
                f.write_str("[")?;
                items.iter().enumerate().try_for_each(|(i, item)| write!(f, "{}{item}", comma(i)))?;
                f.write_str("]")
            }
            Json::Object(entries) => {
                f.write_str("{")?;
                let entry =
                    |(i, (name, value)): (usize, &(String, Json))| write!(f, "{}{}:{value}", comma(i), quoted(name));
                entries.iter().enumerate().try_for_each(entry)?;
                f.write_str("}")
            }
        }
    }
}

impl Json {
    /// Whether it is of a type.
    fn is(&self, name: &str) -> bool {
        match self {
            Json::Null => name == "null",
            Json::Bool(_) => name == "boolean",
            Json::Number(n) => name == "number" || name == "integer" && n.as_f64().is_some_and(|n| n.fract() == 0.0),
            Json::String(_) => name == "string",
            Json::Array(_) => name == "array",
            Json::Object(_) => name == "object",
        }
    }

    /// An expression of nothing but it.
    fn literal(&self) -> String {
        match self {
            Json::Array(items) => {
                let items: Vec<String> = items.iter().map(Json::literal).collect();
                format!(r"\[{}\]", items.join(COMMA))
            }
            Json::Object(entries) => {
                let entry =
                    |(name, value): &(String, Json)| format!("{}{COLON}{}", escaped(&quoted(name)), value.literal());
                let entries: Vec<String> = entries.iter().map(entry).collect();
                format!(r"\{{{}\}}", entries.join(COMMA))
            }
            other => escaped(&other.to_string()),
        }
    }
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An expression of nothing but `text`.
pub(super) fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            all.push('\\');
        }
        all.push(c);
    }
    all
}

/// One of several expressions; nothing where there is none.
pub(super) fn either(mut options: Vec<String>) -> Option<String> {
    match options.len() {
        0 | 1 => options.pop(),
        _ => Some(format!("(?:{})", options.join("|"))),
    }
}

/// How often something comes, behind it.
pub(super) fn times(least: u64, most: Option<u64>) -> String {
    match (least, most) {
        (0, None) => "*".into(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}

/// The keywords of one schema.
struct Keywords<'a, 'p> {
    list: &'a [(String, Json)],
    path: &'p str,
}

impl<'a> Keywords<'a, '_> {
    fn get(&self, name: &str) -> Option<&'a Json> {
        self.list.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The place of a keyword.
    fn at(&self, name: &str) -> String {
        below(self.path, name)
    }

    /// What is wrong with a keyword.
    fn fault(&self, name: &str, expected: impl Into<String>) -> Error {
        let value = self.get(name).map_or("missing".to_string(), |value| short(&value.to_string()));
        Error::config(format!("schema {}", self.at(name)), value, expected)
    }

    /// Refuses all keywords but these.
    fn only(&self, known: &[&str], beside: &str) -> Result<()> {
        let is_known = |name: &str| known.contains(&name) || PASSED_OVER.contains(&name);
        match self.list.iter().find(|(name, _)| !is_known(name)) {
            None => Ok(()),
            Some((name, _)) => Err(self.fault(name, format!("absent: `{name}` cannot be expressed {beside}"))),
        }
    }

    /// Refuses these keywords.
    fn none_of(&self, names: &[&str], beside: &str) -> Result<()> {
        match names.iter().find(|name| self.get(name).is_some()) {
            None => Ok(()),
            Some(name) => Err(self.fault(name, format!("absent: `{name}` cannot be expressed {beside}"))),
        }
    }

    fn count(&self, name: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let count = match value {
            Json::Number(n) => {
                n.as_u64().or_else(|| n.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(|n| n as u64))
            }
            _ => None,
        };
        let count = count.filter(|count| *count <= COUNT);
        count.map(Some).ok_or_else(|| self.fault(name, format!("a whole number from 0 to {COUNT}")))
    }

    /// Two counts, the second of which is not the smaller one.
    fn counts(&self, least: &str, most: &str) -> Result<(u64, Option<u64>)> {
        let (low, high) = (self.count(least)?.unwrap_or(0), self.count(most)?);
        if high.is_some_and(|high| high < low) {
            return Err(self.fault(most, format!("{low} at least, as `{least}` says")));
        }
        Ok((low, high))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.fault(name, "a string")),
        }
    }

    /// A list of strings, or one where `single` allows it.
    fn texts(&self, name: &str, single: bool) -> Result<Option<Vec<&'a str>>> {
        let wrong = || self.fault(name, if single { "a string, or a list of strings" } else { "a list of strings" });
        let text = |item: &'a Json| if let Json::String(text) = item { Ok(&text[..]) } else { Err(wrong()) };
        match self.get(name) {
            None => Ok(None),
            Some(Json::Array(items)) => items.iter().map(text).collect::<Result<_>>().map(Some),
            Some(item) if single => Ok(Some(vec![text(item)?])),
            Some(_) => Err(wrong()),
        }
    }
}

/// The JSON pointer of what lies below `path`.
fn below(path: &str, name: &str) -> String {
    format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Writes expressions of schemas. None of them has alternatives outside of a group.
struct Writer<'a> {
    root: &'a Json,
    /// The references that are followed now, the schema as a whole before them.
    open: Vec<&'a str>,
    /// Work that may still be done: a small schema can stand for a great one by its references.
    left: usize,
}

impl<'a> Writer<'a> {
    /// The expression of a schema; nothing where no JSON satisfies it.
    fn schema(&mut self, schema: &'a Json, path: &str, depth: usize) -> Result<Option<String>> {
        if depth > DEEPEST {
            return Err(Error::config(format!("schema {}", short(path)), "deep", format!("{DEEPEST} levels at most")));
        }
        let written = match schema {
            Json::Object(list) => self.keywords(Keywords { list, path }, depth)?,
            Json::Bool(false) => None,
            other => {
                let expected = "a schema that says what is allowed; any JSON whatever cannot be generated";
                return Err(Error::config(format!("schema {path}"), short(&other.to_string()), expected));
            }
        };
        let length = written.as_ref().map_or(0, String::len);
        self.left = self.left.saturating_sub(length + VISIT);
        if length > LONGEST || self.left == 0 {
            let expected = "smaller: fewer properties and values, or references that lead to less";
            return Err(Error::config(format!("schema {path}"), "too large", expected));
        }
        Ok(written)
    }

    fn keywords(&mut self, keywords: Keywords<'a, '_>, depth: usize) -> Result<Option<String>> {
        if keywords.get("$ref").is_some() {
            keywords.only(&["$ref"], "beside `$ref`")?;
            return self.reference(&keywords, depth);
        }
        for name in ["anyOf", "oneOf"] {
            let Some(value) = keywords.get(name) else { continue };
            keywords.only(&[name], &format!("beside `{name}`"))?;
            let Json::Array(options) = value else { return Err(keywords.fault(name, "a list of schemas")) };
            if options.is_empty() {
                return Err(keywords.fault(name, "a schema at least"));
            }
            let mut written = Vec::new();
            for (i, option) in options.iter().enumerate() {
                written.extend(self.schema(option, &below(&keywords.at(name), &i.to_string()), depth + 1)?);
            }
            return Ok(either(written));
        }
        let types = self.types(&keywords)?;
        for name in ["enum", "const"] {
            let Some(value) = keywords.get(name) else { continue };
            keywords.only(&["type", name], &format!("beside `{name}`"))?;
            let values = match value {
                Json::Array(values) if name == "enum" => &values[..],
                _ if name == "enum" => return Err(keywords.fault(name, "a list of values")),
                value => std::slice::from_ref(value),
            };
            let fits = |value: &&Json| types.as_ref().is_none_or(|types| types.iter().any(|name| value.is(name)));
            let fitting: Vec<String> = values.iter().filter(fits).map(Json::literal).collect();
            if fitting.is_empty() {
                return Err(keywords.fault(name, "a value of the `type` at least"));
            }
            return Ok(either(fitting));
        }
        let Some(types) = types else {
            let expected = "a type; any JSON whatever cannot be generated";
            keywords.only(&[], "without a `type`")?;
            return Err(keywords.fault("type", expected));
        };
        let known: Vec<&str> = types.iter().flat_map(|name| keywords_of(name)).copied().chain(["type"]).collect();
        keywords.only(&known, &format!("of type {}", types.join(" or ")))?;
        let mut written = Vec::new();
        for name in types {
            written.extend(match name {
                "null" => Some("null".to_string()),
                "boolean" => Some("(?:true|false)".to_string()),
                "string" => Some(string(&keywords)?),
                "integer" => Some(integer(&keywords)?),
                "number" => {
                    keywords.none_of(&BOUNDS, "of a number that need not be whole")?;
                    Some(NUMBER.to_string())
                }
                "array" => self.array(&keywords, depth)?,
                _ => self.object(&keywords, depth)?,
            });
        }
        Ok(either(written))
    }

    /// The types, each once.
    fn types(&self, keywords: &Keywords<'a, '_>) -> Result<Option<Vec<&'a str>>> {
        let Some(all) = keywords.texts("type", true)? else { return Ok(None) };
        const TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "null", "array", "object"];
        let mut types: Vec<&str> = Vec::new();
        for name in all {
            if !TYPES.contains(&name) {
                return Err(keywords.fault("type", format!("of {}", TYPES.join(", "))));
            }
            if !types.contains(&name) {
                types.push(name);
            }
        }
        if types.is_empty() {
            return Err(keywords.fault("type", "a type at least"));
        }
        Ok(Some(types))
    }

    fn reference(&mut self, keywords: &Keywords<'a, '_>, depth: usize) -> Result<Option<String>> {
        let Some(target) = keywords.text("$ref")? else { return Ok(None) };
        let Some(found) = self.find(target) else {
            return Err(keywords.fault("$ref", "a place in this schema, such as #/$defs/name"));
        };
        if self.open.iter().filter(|open| **open == target).count() > NESTED {
            return Ok(None);
        }
        self.open.push(target);
        let written = self.schema(found, target, depth + 1)?;
        self.open.pop();
        Ok(written)
    }

    fn find(&self, target: &str) -> Option<&'a Json> {
        let pointer = target.strip_prefix('#')?;
        if pointer.is_empty() {
            return Some(self.root);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self.root, |at, part| {
            let part = part.replace("~1", "/").replace("~0", "~");
            match at {
                Json::Object(entries) => entries.iter().find(|(name, _)| *name == part).map(|(_, value)| value),
                Json::Array(items) => items.get(part.parse::<usize>().ok()?),
                _ => None,
            }
        })
    }

    fn array(&mut self, keywords: &Keywords<'a, '_>, depth: usize) -> Result<Option<String>> {
        if !matches!(keywords.get("uniqueItems"), None | Some(Json::Bool(false))) {
            return Err(keywords.fault("uniqueItems", "absent or false: it cannot be expressed"));
        }
        let (least, most) = keywords.counts("minItems", "maxItems")?;
        let first = match keywords.get("prefixItems") {
            None => &[][..],
            Some(Json::Array(schemas)) => schemas,
            Some(_) => return Err(keywords.fault("prefixItems", "a list of schemas")),
        };
        // Those with a schema of their own, as far as they can be had.
        let mut own = Vec::new();
        for (i, schema) in first.iter().enumerate().take_while(|(i, _)| most.is_none_or(|most| (*i as u64) < most)) {
            let written = self.schema(schema, &below(&keywords.at("prefixItems"), &i.to_string()), depth + 1)?;
            let Some(written) = written else { break };
            own.push(written);
        }
        let others = match keywords.get("items") {
            Some(items) => self.schema(items, &keywords.at("items"), depth + 1)?,
            None if first.is_empty() && most != Some(0) => {
                return Err(keywords.fault("items", "a schema; any JSON whatever cannot be generated"));
            }
            None => None,
        };
        let others = others.filter(|_| own.len() == first.len() && most.is_none_or(|most| most > own.len() as u64));
        let count = own.len() as u64;
        if others.is_none() && count < least {
            return Ok(None);
        }
        // From the end on, each with what may follow it.
        let mut rest = match others {
            None => String::new(),
            Some(item) if count > 0 => {
                let more = times(least.saturating_sub(count), most.map(|most| most - count));
                format!("(?:{COMMA}{item}){more}")
            }
            Some(item) => {
                let more = times(least.saturating_sub(1), most.map(|most| most - 1));
                let all = format!("{item}(?:{COMMA}{item}){more}");
                if least == 0 { format!("(?:{all})?") } else { all }
            }
        };
        for (i, item) in own.iter().enumerate().rev() {
            let comma = if i == 0 { "" } else { COMMA };
            rest =
                if (i as u64) < least { format!("{comma}{item}{rest}") } else { format!("(?:{comma}{item}{rest})?") };
            if rest.len() > LONGEST {
                break; // The caller refuses it.
            }
        }
        Ok(Some(format!(r"\[{rest}\]")))
    }

    fn object(&mut self, keywords: &Keywords<'a, '_>, depth: usize) -> Result<Option<String>> {
        if !matches!(keywords.get("additionalProperties"), None | Some(Json::Bool(false))) {
            let expected = "absent or false: no properties but those named can be generated";
            return Err(keywords.fault("additionalProperties", expected));
        }
        let properties = match keywords.get("properties") {
            None => &[][..],
            Some(Json::Object(properties)) => properties,
            Some(_) => return Err(keywords.fault("properties", "an object of schemas")),
        };
        let required = keywords.texts("required", false)?.unwrap_or_default();
        if let Some(name) = required.iter().find(|name| !properties.iter().any(|(known, _)| known == *name)) {
            return Err(keywords.fault("required", format!("names of `properties`, which {name:?} is not")));
        }
        let mut pairs = Vec::new();
        for (name, schema) in properties {
            let is_required = required.contains(&name.as_str());
            match self.schema(schema, &below(&keywords.at("properties"), name), depth + 1)? {
                Some(value) => pairs.push((format!("{}{COLON}{value}", escaped(&quoted(name))), is_required)),
                None if is_required => return Ok(None),
                None => (),
            }
        }
        let inside = match pairs.iter().position(|(_, is_required)| *is_required) {
            Some(first) => {
                let before: String = pairs[..first].iter().map(|(pair, _)| format!("(?:{pair}{COMMA})?")).collect();
                format!("{before}{}{}", pairs[first].0, following(&pairs[first + 1..]))
            }
            None if pairs.is_empty() => String::new(),
            None => format!("(?:{})?", some(&pairs)),
        };
        Ok(Some(format!(r"\{{{inside}\}}")))
    }
}

/// Pairs behind another.
fn following(pairs: &[(String, bool)]) -> String {
    let pair = |(pair, is_required): &(String, bool)| {
        if *is_required { format!("{COMMA}{pair}") } else { format!("(?:{COMMA}{pair})?") }
    };
    pairs.iter().map(pair).collect()
}

/// One at least of pairs that may all be left out: one of the first half, and any of the second; or of the second only.
fn some(pairs: &[(String, bool)]) -> String {
    let (first, second) = pairs.split_at(pairs.len() / 2);
    match pairs {
        [] => String::new(),
        [(pair, _)] => pair.clone(),
        _ => format!("(?:{}{}|{})", some(first), following(second), some(second)),
    }
}

/// The keywords that go with a type.
fn keywords_of(name: &str) -> &'static [&'static str] {
    match name {
        "string" => &["minLength", "maxLength", "pattern"],
        "integer" | "number" => &BOUNDS,
        "array" => &["items", "minItems", "maxItems", "prefixItems", "uniqueItems"],
        "object" => &["properties", "required", "additionalProperties"],
        _ => &[],
    }
}

fn string(keywords: &Keywords<'_, '_>) -> Result<String> {
    let inside = if let Some(pattern) = keywords.text("pattern")? {
        keywords.none_of(&["minLength", "maxLength"], "beside `pattern`")?;
        script::expression(pattern).map_err(|expected| keywords.fault("pattern", expected))?
    } else {
        let (least, most) = keywords.counts("minLength", "maxLength")?;
        format!("{CHARACTER}{}", times(least, most))
    };
    Ok(format!("\"{inside}\""))
}

fn integer(keywords: &Keywords<'_, '_>) -> Result<String> {
    let bound = |name: &str| {
        let Some(value) = keywords.get(name) else { return Ok(None) };
        let Json::Number(n) = value else { return Err(keywords.fault(name, "a number")) };
        let whole = n.as_i64().map(i128::from).or(n.as_u64().map(i128::from));
        // What lies beyond 128 bits ends at them, far beyond the digits that there are.
        let (floor, ceiling) = match (whole, n.as_f64()) {
            (Some(whole), _) => (whole, whole),
            (None, Some(n)) => (n.floor() as i128, n.ceil() as i128),
            _ => return Err(keywords.fault(name, "a number")),
        };
        Ok(Some((floor, ceiling)))
    };
    let greatest = 10i128.pow(DIGITS as u32) - 1;
    let low = [
        bound("minimum")?.map(|(_, ceiling)| ceiling),
        bound("exclusiveMinimum")?.map(|(floor, _)| floor.saturating_add(1)),
    ];
    let high = [
        bound("maximum")?.map(|(floor, _)| floor),
        bound("exclusiveMaximum")?.map(|(_, ceiling)| ceiling.saturating_sub(1)),
    ];
    let low = low.into_iter().flatten().max().unwrap_or(-greatest).max(-greatest);
    let high = high.into_iter().flatten().min().unwrap_or(greatest).min(greatest);
    if low > high {
        let name = BOUNDS.into_iter().find(|name| keywords.get(name).is_some()).unwrap_or("type");
        return Err(keywords.fault(name, format!("bounds with an integer of {DIGITS} digits between them")));
    }
    let mut options = Vec::new();
    if low < 0 {
        let [from, to] = [(-high).max(1), -low].map(|value| value as u64);
        options.extend(digits(from, to).into_iter().map(|digits| format!("-{digits}")));
    }
    if high >= 0 {
        options.extend(digits(low.max(0) as u64, high as u64));
    }
    Ok(either(options).unwrap_or_default())
}

/// Expressions of the numbers from `low` to `high`.
fn digits(low: u64, high: u64) -> Vec<String> {
    let lengths = low.to_string().len()..=high.to_string().len();
    let of_length = |length: usize| {
        let least = if length == 1 { 0 } else { 10u64.pow(length as u32 - 1) };
        let [low, high] = [low.max(least), high.min(10u64.pow(length as u32) - 1)].map(|n| n.to_string());
        between(low.as_bytes(), high.as_bytes())
    };
    lengths.map(of_length).collect()
}

/// An expression of the digits from `low` to `high`, which are as many.
fn between(low: &[u8], high: &[u8]) -> String {
    let ([a, low @ ..], [b, high @ ..]) = (low, high) else { return String::new() };
    let range = |a: u8, b: u8| match b - a {
        0 => char::from(a).to_string(),
        _ => format!("[{}-{}]", char::from(a), char::from(b)),
    };
    let any = |digits: &[u8]| match digits.len() {
        0 => String::new(),
        n => format!("[0-9]{{{n}}}"),
    };
    let (is_first, is_last) = (low.iter().all(|digit| *digit == b'0'), high.iter().all(|digit| *digit == b'9'));
    if is_first && is_last {
        return format!("{}{}", range(*a, *b), any(low));
    }
    if a == b {
        return format!("{}{}", char::from(*a), between(low, high));
    }
    let (nines, zeros) = (vec![b'9'; low.len()], vec![b'0'; low.len()]);
    let mut options = vec![format!("{}{}", char::from(*a), between(low, &nines))];
    if b - a > 1 {
        options.push(format!("{}{}", range(a + 1, b - 1), any(low)));
    }
    options.push(format!("{}{}", char::from(*b), between(&zeros, high)));
    either(options).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::pattern::{
        Pattern,
        tests::{Pieces, drawn, matches},
    };
    use aigc_core::rng::Rng;
    use regex_automata::dfa::regex::Regex;
    use serde_json::{Value, json};
    use std::time::Instant;

    fn pattern(schema: &Value) -> Pattern {
        Pattern::json_schema(&schema.to_string(), &Pieces::bytes_and(&[]), &[256]).unwrap()
    }

    fn is_valid(schema: &Value, root: &Value, value: &Value) -> bool {
        let Some(keywords) = schema.as_object() else { return schema == &json!(true) };
        keywords.iter().all(|(name, of)| holds(name, of, schema, root, value))
    }

    /// Whether a keyword is satisfied; what it does not apply to satisfies it.
    fn holds(name: &str, of: &Value, schema: &Value, root: &Value, value: &Value) -> bool {
        let valid = |of: &Value, value: &Value| is_valid(of, root, value);
        let any = |of: &Value| of.as_array().unwrap().iter().any(|of| valid(of, value));
        let count = of.as_u64().unwrap_or(0) as usize;
        match (name, value) {
            ("type", _) => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "null" => value.is_null(),
                    "boolean" => value.is_boolean(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64(),
                    "number" => value.is_number(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    _ => unreachable!(),
                };
                of.as_array().map_or_else(|| is(of), |all| all.iter().any(is))
            }
            ("enum", _) => of.as_array().unwrap().contains(value),
            ("const", _) => of == value,
            ("anyOf" | "oneOf", _) => any(of),
            ("$ref", _) => valid(root.pointer(&of.as_str().unwrap()[1..]).unwrap(), value),
            ("minimum", Value::Number(n)) => n.as_f64() >= of.as_f64(),
            ("maximum", Value::Number(n)) => n.as_f64() <= of.as_f64(),
            ("exclusiveMinimum", Value::Number(n)) => n.as_f64() > of.as_f64(),
            ("exclusiveMaximum", Value::Number(n)) => n.as_f64() < of.as_f64(),
            ("minLength", Value::String(text)) => text.chars().count() >= count,
            ("maxLength", Value::String(text)) => text.chars().count() <= count,
            ("pattern", Value::String(text)) => Regex::new(of.as_str().unwrap()).unwrap().is_match(text),
            ("minItems", Value::Array(items)) => items.len() >= count,
            ("maxItems", Value::Array(items)) => items.len() <= count,
            ("prefixItems", Value::Array(items)) => {
                items.iter().zip(of.as_array().unwrap()).all(|(item, of)| valid(of, item))
            }
            ("items", Value::Array(items)) => {
                let first = schema.get("prefixItems").map_or(0, |first| first.as_array().unwrap().len());
                items.iter().skip(first).all(|item| valid(of, item))
            }
            ("properties", Value::Object(entries)) => {
                entries.iter().all(|(name, value)| of.get(name).is_some_and(|of| valid(of, value)))
            }
            ("required", Value::Object(entries)) => {
                of.as_array().unwrap().iter().all(|name| entries.contains_key(name.as_str().unwrap()))
            }
            ("minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "minLength" | "maxLength", _)
            | ("pattern" | "minItems" | "maxItems" | "prefixItems" | "items", _)
            | ("properties" | "required" | "additionalProperties" | "$defs" | "definitions" | "title", _) => true,
            (other, _) => panic!("{other}"),
        }
    }

    /// Whether all objects have their properties in the order of the schema that has them all.
    fn is_ordered(value: &Json, order: &[&str]) -> bool {
        match value {
            Json::Array(items) => items.iter().all(|item| is_ordered(item, order)),
            Json::Object(entries) => {
                let places: Vec<_> =
                    entries.iter().map(|(name, _)| order.iter().position(|known| known == name)).collect();
                places.is_sorted_by(|a, b| a < b) && entries.iter().all(|(_, value)| is_ordered(value, order))
            }
            _ => true,
        }
    }

    #[test]
    fn what_is_generated_is_json_that_satisfies_its_schema() {
        let person = r##"{"type":"object","title":"a person","properties":{
            "name":{"type":"string","minLength":1,"maxLength":8},
            "age":{"type":"integer","minimum":0,"maximum":130},"mail":{"type":["string","null"],"maxLength":5},
            "born":{"type":"string","pattern":"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"},"at":{"$ref":"#/$defs/at"},
            "tags":{"type":"array","items":{"enum":["a","b\"c","é",null,1.5,{"x":[1,true]}]},"maxItems":3}},
            "required":["born","name"],"additionalProperties":false,
            "$defs":{"at":{"type":"array","prefixItems":[{"type":"number"},{"type":"boolean"}],"items":false,
            "minItems":1}}}"##;
        let tree = r##"{"type":"object","properties":{
            "value":{"type":"integer"},"left":{"$ref":"#"},"right":{"$ref":"#"}},"required":["value"]}"##;
        let list = r##"{"$ref":"#/definitions/list","definitions":{"list":{"oneOf":[{"type":"null"},{"type":"object",
            "properties":{"head":{"type":"string","pattern":"^[0-2][0-9]:[0-5][0-9]$"},
            "tail":{"$ref":"#/definitions/list"}},"required":["head","tail"]}]}}}"##;
        let mixed = r#"{"anyOf":[{"type":"string","pattern":"^[a-c]{2}\"?\\\\|\\d$"},
            {"type":"string","pattern":"x[^0-9]"},{"const":[1,{"k":"v"},[]]},
            {"type":"integer","exclusiveMinimum":-3.5,"exclusiveMaximum":1200},{"type":"number"},{"type":"integer"},
            {"type":"array","items":{"type":"boolean"},"minItems":2,"maxItems":4},{"type":"string","maxLength":3},
            {"type":"array","items":{"type":"null"},"prefixItems":[{"type":"string"}],"minItems":2}]}"#;
        let mut pieces: Vec<String> = (' '..='~').map(String::from).collect();
        pieces.extend(["\": ", "\",", ", \"", "tru", "\\u00", "\\u", "00", "\": \"", "19"].map(String::from));
        let mut pieces: Vec<Vec<u8>> = pieces.into_iter().map(String::into_bytes).collect();
        // An é in two tokens, and a control character, which is never to come.
        pieces.extend([vec![0xc3], vec![0xa9], vec![b'\n']]);
        let pieces = Pieces(pieces);
        let end = pieces.0.len() as u32;
        let order = ["name", "age", "mail", "born", "at", "tags", "value", "left", "right", "head", "tail", "x", "k"];
        let mut rng = Rng::new(5);
        for text in [person, tree, list, mixed] {
            let schema: Value = serde_json::from_str(text).unwrap();
            let mut pattern = Pattern::json_schema(text, &pieces, &[end]).unwrap();
            let mut seen = std::collections::HashSet::new();
            for _ in 0..150 {
                let text = drawn(&mut pattern, &pieces, end, &mut rng).expect("an end");
                let text = String::from_utf8(text).unwrap();
                let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                assert!(is_valid(&schema, &schema, &value), "{text}");
                assert!(is_ordered(&serde_json::from_str(&text).unwrap(), &order), "{text}");
                seen.insert(text);
            }
            assert!(seen.len() > 40, "{seen:?}");
        }
    }

    #[test]
    fn properties_may_be_left_out_in_every_combination() {
        let names = ["a", "b", "c", "d", "e"];
        let write = |set: usize, comma: &str, colon: &str| {
            let held = names.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
            let pairs: Vec<String> = held.map(|(i, name)| format!("\"{name}\"{colon}{i}")).collect();
            format!("{{{}}}", pairs.join(comma))
        };
        for required in 0..32 {
            let properties: Vec<String> =
                names.iter().enumerate().map(|(i, name)| format!("\"{name}\":{{\"const\":{i}}}")).collect();
            let needed: Vec<&&str> =
                names.iter().enumerate().filter(|(i, _)| required >> i & 1 == 1).map(|(_, name)| name).collect();
            let text = format!(
                r#"{{"type":"object","properties":{{{}}},"required":{}}}"#,
                properties.join(","),
                json!(needed)
            );
            let pattern = Pattern::json_schema(&text, &Pieces::bytes_and(&[]), &[256]).unwrap();
            for set in 0..32 {
                let expected = set & required == required;
                assert_eq!(matches(&pattern, write(set, ",", ":").as_bytes()), expected, "{set:b} of {required:b}");
                assert_eq!(matches(&pattern, write(set, ", ", ": ").as_bytes()), expected, "{set:b} of {required:b}");
            }
            let wrong = [
                r#"{"b":1,"a":0,"c":2,"d":3,"e":4}"#,
                r#"{"a":0,"b":1,"c":2,"d":3,"e":4,}"#,
                r#"{,"a":0,"b":1,"c":2,"d":3,"e":4}"#,
                r#"{"a":0 ,"b":1,"c":2,"d":3,"e":4}"#,
                r#"{"a":0,  "b":1,"c":2,"d":3,"e":4}"#,
                r#"{"a":0,"a":0,"b":1,"c":2,"d":3,"e":4}"#,
                r#"{"a":0,"b":1,"c":2,"d":3,"e":4,"f":5}"#,
            ];
            wrong.iter().for_each(|text| assert!(!matches(&pattern, text.as_bytes()), "{text}"));
        }
    }

    #[test]
    fn integers_lie_within_their_bounds() {
        let bounds = [
            json!({}),
            json!({"minimum": 0}),
            json!({"minimum": 5, "maximum": 5}),
            json!({"minimum": -17, "maximum": 1038}),
            json!({"minimum": 99, "maximum": 1000}),
            json!({"minimum": -999, "maximum": -90}),
            json!({"exclusiveMinimum": -1, "maximum": 0.5}),
            json!({"minimum": -2.5, "exclusiveMaximum": 2}),
            json!({"minimum": 3, "exclusiveMinimum": 7, "exclusiveMaximum": 111.5, "maximum": 110}),
            json!({"minimum": 120, "maximum": 1e300}),
            json!({"maximum": 18446744073709551615u64}),
        ];
        for mut schema in bounds {
            schema["type"] = json!("integer");
            let pattern = pattern(&schema);
            for n in (-1300..1300).chain([12_345, -99_999, 10i64.pow(18) - 1, 1 - 10i64.pow(18)]) {
                let expected = is_valid(&schema, &schema, &json!(n));
                assert_eq!(matches(&pattern, n.to_string().as_bytes()), expected, "{n} of {schema}");
            }
            for text in ["", "-", "-0", "00", "007", "-05", "+7", "1.0", "1e2", " 7", "1000000000000000000"] {
                assert!(!matches(&pattern, text.as_bytes()), "{text} of {schema}");
            }
        }
        let mut rng = Rng::new(2);
        for _ in 0..60 {
            let mut some = || {
                let digits = rng.below(7) as u32;
                rng.below(10usize.pow(digits) + 1) as i64
            };
            let (a, b) = (some(), some());
            let (low, high) = (a.min(b), a.max(b));
            let pattern = pattern(&json!({"type": "integer", "minimum": low, "maximum": high}));
            for n in [low - 1, low, low + 1, (low + high) / 2, high - 1, high, high + 1, 10 * high + 1] {
                let expected = (low..=high).contains(&n);
                assert_eq!(matches(&pattern, n.to_string().as_bytes()), expected, "{n} of {low} to {high}");
            }
        }
    }

    #[test]
    fn numbers_are_those_of_json() {
        let pattern = pattern(&json!({"type": "number"}));
        for text in ["0", "-0", "12", "0.5", "-3.25e7", "1E+10", "1e-9", "999999999999999999.000000000000000001e99"] {
            assert!(matches(&pattern, text.as_bytes()) && serde_json::from_str::<f64>(text).is_ok(), "{text}");
        }
        for text in ["", "-", "01", ".5", "1.", "1e", "+1", "0x1", "1e999", "NaN"] {
            assert!(!matches(&pattern, text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn strings_are_those_of_json_and_counted_in_characters() {
        let three = pattern(&json!({"type": "string", "minLength": 3, "maxLength": 3}));
        for inside in ["abc", "é漢😀", r#"\"\\\/"#, r"\n\u00e9x", r"\ud83d\ude00ab", "\u{7f}  ", r"\uD7ff\uE000\uFfFf"]
        {
            let text = format!("\"{inside}\"");
            assert_eq!(serde_json::from_str::<String>(&text).unwrap().chars().count(), 3);
            assert!(matches(&three, text.as_bytes()), "{text}");
        }
        let strange = [r"\ud83d", r"\ude00\ud83d", r"\x41", r"\u12", "\n", "\u{1f}", "\"", "\\", r"\ud83d\u0041"];
        let any = pattern(&json!({"type": "string"}));
        for inside in strange {
            let text = format!("\"ab{inside}\"");
            assert!(serde_json::from_str::<String>(&text).is_err(), "{text}");
            assert!(!matches(&any, text.as_bytes()) && !matches(&three, text.as_bytes()), "{text}");
        }
        // Half a character.
        assert!(!matches(&any, b"\"\xc3\""));
        for (least, most) in [(0, 0), (0, 2), (1, 4), (2, 2)] {
            let pattern = pattern(&json!({"type": "string", "minLength": least, "maxLength": most}));
            for count in 0..6 {
                let text = format!("\"{}\"", "ä".repeat(count));
                assert_eq!(matches(&pattern, text.as_bytes()), (least..=most).contains(&count), "{text}");
            }
        }
    }

    #[test]
    fn patterns_find_what_they_find_in_the_string_itself() {
        let patterns = [
            r"^[a-c]+$",
            r"b",
            r"^b|c$",
            r"^(?:a|b(c)?){2,3}?$",
            r#"^".*\\$"#,
            r"^[^a]$",
            r"^\S{2}$",
            r"\s",
            r"^[\w.-]+@\w+$",
            r"^\n[\t\x22]?$",
            r"^\u0041\u{1F600}?[\]\-\\^-]*$",
            r"^.$",
            r"^\p{Lu}\P{Lu}$",
            r"^[\D]$",
            r"^[^\W\d]$",
            r"^[\n]$",
            r"^$",
            r"",
            r"a{2}",
            r"^\x01$",
            r"^\$\/$",
            r"^[a-]{1,}$",
        ];
        let texts = [
            "", "a", "b", "c", "ab", "abc", "bca", "xbx", "cx", "\"a\\", "\"\\", "\"\n\\", "é", "éa", "Éa", "a b",
            "\"", "\\", "\n", "\n\t", "\n\"", "\t\"", "a.b-c@d", "@d", "A", "A😀", "A]-^", "A😀\\", "aa", "aaa", "-",
            "a-", "$/", "\u{1}", "1", "_", "😀", "\u{2028}", "bcbc", "bcabc", "aaaa",
        ];
        let (mut yes, mut no) = (0, 0);
        for text in patterns {
            // JavaScript's classes are ASCII's, and its dot is no end of a line of any kind.
            let mut same = text.replace("^.$", r"^[^\n\r\u2028\u2029]$").replace(r"\/", "/");
            for (class, ranges) in
                [(r"\d", "[0-9]"), (r"\D", "[^0-9]"), (r"\w", "[0-9A-Za-z_]"), (r"\W", "[^0-9A-Za-z_]")]
            {
                same = same.replace(class, ranges);
            }
            let oracle = Regex::new(&same).unwrap();
            let pattern = pattern(&json!({"type": "string", "pattern": text}));
            for value in texts {
                let expected = oracle.is_match(value);
                assert_eq!(matches(&pattern, json!(value).to_string().as_bytes()), expected, "{value:?} of {text}");
                if expected { yes += 1 } else { no += 1 }
            }
        }
        assert!(yes > 100 && no > 100, "{yes} {no}");
    }

    #[test]
    fn arrays_have_as_many_items_as_they_may() {
        let mut schemas = vec![json!({"type": "array", "maxItems": 0})];
        for (least, most) in [(None, None), (None, Some(0)), (Some(0), Some(1)), (Some(1), None), (Some(2), Some(4))] {
            for first in 0..4 {
                for others in [None, Some(json!({"const": 9})), Some(json!(false))] {
                    let mut schema = json!({"type": "array"});
                    if first > 0 {
                        schema["prefixItems"] = (0..first).map(|i| json!({"const": i})).collect();
                    } else if others.is_none() {
                        continue;
                    }
                    schema["items"] = others.unwrap_or(json!(false));
                    least.inspect(|least| schema["minItems"] = json!(least));
                    most.inspect(|most: &i32| schema["maxItems"] = json!(most));
                    schemas.push(schema);
                }
            }
        }
        let mut seen = 0;
        for schema in schemas {
            let of = |count: usize| {
                let first = schema.get("prefixItems").map_or(0, |first| first.as_array().unwrap().len());
                (0..count).map(|i| if i < first { json!(i) } else { json!(9) }).collect::<Value>()
            };
            let is_any = (0..7).any(|count| is_valid(&schema, &schema, &of(count)));
            let pattern = Pattern::json_schema(&schema.to_string(), &Pieces::bytes_and(&[]), &[256]);
            assert_eq!(pattern.is_ok(), is_any, "{schema}");
            let Ok(pattern) = pattern else { continue };
            for count in 0..7 {
                let expected = is_valid(&schema, &schema, &of(count));
                assert_eq!(matches(&pattern, of(count).to_string().as_bytes()), expected, "{} of {schema}", of(count));
                seen += usize::from(expected);
            }
        }
        assert!(seen > 50, "{seen}");
        // Absent items behind the first are none.
        let pattern = pattern(&json!({"type": "array", "prefixItems": [{"type": "null"}]}));
        assert!(matches(&pattern, b"[null]") && matches(&pattern, b"[]") && !matches(&pattern, b"[null,null]"));
    }

    #[test]
    fn references_are_followed_into_themselves_so_far() {
        let list =
            json!({"anyOf": [{"type": "null"}, {"type": "array", "prefixItems": [{"$ref": "#"}], "minItems": 1}]});
        let pattern_of_list = pattern(&list);
        for nested in 0..8 {
            let text = format!("{}null{}", "[".repeat(nested), "]".repeat(nested));
            assert_eq!(matches(&pattern_of_list, text.as_bytes()), nested <= NESTED, "{text}");
        }
        let named =
            pattern(&json!({"$ref": "#/$defs/a~1b~0/anyOf/1", "$defs": {"a/b~": {"anyOf": [false, {"const": 7}]}}}));
        assert!(matches(&named, b"7") && !matches(&named, b"8"));
        let tree = json!({"type": "object", "properties": {"of": {"type": "array", "items": {"$ref": "#"}}}});
        let tree = pattern(&tree);
        assert!(matches(&tree, br#"{"of":[{"of":[{},{}]},{"of": []}]}"#) && !matches(&tree, br#"{"of":[[]]}"#));
    }

    #[test]
    fn what_cannot_be_expressed_is_refused_by_name_and_place() {
        let object = |schema: Value| json!({"type": "object", "properties": {"a/b": schema}});
        let cases = [
            (object(json!({"type": "number", "multipleOf": 2})), "#/properties/a~1b/multipleOf`", "`multipleOf`"),
            (object(json!({"type": "number", "minimum": 2})), "a~1b/minimum", "need not be whole"),
            (object(json!({"type": ["integer", "number"], "maximum": 2})), "a~1b/maximum", "need not be whole"),
            (object(json!({"type": "string", "minimum": 2})), "a~1b/minimum", "of type string"),
            (object(json!({"type": "string", "format": "date"})), "a~1b/format", "`format`"),
            (object(json!({"type": "string", "pattern": "a", "minLength": 2})), "a~1b/minLength", "beside `pattern`"),
            (object(json!({"type": "string", "minLength": 3, "maxLength": 2})), "a~1b/maxLength", "3 at least"),
            (object(json!({"type": "string", "maxLength": -1})), "a~1b/maxLength", "whole number"),
            (object(json!({"type": "strin"})), "a~1b/type", "string, integer"),
            (object(json!({"type": []})), "a~1b/type", "a type at least"),
            (object(json!({})), "a~1b/type` is missing", "any JSON"),
            (object(json!(true)), "#/properties/a~1b`", "any JSON"),
            (object(json!({"type": "integer", "minimum": 1.2, "maximum": 1.8})), "a~1b/minimum", "between them"),
            (object(json!({"type": "integer", "exclusiveMinimum": true})), "a~1b/exclusiveMinimum", "a number"),
            (json!({"type": "object", "additionalProperties": true}), "#/additionalProperties", "absent or false"),
            (json!({"type": "object", "properties": {}, "required": ["x"]}), "#/required", "\"x\" is not"),
            (json!({"type": "object", "minProperties": 1}), "#/minProperties", "of type object"),
            (json!({"type": "object", "patternProperties": {}}), "#/patternProperties", "`patternProperties`"),
            (json!({"properties": {}}), "#/properties", "without a `type`"),
            (json!({"type": "array"}), "#/items` is missing", "any JSON"),
            (json!({"type": "array", "items": {"type": "null", "x": 1}}), "#/items/x", "`x`"),
            (
                json!({"type": "array", "items": {"type": "null"}, "uniqueItems": true}),
                "#/uniqueItems",
                "absent or false",
            ),
            (json!({"type": "array", "items": {"type": "null"}, "contains": {}}), "#/contains", "`contains`"),
            (json!({"anyOf": [{"type": "null"}], "type": "null"}), "#/type", "beside `anyOf`"),
            (json!({"anyOf": [{"type": "null"}, {"type": "null", "not": {}}]}), "#/anyOf/1/not", "`not`"),
            (json!({"oneOf": []}), "#/oneOf", "a schema at least"),
            (json!({"allOf": [{"type": "null"}]}), "#/allOf", "`allOf`"),
            (json!({"enum": [1, 2], "minimum": 2}), "#/minimum", "beside `enum`"),
            (json!({"enum": ["a", 1.5], "type": "integer"}), "#/enum", "of the `type`"),
            (json!({"enum": []}), "#/enum", "a value"),
            (json!({"const": 1, "enum": [1]}), "#/const", "beside `enum`"),
            (json!({"$ref": "#/$defs/x"}), "#/$ref", "#/$defs/name"),
            (json!({"$ref": "http://example.com/x"}), "#/$ref", "#/$defs/name"),
            (json!({"$ref": "#", "type": "null"}), "#/type", "beside `$ref`"),
            (json!({"type": "null", "if": {}}), "#/if", "`if`"),
            (json!({"type": "string", "$dynamicRef": "#x"}), "#/$dynamicRef", "`$dynamicRef`"),
            (json!([]), "schema #`", "any JSON"),
            // Without an end, or any value.
            (json!({"$ref": "#"}), "`schema`", "nested at most 4"),
            (
                json!({"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]}),
                "`schema`",
                "nested at most",
            ),
            (json!(false), "`schema`", "some JSON"),
        ];
        for (schema, place, reason) in cases {
            let error = expression(&schema.to_string()).unwrap_err().to_string();
            assert!(error.contains(place) && error.contains(reason) && error.len() < 500, "{error}");
        }
        for pattern in [
            "(?=a)",
            "(?<n>a)",
            "(?i)a",
            r"\bword",
            r"(a)\1",
            "a**",
            "*a",
            "a{2,1}",
            "a{,2}",
            "a{70000}",
            "(a",
            "a)",
            "[a",
            "[]",
            "[^]",
            "[b-a]",
            r"[\d-z]",
            "a^b",
            "a$b",
            "(^a)",
            "(a$)",
            r"\c",
            r"\xg1",
            r"\ud83d",
            r"\u{110000}",
            r"\p{",
            "\\",
            "x]",
            "}",
            "a{",
            r"\q",
            r"[\B]",
        ] {
            let error = expression(&json!({"type": "string", "pattern": pattern}).to_string()).unwrap_err().to_string();
            assert!(error.contains("#/pattern"), "{pattern}: {error}");
        }
        for text in ["", "{", "{\"type\":\"null\"} x", r#"{"type":"null","type":"string"}"#, &"[".repeat(100_000)] {
            let error = expression(text).unwrap_err().to_string();
            assert!(error.contains("a JSON schema: ") && error.len() < 400, "{error}");
        }
    }

    #[test]
    fn small_schemas_that_stand_for_great_ones_are_refused() {
        let begin = Instant::now();
        let doubled = |last: Value| {
            let mut schema = json!({"$ref": "#/$defs/0", "$defs": {"30": last}});
            for i in 0..30 {
                let next = json!({"$ref": format!("#/$defs/{}", i + 1)});
                schema["$defs"][i.to_string()] = json!({"anyOf": [next, next]});
            }
            schema
        };
        let mut deep = json!({"type": "null"});
        (0..40).for_each(|_| deep = json!({"type": "array", "items": deep}));
        let expect = |schema: &Value, reason: &str| {
            let pieces = Pieces::bytes_and(&[]);
            let error = Pattern::json_schema(&schema.to_string(), &pieces, &[]).err().unwrap().to_string();
            assert!(error.contains(reason) && error.len() < 400, "{error}");
        };
        expect(&doubled(json!({"type": "null"})), "smaller");
        expect(&doubled(json!(false)), "smaller");
        let looped = json!({"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}, "c": {"$ref": "#"},
            "d": {"$ref": "#"}, "e": {"$ref": "#"}, "f": {"$ref": "#"}, "g": {"$ref": "#"}, "h": {"$ref": "#"}}});
        expect(&looped, "smaller");
        expect(&json!({"type": "string", "enum": ["x".repeat(200_000)]}), "smaller");
        expect(&json!({"type": "string", "maxLength": 65_535}), "a smaller one");
        let mut deeper = deep.clone();
        (0..20).for_each(|_| deeper = json!({"type": "array", "items": deeper}));
        expect(&json!({"anyOf": [{"anyOf": [{"anyOf": [{"anyOf": [{"anyOf": [deeper]}]}]}]}]}), "64 levels");
        // Each level holds its items twice.
        expect(&deep, "smaller");
        assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    }

    #[test]
    fn no_text_makes_it_panic() {
        let seed = r##"{"type":"object","properties":{
            "a":{"type":["string","null"],"pattern":"^[a-c\\d-]{2,3}(?:x|\\u00e9)$"},
            "b":{"type":"array","prefixItems":[{"$ref":"#"}],"items":{"type":"integer","minimum":-12,"maximum":307},
            "minItems":0,"maxItems":3},"c":{"anyOf":[{"const":1},{"enum":["x",2]}]}},"required":["b"]}"##;
        let letters: Vec<char> = r##"{}[]",:\^$()?*+-.0123456789abtnudpwxes#/é"##.chars().collect();
        let mut rng = Rng::new(9);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..4000 {
            let mut text: Vec<char> = seed.chars().collect();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(text.len());
                match rng.below(3) {
                    0 => drop(text.remove(at)),
                    1 => text.insert(at, letters[rng.below(letters.len())]),
                    _ => text[at] = letters[rng.below(letters.len())],
                }
            }
            match expression(&text.into_iter().collect::<String>()) {
                Ok(_) => good += 1,
                Err(_) => bad += 1,
            }
        }
        assert!(good > 100 && bad > 100, "{good} {bad}");
    }
}

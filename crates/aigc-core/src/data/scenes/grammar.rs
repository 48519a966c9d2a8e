//! Captions: their grammar, and which are held out.

use super::{
    Split,
    words::{Background, COUNTS, Color, Relation, Shape, ShapeSize},
};
use crate::{Error, Result, rng::Rng};
use std::{fmt, str::FromStr};

/// Shapes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// How many, 1 to 3.
    pub count: usize,
    /// Their size; `None` if the caption leaves it open.
    pub size: Option<ShapeSize>,
    /// Their colour.
    pub color: Color,
    /// Their outline.
    pub shape: Shape,
}

/// What an image shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caption {
    /// The first group.
    pub first: Group,
    /// The second group, and where the first is relative to it.
    pub second: Option<(Relation, Group)>,
    /// The background; `None` if the caption leaves it open.
    pub background: Option<Background>,
}

impl Group {
    /// Number of the kind: colour and shape.
    fn kind(&self) -> u64 {
        (self.color as usize * Shape::ALL.len() + self.shape as usize) as u64
    }

    fn random(rng: &mut Rng) -> Self {
        Self {
            count: [1, 1, 1, 2, 2, 3][rng.random_index(6)],
            size: (rng.random_index(5) < 3).then(|| ShapeSize::random(rng)),
            color: Color::random(rng),
            shape: Shape::random(rng),
        }
    }
}

impl Caption {
    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.first).chain(self.second.iter().map(|(_, group)| group))
    }

    /// A random caption of a split. A quarter of the training captions has one group.
    pub fn random(split: Split, rng: &mut Rng) -> Self {
        loop {
            let first = Group::random(rng);
            let single = split == Split::Train && rng.random_index(4) == 0;
            let second = (!single).then(|| (Relation::random(rng), Group::random(rng)));
            let background = (rng.random_index(2) == 0).then(|| Background::random(rng));
            let caption = Self {
                first,
                second,
                background,
            };
            let distinct = second.is_none_or(|(_, second)| second.kind() != first.kind());
            if distinct && is_held_out(&caption) == (split == Split::HeldOut) {
                return caption;
            }
        }
    }
}

/// Whether a caption has two groups whose pair of kinds is one of the tenth that is held out.
pub fn is_held_out(caption: &Caption) -> bool {
    let Some((_, second)) = &caption.second else {
        return false;
    };
    let (a, b) = (caption.first.kind(), second.kind());
    let pair = a.min(b) * 64 + a.max(b);
    Rng::stream(pair, "held-out pair", 0).random_index(10) == 0
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = COUNTS.get(self.count.wrapping_sub(1)).unwrap_or(&"many");
        write!(f, "{count} ")?;
        if let Some(size) = self.size {
            write!(f, "{} ", size.word())?;
        }
        let plural = if self.count > 1 { "s" } else { "" };
        write!(f, "{} {}{plural}", self.color.word(), self.shape.word())
    }
}

impl fmt::Display for Caption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if let Some((relation, second)) = &self.second {
            let of = match relation {
                Relation::LeftOf | Relation::RightOf => " of",
                Relation::Above | Relation::Below => "",
            };
            write!(f, " {}{of} {second}", relation.word())?;
        }
        match self.background {
            Some(background) => write!(f, " on a {} background", background.word()),
            None => Ok(()),
        }
    }
}

impl FromStr for Caption {
    type Err = Error;

    /// Parses a caption. "an" and "one" count as "a", and "grey" as "gray"; case is ignored.
    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_lowercase();
        let words: Vec<&str> = lower
            .split_whitespace()
            .map(|word| match word {
                "an" | "one" => "a",
                "grey" => "gray",
                other => other,
            })
            .collect();
        let mut words = Words { words, at: 0 };
        let first = words.group()?;
        let second = match words.peek().and_then(Relation::of) {
            Some(relation) => {
                words.at += 1;
                if matches!(relation, Relation::LeftOf | Relation::RightOf) {
                    words.expect("of")?;
                }
                Some((relation, words.group()?))
            }
            None => None,
        };
        let background = match words.peek() {
            Some("on") => {
                words.at += 1;
                words.expect("a")?;
                let background = words.take("white, gray or black", Background::of)?;
                words.expect("background")?;
                Some(background)
            }
            _ => None,
        };
        match words.peek() {
            None => Ok(Self {
                first,
                second,
                background,
            }),
            Some(_) => Err(words.wrong("above, below, left of, right of, on, or the end")),
        }
    }
}

/// The words of a caption, and the next one.
struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    /// The next word is not what was expected.
    fn wrong(&self, expected: &str) -> Error {
        let word = self.peek().unwrap_or("the end");
        let value = format!("`{word}` as word {}", self.at + 1);
        Error::argument("caption", value, expected)
    }

    fn take<T>(&mut self, expected: &str, read: impl Fn(&str) -> Option<T>) -> Result<T> {
        let value = self.peek().and_then(read);
        let value = value.ok_or_else(|| self.wrong(expected))?;
        self.at += 1;
        Ok(value)
    }

    fn expect(&mut self, expected: &str) -> Result<()> {
        self.take(expected, |word| (word == expected).then_some(()))
    }

    fn group(&mut self) -> Result<Group> {
        let count = |word: &str| COUNTS.iter().position(|count| *count == word);
        let count = 1 + self.take("a, two or three", count)?;
        let size = self.peek().and_then(ShapeSize::of);
        self.at += usize::from(size.is_some());
        let colors = "red, orange, yellow, green, blue or purple";
        let color = self.take(colors, Color::of)?;
        let shape = |word: &str| {
            let one = if count > 1 {
                word.strip_suffix('s')?
            } else {
                word
            };
            Shape::of(one)
        };
        let shapes = match count {
            1 => "circle, square, triangle or star",
            _ => "circles, squares, triangles or stars",
        };
        Ok(Group {
            count,
            size,
            color,
            shape: self.take(shapes, shape)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::scenes::WORDS;
    use std::collections::BTreeSet;

    #[test]
    fn captions_parse_as_they_are_written() {
        let mut rng = Rng::new(0);
        let words: BTreeSet<&str> = WORDS.iter().copied().collect();
        for split in [Split::Train, Split::HeldOut] {
            for _ in 0..300 {
                let caption = Caption::random(split, &mut rng);
                let text = caption.to_string();
                assert_eq!(text.parse::<Caption>().unwrap(), caption, "{text}");
                assert!(text.split(' ').all(|word| words.contains(word)), "{text}");
            }
        }
        let other = "One Large red circle above two small blue squares on a grey background";
        let caption: Caption = other.parse().unwrap();
        assert_eq!(
            caption.to_string(),
            "a large red circle above two small blue squares on a gray background"
        );
    }

    #[test]
    fn wrong_words_are_named() {
        for (text, expected) in [
            ("", "`the end`"),
            ("four red circles", "`four`"),
            ("a pink circle", "`pink`"),
            ("two red circle", "`circle`"),
            ("a red cat", "`cat` as word 3, expected circle"),
            ("a red circle left a blue square", "`a`"),
            ("a red circle above", "`the end`"),
            ("a red circle and a blue square", "`and`"),
            ("a red circle on a red background", "`red`"),
        ] {
            let error = text.parse::<Caption>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    /// About a tenth of the pairs of kinds is held out, in either order.
    #[test]
    fn held_out_pairs_are_a_tenth() {
        let kinds: Vec<Group> = Color::ALL
            .iter()
            .flat_map(|color| {
                Shape::ALL.iter().map(|shape| Group {
                    count: 1,
                    size: None,
                    color: *color,
                    shape: *shape,
                })
            })
            .collect();
        let (mut held, mut all) = (0, 0);
        for first in &kinds {
            for second in kinds.iter().filter(|second| *second != first) {
                let caption = |a: &Group, b: &Group, relation| Caption {
                    first: *a,
                    second: Some((relation, *b)),
                    background: None,
                };
                let out = is_held_out(&caption(first, second, Relation::Above));
                assert_eq!(out, is_held_out(&caption(second, first, Relation::LeftOf)));
                held += usize::from(out);
                all += 1;
            }
        }
        let share = held as f64 / all as f64;
        assert!((0.06..0.14).contains(&share), "{share}");
    }
}

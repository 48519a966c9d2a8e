//! The words of captions.

use crate::rng::Rng;

/// An enumeration whose variants are words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            pub(super) fn of(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.word() == word)
            }

            pub(super) fn random(rng: &mut Rng) -> Self {
                Self::ALL[rng.random_index(Self::ALL.len())]
            }
        }
    };
}

words! {
    /// The colour of a shape.
    Color {
        /// Red.
        Red = "red",
        /// Orange.
        Orange = "orange",
        /// Yellow.
        Yellow = "yellow",
        /// Green.
        Green = "green",
        /// Blue.
        Blue = "blue",
        /// Purple.
        Purple = "purple",
    }
}

words! {
    /// The outline of a shape.
    Shape {
        /// A circle.
        Circle = "circle",
        /// A square with horizontal and vertical sides.
        Square = "square",
        /// A triangle with a horizontal base.
        Triangle = "triangle",
        /// A star with five points.
        Star = "star",
    }
}

words! {
    /// The size of a shape.
    ShapeSize {
        /// About 11 pixels.
        Small = "small",
        /// About 19 pixels.
        Large = "large",
    }
}

words! {
    /// The place of the first group of shapes relative to the second.
    Relation {
        /// Every shape of the first group is above every shape of the second.
        Above = "above",
        /// Every shape of the first group is below every shape of the second.
        Below = "below",
        /// Every shape of the first group is left of every shape of the second.
        LeftOf = "left",
        /// Every shape of the first group is right of every shape of the second.
        RightOf = "right",
    }
}

words! {
    /// The colour behind the shapes.
    Background {
        /// White.
        White = "white",
        /// Gray.
        Gray = "gray",
        /// Black.
        Black = "black",
    }
}

/// Words for one, two and three shapes.
pub(super) const COUNTS: [&str; 3] = ["a", "two", "three"];

/// Every word of the grammar: the vocabulary of a tokenizer.
pub const WORDS: &[&str] = &[
    "a",
    "two",
    "three",
    "small",
    "large",
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "circle",
    "square",
    "triangle",
    "star",
    "circles",
    "squares",
    "triangles",
    "stars",
    "above",
    "below",
    "left",
    "right",
    "of",
    "on",
    "white",
    "gray",
    "black",
    "background",
];

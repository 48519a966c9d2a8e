//! Images of simple shapes with captions from a grammar, 64×64 in colour.
//!
//! ```text
//! scene      := group [relation group] ["on a" background "background"]
//! group      := ("a" | "two" | "three") [size] colour shape
//! relation   := "above" | "below" | "left of" | "right of"
//! size       := "small" | "large"
//! colour     := "red" | "orange" | "yellow" | "green" | "blue" | "purple"
//! shape      := "circle" | "square" | "triangle" | "star", with an "s" for several
//! background := "white" | "gray" | "black"
//! ```
//!
//! What a caption leaves open is drawn at random: places, and sizes and backgrounds that it does
//! not name. [`detect`] reads the shapes back from pixels, so that the [relevance](judge) of a
//! generated image to its caption can be counted.
//!
//! Captions with two groups of different kinds, such as red circles and blue squares, are split by
//! the pair of kinds: a tenth of the pairs is [held out](is_held_out), in either order and with any
//! relation. No training image shows them together.

mod detect;
mod draw;
mod grammar;
mod layout;
mod words;

pub use detect::{Relevance, detect, judge};
pub use draw::render;
pub use grammar::{Caption, Group, is_held_out};
pub use layout::{Layout, Object, Scene};
pub use words::{Background, Color, Relation, Shape, ShapeSize, WORDS};

use super::{Dataset, Image, ImageShape};
use crate::{Result, rng::Rng};

/// Shape of an image.
pub const SHAPE: ImageShape = ImageShape::new(3, 64, 64);
/// Side of an image in pixels.
pub(crate) const SIDE: usize = 64;

/// Which captions a data set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Captions without a held-out pair of kinds.
    Train,
    /// Captions with a held-out pair of kinds.
    HeldOut,
}

/// An image and its caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptionedImage {
    /// The image.
    pub image: Image,
    /// The caption.
    pub caption: Caption,
}

/// A data set that draws new captions and images in every epoch.
///
/// ```
/// use aigc_core::data::{Dataset, scenes::{Scenes, Split, detect, judge}};
///
/// # fn main() -> aigc_core::Result<()> {
/// let item = Scenes::new(Split::HeldOut, 10, 0).get(3)?;
/// assert!(judge(&item.caption, &detect(&item.image)).is_right());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Scenes {
    split: Split,
    len: usize,
    seed: u64,
    layout: Layout,
}

impl Scenes {
    /// `len` images for each epoch, drawn from `seed`, with shapes in free places.
    pub const fn new(split: Split, len: usize, seed: u64) -> Self {
        Self {
            split,
            len,
            seed,
            layout: Layout::Free,
        }
    }

    /// With shapes in the places of `layout`.
    #[must_use]
    pub const fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }
}

impl Dataset for Scenes {
    type Item = CaptionedImage;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<CaptionedImage> {
        self.get_in_epoch(index, 0)
    }

    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<CaptionedImage> {
        assert!(index < self.len, "image {index} of {}", self.len);
        let purpose = match self.split {
            Split::Train => "scenes",
            Split::HeldOut => "held-out scenes",
        };
        let number = (epoch as u64).wrapping_mul(self.len as u64) + index as u64;
        let mut rng = Rng::stream(self.seed, purpose, number);
        loop {
            let mut caption = Caption::random(self.split, &mut rng);
            // If both directions were equally frequent, neither the relation nor the order of the
            // groups alone would tell anything about places, and gradient descent would be slow to
            // find that the two together do.
            if (self.split, self.layout) == (Split::Train, Layout::Rows)
                && rng.random_index(2) == 0
                && let Some((relation, _)) = &mut caption.second
            {
                *relation = match *relation {
                    Relation::Above | Relation::Below => Relation::Above,
                    Relation::LeftOf | Relation::RightOf => Relation::LeftOf,
                };
            }
            // Several large shapes in a part of the image may not find a place.
            if let Some(scene) = Scene::random(&caption, self.layout, &mut rng) {
                return Ok(CaptionedImage {
                    image: render(&scene),
                    caption,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The detector reads every drawn image as its caption describes it.
    #[test]
    fn detector_agrees_with_captions() {
        for (split, layout) in [
            (Split::Train, Layout::Free),
            (Split::HeldOut, Layout::Free),
            (Split::Train, Layout::Rows),
            (Split::HeldOut, Layout::Rows),
        ] {
            let scenes = Scenes::new(split, 300, 1).with_layout(layout);
            for index in 0..300 {
                let item = scenes.get(index).unwrap();
                let found = detect(&item.image);
                let relevance = judge(&item.caption, &found);
                assert!(
                    relevance.is_right(),
                    "{index}: {} was read as {found:?}: {relevance:?}",
                    item.caption
                );
                assert_eq!(is_held_out(&item.caption), split == Split::HeldOut);
            }
        }
    }

    /// Shapes in rows keep the distances to each other and to the borders that free ones keep.
    #[test]
    fn rows_keep_distances() {
        let mut rng = Rng::new(3);
        for _ in 0..500 {
            let caption = Caption::random(Split::HeldOut, &mut rng);
            let scene = Scene::random(&caption, Layout::Rows, &mut rng).unwrap();
            for (k, a) in scene.objects.iter().enumerate() {
                let radii = if a.size == ShapeSize::Small {
                    5.0..=6.0
                } else {
                    9.0..=10.0
                };
                assert!(radii.contains(&a.radius), "{caption}: {a:?}");
                for axis in 0..2 {
                    let (low, high) = (a.center[axis] - a.radius, a.center[axis] + a.radius);
                    assert!(low >= 1.0 - 1e-9 && high <= 63.0 + 1e-9, "{caption}: {a:?}");
                }
                for b in &scene.objects[k + 1..] {
                    let apart = (0..2).map(|axis| (a.center[axis] - b.center[axis]).abs());
                    let gap = apart.fold(0.0, f64::max) - a.radius - b.radius;
                    assert!(gap >= 3.0 - 1e-9, "{caption}: {a:?} {b:?}");
                }
            }
        }
    }

    /// In training with rows, three quarters of the relations have the frequent direction.
    #[test]
    fn relations_of_rows_are_biased_in_training_only() {
        for (split, layout, expected) in [
            (Split::Train, Layout::Rows, 0.75),
            (Split::Train, Layout::Free, 0.5),
            (Split::HeldOut, Layout::Rows, 0.5),
        ] {
            let scenes = Scenes::new(split, 600, 2).with_layout(layout);
            let relations = (0..600).filter_map(|index| scenes.get(index).unwrap().caption.second);
            let (mut frequent, mut all) = (0.0, 0.0);
            for (relation, _) in relations {
                frequent += f64::from(matches!(relation, Relation::Above | Relation::LeftOf));
                all += 1.0;
            }
            // Four standard deviations of 400 draws.
            assert!(
                (frequent / all - expected).abs() < 0.1,
                "{split:?} {layout:?}"
            );
        }
    }

    /// A caption that differs in one word does not fit the image.
    #[test]
    fn detector_tells_captions_apart() {
        let caption: Caption =
            "two small red circles left of a large blue square on a gray background"
                .parse()
                .unwrap();
        let mut rng = Rng::new(5);
        let scene = Scene::random(&caption, Layout::Free, &mut rng).unwrap();
        let found = detect(&render(&scene));
        assert!(judge(&caption, &found).is_right());
        for other in [
            "three small red circles left of a large blue square on a gray background",
            "a small red circle left of a large blue square on a gray background",
            "two large red circles left of a large blue square on a gray background",
            "two small green circles left of a large blue square on a gray background",
            "two small red stars left of a large blue square on a gray background",
            "two small red circles right of a large blue square on a gray background",
            "two small red circles left of a small blue square on a gray background",
            "two small red circles left of a large blue triangle on a gray background",
            "two small red circles left of a large blue square on a white background",
            "two small red circles on a gray background",
        ] {
            let other: Caption = other.parse().unwrap();
            assert!(!judge(&other, &found).is_right(), "{other}");
        }
    }

    /// Groups of the same colour and shape are assigned to objects by position.
    #[test]
    fn groups_of_one_kind_are_judged() {
        let parse = |text: &str| text.parse::<Caption>().unwrap();
        let text = "two small red circles left of a large red circle";
        let scene = Scene::random(&parse(text), Layout::Free, &mut Rng::new(2)).unwrap();
        let found = detect(&render(&scene));
        let relevance = judge(&parse(text), &found);
        assert!(relevance.is_right(), "{relevance:?}");
        assert_eq!((relevance.objects, relevance.right_objects), (3, 3));
        for other in [
            "two small red circles right of a large red circle",
            "a small red circle left of a large red circle",
            "two large red circles left of a small red circle",
            "three red circles left of a red circle",
        ] {
            assert!(!judge(&parse(other), &found).is_right(), "{other}");
        }
        let relevance = judge(&parse("three red circles left of a red circle"), &found);
        assert_eq!((relevance.objects, relevance.right_objects), (4, 3));
    }

    /// Every kind of shape is read in the corners, before every background.
    #[test]
    fn detector_reads_shapes_at_borders() {
        for (number, shape) in Shape::ALL.iter().enumerate() {
            for color in Color::ALL {
                for background in Background::ALL {
                    for (size, radius) in [
                        (ShapeSize::Small, 5.0),
                        (ShapeSize::Small, 6.0),
                        (ShapeSize::Large, 9.0),
                        (ShapeSize::Large, 10.0),
                    ] {
                        let (near, far) = (1.0 + radius, 63.0 - radius);
                        let corners = [[near, near], [far, near], [near, far], [far, far]];
                        let object = Object {
                            shape: *shape,
                            color: *color,
                            size,
                            center: corners[(number + *color as usize) % 4],
                            radius,
                        };
                        let scene = Scene {
                            objects: vec![object],
                            background: *background,
                        };
                        let found = detect(&render(&scene));
                        assert_eq!(found.background, *background, "{object:?}");
                        let [read] = found.objects[..] else {
                            panic!("{object:?} was read as {found:?}");
                        };
                        let kind = |object: &Object| (object.shape, object.color, object.size);
                        assert_eq!(kind(&read), kind(&object));
                        let off =
                            (0..2).map(|axis| (read.center[axis] - object.center[axis]).abs());
                        assert!(off.fold(0.0, f64::max) < 0.6, "{read:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn epochs_differ_and_repeat() {
        let scenes = Scenes::new(Split::Train, 4, 0);
        let item = |index, epoch| scenes.get_in_epoch(index, epoch).unwrap();
        assert_eq!(item(1, 2), item(1, 2));
        assert_ne!(item(1, 2), item(1, 3));
        assert_ne!(item(1, 2), item(2, 2));
    }
}

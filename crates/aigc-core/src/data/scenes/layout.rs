//! Places of the shapes of a caption.

use super::{Background, Caption, Color, Group, Relation, SIDE, Shape, ShapeSize};
use crate::rng::Rng;
use serde::{Deserialize, Serialize};

/// Attempts to find places for all shapes.
const ATTEMPTS: usize = 60;
/// Least distance between two shapes, and between a shape and the border, in pixels.
const GAP: f64 = 3.0;
const BORDER: f64 = 1.0;

/// How the shapes of a caption find their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Anywhere, in the part of the image that the relation leaves to their group.
    #[default]
    Free,
    /// Each group in a row, across the direction of the relation, at about equal distances. A
    /// caption then tells more about the places, so that models learn numbers and relations from
    /// fewer images. In training, "above" and "left of" are three times as frequent as their
    /// opposites.
    Rows,
}

/// A shape of a scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Outline.
    pub shape: Shape,
    /// Colour.
    pub color: Color,
    /// Size.
    pub size: ShapeSize,
    /// Column and row of the centre, in pixels from the upper left corner.
    pub center: [f64; 2],
    /// Half the side of the square that the shape fills, in pixels.
    pub radius: f64,
}

/// Shapes before a background.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The shapes.
    pub objects: Vec<Object>,
    /// The background.
    pub background: Background,
}

impl Scene {
    /// A scene that a caption describes, with what it leaves open drawn from `rng`; `None` if the
    /// shapes found no places, which happens with [`Layout::Free`] only.
    pub fn random(caption: &Caption, layout: Layout, rng: &mut Rng) -> Option<Self> {
        let background = caption
            .background
            .unwrap_or_else(|| Background::ALL[rng.random_index(Background::ALL.len())]);
        let objects = match layout {
            Layout::Free => (0..ATTEMPTS).find_map(|_| places(caption, rng))?,
            Layout::Rows => rows(caption, rng),
        };
        Some(Self {
            objects,
            background,
        })
    }
}

/// Part of the image for a group: low and high column, low and high row.
type Part = [[f64; 2]; 2];

/// The parts of the first and the second group, which meet between the fractions `middle` of the
/// side.
fn parts(caption: &Caption, middle: [f64; 2], rng: &mut Rng) -> [Part; 2] {
    let whole = [BORDER, SIDE as f64 - BORDER];
    let (mut first, mut second) = ([whole; 2], [whole; 2]);
    if let Some((relation, _)) = caption.second {
        let axis = axis(relation);
        let middle = between(rng, middle.map(|share| share * SIDE as f64));
        let (low, high) = match relation {
            Relation::LeftOf | Relation::Above => (&mut first, &mut second),
            Relation::RightOf | Relation::Below => (&mut second, &mut first),
        };
        low[axis][1] = middle - 0.5 * GAP;
        high[axis][0] = middle + 0.5 * GAP;
    }
    [first, second]
}

/// The axis along which a relation orders groups: 0 for columns, 1 for rows.
fn axis(relation: Relation) -> usize {
    match relation {
        Relation::LeftOf | Relation::RightOf => 0,
        Relation::Above | Relation::Below => 1,
    }
}

/// Shapes in rows. The parts are wide enough for a row of large shapes.
fn rows(caption: &Caption, rng: &mut Rng) -> Vec<Object> {
    let parts = parts(caption, [0.42, 0.58], rng);
    let across = caption.second.map_or(1, |(relation, _)| axis(relation));
    let along = 1 - across;
    let mut objects = Vec::new();
    for (group, part) in caption.groups().zip(parts) {
        let length = |axis: usize| part[axis][1] - part[axis][0];
        let count = group.count as f64;
        let room = (length(along) - (count - 1.0) * GAP) / (2.0 * count);
        let size = group.size_or_random(rng);
        let radii: Vec<f64> = (0..group.count)
            .map(|_| size.radius(rng).min(room))
            .collect();
        // What is left of the row is shared out before, between and after the shapes.
        let shares: Vec<f64> = (0..=group.count)
            .map(|_| between(rng, [0.6, 1.4]))
            .collect();
        let left = length(along) - (count - 1.0) * GAP - 2.0 * radii.iter().sum::<f64>();
        let unit = left / shares.iter().sum::<f64>();
        let mut at = part[along][0];
        for (radius, share) in radii.into_iter().zip(shares) {
            at += unit * share + radius;
            let beside = (length(across) - 2.0 * radius) * between(rng, [0.3, 0.7]);
            let mut center = [at; 2];
            center[across] = part[across][0] + radius + beside;
            objects.push(Object {
                shape: group.shape,
                color: group.color,
                size,
                center,
                radius,
            });
            at += radius + GAP;
        }
    }
    objects
}

fn places(caption: &Caption, rng: &mut Rng) -> Option<Vec<Object>> {
    let parts = parts(caption, [0.3, 0.7], rng);
    let mut objects = Vec::new();
    for (group, part) in caption.groups().zip(parts) {
        place(group, part, &mut objects, rng)?;
    }
    Some(objects)
}

impl Group {
    fn size_or_random(&self, rng: &mut Rng) -> ShapeSize {
        self.size
            .unwrap_or_else(|| ShapeSize::ALL[rng.random_index(2)])
    }
}

impl ShapeSize {
    fn radius(self, rng: &mut Rng) -> f64 {
        match self {
            ShapeSize::Small => between(rng, [5.0, 6.0]),
            ShapeSize::Large => between(rng, [9.0, 10.0]),
        }
    }
}

/// Adds the shapes of a group, all of one size.
fn place(group: &Group, part: Part, objects: &mut Vec<Object>, rng: &mut Rng) -> Option<()> {
    let size = group.size_or_random(rng);
    for _ in 0..group.count {
        let object = (0..ATTEMPTS).find_map(|_| {
            let radius = size.radius(rng);
            let fits = part.iter().all(|[low, high]| high - low >= 2.0 * radius);
            let center = fits.then(|| part.map(|[l, h]| between(rng, [l + radius, h - radius])))?;
            let object = Object {
                shape: group.shape,
                color: group.color,
                size,
                center,
                radius,
            };
            objects
                .iter()
                .all(|other| apart(&object, other))
                .then_some(object)
        });
        objects.push(object?);
    }
    Some(())
}

/// Whether the squares around two shapes keep the distance.
fn apart(a: &Object, b: &Object) -> bool {
    let least = a.radius + b.radius + GAP;
    (0..2).any(|axis| (a.center[axis] - b.center[axis]).abs() >= least)
}

fn between(rng: &mut Rng, [low, high]: [f64; 2]) -> f64 {
    f64::from(rng.uniform_vec(1, low as f32, high as f32)[0])
}

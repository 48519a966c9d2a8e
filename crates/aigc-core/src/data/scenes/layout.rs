//! Places of the shapes of a caption.

use super::{Background, Caption, Color, Group, Relation, SIDE, Shape, ShapeSize};
use crate::rng::Rng;

/// Attempts to find places for all shapes.
const ATTEMPTS: usize = 60;
/// Least distance between two shapes, and between a shape and the border, in pixels.
const GAP: f64 = 3.0;
const BORDER: f64 = 1.0;

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
    /// shapes found no places.
    pub fn random(caption: &Caption, rng: &mut Rng) -> Option<Self> {
        let background = caption
            .background
            .unwrap_or_else(|| Background::ALL[rng.random_index(Background::ALL.len())]);
        (0..ATTEMPTS).find_map(|_| {
            let objects = places(caption, rng)?;
            Some(Self {
                objects,
                background,
            })
        })
    }
}

/// Part of the image for a group: low and high column, low and high row.
type Part = [[f64; 2]; 2];

fn places(caption: &Caption, rng: &mut Rng) -> Option<Vec<Object>> {
    let whole = [BORDER, SIDE as f64 - BORDER];
    let (mut first, mut second) = ([whole; 2], [whole; 2]);
    if let Some((relation, _)) = caption.second {
        let axis = match relation {
            Relation::LeftOf | Relation::RightOf => 0,
            Relation::Above | Relation::Below => 1,
        };
        let middle = between(rng, [0.3 * SIDE as f64, 0.7 * SIDE as f64]);
        let (low, high) = match relation {
            Relation::LeftOf | Relation::Above => (&mut first, &mut second),
            Relation::RightOf | Relation::Below => (&mut second, &mut first),
        };
        low[axis][1] = middle - 0.5 * GAP;
        high[axis][0] = middle + 0.5 * GAP;
    }
    let mut objects = Vec::new();
    let parts = [first, second];
    for (group, part) in caption.groups().zip(parts) {
        place(group, part, &mut objects, rng)?;
    }
    Some(objects)
}

/// Adds the shapes of a group, all of one size.
fn place(group: &Group, part: Part, objects: &mut Vec<Object>, rng: &mut Rng) -> Option<()> {
    let size = group
        .size
        .unwrap_or_else(|| ShapeSize::ALL[rng.random_index(2)]);
    for _ in 0..group.count {
        let object = (0..ATTEMPTS).find_map(|_| {
            let radius = match size {
                ShapeSize::Small => between(rng, [5.0, 6.0]),
                ShapeSize::Large => between(rng, [9.0, 10.0]),
            };
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

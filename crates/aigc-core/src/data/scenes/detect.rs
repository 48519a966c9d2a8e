//! Shapes read from pixels, and the relevance of an image to a caption.

use super::{
    Background, Caption, Color, Group, Object, Relation, SIDE, Scene, Shape, ShapeSize,
    draw::coverage,
};
use crate::data::Image;

/// Pixels whose colour is closer to the background than this are background.
const CONTRAST: f64 = 40.0;
/// Regions with fewer pixels are not shapes.
const MIN_PIXELS: usize = 16;
/// Shapes with a larger radius are large.
const LARGE: f64 = 7.5;

/// Reads the shapes of an image of 64×64 pixels in colour. A shape is a connected region that
/// differs from the background. Its colour is the nearest to that of most of its pixels, and its
/// outline the one that covers the region best at the same area and centroid.
///
/// # Panics
/// If the image has another shape.
pub fn detect(image: &Image) -> Scene {
    assert_eq!(
        image.shape,
        super::SHAPE,
        "an image of 64×64 pixels in colour"
    );
    let pixel = |at: usize| {
        std::array::from_fn(|channel| f64::from(image.pixels[channel * SIDE * SIDE + at]))
    };
    let pixels: Vec<[f64; 3]> = (0..SIDE * SIDE).map(pixel).collect();
    let background = background(&pixels);
    let behind = background.rgb().map(f64::from);
    let mut open: Vec<bool> = pixels
        .iter()
        .map(|p| distance(*p, behind) > CONTRAST)
        .collect();
    let mut objects = vec![];
    for start in 0..open.len() {
        if open[start] {
            let region = region(&mut open, start);
            if region.len() >= MIN_PIXELS {
                objects.push(object(&region, &pixels, behind));
            }
        }
    }
    Scene {
        objects,
        background,
    }
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// The background that is nearest to most pixels at the border.
fn background(pixels: &[[f64; 3]]) -> Background {
    let border = (0..SIDE * SIDE).filter(|at| {
        let (x, y) = (at % SIDE, at / SIDE);
        [x, y].iter().any(|side| *side == 0 || *side == SIDE - 1)
    });
    let mut votes = [0; 3];
    for at in border {
        let near = |background: &Background| distance(pixels[at], background.rgb().map(f64::from));
        let all = Background::ALL;
        let nearest = (0..all.len()).min_by(|a, b| near(&all[*a]).total_cmp(&near(&all[*b])));
        votes[nearest.expect("there are backgrounds")] += 1;
    }
    let most = (0..votes.len()).max_by_key(|i| votes[*i]);
    Background::ALL[most.expect("there are backgrounds")]
}

/// Takes the open pixels that are connected with `start`.
fn region(open: &mut [bool], start: usize) -> Vec<usize> {
    let (mut region, mut next) = (vec![], vec![start]);
    open[start] = false;
    while let Some(at) = next.pop() {
        region.push(at);
        let (x, y) = (at % SIDE, at / SIDE);
        for (nx, ny) in [
            (x.wrapping_sub(1), y),
            (x + 1, y),
            (x, y.wrapping_sub(1)),
            (x, y + 1),
        ] {
            if nx < SIDE && ny < SIDE && open[ny * SIDE + nx] {
                open[ny * SIDE + nx] = false;
                next.push(ny * SIDE + nx);
            }
        }
    }
    region
}

fn object(region: &[usize], pixels: &[[f64; 3]], behind: [f64; 3]) -> Object {
    let mut votes = vec![0.0; Color::ALL.len()];
    for at in region {
        let near = |i: usize| distance(pixels[*at], Color::ALL[i].rgb().map(f64::from));
        let nearest = (0..votes.len()).min_by(|a, b| near(*a).total_cmp(&near(*b)));
        let nearest = nearest.expect("there are colours");
        // Mixtures with the background count little.
        votes[nearest] += (-near(nearest) / 30.0).exp();
    }
    let most = (0..votes.len()).max_by(|a, b| votes[*a].total_cmp(&votes[*b]));
    let color = Color::ALL[most.expect("there are colours")];
    // The part of each pixel that the shape covers, from the mixture of the two colours.
    let own = color.rgb().map(f64::from);
    let mut shares = vec![0.0; SIDE * SIDE];
    for at in region {
        let mixture = (0..3).map(|c| (pixels[*at][c] - behind[c]) * (own[c] - behind[c]));
        let along: f64 = mixture.sum();
        shares[*at] = (along / distance(own, behind).powi(2)).clamp(0.0, 1.0);
    }
    let area: f64 = shares.iter().sum::<f64>().max(1.0);
    let mean = |of: fn(usize) -> usize| {
        let sum: f64 = region
            .iter()
            .map(|at| (of(*at) as f64 + 0.5) * shares[*at])
            .sum();
        sum / area
    };
    let centroid = [mean(|at| at % SIDE), mean(|at| at / SIDE)];
    let candidates = Shape::ALL.iter().map(|shape| {
        let radius = (area / unit_area(*shape)).sqrt();
        Object {
            shape: *shape,
            color,
            size: if radius > LARGE {
                ShapeSize::Large
            } else {
                ShapeSize::Small
            },
            center: [centroid[0], centroid[1] - radius * centroid_below(*shape)],
            radius,
        }
    });
    candidates
        .min_by(|a, b| misfit(a, &shares).total_cmp(&misfit(b, &shares)))
        .expect("there are shapes")
}

/// Area of a shape of radius 1.
fn unit_area(shape: Shape) -> f64 {
    match shape {
        Shape::Circle => std::f64::consts::PI,
        Shape::Square => 4.0 * 0.92 * 0.92,
        Shape::Triangle => 0.5 * 1.9 * 1.9,
        Shape::Star => 10.0 * 0.5 * 0.45 * (0.2 * std::f64::consts::PI).sin(),
    }
}

/// How far the centroid of a shape of radius 1 is below the centre of its square.
fn centroid_below(shape: Shape) -> f64 {
    match shape {
        Shape::Triangle => -1.0 + 1.9 * 2.0 / 3.0,
        Shape::Circle | Shape::Square | Shape::Star => 0.0,
    }
}

/// The sum of the differences between the pixels of a shape and those of a region.
fn misfit(object: &Object, shares: &[f64]) -> f64 {
    let pixels = shares.iter().enumerate();
    let apart = pixels.map(|(at, share)| (coverage(object, at % SIDE, at / SIDE) - share).abs());
    apart.sum()
}

/// How an image agrees with a caption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relevance {
    /// Shapes that the caption names.
    pub objects: usize,
    /// Of these, shapes that the image has with the right outline and colour.
    pub right_objects: usize,
    /// Whether the image has exactly the shapes of the caption, of each kind as many.
    pub counts: bool,
    /// Whether all sizes that the caption names are right.
    pub sizes: bool,
    /// Whether the first group is where the caption says, relative to the second.
    pub relation: bool,
    /// Whether the background is right.
    pub background: bool,
}

impl Relevance {
    /// Whether the image is right in every word of the caption.
    pub fn is_right(&self) -> bool {
        self.counts && self.sizes && self.relation && self.background
    }
}

/// The shapes of a group's colour and outline.
fn of_kind<'a>(scene: &'a Scene, group: &Group) -> Vec<&'a Object> {
    let objects = scene.objects.iter();
    objects
        .filter(|object| (object.color, object.shape) == (group.color, group.shape))
        .collect()
}

/// Compares a scene, such as a [detected](detect) one, with a caption.
///
/// Of two groups of one kind, the first has the shapes that come first in the direction of the
/// relation.
pub fn judge(caption: &Caption, scene: &Scene) -> Relevance {
    let (mut first, mut second) = (of_kind(scene, &caption.first), vec![]);
    let mut relation = true;
    if let Some((word, group)) = &caption.second {
        // Smaller values come first.
        let along = |object: &Object| match word {
            Relation::LeftOf => object.center[0],
            Relation::RightOf => -object.center[0],
            Relation::Above => object.center[1],
            Relation::Below => -object.center[1],
        };
        let same_kind = (group.color, group.shape) == (caption.first.color, caption.first.shape);
        second = if same_kind {
            first.sort_by(|a, b| along(a).total_cmp(&along(b)));
            first.split_off(first.len().min(caption.first.count))
        } else {
            of_kind(scene, group)
        };
        let before = |a: &&Object| second.iter().all(|b| along(a) < along(b));
        relation = first.iter().all(before);
    }
    let (mut objects, mut right_objects) = (0, 0);
    let (mut counts, mut sizes) = (true, true);
    for (group, found) in caption.groups().zip([&first, &second]) {
        objects += group.count;
        right_objects += found.len().min(group.count);
        counts &= found.len() == group.count;
        let fits = |object: &&Object| group.size.is_none_or(|size| size == object.size);
        sizes &= found.iter().all(fits);
    }
    counts &= scene.objects.len() == objects;
    Relevance {
        objects,
        right_objects,
        counts,
        sizes,
        relation,
        background: caption.background.is_none_or(|b| b == scene.background),
    }
}

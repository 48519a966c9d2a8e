//! The Inception Score.

use crate::interval::{CONFIDENCE, checked, with};
use aigc_core::{
    Result,
    eval::{
        Features, centred_bootstrap, inception_score,
        report::{Aspect, Better, Measure},
    },
    rng::Rng,
};

/// The Inception Score of logits of samples and of held-out images, with their name.
pub(crate) fn score(
    logits: &Features,
    held_out: Option<(&Features, &str)>,
    label: &str,
    seed: u64,
) -> Result<Vec<Measure>> {
    let n = logits.len();
    let splits = (n / 100).clamp(1, 10);
    let found = inception_score(logits, splits, Some(seed))?;
    // In parts of the same size, on which the score depends.
    let held_out = held_out.filter(|(x, _)| 2 * x.len() >= n);
    let floor =
        held_out.map(|(x, _)| inception_score(x, (splits * x.len() / n).max(1), Some(seed)));
    let floor = floor.transpose()?;
    let rounds = if n <= 2000 { 100 } else { 40 };
    let mut rng = Rng::stream(seed, "Inception Score", 0);
    let interval = centred_bootstrap(n, rounds, CONFIDENCE, &mut rng, |items| {
        Ok(inception_score(&logits.select(items), splits, Some(seed))?.mean)
    });
    let name = match label {
        "InceptionV3" => "Inception Score".to_string(),
        _ => format!("Inception Score ({label})"),
    };
    let measure = Measure::new(
        Aspect::Quality,
        name,
        found.mean,
        Better::Higher,
        logits.len(),
    )
    .with_explanation("How certain the class of each sample is, and how varied all classes are.")
    .with_command("eval::inception_score")
    .with_note(format!(
        "Over {} parts, deviation {:.3}; bootstrap of the samples with {rounds} rounds.",
        found.count, found.std
    ));
    let measure = with(measure, checked(n, interval));
    Ok(vec![match (floor, held_out) {
        (Some(floor), Some((held_out, name))) => measure
            .with_floor(floor.mean)
            .with_reference(name, held_out.len())
            .with_note(format!(
                "Real data: {} held-out images in {} parts.",
                held_out.len(),
                floor.count
            )),
        _ => measure.with_note("No value of real data: there are too few held-out images."),
    }])
}

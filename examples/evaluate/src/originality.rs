//! Originality in features, of images and of sounds.

use crate::book::Book;
use aigc_core::{
    Result,
    eval::{
        Features, authenticity, closest_records,
        report::{Aspect, Better, Measure},
    },
    rng::Rng,
};

/// Features of samples and of the data that they are compared with.
pub(crate) struct Originals<'a> {
    pub(crate) samples: &'a Features,
    /// Training data with their name.
    pub(crate) train: (&'a Features, &'a str),
    /// Held-out data with their name.
    pub(crate) held_out: Option<(&'a Features, &'a str)>,
    /// The features, such as `pixels`.
    pub(crate) label: &'a str,
    pub(crate) seed: u64,
}

impl Originals<'_> {
    /// Adds closest records, if there are held-out data, and authenticity.
    pub(crate) fn report(&self, book: &mut Book) {
        if let Some(held_out) = self.held_out {
            book.measures("closest records", || Ok(vec![self.closest(held_out)?]));
        }
        book.measures("authenticity", || Ok(vec![self.authenticity()?]));
    }

    fn closest(&self, (held_out, name): (&Features, &str)) -> Result<Measure> {
        let n = self.samples.len();
        let mut rng = Rng::stream(self.seed, "closest records", 0);
        let found = closest_records(self.samples, self.train.0, held_out, &mut rng)?;
        let (low, high) = found.nearer_train.interval();
        let tied = 0.5 * found.equal as f64 / n as f64;
        let measure = Measure::new(
            Aspect::Originality,
            format!("Nearer to training data ({})", self.label),
            found.share(),
            Better::Target(0.5),
            n,
        );
        Ok(measure
            .with_reference(name, found.records)
            .with_interval((low + tied).min(1.0), (high + tied).min(1.0))
            .with_explanation(
                "The share of samples nearer to training than to held-out data; half is chance.",
            )
            .with_command("eval::closest_records")
            .with_note(format!(
                "Mean distance to training data over that to held-out data: {:.3}.",
                found.ratio()
            )))
    }

    /// The ideal is the value of held-out data: samples far from all data, grey images for example,
    /// are authentic without exception.
    fn authenticity(&self) -> Result<Measure> {
        let (train, name) = self.train;
        let found = authenticity(self.samples, train)?;
        let floor = self
            .held_out
            .map(|(held_out, _)| authenticity(held_out, train));
        let floor = floor.transpose()?.map(|floor| floor.value());
        let (low, high) = found.interval();
        let measure = Measure::new(
            Aspect::Originality,
            format!("Authenticity ({})", self.label),
            found.value(),
            Better::Target(floor.unwrap_or(0.5)),
            found.total(),
        )
        .with_interval(low, high)
        .with_reference(name, train.len())
        .with_explanation(
            "The share of samples that are no noisy copies of training data. Far below the ideal \
             means copies; far above it, samples that are far from the data.",
        )
        .with_command("eval::authenticity");
        Ok(match floor {
            Some(floor) => measure.with_floor(floor),
            None => measure.with_note(
                "No value of real data: there are no held-out data. The ideal 0.5 is that of \
                 samples of the distribution of the training data.",
            ),
        })
    }
}

//! Classes of samples: how they are spread, and whether they are the requested ones.

use super::set::{BATCH, ImageSet};
use crate::{
    Part,
    book::Book,
    interval::{CONFIDENCE, checked, with},
};
use aigc_core::{
    CancelToken, Result,
    burn::tensor::{Device, Tensor},
    eval::{
        ClassHistogram, Classifier, ConditionalAccuracy, LeNet5, NearestNeighbors,
        centred_bootstrap, class_entropy,
        report::{Aspect, Better, Histogram, Measure, Table},
    },
    rng::Rng,
};
use aigc_examples::Progress;

/// Training images among which the nearest is searched.
pub(crate) const KNOWN: usize = 10_000;

/// Reads the classes of images.
pub(crate) enum ClassReader<'a> {
    LeNet(&'a LeNet5),
    /// The class of the nearest training image.
    Nearest(&'a NearestNeighbors),
}

impl ClassReader<'_> {
    /// What reads the classes, for the report.
    fn name(&self) -> &'static str {
        match self {
            Self::LeNet(_) => "a LeNet-5",
            Self::Nearest(_) => "the nearest training image",
        }
    }

    fn read(&self, images: Tensor<4>) -> Vec<u32> {
        match self {
            Self::LeNet(net) => net.classify(images).predictions(),
            Self::Nearest(known) => known.classify(images).predictions(),
        }
    }

    /// The classes of all images of a set.
    fn read_all(&self, set: &ImageSet, device: &Device, stop: &CancelToken) -> Result<Vec<u32>> {
        let progress = Progress::new("classes", set.len(), stop);
        let mut read = Vec::with_capacity(set.len());
        let rows: Vec<usize> = (0..set.len()).collect();
        for some in rows.chunks(BATCH) {
            read.extend(self.read(set.tensor(some, device)));
            progress.add(some.len())?;
        }
        Ok(read)
    }
}

/// Sets whose classes are compared.
pub(crate) struct Classified<'a> {
    pub(crate) reader: ClassReader<'a>,
    pub(crate) samples: &'a ImageSet,
    pub(crate) train: &'a ImageSet,
    pub(crate) held_out: Option<&'a ImageSet>,
    pub(crate) device: &'a Device,
}

impl Classified<'_> {
    /// Adds the histogram, its entropy, and the accuracy of requested classes.
    pub(crate) fn report(&self, book: &mut Book) {
        let Some(labels) = self.train.labels() else {
            return;
        };
        let stop = book.stop().clone();
        let found = book.attempt("classes", || {
            let samples = self.reader.read_all(self.samples, self.device, &stop)?;
            let held_out = self.held_out.map(|set| {
                let read = self.reader.read_all(set, self.device, &stop)?;
                Ok::<_, aigc_core::Error>((read, set.labels()))
            });
            Ok((samples, held_out.transpose()?))
        });
        let Some((read, held_out)) = found else {
            return;
        };
        let classes = self.train.classes.len();
        if book.wants(Part::Diversity) {
            let real = held_out.as_ref().map(|(read, _)| read.as_slice());
            book.measures("class entropy", || {
                self.entropy(classes, &read, real, &labels)
            });
            if let Some((chart, spread)) =
                book.attempt("class histogram", || self.charts(classes, &read, &labels))
            {
                book.section("Classes").add(chart).add(spread);
            }
        }
        if book.wants(Part::Relevance)
            && let Some(requested) = self.samples.labels()
        {
            let real = held_out.and_then(|(read, labels)| Some((read, labels?)));
            let real = real.as_ref().map(|(read, labels)| (&read[..], &labels[..]));
            book.measures("conditional accuracy", || {
                self.accuracy(classes, (&read, &requested), real)
            });
        }
    }

    fn entropy(
        &self,
        classes: usize,
        read: &[u32],
        held_out: Option<&[u32]>,
        labels: &[u32],
    ) -> Result<Vec<Measure>> {
        let histogram = counted(classes, read)?;
        let entropy = class_entropy(&histogram)?;
        let floor = match held_out {
            Some(read) => class_entropy(&counted(classes, read)?)?.normalized,
            None => class_entropy(&counted(classes, labels)?)?.normalized,
        };
        let n = read.len();
        let mut rng = Rng::stream(0, "class entropy", 0);
        let found = centred_bootstrap(n, 200, CONFIDENCE, &mut rng, |items| {
            let drawn: Vec<u32> = items.iter().map(|i| read[*i]).collect();
            Ok(class_entropy(&counted(classes, &drawn)?)?.normalized)
        });
        let (reference, count) = match self.held_out {
            Some(set) => (&set.name, set.len()),
            None => (&self.train.name, labels.len()),
        };
        let measure = Measure::new(
            Aspect::Diversity,
            "Class entropy",
            entropy.normalized,
            Better::Target(floor),
            n,
        )
        .with_floor(floor)
        .with_reference(reference.as_str(), count)
        .with_explanation("How evenly the classes occur: 1 if all do equally; real data is ideal.")
        .with_command("eval::class_entropy")
        .with_note(format!(
            "Classes by {}; {} of {classes} occur.",
            self.reader.name(),
            histogram.num_seen()
        ));
        let interval = checked(n, found).map(|(low, high)| (low.min(1.0), high.min(1.0)));
        Ok(vec![with(measure, interval)])
    }

    /// Bars of the classes, and a table of them.
    fn charts(&self, classes: usize, read: &[u32], labels: &[u32]) -> Result<(Histogram, Table)> {
        let (found, real) = (counted(classes, read)?, counted(classes, labels)?);
        let share = |histogram: &ClassHistogram, class: usize| {
            histogram.counts()[class] as f64 / histogram.total().max(1) as f64
        };
        let title = format!("Classes of samples, by {}", self.reader.name());
        let chart = Histogram::from_classes(title, &found)?
            .with_labels(self.train.classes.iter().map(String::as_str))?
            .with_expected_shares((0..classes).map(|class| share(&real, class)).collect())?;
        let mut table = Table::new("Classes", ["class", "samples", "share", "training images"]);
        for (class, name) in self.train.classes.iter().enumerate() {
            let percent = |share: f64| format!("{:.1}%", 100.0 * share);
            table.push([
                name.clone(),
                found.counts()[class].to_string(),
                percent(share(&found, class)),
                percent(share(&real, class)),
            ])?;
        }
        Ok((chart, table))
    }

    /// The share of samples that show the class that was requested of them.
    fn accuracy(
        &self,
        classes: usize,
        (read, requested): (&[u32], &[u32]),
        held_out: Option<(&[u32], &[u32])>,
    ) -> Result<Vec<Measure>> {
        let share = |read: &[u32], requested: &[u32]| {
            let mut accuracy = ConditionalAccuracy::new(classes)?;
            accuracy.add(read, requested)?;
            accuracy.overall()
        };
        let found = share(read, requested)?;
        let (low, high) = found.interval();
        let measure = Measure::new(
            Aspect::Relevance,
            "Conditional accuracy",
            found.value(),
            Better::Higher,
            found.total(),
        )
        .with_interval(low, high)
        .with_explanation("The share of samples that show the class that was requested.")
        .with_command("eval::ConditionalAccuracy")
        .with_note(format!(
            "Classes by {}, whose errors lower the value.",
            self.reader.name()
        ));
        Ok(vec![match (held_out, self.held_out) {
            (Some((read, labels)), Some(set)) => measure
                .with_floor(share(read, labels)?.value())
                .with_reference(set.name.as_str(), set.len()),
            _ => measure.with_note("No value of real data: no held-out images with classes."),
        }])
    }
}

fn counted(classes: usize, read: &[u32]) -> Result<ClassHistogram> {
    let mut histogram = ClassHistogram::new(classes)?;
    histogram.add(read.iter().copied())?;
    Ok(histogram)
}

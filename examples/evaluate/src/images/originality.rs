//! Originality of images: copies, memorisation, and the training images beside the samples.

use super::{classes::KNOWN, losses::losses, run::ImageModel, set::ImageSet};
use crate::{
    book::Book,
    interval::{checked, with},
};
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::Device,
    data::ImageShape,
    eval::{
        CopyDetector, CopyDetectorConfig, CopyMatch, NearestNeighbors, memorization,
        report::{Aspect, Better, Gallery, Measure, Picture, Sample},
    },
    rng::Rng,
};
use aigc_examples::Progress;

/// Sides of images that copies are searched in.
const SIDE: usize = 64;
/// Held-out images that calibrate the detector.
const CALIBRATION: usize = 2000;
/// Images of each set whose losses are computed.
const LOSSES: usize = 1000;
/// Samples that are shown.
const SHOWN: usize = 24;
/// Training images beneath each.
const NEIGHBOURS: usize = 3;

/// The images that are compared.
pub(crate) struct Images<'a> {
    pub(crate) samples: &'a ImageSet,
    pub(crate) train: &'a ImageSet,
    pub(crate) held_out: Option<&'a ImageSet>,
    pub(crate) device: &'a Device,
}

impl Images<'_> {
    /// The training image that each sample is nearest to, and whether it is a copy.
    pub(crate) fn copies(&self, book: &mut Book) -> Option<Vec<CopyMatch>> {
        let stop = book.stop().clone();
        let found = book.attempt("copies of training images", || self.detect(&stop))?;
        let (matches, rate) = found;
        let copies = matches.iter().filter(|found| found.is_copy).count();
        let measure = Measure::copies(copies, matches.len(), Some(rate));
        book.measures("copies of training images", || {
            let measure = measure?
                .with_reference(self.train.name.as_str(), self.train.len())
                .with_command("eval::CopyDetector")
                .with_note(format!(
                    "Real data: the false alarms that the threshold allows; it was set on {} \
                     held-out images.",
                    self.held_out.map_or(0, |set| set.len().min(CALIBRATION))
                ));
            Ok(vec![measure])
        });
        Some(matches)
    }

    fn detect(&self, stop: &CancelToken) -> Result<(Vec<CopyMatch>, f64)> {
        let held_out = self.held_out.ok_or_else(|| {
            Error::argument("--held-out", "missing", "images that set the threshold")
        })?;
        let rows: Vec<usize> = (0..held_out.len().min(CALIBRATION)).collect();
        let held_out = held_out.select(&rows).reduced(SIDE)?;
        let calibration = CopyDetectorConfig::default().calibration;
        let needed = calibration.num_needed();
        if held_out.len() < needed {
            return Err(Error::argument(
                "--held-out",
                format!("{} images", held_out.len()),
                format!(
                    "at least {needed}, for a threshold with at most {:.0} % false alarms",
                    100.0 * calibration.false_alarm_rate
                ),
            ));
        }
        let (train, samples) = (self.train.reduced(SIDE)?, self.samples.reduced(SIDE)?);
        let ImageShape { height, width, .. } = train.shape();
        let config = CopyDetectorConfig {
            // A shift of two pixels is a quarter of the smallest images.
            max_shift: if height.min(width) < 16 { 1 } else { 2 },
            ..CopyDetectorConfig::default()
        };
        let progress = Progress::new("copies", train.len() + samples.len(), stop);
        let read = train.batches().map(|batch| {
            let batch = batch?;
            progress.add(batch.len())?;
            Ok(batch)
        });
        let detector = CopyDetector::fit(read, held_out.batches(), config, self.device)?;
        let mut matches = Vec::with_capacity(samples.len());
        for batch in samples.batches() {
            let batch = batch?;
            matches.extend(detector.detect(&batch.to_tensor(self.device))?);
            progress.add(batch.len())?;
        }
        Ok((matches, config.calibration.false_alarm_rate))
    }

    /// Adds samples with the training images nearest to them; copies come first.
    pub(crate) fn gallery(
        &self,
        book: &mut Book,
        known: Option<&NearestNeighbors>,
        copies: Option<&[CopyMatch]>,
    ) {
        let order = order(self.samples.len(), copies);
        let shown = book.attempt("samples with their nearest training images", || {
            let mut shown = Vec::with_capacity(order.len());
            for row in &order {
                shown.push(self.sample(*row, known, copies)?);
            }
            Ok(shown)
        });
        let Some(shown) = shown else { return };
        let mut caption = match known {
            Some(_) if self.train.len() > KNOWN => format!(
                "Samples, and beneath each those of {KNOWN} training images, drawn at random, that \
                 are nearest to it in pixels, with their distances."
            ),
            Some(_) => "Samples, and beneath each the training images that are nearest to it in \
                        pixels, with their distances."
                .into(),
            None => "Samples.".to_string(),
        };
        if copies.is_some_and(|copies| copies.iter().any(|found| found.is_copy)) {
            caption.push_str(
                " Samples that are flagged as copies come first, with the training image that they \
                 copy and its distance after alignment, 0 to 2.",
            );
        }
        book.section("Samples and training images")
            .add(Gallery::new(caption, shown));
    }

    fn sample(
        &self,
        row: usize,
        known: Option<&NearestNeighbors>,
        copies: Option<&[CopyMatch]>,
    ) -> Result<Sample> {
        let class = |set: &ImageSet, row: usize| match set.images[row].label {
            Some(label) => match set.classes.get(label as usize) {
                Some(name) => format!("{} · {name}", set.names[row]),
                None => set.names[row].clone(),
            },
            None => set.names[row].clone(),
        };
        let mut sample = Sample::new(
            picture(self.samples, row, self.device)?,
            class(self.samples, row),
        );
        let copy = copies
            .map(|copies| copies[row])
            .filter(|found| found.is_copy);
        let mut near = Vec::new();
        if let Some(copy) = copy {
            near.push((copy.index, copy.distance, true));
        }
        if let Some(known) = known {
            let images = self.samples.tensor(&[row], self.device);
            let k = NEIGHBOURS.min(self.train.len());
            for (index, distance) in known.kneighbors(&images, k)?.into_iter().flatten() {
                if near.len() < NEIGHBOURS && near.iter().all(|(other, ..)| *other != index) {
                    near.push((index, distance, false));
                }
            }
        }
        for (index, distance, is_copy) in near {
            let picture = picture(self.train, index, self.device)?;
            sample = sample.with_neighbor(picture, class(self.train, index), distance, is_copy)?;
        }
        Ok(sample)
    }

    /// How far the losses of training images lie below those of held-out ones.
    pub(crate) fn memorization(
        &self,
        model: &ImageModel,
        seed: u64,
        stop: &CancelToken,
    ) -> Result<Vec<Measure>> {
        let held_out = self.held_out.ok_or_else(|| {
            Error::argument("--held-out", "missing", "images to compare the losses with")
        })?;
        let n = held_out.len().min(self.train.len()).min(LOSSES);
        // The images of a folder are in the order of their classes.
        let some = |set: &ImageSet, purpose: &str| {
            let mut rows = Rng::stream(seed, purpose, 0).permutation(set.len());
            rows.truncate(n);
            let images = set.select(&rows);
            losses(model, &images, &self.train.classes, self.device, stop)
        };
        let of_train = some(self.train, "losses of training images")?;
        let of_held_out = some(held_out, "losses of held-out images")?;
        let pairs = of_train.iter().zip(&of_held_out);
        let measures = pairs.map(|(train, other)| -> Result<Measure> {
            let found = memorization(&train.values, &other.values)?;
            let name = match train.part {
                Some(part) => format!("Memorisation by {part} (AUC)"),
                None => "Memorisation (AUC)".into(),
            };
            let target = Better::Target(0.5);
            let measure = Measure::new(Aspect::Originality, name, found.auc, target, n)
                .with_reference(held_out.name.as_str(), n)
                .with_explanation(
                    "How often a training image has a smaller loss than a held-out one.",
                )
                .with_command("eval::memorization")
                .with_note(format!(
                    "Loss: {}. Training {:.4}, held out {:.4}; gap {:.4} ({:.4} to {:.4}).",
                    train.name,
                    found.train.mean,
                    found.held_out.mean,
                    found.gap,
                    found.gap_interval.0,
                    found.gap_interval.1
                ));
            Ok(with(measure, checked(n, Ok(found.auc_interval))))
        });
        measures.collect()
    }
}

/// The samples to show: copies first, then the others in order.
fn order(samples: usize, copies: Option<&[CopyMatch]>) -> Vec<usize> {
    let is_copy = |row: &usize| copies.is_some_and(|copies| copies[*row].is_copy);
    let (first, others): (Vec<usize>, Vec<usize>) = (0..samples).partition(is_copy);
    // So that many copies do not hide what else there is.
    let most = SHOWN - others.len().min(SHOWN / 2);
    let first = first.into_iter().take(most);
    first.chain(others).take(SHOWN).collect()
}

fn picture(set: &ImageSet, row: usize, device: &Device) -> Result<Picture> {
    let mut pictures = Picture::from_tensor(&set.tensor(&[row], device))?;
    pictures
        .pop()
        .ok_or_else(|| Error::argument("images", 0, "at least 1 image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_shown_first() {
        let of = |is_copy| CopyMatch {
            index: 0,
            distance: 0.0,
            score: 0.0,
            is_copy,
            alignment: aigc_core::eval::Alignment::default(),
        };
        let copies: Vec<CopyMatch> = (0..60).map(|i| of(i % 2 == 1)).collect();
        let shown = order(60, Some(&copies));
        assert_eq!(shown.len(), SHOWN);
        assert_eq!(shown[..2], [1, 3]);
        assert_eq!(shown[SHOWN / 2], 0);
        assert_eq!(order(3, None), [0, 1, 2]);
    }
}

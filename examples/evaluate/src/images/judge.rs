//! All measures of a set of images.

use super::{
    classes::{ClassReader, Classified, KNOWN},
    compare::Compared,
    extract::Extractor,
    originality::Images,
    run::ImageModel,
    score::score,
    set::ImageSet,
};
use crate::{Options, Part, book::Book, interval::of_mean, originality::Originals};
use aigc_core::{
    CancelToken, Result,
    burn::tensor::Device,
    eval::{
        Features, NearestNeighbors, clip_score,
        report::{Aspect, Better, Measure},
    },
    rng::Rng,
};
use aigc_encoders::clip::ClipFeatures;

/// All that is compared.
pub(super) struct Judged {
    pub(super) samples: ImageSet,
    pub(super) train: ImageSet,
    pub(super) held_out: Option<ImageSet>,
    pub(super) model: Option<ImageModel>,
    pub(super) extractor: Option<Extractor>,
    pub(super) device: Device,
    pub(super) stop: CancelToken,
}

impl Judged {
    pub(super) fn report(&self, options: &Options, prompts: Option<&[String]>, book: &mut Book) {
        let shape = self.train.shape();
        let extractor = self.extractor.as_ref();
        // As many held-out images as samples, so that measures that depend on the number compare.
        let real = self.held_out.as_ref().map(|set| {
            let mut rows = Rng::stream(options.seed, "real data", 0).permutation(set.len());
            rows.truncate(self.samples.len());
            set.select(&rows)
        });
        let needed = [Part::Quality, Part::Diversity, Part::Originality]
            .into_iter()
            .any(|part| book.wants(part))
            || book.wants(Part::Relevance) && prompts.is_some();
        match extractor.filter(|_| needed) {
            None if !needed => {}
            Some(extractor) => self.in_features(extractor, real.as_ref(), options, prompts, book),
            None => book.warn(format!(
                "Images of {shape} are too large for their pixels to be features: distances and \
                 diversity were not measured. Give --features inception FILE, clip DIR or lenet \
                 FILE."
            )),
        }
        let relevance = book.wants(Part::Relevance) && prompts.is_some();
        if relevance && extractor.is_none_or(|e| e.clip().is_none()) {
            book.warn("The CLIP score was not measured: it needs --features clip DIR.");
        }
        let known = book.attempt("nearest training images", || {
            NearestNeighbors::from_batches(self.train.batches(), KNOWN, &self.device)
        });
        self.classes(extractor, known.as_ref(), real.as_ref(), book);
        self.originality(known.as_ref(), options, book);
    }

    /// Quality, diversity and originality in features.
    fn in_features(
        &self,
        extractor: &Extractor,
        real: Option<&ImageSet>,
        options: &Options,
        prompts: Option<&[String]>,
        book: &mut Book,
    ) {
        let features = book.attempt("features", || {
            let of = |set: &ImageSet| extractor.features(set, &self.stop);
            Ok((
                of(&self.samples)?,
                of(&self.train)?,
                real.map(of).transpose()?,
            ))
        });
        let Some((samples, train, held_out)) = features else {
            return;
        };
        let compared = Compared {
            samples: &samples,
            train: &train,
            held_out: held_out.as_ref(),
            label: extractor.label(),
            reference: &self.train.name,
            held_out_name: real.map_or("", |set| set.name.as_str()),
            seed: options.seed,
            stop: &self.stop,
        };
        if let Some(real) = real.filter(|_| compared.comparable().is_none()) {
            book.warn(format!(
                "There are {} held-out images for {} samples, too few for the values of real data \
                 of measures that depend on the number. Give --samples {} or --held-out DATA.",
                real.len(),
                samples.len(),
                real.len().max(2)
            ));
        }
        if book.wants(Part::Quality) {
            book.measures("Fréchet distance", || compared.frechet());
            book.measures("kernel distance", || compared.kernel_distance());
            if extractor.clip().is_some() {
                book.measures("CMMD", || compared.cmmd());
            }
        }
        if book.wants(Part::Quality) || book.wants(Part::Diversity) {
            let (quality, diversity) = (book.wants(Part::Quality), book.wants(Part::Diversity));
            let found = book.attempt("precision, recall, density and coverage", || {
                compared.neighbourhoods()
            });
            // The first two are of quality.
            for (i, measure) in found.into_iter().flatten().enumerate() {
                let wanted = if i < 2 { quality } else { diversity };
                if wanted {
                    book.measure(measure);
                }
            }
        }
        if book.wants(Part::Quality)
            && let Some(logits) = extractor.logits(&self.samples, &self.stop)
        {
            book.measures("Inception Score", || {
                let held_out = real.and_then(|set| extractor.logits(set, &self.stop));
                let held_out = held_out.transpose()?;
                let held_out = held_out.as_ref().map(|x| (x, compared.held_out_name));
                score(&logits?, held_out, extractor.label(), options.seed)
            });
        }
        if book.wants(Part::Diversity) {
            book.measures("mean pairwise distance", || compared.diversity());
            book.measures("Vendi score", || compared.vendi());
        }
        if book.wants(Part::Relevance)
            && let (Some(clip), Some(prompts)) = (extractor.clip(), prompts)
        {
            book.measures("CLIP score", || self.clip_score(clip, &samples, prompts));
        }
        if book.wants(Part::Originality) {
            let originals = Originals {
                samples: &samples,
                train: (&train, compared.reference),
                held_out: compared.held_out.map(|x| (x, compared.held_out_name)),
                label: compared.label,
                seed: compared.seed,
            };
            originals.report(book);
        }
    }

    fn clip_score(
        &self,
        clip: &ClipFeatures,
        images: &Features,
        prompts: &[String],
    ) -> Result<Vec<Measure>> {
        let texts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let found = clip_score(images, &clip.text_features(&texts)?)?;
        let n = prompts.len();
        let measure = Measure::new(
            Aspect::Relevance,
            "CLIP score",
            found.mean,
            Better::Higher,
            n,
        )
        .with_explanation("Agreement of images with their prompts: 100 × the cosine.")
        .with_command("eval::clip_score")
        .with_reference("prompts", n)
        .with_note("No value of real data: it has no prompts.");
        Ok(vec![match found.standard_error {
            Some(error) => of_mean(measure, n, (found.mean, error)),
            None => measure.with_note("No interval: there is one image."),
        }])
    }

    fn classes(
        &self,
        extractor: Option<&Extractor>,
        known: Option<&NearestNeighbors>,
        real: Option<&ImageSet>,
        book: &mut Book,
    ) {
        if !book.wants(Part::Diversity) && !book.wants(Part::Relevance) {
            return;
        }
        let classes = self.train.classes.len();
        let lenet = extractor.and_then(Extractor::lenet);
        let reader = match (lenet, known) {
            // Its ten classes are digits.
            (Some(net), _) if classes == 10 => ClassReader::LeNet(net),
            (_, Some(known)) if known.num_classes().is_some() => ClassReader::Nearest(known),
            _ => {
                book.warn(
                    "The data have no classes: histogram and entropy of classes were not measured.",
                );
                return;
            }
        };
        let classified = Classified {
            reader,
            samples: &self.samples,
            train: &self.train,
            held_out: real,
            device: &self.device,
        };
        classified.report(book);
    }

    fn originality(&self, known: Option<&NearestNeighbors>, options: &Options, book: &mut Book) {
        let images = Images {
            samples: &self.samples,
            train: &self.train,
            held_out: self.held_out.as_ref(),
            device: &self.device,
        };
        let wanted = book.wants(Part::Originality);
        let copies = if wanted { images.copies(book) } else { None };
        if let Some(model) = self.model.as_ref().filter(|_| wanted) {
            let (seed, stop) = (options.seed, &self.stop);
            book.measures("memorisation", || images.memorization(model, seed, stop));
        }
        images.gallery(book, known, copies.as_deref());
    }
}

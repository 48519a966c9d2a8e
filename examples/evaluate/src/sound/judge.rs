//! All measures of a set of sounds.

use super::{Sounds, statistics, wav::Clip};
use crate::{Part, book::Book, provenance};
use aigc_core::{
    Error, Result,
    eval::{
        CalibrationConfig, FeatureCopyDetector, Features, authenticity, bootstrap, closest_records,
        frechet_distance, frechet_interval, mean_pairwise_distance,
        report::{Aspect, Better, Measure, SoundSample, Table},
    },
    rng::Rng,
};
use std::path::PathBuf;

/// Sounds that can be played on the page.
const SHOWN: usize = 8;
/// Seconds of each.
const SHOWN_SECONDS: usize = 10;
/// Seconds of a frame, and the root mean square below which it is silent (−60 dB).
const FRAME: f64 = 0.02;
const SILENCE: f64 = 1e-3;
/// Sounds in the table.
const LISTED: usize = 200;
/// Sounds from which on means have intervals.
const LEAST: usize = 5;
/// The neighbour that distances to training sounds are relative to.
const NEIGHBOUR: usize = 10;

/// The share of frames that are silent.
fn silence(clip: &Clip) -> f64 {
    let frame = ((FRAME * f64::from(clip.rate)) as usize).max(1);
    let is_silent = |frame: &[f32]| {
        let power: f64 = frame.iter().map(|x| f64::from(*x).powi(2)).sum();
        (power / frame.len() as f64).sqrt() < SILENCE
    };
    let silent = clip
        .samples
        .chunks(frame)
        .filter(|frame| is_silent(frame))
        .count();
    silent as f64 / clip.samples.chunks(frame).len() as f64
}

pub(super) struct Judged {
    pub(super) samples: Sounds,
    pub(super) train: Sounds,
    pub(super) held_out: Option<Sounds>,
    pub(super) seed: u64,
}

impl Judged {
    pub(super) fn report(&self, book: &mut Book) -> Result<()> {
        if book.wants(Part::Quality) {
            book.measures("Fréchet distance", || self.frechet());
            book.measures("silence and duration", || self.plain());
        }
        if book.wants(Part::Diversity) {
            book.measures("mean pairwise distance", || self.diversity());
        }
        if book.wants(Part::Relevance) {
            book.warn("Relevance was not measured: sounds have no prompts or classes here.");
        }
        if book.wants(Part::Originality) {
            self.originality(book);
        }
        self.list(book)?;
        if book.wants(Part::Provenance) {
            let names = self.samples.names.iter().cloned();
            let files: Vec<(String, PathBuf)> =
                names.zip(self.samples.files.iter().cloned()).collect();
            provenance::verify(book, &files);
        }
        Ok(())
    }

    fn measure(
        &self,
        aspect: Aspect,
        name: &str,
        (value, floor): (f64, Option<f64>),
        better: Better,
    ) -> Measure {
        let measure = Measure::new(aspect, name, value, better, self.samples.clips.len())
            .with_reference(self.train.name.as_str(), self.train.clips.len());
        match floor {
            Some(floor) => measure.with_floor(floor),
            None => measure,
        }
    }

    /// Held-out sounds in the place of the samples: as many, drawn at random, or at least half as
    /// many, as a Fréchet distance falls with the number.
    fn real(&self) -> Option<Features> {
        let (set, n) = (self.held_out.as_ref()?, self.samples.clips.len());
        let m = set.clips.len();
        if m < n.div_ceil(2).max(2) {
            return None;
        }
        let mut rows = Rng::stream(self.seed, "real data", 0).permutation(m);
        rows.truncate(n);
        Some(set.features.select(&rows))
    }

    /// The Fréchet distance of log-mel spectra.
    fn frechet(&self) -> Result<Vec<Measure>> {
        let train = statistics(&self.train.features)?;
        let samples = statistics(&self.samples.features)?;
        let value = frechet_distance(&train, &samples)?;
        let real = self.real();
        let floor = real.as_ref();
        let floor = floor.map(|real| frechet_distance(&train, &statistics(real)?));
        let mut rng = Rng::stream(self.seed, "Fréchet interval", 0);
        let features = &self.samples.features;
        let (low, high) = frechet_interval(&train.moments()?, features, 40, 0.95, &mut rng)?;
        let name = "Fréchet distance (log-mel)";
        let measure = self
            .measure(
                Aspect::Quality,
                name,
                (value, floor.transpose()?),
                Better::Lower,
            )
            .with_interval(low, high)
            .with_explanation("How far means and deviations of mel spectra are from real sounds.")
            .with_command("eval::audio::LogMel, eval::frechet_distance")
            .with_note("No Fréchet audio distance, which is defined on a network's features.");
        let measure = match &real {
            Some(real) => measure.with_note(format!("Real data: {} held-out sounds.", real.len())),
            None => measure.with_note(
                "There are fewer than half as many held-out sounds as samples: the value of real \
                 data is missing.",
            ),
        };
        Ok(vec![match samples.warning().or(train.warning()) {
            Some(few) => measure.with_warning(format!("{name}: {few}")),
            None => measure,
        }])
    }

    /// Silence and duration, which are as in the data at best.
    fn plain(&self) -> Result<Vec<Measure>> {
        let measure = |name: &str, of: fn(&Clip) -> f64| -> Result<Measure> {
            let values: Vec<f64> = self.samples.clips.iter().map(of).collect();
            let real: Vec<f64> = self.train.clips.iter().map(of).collect();
            let n = values.len();
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            let target = Better::Target(mean(&real));
            let measure = self.measure(Aspect::Quality, name, (mean(&values), None), target);
            let mut rng = Rng::stream(self.seed, name, 0);
            let (low, high) = bootstrap(n, 1000, 0.95, &mut rng, |items| {
                Ok(items.iter().map(|i| values[*i]).sum::<f64>() / n as f64)
            })?;
            // Equal values have no spread, and few ones too little.
            Ok(match n >= LEAST && low < high {
                true => measure.with_interval(low, high),
                false => measure,
            })
        };
        let silent = measure("Silence", silence)?;
        let duration = measure("Mean duration", Clip::seconds)?;
        Ok(vec![
            silent.with_explanation("The share of frames below −60 dB; that of the data is ideal."),
            duration.with_explanation("In seconds; that of the data is ideal."),
        ])
    }

    fn diversity(&self) -> Result<Vec<Measure>> {
        let value = mean_pairwise_distance(&self.samples.features)?;
        let real = mean_pairwise_distance(&self.train.features)?;
        let half = 1.96 * value.standard_error;
        let name = "Mean pairwise distance (log-mel)";
        let measure = self
            .measure(
                Aspect::Diversity,
                name,
                (value.mean, None),
                Better::Target(real.mean),
            )
            .with_interval(value.mean - half, value.mean + half)
            .with_explanation("The mean distance of two samples; that of training sounds is ideal.")
            .with_command("eval::mean_pairwise_distance");
        Ok(vec![measure])
    }

    fn originality(&self, book: &mut Book) {
        let (samples, train) = (&self.samples.features, &self.train.features);
        let held_out = self.held_out.as_ref().map(|set| &set.features);
        book.measures("copies of training sounds", || {
            let held_out = held_out.ok_or_else(|| {
                Error::argument("--held-out", "missing", "sounds that set the threshold")
            })?;
            let config = CalibrationConfig::default();
            let rate = config.false_alarm_rate;
            let needed = config.num_needed();
            if held_out.len() < needed {
                return Err(Error::argument(
                    "--held-out",
                    format!("{} sounds", held_out.len()),
                    format!(
                        "at least {needed}, for a threshold with at most {:.0} % false alarms",
                        100.0 * rate
                    ),
                ));
            }
            let detector = FeatureCopyDetector::fit(train.clone(), held_out, NEIGHBOUR, config)?;
            let found = detector.detect(samples)?;
            let copies = found.iter().filter(|found| found.is_copy).count();
            let measure = Measure::copies(copies, found.len(), Some(rate))?
                .with_reference(self.train.name.as_str(), train.len())
                .with_command("eval::FeatureCopyDetector");
            Ok(vec![measure])
        });
        if let Some(held_out) = held_out {
            book.measures("closest records", || {
                let mut rng = Rng::stream(self.seed, "closest records", 0);
                let found = closest_records(samples, train, held_out, &mut rng)?;
                let of = (found.share(), None);
                let name = "Nearer to training data (log-mel)";
                let measure = self.measure(Aspect::Originality, name, of, Better::Target(0.5));
                let (low, high) = found.nearer_train.interval();
                let tied = 0.5 * found.equal as f64 / samples.len() as f64;
                Ok(vec![
                    measure
                        .with_reference("held-out sounds", found.records)
                        .with_interval((low + tied).min(1.0), (high + tied).min(1.0))
                        .with_explanation("The share nearer to training than to held-out sounds.")
                        .with_command("eval::closest_records"),
                ])
            });
        }
        book.measures("authenticity", || {
            let found = authenticity(samples, train)?;
            let floor = held_out.map(|set| authenticity(set, train)).transpose()?;
            let of = (found.value(), floor.map(|floor| floor.value()));
            let (low, high) = found.interval();
            let measure = self.measure(
                Aspect::Originality,
                "Authenticity (log-mel)",
                of,
                Better::Higher,
            );
            Ok(vec![
                measure
                    .with_interval(low, high)
                    .with_explanation("The share of samples that are no noisy copies.")
                    .with_command("eval::authenticity"),
            ])
        });
    }

    /// Adds the first sounds, and the durations of all.
    fn list(&self, book: &mut Book) -> Result<()> {
        let silent: Vec<f64> = self.samples.clips.iter().map(silence).collect();
        let mut order: Vec<usize> = (0..silent.len()).collect();
        order.sort_by(|a, b| silent[*b].total_cmp(&silent[*a]));
        let title = match silent.len() > LISTED {
            true => format!("The {LISTED} sounds with the most silence"),
            false => "Sounds".to_string(),
        };
        let mut table = Table::new(title, ["file", "seconds", "silent frames"]);
        for row in order.into_iter().take(LISTED) {
            let (clip, name) = (&self.samples.clips[row], &self.samples.names[row]);
            let share = format!("{:.1}%", 100.0 * silent[row]);
            table.push([name.clone(), format!("{:.2}", clip.seconds()), share])?;
        }
        let section = book.section("Sounds");
        for (clip, name) in self
            .samples
            .clips
            .iter()
            .zip(&self.samples.names)
            .take(SHOWN)
        {
            let most = SHOWN_SECONDS * clip.rate as usize;
            let samples = &clip.samples[..clip.samples.len().min(most)];
            section.add(SoundSample::new(name.as_str(), samples, clip.rate)?);
        }
        section.add(table);
        Ok(())
    }
}

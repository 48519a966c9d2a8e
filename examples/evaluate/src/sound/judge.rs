//! All measures of a set of sounds.

use super::{Sound, Sounds, statistics};
use crate::{
    Part,
    book::Book,
    diversity::pairwise_distance,
    interval::{CONFIDENCE, checked, of_mean, unless_stopped, with},
    originality::Originals,
    provenance,
};
use aigc_core::{
    CancelToken, Error, Result,
    audio::read_audio,
    eval::{
        CalibrationConfig, FeatureCopyDetector, Features, bootstrap, frechet_distance,
        frechet_interval,
        report::{Aspect, Better, Measure, SoundSample, Table},
    },
    rng::Rng,
};
use aigc_examples::Progress;
use std::path::PathBuf;

/// Sounds that can be played on the page.
const SHOWN: usize = 8;
/// Seconds of each.
const SHOWN_SECONDS: usize = 10;
/// Sounds in the table.
const LISTED: usize = 200;
/// Rounds of the interval of the Fréchet distance.
const ROUNDS: usize = 40;
/// The neighbour that distances to training sounds are relative to.
const NEIGHBOUR: usize = 10;

pub(super) struct Judged {
    pub(super) samples: Sounds,
    pub(super) train: Sounds,
    pub(super) held_out: Option<Sounds>,
    pub(super) seed: u64,
}

impl Judged {
    pub(super) fn report(&self, book: &mut Book) -> Result<()> {
        if book.wants(Part::Quality) {
            let stop = book.stop().clone();
            book.measures("Fréchet distance", || self.frechet(&stop));
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
        let measure = Measure::new(aspect, name, value, better, self.samples.sounds.len())
            .with_reference(self.train.name.as_str(), self.train.sounds.len());
        match floor {
            Some(floor) => measure.with_floor(floor),
            None => measure,
        }
    }

    /// Held-out sounds in the place of the samples: as many, drawn at random, or at least half as
    /// many, as a Fréchet distance falls with the number.
    fn real(&self) -> Option<Features> {
        let (set, n) = (self.held_out.as_ref()?, self.samples.sounds.len());
        let m = set.sounds.len();
        if m < n.div_ceil(2).max(2) {
            return None;
        }
        let mut rows = Rng::stream(self.seed, "real data", 0).permutation(m);
        rows.truncate(n);
        Some(set.features.select(&rows))
    }

    /// The Fréchet distance of log-mel spectra.
    fn frechet(&self, stop: &CancelToken) -> Result<Vec<Measure>> {
        let train = statistics(&self.train.features)?;
        let samples = statistics(&self.samples.features)?;
        let value = frechet_distance(&train, &samples)?;
        let real = self.real();
        let floor = real.as_ref();
        let floor = floor.map(|real| frechet_distance(&train, &statistics(real)?));
        let mut rng = Rng::stream(self.seed, "Fréchet interval", 0);
        let features = &self.samples.features;
        let progress = Progress::new("rounds of the Fréchet distance", ROUNDS, stop);
        let found = frechet_interval(
            &train.moments()?,
            features,
            ROUNDS,
            CONFIDENCE,
            &mut rng,
            |round| progress.add(round.min(1)),
        );
        let name = "Fréchet distance (log-mel)";
        let of = (value, floor.transpose()?);
        let measure = self.measure(Aspect::Quality, name, of, Better::Lower);
        let measure = unless_stopped(measure, found)?
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
            Some(few) => measure.with_warning(few),
            None => measure,
        }])
    }

    /// Silence and duration, which are as in the data at best.
    fn plain(&self) -> Result<Vec<Measure>> {
        let measure = |name: &str, of: fn(&Sound) -> f64| -> Result<Measure> {
            let values: Vec<f64> = self.samples.sounds.iter().map(of).collect();
            let real: Vec<f64> = self.train.sounds.iter().map(of).collect();
            let n = values.len();
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            let target = Better::Target(mean(&real));
            let measure = self.measure(Aspect::Quality, name, (mean(&values), None), target);
            let mut rng = Rng::stream(self.seed, name, 0);
            let found = bootstrap(n, 1000, CONFIDENCE, &mut rng, |items| {
                Ok(items.iter().map(|i| values[*i]).sum::<f64>() / n as f64)
            });
            Ok(with(measure, checked(n, found)).with_command("eval::bootstrap"))
        };
        let silent = measure("Silence", |sound| sound.silence)?;
        let duration = measure("Mean duration", |sound| sound.seconds)?;
        Ok(vec![
            silent.with_explanation("The share of frames below −60 dB; that of the data is ideal."),
            duration.with_explanation("In seconds; that of the data is ideal."),
        ])
    }

    fn diversity(&self) -> Result<Vec<Measure>> {
        let value = pairwise_distance(&self.samples.features, self.seed)?;
        let real = pairwise_distance(&self.train.features, self.seed)?;
        let name = "Mean pairwise distance (log-mel)";
        let measure = self
            .measure(
                Aspect::Diversity,
                name,
                (value.mean, None),
                Better::Target(real.mean),
            )
            .with_explanation("The mean distance of two samples; that of training sounds is ideal.")
            .with_command("eval::mean_pairwise_distance");
        let mean = (value.mean, value.standard_error);
        Ok(vec![of_mean(measure, self.samples.sounds.len(), mean)])
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
        let originals = Originals {
            samples,
            train: (train, self.train.name.as_str()),
            held_out: self
                .held_out
                .as_ref()
                .map(|set| (&set.features, set.name.as_str())),
            label: "log-mel",
            seed: self.seed,
        };
        originals.report(book);
    }

    /// Adds the first sounds, and the durations of all.
    fn list(&self, book: &mut Book) -> Result<()> {
        let sounds = &self.samples.sounds;
        let mut order: Vec<usize> = (0..sounds.len()).collect();
        order.sort_by(|a, b| sounds[*b].silence.total_cmp(&sounds[*a].silence));
        let title = match sounds.len() > LISTED {
            true => format!("The {LISTED} sounds with the most silence"),
            false => "Sounds".to_string(),
        };
        let mut table = Table::new(title, ["file", "seconds", "silent frames"]);
        for row in order.into_iter().take(LISTED) {
            let (sound, name) = (sounds[row], &self.samples.names[row]);
            let share = format!("{:.1}%", 100.0 * sound.silence);
            table.push([name.clone(), format!("{:.2}", sound.seconds), share])?;
        }
        let shown = book.attempt("sounds to play", || {
            let files = self.samples.files.iter().zip(&self.samples.names);
            let shown = files.take(SHOWN).map(|(file, name)| {
                let wave = read_audio(file)?.to_mono();
                let most = SHOWN_SECONDS * wave.sample_rate() as usize;
                let samples = &wave.channel(0)[..wave.len().min(most)];
                SoundSample::new(name.as_str(), samples, wave.sample_rate())
            });
            shown.collect::<Result<Vec<_>>>()
        });
        let section = book.section("Sounds");
        for sound in shown.into_iter().flatten() {
            section.add(sound);
        }
        section.add(table);
        Ok(())
    }
}

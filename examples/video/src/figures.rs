//! Figures of clips, beside those of the data.

use crate::{
    ClipReader,
    reading::{ClipDistances, FLOOR},
};
use aigc_core::{
    Result,
    burn::tensor::Tensor,
    eval::{
        Proportion,
        video::{ClipMotion, clip_motions, compensated_flicker, flicker},
    },
};
use aigc_examples::outln;
use serde_json::{Value, json};

/// A speed between bounces that is constant within this, in pixels per frame.
pub(crate) const STEADY: f64 = 0.3;
/// Pixels that squares are searched in, for flicker without motion.
const SEARCH: usize = 2;

/// Figures of some clips.
#[derive(Clone, Debug)]
pub struct ClipFigures {
    /// Number of clips.
    pub clips: usize,
    /// Frames of each.
    pub frames: usize,
    /// The share of frames that are read as the class asked for; `None` without classes.
    pub right: Option<Proportion>,
    /// The share of clips all of whose frames are read as one class.
    pub constant: Option<Proportion>,
    /// Mean absolute difference of neighbouring frames.
    pub flicker: f64,
    /// The same between squares that were moved by up to two pixels.
    pub compensated_flicker: f64,
    /// The share of clips that show something in every frame.
    pub seen: Proportion,
    /// Mean speed between bounces of what is seen, in pixels per frame.
    pub speed: f64,
    /// Mean over clips of the deviation of the speed between bounces, in pixels per frame; of a
    /// clip with a bounce in every second frame or more, the deviation of all of its steps.
    pub deviation: f64,
    /// The share of clips whose speed deviates by at most 0.3 pixels per frame, and in which
    /// something is seen.
    pub steady: Proportion,
    /// Mean number of bounces.
    pub bounces: f64,
}

impl ClipFigures {
    /// Figures of clips, and of the classes that they should show.
    ///
    /// # Shapes
    /// - clips: `[batch, channels, frames, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) if there are no clips or fewer
    /// than four frames, or a value is not finite.
    pub fn new(
        clips: &Tensor<5>,
        asked: Option<&[u32]>,
        reader: Option<&ClipReader>,
    ) -> Result<Self> {
        let [count, _, frames, ..] = clips.dims();
        let motions = clip_motions(clips, FLOOR)?;
        let seen: Vec<_> = motions.into_iter().flatten().collect();
        let of_seen = |value: &dyn Fn(usize) -> f64| mean((0..seen.len()).map(value));
        let steady = seen.iter().filter(|motion| deviation(motion) <= STEADY);
        let readings = reader.map(|reader| reader.read(clips)).transpose()?;
        let right = match (&readings, asked) {
            (Some(readings), Some(asked)) => Some(readings.right(asked)?),
            _ => None,
        };
        Ok(Self {
            clips: count,
            frames,
            right,
            constant: readings.map(|readings| readings.constant()),
            flicker: mean(flicker(clips)?.into_iter()),
            compensated_flicker: mean(compensated_flicker(clips, SEARCH)?.into_iter()),
            seen: Proportion::new(seen.len(), count)?,
            speed: of_seen(&|clip| seen[clip].speed),
            deviation: of_seen(&|clip| deviation(&seen[clip])),
            steady: Proportion::new(steady.count(), count)?,
            bounces: of_seen(&|clip| seen[clip].bounces as f64),
        })
    }

    /// The figures as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "clips": self.clips,
            "frames": self.frames,
            "right": self.right.map(share),
            "constant": self.constant.map(share),
            "flicker": self.flicker,
            "compensated_flicker": self.compensated_flicker,
            "seen": share(self.seen),
            "speed": self.speed,
            "deviation": self.deviation,
            "steady": share(self.steady),
            "bounces": self.bounces,
        })
    }
}

/// The deviation of the speed between bounces. An object that trembles bounces at nearly every
/// step, and [`ClipMotion`] has too few steps left to say anything; for it, the root of the mean
/// squared deviation of all steps along each axis from their mean counts.
fn deviation(motion: &ClipMotion) -> f64 {
    let count = motion.centres.len();
    if 2 * motion.bounces < count {
        return motion.deviation;
    }
    let squares = |axis: usize| {
        let pairs = motion.centres.windows(2);
        let steps: Vec<f64> = pairs.map(|pair| pair[1][axis] - pair[0][axis]).collect();
        let typical = mean(steps.iter().copied());
        let squares = steps.iter().map(|step| (step - typical).powi(2));
        squares.sum::<f64>()
    };
    ((squares(0) + squares(1)) / (2 * (count - 1)) as f64).sqrt()
}

/// The mean; not a number of nothing, which reaches no goal.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn share(share: Proportion) -> Value {
    let (low, high) = share.interval();
    json!({
        "count": share.count(),
        "total": share.total(),
        "share": share.value(),
        "interval": [low, high],
    })
}

/// Figures of samples beside those of held-out clips.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Of samples.
    pub samples: ClipFigures,
    /// Of held-out clips.
    pub data: ClipFigures,
    /// Fréchet distances of samples to held-out clips, of frames and of differences, and those of
    /// other held-out clips; `None` without a LeNet-5.
    pub distances: Option<[[f64; 2]; 2]>,
}

impl Compared {
    /// Compares samples of classes with as many held-out clips, and those with others.
    ///
    /// # Shapes
    /// - all clips: `[batch, channels, frames, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// As [`ClipFigures::new`].
    pub fn new(
        samples: (&Tensor<5>, Option<&[u32]>),
        data: (&Tensor<5>, Option<&[u32]>),
        other: &Tensor<5>,
        reader: Option<&ClipReader>,
    ) -> Result<Self> {
        let distances = match reader.and_then(ClipReader::lenet) {
            None => None,
            Some(lenet) => {
                let of = |clips| ClipDistances::new(lenet, clips);
                let real = of(data.0)?;
                Some([of(samples.0)?.to(&real)?, of(other)?.to(&real)?])
            }
        };
        Ok(Self {
            samples: ClipFigures::new(samples.0, samples.1, reader)?,
            data: ClipFigures::new(data.0, data.1, reader)?,
            distances,
        })
    }

    /// The ratio of the flicker of samples to that of the data.
    pub fn flicker_ratio(&self) -> f64 {
        self.samples.flicker / self.data.flicker
    }

    /// Prints a table: what, of samples, of held-out clips.
    pub fn print(&self, title: &str, reader: Option<&ClipReader>) {
        let line = |what: &str, ours: String, theirs: String| {
            outln!("  {what:<50} {ours:>22}  {theirs:>22}");
        };
        let (ours, theirs) = (&self.samples, &self.data);
        let count = |figures: &ClipFigures| format!("{} clips", figures.clips);
        outln!("{title}");
        line("", count(ours), format!("{} held out", theirs.clips));
        let shares = |what: &str, a: Option<Proportion>, b: Option<Proportion>| {
            if let (Some(a), Some(b)) = (a, b) {
                line(what, a.to_string(), b.to_string());
            }
        };
        shares(
            "frames read as the class asked for",
            ours.right,
            theirs.right,
        );
        let constant = "clips read as one class in all frames";
        shares(constant, ours.constant, theirs.constant);
        let numbers = |what: &str, a: f64, b: f64| {
            line(what, format!("{a:.4}"), format!("{b:.4}"));
        };
        numbers("flicker", ours.flicker, theirs.flicker);
        numbers(
            "flicker without motion",
            ours.compensated_flicker,
            theirs.compensated_flicker,
        );
        shares(
            "clips with something in every frame",
            Some(ours.seen),
            Some(theirs.seen),
        );
        numbers("speed, pixels per frame", ours.speed, theirs.speed);
        numbers(
            "deviation of the speed between bounces",
            ours.deviation,
            theirs.deviation,
        );
        let steady = "clips with a speed constant within 0.3 pixels";
        shares(steady, Some(ours.steady), Some(theirs.steady));
        numbers("bounces per clip", ours.bounces, theirs.bounces);
        if let Some([ours, theirs]) = self.distances {
            numbers("Fréchet distance of frames (LeNet-5)", ours[0], theirs[0]);
            let what = "Fréchet distance of differences (LeNet-5)";
            numbers(what, ours[1], theirs[1]);
        }
        if let Some(reader) = reader {
            outln!(
                "  classes are read by {}, in squares around what moves",
                reader.name()
            );
        }
        outln!(
            "  flicker is {:.2} times that of the data",
            self.flicker_ratio()
        );
    }

    /// The figures as JSON.
    pub fn to_json(&self) -> Value {
        let distances = self.distances.map(|[ours, theirs]| {
            let of = |[frames, differences]: [f64; 2]| {
                json!({ "frames": frames, "differences": differences })
            };
            json!({ "samples": of(ours), "data": of(theirs) })
        });
        json!({
            "samples": self.samples.to_json(),
            "data": self.data.to_json(),
            "flicker_ratio": self.flicker_ratio(),
            "frechet_lenet5": distances,
        })
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{Clips, ClipsConfig, Place};
    use aigc_core::{data::SampleBatch, device::device};
    use aigc_examples::ImagesConfig;

    /// A dot that jumps to and fro has no steps between bounces, and is not steady.
    #[test]
    fn trembling_is_not_steady() {
        let flex = device("flex").unwrap();
        let dot = |column: usize| {
            let [before, after] =
                [column, 15 - column].map(|width| Tensor::<5>::zeros([1, 1, 1, 16, width], &flex));
            let dot = Tensor::<5>::ones([1, 1, 1, 16, 1], &flex);
            Tensor::cat(vec![before, dot, after], 4)
        };
        let clip = |columns: [usize; 8]| {
            let clip = Tensor::cat(columns.map(dot).to_vec(), 2);
            ClipFigures::new(&clip, None, None).unwrap()
        };
        let trembles = clip([6, 9, 6, 9, 6, 9, 6, 9]);
        assert_eq!((trembles.bounces, trembles.steady.count()), (6.0, 0));
        // Steps of ±3 in columns, four of seven to the right, and none in rows.
        let expected = (0.5 * (9.0 - (3.0f64 / 7.0).powi(2))).sqrt();
        assert!((trembles.deviation - expected).abs() < 1e-6, "{trembles:?}");
        let moves = clip([3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!((moves.bounces, moves.steady.count()), (0.0, 1));
        assert!(moves.deviation < 1e-6, "{moves:?}");
    }

    /// Held-out clips meet the goals beside others.
    #[test]
    fn real_clips_meet_the_goals() {
        let flex = device("flex").unwrap();
        let place = Place {
            frames: Some(12),
            ..Place::default()
        };
        let config = ClipsConfig::new(&ImagesConfig::default(), place, 4, 0).unwrap();
        let clips = Clips::open(&config, &flex).unwrap();
        let reader = ClipReader::new(None, &clips, &flex).unwrap();
        let (a, b) = (
            clips.held_out(20, 0).unwrap(),
            clips.held_out(20, 1).unwrap(),
        );
        let (first, second) = (a.to_tensor(&flex), b.to_tensor(&flex));
        let compared = Compared::new(
            (&first, a.labels()),
            (&second, b.labels()),
            &second,
            reader.as_ref(),
        )
        .unwrap();
        let figures = &compared.samples;
        assert!(figures.right.unwrap().value() > 0.9, "{figures:?}");
        assert!(figures.constant.unwrap().value() > 0.6, "{figures:?}");
        assert!(
            figures.deviation < 0.3 && figures.speed > 0.3,
            "{figures:?}"
        );
        assert!((0.5..1.5).contains(&compared.flicker_ratio()));
        assert!(compared.distances.is_none());
        let goals = compared.print_goals();
        assert_eq!(goals.as_array().unwrap().len(), 4);
        assert!(compared.to_json()["samples"]["seen"]["share"].is_f64());
    }
}

//! Kernel distances between features of samples and of real images.

use super::compare::Compared;
use crate::interval::{CONFIDENCE, checked, with};
use aigc_core::{
    Result,
    eval::{
        Features, MmdEstimator, MmdKernel, cmmd, cmmd_interval, maximum_mean_discrepancy,
        mmd_interval,
        report::{Aspect, Better, Measure},
    },
    rng::Rng,
};

/// Samples and real images of the interval of a kernel distance: the fewest that it needs, and the
/// most whose kernel is multiplied in each round.
const KERNEL: [usize; 2] = [20, 2000];

impl Compared<'_> {
    /// The kernel distance of all samples.
    pub(crate) fn kernel_distance(&self) -> Result<Vec<Measure>> {
        let real = self.some_real();
        let distance = |real: &Features, x: &Features| {
            maximum_mean_discrepancy(real, x, MmdKernel::KID, MmdEstimator::Unbiased)
        };
        let of = self.both(|x| distance(&real, x))?;
        let name = match self.label {
            "InceptionV3" => "KID".to_string(),
            label => format!("Kernel distance ({label})"),
        };
        let measure = self
            .measure(Aspect::Quality, &name, of, Better::Lower)
            .with_reference(self.reference, real.len())
            .with_explanation(
                "The squared discrepancy of a cubic kernel; unbiased, so near or below 0 for equal \
                 distributions.",
            )
            .with_command("eval::maximum_mean_discrepancy, eval::mmd_interval")
            .with_note("Of all samples; published KID is a mean over subsets of 1,000.");
        let measure = self.with_kernel_interval(measure, &real, distance, |a, b, rng| {
            mmd_interval(a, b, MmdKernel::KID, 200, CONFIDENCE, rng)
        })?;
        Ok(vec![measure])
    }

    /// The distance of CLIP features by Jayasumana et al. 2024.
    pub(crate) fn cmmd(&self) -> Result<Vec<Measure>> {
        let real = self.some_real();
        let of = self.both(|x| cmmd(&real, x))?;
        let measure = self
            .measure(Aspect::Quality, "CMMD", of, Better::Lower)
            .with_reference(self.reference, real.len())
            .with_explanation("The discrepancy of CLIP features under a wide Gaussian kernel.")
            .with_command("eval::cmmd, eval::cmmd_interval")
            .with_note("Published values have the features of CLIP ViT-L/14 at 336 pixels.");
        let measure = self.with_kernel_interval(measure, &real, cmmd, |a, b, rng| {
            cmmd_interval(a, b, 200, CONFIDENCE, rng)
        })?;
        Ok(vec![measure])
    }

    /// A measure with the interval of a kernel distance. Of larger sets, some samples are drawn for
    /// it, and their interval is laid around the value of all.
    fn with_kernel_interval(
        &self,
        measure: Measure,
        real: &Features,
        distance: impl Fn(&Features, &Features) -> Result<f64>,
        interval: impl Fn(&Features, &Features, &mut Rng) -> Result<(f64, f64)>,
    ) -> Result<Measure> {
        let [least, most] = KERNEL;
        let few = self.samples.len().min(real.len());
        if few < least {
            let note =
                format!("No interval: there are {few} samples or real images, below {least}.");
            return Ok(measure.with_note(note));
        }
        let mut rng = self.rng("kernel interval");
        let mut some = |x: &Features| {
            let mut rows = rng.permutation(x.len());
            rows.truncate(most);
            x.select(&rows)
        };
        let (some_real, samples) = (some(real), some(self.samples));
        let (low, high) = interval(&some_real, &samples, &mut rng)?;
        if some_real.len() == real.len() && samples.len() == self.samples.len() {
            return Ok(with(measure, checked(few, Ok((low, high)))));
        }
        let shift = distance(real, self.samples)? - distance(&some_real, &samples)?;
        let note = format!(
            "The interval is of {} real images and {} samples, and wider than for all.",
            some_real.len(),
            samples.len()
        );
        let interval = checked(few, Ok((low + shift, high + shift)));
        Ok(with(measure.with_note(note), interval))
    }
}

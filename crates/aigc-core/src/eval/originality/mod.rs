//! Originality: whether samples are new, or repeat the training data.
//!
//! | item | what it finds |
//! |---|---|
//! | [`CopyDetector`] | copies of training images, also shifted, flipped, re-encoded |
//! | [`FeatureCopyDetector`], [`FeatureNeighbors`] | the same in the features of any network |
//! | [`authenticity()`] | the share of samples that are no noisy copies of training samples |
//! | [`closest_records`] | whether samples are nearer to the training set than to held-out data |
//! | [`memorization()`] | whether a model's loss is lower on training items than on held-out ones |
//! | [`TextIndex`] | n-grams and spans of generated texts that occur in the training text |

mod authenticity;
mod calibration;
mod copies;
mod features;
mod memorization;
mod records;
mod text;

pub use authenticity::authenticity;
pub use calibration::{Calibration, CalibrationConfig};
pub use copies::{Alignment, CopyDetector, CopyDetectorConfig, CopyMatch};
pub use features::{FeatureCopyDetector, FeatureMatch, FeatureNeighbors};
pub use memorization::{Memorization, memorization};
pub use records::{ClosestRecords, closest_records};
pub use text::{
    CopiedSpan, Match, NgramOverlap, OriginalityConfig, OriginalityReport, TextIndex,
    TextIndexConfig, TextOriginality, TextSpan, TextUnit, token_text,
};

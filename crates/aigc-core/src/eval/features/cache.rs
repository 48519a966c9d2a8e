//! Features kept on disk.

use super::{FeatureExtractor, Features, extract::extract};
use crate::{
    Error, Result,
    fs::write_atomic,
    params::{ParamVisitor, visit_params},
};
use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A directory of features, so that they are computed once.
///
/// A batch is found by the SHA-256 of its shape and values, whatever the names of its files, and an
/// extractor by its [`id`](FeatureExtractor::id). A batch that has changed in one sample, or that
/// begins at another sample, is computed again: keep the batch size and the order. Every file ends
/// with a checksum; features of a damaged file are computed again.
#[derive(Clone, Debug)]
pub struct FeatureCache {
    dir: PathBuf,
}

/// Bytes of a checksum.
const CHECKSUM: usize = 32;

impl FeatureCache {
    /// A cache in `dir`, which is created when it is needed.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The features of a batch, read or computed.
    pub(super) fn features<const D: usize>(
        &self,
        extractor: &dyn FeatureExtractor<D>,
        samples: Tensor<D>,
    ) -> Result<Features> {
        let path = self.path(&extractor.id(), &samples)?;
        let (rows, width) = (samples.dims()[0], extractor.width());
        if let Some(features) = read(&path, rows, width) {
            return Ok(features);
        }
        let features = extract(extractor, samples)?;
        let mut bytes: Vec<u8> = features
            .values()
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        bytes.extend(Sha256::digest(&bytes));
        let dir = path.parent().unwrap_or(&self.dir);
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        write_atomic(&path, &bytes)?;
        Ok(features)
    }

    fn path<const D: usize>(&self, id: &str, samples: &Tensor<D>) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        for side in samples.dims() {
            hash.update((side as u64).to_le_bytes());
        }
        let data = samples.to_data().convert::<f32>();
        let values = data
            .as_slice::<f32>()
            .map_err(|e| Error::other(format!("{e:?}")))?;
        hash.update(bytemuck::cast_slice::<f32, u8>(values));
        let extractor = hexadecimal(&Sha256::digest(id.as_bytes())[..8]);
        let name = hexadecimal(&hash.finalize());
        Ok(self.dir.join(extractor).join(name))
    }
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// A hash of the names and values of all parameters, for the name of a network in memory.
pub(in crate::eval) fn weight_hash<M: Module>(network: &M) -> String {
    let mut hash = WeightHash(Sha256::new());
    visit_params(network, &mut hash);
    hexadecimal(&hash.0.finalize())
}

struct WeightHash(Sha256);

impl ParamVisitor for WeightHash {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        self.0.update(path.as_bytes());
        let data = param.val().into_data();
        let bytes: Vec<u8> = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
        self.0.update(bytes);
    }
}

/// The features of an undamaged file.
fn read(path: &Path, rows: usize, width: usize) -> Option<Features> {
    let size = rows * width * size_of::<f32>() + CHECKSUM;
    if std::fs::metadata(path).ok()?.len() != size as u64 {
        return None;
    }
    let bytes = std::fs::read(path).ok()?;
    let (values, checksum) = bytes.split_at_checked(size - CHECKSUM)?;
    if Sha256::digest(values)[..] != *checksum {
        return None;
    }
    let values = values
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    Features::new(values, width).ok()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        data::{ImageBatch, collate_images, digits},
        eval::{ClosureExtractor, FeatureStream},
    };
    use burn::tensor::Device;
    use std::cell::Cell;

    #[test]
    fn batches_are_computed_once_unless_they_change_or_are_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let device = Device::flex();
        let images = digits::train_test_split().1.0[..40].to_vec();
        let batches = |images: &[crate::data::Image]| -> Vec<Result<ImageBatch>> {
            let batches = images.chunks(20);
            batches
                .map(|images| Ok(collate_images(images.to_vec())))
                .collect()
        };
        let calls = Cell::new(0);
        let of = |id: &str, images: &[crate::data::Image]| {
            let extractor = ClosureExtractor::new(id, 64, |x: Tensor<4>| {
                calls.set(calls.get() + 1);
                Ok(x.flatten(1, 3))
            });
            let features = FeatureStream::new(&extractor, &device)
                .with_cache(FeatureCache::new(dir.path().join("features")))
                .features(batches(images))
                .unwrap();
            (features, calls.take())
        };
        let (computed, count) = of("a", &images);
        assert_eq!(count, 2);
        assert_eq!(of("a", &images), (computed.clone(), 0));
        // Another extractor, and one changed batch.
        assert_eq!(of("b", &images).1, 2);
        let mut changed = images.clone();
        changed[30].pixels[5] ^= 1;
        assert_eq!(of("a", &changed).1, 1);
        // Every damage of a file is noticed.
        let files = |dir: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(dir).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        for folder in files(&dir.path().join("features")) {
            for (number, file) in files(&folder).into_iter().enumerate() {
                let mut bytes = std::fs::read(&file).unwrap();
                if number == 0 {
                    bytes.pop();
                } else {
                    bytes[17] ^= 64;
                }
                std::fs::write(&file, bytes).unwrap();
            }
        }
        assert_eq!(of("a", &images), (computed.clone(), 2));
        assert_eq!(of("a", &images), (computed, 0));
    }
}

//! Moments in the `.npz` files of pytorch-fid: an archive of the arrays `mu` and `sigma`.

use super::{
    GaussianMoments,
    npy::{Header, header},
};
use crate::{DataFault, Error, Result, check::ensure_argument, fs::write_atomic_with};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::Path,
};
use zip::{CompressionMethod, ZipArchive, ZipWriter, result::ZipError, write::SimpleFileOptions};

/// Largest number of features of a file: a covariance of 2 GiB.
const WIDEST: usize = 16_384;

impl GaussianMoments {
    /// Reads a `.npz` file with arrays `mu` (`[features]`) and `sigma` (`[features, features]`) of
    /// 32 or 64 bits, as pytorch-fid (`--save-stats`) and published reference statistics have them.
    /// The number of samples is known if there is an array `count`, which [`save`](Self::save)
    /// adds.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Data`] if it is no such archive, is cut
    /// off, or does not hold the moments of a distribution.
    pub fn load(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let archive = ZipArchive::new(BufReader::new(file));
        let mut archive = archive.map_err(|error| Error::data(path, unreadable(error)))?;
        read_moments(&mut archive).map_err(|fault| Error::data(path, fault))
    }

    /// Writes a `.npz` file that pytorch-fid reads, with the arrays `mu` and `sigma` in 64 bits,
    /// and `count` if it is known. The file is replaced as a whole.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for more features than [`load`](Self::load) accepts, 16,384;
    /// [`Error::Io`] if it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        check_width(self.width())?;
        write_atomic_with(path, |temporary| {
            let file = File::create(temporary).map_err(Error::io(temporary))?;
            self.write(BufWriter::new(file))
                .map_err(Error::io(temporary))
        })
    }

    fn write(&self, file: impl Write + Seek) -> io::Result<()> {
        let d = self.width();
        let mut archive = ZipWriter::new(file);
        // Numbers of 64 bits hardly get smaller.
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        archive.start_file("mu.npy", options)?;
        archive.write_all(&header("<f8", &format!("({d},)")))?;
        for value in self.mean() {
            archive.write_all(&value.to_le_bytes())?;
        }
        archive.start_file("sigma.npy", options)?;
        archive.write_all(&header("<f8", &format!("({d}, {d})")))?;
        for i in 0..d {
            for j in 0..d {
                archive.write_all(&self.covariance(i, j).to_le_bytes())?;
            }
        }
        if let Some(count) = self.count() {
            archive.start_file("count.npy", options)?;
            archive.write_all(&header("<i8", "()"))?;
            archive.write_all(&(count as u64).to_le_bytes())?;
        }
        archive.finish()?.flush()
    }
}

fn check_width(features: usize) -> Result<()> {
    let expected = format!("1 to {WIDEST}");
    ensure_argument(is_width(features), "features", features, &expected)
}

fn is_width(features: usize) -> bool {
    (1..=WIDEST).contains(&features)
}

fn read_moments<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
) -> std::result::Result<GaussianMoments, DataFault> {
    let missing = |name: &str| DataFault::Empty(format!("the archive has no array `{name}`"));
    let mean = read_array(archive, "mu", &format!("1 to {WIDEST} features"), |shape| {
        shape.len() == 1 && is_width(shape[0])
    })?;
    let mean = mean.ok_or_else(|| missing("mu"))?;
    let d = mean.len();
    let covariance = read_array(archive, "sigma", &format!("{d} × {d} values"), |shape| {
        shape == [d, d]
    })?;
    let covariance = covariance.ok_or_else(|| missing("sigma"))?;
    let count = read_array(archive, "count", "a single number", <[usize]>::is_empty)?;
    let count = match count.as_deref() {
        None => None,
        Some([count]) if *count >= 1.0 && count.fract() == 0.0 => Some(*count as usize),
        Some(other) => {
            let fault = format!("`count` is {other:?}, expected a number of samples");
            return Err(DataFault::Mismatch(fault));
        }
    };
    GaussianMoments::new(mean, &covariance, count)
        .map_err(|error| DataFault::Mismatch(error.to_string()))
}

/// The values of an array of the archive; `None` if there is no such array. Nothing is read before
/// `accepts` has seen the shape, and no more than the shape says.
fn read_array<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    name: &str,
    expected: &str,
    accepts: impl Fn(&[usize]) -> bool,
) -> std::result::Result<Option<Vec<f64>>, DataFault> {
    let entry = match archive.by_name(&format!("{name}.npy")) {
        Ok(entry) => entry,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut entry = BufReader::new(entry);
    let header = Header::read(&mut entry)?;
    if !accepts(&header.shape) {
        let fault = format!(
            "`{name}` has the shape {:?}, expected {expected}",
            header.shape
        );
        return Err(DataFault::Mismatch(fault));
    }
    // The order of the axes does not matter: the covariance is symmetric.
    header.read_values(&mut entry).map(Some)
}

fn unreadable(error: ZipError) -> DataFault {
    DataFault::Decode(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(count: Option<usize>) -> GaussianMoments {
        GaussianMoments::new(vec![0.5, -1.0], &[2.0, 0.25, 0.25, 1.0], count).unwrap()
    }

    /// Writes an archive of arrays and reads moments from it.
    fn read(arrays: &[(&str, &[u8])]) -> Result<GaussianMoments> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statistics.npz");
        let mut archive = ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in arrays {
            archive
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
        GaussianMoments::load(&path)
    }

    fn array(element: &str, shape: &str, values: &[f64]) -> Vec<u8> {
        let mut bytes = header(element, shape);
        for value in values {
            match element {
                "<f4" => bytes.extend((*value as f32).to_le_bytes()),
                "<i8" => bytes.extend((*value as i64).to_le_bytes()),
                _ => bytes.extend(value.to_le_bytes()),
            }
        }
        bytes
    }

    #[test]
    fn files_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statistics.npz");
        for count in [None, Some(10_000)] {
            moments(count).save(&path).unwrap();
            assert_eq!(GaussianMoments::load(&path).unwrap(), moments(count));
        }
    }

    /// The moments themselves would take 2 GiB.
    #[test]
    fn widths_that_are_not_read_are_not_written() {
        assert!(check_width(WIDEST).is_ok());
        let found = check_width(WIDEST + 1).unwrap_err().to_string();
        assert!(
            found.contains("`features` is 16385, expected 1 to 16384"),
            "{found}"
        );
    }

    #[test]
    fn single_precision_is_read() {
        let mean = array("<f4", "(2,)", &[0.5, -1.0]);
        let covariance = array("<f4", "(2, 2)", &[2.0, 0.25, 0.25, 1.0]);
        let found = read(&[("mu.npy", &mean), ("sigma.npy", &covariance)]).unwrap();
        assert_eq!(found, moments(None));
    }

    #[test]
    fn broken_files_are_errors() {
        let error = |arrays: &[(&str, &[u8])]| read(arrays).unwrap_err().to_string();
        let mean = array("<f8", "(2,)", &[0.0; 2]);
        let covariance = array("<f8", "(2, 2)", &[1.0, 0.0, 0.0, 1.0]);
        let count = array("<i8", "()", &[0.0]);
        let second = |sigma: &[u8]| error(&[("mu.npy", &mean), ("sigma.npy", sigma)]);
        assert!(error(&[("sigma.npy", &covariance)]).contains("no array `mu`"));
        assert!(error(&[("mu.npy", &mean)]).contains("no array `sigma`"));
        let found = second(&array("<f8", "(3, 2)", &[0.0; 6]));
        assert!(found.contains("shape [3, 2], expected 2 × 2"), "{found}");
        let found = second(&covariance[..covariance.len() - 1]);
        assert!(found.contains("truncated: 32 bytes expected"), "{found}");
        let found = second(&[&covariance[..], b"x"].concat());
        assert!(found.contains("more than the 32 bytes"), "{found}");
        let found = second(&array(">f8", "(2, 2)", &[0.0; 4]));
        assert!(
            found.contains("impossible header") && found.contains(">f8"),
            "{found}"
        );
        assert!(second(b"\x93NUMPY\x09\x00").contains("version 9"));
        assert!(second(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("4294967295 bytes long"));
        assert!(second(b"\x93NUM").contains("impossible header"));
        assert!(second(b"PK\x03\x04....").contains("wrong magic number"));
        let found = second(&array("<f8", "(2, 2)", &[1.0, 0.5, 0.0, 1.0]));
        assert!(found.contains("not symmetric"), "{found}");
        let found = second(&array("<f8", "(2, 2)", &[f64::NAN; 4]));
        assert!(found.contains("`covariance` is NaN"), "{found}");
        // Refused by its shape, before anything is allocated.
        let found = error(&[("mu.npy", &array("<f8", "(99999999999,)", &[]))]);
        assert!(found.contains("expected 1 to 16384 features"), "{found}");
        let all = [
            ("mu.npy", &mean[..]),
            ("sigma.npy", &covariance[..]),
            ("count.npy", &count[..]),
        ];
        assert!(error(&all).contains("`count` is [0.0]"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statistics.npz");
        std::fs::write(&path, b"not an archive").unwrap();
        let found = GaussianMoments::load(&path).unwrap_err().to_string();
        assert!(found.contains("cannot be decoded"), "{found}");
        assert!(GaussianMoments::load(&dir.path().join("none.npz")).is_err());
    }
}

//! Any bytes, plain and unpacked, are an IDX file or an error.
#![no_main]

use aigc_core::data::idx::{IdxArray, MnistDataset};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(idx) = IdxArray::parse(bytes, bytes.len() as u64) {
        assert_eq!(idx.bytes.len(), idx.shape.iter().product::<usize>());
        assert!(idx.bytes.len() < bytes.len());
    }
    // The same through a file, where a gzip is unpacked first.
    let path = std::env::temp_dir().join(format!("aigc-fuzz-idx-{}", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary folder can be written");
    if let Ok(images) = MnistDataset::from_files(&path, None) {
        use aigc_core::data::Dataset;
        let last = images.get(images.len() - 1).expect("it is in memory");
        assert_eq!(last.pixels.len(), images.shape().numel());
    }
});

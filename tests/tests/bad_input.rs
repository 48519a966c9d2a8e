//! Broken files, and the error each gives. None may panic, and none may allocate what its content
//! does not justify.

use aigc_core::{
    Error, Result,
    checkpoint::{RunDir, assign_path_ids, load_optimizer, save_optimizer},
    data::{
        DataLoader, DataLoaderConfig, Dataset, ImageShape, OnReadError, collate_images,
        folder::{ImageFolder, ImageFolderConfig},
        idx::{IdxArray, MnistDataset},
    },
    device::device,
    nn::LinearConfig,
    rng::{InitWeights, Rng},
    train::{OptimizerConfig, StartFrom, Trainer, TrainerConfig},
    weights::{load_weights, save_weights},
};
use aigc_tests::{Net, NoisyRegression, own_fixtures, row_loader};
use aigc_text::{
    BpeTokenizer, CausalLm, CharacterTokenizer, GenerationConfig, Gpt2, PretrainedModel,
    TextGenerator, TokenDataset, Tokenizer,
    generate::{TokenIds, WordConstraint},
    tokenizer,
};
use burn::{
    module::Module,
    optim::ModuleOptimizer,
    tensor::{Bytes, Int, Tensor},
};
use burn_pack::Scalar;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

fn idx(magic: [u8; 4], sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let sizes = sizes.iter().flat_map(|s| s.to_be_bytes());
    magic
        .into_iter()
        .chain(sizes)
        .chain(bytes.iter().copied())
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const IMAGES: [u8; 4] = [0, 0, 8, 3];
const LABELS: [u8; 4] = [0, 0, 8, 1];

/// Name, content, and what the error says.
fn idx_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = idx(IMAGES, &[2, 2, 2], &[7; 8]);
    let mut flipped = gzip(&good);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let mut bad_checksum = gzip(&good);
    let at = bad_checksum.len() - 8;
    bad_checksum[at] ^= 1;
    vec![
        ("nothing", vec![], "truncated"),
        ("two bytes", vec![0, 0], "truncated"),
        ("magic only", IMAGES.to_vec(), "truncated"),
        ("half a size", idx(IMAGES, &[2], &[0, 0]), "truncated"),
        (
            "fewer bytes than announced",
            idx(IMAGES, &[2, 2, 2], &[7; 7]),
            "truncated: 24 bytes expected, 23 found",
        ),
        (
            "more bytes than announced",
            idx(IMAGES, &[2, 2, 2], &[7; 9]),
            "oversized: more than the 24 bytes",
        ),
        (
            "text",
            b"hello, world, this is no IDX file".to_vec(),
            "wrong magic number 0x68656c6c",
        ),
        (
            "a PNG",
            b"\x89PNG\r\n\x1a\n0000000000000000".to_vec(),
            "wrong magic number 0x89504e47",
        ),
        (
            "floats instead of bytes",
            idx([0, 0, 0x0d, 3], &[1, 1, 1], &[0; 4]),
            "wrong magic number 0x00000d03",
        ),
        (
            "no axes",
            idx([0, 0, 8, 0], &[], &[1]),
            "wrong magic number 0x00000800",
        ),
        (
            "200 axes",
            idx([0, 0, 8, 200], &[1; 200], &[1]),
            "wrong magic number 0x000008c8",
        ),
        (
            "four thousand million images",
            idx(IMAGES, &[u32::MAX, 28, 28], &[7; 8]),
            "truncated",
        ),
        (
            "sizes whose product overflows",
            idx([0, 0, 8, 4], &[u32::MAX; 4], &[7; 8]),
            "more than a machine can hold",
        ),
        (
            "gzip that lies in its header",
            gzip(&idx(IMAGES, &[60_000, 28, 28], &[7; 8])),
            "47040016 bytes cannot be compressed to",
        ),
        (
            "gzip with more than announced",
            gzip(&idx(IMAGES, &[2, 2, 2], &[7; 4096])),
            "oversized",
        ),
        (
            "gzip cut off",
            gzip(&good)[..20].to_vec(),
            "cannot be decoded",
        ),
        ("gzip with a flipped byte", flipped, ""),
        (
            "gzip with a wrong checksum",
            bad_checksum,
            "cannot be decoded",
        ),
        ("gzip of nothing", gzip(&[]), "truncated"),
        (
            "gzip with something behind it",
            [gzip(&good), b"and more".to_vec()].concat(),
            "cannot be decoded",
        ),
        (
            "images of one axis",
            idx(LABELS, &[3], &[7; 3]),
            "images have 3 or 4 axes, these have 1",
        ),
        (
            "no images",
            idx(IMAGES, &[0, 28, 28], &[]),
            "it holds no image",
        ),
        (
            "images without pixels",
            idx(IMAGES, &[5, 0, 28], &[]),
            "it holds no image",
        ),
    ]
}

#[test]
fn broken_idx_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, expected) in idx_files() {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = MnistDataset::from_files(&path, None)
            .expect_err(name)
            .to_string();
        assert!(
            error.contains(expected) && error.contains(name),
            "{name}: {error}"
        );
    }
    let images = folder.path().join("good");
    std::fs::write(&images, idx(IMAGES, &[2, 2, 2], &[7; 8])).unwrap();
    for (name, labels, expected) in [
        (
            "three labels",
            idx(LABELS, &[3], &[1; 3]),
            "[3] labels for 2 images",
        ),
        (
            "labels of two axes",
            idx([0, 0, 8, 2], &[2, 1], &[1; 2]),
            "[2, 1] labels for 2 images",
        ),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, labels).unwrap();
        let error = MnistDataset::from_files(&images, Some(&path))
            .expect_err(name)
            .to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    assert_eq!(MnistDataset::from_files(&images, None).unwrap().len(), 2);
    let missing = MnistDataset::from_dir(folder.path(), aigc_core::data::idx::Split::Train)
        .unwrap_err()
        .to_string();
    assert!(missing.contains("no train-images-idx3-ubyte"), "{missing}");
}

/// Any prefix of a good file, and any byte changed, gives an error or a valid reading, never a
/// panic.
#[test]
fn altered_idx_files_never_panic() {
    let good = idx(IMAGES, &[3, 2, 2], &[9; 12]);
    for file in [good.clone(), gzip(&good)] {
        for end in 0..file.len() {
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), &file[..end]).unwrap();
            assert!(
                IdxArray::read(path.path()).is_err(),
                "{end} of {} bytes are read",
                file.len()
            );
        }
        for at in 0..file.len() {
            for flip in [1, 0x80, 0xff] {
                let mut altered = file.clone();
                altered[at] ^= flip;
                let path = tempfile::NamedTempFile::new().unwrap();
                std::fs::write(path.path(), &altered).unwrap();
                if let Ok(read) = IdxArray::read(path.path()) {
                    assert_eq!(read.bytes.len(), read.shape.iter().product::<usize>());
                }
            }
        }
    }
}

/// A PNG whose header announces this size and whose content is `bytes`.
fn png(width: u32, height: u32, bytes: &[u8]) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [
        &width.to_be_bytes()[..],
        &height.to_be_bytes(),
        &[8, 2, 0, 0, 0],
    ]
    .concat();
    for (kind, data) in [(b"IHDR", &header[..]), (b"IDAT", bytes), (b"IEND", &[])] {
        file.extend((data.len() as u32).to_be_bytes());
        let body = [&kind[..], data].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&body);
        file.extend(body);
        file.extend(crc.sum().to_be_bytes());
    }
    file
}

fn good_png() -> Vec<u8> {
    // Two rows of two RGB pixels, each row after its filter byte.
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
    encoder
        .write_all(&[0, 1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11, 12])
        .unwrap();
    png(2, 2, &encoder.finish().unwrap())
}

fn image_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    vec![
        ("nothing.png", vec![], "cannot be decoded"),
        ("text.png", b"not a picture".to_vec(), "cannot be decoded"),
        ("text.jpg", b"not a picture".to_vec(), "cannot be decoded"),
        (
            "jpeg-start-only.jpg",
            b"\xff\xd8\xff\xe0".to_vec(),
            "cannot be decoded",
        ),
        ("cut.png", good_png()[..50].to_vec(), "cannot be decoded"),
        ("no-pixels.png", png(2, 2, &[]), "cannot be decoded"),
        (
            "announces-16-giga-pixels.png",
            png(131_072, 131_072, &[0; 64]),
            "cannot be decoded",
        ),
        (
            "announces-400-mega-pixels.png",
            png(20_000, 20_000, &[0; 64]),
            "cannot be decoded",
        ),
        (
            "gif-start-only.gif",
            b"GIF89a".to_vec(),
            "cannot be decoded",
        ),
        (
            "bmp-start-only.bmp",
            b"BM\0\0\0\0".to_vec(),
            "cannot be decoded",
        ),
        (
            "webp-start-only.webp",
            b"RIFF\xff\xff\xff\x7fWEBPVP8 ".to_vec(),
            "cannot be decoded",
        ),
    ]
}

#[test]
fn broken_images_are_errors() {
    let config = ImageFolderConfig::new(ImageShape::new(3, 2, 2));
    for (name, content, expected) in image_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
        let images = ImageFolder::open(folder.path(), config.clone()).unwrap();
        let error = images.get(0).expect_err(name).to_string();
        assert!(
            error.contains(expected) && error.contains(name),
            "{name}: {error}"
        );
    }
}

/// A picture one pixel wide and a million high: a few kilobytes whose decoding is a few megabytes.
/// Scaled whole to 32 columns it would be gigabytes.
#[test]
#[cfg(target_os = "linux")]
fn tall_images_use_little_memory() {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 4 * 1_000_000]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("tall.png"),
        png(1, 1_000_000, &encoder.finish().unwrap()),
    )
    .unwrap();
    let peak = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<usize>()
            .unwrap()
            / 1024
    };
    let before = peak();
    for channels in [1, 3] {
        let config = ImageFolderConfig::new(ImageShape::new(channels, 32, 32));
        let image = ImageFolder::open(folder.path(), config)
            .unwrap()
            .get(0)
            .unwrap();
        assert_eq!(image.pixels.len(), channels * 32 * 32);
    }
    assert!(peak() - before < 200, "{} MiB more", peak() - before);
}

#[test]
fn unreadable_images_fail_or_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..6 {
        std::fs::write(folder.path().join(format!("{i}.png")), good_png()).unwrap();
    }
    std::fs::write(folder.path().join("2.png"), b"broken").unwrap();
    let load = |on_read_error| {
        let images = ImageFolder::open(
            folder.path(),
            ImageFolderConfig::new(ImageShape::new(3, 2, 2)),
        )
        .unwrap();
        let config = DataLoaderConfig {
            batch_size: 6,
            on_read_error,
            ..DataLoaderConfig::default()
        };
        DataLoader::new(images, collate_images, config).unwrap()
    };
    let fatal = load(OnReadError::Fail)
        .iter_from(0)
        .next_batch()
        .unwrap_err()
        .to_string();
    assert!(fatal.contains("2.png"), "{fatal}");
    let skipping = load(OnReadError::Skip);
    assert_eq!(skipping.iter_from(0).next_batch().unwrap().len(), 6);
    assert!(matches!(&skipping.skipped()[..], [one] if one.contains("2.png")));
}

#[test]
fn empty_directories_and_invalid_shapes_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "hello").unwrap();
    let open = |shape, labels| {
        let config = ImageFolderConfig {
            class_labels: labels,
            ..ImageFolderConfig::new(shape)
        };
        ImageFolder::open(folder.path(), config)
            .unwrap_err()
            .to_string()
    };
    assert!(open(ImageShape::new(1, 8, 8), false).contains("no image in it"));
    assert!(open(ImageShape::new(1, 8, 8), true).contains("no image in any subdirectory"));
    assert_eq!(
        open(ImageShape::new(2, 8, 8), false),
        "config field `shape.channels` is 2, expected 1 (grey) or 3 (RGB)"
    );
    assert!(open(ImageShape::new(1, 0, 8), false).contains("`shape.height` is 0"));
    let nowhere = ImageFolder::open(&folder.path().join("nowhere"), ImageFolderConfig::default())
        .unwrap_err();
    assert!(nowhere.to_string().contains("nowhere"), "{nowhere}");
}

/// A run with checkpoints of steps 2 and 4.
fn trained(folder: &Path) -> RunDir {
    let run = RunDir::create(folder).unwrap();
    fit(&run, StartFrom::Fresh, 4).unwrap();
    run
}

fn fit(run: &RunDir, start: StartFrom, steps: usize) -> Result<usize> {
    let config = TrainerConfig {
        save_steps: 2,
        save_total_limit: 9,
        ..TrainerConfig::new(steps)
    };
    let net = Net::new(&device("flex").unwrap());
    let trained = Trainer::new(config).with_start(start).fit(
        NoisyRegression::default(),
        net,
        &row_loader(8, 0),
        run,
    )?;
    Ok(trained.step)
}

#[test]
fn damaged_checkpoints_name_the_last_intact_one() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage, &str); 10] = [
        (
            "cut weights",
            |c| cut(&c.join("model.safetensors")),
            "model.safetensors: truncated or oversized",
        ),
        (
            "altered weights",
            |c| alter(&c.join("model.safetensors")),
            "model.safetensors: altered",
        ),
        (
            "cut state",
            |c| cut(&c.join("state.json")),
            "state.json: truncated or oversized",
        ),
        (
            "altered optimizer",
            |c| alter(&c.join("optimizer-model.bpk")),
            "optimizer-model.bpk: altered",
        ),
        (
            "empty optimizer",
            |c| std::fs::write(c.join("optimizer-model.bpk"), "").unwrap(),
            "truncated or oversized",
        ),
        (
            "no weights",
            |c| std::fs::remove_file(c.join("model.safetensors")).unwrap(),
            "model.safetensors: missing",
        ),
        (
            "no manifest",
            |c| std::fs::remove_file(c.join("manifest.json")).unwrap(),
            "manifest.json: missing",
        ),
        (
            "cut manifest",
            |c| cut(&c.join("manifest.json")),
            "manifest.json",
        ),
        (
            "a manifest of text",
            |c| std::fs::write(c.join("manifest.json"), "hello").unwrap(),
            "manifest.json: expected",
        ),
        (
            "a manifest of another step",
            |c| {
                std::fs::copy(
                    c.with_file_name("step-000002").join("manifest.json"),
                    c.join("manifest.json"),
                )
                .unwrap();
            },
            "manifest.json: format 1 of step 2, expected format 1 of step 4",
        ),
    ];
    for (name, damage, expected) in damages {
        let folder = tempfile::tempdir().unwrap();
        let run = trained(&folder.path().join("run"));
        damage(&run.checkpoint_path(4));
        let error = fit(&run, StartFrom::Resume, 6).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(
            error.contains("the checkpoint of step 2 is intact: resume from step 2"),
            "{name}: {error}"
        );
        assert_eq!(fit(&run, StartFrom::ResumeAt(2), 6).unwrap(), 6, "{name}");
        // Both damaged: nothing to offer.
        std::fs::remove_dir_all(folder.path().join("run")).unwrap();
        let run = trained(&folder.path().join("run"));
        cut(&run.checkpoint_path(2).join("state.json"));
        cut(&run.checkpoint_path(4).join("state.json"));
        assert!(
            fit(&run, StartFrom::Resume, 6)
                .unwrap_err()
                .to_string()
                .contains("no intact checkpoint"),
            "{name}"
        );
    }
}

fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn alter(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Files whose checksum is right and whose content is not: a manifest proves nothing about who
/// wrote it.
#[test]
fn checkpoints_with_valid_checksums_are_validated() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("run"));
    let read = |file| {
        (
            file,
            std::fs::read(run.latest_checkpoint().unwrap().path(file)).unwrap(),
        )
    };
    let good = BTreeMap::from(["state.json", "model.safetensors", "optimizer-model.bpk"].map(read));
    let resign = |name: &str, content: Option<Vec<u8>>| {
        let writer = run.write_checkpoint(4).unwrap();
        for file in ["state.json", "model.safetensors", "optimizer-model.bpk"] {
            let bytes = good[file].clone();
            match &content {
                Some(content) if file == name => {
                    std::fs::write(writer.path(file), content).unwrap()
                }
                None if file == name => {}
                _ => std::fs::write(writer.path(file), bytes).unwrap(),
            }
        }
        writer.commit(4).unwrap();
        fit(&run, StartFrom::Resume, 6).unwrap_err().to_string()
    };
    assert!(resign("state.json", Some(b"[]".to_vec())).contains("state.json"));
    assert!(resign("state.json", Some(b"{\"step\": -1}".to_vec())).contains("state.json"));
    assert!(resign("model.safetensors", Some(vec![0xff; 64])).contains("model.safetensors"));
    assert!(resign("model.safetensors", Some(vec![])).contains("model.safetensors"));
    assert!(resign("model.safetensors", None).contains("model.safetensors"));
    assert!(resign("optimizer-model.bpk", Some(vec![0; 64])).contains("optimizer-model.bpk"));
    assert!(resign("optimizer-model.bpk", None).contains("optimizer-model.bpk"));
}

#[test]
fn mismatched_and_broken_weights_are_errors() {
    let device = device("flex").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let linear = |i, o| LinearConfig::new(i, o).init(&device).init_weights(1);
    save_weights(&linear(3, 2), &path).unwrap();
    assert!(load_weights(linear(3, 2), &path).is_ok());
    let error = |model| load_weights(model, &path).unwrap_err().to_string();
    let message = error(linear(2, 3));
    assert!(
        message.contains("size mismatch: bias ([2], expected [3])") && message.contains("weight ("),
        "{message}"
    );
    let without_bias = LinearConfig::new(3, 2).with_bias(false).init(&device);
    assert!(error(without_bias).contains("unexpected keys: bias"));
    let net = load_weights(Net::new(&device), &path)
        .unwrap_err()
        .to_string();
    assert!(
        net.contains("missing keys: ")
            && net.contains("first.weight")
            && net.contains("unexpected keys: bias"),
        "{net}"
    );
    let header = |text: &str| {
        [
            &(text.len() as u64).to_le_bytes()[..],
            text.as_bytes(),
            &[0; 24],
        ]
        .concat()
    };
    let files: [(&str, Vec<u8>); 7] = [
        (
            "a header longer than the file",
            [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
        ),
        (
            "a header of 90 megabytes in 10 bytes",
            [&90_000_000u64.to_le_bytes()[..], b"{}"].concat(),
        ),
        ("a header that is no JSON", header("hello")),
        (
            "offsets beyond the end",
            header(r#"{"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,99999]}}"#),
        ),
        (
            "offsets that disagree with the shape",
            header(r#"{"weight":{"dtype":"F32","shape":[9,9],"data_offsets":[0,24]}}"#),
        ),
        (
            "a shape that overflows",
            header(
                r#"{"weight":{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,24]}}"#,
            ),
        ),
        (
            "an unknown type",
            header(r#"{"weight":{"dtype":"F99","shape":[2,3],"data_offsets":[0,24]}}"#),
        ),
    ];
    for (name, content) in files {
        std::fs::write(&path, content).unwrap();
        let error = load_weights(linear(3, 2), &path)
            .expect_err(name)
            .to_string();
        assert!(error.contains("w.safetensors"), "{name}: {error}");
    }
    let missing = load_weights(linear(3, 2), &folder.path().join("nowhere.safetensors"))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("nowhere.safetensors"), "{missing}");
}

#[test]
fn foreign_optimizer_state_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("run"));
    let file = run.latest_checkpoint().unwrap().path("optimizer-model.bpk");
    // The file was saved by Adam, with a momentum that RMSprop knows nothing of.
    let rms: ModuleOptimizer = burn::optim::RmsPropConfig::new().init();
    let net = Net::new(&device("flex").unwrap()).init_weights(0).train();
    let foreign = load_optimizer(rms.clone(), &net, &file)
        .err()
        .unwrap()
        .to_string();
    assert!(
        foreign.contains("belongs to no parameter of the model"),
        "{foreign}"
    );
    let net = assign_path_ids(net);
    let lost = load_optimizer(rms, &net, &file).err().unwrap().to_string();
    assert!(
        lost.contains("cannot be restored: it was saved by another kind of optimizer"),
        "{lost}"
    );

    let adam = match OptimizerConfig::adam(0.9, 0.999) {
        OptimizerConfig::Adam(config) => ModuleOptimizer::from(config.build(false)),
        _ => unreachable!(),
    };
    let path = folder.path().join("empty.bpk");
    save_optimizer(&adam, &path).unwrap();
    assert!(
        load_optimizer(adam.clone(), &net, &path).is_ok(),
        "a state without entries is that of a new optimizer"
    );
    // Records that burn would panic on: each entry must be of its parameter's rank and shape.
    let good = burn_pack::Reader::from_bytes(Bytes::from_bytes_vec(std::fs::read(&file).unwrap()))
        .unwrap();
    let scalars = good.scalars().clone();
    let tensors = good.into_tensors().unwrap();
    type Change = (
        &'static str,
        fn(&mut BTreeMap<String, Scalar>),
        fn(&mut burn_pack::Tensor),
    );
    let changes: [Change; 4] = [
        (
            "rank 9",
            |s| {
                s.iter_mut()
                    .filter(|(n, _)| n.ends_with("__rank"))
                    .for_each(|(_, v)| *v = Scalar::from(9usize))
            },
            |_| {},
        ),
        (
            "another rank",
            |s| {
                s.iter_mut()
                    .filter(|(n, _)| n.ends_with("__rank"))
                    .for_each(|(_, v)| *v = Scalar::from(4usize))
            },
            |_| {},
        ),
        ("another owner", |_| {}, |t| t.param_id = Some(1)),
        (
            "another shape",
            |_| {},
            |t| t.shape = burn::tensor::Shape::new([1, 1, t.shape.num_elements()]),
        ),
    ];
    for (name, scalar, tensor) in changes {
        let (mut scalars, mut tensors) = (scalars.clone(), tensors.clone());
        scalar(&mut scalars);
        tensors.iter_mut().for_each(tensor);
        let mut writer = burn_pack::Writer::new(tensors);
        for (key, value) in &scalars {
            writer = writer.with_scalar(key, *value);
        }
        let changed = folder.path().join("changed.bpk");
        std::fs::write(&changed, writer.into_bytes().unwrap().to_vec()).unwrap();
        let error = load_optimizer(adam.clone(), &net, &changed)
            .err()
            .unwrap_or_else(|| panic!("{name} was taken"));
        assert!(error.to_string().contains("changed.bpk"), "{name}: {error}");
    }
    assert!(load_optimizer(adam.clone(), &net, &file).is_ok());
    for content in [&b""[..], b"hello", &[0xff; 200]] {
        std::fs::write(&path, content).unwrap();
        let error = load_optimizer(adam.clone(), &net, &path)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("empty.bpk"), "{error}");
    }
}

#[test]
fn broken_run_configurations_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("run"));
    let path: PathBuf = run.config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    for (content, expected) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[1, 2]", "invalid"),
        ("{\"model\": null}", "missing field"),
        (
            &text.replace("\"seed\": 0", "\"seed\": -3")[..],
            "invalid value",
        ),
        (
            &text.replace("\"adam\"", "\"madam\"")[..],
            "unknown variant `madam`",
        ),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = fit(&run, StartFrom::Resume, 6).unwrap_err().to_string();
        assert!(
            error.contains("config.json") && error.contains(expected),
            "{content}: {error}"
        );
    }
    let nowhere = RunDir::open(folder.path().join("nowhere"))
        .unwrap_err()
        .to_string();
    assert!(nowhere.contains("there is no run in it"), "{nowhere}");
    let again = RunDir::create(run.path()).unwrap_err().to_string();
    assert!(again.contains("there is a run in it already"), "{again}");
}

#[test]
fn broken_model_configurations_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let device = device("flex").unwrap();
    let load = |content: &str| {
        std::fs::write(folder.path().join("config.json"), content).unwrap();
        aigc_vae::AnyVae::from_pretrained(folder.path(), &device)
            .unwrap_err()
            .to_string()
    };
    let mlp = |hidden: &str, latent: &str, likelihood: &str| {
        format!(
            r#"{{"kind":"mlp","shape":{{"channels":1,"height":4,"width":4}},"hidden":{hidden},"latent":{latent},"likelihood":{likelihood},"activation":"relu"}}"#
        )
    };
    let conv = |side: usize, channels: &str| {
        format!(
            r#"{{"kind":"conv","shape":{{"channels":1,"height":{side},"width":{side}}},"channels":{channels},"hidden":8,"latent":2,"likelihood":"bernoulli","activation":"relu"}}"#
        )
    };
    for (content, expected) in [
        ("hello".to_string(), "config.json"),
        (
            r#"{"kind":"transformer"}"#.into(),
            "unknown variant `transformer`",
        ),
        (mlp("0", "2", r#""bernoulli""#), "`hidden_dim` is 0"),
        (
            mlp("8", "99999999999", r#""bernoulli""#),
            "`latent_dim` is 99999999999",
        ),
        (
            mlp("8", "2", r#"{"gaussian":0.0}"#),
            "`likelihood.gaussian` is 0",
        ),
        (mlp("-1", "2", r#""bernoulli""#), "config.json"),
        (
            conv(6, "[4,8]"),
            "`shape.height` is 6, expected a multiple of 4",
        ),
        (conv(8, "[]"), "`channels` is []"),
        (conv(8, "[4,0]"), "`channels` is [4, 0]"),
        (mlp("8", "2", r#""bernoulli""#), "model.safetensors"),
    ] {
        let error = load(&content);
        assert!(error.contains(expected), "{content}: {error}");
    }
}

/// A file cut off, shorter or longer by a few bytes, or with some bytes changed: to any, by a bit,
/// or to others of its own, with which text often remains what it was. Half of the changes are
/// where headers are.
fn altered(good: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let place = |rng: &mut Rng| {
        let end = if rng.random_index(2) == 0 {
            good.len()
        } else {
            good.len().min(400)
        };
        rng.random_index(end)
    };
    let (at, n) = (place(rng), 1 + rng.random_index(8));
    match rng.random_index(6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..(at + n).min(good.len()))),
        2 => {
            let from = rng.random_index(good.len() - n);
            bytes
                .splice(at..at, good[from..from + n].iter().copied())
                .for_each(drop);
        }
        how => (0..n).for_each(|_| {
            let at = place(rng);
            bytes[at] = match how {
                3 => rng.random_index(256) as u8,
                4 => bytes[at] ^ 1 << rng.random_index(8),
                _ => good[rng.random_index(good.len())],
            };
        }),
    }
    bytes
}

/// JSON with another value somewhere.
fn with_another_value(json: &mut Value, rng: &mut Rng) {
    let inside: Vec<&mut Value> = match json {
        Value::Array(values) => values.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => vec![],
    };
    if !inside.is_empty() && rng.random_index(6) > 0 {
        let at = rng.random_index(inside.len());
        return with_another_value(inside.into_iter().nth(at).expect("it is inside"), rng);
    }
    let others = [
        json!([null, true, "", "a", "ByteLevel", [], [[]], {}]),
        json!([-1, 0, 1, 3, 1024, 1 << 24, u32::MAX, u64::MAX, 0.5, 1e308]),
    ];
    let others = others[rng.random_index(2)].as_array().expect("a list");
    *json = others[rng.random_index(others.len())].clone();
}

/// Opens a folder with each of `files` altered in `cases` ways: a panic fails, an error names the
/// file or its folder, and what opens is used. Some have to be refused, and some taken.
fn alter_each(folder: &Path, files: &[&str], cases: usize, open: impl Fn() -> Result<()>) {
    open().expect("the files are good");
    for file in files {
        let path = folder.join(file);
        let good = std::fs::read(&path).unwrap();
        let mut rng = Rng::new(9);
        let mut refused = 0;
        for case in 0..cases {
            let bad = match serde_json::from_slice(&good) {
                Ok(mut json) if case % 2 == 0 => {
                    with_another_value(&mut json, &mut rng);
                    json.to_string().into_bytes()
                }
                _ => altered(&good, &mut rng),
            };
            std::fs::write(&path, &bad).unwrap();
            match catch_unwind(AssertUnwindSafe(&open)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    refused += 1;
                    assert!(
                        !matches!(error, Error::Config { .. }),
                        "{file}, case {case} names no file: {error}"
                    );
                    assert!(
                        error.to_string().contains(&*folder.to_string_lossy()),
                        "{file}, case {case}: {error}"
                    );
                }
                Err(_) => panic!(
                    "{file} panics in case {case}: {}",
                    String::from_utf8_lossy(&bad)
                ),
            }
        }
        std::fs::write(&path, good).unwrap();
        println!("{file}: {refused} of {cases} refused");
        assert!(
            (1..cases).contains(&refused),
            "{file}: {refused} of {cases} refused"
        );
    }
}

/// A folder to alter, with the files of one of our fixtures.
fn copied(fixture: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(own_fixtures().join("text").join(fixture)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

#[test]
fn altered_language_model_files_never_panic() {
    let flex = device("flex").unwrap();
    let use_it = |model: Gpt2| {
        let n = model.max_position_embeddings().min(5);
        let logits = model.forward(Tensor::<2, Int>::zeros([1, n], &flex));
        assert_eq!(
            logits.into_data().iter::<f32>().count(),
            n * model.vocab_size()
        );
    };
    for (name, files) in [
        ("whole", &["config.json", "model.safetensors"][..]),
        (
            "shards",
            &[
                "model.safetensors.index.json",
                "model-00002-of-00002.safetensors",
            ],
        ),
        ("bin", &["pytorch_model.bin"]),
        (
            "bin-shards",
            &[
                "pytorch_model.bin.index.json",
                "pytorch_model-00001-of-00002.bin",
            ],
        ),
    ] {
        let folder = copied(&format!("gpt2-files/{name}"));
        alter_each(folder.path(), files, 500, || {
            Gpt2::from_pretrained(folder.path(), &flex).map(|model| use_it(model.into_inner()))
        });
    }
    let model = Gpt2::from_pretrained(own_fixtures().join("text/gpt2-files/whole"), &flex)
        .unwrap()
        .into_inner();
    let folder = copied("gpt2-lora/adapters");
    alter_each(
        folder.path(),
        &["adapter_config.json", "adapter_model.safetensors"],
        500,
        || model.clone().load_lora(folder.path()).map(use_it),
    );
}

#[test]
fn altered_generation_options_never_panic() {
    let folder = copied("gpt2-files/whole");
    let model = Gpt2::from_pretrained(folder.path(), &device("flex").unwrap())
        .unwrap()
        .into_inner();
    let beams = GenerationConfig {
        num_beams: 2,
        force_words_ids: vec![WordConstraint::Phrasal(vec![3, 4])],
        bad_words_ids: vec![vec![5], vec![6, 7]],
        ..GenerationConfig::default()
    };
    let drawn = GenerationConfig {
        do_sample: true,
        top_p: 0.9,
        typical_p: 0.9,
        min_p: Some(0.01),
        top_h: Some(0.5),
        sequence_bias: vec![(vec![8, 9], 1.0)],
        suppress_tokens: vec![1],
        exponential_decay_length_penalty: Some((2, 1.5)),
        eos_token_id: Some(TokenIds::Several(vec![0, 2])),
        ..GenerationConfig::default()
    };
    let searched = GenerationConfig {
        penalty_alpha: Some(0.5),
        top_k: 4,
        ..GenerationConfig::default()
    };
    for config in [beams, drawn, searched] {
        let config = GenerationConfig {
            max_length: Some(8),
            bos_token_id: Some(0),
            ..config
        };
        std::fs::write(
            folder.path().join("generation_config.json"),
            serde_json::to_string(&config).unwrap(),
        )
        .unwrap();
        alter_each(folder.path(), &["generation_config.json"], 500, || {
            let config = GenerationConfig::from_pretrained(folder.path())?.into_inner();
            let is_valid = config.validate(model.vocab_size());
            // What is too much for a test is no mistake.
            if is_valid.is_ok() && config.num_beams.saturating_mul(config.num_return_sequences) > 16
            {
                return Ok(());
            }
            match TextGenerator::new(&model, config)
                .and_then(|generator| generator.generate(&[vec![1, 2]]))
            {
                Ok(_) | Err(Error::Config { .. } | Error::InvalidArgument { .. }) => Ok(()),
                Err(other) => panic!("{other}"),
            }
        });
    }
}

#[test]
fn altered_tokenizer_files_never_panic() {
    let text = "the cat sat on the mat, the cat's mat \u{1f600}; ".repeat(20);
    let trained = BpeTokenizer::train([&text].into_iter(), 300).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let open = || -> Result<()> {
        let tokenizer = tokenizer::from_pretrained(path)?;
        if let Ok(tokens) = tokenizer.encode(&text[..100]) {
            assert!(
                tokens
                    .iter()
                    .all(|token| (*token as usize) < tokenizer.vocab_size())
            );
            tokenizer.decode(&tokens);
        }
        Ok(())
    };
    trained.save_pretrained(path).unwrap();
    alter_each(path, &["tokenizer.json"], 1000, open);
    // The same in two files.
    let json: Value =
        serde_json::from_slice(&std::fs::read(path.join("tokenizer.json")).unwrap()).unwrap();
    std::fs::remove_file(path.join("tokenizer.json")).unwrap();
    std::fs::write(path.join("vocab.json"), json["model"]["vocab"].to_string()).unwrap();
    let pair = |pair: &Value| {
        format!(
            "{} {}\n",
            pair[0].as_str().unwrap(),
            pair[1].as_str().unwrap()
        )
    };
    let merges: String = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(pair)
        .collect();
    std::fs::write(path.join("merges.txt"), format!("#version: 0.2\n{merges}")).unwrap();
    assert_eq!(
        BpeTokenizer::from_pretrained(path)
            .unwrap()
            .encode(&text)
            .unwrap(),
        trained.encode(&text).unwrap()
    );
    alter_each(path, &["vocab.json", "merges.txt"], 500, open);
    CharacterTokenizer::from_text(&text)
        .save_pretrained(path)
        .unwrap();
    alter_each(path, &["characters.json"], 500, open);
    let tokens = path.join("text.tokens");
    let from = path.join("text.txt");
    std::fs::write(&from, &text[..100]).unwrap();
    aigc_text::tokenize_file(&from, &trained, &tokens, |_| ()).unwrap();
    alter_each(path, &["text.tokens"], 500, || {
        let windows = TokenDataset::open(&tokens, 4, 3)?;
        (0..windows.len())
            .try_for_each(|i| windows.get(i).map(|window| assert_eq!(window.len(), 5)))
    });
}

/// Vocabularies that promise more tokens than they have, and options that would cut texts.
#[test]
fn inconsistent_tokenizer_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let trained = BpeTokenizer::train(["the cat sat on the mat"].into_iter(), 300).unwrap();
    trained.save_pretrained(folder.path()).unwrap();
    let path = folder.path().join("tokenizer.json");
    let good: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let open = |change: &dyn Fn(&mut Value)| {
        let mut json = good.clone();
        change(&mut json);
        std::fs::write(&path, json.to_string()).unwrap();
        BpeTokenizer::from_pretrained(folder.path())
    };
    for last in [u32::MAX, 4_000_000_000, 1 << 22] {
        let error = open(&|json| json["model"]["vocab"]["th"] = last.into())
            .err()
            .expect("an error")
            .to_string();
        assert!(
            error.contains("tokenizer.json") && error.contains(&last.to_string()),
            "{error}"
        );
    }
    let vocabulary = |json: &mut Value| {
        json["model"]["vocab"]
            .as_object_mut()
            .unwrap()
            .remove("the")
    };
    let error = open(&|json| _ = vocabulary(json))
        .err()
        .expect("an error")
        .to_string();
    assert!(
        error.contains("tokenizer.json") && error.contains("merge"),
        "{error}"
    );
    for mark in ["continuing_subword_prefix", "end_of_word_suffix"] {
        let error = open(&|json| json["model"][mark] = "é".into())
            .err()
            .expect("an error")
            .to_string();
        assert!(
            error.contains("tokenizer.json") && error.contains(mark),
            "{error}"
        );
    }
    let [tokens, merges] = ["vocab.json", "merges.txt"].map(|name| folder.path().join(name));
    std::fs::write(&tokens, r#"{"a":0,"b":1}"#).unwrap();
    std::fs::write(&merges, "#version: 0.2\na b\n").unwrap();
    let error = BpeTokenizer::from_files(&tokens, &merges)
        .err()
        .expect("an error")
        .to_string();
    assert!(
        error.contains("merges.txt") && error.contains("a b"),
        "{error}"
    );
    assert!(BpeTokenizer::train(["a"].into_iter(), usize::MAX).is_err());
    let tables = open(&|json| {
        json["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    });
    assert!(
        tables
            .err()
            .expect("an error")
            .to_string()
            .contains("SentencePiece")
    );
    let cutting = open(&|json| {
        json["truncation"] = json!({
            "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
        });
        json["padding"] = json!({
            "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "!"
        });
    });
    assert_eq!(
        cutting.unwrap().encode("the cat sat").unwrap(),
        trained.encode("the cat sat").unwrap()
    );
}

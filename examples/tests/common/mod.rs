//! What the tests of programs share: where programs are, and a small MNIST.

#![allow(
    dead_code,
    reason = "each test is a program of its own; not all need everything"
)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The built example of this name.
pub(crate) fn program(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples")
        .join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// What it prints; it must succeed.
pub(crate) fn finish(mut command: Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&stderr)
    );
    text
}

/// Writes 40 images of 28×28, and as many to test, in MNIST's format.
pub(crate) fn small_mnist(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 28, 0, 0, 0, 28];
    images.extend((0..40 * 784).map(|i| (i % 256) as u8));
    let labels = [
        vec![0, 0, 8, 1, 0, 0, 0, 40],
        (0..40).map(|i| i % 10).collect(),
    ]
    .concat();
    for part in ["train", "t10k"] {
        std::fs::write(folder.join(format!("{part}-images-idx3-ubyte")), &images).unwrap();
        std::fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), &labels).unwrap();
    }
}

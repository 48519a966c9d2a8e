//! Code that the tests of programs share: paths of programs, a small MNIST data set and a directory
//! with it.

#![allow(
    dead_code,
    reason = "each test is a separate program, and none uses everything"
)]

use aigc_core::{device::device, eval::LeNet5Config, rng::InitWeights, weights::save_weights};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Path of the built example `name`.
pub(crate) fn program(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples")
        .join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// Runs a command, which must succeed; returns its output.
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

/// Runs a training program until it has written the checkpoint of its last step `step` to `run`,
/// after which it evaluates, and interrupts it as Ctrl-C does; returns its output.
#[cfg(unix)]
pub(crate) fn interrupt_evaluation(mut command: Command, run: &Path, step: usize) -> String {
    use std::{process::Stdio, thread::sleep, time::Duration};
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = run.join(format!("checkpoints/step-{step:06}"));
    while child.try_wait().unwrap().is_none() && !checkpoint.exists() {
        sleep(Duration::from_millis(1));
    }
    let mut kill = Command::new("kill");
    let sent = kill.args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{command:?}: {text}");
    assert!(
        text.contains(&format!(
            "stopped after step {step}; to resume, use the same options and --resume --out"
        )),
        "{text}"
    );
    assert!(checkpoint.join("model.safetensors").is_file());
    assert!(run.join("final/model.safetensors").is_file());
    text
}

/// Writes a data set in MNIST's format, with 40 training and 40 test images of 28×28.
pub(crate) fn small_mnist(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 28, 0, 0, 0, 28];
    images.extend((0..40 * 784).map(|i| (i % 256) as u8));
    let labels = [
        vec![0, 0, 8, 1, 0, 0, 0, 40],
        (0..40).map(|i| i % 10).collect(),
    ]
    .concat();
    for part in ["train", "t10k"] {
        std::fs::write(dir.join(format!("{part}-images-idx3-ubyte")), &images).unwrap();
        std::fs::write(dir.join(format!("{part}-labels-idx1-ubyte")), &labels).unwrap();
    }
}

/// A directory with a small MNIST data set and an untrained classifier.
pub(crate) struct World(tempfile::TempDir);

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        small_mnist(&folder.path().join("mnist"));
        let classifier = LeNet5Config.init(&device("flex").unwrap()).init_weights(0);
        save_weights(&classifier, &folder.path().join("lenet.safetensors")).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs the program `name` with `arguments`, separated by spaces.
    pub(crate) fn run(&self, name: &str, arguments: &str) -> String {
        finish(self.command(name, arguments))
    }

    /// The error message of the program `name` for wrong `arguments`.
    pub(crate) fn fails(&self, name: &str, arguments: &str) -> String {
        let output = self.command(name, arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub(crate) fn command(&self, name: &str, arguments: &str) -> Command {
        let mut command = Command::new(program(name));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.path());
        command
    }
}

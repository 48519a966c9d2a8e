//! Fetching data sets into the user's cache folder.

use crate::{Error, Result, checkpoint::sha256};
use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Name in the cache folder, and at the end of the address.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Called with file name, bytes there are and bytes there will be.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// Where the MNIST files are served, tried in order.
pub const MNIST_SOURCES: [&str; 2] =
    ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"];

/// The four files of MNIST.
pub fn mnist_files() -> Vec<Remote> {
    [
        ("train-images-idx3-ubyte.gz", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3-ubyte.gz", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ]
    .map(|(name, bytes, sha256)| Remote { name: name.into(), bytes, sha256: sha256.into() })
    .to_vec()
}

/// The folder for downloaded data: `aigc` in the user's cache folder.
///
/// # Errors
/// [`Error::Config`] if the user has none.
pub fn cache_folder() -> Result<PathBuf> {
    dirs::cache_dir()
        .map(|folder| folder.join("aigc"))
        .ok_or_else(|| Error::config("cache folder", "unknown", "a home folder, or XDG_CACHE_HOME"))
}

/// The folder with MNIST's four files; those that are missing are fetched first.
///
/// # Errors
/// [`Error::Download`] if a file cannot be had from any source.
pub fn mnist(progress: &mut Progress<'_>) -> Result<PathBuf> {
    let folder = cache_folder()?.join("mnist");
    fetch(&MNIST_SOURCES, &mnist_files(), &folder, progress)?;
    Ok(folder)
}

/// Makes sure that all `files` are in `folder`, whole and unaltered. A fetch that broke off goes on where it stopped,
/// with another of the `sources` if need be.
///
/// # Errors
/// [`Error::Download`] saying what each source answered.
pub fn fetch(sources: &[&str], files: &[Remote], folder: &Path, progress: &mut Progress<'_>) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    for file in files {
        let path = folder.join(&file.name);
        if path.is_file() && sha256(&path)? == file.sha256 {
            continue;
        }
        let mut answers = Vec::new();
        let fetched = sources.iter().any(|source| {
            let url = format!("{source}{}", file.name);
            // Twice from each: a broken connection is worth one more call, which goes on where it broke.
            (0..2).any(|_| match fetch_one(&url, file, &path, progress) {
                Ok(()) => true,
                Err(reason) => {
                    answers.push(format!("{url}: {reason}"));
                    false
                }
            })
        });
        if !fetched {
            let reason = format!(
                "{}. Without a connection, put the file into {} yourself",
                answers.join("; "),
                folder.display()
            );
            return Err(Error::Download { url: file.name.clone(), reason });
        }
    }
    Ok(())
}

/// Fetches one file through `NAME.part`.
fn fetch_one(url: &str, file: &Remote, path: &Path, progress: &mut Progress<'_>) -> Result<(), String> {
    let part = path.with_file_name(format!("{}.part", file.name));
    let mut have = fs::metadata(&part).map_or(0, |m| m.len());
    if have > file.bytes {
        fs::remove_file(&part).map_err(|e| e.to_string())?;
        have = 0;
    }
    if have < file.bytes {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // A server that stalls: what has come stays, and the second call goes on from there.
            .timeout_recv_body(Some(Duration::from_secs(600)))
            .build()
            .into();
        let mut request = agent.get(url);
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        let response = request.call().map_err(|e| e.to_string())?;
        // 206 goes on; 200 means that the server starts from the beginning.
        let resumed = response.status() == 206;
        let mut into = OpenOptions::new().create(true).append(resumed).write(true).truncate(!resumed).open(&part);
        let into = into.as_mut().map_err(|e| e.to_string())?;
        if !resumed {
            have = 0;
        }
        let mut body = response.into_body().into_reader().take(file.bytes - have + 1);
        let mut chunk = vec![0; 1 << 16];
        loop {
            let n = body.read(&mut chunk).map_err(|e| format!("broke off after {have} bytes: {e}"))?;
            if n == 0 {
                break;
            }
            into.write_all(&chunk[..n]).map_err(|e| e.to_string())?;
            have += n as u64;
            progress(&file.name, have, file.bytes);
        }
        into.sync_all().map_err(|e| e.to_string())?;
    }
    if have < file.bytes {
        return Err(format!("broke off after {have} of {} bytes", file.bytes));
    }
    let found = sha256(&part).map_err(|e| e.to_string())?;
    if have != file.bytes || found != file.sha256 {
        fs::remove_file(&part).map_err(|e| e.to_string())?;
        return Err(format!("{have} bytes with SHA-256 {found}, expected {} with {}", file.bytes, file.sha256));
    }
    fs::rename(&part, path).map_err(|e| e.to_string())
}

/// A progress bar for the terminal.
#[cfg(feature = "progress")]
pub fn bar() -> impl FnMut(&str, u64, u64) {
    use indicatif::{ProgressBar, ProgressStyle};
    let mut current: Option<(String, ProgressBar)> = None;
    move |name, have, all| {
        if current.as_ref().is_none_or(|(of, _)| of != name) {
            let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}");
            let bar = ProgressBar::new(all).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(name.to_string());
            current = Some((name.to_string(), bar));
        }
        if let Some((_, bar)) = &current {
            bar.set_position(have);
            if have >= all {
                bar.finish();
            }
        }
    }
}

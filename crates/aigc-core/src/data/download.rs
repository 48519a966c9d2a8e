//! Downloads of files, and of data sets into the user's cache directory.

use crate::{Error, Result, fs::sha256};
use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use ureq::config::RedirectAuthHeaders;

/// A file to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Name in the cache directory, and last part of the URL.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Called with the file name, the bytes downloaded so far and the total.
pub type ProgressFn<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// Where the MNIST files are served, tried in order.
pub const MNIST_SOURCES: [&str; 2] = [
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
];

/// The four files of MNIST.
pub fn mnist_files() -> Vec<RemoteFile> {
    [
        (
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ]
    .map(|(name, bytes, sha256)| RemoteFile {
        name: name.into(),
        bytes,
        sha256: sha256.into(),
    })
    .to_vec()
}

/// The directory for downloaded data: `aigc` in the user's cache directory.
///
/// # Errors
/// [`Error::Config`] if the user has no cache directory.
pub fn cache_dir() -> Result<PathBuf> {
    dirs::cache_dir()
        .map(|dir| dir.join("aigc"))
        .ok_or_else(|| {
            Error::config(
                "cache directory",
                "unknown",
                "a home directory, or XDG_CACHE_HOME",
            )
        })
}

/// The directory with MNIST's four files; missing ones are downloaded first.
///
/// # Errors
/// [`Error::Download`] if a file cannot be downloaded from any source.
pub fn mnist(progress: &mut ProgressFn<'_>) -> Result<PathBuf> {
    let dir = cache_dir()?.join("mnist");
    download_files(&MNIST_SOURCES, &mnist_files(), &dir, progress)?;
    Ok(dir)
}

/// Downloads those of `files` that are missing in `dir` or do not match their checksum. An
/// interrupted download resumes where it stopped, from another of the `sources` if necessary.
///
/// # Errors
/// [`Error::Download`] with the error of each source.
pub fn download_files(
    sources: &[&str],
    files: &[RemoteFile],
    dir: &Path,
    progress: &mut ProgressFn<'_>,
) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    for file in files {
        let path = dir.join(&file.name);
        if path.is_file() && sha256(&path)? == file.sha256 {
            continue;
        }
        let mut answers = Vec::new();
        let part = path.with_file_name(format!("{}.part", file.name));
        let fetched = sources.iter().any(|source| {
            let url = format!("{source}{}", file.name);
            let wanted = DownloadRequest {
                name: &file.name,
                url: &url,
                token: None,
                bytes: file.bytes,
                sha256: Some(&file.sha256),
            };
            fetch(&wanted, &part, &path, progress)
                .inspect_err(|reason| answers.push(format!("{url}: {reason}")))
                .is_ok()
        });
        if !fetched {
            let reason = format!(
                "{}. Without a connection, put the file into {} yourself",
                answers.join("; "),
                dir.display()
            );
            return Err(Error::Download {
                url: file.name.clone(),
                reason,
            });
        }
    }
    Ok(())
}

/// A download from one URL.
pub(crate) struct DownloadRequest<'a> {
    /// Name passed to the progress callback.
    pub(crate) name: &'a str,
    pub(crate) url: &'a str,
    /// Access token, sent only to the host of the URL.
    pub(crate) token: Option<&'a str>,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// In hexadecimal; without it only the size is checked.
    pub(crate) sha256: Option<&'a str>,
}

/// The HTTP client. It returns responses of any status instead of errors.
pub(crate) fn agent(redirects: u32) -> ureq::Agent {
    ureq::Agent::config_builder()
        .user_agent(concat!("aigc/", env!("CARGO_PKG_VERSION")))
        .max_redirects(redirects)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        // For a server that stalls; the whole body may take any time.
        .timeout_per_read(Some(Duration::from_secs(60)))
        .build()
        .into()
}

/// Downloads a file into `part`, continuing from its present content, verifies it and renames it to
/// `path`. A broken connection is retried as long as bytes arrive, and once more in case the
/// content of `part` is invalid.
pub(crate) fn fetch(
    wanted: &DownloadRequest<'_>,
    part: &Path,
    path: &Path,
    progress: &mut ProgressFn<'_>,
) -> Result<(), String> {
    let length = || fs::metadata(part).map_or(0, |m| m.len());
    let mut retry = true;
    loop {
        let before = length();
        match fetch_once(wanted, part, progress) {
            Ok(()) => {
                return fs::rename(part, path).map_err(|e| format!("{}: {e}", path.display()));
            }
            Err(_) if length() > before => {}
            Err(_) if retry => retry = false,
            Err(reason) => return Err(reason),
        }
    }
}

fn fetch_once(
    wanted: &DownloadRequest<'_>,
    part: &Path,
    progress: &mut ProgressFn<'_>,
) -> Result<(), String> {
    let on_disk = |e: std::io::Error| format!("{}: {e}", part.display());
    let there = fs::metadata(part).map(|m| m.len()).ok();
    // A longer file is not a beginning of the expected one.
    let mut have = there.filter(|have| *have <= wanted.bytes).unwrap_or(0);
    if there != Some(wanted.bytes) {
        // Without compression: bytes are counted as they are in the file.
        let mut request = agent(10)
            .get(wanted.url)
            .header("Accept-Encoding", "identity");
        if let Some(token) = wanted.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        let response = request.call().map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        if status == 416 && have > 0 {
            // The server does not have these bytes: the next call starts from the beginning.
            fs::remove_file(part).map_err(on_disk)?;
        }
        if status != 200 && status != 206 {
            return Err(format!("http status: {status}"));
        }
        // 206 continues; 200 means that the server sends the file from its beginning.
        let resumed = status == 206 && have > 0;
        let range = response
            .headers()
            .get("Content-Range")
            .and_then(|range| range.to_str().ok());
        if resumed && range.is_some_and(|range| !range.starts_with(&format!("bytes {have}-"))) {
            return Err(format!(
                "the server sent another range than the bytes from {have} on"
            ));
        }
        if !resumed {
            have = 0;
        }
        let mut into = OpenOptions::new();
        let into = into
            .create(true)
            .append(resumed)
            .write(true)
            .truncate(!resumed)
            .open(part);
        let mut into = into.map_err(on_disk)?;
        let mut body = response
            .into_body()
            .into_reader()
            .take((wanted.bytes - have).saturating_add(1));
        let mut chunk = vec![0; 1 << 16];
        loop {
            let n = body
                .read(&mut chunk)
                .map_err(|e| format!("interrupted after {have} bytes: {e}"))?;
            if n == 0 {
                break;
            }
            into.write_all(&chunk[..n]).map_err(on_disk)?;
            have += n as u64;
            progress(wanted.name, have, wanted.bytes);
        }
        into.sync_all().map_err(on_disk)?;
    }
    if have < wanted.bytes {
        return Err(format!(
            "interrupted after {have} of {} bytes",
            wanted.bytes
        ));
    }
    let wrong = match wanted.sha256 {
        _ if have > wanted.bytes => {
            Some(format!("{have} bytes or more, expected {}", wanted.bytes))
        }
        Some(expected) => {
            let found = sha256(part).map_err(|e| e.to_string())?;
            (found != expected)
                .then(|| format!("{have} bytes with SHA-256 {found}, expected {expected}"))
        }
        None => None,
    };
    match wrong {
        Some(reason) => {
            fs::remove_file(part).map_err(on_disk)?;
            Err(reason)
        }
        None => Ok(()),
    }
}

/// A progress bar for the terminal.
#[cfg(feature = "progress")]
pub fn progress_bar() -> impl FnMut(&str, u64, u64) {
    use indicatif::{ProgressBar, ProgressStyle};
    let mut current: Option<(String, ProgressBar)> = None;
    move |name, have, all| {
        if current.as_ref().is_none_or(|(of, _)| of != name) {
            let style = ProgressStyle::with_template(
                "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}",
            );
            let bar = ProgressBar::new(all)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
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

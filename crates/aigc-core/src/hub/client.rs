//! Requests to the hub: commit, hash and size of files, and the files.

use super::{
    Hub,
    cache::{lock, put, symlink},
    url::{check_path, encoded, header, is_commit, same_host},
};
use crate::{
    Error, Result,
    check::ensure_argument,
    data::download::{DownloadRequest, ProgressFn, agent, fetch},
    fs::write_atomic,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Limit on the redirects of a request.
const MAX_REDIRECTS: usize = 5;

/// The result of looking for a file.
pub(super) enum Found {
    Here(PathBuf),
    /// The repository has no such file.
    None,
    /// It is not in the cache, and no request could be made.
    Unknown,
}

/// Why a request has no usable response.
enum Failure {
    /// The hub could not be reached or is overloaded; the cache may have the file.
    Unreachable(String),
    /// The hub refused the request, or its response is invalid.
    Fatal(Error),
}

/// The hub's response about a file.
struct FileInfo {
    commit: String,
    etag: String,
    bytes: u64,
}

/// A client for the files of one revision of a repository.
pub(super) struct RevisionClient<'a> {
    hub: &'a Hub,
    repo: &'a str,
    revision: &'a str,
    /// The repository's name in the cache.
    dir: String,
    /// The commit that the revision refers to, once it is known.
    commit: Option<String>,
    /// Why no more requests are sent.
    unreachable: Option<String>,
    agent: ureq::Agent,
}

impl<'a> RevisionClient<'a> {
    pub(super) fn new(hub: &'a Hub, repo: &'a str, revision: &'a str) -> Result<Self> {
        let is_word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        // Names in the cache have two hyphens in place of the slash.
        let holds = repo.split('/').count() <= 2
            && repo.split('/').all(is_word)
            && repo.len() <= 96
            && !["--", ".."].iter().any(|no| repo.contains(no));
        ensure_argument(
            holds,
            "repository",
            repo,
            "name or organisation/name, of letters, digits, `-`, `_` and `.`",
        )?;
        check_path("revision", revision)?;
        let dir = format!("models--{}", repo.replace('/', "--"));
        let commit = is_commit(revision).then(|| revision.to_string());
        let unreachable = hub
            .offline
            .then(|| "working offline (HF_HUB_OFFLINE)".to_string());
        Ok(Self {
            hub,
            repo,
            revision,
            dir,
            commit,
            unreachable,
            agent: agent(0),
        })
    }

    fn root(&self) -> PathBuf {
        self.hub.cache.join(&self.dir)
    }

    /// The address of the repository.
    pub(super) fn address(&self) -> String {
        format!("{}/{}", self.hub.endpoint.trim_end_matches('/'), self.repo)
    }

    fn url(&self, revision: &str, name: &str) -> String {
        let name: Vec<String> = name.split('/').map(encoded).collect();
        format!(
            "{}/resolve/{}/{}",
            self.address(),
            encoded(revision),
            name.join("/")
        )
    }

    /// The commit of the revision, by the last response of the hub.
    fn known_commit(&self) -> Option<String> {
        self.commit.clone().or_else(|| {
            let commit = fs::read_to_string(self.root().join("refs").join(self.revision)).ok()?;
            Some(commit.trim().to_string()).filter(|commit| is_commit(commit))
        })
    }

    pub(super) fn snapshot(&self) -> Option<PathBuf> {
        self.known_commit()
            .map(|commit| self.root().join("snapshots").join(commit))
    }

    pub(super) fn in_cache(&self, name: &str) -> Found {
        let Some(commit) = self.known_commit() else {
            return Found::Unknown;
        };
        let path = self.root().join("snapshots").join(&commit).join(name);
        if path.is_file() {
            Found::Here(path)
        } else if self
            .root()
            .join(".no_exist")
            .join(&commit)
            .join(name)
            .is_file()
        {
            Found::None
        } else {
            Found::Unknown
        }
    }

    pub(super) fn find(&mut self, name: &str, progress: &mut ProgressFn<'_>) -> Result<Found> {
        check_path("file name", name)?;
        // The files of a commit never change; the commit of a revision does.
        if self.commit.is_some() || self.unreachable.is_some() {
            let found = self.in_cache(name);
            if self.unreachable.is_some() || !matches!(found, Found::Unknown) {
                return Ok(found);
            }
        }
        match self.request_info(name) {
            Ok(Some(info)) => Ok(Found::Here(self.fetch_file(&info, name, progress)?)),
            Ok(None) => {
                if let Some(commit) = &self.commit {
                    // Only saves a request the next time, so errors are ignored.
                    let _ =
                        write_atomic(&self.root().join(".no_exist").join(commit).join(name), b"");
                }
                Ok(Found::None)
            }
            Err(Failure::Unreachable(reason)) => {
                self.unreachable = Some(reason);
                Ok(self.in_cache(name))
            }
            Err(Failure::Fatal(error)) => Err(error),
        }
    }

    /// Requests commit, hash and size of a file, but not its content. `None` if there is no such
    /// file.
    fn request_info(&mut self, name: &str) -> Result<Option<FileInfo>, Failure> {
        let mut url = self.url(self.commit.as_deref().unwrap_or(self.revision), name);
        let fail = |url: &str, reason: String| {
            Failure::Fatal(Error::Download {
                url: url.into(),
                reason,
            })
        };
        let mut redirects = 0;
        let response = loop {
            let mut request = self.agent.head(&url).header("Accept-Encoding", "identity");
            if let Some(token) = &self.hub.token {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| match error {
                ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
                    let reason = format!(
                        "{error}: check the endpoint (HF_ENDPOINT) and the token (HF_TOKEN)"
                    );
                    fail(&url, reason)
                }
                _ => Failure::Unreachable(format!("the hub could not be reached ({error})")),
            })?;
            // Redirects to another host are not followed: the response already describes the file,
            // and the other host must not receive the token.
            match header(&response, "Location").and_then(|location| same_host(&url, location)) {
                Some(next) if response.status().is_redirection() => url = next,
                _ => break response,
            }
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                return Err(fail(
                    &url,
                    format!("redirected more than {MAX_REDIRECTS} times"),
                ));
            }
        };
        let (status, repo) = (response.status().as_u16(), self.repo);
        let commit = header(&response, "X-Repo-Commit");
        if let Some(commit) = commit {
            let expected = self.commit.as_deref();
            if !is_commit(commit) || expected.is_some_and(|expected| expected != commit) {
                return Err(fail(
                    &url,
                    format!(
                        "the response names the commit {commit:?}, expected {}",
                        expected.unwrap_or("40 hexadecimal digits")
                    ),
                ));
            }
            self.commit = Some(commit.to_string());
        }
        let refused = match (
            header(&response, "X-Error-Code").unwrap_or_default(),
            status,
        ) {
            ("EntryNotFound", _) => return Ok(None),
            ("RevisionNotFound", _) => format!("{repo} has no revision {:?}", self.revision),
            ("GatedRepo", _) => {
                format!(
                    "accept the licence at {}, then set HF_TOKEN to a token of your account",
                    self.address()
                )
            }
            ("RepoNotFound", _) => {
                format!("{repo} does not exist or is not public; check the name, or set HF_TOKEN")
            }
            (_, 401) => format!("http status: 401; set HF_TOKEN to a token that may read {repo}"),
            (_, 429 | 500..) => {
                return Err(Failure::Unreachable(format!(
                    "the hub is overloaded (http status: {status})"
                )));
            }
            (_, 400..) => match header(&response, "X-Error-Message") {
                Some(message) => format!("http status: {status}: {message:.200}"),
                None => format!("http status: {status}"),
            },
            _ => String::new(),
        };
        if !refused.is_empty() {
            return Err(fail(&url, refused));
        }
        if commit.is_none() {
            // For example in a network with a login page.
            let reason = format!("{url} is not a hub: the response names no commit");
            return Err(Failure::Unreachable(reason));
        }
        let etag = header(&response, "X-Linked-Etag")
            .or_else(|| header(&response, "ETag"))
            .unwrap_or_default();
        let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        // It is used as a file name.
        let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if etag.is_empty() || etag.len() > 128 || !etag.chars().all(is_safe) {
            return Err(fail(
                &url,
                format!(
                    "the response has the ETag {etag:?}, expected letters, digits, `-` and `_`"
                ),
            ));
        }
        // The length of a redirect response is not that of the file.
        let own = || header(&response, "Content-Length").filter(|_| response.status().is_success());
        let Some(bytes) = header(&response, "X-Linked-Size")
            .or_else(own)
            .and_then(|size| size.parse().ok())
        else {
            return Err(fail(&url, "the response has no length of the file".into()));
        };
        let commit = self.commit.clone().unwrap_or_default();
        Ok(Some(FileInfo {
            commit,
            etag: etag.to_lowercase(),
            bytes,
        }))
    }

    /// Downloads a file into the cache, unless it is there.
    fn fetch_file(
        &self,
        info: &FileInfo,
        name: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<PathBuf> {
        let FileInfo {
            commit,
            etag,
            bytes,
        } = info;
        let root = self.root();
        let (blobs, path) = (
            root.join("blobs"),
            root.join("snapshots").join(commit).join(name),
        );
        let blob = blobs.join(etag);
        let is_complete =
            |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == *bytes);
        if is_complete(&path) {
            return Ok(path);
        }
        let _lock = lock(
            &self
                .hub
                .cache
                .join(".locks")
                .join(&self.dir)
                .join(format!("{etag}.lock")),
        )?;
        // Another process may have downloaded it while this one waited for the lock.
        if is_complete(&path) {
            return Ok(path);
        }
        if !is_complete(&blob) {
            fs::create_dir_all(&blobs).map_err(Error::io(&blobs))?;
            let url = self.url(commit, name);
            // The hub names large files by SHA-256, others by git's hash.
            let sha256 = (etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit()))
                .then_some(etag.as_str());
            let request = DownloadRequest {
                name,
                url: &url,
                token: self.hub.token.as_deref(),
                bytes: *bytes,
                sha256,
            };
            fetch(
                &request,
                &blobs.join(format!("{etag}.part")),
                &blob,
                progress,
            )
            .map_err(|reason| {
                let reason = format!(
                    "{reason}. Try again: an interrupted download resumes where it stopped"
                );
                Error::Download {
                    url: url.clone(),
                    reason,
                }
            })?;
        }
        let mut target: PathBuf = vec![".."; 2 + name.matches('/').count()].iter().collect();
        target.extend(["blobs", etag]);
        put(&blob, &target, &path, |target, path| symlink(target, path))?;
        Ok(path)
    }

    /// Stores the commit of the revision, so that it is known without the hub. Called once the
    /// files of the commit are in the cache: until then an older commit is more useful.
    pub(super) fn save_ref(&self) -> Result<()> {
        let Some(commit) = self
            .commit
            .as_deref()
            .filter(|commit| *commit != self.revision)
        else {
            return Ok(());
        };
        let path = self.root().join("refs").join(self.revision);
        match fs::read(&path) {
            Ok(known) if known == commit.as_bytes() => Ok(()),
            _ => write_atomic(&path, commit.as_bytes()),
        }
    }

    /// The error for a file that is neither in the cache nor can be downloaded.
    pub(super) fn missing(&self, name: &str) -> Error {
        let revision = self.commit.as_deref().unwrap_or(self.revision);
        let (dir, address) = (self.root().display().to_string(), self.address());
        let reason = format!(
            "{}, and the file is not in the cache {dir}. Connect to the network to download it, copy \
             that directory from a computer that has it, or copy the files of {address} to a \
             directory and open that by its path",
            self.unreachable.as_deref().unwrap_or_default(),
        );
        Error::Download {
            url: self.url(revision, name),
            reason,
        }
    }
}

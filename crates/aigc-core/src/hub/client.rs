//! Requests to the hub: commit, content and size of files, and the files themselves.

use super::{
    Hub,
    cache::{lock, put, symlink},
    url::{check_path, encoded, header, is_commit, same_host},
};
use crate::{
    Error, Result,
    check::ensure_argument,
    data::download::{ProgressFn, Wanted, agent, bring},
    fs::write_atomic,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Most redirections of a request.
const HOPS: usize = 5;

/// Where a file is.
pub(super) enum Found {
    Here(PathBuf),
    /// The repository has no such file.
    None,
    /// It is not in the cache, and no request could be made.
    Unknown,
}

/// Why there is no usable answer.
enum Refusal {
    /// The hub could not be reached, or had no time: the cache may help.
    Away(String),
    /// The hub refused, or its answer is invalid.
    No(Error),
}

/// The hub's answer about a file.
struct Answer {
    commit: String,
    etag: String,
    bytes: u64,
}

/// A revision of a repository, while its files are looked for.
pub(super) struct Visit<'a> {
    hub: &'a Hub,
    repo: &'a str,
    revision: &'a str,
    /// The repository's name in the cache.
    dir: String,
    /// The commit that the revision stands for, once that is known.
    commit: Option<String>,
    /// Why no more requests are made.
    away: Option<String>,
    agent: ureq::Agent,
}

impl<'a> Visit<'a> {
    pub(super) fn new(hub: &'a Hub, repo: &'a str, revision: &'a str) -> Result<Self> {
        let is_word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        // Two hyphens stand for the slash in the cache.
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
        let away = hub
            .offline
            .then(|| "working offline (HF_HUB_OFFLINE)".to_string());
        Ok(Self {
            hub,
            repo,
            revision,
            dir,
            commit,
            away,
            agent: agent(0),
        })
    }

    fn root(&self) -> PathBuf {
        self.hub.cache.join(&self.dir)
    }

    /// The address of the repository, for people.
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

    /// The commit of the revision by the hub's last answer.
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

    pub(super) fn look(&mut self, name: &str, progress: &mut ProgressFn<'_>) -> Result<Found> {
        check_path("file name", name)?;
        // The files of a commit never change; the commit of a revision does.
        if self.commit.is_some() || self.away.is_some() {
            let found = self.in_cache(name);
            if self.away.is_some() || !matches!(found, Found::Unknown) {
                return Ok(found);
            }
        }
        match self.ask(name) {
            Ok(Some(answer)) => Ok(Found::Here(self.take(&answer, name, progress)?)),
            Ok(None) => {
                if let Some(commit) = &self.commit {
                    // It saves a request the next time, no more.
                    let _ =
                        write_atomic(&self.root().join(".no_exist").join(commit).join(name), b"");
                }
                Ok(Found::None)
            }
            Err(Refusal::Away(reason)) => {
                self.away = Some(reason);
                Ok(self.in_cache(name))
            }
            Err(Refusal::No(error)) => Err(error),
        }
    }

    /// Requests commit, content hash and size of a file, without the file. `None` if there is no
    /// such file.
    fn ask(&mut self, name: &str) -> Result<Option<Answer>, Refusal> {
        let mut url = self.url(self.commit.as_deref().unwrap_or(self.revision), name);
        let fail = |url: &str, reason: String| {
            Refusal::No(Error::Download {
                url: url.into(),
                reason,
            })
        };
        let mut hops = 0;
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
                _ => Refusal::Away(format!("the hub could not be reached ({error})")),
            })?;
            // What another host is to send is described here already, and it is not to see the
            // token.
            match header(&response, "Location").and_then(|location| same_host(&url, location)) {
                Some(next) if response.status().is_redirection() => url = next,
                _ => break response,
            }
            hops += 1;
            if hops > HOPS {
                return Err(fail(&url, format!("sent on more than {HOPS} times")));
            }
        };
        let (status, repo) = (response.status().as_u16(), self.repo);
        let commit = header(&response, "X-Repo-Commit");
        if let Some(commit) = commit {
            let expected = self.commit.as_deref();
            if !is_commit(commit) || expected.is_some_and(|expected| expected != commit) {
                return Err(fail(
                    &url,
                    format!("the answer is of commit {commit:?}, which will not do"),
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
                format!(
                    "there is no {repo}, or it is not open to all: check the name, or set HF_TOKEN"
                )
            }
            (_, 401) => format!("http status: 401; set HF_TOKEN to a token that may read {repo}"),
            (_, 429 | 500..) => {
                return Err(Refusal::Away(format!(
                    "the hub has no time (http status: {status})"
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
            // As from a network that wants one to log in first.
            let reason =
                format!("{url} answered, but not as a hub does: the answer names no commit");
            return Err(Refusal::Away(reason));
        }
        let etag = header(&response, "X-Linked-Etag")
            .or_else(|| header(&response, "ETag"))
            .unwrap_or_default();
        let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        // It becomes the name of a file.
        let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if etag.is_empty() || etag.len() > 128 || !etag.chars().all(is_safe) {
            return Err(fail(
                &url,
                format!("the answer has the ETag {etag:?}, which will not do"),
            ));
        }
        // A redirection's own length is not that of the file.
        let own = || header(&response, "Content-Length").filter(|_| response.status().is_success());
        let Some(bytes) = header(&response, "X-Linked-Size")
            .or_else(own)
            .and_then(|size| size.parse().ok())
        else {
            return Err(fail(&url, "the answer has no length of the file".into()));
        };
        let commit = self.commit.clone().unwrap_or_default();
        Ok(Some(Answer {
            commit,
            etag: etag.to_lowercase(),
            bytes,
        }))
    }

    /// Brings a file into the cache, unless it is there.
    fn take(&self, answer: &Answer, name: &str, progress: &mut ProgressFn<'_>) -> Result<PathBuf> {
        let Answer {
            commit,
            etag,
            bytes,
        } = answer;
        let root = self.root();
        let (blobs, path) = (
            root.join("blobs"),
            root.join("snapshots").join(commit).join(name),
        );
        let blob = blobs.join(etag);
        let is_whole =
            |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == *bytes);
        if is_whole(&path) {
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
        // Another process may have brought it while this one waited.
        if is_whole(&path) {
            return Ok(path);
        }
        if !is_whole(&blob) {
            fs::create_dir_all(&blobs).map_err(Error::io(&blobs))?;
            let url = self.url(commit, name);
            // The hub names large files by SHA-256, the others as git does.
            let sha256 = (etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit()))
                .then_some(etag.as_str());
            let wanted = Wanted {
                name,
                url: &url,
                token: self.hub.token.as_deref(),
                bytes: *bytes,
                sha256,
            };
            bring(
                &wanted,
                &blobs.join(format!("{etag}.part")),
                &blob,
                progress,
            )
            .map_err(|reason| {
                let reason = format!(
                    "{reason}. Try again: a download that broke off goes on where it broke"
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

    /// Notes which commit the revision stands for, so that it is found without the hub. Done when
    /// its files are there: until then an older commit serves better.
    pub(super) fn remember(&self) -> Result<()> {
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
            "{}, and {dir} does not hold the file. With a connection it is fetched; without one, copy that directory \
             from a computer that has it, or the files of {address} into a directory of your own and open that by its path",
            self.away.as_deref().unwrap_or_default(),
        );
        Error::Download {
            url: self.url(revision, name),
            reason,
        }
    }
}

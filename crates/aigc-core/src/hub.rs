//! Files of models by name, from the Hugging Face hub or a mirror, into the cache that its other
//! programs use too.
//!
//! ```text
//! cache/models--organisation--name/
//!   blobs/ETAG               what files hold, under the name that the hub gives their content
//!   refs/main                the commit that a revision stands for
//!   snapshots/COMMIT/FILE    the files of a commit: links to their content
//!   .no_exist/COMMIT/FILE    files that a commit has not
//! ```

use crate::{
    Error, Result,
    check::ensure,
    checkpoint::write_atomic,
    data::download::{ProgressFn, Wanted, agent, bring},
};
use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};
use ureq::{
    Body,
    http::{Response, Uri},
};

/// The hub itself.
const ENDPOINT: &str = "https://huggingface.co";

/// How often a question may be sent on to another address.
const HOPS: usize = 5;

/// Where files of models come from, and where they are kept.
#[derive(Clone)]
pub struct Hub {
    /// Address of the hub, or of a mirror.
    pub endpoint: String,
    /// The cache folder: one folder for each repository.
    pub cache: PathBuf,
    /// Access token, for what is not open to everyone. No other host than that of `endpoint` gets
    /// to see it.
    pub token: Option<String>,
    /// Whether to use what is in the cache and ask nobody.
    pub offline: bool,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "hidden"))
            .field("offline", &self.offline)
            .finish()
    }
}

impl Hub {
    /// As the environment says, by the hub's own variables: `HF_ENDPOINT`, `HF_HUB_CACHE`,
    /// `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, and `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`. The
    /// cache is `~/.cache/huggingface/hub` if none of them names another.
    ///
    /// # Errors
    /// [`Error::Config`] without a home folder; [`Error::Io`] for a token that cannot be read.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| env::var_os(name), dirs::home_dir())
    }

    fn from_variables(
        variable: impl Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
    ) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text =
            |name: &str| variable(name).map(|value| value.to_string_lossy().trim().to_string());
        let is_on = |name: &str| {
            let value = text(name).unwrap_or_default().to_lowercase();
            ["1", "on", "yes", "true"].contains(&value.as_str())
        };
        let cache = variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| home.map(|home| home.join(".cache")));
        let own = variable("HF_HOME")
            .map(PathBuf::from)
            .or_else(|| cache.map(|cache| cache.join("huggingface")));
        let cache = variable("HF_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| own.as_ref().map(|own| own.join("hub")));
        let cache = cache.ok_or_else(|| {
            Error::config("cache folder", "unknown", "HF_HUB_CACHE, or a home folder")
        })?;
        let mut token = text("HF_TOKEN");
        let path = variable("HF_TOKEN_PATH")
            .map(PathBuf::from)
            .or_else(|| own.map(|own| own.join("token")));
        if let (None, Some(path)) = (&token, path) {
            token = match fs::read_to_string(&path) {
                Ok(text) => Some(text.trim().to_string()),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(Error::io(path)(error)),
            };
        }
        Ok(Self {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into()),
            cache,
            token: token.filter(|token| !token.is_empty()),
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
        })
    }

    /// A file of a repository, at a revision (a branch, a tag or a commit); `None` if it has no
    /// such file. What is in the cache is not fetched again, and a commit's files are not even
    /// asked for. Where the hub cannot be reached, the newest commit of the revision that is in the
    /// cache serves.
    ///
    /// # Errors
    /// [`Error::Download`] if it cannot be had, saying why and what to do; [`Error::Config`] for a
    /// name that is none; [`Error::Io`] if the cache cannot be written.
    pub fn download(
        &self,
        repo: &str,
        revision: &str,
        name: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<Option<PathBuf>> {
        let mut visit = Visit::new(self, repo, revision)?;
        let found = match visit.look(name, progress)? {
            Found::Here(path) => Some(path),
            Found::None => None,
            Found::Unknown => return Err(visit.missing(name)),
        };
        visit.remember()?;
        Ok(found)
    }

    /// The folder with all files of `wanted` that a repository has, all of the same commit, which
    /// is the folder's name. Where the hub cannot be reached, with those that are in the cache.
    ///
    /// # Errors
    /// As [`download`](Self::download), and [`Error::Download`] if there is none of them.
    pub fn snapshot_download(
        &self,
        repo: &str,
        revision: &str,
        wanted: &[&str],
        progress: &mut ProgressFn<'_>,
    ) -> Result<PathBuf> {
        let mut visit = Visit::new(self, repo, revision)?;
        let (mut any, mut missing) = (false, None);
        for name in wanted {
            match visit.look(name, progress)? {
                Found::Here(_) => any = true,
                Found::None => {}
                Found::Unknown => missing = missing.or(Some(*name)),
            }
        }
        match (any.then(|| visit.snapshot()).flatten(), missing) {
            (Some(folder), _) => {
                visit.remember()?;
                Ok(folder)
            }
            (None, Some(name)) => Err(visit.missing(name)),
            (None, None) => {
                let reason = format!("revision {revision} has none of {}", wanted.join(", "));
                Err(Error::Download {
                    url: visit.address(),
                    reason,
                })
            }
        }
    }

    /// A file that is in the cache already. Nobody is asked.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that is none.
    pub fn try_load_from_cache(
        &self,
        repo: &str,
        revision: &str,
        name: &str,
    ) -> Result<Option<PathBuf>> {
        let visit = Visit::new(self, repo, revision)?;
        check_path("file name", name)?;
        Ok(match visit.in_cache(name) {
            Found::Here(path) => Some(path),
            _ => None,
        })
    }
}

/// What is known of a file.
enum Found {
    Here(PathBuf),
    /// The repository has no such file.
    None,
    /// It is not in the cache, and nobody could be asked.
    Unknown,
}

/// Why there is no answer.
enum Refusal {
    /// The hub could not be reached, or had no time: the cache may help.
    Away(String),
    /// The hub answered, and what it said will not do.
    No(Error),
}

/// What the hub says of a file.
struct Answer {
    commit: String,
    etag: String,
    bytes: u64,
}

/// A revision of a repository, while its files are looked for.
struct Visit<'a> {
    hub: &'a Hub,
    repo: &'a str,
    revision: &'a str,
    /// The repository's name in the cache.
    folder: String,
    /// The commit that the revision stands for, once that is known.
    commit: Option<String>,
    /// Why the hub is not asked any more.
    away: Option<String>,
    agent: ureq::Agent,
}

impl<'a> Visit<'a> {
    fn new(hub: &'a Hub, repo: &'a str, revision: &'a str) -> Result<Self> {
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
        ensure(
            holds,
            "repository",
            repo,
            "name or organisation/name, of letters, digits, `-`, `_` and `.`",
        )?;
        check_path("revision", revision)?;
        let folder = format!("models--{}", repo.replace('/', "--"));
        let commit = is_commit(revision).then(|| revision.to_string());
        let away = hub
            .offline
            .then(|| "working offline (HF_HUB_OFFLINE)".to_string());
        Ok(Self {
            hub,
            repo,
            revision,
            folder,
            commit,
            away,
            agent: agent(0),
        })
    }

    fn root(&self) -> PathBuf {
        self.hub.cache.join(&self.folder)
    }

    /// For people.
    fn address(&self) -> String {
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

    /// The commit, as the hub said, or as it said the last time.
    fn known_commit(&self) -> Option<String> {
        self.commit.clone().or_else(|| {
            let commit = fs::read_to_string(self.root().join("refs").join(self.revision)).ok()?;
            Some(commit.trim().to_string()).filter(|commit| is_commit(commit))
        })
    }

    fn snapshot(&self) -> Option<PathBuf> {
        self.known_commit()
            .map(|commit| self.root().join("snapshots").join(commit))
    }

    fn in_cache(&self, name: &str) -> Found {
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

    fn look(&mut self, name: &str, progress: &mut ProgressFn<'_>) -> Result<Found> {
        check_path("file name", name)?;
        // What a commit holds never changes; what a revision stands for does.
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
                    // It saves a question the next time, no more.
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

    /// Asks for commit, content and size of a file, without the file. `None` if there is no such
    /// file.
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
            return Err(fail(
                &url,
                "the answer does not say how long the file is".into(),
            ));
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
                .join(&self.folder)
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
    fn remember(&self) -> Result<()> {
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

    /// Neither in the cache nor to be had.
    fn missing(&self, name: &str) -> Error {
        let revision = self.commit.as_deref().unwrap_or(self.revision);
        let (folder, address) = (self.root().display().to_string(), self.address());
        let reason = format!(
            "{}, and {folder} does not hold the file. With a connection it is fetched; without one, copy that folder \
             from a computer that has it, or the files of {address} into a folder of yours and open that by its path",
            self.away.as_deref().unwrap_or_default(),
        );
        Error::Download {
            url: self.url(revision, name),
            reason,
        }
    }
}

/// Makes `path` a link to `target`, which is `blob` seen from there; where there are no links,
/// `blob` moves there.
fn put(
    blob: &Path,
    target: &Path,
    path: &Path,
    link: impl Fn(&Path, &Path) -> io::Result<()>,
) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    // Under another name first, so that there is never a moment without the file.
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{file}.{}.tmp", std::process::id()));
    let _ = fs::remove_file(&temporary); // of a process that was killed
    match link(target, &temporary) {
        Ok(()) => fs::rename(&temporary, path).map_err(Error::io(path)),
        Err(_) => fs::rename(blob, path).map_err(Error::io(path)),
    }
}

#[cfg(unix)]
use std::os::unix::fs::symlink;
#[cfg(windows)]
use std::os::windows::fs::symlink_file as symlink;
#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Waits until no other process brings the same file; held until dropped.
fn lock(path: &Path) -> Result<File> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(Error::io(path))?;
    match file.lock() {
        // Some network drives have no locks.
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(Error::io(path)(error)),
        _ => Ok(file),
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
}

/// Where `location` leads from `url`, if that is on the same host and no less secret.
fn same_host(url: &str, location: &str) -> Option<String> {
    let from: Uri = url.parse().ok()?;
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let next = if location.contains("://") {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let (folder, _) = from.path().rsplit_once('/')?;
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let to: Uri = next.parse().ok()?;
    let is_safe = to.scheme() == from.scheme() || to.scheme_str() == Some("https");
    (is_safe && to.host()?.eq_ignore_ascii_case(from.host()?)).then_some(next)
}

fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Refuses what would lead out of a folder, here or on another system.
fn check_path(field: &str, path: &str) -> Result<()> {
    let is_word = |word: &str| {
        !["", ".", ".."].contains(&word)
            && !word.contains(|c: char| c.is_control() || c == '\\' || c == ':')
    };
    ensure(
        path.split('/').all(is_word),
        field,
        format!("{path:?}"),
        "a relative path with `/`, without `..`",
    )
}

/// One segment of an address.
fn encoded(segment: &str) -> String {
    let byte = |b: u8| match b {
        b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        _ if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    segment.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(variables: &[(&str, &str)]) -> Hub {
        let find = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.into())
        };
        Hub::from_variables(find, Some("/home/me".into())).unwrap()
    }

    #[test]
    fn the_environment_names_hub_cache_token_and_whether_to_stay_offline() {
        let plain = hub(&[
            ("HF_TOKEN_PATH", "/nowhere"),
            ("HF_HUB_OFFLINE", "0"),
            ("HF_ENDPOINT", ""),
        ]);
        assert_eq!(
            (plain.endpoint.as_str(), plain.token.as_ref(), plain.offline),
            (ENDPOINT, None, false)
        );
        assert_eq!(plain.cache, Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(
            hub(&[("XDG_CACHE_HOME", "/x")]).cache,
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(
            hub(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")]).cache,
            Path::new("/h/hub")
        );
        assert_eq!(
            hub(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache,
            Path::new("/c")
        );
        for on in ["1", "ON", "yes", "True"] {
            assert!(hub(&[("TRANSFORMERS_OFFLINE", on)]).offline);
        }
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let home = home.path().to_str().unwrap();
        assert_eq!(hub(&[("HF_HOME", home)]).token.as_deref(), Some("hf_file"));
        let given = hub(&[("HF_HOME", home), ("HF_TOKEN", " hf_given ")]);
        assert_eq!(given.token.as_deref(), Some("hf_given"));
        assert!(!format!("{given:?}").contains("hf_given"));
        assert!(
            Hub::from_variables(|_| None, None)
                .unwrap_err()
                .to_string()
                .contains("HF_HUB_CACHE")
        );
    }

    #[test]
    fn a_redirection_stays_on_its_host_or_is_not_followed() {
        let from = "https://hub.co/a/b?c";
        for (location, expected) in [
            ("/x/y?z", Some("https://hub.co/x/y?z")),
            ("x", Some("https://hub.co/a/x")),
            ("https://hub.co/x", Some("https://hub.co/x")),
            ("https://HUB.co/x", Some("https://HUB.co/x")),
            ("//evil.co/x", None),
            ("https://evil.co/x", None),
            ("https://hub.co@evil.co/x", None),
            ("https://hub.co.evil.co/x", None),
            ("http://hub.co/x", None),
            ("https://[", None),
            ("", Some("https://hub.co/a/")),
        ] {
            assert_eq!(same_host(from, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in [
            "",
            "/etc/passwd",
            "../a",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "c:a",
            "a\nb",
            "a\0",
        ] {
            assert!(check_path("file name", bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a/b.c", "refs/pr/1", "..a", "\u{e9} b"] {
            assert!(check_path("file name", good).is_ok(), "{good:?}");
        }
        assert_eq!(encoded("refs/pr/1 \u{e9}%"), "refs%2Fpr%2F1%20%C3%A9%25");
    }

    #[test]
    fn without_links_the_file_itself_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (blob, path) = (folder.path().join("blob"), folder.path().join("a/b"));
        fs::write(&blob, "content").unwrap();
        put(&blob, Path::new("../blob"), &path, |_, _| {
            Err(ErrorKind::PermissionDenied.into())
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert!(!blob.exists());
    }
}

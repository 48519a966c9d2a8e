//! Models by name, from the Hugging Face hub or a mirror, in the cache that other Hugging Face
//! programs use, too.
//!
//! ```text
//! cache/models--organisation--name/
//!   blobs/ETAG               contents of files, named by the hub's hash of the content
//!   refs/main                the commit that a revision refers to
//!   snapshots/COMMIT/FILE    the files of a commit: links to their content
//!   .no_exist/COMMIT/FILE    names of files that a commit does not have
//! ```

//!
//! Written by hand: the `hf-hub` crate with blocking calls brings an asynchronous runtime and a
//! second HTTP client, and its smaller versions lack checksums, timeouts and offline use.

mod cache;
mod client;
mod url;

use crate::{Error, Result, data::download::ProgressFn};
use client::{Found, RevisionClient};
use std::{env, ffi::OsString, fs, io::ErrorKind, path::PathBuf};
use url::check_path;

/// Default address of the hub.
const ENDPOINT: &str = "https://huggingface.co";

/// The hub or a mirror of it, and the local cache.
#[derive(Clone)]
pub struct Hub {
    /// Address of the hub, or of a mirror.
    pub endpoint: String,
    /// The cache directory: one subdirectory for each repository.
    pub cache: PathBuf,
    /// Access token, for repositories that are not public. It is sent to the host of `endpoint`
    /// only.
    pub token: Option<String>,
    /// Whether to use the cache only, without any request.
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
    /// The hub configured by the environment variables of Hugging Face's own programs:
    /// `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, and `HF_HUB_OFFLINE`
    /// or `TRANSFORMERS_OFFLINE`. The default cache is `~/.cache/huggingface/hub`.
    ///
    /// # Errors
    /// [`Error::Config`] without a home directory; [`Error::Io`] for a token that cannot be read.
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
            Error::config(
                "cache directory",
                "unknown",
                "HF_HUB_CACHE, or a home directory",
            )
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

    /// Path of a file of a repository at a revision (a branch, a tag or a commit), downloaded if it
    /// is not in the cache; `None` if the repository has no such file. For files of a commit that
    /// are in the cache, no request is sent. If the hub cannot be reached, the newest commit of the
    /// revision in the cache is used.
    ///
    /// # Errors
    /// [`Error::Download`] if the file cannot be downloaded, with the reason and what to do;
    /// [`Error::InvalidArgument`] for an invalid name; [`Error::Io`] if the cache cannot be
    /// written.
    pub fn download(
        &self,
        repo: &str,
        revision: &str,
        name: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<Option<PathBuf>> {
        let mut client = RevisionClient::new(self, repo, revision)?;
        let found = match client.find(name, progress)? {
            Found::Here(path) => Some(path),
            Found::None => None,
            Found::Unknown => return Err(client.missing(name)),
        };
        client.save_ref()?;
        Ok(found)
    }

    /// Directory with those of the files `wanted` that a repository has, all of the same commit,
    /// whose name the directory has. Missing files are downloaded; if the hub cannot be reached,
    /// the directory contains the files that are in the cache.
    ///
    /// # Errors
    /// As [`download`](Self::download), and [`Error::Download`] if the repository has none of the
    /// files.
    pub fn snapshot_download(
        &self,
        repo: &str,
        revision: &str,
        wanted: &[&str],
        progress: &mut ProgressFn<'_>,
    ) -> Result<PathBuf> {
        let mut client = RevisionClient::new(self, repo, revision)?;
        let (mut any, mut missing) = (false, None);
        for name in wanted {
            match client.find(name, progress)? {
                Found::Here(_) => any = true,
                Found::None => {}
                Found::Unknown => missing = missing.or(Some(*name)),
            }
        }
        match (any.then(|| client.snapshot()).flatten(), missing) {
            (Some(dir), _) => {
                client.save_ref()?;
                Ok(dir)
            }
            (None, Some(name)) => Err(client.missing(name)),
            (None, None) => {
                let reason = format!("revision {revision} has none of {}", wanted.join(", "));
                Err(Error::Download {
                    url: client.address(),
                    reason,
                })
            }
        }
    }

    /// Path of a file in the cache, without any request; `None` if it is not there.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an invalid name.
    pub fn try_load_from_cache(
        &self,
        repo: &str,
        revision: &str,
        name: &str,
    ) -> Result<Option<PathBuf>> {
        let client = RevisionClient::new(self, repo, revision)?;
        check_path("file name", name)?;
        Ok(match client.in_cache(name) {
            Found::Here(path) => Some(path),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

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
    fn from_env_reads_hub_variables() {
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
}

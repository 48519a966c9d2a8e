//! Pictures that are answered by their address.

use crate::{error::ApiError, random::random_name};
use axum::body::Bytes;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A picture that is kept.
#[derive(Clone, Debug)]
pub(crate) struct KeptFile {
    pub(crate) bytes: Bytes,
    pub(crate) mime_type: &'static str,
    until: Instant,
}

/// Pictures under names that cannot be guessed, for a time.
#[derive(Debug)]
pub(crate) struct Files {
    kept: Mutex<HashMap<String, KeptFile>>,
    lifetime: Duration,
    max_bytes: usize,
}

impl Files {
    pub(crate) fn new(lifetime: Duration, max_bytes: usize) -> Self {
        Self {
            kept: Mutex::default(),
            lifetime,
            max_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, KeptFile>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a picture; returns its name.
    pub(crate) fn keep(&self, bytes: Vec<u8>, mime_type: &'static str) -> Result<String, ApiError> {
        let name = random_name();
        let name = name.ok_or_else(|| ApiError::internal("no random numbers"))?;
        let extension = mime_type.strip_prefix("image/").unwrap_or("png");
        let name = format!("{name}.{extension}");
        let now = Instant::now();
        let file = KeptFile {
            bytes: bytes.into(),
            mime_type,
            until: now + self.lifetime,
        };
        let mut kept = self.lock();
        kept.retain(|_, file| file.until > now);
        let mut total: usize = kept.values().map(|file| file.bytes.len()).sum();
        while total + file.bytes.len() > self.max_bytes {
            let oldest = kept.iter().min_by_key(|(_, file)| file.until);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                break;
            };
            total -= kept.remove(&oldest).map_or(0, |file| file.bytes.len());
        }
        kept.insert(name.clone(), file);
        Ok(name)
    }

    /// The picture with a name, if it is still there.
    pub(crate) fn find(&self, name: &str) -> Option<KeptFile> {
        let now = Instant::now();
        self.lock()
            .get(name)
            .filter(|file| file.until > now)
            .cloned()
    }

    /// Removes what has been kept long enough.
    pub(crate) fn clean(&self) {
        let now = Instant::now();
        let mut kept = self.lock();
        kept.retain(|_, file| file.until > now);
        kept.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_kept_for_a_time() {
        let files = Files::new(Duration::from_secs(60), 100);
        let name = files.keep(vec![1, 2], "image/png").unwrap();
        assert!(name.len() == 36 && name.ends_with(".png"), "{name}");
        let found = files.find(&name).unwrap();
        assert_eq!(
            (&found.bytes[..], found.mime_type),
            (&[1, 2][..], "image/png")
        );
        assert!(files.find("other").is_none());
        assert_ne!(files.keep(vec![1, 2], "image/png").unwrap(), name);

        let files = Files::new(Duration::ZERO, 100);
        let name = files.keep(vec![1], "image/webp").unwrap();
        assert!(files.find(&name).is_none());
        files.clean();
        assert!(files.lock().is_empty());
    }

    #[test]
    fn oldest_pictures_give_way() {
        let files = Files::new(Duration::from_secs(60), 10);
        let names: Vec<_> = (0..4)
            .map(|_| files.keep(vec![0; 4], "image/png").unwrap())
            .collect();
        let there: Vec<_> = names
            .iter()
            .map(|name| files.find(name).is_some())
            .collect();
        assert_eq!(there, [false, false, true, true]);
        let large = files.keep(vec![0; 20], "image/png").unwrap();
        assert!(files.find(&large).is_some());
        assert_eq!(files.lock().len(), 1);
    }
}

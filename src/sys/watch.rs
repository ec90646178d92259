//! Wakes up when something changes in a folder.
//!
//! inotify is a hint, never the truth: events may be lost (queue overflow, network file systems), so whoever is woken
//! looks at the folder itself, and also looks from time to time without being woken.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use thiserror::Error;
use tokio::sync::Notify;

/// Watches folders until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    _inner: RecommendedWatcher,
}

/// A folder that cannot be watched.
#[derive(Debug, Error)]
#[error("failed to watch `{}`", path.display())]
pub struct Error {
    /// The folder.
    pub path: PathBuf,
    /// The reason.
    pub source: notify::Error,
}

impl Watcher {
    /// Watches `dirs`, not their sub-folders, and wakes `changed` after each change that may matter.
    ///
    /// Writing to a file that stays open does not wake: hundreds of such events precede the one that tells that it was
    /// closed.
    pub fn start<'a>(
        dirs: impl IntoIterator<Item = &'a Path>,
        changed: Arc<Notify>,
    ) -> Result<Self, Error> {
        let handler = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| may_matter(event.kind)) {
                changed.notify_one();
            }
        };
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error { path, source }
        };
        let mut inner =
            notify::recommended_watcher(handler).map_err(failed(Path::new("inotify")))?;
        for dir in dirs {
            inner
                .watch(dir, RecursiveMode::NonRecursive)
                .map_err(failed(dir))?;
        }
        Ok(Self { _inner: inner })
    }
}

const fn may_matter(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => matches!(access, AccessKind::Close(AccessMode::Write)),
        EventKind::Modify(change) => !matches!(change, notify::event::ModifyKind::Data(_)),
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn closing_a_file_wakes() {
        let dir = tempfile::tempdir().unwrap();
        let changed = Arc::new(Notify::new());
        let _watcher = Watcher::start([dir.path()], Arc::clone(&changed)).unwrap();
        crate::sys::fs::replace_file(&dir.path().join("x"), b"x", 0o600).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(10), changed.notified())
            .await
            .expect("a change wakes");
    }
}

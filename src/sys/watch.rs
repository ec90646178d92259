//! Wakes up when something changes in a folder.
//!
//! inotify is a hint, never the truth: events may be lost (queue overflow, network file systems), so whoever is woken
//! looks at the folder itself, and also looks from time to time without being woken.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use thiserror::Error;
use tokio::sync::Notify;

/// Watches folders until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    inner: RecommendedWatcher,
    /// What [`Self::follow`] was told last.
    followed: BTreeSet<PathBuf>,
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
        Ok(Self {
            inner,
            followed: BTreeSet::new(),
        })
    }

    /// Watches `dirs` besides the folders from the start, in place of those of the call before. Returns whether there is
    /// one that was not watched until now: what happened in it before did not wake anybody.
    ///
    /// One that cannot be watched is logged once, and is then like a network file system: whoever looks finds out.
    pub fn follow(&mut self, dirs: &BTreeSet<PathBuf>) -> bool {
        for gone in self.followed.difference(dirs) {
            // An error means that the kernel has forgotten it together with the folder.
            drop(self.inner.unwatch(gone));
        }
        let mut has_new = false;
        for dir in dirs.difference(&self.followed) {
            match self.inner.watch(dir, RecursiveMode::NonRecursive) {
                Ok(()) => has_new = true,
                Err(error) => {
                    tracing::warn!(path = %dir.display(), %error, "folder cannot be watched");
                }
            }
        }
        self.followed.clone_from(dirs);
        has_new
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

    #[tokio::test]
    async fn folders_are_followed_until_they_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        crate::sys::fs::ensure_dir(&inner).unwrap();
        let changed = Arc::new(Notify::new());
        let mut watcher = Watcher::start([dir.path()], Arc::clone(&changed)).unwrap();
        let dirs = BTreeSet::from([inner.clone()]);
        assert!(watcher.follow(&dirs));
        assert!(!watcher.follow(&dirs));
        crate::sys::fs::replace_file(&inner.join("x"), b"x", 0o600).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(10), changed.notified())
            .await
            .expect("a change in a folder that is followed wakes");
        crate::sys::fs::empty_dir(dir.path()).unwrap();
        assert!(!watcher.follow(&BTreeSet::new()));
        assert!(
            !watcher.follow(&dirs),
            "a folder that is gone cannot be watched"
        );
    }
}

//! What processes that were killed have left unfinished.
//!
//! A file that is to appear whole is written under another name and renamed. SIGKILL in between leaves it under that name,
//! where nobody looks for it: [`sweep`] removes such files from the folders that are the daemon's own. Staged blobs are the
//! business of the store, which empties its folder when it is opened.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::audit;
use crate::base::{Chain, Timestamp};
use crate::config::{self, Config};
use crate::ingest;
use crate::sys::fs as durable;

/// Folders of the state directory into which files are renamed, itself included.
const STATE_DIRS: [&str; 4] = ["", audit::DIR, "packages", "packages/removed"];
/// How deep resources lie below the folder of a platform: in one for each cluster, and there in one for each namespace.
const PLATFORM_DEPTH: usize = 2;

/// Removes the unfinished files that were last written before `before`, when this process began. A folder that cannot be
/// read is said and left.
pub(super) fn sweep(config: &Config, before: Timestamp) {
    let before = SystemTime::from(before);
    let mut swept = 0;
    let mut waiting = list_folders(config);
    while let Some((dir, depth)) = waiting.pop() {
        match durable::sweep_temps(&dir, before) {
            Ok(count) => swept += count,
            Err(error) => {
                tracing::warn!(dir = %dir.display(), reason = %Chain(&error), "unfinished files stay");
            }
        }
        if depth > 0 {
            waiting.extend(folders_in(&dir).map(|dir| (dir, depth - 1)));
        }
    }
    if swept > 0 {
        tracing::info!(
            files = swept,
            "removed what an earlier process left unfinished"
        );
    }
}

/// Lists the folders that files are renamed into, each with how many levels of folders below it are its own as well.
fn list_folders(config: &Config) -> Vec<(PathBuf, usize)> {
    let state = STATE_DIRS.map(|name| (config.state_dir.join(name), 0));
    let mut folders = Vec::from(state);
    for drop in &config.drops {
        let dirs = [&drop.done_dir, &drop.rejected_dir, &drop.requests_dir];
        folders.extend(dirs.map(|dir| (dir.clone(), ingest::FOLDER_DEPTH_MAX)));
    }
    for target in &config.targets {
        if let config::Platform::Directory(directory) = &target.platform {
            folders.push((directory.path.clone(), PLATFORM_DEPTH));
        }
    }
    folders
}

/// Lists the folders in a folder, as far as it can be read. Links are not followed.
fn folders_in(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_folder = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(is_folder).map(|entry| entry.path())
}

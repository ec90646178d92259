//! Making the catalog again from the files of `packages/`.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::geteuid;

use super::{Error, check_is_there};
use crate::catalog;
use crate::store::Store;
use crate::sys::lock::Lock;

/// Lets `rebuild_catalog` make the catalog of the state directory `root` again, while nobody else has it.
///
/// What is made belongs to the user of this process: another one than the owner of the lock file is refused, because the
/// daemon could not open the catalog afterwards.
pub fn rebuild<T>(
    root: &Path,
    rebuild_catalog: impl FnOnce(&Path) -> Result<T, catalog::Error>,
) -> Result<T, Error> {
    check_is_there(root)?;
    // A format that is unknown, or a folder that is none of ours, is left alone.
    Store::open_read_only(root)?;
    let path = root.join("LOCK");
    let found = geteuid().as_raw();
    if let Ok(metadata) = path.metadata()
        && metadata.uid() != found
    {
        let owner = metadata.uid();
        return Err(Error::WrongUser { path, owner, found });
    }
    let _lock = Lock::acquire(&path)?;
    Ok(rebuild_catalog(root)?)
}

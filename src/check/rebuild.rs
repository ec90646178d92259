//! Making the catalog again from the files of `packages/`.

use std::path::Path;

use super::{Error, check_is_there};
use crate::catalog;
use crate::store::Store;
use crate::sys::lock::Lock;

/// Lets `rebuild_catalog` make the catalog of the state directory `root` again, while nobody else has it.
///
/// What is made belongs to the user of this process, so that another one than the owner of the lock file is refused.
pub fn rebuild<T>(
    root: &Path,
    rebuild_catalog: impl FnOnce(&Path) -> Result<T, catalog::Error>,
) -> Result<T, Error> {
    check_is_there(root)?;
    // A format that is unknown, or a folder that is none of ours, is left alone.
    Store::open_read_only(root)?;
    let _lock = Lock::acquire_as_owner(&root.join("LOCK"))?;
    Ok(rebuild_catalog(root)?)
}

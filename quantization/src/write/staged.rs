//! A file or folder that takes its name only when it is complete.

use std::fs;
use std::path::{Path, PathBuf};

use candle_engine::{Error, Result};

/// Something that is written under another name, beside its place. Dropped before [`Staged::commit`], it goes.
#[derive(Debug)]
pub struct Staged {
    destination: PathBuf,
    temporary: PathBuf,
    done: bool,
}

impl Staged {
    /// A folder.
    ///
    /// Errors: `Input` if something is at the destination, an empty folder excepted; `Io` naming what cannot be made.
    pub fn folder(destination: &Path) -> Result<Self> {
        let empty = || fs::read_dir(destination).is_ok_and(|mut entries| entries.next().is_none());
        if destination.exists() && !empty() {
            return Err(taken(destination));
        }
        let staged = Self::beside(destination)?;
        fs::create_dir(&staged.temporary).map_err(|e| Error::io(&staged.temporary, e))?;
        Ok(staged)
    }

    /// A file.
    ///
    /// Errors: as [`Self::folder`].
    pub fn file(destination: &Path) -> Result<Self> {
        if destination.exists() {
            return Err(taken(destination));
        }
        Self::beside(destination)
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives it its name.
    ///
    /// Errors: `Io` naming the destination.
    pub fn commit(mut self) -> Result<()> {
        if self.destination.is_dir() {
            // An empty one: see `folder`. Not every system renames over it.
            fs::remove_dir(&self.destination).map_err(|e| Error::io(&self.destination, e))?;
        }
        fs::rename(&self.temporary, &self.destination).map_err(|e| Error::io(&self.destination, e))?;
        self.done = true;
        Ok(())
    }

    fn beside(destination: &Path) -> Result<Self> {
        let name = destination.file_name().ok_or_else(|| {
            Error::Input(format!("{}: expected a name for the result", destination.display()))
        })?;
        let name = format!(".{}.partial-{}", name.to_string_lossy(), std::process::id());
        if let Some(parent) = destination.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        }
        Ok(Self {
            destination: destination.to_owned(),
            temporary: destination.with_file_name(name),
            done: false,
        })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.done {
            let _ = match self.temporary.is_dir() {
                true => fs::remove_dir_all(&self.temporary),
                false => fs::remove_file(&self.temporary),
            };
        }
    }
}

fn taken(destination: &Path) -> Error {
    Error::Input(format!("{}: is there already", destination.display()))
}

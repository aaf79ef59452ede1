//! Opening the directory of a file's sidecars, and making it: with the rights of the data that they belong to, and
//! only where nobody else could have put something in our way.

use std::fs::Metadata;
use std::io;
use std::sync::Arc;

use super::directory::Directory;
use super::rights::{Rights, distrust, on_one_device, only_we_write};
use crate::sidecar::place::home::{Below, Choice, LocalDir};

/// Why the directory of sidecars is not used.
#[derive(Debug)]
pub(crate) enum DirectoryError {
    /// Somebody who cannot write the Parquet file could have written what lies there.
    Untrusted(String),
    Io(io::Error),
}

impl From<io::Error> for DirectoryError {
    fn from(error: io::Error) -> Self {
        DirectoryError::Io(error)
    }
}

/// What to do about directories that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Leave,
}

/// Opens the directory; `None` if it is missing and is not to be made.
pub(crate) fn open(home: &LocalDir, missing: Missing) -> Result<Option<Arc<Directory>>, DirectoryError> {
    let parquet = home
        .parquet
        .as_deref()
        .and_then(|path| std::fs::metadata(path).ok());
    let mut at = match Directory::open(&home.base) {
        Err(error) if is_missing(&error) && missing == Missing::Leave => return Ok(None),
        Err(error) if is_missing(&error) && home.choice == Choice::Named => {
            std::fs::create_dir_all(&home.base)?;
            Directory::open(&home.base)?
        }
        opened => opened?,
    };
    let mut like = match home.choice {
        Choice::Named => Some(at.metadata()?),
        Choice::Sibling | Choice::Beside => None,
    };
    for (level, below) in home.below.iter().enumerate() {
        match below.like.as_deref().map(std::fs::metadata) {
            Some(Err(error)) if missing == Missing::Make => return Err(error.into()),
            // Of a partition that is gone, the rights of the table's directory are known at least.
            None | Some(Err(_)) => {}
            Some(Ok(meta)) => like = Some(meta),
        }
        let table = like
            .as_ref()
            .filter(|_| level == 0 && home.choice == Choice::Sibling);
        if let Some(table) = table
            && missing == Missing::Make
            && !on_one_device(table, &at.metadata()?)
        {
            let text = format!(
                "{} would be on another file system than the table",
                home.path().display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text).into());
        }
        let Some(next) = enter(&at, below, like.as_ref(), missing, home.choice)? else {
            return Ok(None);
        };
        if home.choice != Choice::Named
            && let Some(why) = distrust(&next.metadata()?, like.as_ref(), parquet.as_ref())
        {
            return Err(DirectoryError::Untrusted(format!(
                "{}: {why}",
                next.path().display()
            )));
        }
        at = next;
    }
    Ok(Some(Arc::new(at)))
}

fn enter(
    at: &Directory,
    below: &Below,
    like: Option<&Metadata>,
    missing: Missing,
    choice: Choice,
) -> Result<Option<Directory>, DirectoryError> {
    match at.child(&below.name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if missing == Missing::Leave {
                return Ok(None);
            }
            match at.make(&below.name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Ok(Some(at.child(&below.name)?))
                }
                made => {
                    made?;
                    let made = at.child(&below.name)?;
                    if let Some(like) = like {
                        Rights::of_directory(like).give(made.handle())?;
                    }
                    Ok(Some(made))
                }
            }
        }
        Err(_) if at.is_link(&below.name) => {
            let path = at.path().join(&below.name);
            // Where others can write, they could turn the link elsewhere at any moment.
            if choice != Choice::Named && !only_we_write(&at.metadata()?) {
                let why = "it is a symbolic link in a directory that other users can write";
                return Err(DirectoryError::Untrusted(format!("{}: {why}", path.display())));
            }
            match Directory::open(&path) {
                Err(error) if is_missing(&error) && missing == Missing::Leave => Ok(None),
                opened => Ok(Some(opened?)),
            }
        }
        Err(error) if is_missing(&error) && missing == Missing::Leave => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    )
}

/// Removes the directories that builds have made, as far as they are empty.
pub(crate) fn remove_empty(home: &LocalDir) {
    let mut above = home.clone();
    while let Some(last) = above.below.pop() {
        let removed = match open(&above, Missing::Leave) {
            Ok(Some(dir)) => dir.remove_directory(&last.name),
            Ok(None) => Ok(()),
            Err(_) => return,
        };
        if removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
            return;
        }
    }
}

/// Who may read a sidecar in this directory: nobody who may not read its Parquet file.
pub(crate) fn rights(home: &LocalDir) -> Rights {
    let rights = match (&home.parquet, home.choice) {
        (Some(parquet), Choice::Named) => Rights::of_reachable_file(parquet),
        (Some(parquet), Choice::Sibling | Choice::Beside) => Rights::of_file(parquet),
        // Who may read the file in its store is not known here, so the user's directory decides.
        (None, _) => std::fs::metadata(&home.base).map(|meta| Rights::of_file_in(&meta)),
    };
    rights.unwrap_or(Rights::PRIVATE)
}

//! Reading: [`lookup`] finds the sidecar of a file, [`open`] opens it, [`verify`] says when its bytes are checked.
//! [`inventory`] lists all of them: in which directories is in [`places`], what is told of each in [`entry`], and
//! [`orphans`] are those whose Parquet file is gone.

pub(crate) mod entry;
pub(crate) mod inventory;
pub(crate) mod lookup;
pub(crate) mod open;
mod orphans;
mod places;
pub(crate) mod verify;

//! Reading: [`lookup`] finds the sidecar of a file, [`open`] opens it, [`verify`] says when its bytes are checked,
//! [`inventory`] lists all of them.

pub(crate) mod inventory;
pub(crate) mod lookup;
pub(crate) mod open;
pub(crate) mod verify;

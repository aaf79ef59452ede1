//! Writing: [`publish`] puts a sidecar in place, [`upload`] sends one to an object store (a large one in [`parts`]),
//! [`remove`] deletes one.

pub(crate) mod parts;
pub(crate) mod publish;
pub(crate) mod remove;
pub(crate) mod upload;

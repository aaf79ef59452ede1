//! The local file system: who may do what ([`rights`]) in an open [`directory`], the directory of a file's sidecars
//! ([`sidecar_dir`]), and sidecars being written there ([`part_file`], [`unfinished`]).

pub(crate) mod directory;
pub(crate) mod known_hashes;
pub(crate) mod part_file;
pub(crate) mod rights;
pub(crate) mod sidecar_dir;
pub(crate) mod unfinished;

//! Files of the local file system while they are written: [`unfinished`] names them, [`part_file`] locks them and renames
//! them into place.

pub(crate) mod known_hashes;
pub(crate) mod part_file;
pub(crate) mod unfinished;

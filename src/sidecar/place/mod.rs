//! What a sidecar is called ([`name`]), and where it lives: which directories a file's sidecars may be in
//! ([`location`]), and what such a directory is made of ([`home`]).

pub(crate) mod home;
pub(crate) mod location;
pub(crate) mod name;

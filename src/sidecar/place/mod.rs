//! What a sidecar is called ([`name`]) and where it lives ([`location`]).

pub(crate) mod location;
pub(crate) mod name;

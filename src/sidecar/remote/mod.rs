//! Object stores: [`requests`] with a time limit, [`listing_cache`] for what directories hold, [`download`] of sidecars
//! into [`cache_dir`].

pub(crate) mod cache_dir;
pub(crate) mod download;
pub(crate) mod listing_cache;
pub(crate) mod requests;

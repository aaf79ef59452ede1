//! Promises of the ground floor: the index and its bytes.

#[path = "core/bytes.rs"]
mod bytes;
#[path = "core/common.rs"]
mod common;
#[path = "core/exactness.rs"]
mod exactness;
#[path = "core/search.rs"]
mod search;

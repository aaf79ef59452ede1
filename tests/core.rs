//! Promises of the ground floor: the index and its bytes.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that panics has failed"
)]

#[path = "core/build.rs"]
mod build;
#[path = "core/bytes.rs"]
mod bytes;
#[path = "core/clusters.rs"]
mod clusters;
#[path = "core/common.rs"]
mod common;
#[path = "core/exactness.rs"]
mod exactness;
#[path = "core/filters.rs"]
mod filters;
#[path = "core/fuzz.rs"]
mod fuzz;
#[path = "core/golden.rs"]
mod golden;
#[path = "core/search.rs"]
mod search;

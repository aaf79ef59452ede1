//! Promises of the room where sidecars live: one suite over every kind of store, and what happens when things break.
#![allow(unreachable_pub, reason = "a test is not a library")]

#[path = "core/broken.rs"]
mod broken;
#[path = "store/cache.rs"]
mod cache;
#[path = "store/child.rs"]
mod child;
#[path = "store/conformance.rs"]
mod conformance;
#[path = "store/crash.rs"]
mod crash;
#[cfg(feature = "datafusion")]
#[path = "store/damage.rs"]
mod damage;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/fuzz.rs"]
mod fuzz;
#[path = "store/http.rs"]
mod http;
#[cfg(feature = "datafusion")]
#[path = "store/limits.rs"]
mod limits;
#[path = "store/listing.rs"]
mod listing;
#[path = "store/load.rs"]
mod load;
#[path = "store/local.rs"]
mod local;
#[cfg(feature = "datafusion")]
#[path = "store/locality.rs"]
mod locality;
#[cfg(feature = "datafusion")]
#[path = "store/many.rs"]
mod many;
#[cfg(feature = "datafusion")]
#[path = "store/orphans.rs"]
mod orphans;
#[cfg(unix)]
#[path = "store/others.rs"]
mod others;
#[cfg(feature = "datafusion")]
#[path = "store/readers.rs"]
mod readers;
#[cfg(feature = "datafusion")]
#[path = "store/replaced.rs"]
mod replaced;
#[path = "store/rights.rs"]
mod rights;
#[path = "store/roles.rs"]
mod roles;
#[path = "store/s3.rs"]
mod s3;
#[path = "store/sample.rs"]
mod sample;
#[path = "store/server.rs"]
mod server;
#[cfg(feature = "datafusion")]
#[path = "store/sessions.rs"]
mod sessions;
#[cfg(feature = "datafusion")]
#[path = "store/sql.rs"]
mod sql;
#[cfg(feature = "datafusion")]
#[path = "store/sql_roles.rs"]
mod sql_roles;
#[cfg(feature = "datafusion")]
#[path = "store/table.rs"]
mod table;
#[path = "store/told.rs"]
mod told;
#[path = "store/uploads.rs"]
mod uploads;
#[path = "store/wrapped.rs"]
mod wrapped;

//! `RESET hnsw.<setting>`, which DataFusion knows for its own settings only.

use datafusion::common::Result;
use datafusion::sql::sqlparser::ast::ObjectName;

use crate::sql::options::{default_of, unknown};

/// The name of the setting, if it is one of ours.
pub(super) fn setting(name: &ObjectName) -> Option<String> {
    let name = name.to_string().to_ascii_lowercase();
    Some(name.strip_prefix("hnsw.")?.to_owned())
}

/// The `SET` that gives a setting its default.
pub(super) fn reset(setting: &str) -> Result<String> {
    let default = default_of(setting).ok_or_else(|| unknown(setting))?;
    Ok(format!("SET hnsw.{setting} = '{}'", default.replace('\'', "''")))
}

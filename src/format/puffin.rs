//! The container: an Apache Iceberg Puffin file, whose footer any tool can list.
//!
//! ```text
//! PFA1  blob  blob  ...  PFA1  payload (JSON)  payload length (i32)  flags (4 bytes, 0)  PFA1
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::FormatError;

/// At both ends of the file and before the footer's payload.
pub(super) const MAGIC: [u8; 4] = *b"PFA1";
/// Bytes of a footer besides its payload: magic, length, flags, magic.
const FRAME: usize = 16;
/// The property that holds the payload's checksum, computed with zeros in its place.
const CHECKSUM: &str = "footer-xxh3-64";
const NO_CHECKSUM: &str = "0000000000000000";
/// The property of a blob that holds its checksum.
pub(super) const BLOB_CHECKSUM: &str = "xxh3-64";

/// One blob, as the footer lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Blob {
    pub(super) r#type: String,
    pub(super) fields: Vec<i32>,
    pub(super) snapshot_id: i64,
    pub(super) sequence_number: i64,
    pub(super) offset: u64,
    pub(super) length: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) compression_codec: Option<String>,
    #[serde(default)]
    pub(super) properties: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Footer {
    pub(super) blobs: Vec<Blob>,
    #[serde(default)]
    pub(super) properties: BTreeMap<String, String>,
}

impl Footer {
    /// The bytes that end the file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut footer = self.clone();
        footer
            .properties
            .insert(CHECKSUM.to_owned(), NO_CHECKSUM.to_owned());
        let blank = serde_json::to_string(&footer).expect("strings and numbers always serialise");
        let sum = format!("{:016x}", xxh3_64(blank.as_bytes()));
        footer.properties.insert(CHECKSUM.to_owned(), sum);
        let payload = serde_json::to_string(&footer).expect("strings and numbers always serialise");
        let length = u32::try_from(payload.len()).expect("a footer is far below 4 GiB");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(payload.as_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(MAGIC);
        bytes
    }

    /// Reads the footer at the end of `file`, checking its frame and its checksum. Also gives where it
    /// begins.
    pub(super) fn from_file(file: &[u8]) -> Result<(Self, usize), FormatError> {
        let damaged = |reason: &str| FormatError::damaged("footer", reason);
        if !file.starts_with(&MAGIC) || file.len() < MAGIC.len() + FRAME {
            return Err(FormatError::NotASidecar);
        }
        let (rest, frame) = file.split_last_chunk::<12>().ok_or(FormatError::NotASidecar)?;
        let [l0, l1, l2, l3, flags @ .., m0, m1, m2, m3] = *frame;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(damaged("the file does not end in PFA1; it may be cut short"));
        }
        if flags != [0; 4] {
            return Err(damaged("unknown flags, or a compressed footer"));
        }
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let begin = rest
            .len()
            .checked_sub(length)
            .and_then(|payload| payload.checked_sub(MAGIC.len()))
            .filter(|&begin| begin >= MAGIC.len())
            .ok_or_else(|| damaged("longer than the file"))?;
        let payload = rest[begin..]
            .strip_prefix(&MAGIC)
            .ok_or_else(|| damaged("does not begin with PFA1"))?;
        check(payload).ok_or_else(|| damaged("the checksum does not agree"))?;
        let footer = serde_json::from_slice(payload).map_err(|error| damaged(&error.to_string()))?;
        Ok((footer, begin))
    }
}

/// Whether the payload agrees with the checksum it holds.
fn check(payload: &[u8]) -> Option<()> {
    let key = format!("\"{CHECKSUM}\":\"");
    // The footer's own properties come after those of the blobs.
    let at = payload
        .windows(key.len())
        .rposition(|window| window == key.as_bytes())?
        + key.len();
    let mut blank = payload.to_vec();
    let place = blank.get_mut(at..at + NO_CHECKSUM.len())?;
    let claimed = String::from_utf8(place.to_vec()).ok()?;
    place.copy_from_slice(NO_CHECKSUM.as_bytes());
    (claimed == format!("{:016x}", xxh3_64(&blank))).then_some(())
}

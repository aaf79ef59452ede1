//! Hashes of Parquet files, kept from process to process in the private directory of copies.
//!
//! A line for each file: the key of its state, its hash, and a check of both. A line is appended by one write, so that
//! several processes may share the file. A line that does not hold is passed over, and its file is hashed again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::stamp::Stamp;

/// The length of a line: two numbers of 128 bits and one of 64 in hexadecimal, spaces between them, and its end.
const LINE: usize = 32 + 1 + 32 + 1 + 16 + 1;

/// Bytes that the file may have. With more it is begun anew.
const MOST: u64 = 65_536 * LINE as u64;

/// The hashes that earlier processes found out.
#[derive(Debug)]
pub(crate) struct KnownHashes {
    path: PathBuf,
    hashes: HashMap<u128, u128>,
}

impl KnownHashes {
    /// Reads what is kept at `path`, which may be nothing.
    pub(crate) fn load(path: &Path) -> Self {
        let bytes = read(path);
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let hashes = lines.filter_map(parse).collect();
        Self {
            path: path.to_owned(),
            hashes,
        }
    }

    /// Where they are kept.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The hash of the file at `path`, in hexadecimal, if it was found out in this state.
    pub(crate) fn get(&self, path: &Path, stamp: &Stamp) -> Option<String> {
        let hash = self.hashes.get(&key(path, stamp))?;
        Some(format!("{hash:032x}"))
    }

    /// Keeps the hash of a file. What cannot be kept is found out again.
    pub(crate) fn keep(&mut self, path: &Path, stamp: &Stamp, hash: &str) {
        let Ok(hash) = u128::from_str_radix(hash, 16) else {
            return;
        };
        let key = key(path, stamp);
        self.hashes.insert(key, hash);
        if !std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.is_file() && meta.len() < MOST) {
            let _ = std::fs::remove_file(&self.path);
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        if let Ok(mut file) = options.open(&self.path) {
            // A line that a killed process began must not swallow this one.
            let begin = if ends_in_a_line(&mut file) { "" } else { "\n" };
            let _ = file.write_all(format!("{begin}{}", line(key, hash)).as_bytes());
        }
    }
}

/// The bytes of the file. Anything but a regular file of a decent size counts as empty.
fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Opening a pipe would wait for its writer.
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
        && let Ok(file) = File::open(path)
    {
        let _ = file.take(MOST).read_to_end(&mut bytes);
    }
    bytes
}

fn ends_in_a_line(file: &mut File) -> bool {
    let mut last = [b'\n'];
    let _ = file
        .seek(SeekFrom::End(-1))
        .and_then(|_| file.read_exact(&mut last));
    last == [b'\n']
}

/// The key of a file in this state: its path, its device, and what its tag says.
fn key(path: &Path, stamp: &Stamp) -> u128 {
    let mut text = format!("{}:{}:", stamp.device(), stamp.tag()).into_bytes();
    text.extend_from_slice(path.as_os_str().as_encoded_bytes());
    xxh3_128(&text)
}

fn line(key: u128, hash: u128) -> String {
    let pair = format!("{key:032x} {hash:032x}");
    format!("{pair} {:016x}\n", xxh3_64(pair.as_bytes()))
}

fn parse(bytes: &[u8]) -> Option<(u128, u128)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut numbers = text.split(' ');
    let mut number = || u128::from_str_radix(numbers.next()?, 16).ok();
    let (key, hash) = (number()?, number()?);
    (line(key, hash) == text).then_some((key, hash))
}

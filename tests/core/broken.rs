//! Ways to break a sidecar so that it gets past the checks in front of what is to be broken: checksums are made to agree.

use std::ops::Range;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

/// Where the header lies in a sidecar, and its checksum in the header.
const HEADER: Range<usize> = 4..4 + 256;
const HEADER_SUM: usize = 248;
/// The first byte after the header's section.
const BODY: usize = 320;
/// Length, flags and magic at the end of the file.
const FRAME: usize = 12;
const FOOTER_SUM: &str = "\"footer-xxh3-64\":\"";

/// Numbers that are likelier than others to be a limit of something.
const EDGES: [u32; 10] = [
    0,
    1,
    2,
    31,
    32,
    255,
    1 << 16,
    i32::MAX as u32,
    u32::MAX - 1,
    u32::MAX,
];

/// Where the footer's JSON lies in a whole sidecar.
fn payload(good: &[u8]) -> Range<usize> {
    let end = good.len() - FRAME;
    let length: [u8; 4] = good[end..end + 4].try_into().expect("four bytes");
    end.saturating_sub(u32::from_le_bytes(length) as usize)..end
}

/// The same sidecar with this footer, whose checksum agrees.
fn with_footer(good: &[u8], payload_text: &str) -> Vec<u8> {
    let mut text = payload_text.to_owned();
    if let Some(at) = text.rfind(FOOTER_SUM) {
        let at = at + FOOTER_SUM.len();
        if text.is_char_boundary(at + 16) && at + 16 <= text.len() {
            text.replace_range(at..at + 16, "0000000000000000");
            let sum = format!("{:016x}", xxh3_64(text.as_bytes()));
            text.replace_range(at..at + 16, &sum);
        }
    }
    let mut bytes = good[..payload(good).start].to_vec();
    bytes.extend(text.as_bytes());
    bytes.extend(u32::try_from(text.len()).expect("short").to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(b"PFA1");
    bytes
}

/// A Puffin footer that says anything, in a frame that says anything now and then.
pub(crate) fn footer(good: &[u8], random: &mut StdRng) -> Vec<u8> {
    let text = std::str::from_utf8(&good[payload(good)]).expect("JSON");
    let mut bytes = with_footer(good, &change_text(text, random));
    if random.random_range(0..8) == 0 {
        let at = bytes.len() - 1 - random.random_range(0..FRAME);
        match random.random() {
            true => bytes[at] = random.random(),
            false => {
                let at = bytes.len() - FRAME;
                bytes[at..at + 4].copy_from_slice(&edge(random).to_le_bytes());
            }
        }
    }
    bytes
}

/// The footer with a number, a word or a piece of it changed.
fn change_text(text: &str, random: &mut StdRng) -> String {
    const NUMBERS: [&str; 10] = [
        "0",
        "1",
        "-1",
        "4294967295",
        "4294967296",
        "18446744073709551615",
        "9223372036854775807",
        "1e999",
        "null",
        "63",
    ];
    let mut text = text.to_owned();
    for _ in 0..random.random_range(1..4) {
        let digits: Vec<usize> = text
            .char_indices()
            .filter(|(_, c)| c.is_ascii_digit())
            .map(|(at, _)| at)
            .collect();
        let Some(&digit) = digits.choose(random) else {
            return text;
        };
        let at = random.random_range(0..text.len());
        match random.random_range(0..5) {
            0 | 1 => {
                let end = digit + text[digit..].chars().take_while(char::is_ascii_digit).count();
                text.replace_range(digit..end, NUMBERS.choose(random).expect("some"));
            }
            2 => text.replace_range(digit..=digit, &random.random_range(0..10).to_string()),
            3 => {
                let end = (at + random.random_range(1..40)).min(text.len());
                if text.is_char_boundary(at) && text.is_char_boundary(end) {
                    let piece = text[at..end].to_owned();
                    let words = [String::new(), piece.clone() + &piece, "[]".into(), "{}".into()];
                    text.replace_range(at..end, words.choose(random).expect("some"));
                }
            }
            _ if text.is_char_boundary(at) => text.insert(at, ['"', '}', ']', ',', '9', 'é'][at % 6]),
            _ => {}
        }
    }
    text
}

/// A header that agrees with its checksum, and a table of sections that agrees with its own.
pub(crate) fn header_and_sections(good: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    if random.random_range(0..3) > 0 {
        let text = std::str::from_utf8(&good[payload(good)]).expect("JSON");
        let mut footer: Value = serde_json::from_str(text).expect("JSON");
        for _ in 0..random.random_range(1..3) {
            change_table(footer["blobs"].as_array_mut().expect("blobs"), random);
        }
        bytes = with_footer(good, &footer.to_string());
    }
    if random.random_range(0..3) > 0 {
        for _ in 0..random.random_range(1..4) {
            // Not the magic and the version, which are refused first.
            let at = HEADER.start + random.random_range(12..HEADER_SUM);
            change_word(&mut bytes, at, random);
        }
        agree(&mut bytes);
    }
    bytes
}

/// One entry of the table of sections is moved, stretched, renamed, doubled, split or lost.
fn change_table(blobs: &mut Vec<Value>, random: &mut StdRng) {
    if blobs.is_empty() {
        return;
    }
    let at = random.random_range(0..blobs.len());
    let other = random.random_range(0..blobs.len());
    let (offset, length) = (number(&blobs[at]["offset"]), number(&blobs[at]["length"]));
    match random.random_range(0..9) {
        0 => blobs[at]["offset"] = json!(moved(offset, random)),
        1 => blobs[at]["length"] = json!(moved(length, random)),
        2 => blobs[at]["type"] = blobs[other]["type"].clone(),
        3 => blobs[at]["type"] = json!("another-blob"),
        4 => blobs.swap(at, other),
        5 => {
            blobs.remove(at);
        }
        6 => blobs[at]["compression-codec"] = json!("zstd"),
        7 => blobs[at]["properties"] = json!({ "xxh3-64": format!("{:016x}", random.random::<u64>()) }),
        // As a section of more than one blob is written, now and then with a gap.
        _ => {
            let cut = random.random_range(0..=length);
            let mut rest = blobs[at].clone();
            blobs[at]["length"] = json!(cut);
            rest["offset"] = json!(offset.saturating_add(cut) + u64::from(random.random_range(0..4) == 0));
            rest["length"] = json!(length - cut);
            blobs.insert(at + 1, rest);
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn moved(number: u64, random: &mut StdRng) -> u64 {
    match random.random_range(0..4) {
        0 => number.wrapping_add(1 << random.random_range(0..64)),
        1 => number.saturating_sub(random.random_range(0..200)),
        2 => u64::from(edge(random)),
        _ => number + random.random_range(0..200),
    }
}

/// A whole sidecar with a few words or bits changed anywhere, often cut, and the header's checksum made to agree.
pub(crate) fn sidecar(good: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = match random.random_range(0..4) {
            0 => HEADER.start + random.random_range(8..HEADER_SUM),
            1 => bytes.len() - 1 - random.random_range(0..bytes.len().min(1500)),
            _ => random.random_range(BODY..bytes.len()),
        };
        change_word(&mut bytes, at, random);
    }
    if random.random_range(0..8) > 0 {
        agree(&mut bytes);
    }
    if random.random_range(0..16) == 0 {
        bytes.truncate(random.random_range(0..bytes.len()));
    }
    bytes
}

/// Sections that hold anything, behind a header and a footer that are as they were.
pub(crate) fn sections(good: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let body = BODY..payload(good).start - 4;
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(body.clone());
        if random.random_range(0..4) == 0 {
            let end = (at + random.random_range(1..200)).min(body.end);
            bytes[at..end].fill(random.random());
        } else {
            change_word(&mut bytes, at.min(body.end - 4), random);
        }
    }
    bytes
}

/// A file with a piece missing at its end or in its middle, or with one too many.
pub(crate) fn length(good: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..3) {
        0 => bytes.truncate(at),
        1 => {
            let end = (at + random.random_range(1..5000)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let more = vec![random.random(); random.random_range(1..5000)];
            bytes.splice(at..at, more);
        }
    }
    bytes
}

/// A bit, a byte or a word.
fn change_word(bytes: &mut [u8], at: usize, random: &mut StdRng) {
    match random.random_range(0..3) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        _ => {
            let word = edge(random);
            let at = (at & !3).min(bytes.len() - 4);
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
    }
}

fn edge(random: &mut StdRng) -> u32 {
    match random.random() {
        true => *EDGES.choose(random).expect("some"),
        false => random.random_range(0..200),
    }
}

/// Makes the header's checksum agree.
fn agree(bytes: &mut [u8]) {
    let header = &mut bytes[HEADER];
    let sum = xxh3_64(&header[..HEADER_SUM]).to_le_bytes();
    header[HEADER_SUM..].copy_from_slice(&sum);
}

/// The same sidecar with checksums of its blobs that agree: what it holds is damaged on purpose, not by chance.
pub(crate) fn agreeing(mut bytes: Vec<u8>) -> Vec<u8> {
    let Some(text) = (bytes.len() > 100).then(|| payload(&bytes)).and_then(|place| {
        let text = std::str::from_utf8(bytes.get(place)?).ok()?;
        let mut footer: Value = serde_json::from_str(text).ok()?;
        for blob in footer["blobs"].as_array_mut()? {
            let begin = usize::try_from(number(&blob["offset"])).ok()?;
            let end = begin.checked_add(usize::try_from(number(&blob["length"])).ok()?)?;
            let sum = format!("{:016x}", xxh3_64(bytes.get(begin..end)?));
            blob["properties"]["xxh3-64"] = json!(sum);
        }
        Some(footer.to_string())
    }) else {
        return bytes;
    };
    bytes = with_footer(&bytes, &text);
    bytes
}

/// The footer of a whole sidecar.
pub(crate) fn footer_of(good: &[u8]) -> Value {
    serde_json::from_slice(&good[payload(good)]).expect("JSON")
}

/// The same sidecar as it was written before rows had checksums.
pub(crate) fn without_row_sums(good: &[u8]) -> Vec<u8> {
    let mut footer = footer_of(good);
    let blobs = footer["blobs"].as_array_mut().expect("blobs");
    let is_sums = |blob: &Value| {
        blob["type"]
            .as_str()
            .is_some_and(|kind| kind.contains("row-sums"))
    };
    let Some(place) = blobs.iter().position(is_sums) else {
        return good.to_vec();
    };
    let begin = usize::try_from(number(&blobs.remove(place)["offset"])).expect("small");
    // They are the last section; the footer follows with its magic.
    let mut bytes = good[..begin].to_vec();
    bytes.extend(&good[payload(good).start - 4..]);
    with_footer(&bytes, &footer.to_string())
}

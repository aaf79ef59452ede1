//! The rooms of `src/` only look down: `id <- hnsw <- format <- loader <- sidecar <- {create, sql}` and
//! `id <- hnsw <- rows <- {create, sql}`. A lower room that needs something of an upper one is passed a value.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms that it may import besides itself. `error` is what all of them may report.
const LOOKS_DOWN_ON: [(&str, &[&str]); 10] = [
    ("id", &[]),
    ("stamp", &[]),
    ("error", &["id", "hnsw", "format", "rows", "sidecar"]),
    ("hnsw", &["id"]),
    ("format", &["id", "hnsw"]),
    ("loader", &["id", "hnsw", "format"]),
    ("sidecar", &["id", "stamp", "hnsw", "format", "loader", "error"]),
    ("rows", &["id", "stamp", "hnsw", "error"]),
    (
        "create",
        &["id", "hnsw", "format", "loader", "sidecar", "rows", "error"],
    ),
    (
        "sql",
        &[
            "id", "hnsw", "format", "loader", "sidecar", "rows", "create", "error",
        ],
    ),
];

/// The rooms that work without DataFusion.
const GROUND_FLOOR: [&str; 5] = ["id", "stamp", "hnsw", "format", "loader"];

#[test]
fn imports_only_point_down() {
    let allowed: BTreeMap<&str, &[&str]> = LOOKS_DOWN_ON.into_iter().collect();
    let mut wrong = Vec::new();
    for (room, file, text) in sources() {
        let Some(below) = allowed.get(room.as_str()) else {
            continue;
        };
        for (number, line) in code_lines(&text) {
            for named in rooms_named(line, &allowed) {
                if named != room && !below.contains(&named) {
                    wrong.push(format!("{}:{number}: {room} looks up to {named}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_the_ddl_of_sql_builds_indexes() {
    let builds = |line: &str| {
        line.contains("crate::create::create")
            || (line.contains("crate::create::{") && line.contains(" create"))
    };
    let mut wrong = Vec::new();
    for (room, file, text) in sources() {
        if room == "sql" && !file.ends_with("sql/ddl/create_index.rs") {
            wrong.extend(
                code_lines(&text)
                    .filter(|(_, l)| builds(l))
                    .map(|(n, _)| format!("{}:{n}", file.display())),
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "only sql/ddl/create_index.rs calls create, but also:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_ground_floor_does_not_name_datafusion() {
    for (room, file, text) in sources() {
        if GROUND_FLOOR.contains(&room.as_str()) {
            for (number, line) in code_lines(&text) {
                for name in [
                    "datafusion::",
                    "arrow::",
                    "parquet::",
                    "object_store::",
                    "tokio::",
                ] {
                    assert!(!line.contains(name), "{}:{number} names {name}", file.display());
                }
            }
        }
    }
}

#[test]
fn rooms_are_not_named_like_the_crates_they_use() {
    for (_, file, _) in sources() {
        let named = |component: &str| ["parquet", "arrow", "datafusion"].contains(&component);
        let parts = file.with_extension("");
        assert!(
            !parts
                .components()
                .any(|c| c.as_os_str().to_str().is_some_and(named)),
            "{} would hide the crate of that name",
            file.display()
        );
    }
}

/// Every file of the library: its room, its path below the crate, its text.
fn sources() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("src can be listed") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(&src).expect("the file was found there");
            let room = below.components().next().expect("a file has a name");
            let room = Path::new(&room).with_extension("").display().to_string();
            if path.extension().is_some_and(|e| e == "rs") && room != "bin" && room != "lib" {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.push((room, Path::new("src").join(below), text));
            }
        }
    }
    assert!(!found.is_empty());
    found.sort();
    found
}

/// The lines that are not comments, numbered from 1. Unit tests stand at the end of a file and may look
/// anywhere.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(i, line)| (i + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The rooms in `crate::room` paths of a line.
fn rooms_named<'a>(line: &str, rooms: &BTreeMap<&'a str, &[&str]>) -> Vec<&'a str> {
    line.match_indices("crate::")
        .filter_map(|(at, prefix)| {
            let rest = &line[at + prefix.len()..];
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            rooms.keys().find(|room| **room == &rest[..end]).copied()
        })
        .collect()
}

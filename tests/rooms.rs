//! The map of the house: which room may import which, and that no files import each other in a circle.
//!
//! [`MAP`] is the one table. A room is a folder or a file of `src/`; a room within a room has a row of its own. A lower
//! room that needs something of an upper one is passed a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room, lowest first, and the rooms below it that it may import. A room may always import itself, and rooms
/// within a room what the room may import.
const MAP: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("stamp", &[]),
    // The engine: no I/O, no Arrow, no DataFusion.
    ("hnsw", &["id"]),
    ("hnsw/kernels", &["hnsw/ids"]),
    (
        "hnsw/quantize",
        &["hnsw/kernels", "hnsw/metric", "hnsw/query_vector"],
    ),
    (
        "hnsw/graph",
        &[
            "hnsw/kernels",
            "hnsw/ids",
            "hnsw/config",
            "hnsw/error",
            "hnsw/metric",
            "hnsw/query_vector",
        ],
    ),
    (
        "hnsw/clusters",
        &["hnsw/graph", "hnsw/kernels", "hnsw/ids", "hnsw/progress"],
    ),
    (
        "hnsw/search",
        &[
            "hnsw/clusters",
            "hnsw/graph",
            "hnsw/quantize",
            "hnsw/kernels",
            "hnsw/parts",
            "hnsw/row_set",
            "hnsw/node_memory",
            "hnsw/ids",
            "hnsw/config",
            "hnsw/error",
            "hnsw/metric",
            "hnsw/query_vector",
        ],
    ),
    (
        "hnsw/build",
        &[
            "hnsw/index",
            "hnsw/clusters",
            "hnsw/graph",
            "hnsw/quantize",
            "hnsw/kernels",
            "hnsw/ids",
            "hnsw/config",
            "hnsw/error",
            "hnsw/metric",
            "hnsw/progress",
            "hnsw/query_vector",
        ],
    ),
    // The bytes, and the memory map.
    ("format", &["id", "hnsw"]),
    ("loader", &["id", "hnsw", "format"]),
    // Where sidecars live.
    ("sidecar", &["id", "stamp", "hnsw", "format", "loader"]),
    // The Parquet end.
    ("rows", &["id", "stamp", "hnsw"]),
    // The BUILD sentence, and the QUERY sentence.
    ("create", &["id", "hnsw", "format", "loader", "sidecar", "rows"]),
    (
        "sql",
        &["id", "hnsw", "format", "loader", "sidecar", "rows", "create"],
    ),
];

/// The rooms that work without DataFusion.
const GROUND_FLOOR: [&str; 5] = ["id", "stamp", "hnsw", "format", "loader"];

#[test]
fn imports_only_point_down() {
    let house = House::read();
    let mut wrong = Vec::new();
    for (from, to) in house.imports() {
        for room in rooms_of(&from) {
            let Some((_, below)) = MAP.iter().find(|(name, _)| *name == room) else {
                continue;
            };
            // What lies within the room is its own business, and the room around it is asked by its own row.
            let inside = format!("{room}/");
            if to == room || to.starts_with(&inside) || rooms_of(&to).iter().all(|r| is_around(r, room)) {
                continue;
            }
            let allowed = |target: &&str| to == *target || to.starts_with(&format!("{target}/"));
            let around = room.rsplit_once('/').map(|(around, _)| around);
            let outside = around.is_some_and(|around| to != around && !to.starts_with(&format!("{around}/")));
            if !outside && !below.iter().any(allowed) {
                wrong.push(format!("{from} -> {to}: {room} may not import it"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The room `sql` still has circles within itself; all others have none.
#[test]
fn no_files_below_sql_import_each_other_in_a_circle() {
    let house = House::read();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in house.imports() {
        if from != "sql" && !from.starts_with("sql/") {
            graph.entry(from).or_default().insert(to);
        }
    }
    // Files that import nothing that is left are taken away until only circles remain.
    loop {
        let left: BTreeSet<String> = graph.keys().cloned().collect();
        let before = left.len();
        graph.retain(|_, to| {
            to.retain(|t| left.contains(t));
            !to.is_empty()
        });
        if graph.len() == before {
            break;
        }
    }
    let circles: Vec<String> = graph
        .iter()
        .map(|(from, to)| format!("{from} -> {}", to.iter().cloned().collect::<Vec<_>>().join(", ")))
        .collect();
    assert!(
        circles.is_empty(),
        "these lead back to themselves:\n{}",
        circles.join("\n")
    );
}

#[test]
fn folders_are_small_and_say_what_they_are_for() {
    let house = House::read();
    let mut files: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for (path, text) in house.files.values() {
        let folder = path.parent().expect("a file is in a folder").to_owned();
        let is_face = path.ends_with("mod.rs") || path.ends_with("lib.rs");
        *files.entry(folder).or_default() += usize::from(!is_face);
        assert!(
            text.starts_with("//!"),
            "{} does not begin with what it is for",
            path.display()
        );
    }
    for (folder, count) in files {
        assert!(
            count <= 14,
            "{} has {count} files: a room that wants walls",
            folder.display()
        );
    }
}

#[test]
fn only_the_statement_that_builds_calls_create() {
    let house = House::read();
    let callers: Vec<String> = house
        .imports()
        .into_iter()
        .filter(|(from, to)| to == "create" && from.starts_with("sql/"))
        .map(|(from, _)| from)
        .filter(|from| {
            let (_, text) = &house.files[from];
            text.contains("create::create")
                || text
                    .lines()
                    .any(|line| line.contains("crate::create::{") && line.contains(" create"))
        })
        .collect();
    assert_eq!(callers, ["sql/ddl/create_index"]);
}

#[test]
fn the_ground_floor_does_not_name_datafusion() {
    for (module, (path, text)) in &House::read().files {
        if GROUND_FLOOR.iter().any(|room| rooms_of(module).contains(room)) {
            for name in [
                "datafusion::",
                "arrow::",
                "parquet::",
                "object_store::",
                "tokio::",
            ] {
                assert!(!code(text).contains(name), "{} names {name}", path.display());
            }
        }
    }
}

#[test]
fn rooms_are_not_named_like_the_crates_they_use() {
    for (path, _) in House::read().files.values() {
        let named =
            |part: &str| ["parquet", "arrow", "datafusion", "utils", "util", "helpers"].contains(&part);
        let parts = path.with_extension("");
        let bad = parts
            .components()
            .any(|c| c.as_os_str().to_str().is_some_and(named));
        assert!(
            !bad,
            "{} would hide the crate of that name, or says nothing",
            path.display()
        );
    }
}

/// The rooms that a module is in, the outermost first: `hnsw/graph/links` is in `hnsw`, `hnsw/graph` and itself.
fn rooms_of(module: &str) -> Vec<&str> {
    let ends = module.match_indices('/').map(|(at, _)| at).chain([module.len()]);
    ends.map(|end| &module[..end]).collect()
}

/// Whether a room is the one around another, or that one.
fn is_around(around: &str, room: &str) -> bool {
    room == around || room.starts_with(&format!("{around}/"))
}

/// The files of the library by module path, `sql/search/scan`.
struct House {
    files: BTreeMap<String, (PathBuf, String)>,
}

impl House {
    fn read() -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let (mut files, mut folders) = (BTreeMap::new(), vec![src.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("src can be listed") {
                let path = entry.expect("an entry can be read").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let below = path.strip_prefix(&src).expect("found there").with_extension("");
                let name = below.to_str().expect("UTF-8").replace('\\', "/");
                let module = name.trim_end_matches("/mod").to_owned();
                let is_test = module.ends_with("/tests");
                if path.extension().is_some_and(|e| e == "rs")
                    && !module.starts_with("bin/")
                    && module != "lib"
                    && !is_test
                {
                    let text = fs::read_to_string(&path).expect("sources are UTF-8");
                    files.insert(
                        module,
                        (
                            Path::new("src").join(path.strip_prefix(&src).expect("there")),
                            text,
                        ),
                    );
                }
            }
        }
        assert!(files.len() > 50);
        Self { files }
    }

    /// Who imports whom, file by file. A `mod.rs` that only hands names on (`pub use`) imports nothing by that.
    fn imports(&self) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for (module, (_, text)) in &self.files {
            let text = code(text);
            for path in paths(&text) {
                let target = self.resolve(module, &path);
                if let Some(target) = target.filter(|target| target != module) {
                    found.insert((module.clone(), target));
                }
            }
        }
        found
    }

    /// The file that a path such as `crate::sql::search::scan::Run` or `super::files` leads to.
    fn resolve(&self, module: &str, path: &str) -> Option<String> {
        let mut parts = path.split("::").peekable();
        let mut at: Vec<&str> = Vec::new();
        match parts.next()? {
            "crate" => {}
            "super" => {
                at = module.split('/').collect();
                at.pop();
                while parts.next_if_eq(&"super").is_some() {
                    at.pop();
                }
            }
            _ => return None,
        }
        let mut best = (!at.is_empty()).then(|| at.join("/"));
        for part in parts {
            at.push(part);
            match self.files.contains_key(&at.join("/")) {
                true => best = Some(at.join("/")),
                false => break,
            }
        }
        best.filter(|best| self.files.contains_key(best))
            // The face of the own room: what it defines, or hands on, may be named by those within.
            .filter(|best| !module.starts_with(&format!("{best}/")))
    }
}

/// The text without comments and without the unit tests at its end.
fn code(text: &str) -> String {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// All paths that begin with `crate` or `super`, those of nested and of many-lined `use` lists written out.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in text.match_indices(root) {
            let before = text[..at].chars().next_back();
            let is_public = text[..at].trim_end().ends_with("pub use")
                || text[..at].trim_end().ends_with("pub(crate) use");
            if is_public || before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            expand("", &text[at..], &mut found);
        }
    }
    found
}

/// Writes out the path or the list of paths at the beginning of `text`; gives what follows it.
fn expand<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..end]);
    let mut rest = &text[end..];
    if !path.ends_with("::") || !rest.starts_with('{') {
        found.push(path.trim_end_matches("::").to_owned());
        return rest;
    }
    rest = &rest[1..];
    loop {
        rest = rest.trim_start();
        match rest.chars().next() {
            None => return rest,
            Some('}') => return &rest[1..],
            Some(',') => rest = &rest[1..],
            Some(_) => {
                let after = expand(&path, rest, found);
                // A rename: `as name`.
                let skipped = after.find([',', '}', '{']).unwrap_or(after.len());
                rest = &after[skipped..];
            }
        }
    }
}

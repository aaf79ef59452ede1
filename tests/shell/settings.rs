//! Settings at the shell: wrong ones are refused at once, sizes have units, `~` is the home directory.

use std::fs;

use crate::{run, workplace};

#[test]
fn a_wrong_setting_is_refused_when_it_is_made() {
    let dir = workplace();
    for (set, told) in [
        ("hnsw.metric = 'foo'", "cosine"),
        ("hnsw.m = 1", "2 to 128"),
        ("hnsw.m = 1000", "2 to 128"),
        ("hnsw.ef_search = 0", "1 to 4294967295"),
        ("hnsw.ef_search = -1", "1 to 4294967295"),
        ("hnsw.ef_construction = 0", "1 to 10000"),
        ("hnsw.ef_construction = 100000", "1 to 10000"),
        ("hnsw.threads = -1", "0 to 1024"),
        ("hnsw.seed = 'x'", "whole number"),
        ("hnsw.cache_size = -1", "number of bytes"),
        ("hnsw.filter_cache_size = '1 Q'", "number of bytes"),
        ("hnsw.stored = 'f8'", "'f16'"),
        ("hnsw.mode = 'on'", "'exact'"),
        ("hnsw.nope = 1", "the settings are mode, ef_search"),
    ] {
        let (ok, _, err) = run(&dir, &["-q", "-c", &format!("SET {set}")]);
        assert!(!ok && err.contains(told), "{set}: {err}");
    }
    let (ok, _, err) = run(&dir, &["-q", "-c", "RESET hnsw.nope"]);
    assert!(!ok && err.contains("the settings are mode"), "{err}");
}

#[test]
fn settings_take_units_and_go_back_to_their_defaults() {
    let dir = workplace();
    let show =
        |name: &str| format!("SELECT value FROM information_schema.df_settings WHERE name = 'hnsw.{name}';");
    let script = format!(
        "SET hnsw.cache_size = '1M'; {} RESET hnsw.cache_size; {}
         SET hnsw.m = 32; {} RESET hnsw.m; {}
         SET hnsw.metric = 'Euclidean'; {} RESET HNSW.METRIC; {}
         SET hnsw.sidecar_dir = '~/x'; {} RESET hnsw.sidecar_dir; {}",
        show("cache_size"),
        show("cache_size"),
        show("m"),
        show("m"),
        show("metric"),
        show("metric"),
        show("sidecar_dir"),
        show("sidecar_dir"),
    );
    let (ok, out, err) = run(&dir, &["-q", "--format", "csv", "-c", &script]);
    assert!(ok, "{err}");
    let values: Vec<&str> = out.split("value\n").skip(1).map(str::trim_end).collect();
    let home = dir.path().join("x").display().to_string();
    assert_eq!(
        values,
        [
            "1048576",
            "10737418240",
            "32",
            "16",
            "l2",
            "cosine",
            home.as_str(),
            "\"\""
        ]
    );
}

#[test]
fn sidecars_go_into_the_home_directory() {
    let dir = workplace();
    let script = "
        CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION 'examples/data/packages.parquet';
        SET hnsw.sidecar_dir = '~/sidecars';
        CREATE INDEX i ON p USING hnsw (embedding) WITH (m = 4, ef_construction = 20);
    ";
    let (ok, out, err) = run(&dir, &["-q", "-c", script]);
    assert!(ok, "{out}\n{err}");
    let entries = fs::read_dir(dir.path().join("sidecars")).expect("the directory was made");
    assert!(entries.count() > 0);
    assert!(!dir.path().join("~").exists());
}

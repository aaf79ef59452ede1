"""Reads a directory of Parquet files as other tools do by their defaults.

    python3 read.py <directory> flat|hive

Prints a line for each way to read it: the way, and the number of rows, `cannot` and why, or `not installed`.
"""

import importlib
import sys

directory, layout = sys.argv[1].rstrip("/"), sys.argv[2]
one_level = directory + ("/*.parquet" if layout == "flat" else "/*/*.parquet")
everything = directory + ("/*" if layout == "flat" else "/*/*")


def duckdb_rows(pattern):
    connection = importlib.import_module("duckdb").connect()
    sql = "SELECT count(*) FROM read_parquet('%s')" % pattern.replace("'", "''")
    return connection.execute(sql).fetchone()[0]


def polars():
    return importlib.import_module("polars")


def dataset(**options):
    return importlib.import_module("pyarrow.dataset").dataset(directory, **options).count_rows()


def pandas(engine):
    importlib.import_module(engine)
    return len(importlib.import_module("pandas").read_parquet(directory, engine=engine))


WAYS = {
    "polars.scan_parquet(dir)": lambda: polars().scan_parquet(directory).collect().height,
    "polars.scan_parquet(dir/)": lambda: polars().scan_parquet(directory + "/").collect().height,
    "polars.read_parquet(dir/**/*.parquet)": lambda: polars().read_parquet(directory + "/**/*.parquet").height,
    "duckdb dir/**": lambda: duckdb_rows(directory + "/**"),
    "duckdb all files of each directory": lambda: duckdb_rows(everything),
    "duckdb *.parquet": lambda: duckdb_rows(one_level),
    "duckdb dir/**/*.parquet": lambda: duckdb_rows(directory + "/**/*.parquet"),
    "pyarrow.dataset": lambda: dataset(),
    "pyarrow.dataset, hive": lambda: dataset(partitioning="hive"),
    "pyarrow.parquet.read_table": lambda: importlib.import_module("pyarrow.parquet").read_table(directory).num_rows,
    "pandas, pyarrow": lambda: pandas("pyarrow"),
    "pandas, fastparquet": lambda: pandas("fastparquet"),
    "fastparquet.ParquetFile": lambda: importlib.import_module("fastparquet").ParquetFile(directory).count(),
}

for way, rows in WAYS.items():
    try:
        print(f"{way}\t{rows()}")
    except ImportError:
        print(f"{way}\tnot installed")
    except Exception as error:
        print(f"{way}\tcannot: {' '.join(str(error).split())[:300]}")

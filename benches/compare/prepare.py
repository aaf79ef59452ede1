"""Turns a Parquet file of embeddings into the raw files that the benches read.

    python prepare.py packages.parquet embedding cosine --queries package_queries.parquet

Without --queries, 500 rows are held out.
"""

import argparse
import os
import pathlib

import numpy as np
import pyarrow.parquet as pq


def vectors(path, column):
    items = pq.read_table(path, columns=[column])[column].combine_chunks()
    return np.asarray(items.flatten(), dtype="<f4").reshape(len(items), -1)


def main():
    here = pathlib.Path(__file__).resolve().parents[2] / "target" / "bench-data"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parquet", type=pathlib.Path)
    parser.add_argument("column")
    parser.add_argument("metric", choices=["cosine", "l2", "ip"])
    parser.add_argument("--queries", type=pathlib.Path)
    parser.add_argument("--name")
    parser.add_argument("--out", type=pathlib.Path, default=os.environ.get("HNSW_BENCH_DATA", here))
    args = parser.parse_args()
    base = vectors(args.parquet, args.column)
    if args.queries:
        queries = vectors(args.queries, args.column)
    else:
        chosen = np.random.default_rng(1).permutation(len(base))
        base, queries = base[chosen[500:]], base[chosen[:500]]
    name = args.name or args.parquet.stem
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    base.tofile(out / f"{name}.base.f32")
    queries.tofile(out / f"{name}.queries.f32")
    (out / f"{name}.txt").write_text(f"{base.shape[1]} {args.metric}\n")
    print(f"{name}: {len(base)} x {base.shape[1]}, {len(queries)} queries, in {out}")


if __name__ == "__main__":
    main()

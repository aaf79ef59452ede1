"""The same index, built by others: one table beside ours.

    pip install -r requirements.txt
    python prepare.py <file>.parquet <column> cosine --name packages
    python compare.py packages synth

`synth`, `synth-ip` and `synth-1m` are generated; run our benchmark once for them, which writes the vectors.

Every engine gets the same vectors, m = 16 (32 at layer 0), ef_construction = 200, k = 10; searches run on one
thread and are counted per CPU second, so that a busy machine does not matter much. All engines' curves are taken
in turn, five times, and the medians are shown: a machine whose speed changes is slow for each of them. Ours
searches the mapped file, through `cargo bench --bench engine`.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import time

import faiss
import hnswlib
import numpy as np
from usearch.index import Index

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("HNSW_BENCH_DATA", ROOT / "target" / "bench-data"))
K, M, EF_CONSTRUCTION = 10, 16, 200
EFS = [10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 200, 240, 320, 480, 640]


def load(name):
    dim, metric = (DATA / f"{name}.txt").read_text().split()
    read = lambda part: np.fromfile(DATA / f"{name}.{part}.f32", dtype="<f4").reshape(-1, int(dim))
    return read("base"), read("queries"), metric


def truth(base, queries, metric):
    flat = faiss.IndexFlatL2(base.shape[1]) if metric == "l2" else faiss.IndexFlatIP(base.shape[1])
    if metric == "cosine":
        base, queries = base / np.linalg.norm(base, axis=1)[:, None], queries / np.linalg.norm(queries, axis=1)[:, None]
    flat.add(base)
    return flat.search(queries, K)[1]


def hnswlib_index(base, metric, threads, kept):
    index = hnswlib.Index(space=metric, dim=base.shape[1])
    if kept and kept.exists():
        index.load_index(str(kept))
    else:
        index.init_index(len(base), ef_construction=EF_CONSTRUCTION, M=M, random_seed=42)
        index.add_items(base, num_threads=threads)
        if kept:
            index.save_index(str(kept))

    def search(queries, ef):
        index.set_ef(ef)
        return index.knn_query(queries, K, num_threads=1)[0]

    return search


def faiss_index(base, metric, threads, _):
    faiss.omp_set_num_threads(threads)
    if metric == "cosine":
        base = base / np.linalg.norm(base, axis=1)[:, None]
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexHNSWFlat(base.shape[1], M, kind)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    index.add(base)

    def search(queries, ef):
        faiss.omp_set_num_threads(1)
        index.hnsw.efSearch = ef
        return index.search(queries, K)[1]

    return search


def usearch_index(base, metric, threads, _):
    kind = {"cosine": "cos", "l2": "l2sq", "ip": "ip"}[metric]
    index = Index(ndim=base.shape[1], metric=kind, dtype="f32", connectivity=M, expansion_add=EF_CONSTRUCTION)
    index.add(np.arange(len(base)), base, threads=threads)

    def search(queries, ef):
        index.expansion_search = ef
        return index.search(queries, K, threads=1).keys

    return search


def curve(search, queries, expected):
    points = []
    for ef in EFS:
        found = search(queries, ef)
        recall = np.mean([len(set(f) & set(e)) / K for f, e in zip(found, expected)])
        speeds = []
        while len(speeds) < 3 or sum(len(queries) / s for s in speeds) < 0.5:
            begin = time.process_time()
            search(queries, ef)
            speeds.append(len(queries) / (time.process_time() - begin))
        points.append((ef, float(recall), float(np.median(speeds))))
        if recall > 0.995:
            break
    return points


def at(points, recall):
    for before, after in zip([None] + points, points):
        if after[1] >= recall:
            if before is None:
                return after[2]
            share = (recall - before[1]) / (after[1] - before[1])
            return float(np.exp(np.log(before[2]) * (1 - share) + np.log(after[2]) * share))
    return None


def ours(name, again):
    command = ["cargo", "bench", "--no-default-features", "--bench", "engine", "--", name]
    binary = os.environ.get("HNSW_BENCH_BINARY")
    environment = dict(os.environ, HNSW_BENCH_KEEP="1") if again else os.environ
    text = subprocess.run([binary, name] if binary else command, cwd=ROOT, env=environment, check=True,
                          capture_output=True, text=True).stdout
    build = re.search(r"build ([\d.]+) s, ([\d.]+) CPU s", text)
    rows = re.findall(r"^ *(\d+) +([\d.]+) +(\d+) +[\d.]+ +\d+ +\d+$", text, re.M)
    points = [(int(ef), float(recall), float(speed)) for ef, recall, speed in rows]
    return (float(build[1]), float(build[2])) if build else None, points


def medians(rounds):
    """The curve of each ef's median speed; recall is the same in all rounds."""
    return [(*same[0][:2], float(np.median([speed for _, _, speed in same]))) for same in zip(*rounds)]


COLOURS = {"ours": "#c03", "hnswlib": "#06c", "faiss": "#083", "usearch": "#850"}


def plot(name, folder):
    """Recall against speed for every engine measured so far, as an SVG."""
    curves = [json.loads(path.read_text()) for path in sorted(DATA.glob(f"{name}.*.curve.json"))]
    points = [(recall, speed) for curve in curves for _, recall, speed in curve["points"] if recall >= 0.8]
    low, high = min(speed for _, speed in points), max(speed for _, speed in points)
    x = lambda recall: 70 + 500 * (recall - 0.8) / 0.2
    y = lambda speed: 360 - 320 * float(np.log(speed / low) / np.log(high / low))
    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 410" font-family="sans-serif" font-size="12">',
           '<rect width="720" height="410" fill="white"/>',
           f'<text x="70" y="22">{name}: queries per CPU second over recall at {K}</text>']
    for recall in (0.8, 0.85, 0.9, 0.95, 0.99, 1.0):
        out.append(f'<path d="M{x(recall):.0f} 40V360" stroke="#ddd"/><text x="{x(recall) - 12:.0f}" y="378">{recall}</text>')
    for speed in (500, 1000, 2000, 5000, 10000, 20000, 50000, 100000):
        if low <= speed <= high:
            out.append(f'<path d="M70 {y(speed):.0f}H570" stroke="#ddd"/><text x="20" y="{y(speed) + 4:.0f}">{speed:,}</text>')
    for place, curve in enumerate(curves):
        colour = COLOURS.get(curve["engine"], "#555")
        line = " ".join(f"{x(recall):.1f},{y(speed):.1f}" for _, recall, speed in curve["points"] if recall >= 0.8)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="590" y="{60 + 20 * place}" fill="{colour}">{curve["engine"]}</text>')
    path = folder / f"engine-{name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(out + ["</svg>"]))
    print(f"\ncurves: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--engines", default="ours,hnswlib,faiss,usearch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5, help="curves of each engine, taken in turn")
    parser.add_argument("--keep", action="store_true", help="keep hnswlib's index, and take the one that was kept")
    parser.add_argument("--plots", type=pathlib.Path, default=DATA, help="folder of the curves' SVG files")
    args = parser.parse_args()
    others = {"hnswlib": hnswlib_index, "faiss": faiss_index, "usearch": usearch_index}
    for name in args.sets:
        base, queries, metric = load(name)
        expected = truth(base, queries, metric) if args.engines != "ours" else None
        print(f"\n{name}: n {len(base)}, dim {base.shape[1]}, {metric}, m {M}, ef_construction {EF_CONSTRUCTION}, k {K}, "
              f"build on {args.threads} threads\n")
        searches, builds, rounds = {}, {}, {}
        for engine in args.engines.split(","):
            if engine == "ours":
                builds[engine], points = ours(name, False)
                rounds[engine] = [points]
                continue
            kept = DATA / f"{name}.hnswlib" if args.keep and engine == "hnswlib" else None
            was_kept = kept is not None and kept.exists()
            begin, cpu = time.time(), time.process_time()
            searches[engine] = others[engine](base, metric, args.threads, kept)
            built = (time.time() - begin, time.process_time() - cpu)
            builds[engine] = (float("nan"),) * 2 if was_kept else built
            rounds[engine] = []
        for _ in range(args.rounds):
            for engine in rounds:
                if len(rounds[engine]) < args.rounds:
                    search = searches.get(engine)
                    rounds[engine].append(curve(search, queries, expected) if search else ours(name, True)[1])
        show = lambda speed: "not reached" if speed is None else f"{speed:,.0f}"
        print("| engine | build s | CPU s | q/s at 0.95 | q/s at 0.99 |\n|---|---|---|---|---|")
        for engine, taken in rounds.items():
            (wall, cpu), points = builds[engine], medians(taken)
            print(f"| {engine} | {wall:.1f} | {cpu:.1f} | {show(at(points, 0.95))} | {show(at(points, 0.99))} |", flush=True)
            path = DATA / f"{name}.{engine}.curve.json"
            path.write_text(json.dumps({"engine": engine, "build": wall, "cpu": cpu, "points": points}))
        plot(name, args.plots)


if __name__ == "__main__":
    main()

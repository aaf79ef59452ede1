#!/usr/bin/env python3
"""Draws the pictures of the documents as SVG, each once for light and once for dark pages. Needs only Python.

    python docs/pictures/draw.py

Curves are drawn from `docs/pictures/data/<set>.<engine>.curve.json`, which `benches/compare/compare.py` writes
(`--plots docs/pictures/data`). The other pictures explain ideas and are made here.
"""

import json
import math
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent
LIGHT = {"ink": "#1b1f24", "soft": "#57606a", "line": "#d0d7de", "page": "#ffffff", "fill": "#f6f8fa",
         "ours": "#c0392b", "a": "#2471a3", "b": "#1e8449", "c": "#b9770e", "d": "#7d3c98"}
DARK = {"ink": "#e6edf3", "soft": "#9198a1", "line": "#3d444d", "page": "#0d1117", "fill": "#151b23",
        "ours": "#ff7b72", "a": "#79c0ff", "b": "#7ee787", "c": "#e3b341", "d": "#d2a8ff"}


class Picture:
    def __init__(self, width, height, colors):
        self.c = colors
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                      f'font-family="sans-serif" font-size="13">',
                      f'<rect width="{width}" height="{height}" fill="{colors["page"]}"/>']

    def text(self, x, y, words, color="ink", size=13, anchor="start", weight="normal"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{self.c[color]}" font-size="{size}" '
                          f'text-anchor="{anchor}" font-weight="{weight}">{words}</text>')

    def line(self, x1, y1, x2, y2, color="line", width=1.0, dash=""):
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                          f'stroke="{self.c[color]}" stroke-width="{width}"{dashes}/>')

    def dot(self, x, y, r=4.0, color="soft", hollow=False):
        fill = self.c["page"] if hollow else self.c[color]
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{fill}" stroke="{self.c[color]}"/>')

    def ring(self, x, y, r, color="line", dash="4 3"):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" fill="none" stroke="{self.c[color]}" '
                          f'stroke-dasharray="{dash}"/>')

    def box(self, x, y, w, h, color="fill", edge="line"):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="4" '
                          f'fill="{self.c[color]}" stroke="{self.c[edge]}"/>')

    def path(self, points, color, width=2.0):
        spots = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{spots}" fill="none" stroke="{self.c[color]}" stroke-width="{width}"/>')

    def save(self, name):
        (HERE / name).write_text("\n".join(self.parts + ["</svg>\n"]))


def layers(p):
    """The graph of HNSW: three layers, a descent, and the beam search of layer 0."""
    draw = random.Random(4)
    nodes = [(draw.uniform(0, 1), draw.uniform(0, 1)) for _ in range(34)]
    places = [[(90 + 330 * x + 60 * y, 300 - 110 * layer + 55 * y) for x, y in nodes] for layer in range(3)]
    for layer, count in ((0, 34), (1, 11), (2, 4)):
        here = places[layer]
        p.text(20, 330 - 110 * layer, f"layer {layer}", "soft")
        for i in range(count):
            near = sorted(range(count), key=lambda j: math.dist(nodes[i], nodes[j]))[1:4]
            for j in near:
                p.line(*here[i], *here[j])
    for layer, count in ((0, 34), (1, 11), (2, 4)):
        for i in range(count):
            p.dot(*places[layer][i], 3.5)
    target = (0.82, 0.55)
    at = 0
    for layer, count in ((2, 4), (1, 11)):
        best = min(range(count), key=lambda j: math.dist(nodes[j], target))
        p.path([places[layer][at], places[layer][best]], "a")
        p.path([places[layer][best], places[layer - 1][best]], "a")
        at = best
    near = sorted(range(34), key=lambda j: math.dist(nodes[j], target))[:6]
    for j in near:
        p.dot(*places[0][j], 5, "ours")
    x, y = 90 + 330 * target[0] + 60 * target[1], 300 + 55 * target[1]
    p.text(x + 14, y + 26, "query", "ours")
    p.text(20, 22, "Each layer holds a sample of the one below. A search descends, then widens on layer 0.", "ink")


def clusters(p):
    """Clusters with centroids; a query compares the centroids first and begins in the nearest two."""
    draw = random.Random(7)
    centers = [(110, 110), (230, 80), (340, 150), (150, 230), (280, 250), (420, 240), (450, 100)]
    query = (318, 196)
    order = sorted(range(len(centers)), key=lambda i: math.dist(centers[i], query))
    for place, i in enumerate(order):
        cx, cy = centers[i]
        color = "a" if place < 2 else "soft"
        p.ring(cx, cy, 46, color)
        for _ in range(14):
            angle, radius = draw.uniform(0, 2 * math.pi), 40 * math.sqrt(draw.uniform(0, 1))
            p.dot(cx + radius * math.cos(angle), cy + radius * math.sin(angle), 3, color)
        p.line(cx - 5, cy, cx + 5, cy, "ink", 2)
        p.line(cx, cy - 5, cx, cy + 5, "ink", 2)
        if place < 2:
            p.line(*query, cx, cy, "a", 1.5, "3 3")
    p.dot(*query, 5, "ours")
    p.text(query[0] + 9, query[1] + 4, "query", "ours")
    p.text(20, 22, "A search compares centroids (+) and begins among the nodes of the nearest clusters.", "ink")


def codes(p):
    """Codes for the search, vectors for the answer."""
    p.text(20, 22, "The beam search compares 8-bit codes; full vectors decide the last few candidates.", "ink")
    p.box(30, 50, 210, 60)
    p.text(135, 75, "8-bit codes", anchor="middle", weight="bold")
    p.text(135, 95, "dim bytes a row, side by side", "soft", 12, "middle")
    p.box(30, 150, 210, 60)
    p.text(135, 175, "vectors, f32 or f16", anchor="middle", weight="bold")
    p.text(135, 195, "4 or 2 bytes a number", "soft", 12, "middle")
    p.path([(240, 80), (330, 80)], "a")
    p.text(285, 70, "hundreds", "a", 12, "middle")
    p.box(330, 50, 150, 60)
    p.text(405, 75, "candidate list", anchor="middle", weight="bold")
    p.text(405, 95, "ef nearest by code", "soft", 12, "middle")
    p.path([(405, 110), (405, 150)], "ours")
    p.path([(240, 180), (330, 180)], "ours")
    p.text(285, 170, "about ten", "ours", 12, "middle")
    p.box(330, 150, 150, 60)
    p.text(405, 175, "re-rank", anchor="middle", weight="bold")
    p.text(405, 195, "the k nearest", "soft", 12, "middle")


def filtered(p):
    """Which strategy a filtered search takes, by the share of rows that are allowed."""
    p.text(20, 22, "How a filtered search is answered, by selectivity (the share of rows that the filter keeps).", "ink")
    bands = [("vectors of all allowed rows", "exact", 0.0, 0.12, "b"), ("codes of all allowed rows", "", 0.12, 0.3, "c"),
             ("clusters nearest to the query, allowed rows only", "", 0.3, 0.78, "a"), ("beam search, wider", "", 0.78, 1.0, "d")]
    for name, note, begin, end, color in bands:
        x, w = 30 + 480 * begin, 480 * (end - begin)
        p.box(x, 60, w - 3, 46, "fill", color)
    for place, (name, note, begin, end, color) in enumerate(bands):
        p.box(30, 124 + 22 * place, 12, 12, "fill", color)
        p.text(50, 135 + 22 * place, name + (f" ({note})" if note else ""), color)
    p.text(30, 52, "few rows", "soft", 12)
    p.text(510, 52, "nearly all rows", "soft", 12, "end")


def curve(p, name):
    """Queries a second over recall."""
    found = [json.loads(path.read_text()) for path in sorted((HERE / "data").glob(f"{name}.*.curve.json"))]
    points = [(r, s) for engine in found for _, r, s in engine["points"] if 0.8 <= r <= 1]
    low, high = min(s for _, s in points) * 0.9, max(s for _, s in points) * 1.1
    x = lambda recall: 70 + 430 * (recall - 0.8) / 0.2
    y = lambda speed: 330 - 280 * math.log(speed / low) / math.log(high / low)
    for recall in (0.8, 0.85, 0.9, 0.95, 0.99, 1.0):
        p.line(x(recall), 50, x(recall), 330)
        p.text(x(recall), 348, f"{recall:g}", "soft", 12, "middle")
    for power in range(2, 7):
        for step in (1, 2, 5):
            speed = step * 10 ** power
            if low <= speed <= high:
                p.line(70, y(speed), 500, y(speed))
                p.text(62, y(speed) + 4, f"{speed:,}", "soft", 12, "end")
    others = iter("abcd")
    for place, engine in enumerate(sorted(found, key=lambda e: e["engine"] != "ours")):
        color = "ours" if engine["engine"] == "ours" else next(others)
        label = "datafusion-hnsw" if engine["engine"] == "ours" else engine["engine"]
        p.path([(x(r), y(s)) for _, r, s in engine["points"] if 0.8 <= r <= 1], color)
        p.line(515, 66 + 20 * place, 535, 66 + 20 * place, color, 2)
        p.text(541, 70 + 20 * place, label, color)
    p.text(70, 26, f"{name}: queries per CPU second (one core) over recall@10", "ink")
    p.text(285, 366, "recall@10", "soft", 12, "middle")


def main():
    drawings = {"layers": (640, 380, layers), "clusters": (640, 310, clusters), "codes": (600, 230, codes),
                "filtered": (680, 220, filtered)}
    for path in sorted((HERE / "data").glob("*.ours.curve.json")):
        name = path.name.split(".")[0]
        drawings[f"recall-{name}"] = (680, 378, lambda p, name=name: curve(p, name))
    for name, (width, height, draw) in drawings.items():
        for theme, colors in (("light", LIGHT), ("dark", DARK)):
            picture = Picture(width, height, colors)
            draw(picture)
            picture.save(f"{name}-{theme}.svg")
            print(f"{name}-{theme}.svg")


if __name__ == "__main__":
    main()

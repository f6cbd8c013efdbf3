"""Draws a result of the benchmark as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.page import peers_of

COLORS = {
    "Batuta": "#2f6f9f",
    "DuckDB": "#d9a441",
    "ConnectorX": "#b5654a",
    "by hand": "#8fb58a",
}


def draw(result: dict[str, Any], path: Path) -> None:
    """One panel a link: seconds of each query, on a logarithmic scale.

    :param result: as ``benchmarks/results`` holds it.
    """
    import matplotlib

    matplotlib.use("svg")
    # The same picture gives the same file.
    matplotlib.rcParams["svg.hashsalt"] = "batuta"
    import matplotlib.pyplot as plt

    links = result["links"]
    figure, panels = plt.subplots(len(links), 1, figsize=(9, 3.2 * len(links)), squeeze=False)
    for panel, (name, rows) in zip(panels[:, 0], links.items(), strict=True):
        numbers = [r["query"] for r in rows]
        places = range(len(numbers))
        bars = {"Batuta": [r["seconds"] for r in rows]}
        for peer in peers_of(rows[0]):
            bars[peer] = [peers_of(r)[peer]["seconds"] for r in rows]
        width = 0.8 / len(bars)
        for index, (label, heights) in enumerate(bars.items()):
            at = [p + (index - (len(bars) - 1) / 2) * width for p in places]
            panel.bar(at, heights, width, color=COLORS[label], label=label)
        panel.scatter(
            places,
            [r["floor_seconds"] for r in rows],
            marker="_",
            s=90,
            color="#333333",
            label="all tables here",
            zorder=3,
        )
        panel.set_yscale("log")
        panel.set_ylabel("seconds")
        panel.set_xticks(list(places), [f"Q{n}" for n in numbers], fontsize=8)
        panel.set_title(f"TPC-H, scale {result['scale']:g}, {name}", fontsize=10, loc="left")
        panel.grid(axis="y", color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        # Above the panel, where no bar reaches.
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.0}
        narrow = {"fontsize": 8, "columnspacing": 1.0, "handlelength": 1.0, "handletextpad": 0.5}
        panel.legend(frameon=False, ncols=len(bars) + 1, **place, **narrow)
        panel.margins(x=0.01)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)

"""What stands under each figure of the built site: its picture as SVG, and its numbers as CSV."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
from jaxtyping import Float

from raretok.book.figcheck import SVG
from raretok.claims.digest import CELLS, unpack
from raretok.ledger.records import executed_pages

FOLDER = "_figures"  # of the site
COLUMNS = ["panel", "artist", "label", "x", "y", "colour"]
# Figures of the front page and their files, by the page's figure that they are.
FRONT = {"fig-curves": "fig-front", "fig-forest": "fig-front-forest"}


def add_links(site: Path, book: Path) -> None:
    """Write the numbers of every figure, and links to them and to its picture under it."""
    folder = site / FOLDER
    folder.mkdir(exist_ok=True)
    for page in executed_pages(book):
        for name, data in figures(page):
            numbers(data["text/plain"]).to_csv(
                folder / f"{name}.csv", index=False, float_format="%.6g"
            )
            link(site / "book" / f"{page.stem}.html", name, name)
            if name in FRONT:
                link(site / "book" / "intro.html", FRONT[name], name)


def figures(page: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Name and picture, in every kind, of the figures of an executed page."""
    for cell in nbformat.read(page, as_version=4).cells:
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for output in cell.get("outputs", []):
            if name and SVG in output.get("data", {}):
                yield name, output.data


def link(page: Path, figure: str, name: str) -> None:
    """Put the links under a figure of a built page, if it has it."""
    if not page.is_file():
        return
    found = rf'(<figure\b[^>]*\bid="{figure}".*?\bsrc="([^"]+)".*?)(</figure>)'
    links = (
        rf'\1<p class="figure-links"><a href="\2" download="{name}.svg">SVG</a> '
        rf'<a href="../{FOLDER}/{name}.csv" download>numbers (CSV)</a></p>\n\3'
    )
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(found, links, text, count=1, flags=re.DOTALL), encoding="utf-8")


def numbers(digest: str) -> pd.DataFrame:
    """What a figure draws, a row a point: its panel, its artist, numbered there, and the place.

    Bars and bands are given by their corners, intervals by their ends. A picture has its columns
    and rows for x and y, and its values as colours.
    """
    found: list[pd.DataFrame] = [pd.DataFrame(columns=COLUMNS)]
    panel, n, artist = "", 0, 0
    for line in map(json.loads, digest.splitlines()[1:]):
        kind = next(iter(line))
        if kind == "title":
            n, artist = n + 1, 0
            panel = f"{n} {line['title']}".strip()
            continue
        artist += 1
        place = {"panel": panel, "artist": f"{artist} {kind}", "label": line.get("label", "")}
        found.append(pd.DataFrame(place | drawn(kind, line), columns=COLUMNS))
    return pd.concat([one for one in found if len(one)] or found)


def drawn(kind: str, line: dict[str, Any]) -> dict[str, Float[np.ndarray, " n"]]:
    """Where one artist draws, or the values that it shows as colours, by where they are."""
    values = unpack(line["points"])
    if not kind.endswith(" colours"):
        return dict(zip("xy", values.reshape(-1, 2).T, strict=True))
    width = min(line[kind][1], CELLS) if len(line[kind]) > 1 else 1
    y, x = np.divmod(np.arange(values.size), width)
    return {"x": x.astype(float), "y": y.astype(float), "colour": values}

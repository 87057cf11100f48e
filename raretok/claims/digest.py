"""What a Matplotlib figure draws, as text: the data of every point of every artist.

It is the `repr` of the book's figures, so it stands beside each picture in an executed page, where
book/figcheck.py compares it. Changes of style are left to the pictures.
"""

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection
from matplotlib.figure import Figure

DIGITS = 16  # binary digits of the drawn data that a digest keeps: 1e-5
CELLS = 64  # a picture with more rows or columns is kept as means over blocks
DIGEST_START = '{"figure digest"'
QUIET = "_: "  # begins a label that no legend shows


def digest(fig: Figure) -> str:
    """What `fig` draws, one line of JSON an axes or artist; the first line names the format."""
    words = [text.get_text() for text in fig.texts]
    lines: list[dict[str, Any]] = [{"figure digest": 2, "axes": len(fig.axes), "text": words}]
    for ax in fig.axes:
        lines.append(describe_axes(ax))
        lines.extend(describe_artists(ax))
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)


def describe_axes(ax: Axes) -> dict[str, Any]:
    """Titles, scales and limits of an axes, and the words written on it."""
    legend = ax.get_legend()
    words = [text.get_text() for text in ax.texts]
    words += [text.get_text() for text in legend.get_texts()] if legend else []
    return {
        "title": ax.get_title("left") + ax.get_title() + ax.get_title("right"),
        "x": [ax.get_xlabel(), ax.get_xscale()],
        "y": [ax.get_ylabel(), ax.get_yscale()],
        "x limits": [shown(limit) for limit in ax.get_xlim()],
        "y limits": [shown(limit) for limit in ax.get_ylim()],
        "text": words,
    }


def describe_artists(ax: Axes) -> Iterator[dict[str, Any]]:
    """Every line, bar, band, cloud of points and picture of an axes, in drawing order."""
    for line in ax.lines:
        yield series(ax, "line", line, in_data(ax, line.get_transform(), line.get_xydata()))
    for collection in ax.collections:
        kind = type(collection).__name__
        yield series(ax, kind, collection, positions(ax, collection))
        yield from colours(kind, collection)
    for patch in ax.patches:
        corners = patch.get_path().vertices
        points = in_data(ax, patch.get_transform(), corners)
        yield series(ax, type(patch).__name__, patch, points)
    for image in ax.images:
        yield from colours("image", image)


def positions(ax: Axes, collection: Collection) -> Float[np.ndarray, "n 2"]:
    """Where a collection draws: its offsets (a scatter), or the corners of its paths (a band)."""
    offsets = np.asarray(collection.get_offsets(), float)
    if len(offsets) > 1 or offsets.any():
        return in_data(ax, collection.get_offset_transform(), offsets)
    corners = [np.asarray(path.vertices, float) for path in collection.get_paths()]
    return in_data(ax, collection.get_transform(), np.concatenate([np.empty((0, 2)), *corners]))


def in_data(ax: Axes, transform: Any, points: Any) -> Float[np.ndarray, "n 2"]:
    """Points in the units of the axes, also of what spans it, such as a line at 1."""
    points = np.ma.filled(np.ma.asarray(points, float), np.nan).reshape(-1, 2)
    with np.errstate(all="ignore"):  # a zero on a logarithmic axis
        found = np.array((transform - ax.transData).transform(points), float)
    if not transform.contains_branch(ax.transData):  # pixels between: a 0 is not quite one
        found[np.abs(found) < 1e-12 * np.ptp([ax.get_xlim(), ax.get_ylim()], axis=1)] = 0
    return found


def series(ax: Axes, kind: str, artist: Artist, points: Float[np.ndarray, "n 2"]) -> dict[str, Any]:
    """One artist: its label, its number of points, all of them packed, and three for the reader."""
    label = str(artist.get_label()).removeprefix(QUIET)
    named = {} if label.startswith("_") else {"label": label}
    first_middle_last = points[[0, len(points) // 2, -1]] if len(points) else points
    some = [[shown(x), shown(y)] for x, y in first_middle_last]
    return {kind: len(points), **named, "some": some, "points": pack(points)}


def colours(kind: str, mappable: ScalarMappable) -> Iterator[dict[str, Any]]:
    """The values an artist shows as colours."""
    values = mappable.get_array()
    if values is None or np.ndim(values) == 0:
        return
    plain = np.ma.filled(np.ma.asarray(blocks(values), float), np.nan)
    limits = [shown(mappable.norm.vmin), shown(mappable.norm.vmax)]
    yield {f"{kind} colours": list(np.shape(values)), "limits": limits, "points": pack(plain)}


def blocks(values: Any) -> np.ma.MaskedArray:
    """A picture as means over blocks, so that at most 64 x 64 values are kept."""
    values = np.ma.asarray(values, float)
    for axis in range(min(values.ndim, 2) if values.ndim > 1 else 0):
        if values.shape[axis] > CELLS:
            parts = np.array_split(np.arange(values.shape[axis]), CELLS)
            values = np.ma.stack([values.take(part, axis).mean(axis) for part in parts], axis)
    return values


def shown(value: float) -> float:
    """A number as a reader wants it: 4 significant digits."""
    return float(f"{value:.4g}")


def pack(values: Float[np.ndarray, "..."]) -> str:
    """Numbers as compressed text, to DIGITS binary digits."""
    mantissa, exponent = np.frexp(np.asarray(values, float).ravel())
    cut = np.ldexp(np.round(np.ldexp(mantissa, DIGITS)), exponent - DIGITS).astype("<f4")
    return base64.b64encode(zlib.compress(cut.tobytes(), 9)).decode()


def unpack(text: str) -> Float[np.ndarray, " n"]:
    """Numbers from `pack`'s text."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4").astype(float)

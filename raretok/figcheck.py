"""A text digest of what a Matplotlib figure draws, and a comparison of two digests.

A page prints `digest(fig)` in a hidden cell; nbval reruns the page and compares (conftest.py).
Points are kept as fractions of their axes, as the reader sees them: every point of every artist
is compared, changes of style are not, and the last digits of floats, which differ between
processors, are below the tolerance.
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

TOLERANCE = 5e-4  # of an axis: about a sixth of a pixel in a figure of ordinary size
STEPS = 1 << 14  # of an axis: the resolution points are stored with
MARGIN = 0.5  # points further outside the axes than this are drawn nowhere and count as equal
LIMIT_TOLERANCE = 0.005  # of an axis
MISSING = (1 << 16) - 1
CELLS = 64  # a picture with more rows or columns is compared by blocks


def digest(fig: Figure) -> str:
    """What `fig` draws, one line of JSON an axes or artist; the first line names the format."""
    words = [text.get_text() for text in fig.texts]
    lines: list[dict[str, Any]] = [{"figure digest": 1, "axes": len(fig.axes), "text": words}]
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
        "title": ax.get_title(),
        "x": [ax.get_xlabel(), ax.get_xscale()],
        "y": [ax.get_ylabel(), ax.get_yscale()],
        "x limits": [shown(limit) for limit in ax.get_xlim()],
        "y limits": [shown(limit) for limit in ax.get_ylim()],
        "text": words,
    }


def describe_artists(ax: Axes) -> Iterator[dict[str, Any]]:
    """Every line, bar, band, cloud of points and picture of an axes, in drawing order."""
    for line in ax.lines:
        yield series(ax, "line", line, fractions(ax, line.get_transform(), line.get_xydata()))
    for collection in ax.collections:
        kind = type(collection).__name__
        yield series(ax, kind, collection, positions(ax, collection))
        yield from colours(kind, collection)
    for patch in ax.patches:
        corners = patch.get_path().vertices
        points = fractions(ax, patch.get_transform(), corners)
        yield series(ax, type(patch).__name__, patch, points)
    for image in ax.images:
        yield from colours("image", image)


def positions(ax: Axes, collection: Collection) -> Float[np.ndarray, "n 2"]:
    """Where a collection draws: its offsets (a scatter), or the corners of its paths (a band)."""
    offsets = np.asarray(collection.get_offsets(), float)
    if len(offsets) > 1 or offsets.any():
        return fractions(ax, collection.get_offset_transform(), offsets)
    corners = [np.asarray(path.vertices, float) for path in collection.get_paths()]
    return fractions(ax, collection.get_transform(), np.concatenate([np.empty((0, 2)), *corners]))


def fractions(ax: Axes, transform: Any, points: Any) -> Float[np.ndarray, "n 2"]:
    """Points in fractions of the axes: (0, 0) its lower left corner, (1, 1) its upper right."""
    points = np.ma.filled(np.ma.asarray(points, float), np.nan).reshape(-1, 2)
    with np.errstate(all="ignore"):  # a zero on a logarithmic axis
        return np.asarray((transform - ax.transAxes).transform(points), float)


def series(ax: Axes, kind: str, artist: Artist, points: Float[np.ndarray, "n 2"]) -> dict[str, Any]:
    """One artist: its label, its number of points, all of them packed, and three for the reader."""
    label = str(artist.get_label())
    named = {} if label.startswith("_") else {"label": label}
    first_middle_last = points[[0, len(points) // 2, -1]] if len(points) else points
    some = (ax.transAxes - ax.transData).transform(first_middle_last)
    some = [[shown(x), shown(y)] for x, y in some]
    return {kind: len(points), **named, "some": some, "points": pack(points)}


def colours(kind: str, mappable: ScalarMappable) -> Iterator[dict[str, Any]]:
    """The values an artist shows as colours, in fractions of its colour scale."""
    values = mappable.get_array()
    if values is None or np.ndim(values) == 0:
        return
    scaled = np.ma.filled(np.ma.asarray(mappable.norm(blocks(values)), float), np.nan)
    limits = [shown(mappable.norm.vmin), shown(mappable.norm.vmax)]
    yield {f"{kind} colours": list(np.shape(values)), "limits": limits, "points": pack(scaled)}


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
    """Fractions of an axis as compressed text, in steps far below the tolerance."""
    steps = np.round((np.clip(values.ravel(), -MARGIN, 1 + MARGIN) + MARGIN) * STEPS)
    steps = np.where(np.isnan(steps), MISSING, steps).astype("<u2")
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode()


def unpack(text: str) -> Float[np.ndarray, " n"]:
    """Fractions of an axis from `pack`'s text; nan where there was no number."""
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u2").astype(float)
    return np.where(steps == MISSING, np.nan, steps / STEPS - MARGIN)


def differences(reference: str, test: str) -> list[str]:
    """What differs visibly between two digests, one line each; empty when the figures agree."""
    try:
        left = [json.loads(line) for line in reference.splitlines()]
        right = [json.loads(line) for line in test.splitlines()]
    except json.JSONDecodeError:
        return ["one of the two is not a figure digest"]
    if len(left) != len(right):
        return [f"{len(left)} lines of axes and artists became {len(right)}"]
    return [found for pair in zip(left, right, strict=True) for found in line_differences(*pair)]


def line_differences(reference: dict[str, Any], test: dict[str, Any]) -> Iterator[str]:
    """What differs between one line of two digests."""
    if list(reference) != list(test):
        yield f"{list(reference)} became {list(test)}"
        return
    name = f"{next(iter(reference))} {reference.get('label', reference.get('title', ''))!r}"
    for key, value in reference.items():
        if key == "points":
            yield from moved(name, value, test[key])
        elif key.endswith("limits"):
            span = max(abs(value[1] - value[0]), abs(test[key][1] - test[key][0]))
            if not np.allclose(value, test[key], rtol=LIMIT_TOLERANCE, atol=LIMIT_TOLERANCE * span):
                yield f"{name}: {key} {value} became {test[key]}"
        elif key != "some" and value != test[key]:
            yield f"{name}: {key} {value!r} became {test[key]!r}"


def moved(name: str, reference: str, test: str) -> Iterator[str]:
    """Which of the packed values differ by more than the tolerance."""
    left, right = unpack(reference), unpack(test)
    if left.shape != right.shape:
        yield f"{name}: {left.size} values became {right.size}"
        return
    off = np.flatnonzero(~np.isclose(left, right, rtol=0, atol=TOLERANCE, equal_nan=True))
    if off.size:
        first = off[0]
        yield (
            f"{name}: {off.size} of {left.size} values moved, the first at {first}:"
            f" {left[first]:.4f} became {right[first]:.4f} of the axis"
        )

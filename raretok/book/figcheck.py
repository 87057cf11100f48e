"""A text digest of what a Matplotlib figure draws, and the comparison of two executed pages.

A page prints `digest(fig)` in a hidden cell; nbval reruns the page and compares (conftest.py). A
digest holds the data of every point of every artist. Words are compared exactly, numbers and drawn
data within RELATIVE: what is left of another processor's rounding is far below it, a change of 2 %
far above. Changes of style are left to the pictures, which are compared as the eye sees them.
"""

import base64
import io
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection
from matplotlib.figure import Figure

RELATIVE = 1e-4  # of a number; ten times below the last digit of most that are printed
NOISE = 1e-12  # of the largest number of an artist: what rounding leaves of a zero
DIGITS = 16  # binary digits of the drawn data that a digest keeps: 1e-5
CELLS = 64  # a picture with more rows or columns is compared by blocks
BLOCK = 8  # pixels a side, of the blocks in which two pictures are compared
PICTURE_TOLERANCE = 3.0  # root-mean-square difference of blocks, 0-255
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?(?!\w)")
PNG_START = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()[:10]
DIGEST_START = '{"figure digest"'


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
    """Points in the units of the axes."""
    points = np.ma.filled(np.ma.asarray(points, float), np.nan).reshape(-1, 2)
    if transform.contains_branch(ax.transData):
        transform = transform - ax.transData
    with np.errstate(all="ignore"):  # a zero on a logarithmic axis
        return np.asarray(transform.transform(points), float)


def series(ax: Axes, kind: str, artist: Artist, points: Float[np.ndarray, "n 2"]) -> dict[str, Any]:
    """One artist: its label, its number of points, all of them packed, and three for the reader."""
    label = str(artist.get_label())
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


def close(left: Float[np.ndarray, " n"], right: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Where two arrays of numbers are equal, but for what RELATIVE and NOISE allow."""
    sizes = [np.abs(one[np.isfinite(one)]).max(initial=0) for one in (left, right)]
    with np.errstate(invalid="ignore"):
        return np.isclose(left, right, rtol=RELATIVE, atol=NOISE * max(sizes), equal_nan=True)


def differences(reference: str, test: str) -> list[str]:
    """What differs between two digests, one line each; empty when the figures agree."""
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
            if not close(np.array(value, float), np.array(test[key], float)).all():
                yield f"{name}: {key} {value} became {test[key]}"
        elif key != "some" and not same_words(json.dumps(value), json.dumps(test[key])):
            yield f"{name}: {key} {value!r} became {test[key]!r}"


def moved(name: str, reference: str, test: str) -> Iterator[str]:
    """Which of the packed values differ by more than the tolerance."""
    left, right = unpack(reference), unpack(test)
    if left.shape != right.shape:
        yield f"{name}: {left.size} values became {right.size}"
        return
    off = np.flatnonzero(~close(left, right))
    if off.size:
        first = off[0]
        yield (
            f"{name}: {off.size} of {left.size} values moved, the first at {first}:"
            f" {left[first]:.6g} became {right[first]:.6g}"
        )


def same_words(left: str, right: str) -> bool:
    """Whether two texts are equal, their numbers within RELATIVE."""
    if left == right:
        return True
    words, others = NUMBER.split(left), NUMBER.split(right)
    if words != others:
        return False
    values, changed = (
        np.array([float(n.replace(",", "")) for n in NUMBER.findall(text)])
        for text in (left, right)
    )
    return bool(np.isclose(values, changed, rtol=RELATIVE, atol=0).all())


def same_picture(left: str, right: str) -> bool:
    """Whether two PNGs in base64 look alike: their blocks of pixels, not the edges of letters."""
    one, other = pixels(left), pixels(right)
    if one.shape != other.shape:
        return False
    return float(np.sqrt(np.mean(np.square(in_blocks(one - other))))) <= PICTURE_TOLERANCE


def pixels(png: str) -> Float[np.ndarray, "row column colour"]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), float)


def in_blocks(picture: Float[np.ndarray, "row column colour"]) -> Float[np.ndarray, "r c colour"]:
    """Means over blocks of pixels; what does not fill one at the right and below is left out."""
    rows, columns = (n // BLOCK for n in picture.shape[:2])
    cut = picture[: rows * BLOCK, : columns * BLOCK]
    return cut.reshape(rows, BLOCK, columns, BLOCK, -1).mean(axis=(1, 3))


def same_output(left: str, right: str) -> bool:
    """Whether two outputs of a cell are the same: pictures, digests, or text with numbers."""
    if left.startswith(PNG_START) and right.startswith(PNG_START):
        return left == right or same_picture(left, right)
    if left.startswith(DIGEST_START):
        return left == right or not differences(left, right)
    return same_words(left, right)


def same_page(stored: Any, page: Any) -> bool:
    """Whether two executed notebooks are the same, their outputs as nbval compares them."""
    if len(stored.cells) != len(page.cells):
        return False
    pairs = zip(stored.cells, page.cells, strict=True)
    return all(
        plain_cell(one) == plain_cell(other)
        and len(texts(one)) == len(texts(other))
        and all(map(same_output, texts(one), texts(other)))
        for one, other in pairs
    )


def plain_cell(cell: Any) -> dict[str, Any]:
    """What of a cell is compared exactly: everything but its outputs."""
    return {key: value for key, value in cell.items() if key != "outputs"}


def texts(cell: Any) -> list[str]:
    """Every output of a cell as text, with what kind it is."""
    found = []
    for output in cell.get("outputs", []):
        found.append(json.dumps([output.output_type, output.get("metadata", {})], sort_keys=True))
        found.append(output.get("text", ""))
        found += [
            text for pair in sorted(output.get("data", {}).items()) for text in map(str, pair)
        ]
    return found

"""When two executed pages are the same: figures by what they draw, text with its numbers.

Words are compared exactly, numbers and drawn data (claims/digest.py) within RELATIVE: what is left
of another processor's rounding is far below it, a change of 2 % far above. Changes of style are
left to the pictures, which are compared as the eye sees them.
"""

import base64
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from raretok.claims.digest import DIGEST_START, unpack

RELATIVE = 1e-4  # of a number; ten times below the last digit of most that are printed
NOISE = 1e-12  # of the largest number of an artist: what rounding leaves of a zero
BLOCK = 8  # pixels a side, of the blocks in which two pictures are compared
PICTURE_TOLERANCE = 3.0  # root-mean-square difference of blocks, 0-255
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?(?!\w)")
SVG = "image/svg+xml"  # not compared: the PNG beside it is, which bears other rounding
PNG_START = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()[:10]


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
    one, other = opened(left), opened(right)
    if one.size != other.size:
        return False
    apart = (np.asarray(picture.reduce(BLOCK), float) for picture in (one, other))
    return float(np.sqrt(np.mean(np.square(np.subtract(*apart))))) <= PICTURE_TOLERANCE


def opened(png: str) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")


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
        {**one, "outputs": ()} == {**other, "outputs": ()}
        and len(texts(one)) == len(texts(other))
        and all(map(same_output, texts(one), texts(other)))
        for one, other in pairs
    )


def texts(cell: Any) -> list[str]:
    """Every output of a cell that is compared, as text, with what kind it is."""
    found = []
    for output in cell.get("outputs", []):
        found.append(json.dumps([output.output_type, output.get("metadata", {})], sort_keys=True))
        found.append(output.get("text", ""))
        data = {kind: text for kind, text in output.get("data", {}).items() if kind != SVG}
        found += [text for pair in sorted(data.items()) for text in map(str, pair)]
    return found

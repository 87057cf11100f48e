"""A change of 2 % in any one number or drawn point of any page is seen by what nbval compares."""

import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest

from raretok.book import pages
from raretok.book.figcheck import NOISE, NUMBER, PNG_START, SVG, differences, same_output
from raretok.claims.digest import DIGEST_START, pack, unpack

ROOT = Path(__file__).parents[2]
SOURCES = pages.pages(ROOT)
NUMBERS, POINTS = 12, 2  # of each text and each artist that are changed, one at a time


def outputs(stem: str) -> list[str]:
    """What nbval compares of a page, but for its pictures: their data are in the digests."""
    cells = nbformat.read(ROOT / "book" / f"{stem}.ipynb", as_version=4).cells
    found = [output for cell in cells for output in cell.get("outputs", [])]
    texts = [output.get("text", "") for output in found]
    data = [pair for output in found for pair in output.get("data", {}).items()]
    texts += [str(text) for kind, text in data if kind != SVG]
    return [text for text in texts if text and not text.startswith(PNG_START)]


def planted(text: str) -> Iterator[str]:
    """The text with some numbers changed by 2 %, one at a time; a 0 has no such change."""
    every = list(NUMBER.finditer(text))
    for found in every[:: max(1, len(every) // NUMBERS)]:
        value = float(found[0].replace(",", ""))
        if value != 0:
            yield f"{text[: found.start()]}{1.02 * value:.12g}{text[found.end() :]}"


def moved(text: str) -> Iterator[tuple[str, str]]:
    """Each line of a digest, and it with some points of its artist changed by 2 %, one at a time.

    Lines are compared one by one, so the others of a figure have no part in it.
    """
    for line in map(json.loads, text.splitlines()):
        values = unpack(line["points"]) if "points" in line else np.zeros(0)
        finite = np.where(np.isfinite(values), np.abs(values), 0)
        there = np.flatnonzero(finite > 100 * NOISE * finite.max(initial=0))  # less: rounded zeros
        for point in there[:: max(1, there.size // POINTS)]:
            changed = values.copy()
            changed[point] *= 1.02
            yield json.dumps(line), json.dumps({**line, "points": pack(changed)})


@pytest.mark.parametrize("source", SOURCES, ids=lambda page: page.stem)
def test_a_change_of_2_percent_is_seen_on_every_page(source):
    texts = outputs(source.stem)
    numbers = [
        (text, new) for text in texts if not text.startswith(DIGEST_START) for new in planted(text)
    ]
    points = [pair for text in texts if text.startswith(DIGEST_START) for pair in moved(text)]
    assert numbers
    unseen = [pair for pair in numbers if same_output(*pair)]
    unseen += [pair for pair in points if not differences(*pair)]
    assert unseen == [], f"{len(unseen)} of {len(numbers)} numbers and {len(points)} points"
    assert all(same_output(text, text) for text in texts)

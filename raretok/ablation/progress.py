"""Progress bars on stderr, shown where it is a terminal."""

import sys
from collections.abc import Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def shown(items: Sequence[T], unit: str) -> "tqdm[T]":
    """The items, with a progress bar on stderr if it is a terminal; TQDM_DISABLE=1 hides it."""
    return tqdm(items, desc=unit, unit=unit[:-1], file=sys.stderr, disable=None)

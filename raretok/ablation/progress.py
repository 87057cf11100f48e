"""Progress bars on stderr, shown where it is a terminal."""

import sys
from collections.abc import Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def shown(items: Sequence[T], unit: str, progress: bool) -> "tqdm[T]":
    """The items, with a progress bar on stderr if it is a terminal."""
    hidden = None if progress else True  # None: shown on a terminal only
    return tqdm(items, desc=unit, unit=unit[:-1], file=sys.stderr, disable=hidden)

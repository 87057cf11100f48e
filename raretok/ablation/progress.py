"""Progress bars on stderr, shown where it is a terminal."""

import sys

from tqdm import tqdm


def blocks(n: int, size: int, unit: str, progress: bool) -> tqdm:
    """Slices of at most `size`, with a progress bar on stderr if it is a terminal."""
    slices = [slice(start, start + size) for start in range(0, n, size)]
    hidden = None if progress else True  # None: shown on a terminal only
    return tqdm(slices, desc=unit, unit="block", file=sys.stderr, disable=hidden)


def bar(unit: str, total: int, progress: bool, initial: int = 0) -> tqdm:
    """Rate and time left on stderr, if it is a terminal."""
    hidden = None if progress else True
    return tqdm(
        desc=unit, total=total, initial=initial, unit=unit[:-1], file=sys.stderr, disable=hidden
    )

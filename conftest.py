"""How nbval compares the figures of the pages.

nbval 0.11.0 skips PNGs and compares text exactly. Here PNGs are compared by how much they differ to
the eye, and figure digests (raretok/figcheck.py) within their tolerance. Both hang on nbval's
`skip_compare` and `sanitize`, hence the pin.
"""

import base64
import io

import numpy as np
import pytest

PNG_TOLERANCE = 2.0  # root-mean-square difference, 0-255; a point moved by 2 % of an axis gives 2.6
PNG_START = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()[:10]
DIGEST_START = '{"figure digest"'


class Png(str):
    """A base64 PNG, equal to one that looks the same."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        reference, test = pixels(self), pixels(other)
        return reference.shape == test.shape and rms(reference - test) <= PNG_TOLERANCE

    def __ne__(self, other):
        return not self == other


class Digest(str):
    """A figure digest, equal to one of a figure with the same points."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        from raretok.figcheck import differences

        return not differences(str(self), str(other))

    def __ne__(self, other):
        return not self == other


def pixels(png: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), float)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def comparable(text):
    """An output as the object whose equality is the comparison meant."""
    if isinstance(text, str) and text.startswith(PNG_START):
        return Png(text)
    if isinstance(text, str) and text.startswith(DIGEST_START):
        return Digest(text)
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if type(item).__name__ != "IPyNbCell":
            continue
        page = item.parent
        page.skip_compare = tuple(key for key in page.skip_compare if key != "image/png")
        item.sanitize = lambda text, plain=item.sanitize: (
            comparable(text) if comparable(text) is not None else plain(text)
        )


def pytest_assertrepr_compare(left, right):
    """Say what moved in a figure, instead of showing two digests."""
    if isinstance(left, Digest):
        from raretok.figcheck import differences

        return ["the figure differs from the stored one", *differences(str(left), str(right))]
    return None

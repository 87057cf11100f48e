"""How nbval compares the pages: raretok/book/figcheck.py says when two outputs are the same.

nbval 0.11.0 skips PNGs and compares text exactly. This hangs on its `skip_compare` and `sanitize`,
hence the pin.
"""

import pytest


class Output(str):
    """An output of a cell, equal to one that says and shows the same."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        from raretok.book.figcheck import same_output

        return same_output(str(self), str(other))

    def __ne__(self, other):
        return not self == other


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if type(item).__name__ != "IPyNbCell":
            continue
        page = item.parent
        # The PNG beside each SVG is compared in its place (raretok/book/figcheck.py).
        page.skip_compare = {*page.skip_compare, "image/svg+xml"} - {"image/png"}
        item.sanitize = lambda text, plain=item.sanitize: Output(plain(text))


def pytest_assertrepr_compare(left, right):
    """Say what moved in a figure, instead of showing two digests."""
    from raretok.book.figcheck import differences
    from raretok.claims.digest import DIGEST_START

    if isinstance(left, Output) and left.startswith(DIGEST_START):
        return ["the figure differs from the stored one", *differences(str(left), str(right))]
    return None

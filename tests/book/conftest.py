"""The site, built once for the tests that look at it."""

from pathlib import Path

import pytest

from raretok.book import pages

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The folder of the built site; any warning of the build fails the tests that ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GITHUB_REPOSITORY", raising=False)  # the tests are of the site without it
        return pages.build_site(ROOT, tmp_path_factory.mktemp("site")).parent

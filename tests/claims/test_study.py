"""One number for one thing: pages that name the same group mean the same neurons."""

import numpy as np
import pytest

from raretok.claims.regimes.estimate import HEADS, head_of
from raretok.claims.sample import neurons_in
from raretok.claims.study import ESTIMANDS, Study
from raretok.errors import NotTestableError
from raretok.ledger.replication import FAMILIES
from raretok.ledger.verdicts import estimands
from raretok.measure.find import LEAD
from raretok.measure.parameters import PageParameters


@pytest.fixture(scope="module", params=["docs-gpt2", LEAD])
def study(request) -> Study:
    return Study(PageParameters(model=request.param))


@pytest.mark.parametrize(
    ("percent", "n", "neurons"), [(1.0, 1024, 10), (1.0, 1536, 15), (0.5, 1536, 8), (0.1, 256, 2)]
)
def test_a_percentage_is_rounded_in_one_way(percent, n, neurons):
    assert neurons_in(percent, n) == neurons


def test_the_head_and_the_group_of_1_percent_are_the_same_size_on_every_page(study):
    for protocol in ("code", "text", "corrected"):
        try:
            sample = study.sample(protocol)
        except NotTestableError:
            assert (study.parameters.model, protocol) == (LEAD, "text")
            continue
        assert head_of(sample) == sample.size == study.group_size == sample.groups.shape[-1]
        assert 0.01 in HEADS


def test_pages_of_one_reading_choose_the_same_neurons(study):
    """Coordination, modularity and spectra share one sample; attention deals documents anew."""
    plain, dealt = study.sample("corrected"), study.sample("corrected", heads=True)
    assert study.sample("corrected") is plain
    shared = np.intersect1d(plain.groups[0], dealt.groups[0])
    assert shared.size >= plain.size


def test_every_estimand_of_the_claims_has_a_page_and_no_page_another():
    found = [key for page in ESTIMANDS.values() for key in page]
    across = [(claim, "lift between families") for claim in FAMILIES]  # of the page `replication`
    assert sorted(found + across) == sorted(estimands())

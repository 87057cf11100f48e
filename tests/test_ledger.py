"""The verdict follows from p-values, interval and power, by rule."""

import pytest

from raretok.ledger import (
    Evidence,
    as_records,
    paper_claims,
    verdict,
    verdict_table,
)


def evidence(claim: str, **found) -> Evidence:
    default = {"value": 1.0, "interval": (0.8, 1.2), "p": 0.001, "null_world_p": 0.5, "power": 0.9}
    return Evidence(claim=claim, protocol="corrected", null="a null", **{**default, **found})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, "reproduced"),
        ({"p": 0.05}, "not reproduced"),
        ({"null_world_p": 0.01}, "artefact of the method"),
        ({"p": None}, "not testable here"),
        ({"p": 0.3, "power": 0.5}, "not testable here"),
        ({"p": 0.5, "null_world_p": 0.01}, "not reproduced"),
    ],
)
def test_a_claimed_effect(found, expected):
    assert verdict(evidence("R1", **found)) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.9, "reproduced"), (2.5, "weaker"), (0.2, "weaker")]
)
def test_a_claimed_size(value, expected):
    assert verdict(evidence("R2", value=value)) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"p": 0.3, "power": 0.9}, "reproduced"),
        ({"p": 0.3, "power": 0.5}, "not testable here"),
        ({"p": 0.3, "power": None}, "not testable here"),
        ({"p": 0.01, "power": 0.9}, "not reproduced"),
    ],
)
def test_a_claimed_absence(found, expected):
    assert verdict(evidence("R3", **found)) == expected


def test_the_papers_claims_are_read_with_their_ranges():
    claims = paper_claims()
    assert claims["R2"].range == (0.4, 1.5)
    assert {claim.page for claim in claims.values()} == {"01_regimes"}


def test_the_table_sets_ours_beside_the_papers():
    table = verdict_table([evidence("R3", p=0.3, power=0.9), evidence("R2")])
    assert list(table.index) == [("R2", "corrected"), ("R3", "corrected")]
    row = table.loc[("R2", "corrected")]
    assert row["ours"] == "1 (0.8 to 1.2) % of neurons"
    assert row["published"] == "about 1 %"
    assert row["verdict"] == "reproduced"
    assert row["p"] == "0.001"


def test_records_carry_the_verdict():
    (record,) = as_records([evidence("R1", p=0.2)])
    assert record["verdict"] == "not reproduced"
    assert record["interval"] == (0.8, 1.2)

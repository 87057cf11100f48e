"""data/claims.yaml says what it must; a file that does not is refused in one line."""

import math
from copy import deepcopy

import pytest
import yaml

from raretok.claims.study import ESTIMANDS
from raretok.errors import UserError
from raretok.ledger.claims import CLAIMS, NEEDS, claims, ends, read_claims
from raretok.ledger.replication import FAMILIES

GOOD = {
    "sentence": "s",
    "short": "s",
    "published": "p",
    "page": "regimes",
    "unit of replication": "documents",
    "estimands": {
        "lift": {
            "says": "s",
            "unit": "x",
            "why": "w",
            "supports": [[1.5, None]],
            "contradicts": [[None, 1.25]],
            "gates": {"documents": 8, "imbalance": 0.5},
        }
    },
}


def written(tmp_path, given) -> object:
    file = tmp_path / "some.yaml"
    file.write_text(given if isinstance(given, str) else yaml.safe_dump(given))
    return file


def with_lift(**changes):
    given = deepcopy(GOOD)
    lift = given["estimands"]["lift"]
    lift.update(changes)
    given["estimands"]["lift"] = {k: v for k, v in lift.items() if v is not ...}
    return {"R1": given}


def test_the_claims_of_the_book_load():
    found = read_claims(CLAIMS)
    assert " ".join(found) == "R0 R1 R2 R3 O1 C1 I1 M1 A1 A2 A3 A4 S1 D1 G1 G2 G3 G4 G5"
    assert "changes" not in found
    assert found == claims()
    assert found["R1"].primary == "lift"
    assert found["R1"].estimands["lift"].judged
    assert not found["O1"].estimands["rank correlation"].judged


def test_every_page_computes_the_estimands_of_its_claims_and_no_others():
    declared = {
        (name, one): claim.page for name, claim in claims().items() for one in claim.estimands
    }
    computed = {key: page for page, keys in ESTIMANDS.items() for key in keys}
    computed |= {(claim, "lift between families"): "replication" for claim in FAMILIES}
    assert computed == declared


def test_every_judged_estimand_is_gated_and_every_claim_says_what_would_be_seen():
    for claim in claims().values():
        for one in claim.estimands.values():
            assert (one.judged and claim.of_the_paper) == ("coverage" in one.gates)
            assert one.judged == bool({"documents", NEEDS} & set(one.gates))
            assert one.planted is None or one.judged
        primary = claim.estimands[claim.primary]
        assert (primary.judged and claim.of_the_paper) == (primary.planted is not None)


def test_an_open_end_is_infinite():
    assert ends((None, 1.0)) == (-math.inf, 1.0)
    assert ends((1.0, None)) == (1.0, math.inf)


def test_a_good_file_loads_and_its_changes_are_no_claim(tmp_path):
    found = read_claims(written(tmp_path, {"R1": GOOD, "changes": ["2030: a bound moved"]}))
    assert list(found) == ["R1"]
    assert found["R1"].estimands["lift"].gates == {"documents": 8, "imbalance": 0.5}
    touching = with_lift(supports=[[1.25, None]])
    assert read_claims(written(tmp_path, touching))["R1"].estimands["lift"].judged


LIFT = "some.yaml, R1 > estimands > lift"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (with_lift(contradicts=[[None, 1.6]]), f"{LIFT}: two regions overlap between 1.5 and 1.6"),
        (with_lift(supports=[[1, 2], [1.5, 3]], contradicts=[[4, 5]]), "overlap between 1.5 and 2"),
        (with_lift(supports=[[0, None]], contradicts=[[1, 2]]), "overlap between 1 and"),
        (with_lift(supports=[[2.0, 2.0]]), f"{LIFT}: the region 2 to 2 is empty"),
        (with_lift(supports=[[3.0, 2.0]]), f"{LIFT}: the region 3 to 2 is empty"),
        (with_lift(contradicts=...), f"{LIFT}: give both supports and contradicts, or neither"),
        (with_lift(supports=...), "give both supports and contradicts, or neither"),
        (with_lift(unit=...), f"{LIFT} > unit: field required"),
        (with_lift(unit=""), f"{LIFT} > unit: string should have at least 1 character"),
        (with_lift(why=...), f"{LIFT} > why: field required"),
        (with_lift(gates={"luck": 1}), f"{LIFT} > gates: there is no gate 'luck'"),
        (with_lift(gates={"documents": [8]}), f"{LIFT} > gates"),
        (with_lift(gates={"documents": "many"}), "'documents' must be a number, got 'many'"),
        (with_lift(gates={"needs": 8}), "'needs' must be the id of a claim, got 8.0"),
        (with_lift(supports=[[1.5]]), f"{LIFT} > supports"),
        (with_lift(supports=[["much", None]]), f"{LIFT} > supports"),
        (with_lift(colour="red"), f"{LIFT} > colour: extra inputs are not permitted"),
        ({"R1": {**GOOD, "estimands": {}}}, "R1 > estimands: dictionary should have at least 1"),
        ({"R1": {k: v for k, v in GOOD.items() if k != "page"}}, "R1 > page: field required"),
        ({"R1": "a sentence"}, "some.yaml, R1: input should be a valid dictionary"),
        ("R1: [1, 2", r"some.yaml cannot be read \(ParserError\): it must be YAML"),
        ("- R1\n- R2\n", "some.yaml holds no claims: it must be a mapping of ids"),
        ("", "some.yaml holds no claims: it must be a mapping of ids"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, given, message):
    with pytest.raises(UserError, match=message) as caught:
        read_claims(written(tmp_path, given))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_text_or_not_there_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none.yaml cannot be read \(FileNotFoundError\)"):
        read_claims(tmp_path / "none.yaml")
    (tmp_path / "some.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"some\.yaml cannot be read"):
        read_claims(tmp_path / "some.yaml")


@pytest.mark.parametrize("end", [".nan", ".inf", "-.inf"])
def test_ends_of_regions_and_gates_are_finite_numbers(tmp_path, end):
    text = yaml.safe_dump(with_lift()).replace("- 1.5", f"- {end}")
    with pytest.raises(UserError, match=LIFT):
        read_claims(written(tmp_path, text))
    text = yaml.safe_dump(with_lift()).replace("documents: 8", f"documents: {end}")
    with pytest.raises(UserError, match=LIFT):
        read_claims(written(tmp_path, text))


@pytest.mark.parametrize("needed", ["R9", "R1"])
def test_a_needed_claim_is_judged_before(tmp_path, needed):
    with pytest.raises(UserError, match=f"R1 needs {needed}, which is no claim before it"):
        read_claims(written(tmp_path, with_lift(gates={"needs": needed})))
    after = {"R0": GOOD, **with_lift(gates={"needs": "R0"})}
    assert list(read_claims(written(tmp_path, yaml.safe_dump(after, sort_keys=False)))) == [
        "R0",
        "R1",
    ]

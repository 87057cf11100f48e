"""What the README promises is what the repository holds."""

import json
import re
from pathlib import Path

from raretok.ledger.claims import claims, named
from raretok.measure.find import LEAD

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_loss_it_names_is_the_one_recorded():
    record = json.loads((ROOT / "data" / "models" / "docs-gpt2" / "training.json").read_text())
    loss, millions = record["held_out_loss"], record["parameters"] / 1e6
    assert f"({millions:.1f} million parameters) has a held-out loss of {loss:.2f} nats" in README


def test_the_verdicts_it_names_are_those_of_the_ledger():
    lines = json.loads((ROOT / "book" / "ledger.json").read_text())
    found = {
        (one["claim"], one["estimand"], one["reading"]): one["verdict"]
        for one in lines
        if one["model"] == LEAD
    }
    (head,) = re.findall(r"^\| claim \| (.*) \|$", README, re.MULTILINE)
    readings = [name.strip("`") for name in head.split(" | ")]
    expected = {
        named(name): [found.get((name, claim.primary, reading), "–") for reading in readings]
        for name, claim in claims().items()
        if claim.estimands[claim.primary].judged
    }
    rows = re.findall(r"^\| ([A-Z]\d, .*?) \| (.*) \|$", README, re.MULTILINE)
    assert {name: verdicts.split(" | ") for name, verdicts in rows} == expected
    assert len(rows) == len(expected)


def test_the_commands_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for goal in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{goal}:", makefile, re.MULTILINE), goal

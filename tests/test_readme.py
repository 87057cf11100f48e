"""What the README promises is what the repository holds."""

import json
import re
from pathlib import Path

from raretok.ledger.claims import claims
from raretok.ledger.records import book_ledger
from raretok.ledger.tables import readme_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_loss_it_names_is_the_one_recorded():
    record = json.loads((ROOT / "data" / "models" / "docs-gpt2" / "training.json").read_text())
    loss, millions = record["held_out_loss"], record["parameters"] / 1e6
    assert f"({millions:.1f} million parameters) has a held-out loss of {loss:.2f} nats" in README


def test_the_verdicts_it_names_are_those_of_the_ledger():
    """On failure the table to paste into the README is shown whole."""
    table = readme_table(book_ledger(ROOT / "book"))
    assert table in README, f"the README needs this table:\n{table}"
    verdicts = re.findall(r"^\| [A-Z]\d, .* \|$", README, re.MULTILINE)
    judged = [one for one in claims().values() if one.estimands[one.primary].judged]
    assert len(verdicts) == len(judged), "the README has rows of another ledger"


def test_the_commands_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for goal in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{goal}:", makefile, re.MULTILINE), goal

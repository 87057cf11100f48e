"""What the README promises is what the repository holds."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def recorded_claims(page: str) -> list[dict]:
    for cell in nbformat.read(ROOT / "book" / f"{page}.ipynb", as_version=4).cells:
        for output in cell.get("outputs", []):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == "claims":
                return ast.literal_eval(output.data["application/papermill.record/text/plain"])
    raise AssertionError(f"{page} recorded no claims")


def test_the_loss_it_names_is_the_one_recorded():
    record = json.loads((ROOT / "data" / "models" / "docs-gpt2" / "training.json").read_text())
    loss, millions = record["held_out_loss"], record["parameters"] / 1e6
    assert f"({millions:.1f} million parameters) has a held-out loss of {loss:.2f} nats" in README


@pytest.mark.parametrize("claim", ["R1", "R2", "R3"])
def test_the_verdicts_it_names_are_those_of_the_page(claim):
    found = {one["verdict"] for one in recorded_claims("01_regimes") if one["claim"] == claim}
    (said,) = re.findall(rf"^\| {claim}, .* \| (.*) \|$", README, re.MULTILINE)
    assert found == {said}


def test_the_commands_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for goal in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{goal}:", makefile, re.MULTILINE), goal

"""What others read of the repository: the citation, Zenodo's record, the workflow."""

import json
from pathlib import Path

import yaml

from raretok import __version__

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
ZENODO = json.loads((ROOT / ".zenodo.json").read_text())


def test_citation_and_zenodo_say_the_same_and_are_of_this_version():
    assert CITATION["version"] == ZENODO["version"] == __version__
    assert CITATION["title"] == ZENODO["title"]
    assert CITATION["license"] == ZENODO["license"] == "MIT"
    assert CITATION["keywords"] == ZENODO["keywords"]
    (paper,) = CITATION["references"]
    assert paper["identifiers"][0]["value"] == ZENODO["related_identifiers"][0]["identifier"]


def test_the_workflow_tests_and_builds_before_it_publishes():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())["jobs"]
    steps = jobs["book"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands.index("make test") < commands.index("make book")
    (python,) = (
        one["with"]["python-version"] for one in steps if "setup-python" in one.get("uses", "")
    )
    assert python == "3.11"
    (folder,) = (one["with"]["path"] for one in steps if "pages-artifact" in one.get("uses", ""))
    assert folder == "_build/html"
    assert jobs["publish"]["needs"] == "book"
    assert "deploy-pages" in jobs["publish"]["steps"][0]["uses"]

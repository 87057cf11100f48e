"""No page and no statistic needs torch: what pages import does not load it."""

import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "notebooks").glob("*.py"))
LOADED = "\nimport sys\nprint({'torch', 'transformers'} & set(sys.modules))"


def imports(page: Path) -> str:
    """The import statements of a page."""
    code = [cell.source for cell in jupytext.read(page).cells if cell.cell_type == "code"]
    lines = "\n".join(code).splitlines()
    kept, inside = [], False
    for line in lines:
        if inside or line.startswith(("import ", "from ")):
            kept.append(line)
            inside = "(" in line and ")" not in line if not inside else ")" not in line
    return "\n".join(kept)


def test_what_pages_import_needs_no_torch():
    every = "\n".join(imports(page) for page in PAGES)
    assert "raretok" in every
    done = subprocess.run([sys.executable, "-c", every + LOADED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("folder", ["sections", "."])
def test_statistics_name_no_module_that_needs_a_model(folder):
    files = ["study.py", "stats.py", "groups.py"] if folder == "." else None
    sources = (
        [ROOT / "raretok" / f for f in files]
        if files
        else sorted((ROOT / "raretok" / folder).glob("*.py"))
    )
    barred = ("import torch", "raretok.models", "raretok.ablation", "raretok.worlds")
    found = [(s.name, word) for s in sources for word in barred if word in s.read_text()]
    assert sources
    assert found == []

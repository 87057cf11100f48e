"""No page and no statistic needs torch: what pages import does not load it."""

import subprocess
import sys
from pathlib import Path

import jupytext

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


def test_rooms_import_only_downwards():
    """The contracts in pyproject.toml, checked by import-linter."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_the_package_stays_small():
    entries = [p for p in (ROOT / "raretok").iterdir() if not p.name.startswith("__")]
    assert len(entries) <= 12
    lines = sum(len(p.read_text().splitlines()) for p in (ROOT / "raretok").rglob("*.py"))
    assert lines <= 19_500

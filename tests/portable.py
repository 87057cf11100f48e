"""The book on other processors, simulated: every page and the check of the measurements.

`make portable` runs it. Each setting restricts what the numerical libraries may use of this
machine; all must give the pages that are stored. A table says how far any number is off.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np

from raretok.book import figcheck, pages
from raretok.claims.digest import DIGEST_START
from raretok.paths import ROOT

AVX512 = "X86_V4 AVX512_ICL AVX512_SPR"  # as numpy 2.4 names them
SETTINGS = {
    "one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": AVX512,
        "OPENBLAS_CORETYPE": "Haswell",
        "OMP_NUM_THREADS": "2",
    },
    "oldest": {
        "ATEN_CPU_CAPABILITY": "default",
        "DNNL_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "NPY_DISABLE_CPU_FEATURES": f"{AVX512} X86_V3",
        "OPENBLAS_CORETYPE": "Nehalem",
        "OMP_NUM_THREADS": "1",
    },
}
RUN = """
import sys
from pathlib import Path
from raretok.book import pages
from raretok.paths import ROOT
pages.run_pages(pages.pages(ROOT), Path(sys.argv[1]), {}, done=lambda page: None, jobs=2)
"""


def apart(stored: str, found: str) -> float:
    """Largest relative difference of two outputs' numbers; infinite where words differ."""
    if stored.startswith(figcheck.PNG_START):
        return 0.0 if figcheck.same_output(stored, found) else np.inf
    if stored.startswith(DIGEST_START):
        return 0.0 if not figcheck.differences(stored, found) else np.inf
    if figcheck.NUMBER.split(stored) != figcheck.NUMBER.split(found):
        return np.inf
    left, right = (
        np.array([float(n.replace(",", "")) for n in figcheck.NUMBER.findall(text)])
        for text in (stored, found)
    )
    scale = np.maximum(np.abs(left), np.abs(right))
    return float((np.abs(left - right) / np.where(scale > 0, scale, 1)).max(initial=0))


def page_apart(stored: Path, found: Path) -> float:
    """Largest relative difference of any number of a page."""
    cells = [nbformat.read(page, as_version=4).cells for page in (stored, found)]
    worst = 0.0
    for one, other in zip(*cells, strict=True):
        outputs = figcheck.texts(one), figcheck.texts(other)
        worst = max([worst, *map(apart, *outputs)])
    return worst


def run(setting: dict[str, str], folder: Path) -> bool:
    """Every page into a folder, and the check; whether both ended well."""
    plain = {name: value for name, value in os.environ.items() if "OPENBLAS" not in name}
    environment = plain | setting | {"HF_HUB_OFFLINE": "1"}
    raretok = Path(sys.executable).with_name("raretok")
    commands = [[sys.executable, "-c", RUN, str(folder)], [str(raretok), "measure", "--check"]]
    ended = [subprocess.run(command, env=environment, cwd=ROOT).returncode for command in commands]
    return ended == [0, 0]


def main() -> int:
    sources, failed, rows = pages.pages(ROOT), False, {}
    for name, setting in SETTINGS.items():
        with tempfile.TemporaryDirectory() as place:
            passed = run(setting, Path(place))
            files = [f"{source.stem}.ipynb" for source in sources]
            found = [page_apart(ROOT / "book" / file, Path(place) / file) for file in files]
        rows[name] = found
        failed |= not passed or max(found) > figcheck.RELATIVE
        print(f"{name}: {'passed' if passed else 'FAILED'}, largest {max(found):.1e}", flush=True)
    print("| page | " + " | ".join(rows) + " |")
    for i, source in enumerate(sources):
        print(f"| {source.stem} | " + " | ".join(f"{rows[n][i]:.1e}" for n in rows) + " |")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

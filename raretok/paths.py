"""Where the project's files lie."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data"
RUNS = Path(os.environ.get("RARETOK_RUNS", ROOT / "runs"))

"""A reproducible, critical companion to "Distributed Specialization" (arXiv 2509.21163).

`ablate` measures what every neuron of a layer does to the loss; `neurons` makes a table of it.
"""

import importlib
import warnings
from typing import Any

__version__ = "0.1.0"

# In a notebook without ipywidgets tqdm warns on import, naming a folder of this machine.
warnings.filterwarnings("ignore", message="IProgress not found")

_HOMES = {"ablate": "raretok.measure.effects", "neurons": "raretok.measure.neurons"}


def __getattr__(name: str) -> Any:
    """`ablate` and `neurons`, imported when they are asked for: the first needs torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'raretok' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

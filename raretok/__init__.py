"""A reproducible, critical companion to "Distributed Specialization" (arXiv 2509.21163)."""

import warnings

__version__ = "0.1.0"

# In a notebook without ipywidgets tqdm warns on import, naming a folder of this machine.
warnings.filterwarnings("ignore", message="IProgress not found")

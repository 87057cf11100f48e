"""A reproducible, critical companion to "Distributed Specialization" (arXiv 2509.21163)."""

__version__ = "0.1.0"

"""The corpus `docs`: docstrings of pinned packages, parsed from source and never imported."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from raretok.errors import UserError
from raretok.paths import DATA, sha256_of, write_json

Part = Literal["train", "held-out"]

MANIFEST = DATA / "corpus" / "docs.json"

# The order of the packages decides which copy of a repeated docstring is kept.
PACKAGES = {
    "arrays": ("numpy",),
    "scientific computing": ("scipy",),
    "mathematics": ("sympy", "mpmath"),
    "data frames": ("pandas", "xarray"),
    "statistics": ("statsmodels",),
    "machine learning": ("sklearn",),
    "graphs": ("networkx",),
    "plotting": ("matplotlib", "mpl_toolkits", "seaborn"),
    "astronomy": ("astropy",),
    "deep learning": (
        *("torch", "transformers", "accelerate"),
        *("transformer_lens", "datasets", "huggingface_hub"),
    ),
    "databases": ("sqlalchemy",),
    "systems": ("dask", "distributed", "zarr", "fsspec", "tornado", "IPython"),
}
DOMAINS = {package: domain for domain, packages in PACKAGES.items() for package in packages}

# Written by the build of a wheel, so they differ between platforms.
GENERATED = {"__config__.py", "version.py", "_version.py"}

# One file in twenty is held out; the name alone decides, so that a reader parses those files only.
HELD_OUT_ONE_IN = 20


def part_of(file: str) -> Part:
    """Part a source file belongs to, by a hash of its path inside site-packages."""
    digest = hashlib.sha256(file.encode()).digest()
    return "held-out" if int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0 else "train"


def source_files(package: str) -> Iterator[tuple[str, Path]]:
    """(Name, path) of each source file, by name; tests and generated files are left out."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the corpus docs needs the package {package}, which is not installed: "
            "install requirements.lock"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root.parent).parts):
        parts = path.relative_to(root.parent).parts
        if path.name not in GENERATED and not {"tests", "testing"} & set(parts):
            yield "/".join(parts), path


def docstrings(source: bytes) -> list[str]:
    """Docstrings of a module, its classes and functions, in source order."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's sources
        try:
            tree = ast.parse(source)
        except SyntaxError:  # templates that only look like Python
            return []
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return [text for node in nodes if (text := ast.get_docstring(node))]


def texts(part: Part, seen: set[str]) -> Iterator[tuple[str, str, str]]:
    """(Text, file, domain) of each file of a part; `seen` collects marks of the docstrings used."""
    for package, domain in DOMAINS.items():
        for file, path in source_files(package):
            if part_of(file) != part:
                continue
            kept = []
            for text in docstrings(path.read_bytes()):
                if (mark := sha256_of(text.encode())[:16]) not in seen:
                    seen.add(mark)
                    kept.append(text)
            if kept:
                yield "\n\n".join(kept), file, domain


def digest(documents: list[tuple[str, str, str]]) -> str:
    """sha256 over texts, files and domains, in order."""
    whole = hashlib.sha256()
    for fields in documents:
        whole.update("\x1f".join(fields).encode() + b"\x1e")
    return whole.hexdigest()


def read_docs(part: Part) -> tuple[list[tuple[str, str, str]], str]:
    """Documents of one part and their sha256, checked against the manifest that ships.

    A docstring is used once: held-out text that also stands in the train part is left out.
    """
    manifest = json.loads(MANIFEST.read_text())
    seen = set(manifest["shared"]) if part == "held-out" else set()
    documents = list(texts(part, seen))
    found = digest(documents)
    if found != manifest["parts"][part]["sha256"]:
        warnings.warn(mismatch(part, manifest), stacklevel=3)
    return documents, found


def held_out_sha256() -> str:
    """What identifies the held-out text that ships, without reading it."""
    return json.loads(MANIFEST.read_text())["parts"]["held-out"]["sha256"]


def mismatch(part: Part, manifest: dict) -> str:
    """The one sentence that says why a corpus differs from the one that was shipped."""
    versions = package_versions()
    changed = [
        f"{name} {versions.get(name)} instead of {pinned}"
        for name, pinned in manifest["packages"].items()
        if versions.get(name) != pinned
    ]
    reason = ", ".join(changed) or "edited sources or another platform's files"
    return (
        f"the {part} part of the corpus docs differs from the shipped one ({reason}), so figures "
        "will not match the book's: install requirements.lock for the same text"
    )


def package_versions() -> dict[str, str]:
    """Installed version of each package of the corpus, without local build tags."""
    owners = importlib.metadata.packages_distributions()
    return {
        package: importlib.metadata.version(owners[package][0]).split("+")[0]
        for package in DOMAINS
        if package in owners
    }


def write_manifest() -> None:
    """Read both parts in full and record what a reader must find (about a minute)."""
    seen: dict[Part, set[str]] = {"train": set(), "held-out": set()}
    parts = {part: list(texts(part, marks)) for part, marks in seen.items()}
    shared = sorted(seen["train"] & seen["held-out"])
    parts["held-out"] = list(texts("held-out", set(shared)))
    described = {
        name: {
            "sha256": digest(documents),
            "documents": len(documents),
            "characters": sum(len(text) for text, _, _ in documents),
        }
        for name, documents in parts.items()
    }
    record = {"packages": package_versions(), "parts": described, "shared": shared}
    MANIFEST.parent.mkdir(parents=True, exist_ok=True)
    write_json(MANIFEST, record)

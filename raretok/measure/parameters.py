"""A page's parameters: what it can be rerun with, validated before anything runs."""

import json
import os
import zlib
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raretok.errors import UserError
from raretok.models import files as model_files
from raretok.text.corpus import Corpus, load_corpus
from raretok.text.rarity import unigram
from raretok.text.shelf import shelved


class PageParameters(BaseModel):
    """What a page can be rerun with: the one source of its cell, its flags and its table."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )

    model: str = Field(
        "smollm2-135m-q4", description="shipped name, local directory, .gguf file or Hub id"
    )
    revision: str = Field("", description="revision of a Hub model, such as step1000")
    corpus: str = Field(
        "docs",
        description="docs, a .txt, .jsonl or .parquet file, or a Hub dataset as owner/name:config",
    )
    n_documents: int = Field(500, ge=2, description="documents that are read of a Hub dataset")
    packed: bool = Field(
        False, description="documents joined end to end before they are cut into contexts"
    )
    unigram: str = Field(
        "",
        description=".npy or .npz file of token counts, or a text to count (as corpus); "
        "empty: the model's own, else those of the corpus",
    )
    protocol: Literal["code", "text", "corrected"] = Field(
        "corrected", description="the reading shown first; pages on claims of the paper compare all"
    )
    rare_percentile: float = Field(
        15.0, gt=0, lt=50, description="percentage of types called rare (and common)"
    )
    n_ctx: int = Field(256, ge=32, description="tokens a context")
    n_positions: int = Field(1600, ge=50, description="scored positions in each class")
    group_percent: float = Field(
        1.0, gt=0, le=20, description="neurons in the plateau group, % of the layer"
    )
    revisions: str = Field(
        "",
        pattern=r"^(step\d+(,step\d+)*)?$",
        description="checkpoints of the page dynamics, such as step0,step1000",
    )
    seed: int = Field(0, ge=0, description="seed of every random choice")
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="where the model runs; auto: spread over the GPUs there are"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="what weights are kept in; all is computed in float32"
    )

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose: independent of what was drawn before."""
        return np.random.default_rng([self.seed, *purpose.encode()])


# Values that `raretok run --profile` begins with.
Profile = Literal["quick", "full", "paper"]
PROFILES: dict[Profile, dict[str, Any]] = {
    "quick": {"n_positions": 400},
    "full": {},
    "paper": {"corpus": "allenai/c4:en", "n_documents": 500, "packed": True, "n_ctx": 256}
    | {"protocol": "code"},
}


def width_words(parameters: PageParameters) -> list[str]:
    """What fewer scored positions than the book's cost in width: a line, or none."""
    n, book = parameters.n_positions, PageParameters().n_positions
    return [
        f"{n} scored positions in each class instead of {book}: intervals are about "
        f"{(book / n) ** 0.5:.1f} times as wide"
    ] * (n < book)


def validated(values: dict[str, Any]) -> PageParameters:
    """Parameters from names and values (strings from a command line are converted).

    Raises `UserError` naming the first parameter that is unknown or has a wrong value.
    """
    try:
        return PageParameters(**values)
    except ValidationError as error:
        known = ", ".join(PageParameters.model_fields)
        unknown = "unknown parameter {!r}: a page takes " + known
        raise UserError(fault(error, unknown, "parameter ")) from None


def fault(error: ValidationError, unknown: str, kind: str = "") -> str:
    """The first thing that is wrong with given values; `unknown` is said of a name without one."""
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return unknown.format(name)
    got = "" if first["type"] == "missing" else f", got {first['input']!r}"
    return f"{kind}{name}: {first['msg'].lower()}{got}"


def asked(given: dict[str, Any]) -> PageParameters:
    """Parameters as a user gives them. Raises `UserError` for what is wrong or not there."""
    parameters = validated(resolved(given))
    check_sources(parameters)
    return parameters


def resolved(values: dict[str, Any]) -> dict[str, Any]:
    """Local paths made absolute: pages run in another folder."""
    done = dict(values)
    for name in ("model", "corpus", "unigram"):
        bare = str(values.get(name, "")).removesuffix(model_files.TWIN)
        if bare in ("", "docs", *shelved()) or model_files.shipped_folder(bare):
            continue
        if os.path.exists(path := os.path.expanduser(bare)):
            done[name] = f"{os.path.realpath(path)}{str(values[name])[len(bare) :]}"
    return done


def check_sources(parameters: PageParameters) -> None:
    """Raise `UserError` for a model or corpus that cannot be there, before a page starts."""
    model_files.check_model(parameters.model, parameters.revision)
    if parameters.corpus not in ("docs", *shelved()):
        load_corpus(parameters.corpus, n_documents=parameters.n_documents)
    found = counts_of(parameters)
    config = model_files.resolve_model(parameters.model) / "config.json"
    if isinstance(found, np.ndarray) and config.is_file():
        unigram(found, json.loads(config.read_text()).get("vocab_size", found.size))


def counts_of(parameters: PageParameters) -> Int[np.ndarray, " entry"] | Corpus | None:
    """Token counts as given, else as shipped with the model; or the text to count them in.

    None: they are those of the scored text. Raises `UserError`.
    """
    own = model_files.resolve_model(parameters.model) / model_files.COUNTS_FILE
    given = parameters.unigram or str(own) * own.is_file()
    path = Path(os.path.expanduser(given))
    if not given:
        return None
    if path.suffix.lower() in (".npy", ".npz") or os.path.isdir(path):
        return read_counts(path)
    return load_corpus(given, part="train", n_documents=parameters.n_documents)


def read_counts(path: Path) -> Int[np.ndarray, " entry"]:
    """Token counts: non-negative whole numbers, one a token id, alone in a .npy or .npz file."""
    try:
        counts = np.load(path, allow_pickle=False)
        if isinstance(counts, np.lib.npyio.NpzFile):
            (counts,) = counts.values()
    except (OSError, ValueError, EOFError, MemoryError, BadZipFile, zlib.error):
        raise UserError(
            f"cannot read token counts from {path.name}: give one array as .npy or .npz"
        ) from None
    whole = counts.ndim == 1 and np.issubdtype(counts.dtype, np.integer)
    if whole and not counts.any():
        raise UserError(f"{path.name} holds no counts: all {counts.size} of them are 0")
    if not whole or (counts.astype(np.int64) < 0).any():  # too large a number turns negative
        raise UserError(
            f"{path.name} holds {counts.dtype} values of shape {counts.shape}: "
            "token counts are one non-negative whole number a token id"
        )
    return counts.astype(np.int64)


def parameter_cell() -> str:
    """Source of a page's parameters cell."""
    lines = [
        f"{name} = {field.default!r}".replace("'", '"') + f"  # {field.description}"
        for name, field in PageParameters.model_fields.items()
    ]
    return "\n".join(lines)


def parameter_table() -> str:
    """The parameters as a Markdown table."""
    rows = [
        f"| `{name}` | `{field.default!r}` | {field.description} |"
        for name, field in PageParameters.model_fields.items()
    ]
    return "\n".join(["| parameter | default | meaning |", "|---|---|---|", *rows])

"""A page's parameters: what it can be rerun with, validated before anything runs."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raretok.errors import UserError
from raretok.models import files as model_files
from raretok.text.corpus import reader_of
from raretok.text.shelf import shelved


class PageParameters(BaseModel):
    """What a page can be rerun with: the one source of its cell, its flags and its table."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(
        "smollm2-135m-q4", description="shipped name, local directory, .gguf file or Hub id"
    )
    revision: str = Field("", description="revision of a Hub model, such as step1000")
    corpus: str = Field("docs", description="docs, or a .txt, .jsonl or .parquet file")
    unigram: str = Field(
        "", description=".npy file of token counts; empty: the model's own, else the corpus's"
    )
    protocol: Literal["code", "text", "corrected"] = Field(
        "corrected", description="the reading shown first; every page compares all three"
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
    device: Literal["cpu", "cuda"] = Field("cpu", description="where the model runs")

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose: independent of what was drawn before."""
        return np.random.default_rng([self.seed, *purpose.encode()])


def validated(values: dict[str, Any]) -> PageParameters:
    """Parameters from names and values (strings from a command line are converted).

    Raises `UserError` naming the first parameter that is unknown or has a wrong value.
    """
    try:
        return PageParameters(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(PageParameters.model_fields)
            raise UserError(f"unknown parameter {name!r}: a page takes {known}") from None
        raise UserError(
            f"parameter {name}: {first['msg'].lower()}, got {first['input']!r}"
        ) from None


def resolved(values: dict[str, Any]) -> dict[str, Any]:
    """Local paths made absolute: pages run in another folder."""
    done = dict(values)
    for name in ("model", "corpus", "unigram"):
        bare = str(values.get(name, "")).removesuffix(model_files.TWIN)
        if bare in ("", "docs", *shelved()) or model_files.shipped_folder(bare):
            continue
        if Path(bare).exists():
            suffix = str(values[name])[len(bare) :]
            done[name] = f"{Path(bare).resolve()}{suffix}"
    return done


def check_sources(parameters: PageParameters) -> None:
    """Raise `UserError` for a model or corpus that cannot be there, before a page starts."""
    model_files.resolve_model(parameters.model)
    if parameters.corpus not in ("docs", *shelved()):
        reader_of(Path(parameters.corpus))


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

"""Where a model's files are, whether they can be read, and what identifies them."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import errors as hub_errors
from huggingface_hub import snapshot_download

from raretok.errors import UserError, first_line
from raretok.models import gguf
from raretok.paths import DATA

SHIPPED = DATA / "models"
TWIN = "@untrained"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# Only these are fetched from the Hub: no pickle, no code, no weights in other formats.
READ = ("*.safetensors", "*.json", "merges.txt", "vocab.txt", "tokenizer.model")
COUNTS_FILE = "unigram_counts.npy"
# In a shipped folder without weights: where they are, and what identifies them.
SOURCE = "source.json"
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def resolve_model(name: str) -> Path:
    """Directory of a shipped or local model, or a GGUF file, else the Hub id (as a path).

    `@untrained` at the end is ignored here. Raises `UserError` for what can be none of these.
    """
    bare = name.removesuffix(TWIN)
    if shipped := shipped_folder(bare):
        return shipped
    if bare.startswith(gguf.PACKAGE) or Path(bare).is_file():
        return gguf.find_gguf(bare)
    if bare and Path(bare).is_dir():
        return Path(bare)
    if bare.startswith((".", "/", "~")) or bare.count("/") > 1 or bare.endswith(".gguf"):
        kind = "file" if bare.endswith(".gguf") else "directory"
        raise UserError(f"the model {kind} {bare} does not exist: check the path")
    if not HUB_ID.fullmatch(bare):
        raise UserError(
            f"{name!r} is no model: give a shipped name, a directory, a GGUF file or owner/name"
        )
    return Path(bare)


def shipped_folder(bare: str) -> Path | None:
    """Folder of a shipped model, be its weights in it or elsewhere."""
    folder = SHIPPED / bare
    there = re.fullmatch(r"[\w.-]+", bare) and any(
        (folder / name).is_file() for name in ("config.json", SOURCE)
    )
    return folder if there else None


def source_record(folder: Path) -> dict[str, Any]:
    """What a shipped folder says of weights that are not in it; empty where they are."""
    file = folder / SOURCE
    return json.loads(file.read_text()) if file.is_file() else {}


def model_folder(name: str, revision: str | None) -> Path:
    """Directory of a model's files: of a Hub model its snapshot, of a GGUF file what it became.

    Raises `UserError`.
    """
    place = resolve_model(name)
    if revision and (place.is_dir() or place.is_file()):
        return checkpoint_folder(place, revision)
    if "gguf" in (source := source_record(place)):
        place = gguf.find_gguf(source["gguf"])
        if gguf.file_sha256(place) != source["sha256"]:
            raise UserError(
                f"{place.name} of {source['gguf']} is not the file that {name} is: "
                "install requirements.lock"
            )
    if place.is_file():
        return gguf.converted(place)
    return place if place.is_dir() else hub_snapshot(str(place), revision, not name.endswith(TWIN))


def checkpoint_folder(place: Path, revision: str) -> Path:
    """Directory of one step of a model that was trained here."""
    folder = place / "checkpoints" / revision
    if folder.is_dir():
        return folder
    if revision in source_record(place).get("revisions", {}):
        raise UserError(
            f"{place.name} at {revision} ships as a measurement, without its weights: train it "
            "with raretok train"
        )
    raise UserError(
        f"{place.name} has no revision {revision!r}: revisions are of Hub models and of "
        "checkpoints that raretok train kept"
    )


def identified(name: str, revision: str | None) -> tuple[str, Path]:
    """sha256 of what decides a model's numbers, and where its token counts are, if it has any.

    Of a shipped model whose weights are elsewhere it is what its folder says: nothing is loaded.
    """
    place, untrained = resolve_model(name), name.endswith(TWIN)
    source = source_record(place)
    known = source.get("revisions", {}).get(revision) if revision else source.get("sha256")
    if known and not untrained:
        return known, place / COUNTS_FILE
    folder = model_folder(name, revision)
    seed = twin_seed(folder) if untrained else None
    return files_digest(folder, seed), place / COUNTS_FILE


def hub_snapshot(hub_id: str, revision: str | None, weights: bool) -> Path:
    """Folder of the Hub's cache that holds this model; fetched first if need be."""
    patterns = READ if weights else READ[1:]
    asked = f"{hub_id} (revision {revision})" if revision else hub_id
    try:
        return Path(
            snapshot_download(
                hub_id, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
            )
        )
    except (hub_errors.GatedRepoError, hub_errors.DisabledRepoError):
        raise UserError(f"{asked} needs access rights: log in with `hf auth login`") from None
    except (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError):
        raise UserError(f"the Hub has no model {asked}: check name and revision") from None
    except hub_errors.HFValidationError as error:
        raise UserError(f"{hub_id!r} is no Hub id: {first_line(error)}") from None
    except (OSError, hub_errors.HfHubHTTPError):
        raise UserError(
            f"{asked} is not in the local cache and the Hub cannot be reached: "
            "download it first or give a directory"
        ) from None


def check_files(folder: Path, label: str, *, weights: bool) -> None:
    if weights and not list(folder.glob("*.safetensors")):
        pickles = sorted(p.name for p in folder.glob("*.bin"))
        if pickles:
            raise UserError(
                f"{label} holds pickle weights only ({pickles[0]}); raretok reads safetensors, "
                "convert it with save_pretrained(..., safe_serialization=True)"
            )
        if source_record(folder):
            raise UserError(
                f"{label} ships as a measurement, without its weights: train it with raretok train"
            )
        raise UserError(f"{label} has no weights: no .safetensors file beside its config.json")
    if not any((folder / name).is_file() for name in TOKENIZER):
        raise UserError(f"{label} has no tokenizer: put its tokenizer.json beside config.json")


def twin_seed(folder: Path) -> int:
    """Seed the weights of a trained model began from; 0 where no record says."""
    record = folder / "training.json"
    if not record.is_file():
        return 0
    try:
        return int(json.loads(record.read_text()).get("seed", 0))
    except (ValueError, TypeError, AttributeError):
        raise UserError(
            f"{folder.name}/training.json is no training record: mend or delete it"
        ) from None


def files_digest(folder: Path, seed: int | None) -> str:
    """One sha256 over names and contents of what decides the numbers; of a GGUF file its own."""
    if seed is None and (sha256 := gguf.source_sha256(folder)):
        return sha256
    total = hashlib.sha256()
    for file in sorted(f for pattern in READ for f in folder.glob(pattern)):
        is_weights = file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
        is_record = file.name in ("training.json", "generation_config.json", SOURCE)
        if is_record or (is_weights and seed is not None):
            continue
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        total.update(f"{file.name} {content}\n".encode())
    if seed is not None:
        total.update(f"untrained, seed {seed}\n".encode())
    return total.hexdigest()

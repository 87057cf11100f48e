"""Where a model's files are, whether they can be read, and what identifies them."""

import hashlib
import json
import re
from pathlib import Path

from huggingface_hub import errors as hub_errors
from huggingface_hub import snapshot_download

from raretok.errors import UserError
from raretok.paths import DATA

SHIPPED = DATA / "models"
TWIN = "@untrained"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# Only these are fetched from the Hub: no pickle, no code, no weights in other formats.
READ = ("*.safetensors", "*.json", "merges.txt", "vocab.txt", "tokenizer.model")
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def resolve_model(name: str) -> Path:
    """Directory of a shipped or local model, else the Hub id (as a path that does not exist).

    `@untrained` at the end is ignored here. Raises `UserError` for what can be neither.
    """
    bare = name.removesuffix(TWIN)
    if re.fullmatch(r"[\w.-]+", bare) and (SHIPPED / bare / "config.json").is_file():
        return SHIPPED / bare
    if bare and Path(bare).is_dir():
        return Path(bare)
    if bare.startswith((".", "/", "~")) or bare.count("/") > 1:
        raise UserError(f"the model directory {bare} does not exist: check the path")
    if not HUB_ID.fullmatch(bare):
        raise UserError(f"{name!r} is no model: give a shipped name, a directory or owner/name")
    return Path(bare)


def model_folder(name: str, revision: str | None) -> Path:
    """Directory of a model's files, of a Hub model its snapshot. Raises `UserError`."""
    place = resolve_model(name)
    return place if place.is_dir() else hub_snapshot(str(place), revision, not name.endswith(TWIN))


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
    """One sha256 over names and contents of what decides the numbers."""
    total = hashlib.sha256()
    for file in sorted(f for pattern in READ for f in folder.glob(pattern)):
        is_weights = file.suffix == ".safetensors" or file.name.endswith(".safetensors.index.json")
        is_record = file.name in ("training.json", "generation_config.json")
        if is_record or (is_weights and seed is not None):
            continue
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        total.update(f"{file.name} {content}\n".encode())
    if seed is not None:
        total.update(f"untrained, seed {seed}\n".encode())
    return total.hexdigest()


def first_line(error: Exception) -> str:
    """An error in one line, without the name of a folder on this machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"(?<![\w/])/\S*/", "", lines[0])[:160] if lines else type(error).__name__

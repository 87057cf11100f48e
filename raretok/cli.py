"""The command line of the book and of its engine: `raretok --help`."""

import re
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option
from typer.exceptions import Abort, TyperException

from raretok.errors import UserError
from raretok.measure.parameters import PROFILES, PageParameters, Profile, asked
from raretok.models.architecture import Family
from raretok.paths import CLOSED, FULL, ROOT, RUNS, check_writable

app = typer.Typer(
    help="Rare-token neurons, tested: rerun any page of the book on your model and corpus.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
STOPPED = 130  # exit status after Ctrl-C


def main() -> None:
    """Entry point: a user's mistake is one line on stderr and exit status 2."""
    warnings.showwarning = lambda message, *_, **__: print(f"raretok: {message}", file=sys.stderr)
    try:
        status = app(sys.argv[1:] or ["--help"], prog_name="raretok", standalone_mode=False) or 0
    except Abort as ended:  # what the library makes of an EOFError, which is no user's doing
        raise ended.__cause__ or ended from None
    except (UserError, TyperException, OSError) as error:
        print(f"raretok: {said(error)}", file=sys.stderr)
        status = 2
    if status == STOPPED:
        print("raretok: stopped", file=sys.stderr)
    sys.exit(status)


def said(error: UserError | TyperException | OSError) -> str:
    """What is wrong with a command or a disk, in one line. Raises what is no user's doing."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        if error.errno not in (*FULL, *CLOSED):
            raise error
        where = Path(error.filename or "results or temporary files (TMPDIR)").name
        return f"cannot read or write {where}: {error.strerror.lower()}"
    ctx = getattr(error, "ctx", None)
    words = " ".join(error.format_message().split()).rstrip(".")
    return f"{words}: see {ctx.command_path if ctx else 'raretok'} --help"


def flag(name: str) -> typer.models.OptionInfo:
    """The flag of a page parameter."""
    return Option(help=PageParameters.model_fields[name].description)


def stop_for(errors: Iterable[object]) -> None:
    """A line on stderr for each thing that failed, and exit status 1 if there is one."""
    lines = [f"raretok: {error}" for error in errors]
    if lines:
        print(*lines, sep="\n", file=sys.stderr)
        sys.exit(1)


Parameters = Annotated[
    list[str] | None, Option("--parameter", "-p", help="name=value, any page parameter")
]
Pages = Annotated[list[str] | None, Argument(help="pages (01_regimes or regimes), or all")]
PagesAtATime = Annotated[int, Option(min=1, help="pages at a time; each takes 1.5 GB")]
ModelName = Annotated[str, Argument(help=PageParameters.model_fields["model"].description)]
TextName = Annotated[str, flag("corpus")]
Revision = Annotated[str, Option(help="revision, or checkpoint such as step64")]
Device = Annotated[str, Option(help="cpu or cuda")]


@app.command()
def run(
    page: Pages = None,
    model: Annotated[str | None, flag("model")] = None,
    revision: Annotated[str | None, flag("revision")] = None,
    corpus: Annotated[str | None, flag("corpus")] = None,
    protocol: Annotated[str | None, flag("protocol")] = None,
    parameter: Parameters = None,
    profile: Annotated[Profile, Option(help="flags and -p override it")] = "full",
    out: Annotated[Path | None, Option(help="folder of the executed pages")] = None,
    jobs: PagesAtATime = 1,
    site: Annotated[bool, Option(help="build the pages as a site of their own")] = True,
) -> None:
    """Measure your model, run pages with your parameters in a folder of their own, build a site."""
    from raretok.book import pages, rerun

    flags = {"model": model, "revision": revision, "corpus": corpus, "protocol": protocol}
    given = PROFILES[profile] | dict(split_assignment(text) for text in parameter or [])
    parameters = asked(given | {name: value for name, value in flags.items() if value is not None})
    sources = [pages.page_named(ROOT, name) for name in page or ["all"] if name != "all"]
    if not page or "all" in page:
        sources = pages.pages(ROOT)
    folder = out or RUNS / rerun.name_of(parameters)
    if folder.resolve() == ROOT / "book":
        raise UserError("--out book would replace the pages of the book: choose another folder")
    check_writable(folder)
    stop_for(rerun.rerun(parameters, sources, folder, jobs=jobs, site=site))


def split_assignment(text: str) -> tuple[str, str]:
    """`name=value` in two. Raises `UserError` without an equals sign."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"-p {text}: write name=value, such as -p rare_percentile=10")
    return name, value


@app.command()
def sweep(
    file: Annotated[Path, Argument(help="YAML: models, revisions, corpora, parameters")],
    workers: Annotated[int, Option(min=0, help="processes here; 0: this one")] = 0,
    scheduler: Annotated[str, Option(help="address of a Dask scheduler instead")] = "",
    out: Annotated[Path | None, Option(help="folder; default runs/NAME")] = None,
) -> None:
    """Run pages on a grid of models, texts and parameters, here or on a Dask cluster."""
    from raretok.ablation.distributed import connected
    from raretok.book.grid import planned, words
    from raretok.book.sweep import sweep as run_sweep

    plan = planned(file, out)
    with connected(scheduler, workers) as client:
        print(f"Dask's dashboard is {client.dashboard_link}", file=sys.stderr)
        print(run_sweep(plan, client))
    stop_for(f"{words(cell.varied)}: {cell.reasons[0]}" for cell in plan.cells if cell.reasons)


@app.command()
def book(jobs: PagesAtATime = 2) -> None:
    """Run every page on the shipped model and build the site."""
    from raretok.book import pages, status

    sources, folder, took = pages.pages(ROOT), ROOT / "book", {}
    quiet = {"done": lambda page: None, "jobs": jobs, "took": took}
    for error in pages.run_pages(sources, folder, {}, **quiet):
        raise error
    status.note(folder, status.TIMES, took)
    print(f"The front page is {pages.build_site(ROOT).relative_to(ROOT)}")


@app.command()
def measure(
    model: Annotated[str | None, Argument(help="as of raretok run; default the book's")] = None,
    check: Annotated[bool, Option("--check", help="measure a sample again")] = False,
    every: Annotated[bool, Option("--all", help="renew every measurement that ships")] = False,
    replicate: Annotated[
        bool, Option("--replicate", help="what ships of a run, a checkpoint, another text")
    ] = False,
    count: Annotated[
        bool, Option("--count", help="count the train part of docs in its tokens, to ship")
    ] = False,
    revision: Revision = "",
    corpus: TextName = "docs",
    device: Device = "cpu",
) -> None:
    """Measure what the pages need of a model, or check that it is what this machine measures."""
    from raretok.book import pages, renewal
    from raretok.measure import find

    given = {"model": model or find.LEAD, "revision": revision, "corpus": corpus, "device": device}
    parameters = asked(given)
    if check:
        names = [parameters.model] if model else [*find.WHOLE, find.UNTRAINED]
        every_one = [parameters.model_copy(update={"model": name}) for name in names]
        sys.exit(0 if renewal.check(every_one) else 1)
    if count:
        print(f"counted: {renewal.count_train(parameters)}")
    elif every:
        renewal.renew(device)
        renewal.say("running the pages on what was measured")
        print(*pages.pages_changed(ROOT), sep="\n")
    elif replicate and revision:
        step = find.step_parameters(parameters.model, revision, device=device)
        print(f"measured: {renewal.measure(step, ship=True).path.name}")
    else:
        print(f"measured: {renewal.measure(parameters, ship=replicate).path.name}")


@app.command()
def calibrate(
    model: ModelName = "docs-gpt2",
    runs: Annotated[int, Option(min=1, help="worlds of each kind and size")] = 100,
    jobs: Annotated[int, Option(min=1, help="processes")] = 2,
) -> None:
    """How often each verdict is given where the truth is planted; run again to resume."""
    from raretok.book import renewal

    print(renewal.calibrate(asked({"model": model}), runs, jobs))


@app.command()
def train(
    name: Annotated[str, Argument(help="folder under data/models")] = "docs-gpt2",
    tokens: Annotated[int, Option(help="tokens predicted in training")] = 24_000_000,
    device: Device = "cpu",
    work: Annotated[Path | None, Option(help="checkpoints; default runs/train-NAME")] = None,
    seed: Annotated[int, Option(min=0, help="seed of weights and batches")] = 0,
    family: Annotated[Family, Option(help="of the architecture")] = "gpt2",
    checkpoints: Annotated[str, Option(help="steps of weights to keep, such as 0,16,1024")] = "",
    without: Annotated[str, Option(help="domain of the corpus that is left out")] = "",
) -> None:
    """Train a shipped model on the corpus docs; run again to resume."""
    from raretok.models.training import TrainingConfig, check_device, train

    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"{name!r} is no name for a folder: use letters, digits, . _ and -")
    check_device(device)
    out, work = ROOT / "data" / "models" / name, work or RUNS / f"train-{name}"
    for folder in (out, work):
        check_writable(folder)
    more = {"family": family, "checkpoints": steps_in(checkpoints), "without": without}
    config = TrainingConfig(n_tokens=tokens, seed=seed, **more)
    record = train(config, out, work=work, device=device)
    print(f"held-out loss {record['held_out_loss']} nats a token, {record['seconds']} s")


def steps_in(text: str) -> tuple[int, ...]:
    """Steps of `0,16,1024`, in order; none of an empty text. Raises `UserError`."""
    if text and not re.fullmatch(r"\d+(,\d+)*", text):
        raise UserError(f"--checkpoints {text}: write steps with commas between, such as 0,16,1024")
    return tuple(sorted({int(step) for step in text.split(",") if step}))


@app.command()
def text(
    name: Annotated[str, Argument(help="licences or addresses")],
    folder: Annotated[Path, Argument(help="the unpacked package that holds it")],
) -> None:
    """Make a text that is not docstrings, of which measurements ship, from its package."""
    from raretok.text.shelf import make_text

    out, same = make_text(name, folder)
    said = "the text that was measured" if same else "NOT the text that was measured"
    print(f"{out.relative_to(RUNS)}: {said}")


@app.command()
def ablate(
    model: Annotated[str, flag("model")] = "docs-gpt2",
    corpus: TextName = "docs",
    positions: Annotated[int, Option(help="scored positions")] = 4096,
    revision: Revision = "",
    layer: Annotated[int, Option(help="MLP layer; -1 is the last, all its neurons")] = -1,
    mode: Annotated[str, Option(help="mean, zero or (last layer) resample")] = "mean",
    effect: Annotated[str, Option(help="total, or direct: the final norm's scale held")] = "total",
    tolerance: Annotated[
        float, Option(help="error of a neuron's mean effect, nats; 0 sums all tokens")
    ] = 5e-7,
    seed: Annotated[int, Option(help="seed of all that is drawn")] = 0,
    out: Annotated[Path | None, Option(help="folder of the run; default runs/KEY")] = None,
    device: Annotated[str, flag("device")] = "cpu",
    dtype: Annotated[str, flag("dtype")] = "float32",
    max_memory: Annotated[float, Option(help="GB above the model")] = 2.0,
    resume: Annotated[bool, Option("--resume/--fresh", help="go on, or start again")] = True,
) -> None:
    """Ablate every neuron of the last MLP at N positions, into a run and a table on disk.

    Of an earlier layer every neuron is screened by its gradient, and the top ones and a random
    subset are ablated exactly.
    """
    given, started = locals(), time.monotonic()
    from raretok.measure import effects

    print(effects.summary(effects.ablate(**given), time.monotonic() - started))


@app.command()
def bench(
    shape: Annotated[
        list[str] | None, Option(help="docs-gpt2, gpt2-small, pythia-1b; default all")
    ] = None,
    positions: Annotated[int, Option(help="scored positions, in whole contexts")] = 4096,
    scaling: Annotated[
        bool, Option("--scaling", help="time against positions, neurons, vocabulary instead")
    ] = False,
    out: Annotated[Path | None, Option("--json", help="file for the numbers")] = None,
    device: Device = "cpu",
) -> None:
    """Time all ways to ablate every neuron on the same positions, with errors and memory."""
    from raretok.bench import run as benchmark

    if scaling and shape:
        raise UserError("--scaling uses heads of its own: leave --shape out")
    if scaling:
        for record in benchmark.scaling(device=device, out=out):
            print(f"{record[record['axis']]:>7,} {record['axis']:10} {record['seconds']:8.3f} s")
    else:
        rows = benchmark.bench(shape or benchmark.SHAPES, positions, device=device, out=out)
        print(benchmark.table(rows).to_string())


@app.command()
def inspect(model: ModelName, revision: Revision = "", corpus: TextName = "docs") -> None:
    """What a model is built of, which claims can be tested on it, and what that takes here."""
    from raretok.book.inspection import report

    for line in report(asked({"model": model, "revision": revision, "corpus": corpus})):
        print(line, flush=True)

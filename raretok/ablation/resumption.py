"""Opening a run directory to write it: a new run, or one that goes on."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raretok.ablation.store import Run, create_run, is_run, read_record, remove_run
from raretok.errors import UserError
from raretok.paths import RUNS, key_of, locked, one_line


@contextmanager
def run_to_write(
    out: Path | None,
    settings: dict[str, Any],
    layout: Callable[[], dict[str, Any]],
    *,
    resume: bool = True,
    wait: bool = False,
) -> Iterator[Run]:
    """The run in a directory, begun or checked and ready to go on; its scratch goes at the end.

    `out` is `runs/KEY` unless given; `layout` says how a run that has work left is cut. An error
    leaves what is finished. Another process that writes the same run is refused, or awaited with
    `wait`. Raises `UserError` for what is damaged or no run, for other settings, and for a full
    disk.
    """
    folder = out or RUNS / key_of(settings)
    with one_line(folder):
        # All that can be refused is, before anything is written.
        known = (folder / "run.json").is_file() if wait else is_run(folder)
        if not (known and resume and read_record(folder)["state"] == "complete"):
            layout()
    with one_line(folder), locked(folder, wait=wait):
        begun = is_run(folder)
        if begun and not resume:
            remove_run(folder)
        if begun and resume:
            run = resumed(folder, settings, layout)
        else:
            run = create_run(folder, settings, layout())
        yield run
        shutil.rmtree(run.scratch, ignore_errors=True)


def resumed(folder: Path, settings: dict[str, Any], layout: Callable[[], dict[str, Any]]) -> Run:
    """The run in a directory, checked and ready to go on. Raises `UserError`."""
    run = Run(folder, read_record(folder))
    theirs = run.record["settings"]
    different = [n for n in sorted({*theirs, *settings}) if theirs.get(n) != settings.get(n)]
    if different:
        name = different[0]
        raise UserError(
            f"{folder} is a run with other settings ({', '.join(different)}): {name} is "
            f"{theirs.get(name)}, not {settings.get(name)}; give another directory or --fresh"
        )
    if run.complete:
        return run
    block, parts, cut = run.record["block"], run.record["parts"], layout()
    if block > cut["block"] or parts < cut["parts"]:  # going on takes more memory than is given
        raise UserError(
            f"{folder} is cut into blocks of {block} positions, these in {parts} parts; this "
            f"memory budget asks for {cut['block']} and {cut['parts']}: raise --max-memory or use "
            "--fresh"
        )
    return run

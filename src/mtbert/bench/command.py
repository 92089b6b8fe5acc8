"""``mtbert bench``: our speed beside that of ``transformers``, measured side by side on this machine."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mtbert.errors import InputError, nearest
from mtbert.paths import atomic_write
from mtbert.process import prepare
from mtbert.terminal import tell

MEASURES = ("step", "evaluation", "predict", "frozen", "overhead", "startup", "memory")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtbert bench``."""
    add = parser.add_argument
    add("--encoder", help="a file of conf/encoder, or base-shape: BERT-base's sizes and pooling, random weights")
    add("--device", default="auto", help="cpu, cuda (default: auto)")
    add("--precision", default="auto", help="of ours: 32-true, bf16-mixed (default: auto)")
    add("--peer", action="append", metavar="NAME", help="a peer, or all (default: all but compiled ones)")
    add("--only", action="append", metavar="MEASURE", help=f"of {', '.join(MEASURES)} (default: all)")
    add("--threads", type=int, help="of every contestant (default: all cores)")
    add("--rows", type=int, default=1024, help="pairs of train and of dev to draw (default: %(default)s)")
    add("--repeats", type=int, default=7, help="timed rounds (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the figures there too")
    add("overrides", nargs="*", help="Hydra overrides, e.g. batch_size=16")


def main(args: argparse.Namespace) -> int:
    """``mtbert bench``: measure, print the table.

    Raises:
        InputError: a name that is not known; or a peer is asked for without ``transformers``.
    """
    prepare()
    from mtbert.bench import measures, processes, steps
    from mtbert.bench.contestants import chosen_setups
    from mtbert.bench.figures import as_json, as_text
    from mtbert.bench.workload import Setting

    chosen = _measures(args)
    setting = Setting(args.encoder, args.device, args.precision, args.threads, args.rows, tuple(args.overrides))
    setups = chosen_setups(args.peer, args.device) if find_spec("transformers") or args.peer else []
    bench = measures.Bench(setting, setting.workload(), setups, args.repeats)
    figures = []
    for name in chosen:
        tell(f"measuring: {name}")
        figures += next(getattr(part, name) for part in (steps, measures, processes) if hasattr(part, name))(bench)
    about = header(bench)
    print(as_text(about, figures))
    if args.json:
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(as_json(about, figures), indent=1) + "\n", encoding="utf-8")
    return 0


def _measures(args: argparse.Namespace) -> list[str]:
    for option, value in (("--rows", args.rows), ("--repeats", args.repeats), ("--threads", args.threads or 1)):
        if value < 1:
            raise InputError(f"{option} {value}: expected a number above 0")
    for name in args.only or []:
        if name not in MEASURES:
            raise InputError(f"--only {name}: not known{nearest(name, MEASURES)}")
    return [name for name in MEASURES if not args.only or name in args.only]


def header(bench: Any) -> dict[str, Any]:
    """What was measured, where, with what."""
    from importlib.metadata import version

    from mtbert.bench.contestants import padded
    from mtbert.provenance import git_state, versions

    workload, (commit, dirty) = bench.workload, git_state()
    table, size = workload.train, workload.config.batch_size
    batches, shape = workload.batches(size), workload.encoder().config
    cells = sum(padded(side)["input_ids"].numel() for rows in batches for side in _sides(table, rows))
    tokens = sum(int(table.num_tokens()[rows].sum()) for rows in batches)
    peers = {"transformers": version("transformers")} if find_spec("transformers") else {}
    return {
        "encoder": f"{workload.encoder_name}: {shape.num_hidden_layers} layers, {shape.hidden_size} wide",
        "rows": f"{len(table)} train and {len(workload.dev)} dev pairs of Quora, {workload.config.data.name}",
        "tokens": f"{tokens / len(batches):.0f} in {size} pairs, {tokens / len(batches) / size / 2:.1f} a sentence; "
        f"padded in two passes, {100 * (1 - tokens / cells):.0f} % would be padding",
        "precision": workload.runtime.precision,
        "device": workload.runtime.device,
        "commit": f"{commit}{' and changes' if dirty else ''}",
        "versions": ", ".join(f"{name} {number}" for name, number in {**versions(), **peers}.items()),
        "repeats": bench.repeats,
    }


def _sides(table: Any, rows: Any) -> list[Any]:
    sequences = table.input_ids(rows)
    return [sequences[: len(rows)], sequences[len(rows) :]]

"""The command line: ``mtbert COMMAND ...``. Every command lives in its own module, imported only when it is called."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from mtbert import __version__
from mtbert.errors import InputError, Stopped, explain, nearest
from mtbert.terminal import tell

# command -> module with add_arguments(parser) and main(args), and what it is for
COMMANDS = {
    "reproduce": ("mtbert.reproduce", "run the paper's experiments (what is done is kept) and print their table"),
    "table": ("mtbert.results.table", "print the table of finished runs beside the paper's figures"),
    "claims": ("mtbert.results.claims", "hold what the paper claims against finished runs"),
    "interactions": ("mtbert.results.interactions", "which measures stack and which are redundant, from factorial/"),
    "ensemble": ("mtbert.results.ensemble", "average what finished runs predict, and measure it on the dev rows"),
    "figures": ("mtbert.figures.command", "draw the paper's figures, learning curves and predictions of finished runs"),
    "report": ("mtbert.report.command", "write one HTML page of all that was run: table, figures, errors"),
    "archive": ("mtbert.results.archive", "keep finished runs without weights, small enough for a repository"),
    "runs": ("mtbert.results.runs", "list the runs there are"),
    "predict": ("mtbert.predict", "score a CSV file with a trained run, or several averaged"),
    "search": ("mtbert.search", "search for better values of a few keys, on training rows held out"),
    "export": ("mtbert.export", "write a trained run as a published BERT, with a model card and ONNX models"),
    "data": ("mtbert.data.download", "download the five datasets"),
    "overlap": ("mtbert.data.overlap", "count the dev rows that are among the training rows, for every two datasets"),
    "bench": ("mtbert.bench.command", "measure our speed beside that of transformers"),
    "parity": ("mtbert.parity", "replay recorded runs of the paper's published code, step by step"),
}
RESUMABLE = ("train", "reproduce", "search", "data")
TRAIN = "train one experiment, or several with --multirun; takes Hydra overrides"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on standard error and a status above 0."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    # Threads that wait for one another sleep soon instead of spinning: several times as fast where cores are shared.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Advice that torch gives from C++, where no filter sees it: DDP looks for unused parameters, which come and go.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for name in ("MTBERT_DATA", "MTBERT_RUNS", "MTBERT_ARCHIVE", "MTBERT_CACHE"):
        if os.environ.get(name) == "":  # set to nothing means not set
            del os.environ[name]
    sys.path.insert(0, str(Path.cwd()))  # modules of one's own, named by import path in a config
    _stop_on_signals()
    try:
        return _dispatch(arguments)
    except BrokenPipeError:  # whoever reads the output has seen enough: `mtbert table | head`
        sys.stderr.close()
        return 0
    except (Exception, Stopped) as error:
        line, status = explain(error)
        if isinstance(error, Stopped) and arguments[0] in RESUMABLE:
            line += "; the same command again goes on from here"
        tell(f"{traceback.format_exc() if debug else ''}mtbert: {line}")
        return status


def _stop_on_signals() -> None:
    """Ctrl-C, SIGTERM and a closed terminal end a command in order, and only once: what is being written is finished
    or taken away. ``nohup`` keeps what it promises.
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)

    def stop(number: int, frame: object) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    if threading.current_thread() is threading.main_thread():
        for each in signals:
            signal.signal(each, stop)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        print(f"mtbert {__version__}")
        return 0
    command, *rest = arguments
    if command == "train":
        return import_module("mtbert.hydra_app").main(rest)
    if command not in COMMANDS:
        raise InputError(f"no command '{command}'{nearest(command, ['train', *COMMANDS])}")
    module, purpose = import_module(COMMANDS[command][0]), COMMANDS[command][1]
    parser = argparse.ArgumentParser(prog=f"mtbert {command}", description=purpose, allow_abbrev=False)
    module.add_arguments(parser)
    return module.main(parser.parse_intermixed_args(rest))


def _usage() -> str:
    lines = [f"  {'train':<12} {TRAIN}", *(f"  {name:<12} {purpose}" for name, (_, purpose) in COMMANDS.items())]
    return "\n".join(
        [
            "usage: mtbert COMMAND ... [--debug]",
            "",
            *lines,
            "",
            "mtbert COMMAND --help says more; --debug shows the traceback of an error.",
        ]
    )

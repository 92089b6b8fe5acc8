"""The command line: ``mtbert COMMAND ...``. Every command lives in its own module, imported only when it is called."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from mtbert import __version__
from mtbert.errors import InputError, explain, nearest

# command -> module with add_arguments(parser) and main(args), and what it is for
COMMANDS = {
    "reproduce": ("mtbert.reproduce", "run the paper's experiments (what is done is kept) and print their table"),
    "table": ("mtbert.results.table", "print the table of finished runs beside the paper's figures"),
    "runs": ("mtbert.results.runs", "list the runs there are"),
    "predict": ("mtbert.predict", "score a CSV file with a trained run"),
    "data": ("mtbert.data.download", "download the five datasets"),
}
TRAIN = "train one experiment, or several with --multirun; takes Hydra overrides"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake is one line on standard error and a status above 0."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        return _dispatch([argument for argument in arguments if argument != "--debug"])
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        line, status = explain(error)
        print(f"mtbert: {line}", file=sys.stderr)
        return status


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
    return module.main(parser.parse_args(rest))


def _usage() -> str:
    lines = [f"  {'train':<10} {TRAIN}", *(f"  {name:<10} {purpose}" for name, (_, purpose) in COMMANDS.items())]
    return "\n".join(
        [
            "usage: mtbert COMMAND ... [--debug]",
            "",
            *lines,
            "",
            "mtbert COMMAND --help says more; --debug shows the traceback of an error.",
        ]
    )

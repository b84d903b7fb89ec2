"""The command line `alibi-seg`: one module a command, thin over the facade.

Only argparse is imported until a command is chosen, so that ``--help`` is immediate.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["main"]

# Each module has `add_arguments(parser)` and `command(args) -> exit code`; its
# docstring is the help text, the first line the summary.
_COMMANDS = {
    "demo": "make a synthetic micrograph and run the whole chain on it",
    "features": "compute and store the ViT features of images",
    "train": "learn a classifier from scribbles",
    "apply": "segment files or folders with a classifier",
    "evaluate": "score segmentations against ground truth",
    "bias": "measure how much position is in a backbone's features of your images",
    "models": "list backbones, see and fetch their weights",
    "distill": "train a backbone: retrofit ALiBi to a ViT, or a small student",
    "denoiser": "train a denoiser of position for a backbone (DVT)",
    "gui": "open napari with images and the dock",
    "info": "describe a classifier, an image, or this installation",
}


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alibi-seg",
        description="Segment large micrographs from a few scribbles.",
        epilog="`alibi-seg COMMAND --help` explains each command. Exit codes: 0 all "
        "went well, 1 a file failed, 2 the command line is wrong, 130 interrupted.",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="say what is chosen and done (-vv: every tile)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, summary in _COMMANDS.items():
        if name != chosen:
            commands.add_parser(name, help=summary)
            continue
        module = import_module(f"napari_alibi_seg._cli._{name}")
        sub = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0 all went well, 1 a file failed, 2 wrong usage, 130 interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # only the chosen command's module is imported
    chosen = next((a for a in argv if a in _COMMANDS), None)
    parser = _parser(chosen)
    args = parser.parse_args(argv)
    if args.version:
        from napari_alibi_seg import __version__

        print(__version__)
        return 0
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    logger = logging.getLogger("napari_alibi_seg")
    before = logger.level
    logger.setLevel(levels[min(args.verbose, 2)])
    from napari_alibi_seg._cli._common import run

    try:
        return run(args.run, args)
    finally:
        # whoever calls this from Python has chosen a level of their own
        logger.setLevel(before)

"""`python -m deployments`: serves here until Ctrl-C; `dub` and `bulk` ask a server, `key` makes an API key."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

# Before Ray is imported, which reads it then.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A proxy that isn't ready after 5 s, Serve's default, is killed, and the start fails with it; a busy laptop needs more.
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "30")

from deployments import bulk_command, dub_command
from deployments.keys import new_key
from deployments.settings import LOCAL, Settings


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    commands = {"dub": dub_command.main, "bulk": bulk_command.main, "key": make_key}
    if given and given[0] in commands:
        return commands[given[0]](given[1:])
    return _serve(given)


def _serve(arguments: list[str]) -> int:
    from deployments.launcher import Address, serve_config, serve_here  # Ray comes with it, and a client needs none

    settings, given = read_options(arguments)
    if given.config is not None:
        return serve_config(
            given.config,
            ray_address=given.ray_address,
            metrics_port=given.metrics_port,
            start_timeout_seconds=given.start_timeout,
        )
    address = Address(given.host, given.port, given.metrics_port)
    return serve_here(settings, address, start_timeout_seconds=given.start_timeout)


def make_key(arguments: list[str]) -> int:
    """Show a new key, this once, and print the line for the file that `--api-keys` names."""
    parser = argparse.ArgumentParser(prog="python -m deployments key", description=make_key.__doc__)
    parser.add_argument("what", choices=["new"])
    parser.add_argument("name", help="of its owner, for logs: letters, digits and . _ @ -")
    name = parser.parse_args(arguments).name
    try:
        key, line = new_key(name)
    except ValidationError as error:
        parser.error(f"name: {error.errors()[0]['msg']}")
    print(f"The key of {name}, shown this once: {key}", file=sys.stderr)  # so that >> file keeps the line alone
    print(line)
    return 0


def read_options(arguments: list[str] | None) -> tuple[Settings, argparse.Namespace]:
    """Return the settings, and the rest; options that can't work end the program with a sentence about them."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.config is not None:
        _check_alone(parser, given)
    elif given.ray_address != LOCAL:
        parser.error("--ray-address: goes with --config; without a file a Ray of its own is started")
    try:
        settings = Settings(**{name: value for name, value in vars(given).items() if name in Settings.model_fields})
    except ValidationError as error:
        wrong = error.errors()[0]
        option = (
            f"{_option(str(wrong['loc'][0]))}: " if wrong["loc"] else ""
        )  # two that contradict each other have none
        parser.error(f"{option}{wrong['msg']}")
    return settings, given


def _check_alone(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """The file says everything, so an option beside it would be passed over."""
    for name, value in vars(given).items():
        if name not in ("config", "ray_address", "metrics_port", "start_timeout") and value != parser.get_default(name):
            parser.error(f"{_option(name)}: with --config that stands in the file")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments",
        description="Serves on this machine until Ctrl-C.",
        epilog="Commands that ask a running server: dub FILE -o TRACK, bulk MANIFEST FOLDER; each has a --help.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, field in Settings.model_fields.items():
        kind: dict[str, Any] = {}  # numbers are read, and checked, by the settings
        if field.annotation is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        elif get_origin(field.annotation) is Literal:
            kind = {"choices": get_args(field.annotation)}
        parser.add_argument(_option(name), default=field.default, help=field.description, **kind)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in; see --api-keys")
    parser.add_argument("--port", default=8000, type=int, help="of the HTTP interface")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="serve what a serve_config.yaml says, as `serve run FILE`, but drain before stopping",
    )
    parser.add_argument("--ray-address", default=LOCAL, help="of a cluster to serve a --config on, such as auto")
    parser.add_argument(
        "--metrics-port",
        type=int,
        help="for Prometheus, at /metrics, open on every network of this machine; without it Ray chooses one",
    )
    parser.add_argument("--start-timeout", default=600.0, type=float, metavar="SECONDS", help="to be ready in")
    return parser


def _option(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


if __name__ == "__main__":
    sys.exit(main())

"""`python -m deployments`: serves on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from typing import get_args

from pydantic import ValidationError

# Before Ray is imported, which reads it then.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from deployments.launcher import Address, serve_here
from deployments.settings import Device, Precision, Settings


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        settings = Settings(**{name: value for name, value in vars(given).items() if name in Settings.model_fields})
    except ValidationError as error:
        wrong = error.errors()[0]
        parser.error(f"--{str(wrong['loc'][0]).replace('_', '-')}: {wrong['msg']}")
    return serve_here(settings, Address(given.host, given.port), start_timeout_seconds=given.start_timeout)


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m deployments", description=__doc__)
    parser.add_argument("--model", default=default.model, help="'embedded', a checkpoint's directory or a hub id")
    parser.add_argument("--device", default=default.device, choices=get_args(Device))
    parser.add_argument("--precision", default=default.precision, choices=get_args(Precision))
    parser.add_argument("--cpu-threads", default=default.cpu_threads, type=int, help="of the decoder without GPU")
    parser.add_argument("--max-rows", type=int, help="spoken together; by default as many as fit into the memory")
    flag = argparse.BooleanOptionalAction
    parser.add_argument("--in-flight", action=flag, default=default.in_flight, help="new rows join those being spoken")
    parser.add_argument("--deterministic", action=flag, default=default.deterministic, help="the same bits always")
    parser.add_argument("--voices", default=default.voices, help="the folder or URI that voices are kept in")
    parser.add_argument("--whisper-model", help="directory or hub id; transcribes recordings that come without text")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in; there is no password")
    parser.add_argument("--port", default=8000, type=int)
    parser.add_argument("--start-timeout", default=600.0, type=float, metavar="SECONDS")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Runs the application on this machine: checks first, tells what it waits for, stops cleanly."""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn

import ray
from ray import serve
from ray.serve.context import _get_global_client  # what `serve run x.yaml` uses; there is no public way
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from deployments.app import NoGpuError, build, choose_device, cpus_needed
from deployments.config_file import ConfigError, ConfigFile, read_config
from deployments.direct import direct
from deployments.keys import read_keys
from deployments.proxy import announce
from deployments.settings import EMBEDDED, LOCAL, Settings
from voice_core.errors import SettingError
from voice_core.hub import HUB_ID

APPLICATION = "voice"
CPUS_FOR_A_FILE = 8  # in Ray's books at least: the deployments of serve_config.yaml ask for 5 with one synthesizer
OBJECT_STORE_BYTES = 200_000_000  # 26 minutes of speech in flight at 16 kHz; Ray's default takes a third of the memory
POLL_SECONDS = 0.2
DRAIN_SECONDS = 120.0
TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"  # warns of what protects us
SIGNALS = (signal.SIGINT, signal.SIGTERM)

Change = Callable[[], None]  # of what is served, while it is


class CannotStart(Exception):  # noqa: N818  # the sentence it carries is told to a person as it is
    """Why the service can't run here, and what to do about it."""


class StopAsked(BaseException):
    """SIGINT or SIGTERM came. Not an Exception: nothing on the way may take it for a failure."""


@dataclass(frozen=True)
class Address:
    """Where the HTTP interface listens, and where Prometheus may ask."""

    host: str
    port: int
    metrics_port: int | None = None  # on every network of this machine, as Ray has it; None: Ray chooses
    prefix: str = ""  # of all paths

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        return f"http://{host}:{self.port}{self.prefix}"


def serve_here(settings: Settings, address: Address, *, start_timeout_seconds: float) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code."""

    def serve_settings() -> None:
        began = time.monotonic()
        check_port(address)
        check_keys(settings.api_keys)
        model = check_model(settings.model)
        whisper = settings.whisper_model and check_model(settings.whisper_model, "--whisper-model")
        codec = settings.codec and check_model(settings.codec, "--codec")
        with _ray(settings, round(cpus_needed(settings)), metrics_port=address.metrics_port):
            chosen = settings.model_copy(
                update={"model": model, "codec": codec, "whisper_model": whisper, "device": choose_device(settings)}
            )
            _say(f"Model {model} on {chosen.device}.")
            serve.start(http_options={"host": address.host, "port": address.port})
            serve.run_many(
                [serve.RunTarget(build(chosen), name=APPLICATION)],
                wait_for_ingress_deployment_creation=False,
                wait_for_applications_running=False,
            )
            _serve_until_asked(APPLICATION, address, start_timeout_seconds, began, SimpleQueue())

    return _exit_code(serve_settings)


def serve_config(path: Path, *, ray_address: str, metrics_port: int | None, start_timeout_seconds: float) -> int:
    """Serve what a serve_config.yaml says until SIGINT or SIGTERM; return the exit code.

    Other than `serve run`, it ends with an error when the application can't start, and answers whatever it has accepted
    before it stops. SIGUSR1 lets it read the file again. `ray_address` is "local" or what ray.init takes for a cluster.
    """

    def serve_file() -> None:
        began = time.monotonic()
        file = read_config(path)
        changes = _asked_for(partial(_change, path, file))
        address = Address(file.host, file.port, prefix=file.route_prefix)
        if ray_address == LOCAL:
            check_port(address)
        with _ray(file.settings, CPUS_FOR_A_FILE, ray_address=ray_address, metrics_port=metrics_port):
            options = file.schema.http_options.model_dump()
            serve.start(proxy_location=file.schema.proxy_location, http_options=options)
            client = _get_global_client()
            assert client is not None, "serve.start made it"
            client.deploy_apps(file.schema)
            _serve_until_asked(file.application, address, start_timeout_seconds, began, changes)

    return _exit_code(serve_file)


def _asked_for(change: Change) -> SimpleQueue[Change]:
    """Keep every SIGUSR1 from now on: one that comes before the service is ready must not end it, nor be lost."""
    changes: SimpleQueue[Change] = SimpleQueue()
    signal.signal(signal.SIGUSR1, lambda _number, _frame: changes.put(change))
    return changes


def _change(path: Path, running: ConfigFile) -> None:
    """Apply a file that was edited; what runs goes on if it can't be."""
    try:
        file = read_config(path)
    except ConfigError as error:
        return _say(f"Not changed: {error}")
    if file.lasting != running.lasting:
        kept = "the application's name, host, port, route_prefix and largest body stay until it is started again"
        return _say(f"Not changed: {kept}")
    client: Any = _get_global_client()
    try:
        client.deploy_apps(file.schema)
    except Exception as error:  # Serve's controller starts anew, say
        return _say(f"Not changed, try again: {type(error).__name__}: {error}")
    return _say("Changed: replicas take the settings over, or are replaced one after the other.")


def _exit_code(serve_it: Callable[[], None]) -> int:
    """Tell why it ended in one sentence."""
    try:
        serve_it()
    except StopAsked:
        _say("Stopped.")
    except (CannotStart, ConfigError, NoGpuError) as error:
        _say(f"Can't start: {error}")
        return 1
    return 0


def _serve_until_asked(
    application: str,
    address: Address,
    start_timeout_seconds: float,
    began: float,
    changes: SimpleQueue[Change],
) -> None:
    """Tell when it is ready, then make every change that comes; `began` is when it started, on the monotonic clock."""
    _wait_until_ready(application, address, start_timeout_seconds)
    _say(f"Started in {time.monotonic() - began:.0f} s; how long the model took to load is in {address.url}/status.")
    _say(ready_message(address))
    try:
        while True:
            changes.get()()  # signals that ask us to stop raise StopAsked
    finally:
        _drain(application)


def check_port(address: Address) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just closed is free
        try:
            probe.bind((address.host, address.port))
        except (OSError, OverflowError) as error:  # the latter for a number beyond all ports
            why = error.strerror if isinstance(error, OSError) else "no port"
            reason = f"can't listen on {address.host}:{address.port} ({why}); choose another --port"
            raise CannotStart(reason) from error


def check_keys(api_keys: str | None) -> None:
    """Refuse a file of keys that can't be read before anything is started."""
    if api_keys is None:
        return
    try:
        read_keys(Path(api_keys).expanduser())
    except SettingError as error:
        raise CannotStart(str(error)) from error


def check_model(model: str, option: str = "--model") -> str:
    """Return the model's name as every process of this machine understands it."""
    directory = Path(model).expanduser()
    if model == EMBEDDED or (not directory.is_dir() and HUB_ID.fullmatch(model)):
        return model
    if not (directory / "config.json").is_file():
        raise CannotStart(f"{option} {model}: no checkpoint there (a directory with config.json), and no hub id")
    return str(directory.resolve())


def ready_message(address: Address) -> str:
    request = {
        "model": "voice",
        "voice": "default",
        "input": "Hello there. How are you?",
        "response_format": "wav",
    }
    return (
        f"Ready on {address.url}. Try:\n"
        f"  curl {address.url}/v1/audio/speech -H 'Content-Type: application/json' -o hello.wav \\\n"
        f"    -d '{json.dumps(request)}'"
    )


@contextmanager
def _ray(settings: Settings, cpus: int, *, ray_address: str = LOCAL, metrics_port: int | None = None) -> Iterator[None]:
    """A Ray of our own, quiet, that ends with us however we end; or one that is there, in which only Serve ends."""
    _stop_on_signals()
    _say("Starting Ray ..." if ray_address == LOCAL else f"Joining Ray at {ray_address} ...")
    logging.getLogger(TOKEN_LOGGER).setLevel(logging.ERROR)
    announce(settings)
    try:
        of_our_own: dict[str, Any] = {
            "num_cpus": max(os.cpu_count() or 1, cpus),  # bookkeeping: a small machine serves too
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_metrics_export_port": metrics_port,
        }
        context: Any = ray.init(  # typed as its base class, which lacks the address
            address=ray_address,  # "local" is never somebody else's cluster
            log_to_driver=False,
            logging_level=logging.WARNING,
            **(of_our_own if ray_address == LOCAL else {}),
        )
        _stop_on_signals()  # again: ray.init puts its own in place
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        _say(f"Logs are in {context.address_info['session_dir']}/logs/serve")
        yield
    finally:
        if ray.is_initialized():
            serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()


def _stop_on_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, _raise_stop_asked)


def _raise_stop_asked(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # who asks twice doesn't want to wait for the drain
    raise StopAsked


def _wait_until_ready(name: str, address: Address, timeout_seconds: float) -> None:
    """Tell every change while the replicas start; return when a request would be spoken."""
    deadline = time.monotonic() + timeout_seconds
    told = ""
    while time.monotonic() < deadline:
        application = serve.status().applications[name]
        if application.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            raise CannotStart(f"a deployment failed; the logs tell more. {_progress(application)}")
        if application.status is ApplicationStatus.RUNNING and _answers(f"{address.url}/readyz"):
            return
        progress = _progress(application)
        if progress != told:
            _say(progress)
            told = progress
        time.sleep(POLL_SECONDS)
    raise CannotStart(f"not ready after {timeout_seconds:g} s (--start-timeout). Last seen: {told}")


def _drain(application: str) -> None:
    """Close every ingress and wait for what is inside; Serve stops all deployments at once, also those still needed."""
    _say("Stopping: what is being spoken is finished first (a second signal stops at once) ...")
    try:
        ingresses = serve.get_app_handle(application)
        ingresses.drain.remote()  # from then on the handle knows its replicas, and the next line reaches all of them
        ingresses.broadcast("drain").results(timeout_s=DRAIN_SECONDS)
    except Exception as error:  # whatever it is, the stop goes on
        _say(f"Stopping without waiting any longer: {error}")


def _progress(application: ApplicationStatusOverview) -> str:
    """One line for the states, one for every reason: its last line is the error, the rest is in the logs."""
    deployments = application.deployments
    states = ", ".join(f"{name} {deployment.status.lower()}" for name, deployment in deployments.items())
    reasons = [deployment.message.strip().splitlines()[-1:] for deployment in deployments.values()]
    return "\n  ".join([states or application.status.lower(), *itertools.chain(*reasons)])


def _answers(url: str) -> bool:
    try:
        with direct.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):  # refused, reset, cut short, late, or not ready: all the same here
        return False


def _say(message: str) -> None:
    print(message, flush=True)

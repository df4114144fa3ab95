"""What is checked before anything is started."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments import direct, launcher
from deployments.__main__ import main
from deployments.launcher import Address, CannotStart, _answers, check_keys, check_model, check_port, ready_message
from deployments.speech_request import SpeechRequest


def test_a_port_in_use_is_refused_before_ray_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(CannotStart, match="choose another --port"):
            check_port(Address("127.0.0.1", other.getsockname()[1]))
    check_port(Address("127.0.0.1", 0))
    with pytest.raises(CannotStart, match=r"70000 \(no port\); choose another --port"):
        check_port(Address("127.0.0.1", 70_000))


def test_our_own_addresses_are_asked_past_any_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            opener = importlib.reload(direct).direct  # openers look for proxies when they are made
            with opener.open(f"http://127.0.0.1:{server.server_port}/readyz", timeout=5) as answer:
                assert answer.status == 200
        finally:
            server.shutdown()


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_change_that_serve_cannot_take_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Client:
        def deploy_apps(self, _: object) -> None:
            raise ConnectionError("the controller starts anew")

    monkeypatch.setattr(launcher, "_get_global_client", Client)
    file = SimpleNamespace(lasting=(), schema=None)
    monkeypatch.setattr(launcher, "read_config", lambda _: file)
    launcher._change(Path("config.yaml"), file)  # type: ignore[arg-type]
    assert "Not changed, try again: ConnectionError: the controller starts anew" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["embedded", "Aratako/T5Gemma-TTS-2b-2b"])
def test_a_name_is_left_to_the_loader(model: str) -> None:
    assert check_model(model) == model


def test_a_checkpoints_directory_is_passed_on_as_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "speaker").mkdir()
    (tmp_path / "speaker" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    assert check_model("speaker") == str(tmp_path / "speaker")


@pytest.mark.parametrize("model", ["nowhere", "/nowhere", "./no/where", ""])
def test_a_model_that_is_nowhere_is_refused(model: str) -> None:
    with pytest.raises(CannotStart, match="no checkpoint"):
        check_model(model)


def test_a_file_of_keys_that_cant_be_read_is_refused_before_ray_starts(tmp_path: Path) -> None:
    check_keys(None)
    with pytest.raises(CannotStart, match="api_keys"):
        check_keys(str(tmp_path / "none"))


def test_a_change_asked_for_while_nobody_waits_for_it_is_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one is that comes while the service starts, or while another change is being made."""
    changes = 0

    def change() -> None:
        nonlocal changes
        changes += 1
        if changes == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
            return
        raise launcher.StopAsked

    monkeypatch.setattr(launcher, "_wait_until_ready", lambda *_: None)
    monkeypatch.setattr(launcher, "_drain", lambda _: None)
    usual = signal.getsignal(signal.SIGUSR1)
    try:
        asked = launcher._asked_for(change)
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(launcher.StopAsked):
            launcher._serve_until_asked("voice", Address("127.0.0.1", 8000), 1, 0.0, asked)
    finally:
        signal.signal(signal.SIGUSR1, usual)
    assert changes == 2


def accept_and_hang_up(server: socket.socket) -> None:
    connection, _ = server.accept()
    connection.close()


def test_a_server_that_hangs_up_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as listener:
        listener.submit(accept_and_hang_up, server)
        assert not _answers(f"http://127.0.0.1:{server.getsockname()[1]}/readyz")


def test_the_curl_command_of_the_ready_message_is_a_right_request() -> None:
    message = ready_message(Address("0.0.0.0", 8000))
    command = shlex.split(message.split("Try:\n")[1])
    assert command[:2] == ["curl", "http://127.0.0.1:8000/v1/audio/speech"]
    body = command[command.index("-d") + 1]
    assert json.loads(body)["response_format"] == "wav"
    SpeechRequest.from_json(body.encode())


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        (["--config", "serve_config.yaml", "--port", "9000"], "--port: with --config that stands in the file"),
        (["--config", "serve_config.yaml", "--model", "other"], "--model: with --config that stands in the file"),
        (["--ray-address", "auto"], "--ray-address: goes with --config"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(
    options: list[str], refusal: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(options)
    assert end.value.code == 2
    assert refusal in capsys.readouterr().err


def test_a_config_that_is_nowhere_ends_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "nowhere.yaml"]) == 1
    assert capsys.readouterr().out == "Can't start: nowhere.yaml: No such file or directory\n"

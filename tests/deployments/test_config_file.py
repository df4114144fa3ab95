"""What is read from a serve_config.yaml, and what is refused before Ray starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.config_file import ConfigError, read_config
from deployments.launcher import Address

OURS = Path(__file__).resolve().parents[2] / "serve_config.yaml"

# Ray warns of the autoscaling field that it gave up; the file says why we set it all the same.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_our_own_file_is_read() -> None:
    file = read_config(OURS)
    assert (file.application, file.host, file.port) == ("voice", "127.0.0.1", 8000)
    assert file.settings.device == "cuda"


def test_a_prefix_of_all_paths_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = OURS.read_text()
    assert "route_prefix: /\n" in text
    path.write_text(text.replace("route_prefix: /\n", "route_prefix: /tts/\n"))
    file = read_config(path)
    assert file.route_prefix == "/tts"
    assert Address(file.host, file.port, prefix=file.route_prefix).url == "http://127.0.0.1:8000/tts"
    assert read_config(OURS).route_prefix == ""


def test_off_needs_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = OURS.read_text()
    for usual in ("cuda_graphs: auto", "segment_cache: memory", 'traces: "off"'):
        assert usual in text
        text = text.replace(usual, f"{usual.partition(':')[0]}: off")
    path.write_text(text)
    settings = read_config(path).settings
    assert (settings.cuda_graphs, settings.segment_cache, settings.traces) == ("off", "off", "off")


@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [
        ("model: Aratako", "modle: Aratako", "args: modle: Extra inputs are not permitted"),
        ("port: 8000", "port: eight", "http_options.port: Input should be a valid integer"),
        ("applications:", "applicationz:", "applications: Field required"),
        ("http_options:", "http_options: [", "is not YAML"),
    ],
)
def test_a_mistake_is_named_by_its_place(tmp_path: Path, old: str, new: str, refusal: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(OURS.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=refusal):
        read_config(path)


@pytest.mark.parametrize("text", ["", "just words", "applications: []"])
def test_a_file_without_an_application_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"must hold names and values|holds 0, one is served"):
        read_config(path)

"""Voices on a cluster of two nodes: made through one, spoken by the other."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import ray
import soundfile
from ray import serve
from ray.cluster_utils import Cluster
from test_service import free_port

from deployments import app
from deployments.settings import Settings
from tests.cluster.starting import started_cluster
from tests.voices.recordings import audio_file, hum

# Ray leaves sockets and subprocesses to the garbage collector.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NODES = ("here", "there")  # each has a resource of its name, and a whole application with that prefix


def pinned(node: str, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> serve.Application:
    """Build the application with all its replicas on one node."""
    with_resources = app._with_resources

    def on_node(deployment: type, options: dict[str, Any]) -> Any:
        return with_resources(deployment, options | {"resources": {node: 0.01}})

    with monkeypatch.context() as patch:
        patch.setattr(app, "_with_resources", on_node)
        return app.build(settings)


def add_nodes(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1, include_dashboard=False)
    for node in NODES:
        cluster.add_node(num_cpus=3, resources={node: 1})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(device="cpu", voices=str(tmp_path_factory.mktemp("voices")))


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[httpx.Client]:
    """Two nodes on this machine, joined by nothing but the folder of voices."""
    port = free_port()
    cluster = started_cluster(add_nodes)
    ray.init(address=cluster.address, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    with pytest.MonkeyPatch.context() as monkeypatch:
        for node in NODES:
            serve.run(pinned(node, monkeypatch, settings), name=node, route_prefix=f"/{node}")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as connected:
        yield connected
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


def create(client: httpx.Client, node: str, name: str, file: bytes) -> dict[str, Any]:
    texts = {"name": name, "transcript": "hello there", "consent": "I agree."}
    answer = client.post(f"/{node}/v1/audio/voices", data=texts, files={"audio_sample": ("sample", file)})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def speak(client: httpx.Client, node: str, voice: str) -> httpx.Response:
    request = {"model": "voice", "voice": voice, "input": "Hello there.", "response_format": "wav", "seed": 1}
    return client.post(f"/{node}/v1/audio/speech", json=request)


def rows_spoken(node: str) -> int:
    synthesizer: Any = serve.get_deployment_handle("Synthesizer", app_name=node)
    return int(synthesizer.counters.remote().result().rows_spoken)


def test_a_voice_made_through_one_node_speaks_on_the_other_at_once(client: httpx.Client) -> None:
    assert speak(client, "there", "Ann").status_code == 400
    voice = create(client, "here", "Ann", audio_file(hum()))
    made_at = time.monotonic()
    assert client.get(f"/there/v1/audio/voices/{voice['id']}").json() == voice
    assert time.monotonic() - made_at < 1
    before = {node: rows_spoken(node) for node in NODES}
    answer = speak(client, "there", "Ann")
    assert answer.status_code == 200
    assert {node: rows_spoken(node) - before[node] for node in NODES} == {"here": 0, "there": 1}
    assert speak(client, "here", "Ann").content == answer.content


def test_a_voice_deleted_through_one_node_is_silent_on_the_other_after_a_second(client: httpx.Client) -> None:
    voice = create(client, "here", "Bob", audio_file(hum()))
    assert speak(client, "there", "Bob").status_code == 200
    assert client.delete(f"/here/v1/audio/voices/{voice['id']}").status_code == 200
    time.sleep(1)
    assert speak(client, "there", "Bob").status_code == 400


def test_three_formats_are_three_voices_that_survive_a_restart(
    client: httpx.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    formats = {"WAV": None, "FLAC": None, "MP3": "MPEG_LAYER_III"}
    for container, encoding in formats.items():
        create(client, "here", f"Voice {container}", audio_file(hum(), 16000, container, encoding))
    before = [speak(client, "there", f"Voice {container}").content for container in formats]
    assert all(soundfile.info(io.BytesIO(spoken)).duration > 0.2 for spoken in before)
    serve.delete("there")
    assert speak(client, "there", "Voice WAV").status_code == 404
    serve.run(pinned("there", monkeypatch, settings), name="there", route_prefix="/there")
    assert [speak(client, "there", f"Voice {container}").content for container in formats] == before

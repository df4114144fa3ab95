"""The files of deploy/, as far as they can be checked without a cluster, a daemon or a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
POD_LABELS = {"app.kubernetes.io/part-of": "voice-serve"}

sys.path.insert(0, str(DEPLOY))

from embed_config import CONFIG, IN_A_POD, KUBERAY, embedded, for_pods  # noqa: E402


def document(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [one for one in yaml.safe_load_all(KUBERAY.read_text(encoding="utf-8")) if one["kind"] == kind]
    return dict(found)


@pytest.fixture
def cluster() -> dict[str, Any]:
    spec: dict[str, Any] = manifest("RayService")["spec"]["rayClusterConfig"]
    return spec


def synthesizer_of(config: dict[str, Any]) -> dict[str, Any]:
    (found,) = [one for one in config["applications"][0]["deployments"] if one["name"] == "Synthesizer"]
    return dict(found)


def group_of(cluster: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [group for group in cluster["workerGroupSpecs"] if group["groupName"] == name]
    return dict(found)


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_ray_service_serves_serve_config() -> None:
    """If this fails: python deploy/embed_config.py"""
    text = KUBERAY.read_text(encoding="utf-8")
    assert text == embedded(text, CONFIG.read_text(encoding="utf-8"))


def test_in_a_pod_only_what_must_be_is_different() -> None:
    here, there = (
        yaml.safe_load(CONFIG.read_text(encoding="utf-8")),
        yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"]),
    )
    here["http_options"]["host"] = "0.0.0.0"
    here["applications"][0]["args"] |= {"wait_for_gpu": True, "voices": "/data/voices"}
    synthesizer_of(here)["ray_actor_options"]["num_cpus"] = 0
    assert there == here
    assert len(IN_A_POD) == 4


def test_a_comment_is_changed_only_where_it_would_not_fit_any_more() -> None:
    config = CONFIG.read_text(encoding="utf-8")
    lines = list(zip(config.splitlines(), for_pods(config).splitlines(), strict=True))
    other_comments = [there for here, there in lines if here.partition("#")[2] != there.partition("#")[2]]
    assert [line.split(" #")[0].strip() for line in other_comments] == ["num_cpus: 0"]


def test_a_setting_that_has_gone_from_the_config_is_missed() -> None:
    with pytest.raises(ValueError, match="wait_for_gpu: false stands there 0 times"):
        for_pods("http_options:\n  host: 127.0.0.1\n")


def test_autoscaling_in_the_cluster_matches_that_of_the_application(cluster: dict[str, Any]) -> None:
    gpus = group_of(cluster, "gpu")
    assert cluster["enableInTreeAutoscaling"] is True
    assert gpus["maxReplicas"] == synthesizer_of(document(CONFIG))["autoscaling_config"]["max_replicas"]
    assert gpus["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_nothing_but_a_synthesizer_finds_a_place_on_a_gpu_pod(cluster: dict[str, Any]) -> None:
    """An ingress there would keep a pod whose GPU nobody uses."""
    application = yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"])["applications"][0]
    asked = {one["name"]: one.get("ray_actor_options", {}).get("num_cpus") for one in application["deployments"]}
    assert group_of(cluster, "gpu")["rayStartParams"]["num-cpus"] == "0"
    assert [name for name, cpus in asked.items() if cpus == 0] == ["Synthesizer"]  # None: a share of one, in app.py


def test_the_service_for_traffic_is_made_and_labels_leave_kuberays_alone(cluster: dict[str, Any]) -> None:
    """KubeRay reads the port from the head's container, and finds the head by an app.kubernetes.io/name of its own."""
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert {"name": "serve", "containerPort": 8000} in head["ports"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["metadata"]["labels"] == POD_LABELS
    monitor, policy = manifest("PodMonitor")["spec"], manifest("NetworkPolicy")["spec"]
    assert monitor["selector"]["matchLabels"] == policy["podSelector"]["matchLabels"] == POD_LABELS
    alarms = [rule["expr"] for rule in document(DEPLOY / "alerts.yml")["groups"][0]["rules"]]
    assert f'up{{job="{POD_LABELS[monitor["jobLabel"]]}"}} == 0' in alarms


def test_a_drain_leaves_one_pod_with_an_ingress_and_ends(cluster: dict[str, Any]) -> None:
    budget = manifest("PodDisruptionBudget")["spec"]
    assert "maxUnavailable" not in budget  # a RayCluster has no scale subresource: it would forbid every eviction
    labels = dict(budget["selector"]["matchLabels"])
    group = group_of(cluster, labels.pop("ray.io/group"))
    assert labels == POD_LABELS
    assert budget["minAvailable"] < group["minReplicas"]
    assert "nvidia.com/gpu" not in group["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_the_cluster_asks_for_a_token_and_its_pods_have_no_rights(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token"}
    for pod in pods(cluster):
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
        assert {"readinessProbe", "livenessProbe"} <= set(container)


def test_every_pod_keeps_the_ceiling_on_bodies_in_its_proxy(cluster: dict[str, Any]) -> None:
    arguments = document(CONFIG)["applications"][0]["args"]
    largest = max(arguments["largest_body_bytes"], arguments["largest_upload_bytes"])
    for pod in pods(cluster):
        environment = {one["name"]: one["value"] for one in pod["containers"][0]["env"] if "value" in one}
        assert environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == "deployments.proxy:middlewares"
        assert environment["VOICE_SERVE_LARGEST_BODY_BYTES"] == str(largest)


def test_secrets_may_be_missing_and_are_mounted_as_folders(cluster: dict[str, Any]) -> None:
    """Kubernetes never changes a file that is mounted by its subPath."""
    for pod in pods(cluster):
        (container,) = pod["containers"]
        (token,) = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one]
        (keys,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        assert token["optional"] is keys["optional"] is True
        (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "keys"]
        assert mount == {"name": "keys", "mountPath": "/etc/voice-serve", "readOnly": True}


def test_rays_version_is_the_one_that_is_installed(cluster: dict[str, Any]) -> None:
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def test_nobody_but_named_pods_reaches_a_port() -> None:
    policy = manifest("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert all(rule["from"] for rule in policy["ingress"])
    assert {port["port"] for rule in policy["ingress"] for port in rule.get("ports", [])} == {8265, 8000, 8080}


def test_compose_opens_ports_on_this_machine_only_and_mounts_what_there_is() -> None:
    services = document(DEPLOY / "compose.yaml")["services"]
    assert set(services) == {"server", "prometheus", "grafana"}
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["cap_drop"] == ["ALL"]
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).exists(), volume
        assert ":latest" not in service["image"]


def test_the_compose_server_is_started_as_its_image_is() -> None:
    command = document(DEPLOY / "compose.yaml")["services"]["server"]["command"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (default,) = re.findall(r"(?s)\nCMD (\[.*?\])", dockerfile)
    assert command[: len(json.loads(default.replace("\\\n", "")))] == json.loads(default.replace("\\\n", ""))


def test_the_image_runs_as_nobody_special_and_copies_what_there_is() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "\nUSER 1000:1000\n" in dockerfile
    assert "\nHEALTHCHECK " in dockerfile
    assert dockerfile.count("--constraint constraints.txt") == dockerfile.count("pip install") - 2  # --no-deps . twice
    assert dockerfile.count("&& touch voice_core/") == dockerfile.count("&& rm -rf build voice_serve.egg-info ") == 2
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"(?m)^COPY (?!--from)(.*)$", dockerfile):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source


def test_prometheus_asks_the_server_where_compose_puts_its_metrics() -> None:
    (job,) = document(DEPLOY / "prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["server:8080"]}]
    kept = re.compile(job["metric_relabel_configs"][0]["regex"])
    for expression in expressions():
        for name in re.findall(r"\bray_\w+", expression):
            assert kept.fullmatch(name), name


def expressions() -> list[str]:
    """Return all that dashboard and alarms ask Prometheus for."""
    dashboard = json.loads((DEPLOY / "grafana/dashboards/voice-serve.json").read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    rules = document(DEPLOY / "alerts.yml")["groups"][0]["rules"]
    return [target["expr"] for panel in panels for target in panel["targets"]] + [rule["expr"] for rule in rules]


def test_dashboard_and_alarms_ask_for_metrics_that_exist_and_leave_none_out() -> None:
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", name.removeprefix("ray_"))
        for expression in expressions()
        for name in re.findall(r"\bray_voice_\w+", expression)
    }
    assert asked == set(METRICS)


def test_panels_lie_beside_each_other_and_not_on_each_other() -> None:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/voice-serve.json").read_text(encoding="utf-8"))
    places = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        cells = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not cells & places, panel["title"]
        places |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_alarm_says_what_it_means_and_the_handbook_what_to_do() -> None:
    handbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in document(DEPLOY / "alerts.yml")["groups"][0]["rules"]:
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert f"**{rule['alert']}**" in handbook, rule["alert"]


def test_promtool_accepts_configuration_and_alarms() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine")
    for what, file in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        checked = subprocess.run(
            [promtool, "check", what, file], cwd=DEPLOY, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr

"""Copies serve_config.yaml into deploy/kuberay.yaml, with what is different in a pod: python deploy/embed_config.py"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG, KUBERAY = ROOT / "serve_config.yaml", ROOT / "deploy" / "kuberay.yaml"

INDENT = "    "
BLOCK = re.compile(r"(?<=\n  serveConfigV2: \|\n).*?(?=\n  [a-z])", re.DOTALL)

# Setting, as it is in the file, as it is in a pod; with a comment where the file's doesn't fit any more.
IN_A_POD = (
    ("host", "127.0.0.1", "0.0.0.0"),  # the pod's own network; the NetworkPolicy says who gets there
    ("wait_for_gpu", "false", "true"),  # the autoscaler brings them
    ("voices", "~/.local/share/voice-serve/voices", "/data/voices"),  # the volume that every pod mounts
    ("num_cpus", "2", "0                 # in Ray's books, where its pod has none, so that nothing else goes there"),
)


def for_pods(config: str) -> str:
    """Return the config with each of IN_A_POD changed; ValueError where a setting isn't there to be changed."""
    for name, here, in_a_pod in IN_A_POD:
        comment = "" if "#" in in_a_pod else r"\g<2>"
        config, changes = re.subn(rf"(?m)^( +{name}: ){re.escape(here)}( .*)?$", rf"\g<1>{in_a_pod}{comment}", config)
        if changes != 1:
            raise ValueError(f"serve_config.yaml: {name}: {here} stands there {changes} times")
    return config


def embedded(kuberay: str, config: str) -> str:
    """Return the manifest with the config in it."""
    lines = [f"{INDENT}{line}" if line else "" for line in for_pods(config).rstrip().splitlines()]
    text, changes = BLOCK.subn(lambda _: "\n".join(lines), kuberay)
    if changes != 1:
        raise ValueError("kuberay.yaml: there is no block serveConfigV2")
    return text


if __name__ == "__main__":
    KUBERAY.write_text(
        embedded(KUBERAY.read_text(encoding="utf-8"), CONFIG.read_text(encoding="utf-8")), encoding="utf-8"
    )

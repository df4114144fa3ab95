"""Reads a serve_config.yaml as `serve run` does, and refuses with one sentence what would fail later in a log."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from deployments.settings import Settings


class ConfigError(Exception):
    """What is wrong with the file, and where."""


@dataclass(frozen=True)
class ConfigFile:
    """A file that deploys this application, checked."""

    schema: ServeDeploySchema
    application: str  # its name
    settings: Settings
    host: str
    port: int
    route_prefix: str  # of all paths; empty for "/"

    @property
    def lasting(self) -> tuple[str, str, int, str, int]:
        """What can't be changed while it is served: where that is, and the largest body, which the proxy goes by."""
        largest_bytes = max(self.settings.largest_body_bytes, self.settings.largest_upload_bytes)
        return self.application, self.host, self.port, self.route_prefix, largest_bytes


def read_config(path: Path) -> ConfigFile:
    """Return what the file says; raises ConfigError."""
    document = _document(path)
    try:
        schema = ServeDeploySchema.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first(error)}") from error
    if len(schema.applications) != 1:
        raise ConfigError(f"{path}: applications: holds {len(schema.applications)}, one is served")
    (application,) = schema.applications
    try:
        settings = Settings.model_validate(application.args)
    except ValidationError as error:
        raise ConfigError(f"{path}: args: {_first(error)}") from error
    prefix = (application.route_prefix or "").rstrip("/")
    http = schema.http_options
    return ConfigFile(schema, application.name, settings, http.host, http.port, prefix)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must hold names and values, as serve_config.yaml does")
    return document


def _first(error: ValidationError) -> str:
    wrong = error.errors()[0]
    place = ".".join(map(str, wrong["loc"]))
    return f"{place}: {wrong['msg']}" if place else wrong["msg"]

"""What TensorFlow Serving reads, rendered from templates/ and written into one folder."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from tfhash import exports
from tfhash.errors import UserError

LARGEST_WARM_UP_REQUEST = 32  # images; what tfhash.export writes into assets.extra
OLDEST_TF_SERVING = (2, 19, 0)  # the first that knows every flag of docker-compose.yaml


@dataclass(frozen=True)
class Settings:
    """What differs between deployments; fields are flags of `python -m tfhash.serving.deploy`.

    version: the version to serve, which the label `stable` names too. max_batch: images, the
    largest request and the largest batch. address: IPv4 address of the host that the gRPC port is
    bound to; the REST port, which has no TLS, stays on 127.0.0.1. port, rest_api_port: of the host.
    cpus: whole CPUs of the container. memory: its limit as Docker writes it, such as `4g`.
    Raises UserError for a value that TensorFlow Serving or Docker would refuse.
    """

    version: int
    model_name: str = "tfhash"
    max_batch: int = 32
    address: str = "127.0.0.1"
    port: int = 8500
    rest_api_port: int = 8501
    cpus: int = 2
    memory: str = "4g"
    tf_serving_version: str = "2.20.0"

    def __post_init__(self) -> None:
        _check_match(
            "model_name",
            self.model_name,
            r"\w[\w.-]*",
            "letters, digits, _, . and -, of which . and - not in front",
        )
        _check_match("memory", self.memory, r"[1-9]\d*[kmg]", "a number with k, m or g, such as 4g")
        _check_match(
            "tf_serving_version",
            self.tf_serving_version,
            r"\d+\.\d+\.\d+",
            "a release such as 2.20.0",
        )
        if tuple(map(int, self.tf_serving_version.split("."))) < OLDEST_TF_SERVING:
            raise UserError(
                f"--tf_serving_version: received {self.tf_serving_version}, allowed "
                f"{'.'.join(map(str, OLDEST_TF_SERVING))} or newer"
            )
        if self.max_batch < LARGEST_WARM_UP_REQUEST:
            raise UserError(
                f"--max_batch: received {self.max_batch}, allowed {LARGEST_WARM_UP_REQUEST} or "
                "more: an export's warm-up requests hold that many images and must fit"
            )
        if self.port == self.rest_api_port:
            raise UserError(f"--rest_api_port: received {self.port}, which is --port already")
        try:
            ipaddress.IPv4Address(self.address)
        except ValueError:
            raise UserError(
                f"--address: received {self.address!r}, allowed an IPv4 address of this host, or "
                "0.0.0.0 for all of them"
            ) from None


def newest_version(export_dir: Path) -> int:
    """The highest integer among the version folders of export_dir, those with a saved_model.pb.

    Raises UserError where there is none.
    """
    versions = exports.versions(export_dir)
    if not versions:
        raise UserError(
            f"--export_dir: received {str(export_dir)!r}, allowed a folder with at least one "
            "version, N/saved_model.pb, such as python -m tfhash.export publishes"
        )
    return int(versions[-1].name)


def render(settings: Settings, export_dir: Path, output: Path) -> dict[str, str]:
    """Texts of the files by their names; paths in them are relative to output."""
    # Links are not followed: Compose takes `..` off the path of its file as the user typed it.
    source = os.path.relpath(export_dir, output)
    reachable = "127.0.0.1" if settings.address == "0.0.0.0" else settings.address
    values = vars(settings) | {
        "next_version": settings.version + 1,
        # Twice what fills a batch with requests of one image while another batch is computed.
        "grpc_max_threads": 4 * settings.max_batch,
        "target": f"{reachable}:{settings.port}",
        # A JSON string is a YAML string; Compose would replace what follows a single dollar.
        "export_source": json.dumps(source, ensure_ascii=False).replace("$", "$$"),
    }
    templates = resources.files(__package__).joinpath("templates")
    return {
        template.name: Template(template.read_text(encoding="utf-8")).substitute(values)
        for template in sorted(templates.iterdir(), key=lambda template: template.name)
    }


def write(texts: dict[str, str], output: Path, overwrite: bool = False) -> list[Path]:
    """Writes texts by their file names into the folder output; returns the paths that changed.

    Raises UserError, before anything is written, where a file holds something else and overwrite
    is false; and where output cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        changed = {
            output / name: text.encode()
            for name, text in texts.items()
            if not (output / name).exists() or (output / name).read_bytes() != text.encode()
        }
        for path in changed:
            if path.exists() and not overwrite:
                raise UserError(
                    f"--output: {path} exists and holds something else; --overwrite replaces it"
                )
        for path, content in changed.items():
            # In one step: a running server may read models.config at any moment.
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_bytes(content)
            temporary.replace(path)
    except OSError as error:
        raise UserError(f"--output: {error}") from None
    return list(changed)


def _check_match(flag: str, value: str, pattern: str, allowed: str) -> None:
    if not re.fullmatch(pattern, value, re.ASCII):
        raise UserError(f"--{flag}: received {value!r}, allowed {allowed}")

"""Writes what serves an export with the real TensorFlow Serving in Docker.

python -m tfhash.serving.deploy --export_dir=RUN/export --output=RUN/deploy
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from absl import flags

from tfhash.cli import mains
from tfhash.cli.flags import define_path
from tfhash.serving import deploy

NAME = "tfhash.serving.deploy"


def define_flags() -> None:
    fields = dataclasses.fields(deploy.Settings)
    default: dict[str, Any] = {field.name: field.default for field in fields}
    define_path("export_dir", None, "folder of the versions to serve", required=True)
    define_path("output", None, "folder to write the files into", required=True)
    flags.DEFINE_bool("overwrite", False, "replace files of an earlier deployment that differ")
    flags.DEFINE_string("model_name", default["model_name"], "name that clients ask for")
    flags.DEFINE_integer(
        "max_batch", default["max_batch"], "most images in a request, and in a batch of requests"
    )
    flags.DEFINE_string(
        "address",
        default["address"],
        "IPv4 address that gRPC is published on; REST, which has no TLS, stays on 127.0.0.1",
    )
    for name, purpose in (("port", "gRPC"), ("rest_api_port", "REST and metrics")):
        flags.DEFINE_integer(
            name, default[name], f"port of the host for {purpose}", lower_bound=1, upper_bound=65535
        )
    flags.DEFINE_integer("cpus", default["cpus"], "CPUs of the container", lower_bound=1)
    flags.DEFINE_string("memory", default["memory"], "memory limit of the container, such as 4g")
    flags.DEFINE_string(
        "tf_serving_version", default["tf_serving_version"], "release of tensorflow/serving"
    )


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    export_dir, output = Path(values.export_dir), Path(values.output)
    fields = {field.name for field in dataclasses.fields(deploy.Settings)} - {"version"}
    given: dict[str, Any] = {name: values[name].value for name in fields}
    settings = deploy.Settings(version=deploy.newest_version(export_dir), **given)
    texts = deploy.render(settings, export_dir, output)
    changed = deploy.write(texts, output, values.overwrite)
    for name in texts:
        print(f"{'wrote' if output / name in changed else 'unchanged'} {output / name}")
    recreate = " --force-recreate" if values.overwrite else ""
    print(f"to serve version {settings.version} as {settings.model_name}:")
    print(f"  cd {shlex.quote(str(output))} && docker compose up --detach --wait{recreate}")


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()

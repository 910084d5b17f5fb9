"""tfhash.serving.deploy: what it writes is what TensorFlow Serving, Docker and bash understand."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from tfhash import exports
from tfhash.errors import UserError
from tfhash.serving import deploy

NAMES = {
    "README.md",
    "batching_parameters.txt",
    "docker-compose.yaml",
    "models.config",
    "monitoring.config",
    "prometheus.yml",
    "ssl.config.example",
}

# Every flag of tensorflow_serving/model_servers/main.cc at the tag 2.20.0.
FLAGS = frozenset(
    """
    allow_version_labels_for_unavailable_models batching_parameters_file enable_batching
    enable_grpc_healthcheck_service enable_model_warmup enable_per_model_batching_parameters
    enable_profiler enable_serialization_as_tensor_content enable_signature_method_name_check
    file_system_poll_wait_seconds flush_filesystem_caches grpc_channel_arguments grpc_max_threads
    grpc_socket_path load_retry_interval_micros max_num_load_retries mixed_precision
    model_base_path model_config_file model_config_file_poll_wait_seconds model_name
    monitoring_config_file num_load_threads num_request_iterations_for_warmup
    num_tflite_interpreters_per_pool num_tflite_pools num_unload_threads
    per_process_gpu_memory_fraction platform_config_file port prefer_tflite_model
    remove_unused_fields_from_bundle_metagraph rest_api_enable_cors_support rest_api_num_threads
    rest_api_port rest_api_timeout_in_ms saved_model_tags skip_initialize_tpu ssl_config_file
    tensorflow_inter_op_parallelism tensorflow_intra_op_parallelism tensorflow_session_config_file
    tensorflow_session_parallelism thread_pool_factory_config_file use_alts_credentials version
    xla_cpu_compilation_enabled xla_gpu_compilation_enabled
""".split()
)

# Fields and types of ssl_config.proto, monitoring_config.proto and session_bundle_config.proto at
# the tag 2.20.0; tensorflow-serving-api does not ship these.
MESSAGES = {
    "SSLConfig": {
        "server_key": "string",
        "server_cert": "string",
        "custom_ca": "string",
        "client_verify": "bool",
    },
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": ".PrometheusConfig"},
    "BatchingParameters": {
        "max_batch_size": ".google.protobuf.Int64Value",
        "batch_timeout_micros": ".google.protobuf.Int64Value",
        "max_enqueued_batches": ".google.protobuf.Int64Value",
        "num_batch_threads": ".google.protobuf.Int64Value",
        "thread_pool_name": ".google.protobuf.StringValue",
        "allowed_batch_sizes": "repeated int64",
        "pad_variable_length_inputs": "bool",
        "enable_large_batch_splitting": ".google.protobuf.BoolValue",
        "max_execution_batch_size": ".google.protobuf.Int64Value",
    },
}


@pytest.fixture(scope="module")
def protos():
    """The message classes of MESSAGES by name."""
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="configs.proto", syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            label = types.LABEL_REPEATED if "repeated" in kind else types.LABEL_OPTIONAL
            scalar = kind.removeprefix("repeated ")
            if scalar[0] == ".":
                message.field.add(name=field, number=number, label=label, type_name=scalar)
            else:
                kind_number = types.Type.Value(f"TYPE_{scalar.upper()}")
                message.field.add(name=field, number=number, label=label, type=kind_number)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in MESSAGES
    }


@pytest.fixture
def export_dir(tmp_path) -> Path:
    """Version 10 is the newest: 12 is incomplete, the others are no versions, one a file."""
    export_dir = tmp_path / "run" / "export"
    for name in ("3", "10", ".11.tmp-0a1b", "latest", "-13"):
        (export_dir / name).mkdir(parents=True)
        (export_dir / name / "saved_model.pb").touch()
    (export_dir / "12").mkdir()
    (export_dir / "2024").touch()
    return export_dir


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "run" / "deploy"


@pytest.fixture
def rendered(export_dir, output):
    """Texts by file names, of settings that differ from the defaults as given."""

    def render(**changes) -> dict[str, str]:
        settings = deploy.Settings(**({"version": 10} | changes))
        return deploy.render(settings, export_dir, output)

    return render


def server_flags(compose: str) -> dict[str, str]:
    """Flags of the server by name, those in comments too."""
    return dict(re.findall(r"^ +(?:# )?- --(\w+)=(.+)$", compose, re.MULTILINE))


def healthcheck(compose: str) -> str:
    """The folded text after `>-`: its lines, joined by spaces."""
    folded = re.search(r"- >-\n((?: {10}.+\n)+)", compose)
    return " ".join(line.strip() for line in folded.group(1).splitlines())


def test_models_config_serves_the_version_and_labels_it_stable(rendered):
    configs = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    texts = rendered(model_name="birds.v-2_b")
    (model,) = text_format.Parse(
        texts["models.config"], configs.ModelServerConfig()
    ).model_config_list.config
    assert model.name == "birds.v-2_b"
    assert model.model_platform == "tensorflow"
    assert list(model.model_version_policy.specific.versions) == [10]
    assert dict(model.version_labels) == {"stable": 10}
    # TensorFlow Serving refuses a relative base_path; and the export must be mounted there.
    assert model.base_path == "/models/birds.v-2_b"
    assert f"target: {model.base_path}\n" in texts["docker-compose.yaml"]


def test_batching_parameters(rendered, protos):
    parameters = text_format.Parse(
        rendered(max_batch=48, cpus=6)["batching_parameters.txt"], protos["BatchingParameters"]()
    )
    assert parameters.max_batch_size.value == 48
    assert parameters.num_batch_threads.value == 6
    assert 0 < parameters.batch_timeout_micros.value <= 1000
    assert parameters.max_enqueued_batches.value > 0
    # To pad a request of no images TensorFlow Serving takes its first row, and aborts.
    assert not parameters.allowed_batch_sizes
    assert not parameters.pad_variable_length_inputs


def test_monitoring_and_prometheus_name_one_path_and_port(rendered, protos):
    texts = rendered(rest_api_port=9501)
    monitoring = text_format.Parse(texts["monitoring.config"], protos["MonitoringConfig"]())
    assert monitoring.prometheus_config.enable
    path = monitoring.prometheus_config.path
    assert f"metrics_path: {path}\n" in texts["prometheus.yml"]
    assert 'targets: ["127.0.0.1:9501"]' in texts["prometheus.yml"]
    assert f"http://127.0.0.1:9501{path}" in texts["README.md"]


def test_ssl_example_asks_for_client_certificates(rendered, protos):
    config = text_format.Parse(rendered()["ssl.config.example"], protos["SSLConfig"]())
    assert config.client_verify
    assert config.server_key.startswith("-----BEGIN PRIVATE KEY-----\n")
    for certificate in (config.server_cert, config.custom_ca):
        assert certificate.startswith("-----BEGIN CERTIFICATE-----\n")
        assert certificate.endswith("-----END CERTIFICATE-----\n")


@pytest.mark.skipif(shutil.which("awk") is None, reason="no awk here")
def test_the_awk_line_of_the_ssl_example_keeps_a_pem_as_it_is(rendered, protos, tmp_path):
    pem = "-----BEGIN PRIVATE KEY-----\nMIIB+/0=\nAAAA\n-----END PRIVATE KEY-----\n"
    (tmp_path / "server.key").write_text(pem)
    (line,) = re.findall(r"^#   (awk .+)$", rendered()["ssl.config.example"], re.MULTILINE)
    lines = subprocess.check_output(["sh", "-c", line], cwd=tmp_path, text=True)
    config = text_format.Parse(f"server_key:\n{lines}", protos["SSLConfig"]())
    assert config.server_key == pem


def test_a_misspelt_field_would_be_found(protos):
    with pytest.raises(text_format.ParseError):
        text_format.Parse("max_batch_sizes { value: 32 }", protos["BatchingParameters"]())


def test_the_server_gets_flags_that_it_knows_and_files_that_are_there(rendered):
    texts = rendered(max_batch=40, cpus=3)
    found = server_flags(texts["docker-compose.yaml"])
    assert found.keys() <= FLAGS
    assert (
        found.items()
        >= {
            "rest_api_port": "8501",  # without it no metrics
            "model_config_file_poll_wait_seconds": "60",
            "allow_version_labels_for_unavailable_models": "true",
            "enable_batching": "true",
            "enable_grpc_healthcheck_service": "true",
            "enable_profiler": "false",
            "tensorflow_session_parallelism": "3",
            "grpc_max_threads": "160",  # 4 * 40
        }.items()
    )
    files = {name: value for name, value in found.items() if name.endswith("_file")}
    assert files.pop("ssl_config_file") == "/config/ssl.config"
    assert {Path(value).name for value in files.values()} == {
        "models.config", "batching_parameters.txt", "monitoring.config"
    }  # fmt: skip
    assert {str(Path(value).parent) for value in files.values()} == {"/config"}


def test_what_the_container_may_do(rendered):
    compose = rendered(tf_serving_version="2.19.1", memory="512m", cpus=3)["docker-compose.yaml"]
    assert "image: tensorflow/serving:2.19.1\n" in compose
    assert "    cpus: 3\n" in compose
    assert "    mem_limit: 512m\n" in compose
    assert "    restart: unless-stopped\n" in compose
    # The export, the configuration and the container's own file system.
    assert len(re.findall("^ +read_only: true$", compose, re.MULTILINE)) == 3


@pytest.mark.parametrize(
    ("address", "target"),
    [("127.0.0.1", "127.0.0.1:9500"), ("0.0.0.0", "127.0.0.1:9500"), ("10.0.0.7", "10.0.0.7:9500")],
)
def test_only_grpc_is_published_beyond_this_host(rendered, address, target):
    texts = rendered(address=address, port=9500, rest_api_port=9501)
    ports = re.findall(
        r'- target: (\d+)\n +published: "(\d+)"\n +host_ip: (\S+)', texts["docker-compose.yaml"]
    )
    assert ports == [("8500", "9500", address), ("8501", "9501", "127.0.0.1")]
    assert f"--target={target} " in texts["README.md"]


def test_docker_compose_is_yaml(rendered, export_dir):
    yaml = pytest.importorskip("yaml")
    compose = rendered()["docker-compose.yaml"]
    service = yaml.safe_load(compose)["services"]["tf-serving"]
    assert service["healthcheck"]["test"] == ["CMD", "bash", "-c", healthcheck(compose)]
    assert [mount["source"] for mount in service["volumes"]] == ["../export", "."]
    assert all(flag.startswith("--") for flag in service["command"])
    assert {type(port["published"]) for port in service["ports"]} == {str}


def test_the_folders_can_move_together(rendered, export_dir, output):
    texts = rendered()
    (source,) = re.findall('source: (".+")', texts["docker-compose.yaml"])
    assert os.path.normpath(output / json.loads(source)) == str(export_dir)
    assert not [name for name, text in texts.items() if str(export_dir.parent) in text]


def test_compose_replaces_no_part_of_a_path(tmp_path):
    """To Compose, two dollars are one and `$HOME` is a variable."""
    texts = deploy.render(
        deploy.Settings(version=1), tmp_path / 'a "$HOME" é' / "export", tmp_path / "deploy"
    )
    (source,) = re.findall('source: (".+")', texts["docker-compose.yaml"])
    assert json.loads(source) == '../a "$$HOME" é/export'


def model_status(state: str, error: str) -> str:
    """What TensorFlow Serving answers to `GET /v1/models/NAME`."""
    status = {"error_code": error, "error_message": ""}
    version = {"version": "10", "state": state, "status": status}
    return json.dumps({"model_version_status": [version]}, indent=1)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (model_status("AVAILABLE", "OK"), True),
        (model_status("LOADING", "OK"), False),
        (model_status("END", "UNAVAILABLE"), False),
        ('{"error": "Could not find any versions of model AVAILABLE"}', False),
        (None, False),  # nothing listens
    ],
)
def test_the_healthcheck_needs_bash_and_grep_alone(rendered, tmp_path, answer, healthy):
    paths = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *arguments):
            pass

    for program in ("bash", "grep"):
        (tmp_path / program).symlink_to(shutil.which(program))
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        line = healthcheck(rendered(model_name="birds")["docker-compose.yaml"])
        line = line.replace("8501", str(server.server_port))
        if answer is None:
            server.server_close()
        else:
            threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        process = subprocess.run(
            [tmp_path / "bash", "-c", line],
            env={"PATH": str(tmp_path)},
            timeout=10,
            capture_output=True,
        )
        if answer is not None:
            server.shutdown()
    assert (process.returncode == 0) == healthy
    assert paths == ([] if answer is None else ["/v1/models/birds"])


def test_writing_again_changes_nothing(rendered, output):
    texts = rendered()
    assert {path.name for path in deploy.write(texts, output)} == NAMES
    assert {path.name: path.read_text() for path in output.iterdir()} == texts
    assert deploy.write(texts, output) == []


def test_an_edited_file_is_replaced_only_when_asked(rendered, output):
    texts = rendered()
    deploy.write(texts, output)
    (output / "README.md").unlink()
    (output / "models.config").write_text("edited")
    (output / "ssl.config").write_text("key")
    with pytest.raises(UserError, match=r"--output: .*/models\.config exists .*--overwrite"):
        deploy.write(texts, output)
    assert not (output / "README.md").exists()
    assert (output / "models.config").read_text() == "edited"
    changed = deploy.write(texts, output, overwrite=True)
    assert {path.name for path in changed} == {"README.md", "models.config"}
    assert {path.name for path in output.iterdir()} == NAMES | {"ssl.config"}
    assert (output / "ssl.config").read_text() == "key"


def test_an_output_that_is_a_file(rendered, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--output: .*file"):
        deploy.write(rendered(), tmp_path / "file")


@pytest.mark.parametrize(
    "change",
    [
        {"model_name": ""},
        {"model_name": ".."},
        {"model_name": "a/b"},
        {"model_name": "vögel"},
        {"model_name": "a'b"},
        {"max_batch": 31},
        {"address": "localhost"},
        {"address": "::1"},
        {"rest_api_port": 8500},
        {"memory": "4"},
        {"memory": "0g"},
        {"tf_serving_version": "latest"},
        {"tf_serving_version": "2.18.1"},
    ],
)
def test_bad_settings_name_the_flag(change):
    (flag,) = change
    with pytest.raises(UserError, match=f"^--{flag}: received "):
        deploy.Settings(**({"version": 1} | change))


def test_the_newest_version(export_dir):
    assert deploy.newest_version(export_dir) == 10
    assert exports.newest(export_dir) == export_dir / "10"  # that of all who load one here


@pytest.mark.parametrize("folder", ["absent", "run", "run/export/12"])
def test_an_export_dir_without_a_version(export_dir, tmp_path, folder):
    with pytest.raises(UserError, match="^--export_dir: received .*N/saved_model.pb"):
        deploy.newest_version(tmp_path / folder)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tfhash.serving.deploy", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_the_command(export_dir, output):
    process = run(f"--export_dir={export_dir}", f"--output={output}", "--max_batch=64")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert set(lines[:-2]) == {f"wrote {output / name}" for name in NAMES}
    assert lines[-2] == "to serve version 10 as tfhash:"
    assert lines[-1] == f"  cd {output} && docker compose up --detach --wait"
    assert "max_batch_size { value: 64 }" in (output / "batching_parameters.txt").read_text()
    assert len((output / "README.md").read_text().splitlines()) == 10

    process = run(f"--export_dir={export_dir}", f"--output={output}")
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith("tfhash.serving.deploy: error: --output: ")

    process = run(f"--export_dir={export_dir}", f"--output={output}", "--overwrite")
    assert process.returncode == 0, process.stderr
    assert f"unchanged {output / 'models.config'}" in process.stdout.splitlines()
    assert process.stdout.endswith("--wait --force-recreate\n")

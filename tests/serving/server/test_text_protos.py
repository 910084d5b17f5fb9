"""text_protos: TF Serving's files are taken; what cannot be read names the flag and the file."""

from __future__ import annotations

import pytest

from tfhash.errors import UserError
from tfhash.serving.server import text_protos


def test_the_fields_are_those_of_tf_serving():
    """By their numbers on the wire: tag = number * 8 + 2 for text and messages, + 0 for numbers."""
    ssl = text_protos.SSLConfig(server_key="k", server_cert="c", custom_ca="a", client_verify=True)
    assert ssl.SerializeToString() == b"\x0a\x01k\x12\x01c\x1a\x01a\x20\x01"
    batching = text_protos.BatchingParameters(allowed_batch_sizes=[5])
    batching.max_batch_size.value = 1
    batching.batch_timeout_micros.value = 2
    batching.max_enqueued_batches.value = 3
    batching.num_batch_threads.value = 4
    assert batching.SerializeToString() == (
        b"\x0a\x02\x08\x01\x12\x02\x08\x02\x1a\x02\x08\x03\x22\x02\x08\x04\x32\x01\x05"
    )


def test_a_model_config_file(tmp_path):
    path = tmp_path / "models.config"
    path.write_text("""
    # both models of a machine
    model_config_list: {
      config: { name: "a", base_path: "/models/a", model_platform: "tensorflow" }
      config {
        name: 'b' base_path: '/models/b' model_platform: 'tensorflow'
        model_version_policy { specific { versions: 42 versions: 43 } }
        version_labels { key: "stable" value: 42 }
      }
    }
    """)
    config = text_protos.read("model_config_file", str(path), text_protos.ModelServerConfig)
    first, second = config.model_config_list.config
    assert (first.name, first.base_path) == ("a", "/models/a")
    assert list(second.model_version_policy.specific.versions) == [42, 43]
    assert dict(second.version_labels) == {"stable": 42}


def test_inline_pem_text(tmp_path):
    path = tmp_path / "ssl.config"
    path.write_text('server_key: "-----BEGIN KEY-----\\n"\n  "abc\\n-----END KEY-----\\n"')
    config = text_protos.read("ssl_config_file", str(path), text_protos.SSLConfig)
    assert config.server_key == "-----BEGIN KEY-----\nabc\n-----END KEY-----\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"server_keys: 'x'", '1:1 : Message type "tfhash.serving.server.SSLConfig" has no field'),
        (b"server_key: ", "Expected string"),
        (b"server_key: 'a\nb'", "1:"),
        (b"server_key: 'a' server_key: 'b'", "should not have multiple"),
        (b"\xff\xfe", "codec can't decode"),
    ],
)
def test_what_cannot_be_read(tmp_path, content, words):
    path = tmp_path / "ssl.config"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        text_protos.read("ssl_config_file", str(path), text_protos.SSLConfig)
    assert str(raised.value).startswith(f"--ssl_config_file: {path}: ")
    assert words in str(raised.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="directory"):
        text_protos.read("ssl_config_file", str(tmp_path), text_protos.SSLConfig)

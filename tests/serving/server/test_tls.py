"""TLS and mutual TLS: who is let in, and which configurations are refused at the start."""

from __future__ import annotations

import shutil
import subprocess

import grpc
import numpy as np
import pytest

from tfhash.errors import UserError
from tfhash.serving.server.text_protos import SSLConfig

PATIENCE = 30


@pytest.fixture
def totals(request_of):
    """What a stub answers; [3, 500] where all is well."""
    request = request_of("", ("total",), images=np.array([[1, 2], [250, 250]], np.uint8))
    return lambda stub: list(stub.Predict(request, timeout=PATIENCE).outputs["total"].int_val)


def assert_refused(call, words: str = "") -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert words in raised.value.details()


class Certificate:
    """A certificate of 127.0.0.1 that vouches for itself, as PEM text."""

    def __init__(self, folder):
        command = "openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256"
        command += " -subj /CN=tfhash -addext subjectAltName=IP:127.0.0.1"
        files = ["-out", folder / "certificate.pem", "-keyout", folder / "key.pem"]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
        self.text, self.key = files[1].read_text(), files[3].read_text()

    def credentials(self, trusted: Certificate) -> grpc.ChannelCredentials:
        """Of a client that shows this certificate."""
        return grpc.ssl_channel_credentials(
            trusted.text.encode(), self.key.encode(), self.text.encode()
        )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> list[Certificate]:
    """Of the server, of a client, of a stranger."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make certificates")
    return [Certificate(tmp_path_factory.mktemp("certificate")) for _ in range(3)]


def test_tls(start, publish, stub_of, totals, certificates):
    publish(1)
    own, _, stranger = certificates
    server = start(ssl_config=SSLConfig(server_key=own.key, server_cert=own.text))
    trusting = grpc.ssl_channel_credentials(own.text.encode())
    assert totals(stub_of(server, trusting)) == [3, 500]
    assert_refused(
        lambda: totals(stub_of(server, grpc.ssl_channel_credentials(stranger.text.encode()))),
        "failed to connect to all addresses",
    )
    assert_refused(lambda: totals(stub_of(server)))


def test_mutual_tls(start, publish, stub_of, totals, certificates):
    publish(1)
    own, client, stranger = certificates
    server = start(
        ssl_config=SSLConfig(
            server_key=own.key, server_cert=own.text, custom_ca=client.text, client_verify=True
        )
    )
    assert totals(stub_of(server, client.credentials(own))) == [3, 500]
    assert_refused(lambda: totals(stub_of(server, stranger.credentials(own))))
    assert_refused(lambda: totals(stub_of(server, grpc.ssl_channel_credentials(own.text.encode()))))


def test_a_client_certificate_may_be_optional(start, publish, stub_of, totals, certificates):
    publish(1)
    own, client, _ = certificates
    config = SSLConfig(server_key=own.key, server_cert=own.text, custom_ca=client.text)
    server = start(ssl_config=config)
    trusting = grpc.ssl_channel_credentials(own.text.encode())
    assert totals(stub_of(server, trusting)) == [3, 500]
    assert totals(stub_of(server, client.credentials(own))) == [3, 500]


PEM = "-----BEGIN NOTHING-----\nAAAA\n-----END NOTHING-----\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "--ssl_config_file: server_key must hold PEM text"),
        ({"server_key": PEM}, "--ssl_config_file: server_cert must hold PEM text"),
        (
            {"server_key": "/etc/key.pem", "server_cert": PEM},
            "--ssl_config_file: server_key must hold PEM text",
        ),
        (
            {"server_key": PEM, "server_cert": PEM, "client_verify": True},
            "--ssl_config_file: client_verify needs custom_ca, PEM text",
        ),
        (
            {"server_key": PEM, "server_cert": PEM},
            "are the key and certificates of --ssl_config_file",
        ),
    ],
)
def test_a_wrong_tls_configuration(start, fields, message):
    with pytest.raises(UserError) as raised:
        start(ssl_config=SSLConfig(**fields))
    assert message in str(raised.value)


def test_a_key_of_another_certificate(start, certificates):
    own, other, _ = certificates
    with pytest.raises(UserError, match="are the key and certificates of --ssl_config_file wrong"):
        start(ssl_config=SSLConfig(server_key=other.key, server_cert=own.text))

"""HashClient finds its server: metadata, waiting, proxies, TLS."""

from __future__ import annotations

import threading
import time

import grpc
import pytest

from tests.serving.client.by_hand import CONNECTION_REFUSED, images
from tfhash.serving import HashClient, _channel, errors

LOADING, AVAILABLE, UNLOADING, END = 20, 30, 40, 50  # of ModelVersionStatus.State


def test_metadata(client):
    metadata = client.metadata()
    assert (metadata.model, metadata.version, metadata.code_length) == ("tfhash", 3, 12)
    assert set(metadata.signatures) == {"encode_images", "encode_bytes_partial"}
    signature = metadata.signatures["encode_images"]
    assert signature.inputs["images"].dtype == "uint8"
    assert signature.inputs["images"].shape is None
    assert signature.outputs["bits"].shape == (None, 12)
    assert metadata.signatures["encode_bytes_partial"].inputs["image_bytes"].dtype == "string"


def test_metadata_of_an_unknown_model(server):
    with HashClient(server.target, "other") as client:
        with pytest.raises(errors.NotFound, match="^other, GetModelMetadata at .*NOT_FOUND"):
            client.metadata()


def test_waits_until_the_model_is_available(server, client):
    """Through a server that is down, and one that has not loaded the model."""
    server.service.states = [(3, LOADING, 0, "")]

    def start():
        time.sleep(0.2)
        server.start()
        time.sleep(0.5)
        server.service.states = [(3, UNLOADING, 0, ""), (4, AVAILABLE, 0, "")]

    server.stop()
    thread = threading.Thread(target=start)
    thread.start()
    assert client.wait_until_ready(10) == 4
    thread.join()


def test_a_model_that_cannot_be_loaded_is_not_waited_for(server, client):
    server.service.states = [(2, END, 0, ""), (3, END, 3, "no such op")]
    with pytest.raises(
        errors.LoadFailed, match="version 3 could not be loaded: no such op"
    ) as error:
        client.wait_until_ready(10)
    assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT
    server.service.states = [(2, AVAILABLE, 0, ""), (3, END, 3, "no such op")]
    assert client.wait_until_ready(10) == 2


def test_waiting_has_an_end(server, client):
    server.service.states = [(3, LOADING, 0, ""), (2, END, 9, "broken")]
    with pytest.raises(errors.Unavailable, match="version 3 is LOADING, version 2 is END"):
        client.wait_until_ready(0.4)
    with HashClient(CONNECTION_REFUSED) as nobody:
        with pytest.raises(errors.Unavailable, match="refused"):
            nobody.wait_until_ready(0.4)


# Transport


@pytest.fixture
def behind_a_proxy(monkeypatch):
    """A proxy that does not run, at port 1; tests on loopback would fail if they went there."""
    for name in ("grpc_proxy", "https_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:1/")


def test_no_proxy_leads_into_this_machine(server, behind_a_proxy):
    port = server.target.rpartition(":")[2]
    for target in (server.target, f"localhost:{port}", f"dns:///localhost:{port}"):
        with HashClient(target, timeout=5) as client:
            assert client.encode_images(images([5])).code.tolist() == [[5, 0xF0]]


def test_a_proxy_is_named_in_the_error(behind_a_proxy):
    with HashClient("photos.example:8500", timeout=0.4) as client:
        for call in (lambda: client.encode_bytes([b"ab"]), lambda: client.wait_until_ready(0.1)):
            with pytest.raises(errors.Unavailable) as caught:
                call()
            line = str(caught.value)
            assert "at photos.example:8500: UNAVAILABLE: through the proxy 127.0.0.1:1" in line
            assert "of http_proxy: " in line and "secret" not in line


@pytest.mark.parametrize(
    ("target", "variables", "expected"),
    [
        ("photos.example:1", {}, "127.0.0.1:1 of http_proxy"),
        ("photos.example:1", {"https_proxy": "http://p:2"}, "p:2 of https_proxy"),
        ("photos.example:1", {"https_proxy": "http://p", "grpc_proxy": ""}, ""),
        ("photos.example:1", {"no_proxy": "other, .Example"}, ""),
        ("photos.example:1", {"no_proxy": ".example", "no_grpc_proxy": "x"}, "127.0.0.1:1 of "),
        ("10.1.2.3:1", {"no_proxy": "10.1.0.0/16"}, ""),
        ("10.2.2.3:1", {"no_proxy": "10.1.0.0/16"}, "127.0.0.1:1 of http_proxy"),
        ("[::1]:1", {}, ""),
        ("ipv6:[::1]:1", {}, ""),
        ("dns://8.8.8.8/photos.example:1", {"no_proxy": "photos.example"}, ""),
        ("unix:/tmp/socket", {}, ""),
        ("[", {}, "127.0.0.1:1 of http_proxy"),
    ],
)
def test_which_proxy_a_target_has(behind_a_proxy, monkeypatch, target, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert _channel.proxy(target).startswith(expected) and bool(expected) == bool(
        _channel.proxy(target)
    )


def test_mutual_tls(tls_server, certificate):
    root, key = (path.read_bytes() for path in certificate)
    credentials = grpc.ssl_channel_credentials(root, key, root)
    with HashClient(tls_server.target, tls=credentials) as client:
        assert client.encode_images(images([5])).code.tolist() == [[5, 0xF0]]


def test_without_tls_a_tls_server_is_not_reachable(tls_server):
    with HashClient(tls_server.target, timeout=0.5) as client:
        with pytest.raises(errors.Unavailable, match="not reachable within 0.5 s"):
            client.encode_images(images([5]))

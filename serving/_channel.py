"""The channel of a client: one connection, kept for long, that outlives a restart of the server."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from urllib.parse import urlsplit

MAX_MESSAGE_BYTES = 64 * 2**20

# Predict and GetModelMetadata wait for a server that is down and are sent again where it says, or
# its dying connection makes it say, UNAVAILABLE, or cancels them as it stops; they change nothing
# there. Never longer than the deadline of the call. What has begun to be answered gRPC does not
# send again: `Requests.to_be_sent_again`.
# GetModelStatus stays out of it, so that there is one call that tells at once what the matter is.
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "tensorflow.serving.PredictionService"}],
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": 5,  # gRPC takes no more
                "initialBackoff": "0.1s",
                "maxBackoff": "3s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}

_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # gRPC keeps what it may have to send again, by default up to 256 KiB: a batch of photos is
    # more, and would not be retried.
    ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
    # A server disconnects a client that pings more often than every five minutes.
    ("grpc.keepalive_time_ms", 5 * 60 * 1000),
    # By default up to two minutes would pass until the next look whether the server is back.
    ("grpc.max_reconnect_backoff_ms", 5000),
)


_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # the first that is set, as in gRPC
_NO_PROXY_VARIABLES = ("no_grpc_proxy", "no_proxy")


def options(target: str) -> tuple[tuple[str, str | int], ...]:
    """Of the channel to a target. Into this machine no proxy leads."""
    if _is_loopback(_host(target)):
        return (*_OPTIONS, ("grpc.enable_http_proxy", 0))
    return _OPTIONS


def proxy(target: str) -> str:
    """The proxy through which gRPC goes to a target, and the variable that names it; "" for none.

    For messages: gRPC itself names the proxy's address as if it were the server's.
    """
    variable, url = _first_set(_PROXY_VARIABLES)
    host = _host(target)
    if not url or target.startswith(("unix:", "vsock:")) or _is_loopback(host):
        return ""
    _, exceptions = _first_set(_NO_PROXY_VARIABLES)
    if any(_covers(entry.strip(), host) for entry in exceptions.split(",") if entry.strip()):
        return ""
    return f"{urlsplit(url).netloc.rpartition('@')[2]} of {variable}"  # without its password


def _first_set(variables: tuple[str, ...]) -> tuple[str, str]:
    return next(((name, os.environ[name]) for name in variables if name in os.environ), ("", ""))


def _host(target: str) -> str:
    """The host of HOST:PORT, also behind a scheme such as dns:///; "" where there is none."""
    address = re.sub("^(dns|ipv4|ipv6|passthrough):(//[^/]*/)?", "", target)
    try:
        return urlsplit(f"//{address}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of no_proxy, the end of a name or a range of addresses, speaks of a host."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return host.endswith(entry.lower())

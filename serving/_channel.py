"""The channel of a client: one connection, kept for long, that outlives a restart of the server."""

from __future__ import annotations

import json

MAX_MESSAGE_BYTES = 64 * 2**20

# Predict and GetModelMetadata wait for a server that is down and are sent again where it says, or
# its dying connection makes it say, UNAVAILABLE; never longer than the deadline of the call.
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
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

OPTIONS = (
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

"""The embedded server under attack, in a process of its own: it lives, and its memory has a bound.

The whole of it, as it was run by hand; without this variable 200 requests:

    TFHASH_HOSTILE=20000 python -m pytest tests/conformance/test_attacks.py
"""

from __future__ import annotations

import base64
import importlib.util
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf

_SPEC = importlib.util.spec_from_file_location("attacks", Path(__file__).with_name("attacks.py"))
attacks = importlib.util.module_from_spec(_SPEC)
sys.modules["attacks"] = attacks
_SPEC.loader.exec_module(attacks)

HOSTILE = int(os.environ.get("TFHASH_HOSTILE", 200))
THREADS = 16
MESSAGE, HELD, WORKING = 16, 64, 256  # MiB
FLAGS = (
    f"--max_message_mib={MESSAGE}",
    f"--max_tensor_mib={MESSAGE}",
    f"--max_held_mib={HELD}",
    f"--max_working_mib={WORKING}",
)
# The formula of docs/serving.md.
BOUND = HELD + 9 * MESSAGE + WORKING + 64
EXPECTED = {
    "rank_33": {"INVALID_ARGUMENT"},
    "rank_33_rest": {"400"},
    "million_images": {"OK"},
    "long_string": {"400"},
    "repeated_png": {"OK"},
    "wide_image": {"RESOURCE_EXHAUSTED"},
    "many_rows": {"RESOURCE_EXHAUSTED"},
    "repeated_string": {"INVALID_ARGUMENT"},
    "empty_strings": {"400"},
    "empty_lists": {"429"},
    "empty_fields": {"RESOURCE_EXHAUSTED"},
    "behind_a_group": {"INVALID_ARGUMENT"},
    "gzip_bomb": {"429 8"},
    "large_photos": {"RESOURCE_EXHAUSTED 8"},
    "thousand_gets": {"200 1000"},
}


@pytest.fixture(scope="module")
def process(exports, embedded_process) -> Iterator[tuple]:
    with embedded_process(exports[1].folder, *FLAGS) as running:
        yield running


@pytest.fixture(scope="module")
def target(process) -> attacks.Target:
    server, _ = process
    return attacks.Target(server.target, server.rest_address, MESSAGE * 2**20, rows=10**5)


@pytest.fixture(scope="module")
def first(process, images, peak_memory) -> float:
    """Memory after the first request, as in the formula."""
    server, pid = process
    server.encode("encode_images", outputs=["code"], images=images)
    server.encode("encode_bytes", outputs=["code"], image_bytes=[attacks.png(16, 16)])
    return peak_memory(pid)


@pytest.mark.parametrize("attack", attacks.ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack(process, target, first, exports, images, peak_memory, attack):
    server, pid = process
    came = attack(target)
    assert came in EXPECTED.get(attack.__name__, {came})
    assert "no status" not in came and "late" not in came
    assert target.status_seconds() < 10
    assert peak_memory(pid) - first < BOUND
    server.prediction.Predict(server.request(images=images), timeout=60)
    answer = server.encode("encode_images", outputs=["code"], images=images)
    np.testing.assert_array_equal(answer["code"], exports[1].code(images))


@pytest.mark.parametrize("kind", ["pixels", "files"])
def test_rows_in_chunks(process, exports, kind):
    """600 rows are three chunks; the answer is that of one call, over gRPC and REST."""
    server, _ = process
    images = np.random.default_rng(5).integers(0, 256, (600, 16, 16, 3), np.uint8)
    if kind == "pixels":
        signature, inputs, rows = "encode_images", {"images": images}, images.tolist()
    else:
        content = [tf.io.encode_png(image).numpy() for image in images]
        signature, inputs = "encode_bytes_partial", {"image_bytes": content}
        rows = [{"b64": base64.b64encode(one).decode()} for one in content]
    embedding = exports[1].embedding(images)
    answer = server.encode(signature, **inputs)
    np.testing.assert_allclose(answer["embedding"], embedding, atol=1e-6)
    np.testing.assert_array_equal(answer["bits"], answer["embedding"] > 0.5)
    np.testing.assert_array_equal(answer["code"], np.packbits(answer["bits"], axis=-1))
    for key in ("instances", "inputs"):
        status, by_rest = server.rest(
            "POST", attacks.PATH, {"signature_name": signature, key: rows}
        )
        assert status == 200
        for name, array in answer.items():
            found = (
                by_rest["outputs"][name]
                if key == "inputs"
                else [row[name] for row in by_rest["predictions"]]
            )
            if array.dtype == object:  # the fingerprint, which is text in JSON
                array = np.array([one.decode() for one in array])
            np.testing.assert_array_equal(np.array(found, array.dtype), array)


def test_hostile_requests_at_once(process, target, first, exports, images, peak_memory, capsys):
    """From 16 threads, among good ones: each of these has the right code, or is told to wait."""
    server, pid = process
    code = exports[1].code(images)
    messages = [
        attacks.files([1] * 33, b"a"),
        attacks.pixels([10**4, 1, 1, 3]),
        attacks.pixels([1, 1, 10**6, 3]),
        attacks.pixels([1, 1000, 1000, 3]),
        attacks.pixels([0, 2**40, 1, 3]),
        attacks.files([300], attacks.png()),
        attacks.files([4], attacks.png(1000, 1000)),
        attacks.files([4000], b"x" * 10**5),
        attacks.files([1], attacks.many_scans(30, 256)),
    ]
    bodies = [
        attacks.body(["x" * 10**5, *[""] * 99]),
        b'{"signature_name": "encode_bytes", "inputs": ' + b"[" * 33 + b'"a"' + b"]" * 33 + b"}",
        b'{"instances": [[]' + b",[]" * 10**5 + b"]}",
        attacks.body([[[[1, 2, 3]] * 100] * 100]),
    ]
    left, seen, wrong = [HOSTILE], Counter(), []
    lock = threading.Lock()

    def work(seed: int) -> None:
        choose = random.Random(seed)
        while not wrong:
            with lock:
                if not left[0]:
                    return
                left[0] -= 1
            try:
                if choose.random() < 0.2:
                    seen["REST " + target.rest(choose.choice(bodies))] += 1
                    continue
                seen[target.predict(choose.choice(messages), choose.choice([0.5, 60]))] += 1
                found = server.encode("encode_images", outputs=["code"], images=images)["code"]
                assert np.array_equal(found, code)
                seen["good"] += 1
            except grpc.RpcError as error:
                seen[f"good, but {error.code().name}"] += 1
                if error.code().name not in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"):
                    wrong.append(error)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grown = peak_memory(pid) - first
    with capsys.disabled():
        print(f"\n{HOSTILE} hostile requests; memory {first:.0f} MiB, at most {grown:.0f} more")
        print(f"  {dict(seen)}")
    assert wrong == []
    assert seen["good"] > HOSTILE // 3
    assert grown < BOUND

"""mAP published for CIFAR-10, to stand beside our own.

Source: Wang et al., "Semi-supervised Generative Adversarial Hashing for Image Retrieval", ECCV
2018, Table 1 (all methods) and Table 3 (the ablations of SSGAH). Protocol: 100 queries a class, all
other 59,000 images as database, 500 labelled images a class, mAP over the whole ranking.
"""

from __future__ import annotations

import re

SOURCE = "Wang et al., ECCV 2018, Tables 1 and 3"

_DATABASE_SIZE = 59_000
_PROTOCOL = re.compile(r"per_class\(queries=100, labelled=500[,)]")


def _by_code_length(*maps: float) -> dict[int, float]:
    return dict(zip((12, 24, 32, 48), maps, strict=True))


# (dataset, method, variant) -> {code length: mAP}. The traditional methods are published twice: on
# 512-dimensional GIST descriptors ("gist") and on AlexNet's fc7 ("cnn").
PAPER = {
    ("cifar10", "ssgah", None): _by_code_length(0.819, 0.837, 0.847, 0.855),
    ("cifar10", "ssgah", "w_ssr"): _by_code_length(0.799, 0.819, 0.836, 0.846),
    ("cifar10", "ssgah", "w_ar"): _by_code_length(0.776, 0.804, 0.820, 0.829),
    ("cifar10", "ssgah", "baseline"): _by_code_length(0.744, 0.771, 0.782, 0.789),
    ("cifar10", "bgdh", None): _by_code_length(0.805, 0.824, 0.826, 0.833),
    ("cifar10", "ssdh", None): _by_code_length(0.801, 0.813, 0.812, 0.814),
    ("cifar10", "dsh_gan", None): _by_code_length(0.745, 0.789, 0.793, 0.811),
    ("cifar10", "ninh", None): _by_code_length(0.535, 0.552, 0.566, 0.558),
    ("cifar10", "cnnh", None): _by_code_length(0.439, 0.476, 0.472, 0.489),
    ("cifar10", "sdh", "cnn"): _by_code_length(0.363, 0.528, 0.529, 0.542),
    ("cifar10", "itq", "cnn"): _by_code_length(0.212, 0.230, 0.234, 0.240),
    ("cifar10", "sh", "cnn"): _by_code_length(0.158, 0.157, 0.154, 0.151),
    ("cifar10", "lsh", "cnn"): _by_code_length(0.134, 0.157, 0.173, 0.185),
    ("cifar10", "sdh", "gist"): _by_code_length(0.255, 0.330, 0.344, 0.360),
    ("cifar10", "itq", "gist"): _by_code_length(0.162, 0.169, 0.172, 0.175),
    ("cifar10", "sh", "gist"): _by_code_length(0.124, 0.125, 0.125, 0.126),
    ("cifar10", "lsh", "gist"): _by_code_length(0.116, 0.121, 0.124, 0.131),
}


def published_map(
    dataset: str,
    protocol: str,
    method: str,
    variant: str | None,
    code_length: int,
    database_size: int | None = None,
) -> float | None:
    """The mAP which the paper reports for this setting, or None where it reports none.

    Numbers of another protocol, or of a smaller database (a smaller one alone raises mAP), are not
    comparable and answer None. A `database_size` of None is taken to be what the protocol says.
    """
    if not _PROTOCOL.match(protocol) or database_size not in (None, _DATABASE_SIZE):
        return None
    return PAPER.get((dataset, method, variant), {}).get(code_length)

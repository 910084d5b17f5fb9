"""The published numbers, and that they are those of the papers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tfhash.report import published

PAPERS = Path(__file__).parents[3] / "shared" / "papers"
PROTOCOL = "per_class(queries=100, labelled=500, validation=0.1)"
UNSEEN = "unseen_classes(queries=all, labelled=500, validation=0)"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (("cifar10", PROTOCOL, "ssgah", None, 12, 59_000), [0.819]),
        (("cifar10", PROTOCOL, "ssgah", None, 12), [0.819]),
        (("cifar10", "per_class(queries=100, labelled=500)", "sdh", "gist", 48), [0.360]),
        (("cifar10", UNSEEN, "ssgah", None, 12, 30_000), [0.309]),
        (("cifar10", UNSEEN.replace("all", "100"), "lsh", "cnn", 48), [0.138]),
        (("nus_wide", PROTOCOL, "sdh", "bow", 24, 193_734), [0.465]),
        (("cifar10", PROTOCOL, "ssgah", None, 16), []),
        (("cifar10", PROTOCOL, "ssgah", "another", 12), []),
        (("cifar10", PROTOCOL, "lsh", None, 48), []),
        (("cifar10", PROTOCOL, "ssgah", None, 12, 6_000), []),
        (("cifar10", UNSEEN, "ssgah", None, 12, 59_000), []),
        (("cifar10", UNSEEN, "lsh", "gist", 12), []),
        (("nus_wide", PROTOCOL, "sdh", "gist", 24), []),
        (("cifar10_mosaics", PROTOCOL, "sdh", "cnn", 24), []),
        (("cifar10", "per_class(queries=100, labelled=5000)", "ssgah", None, 12), []),
        (("cifar10", "per_class(queries=1000, labelled=500)", "ssgah", None, 12), []),
        (("cifar10", "unseen_classes(queries=all, labelled=50)", "ssgah", None, 12), []),
        (("digits", PROTOCOL, "ssgah", None, 12), []),
    ],
)
def test_only_the_papers_setting_is_answered(setting, expected):
    assert [number.map for number in published.lookup(*setting)] == expected


def test_both_papers_numbers_are_kept_and_that_of_ssgah_comes_first():
    assert published.lookup("cifar10", PROTOCOL, "dsh_gan", None, 48) == [
        (0.811, "SSGAH, Table 1"),
        (0.802, "DSH-GANs, Table 1"),
    ]


def test_every_source_is_a_paper():
    lists = [numbers for by_length in published.PAPERS.values() for numbers in by_length.values()]
    papers = {number.source.partition(",")[0] for numbers in lists for number in numbers}
    assert papers == set(published.SOURCES)


@pytest.mark.parametrize(
    ("dataset", "protocol", "key"),
    [
        ("cifar10", PROTOCOL, "map"),
        ("nus_wide", PROTOCOL, "map_at5000"),
        ("cifar10_mosaics", PROTOCOL, "map_at5000"),
        ("nus_wide", UNSEEN, "map"),
        ("digits", PROTOCOL, "map"),
    ],
)
def test_measure(dataset, protocol, key):
    assert published.measure(dataset, protocol) == key


def numbers_of(paper):
    """What is kept of a paper's tables: (table, dataset, method, variant) -> maps by length."""
    found = {}
    for (dataset, _, method, variant), by_length in published.PAPERS.items():
        for code_length, numbers in by_length.items():
            for number in numbers:
                if number.source.startswith(paper):
                    key = number.source, dataset, method, variant
                    found.setdefault(key, {})[code_length] = number.map
    return found


def text_of(name):
    path = PAPERS / name
    if not path.exists():
        pytest.skip(f"{name}, the text of the paper, is not beside the repository")
    return path.read_text(encoding="utf-8")


def name_and_variant(name, dataset):
    """The paper's name of a method -> ours."""
    features = {"cifar10": "gist", "nus_wide": "bow"}[dataset]
    names = {
        "SSGAH(Ours)": ("ssgah", None),
        "w/ssr": ("ssgah", "w_ssr"),
        "w/ar": ("ssgah", "w_ar"),
        "baseline": ("ssgah", "baseline"),
        "DSH-GANs": ("dsh_gan", None),
        "DSH-GANs-": ("dsh_gan", "without_classification"),
    }
    names |= {name: (name.lower(), features) for name in ("LSH", "SH", "ITQ", "KSH", "SDH")}
    method, _, network = name.partition("+")
    return names.get(name, (method.lower(), network.lower() or None))


def test_the_numbers_of_ssgah_are_those_of_its_text():
    text = text_of("ssgah_eccv2018.txt")
    expected = {}
    for table in (1, 2, 3):
        # Below the caption, an empty line and two lines of header: name, 4 + 4 numbers, by tabs.
        lines = text.split(f"**Table {table}.**")[1].split("\n\n")[1].splitlines()[2:]
        for name, *maps in (line.split("\t") for line in lines):
            if name == "SSGAH":  # Table 3 has the row of Table 1 again
                continue
            for dataset, part in (("cifar10", maps[:4]), ("nus_wide", maps[4:])):
                key = f"SSGAH, Table {table}", dataset, *name_and_variant(name, dataset)
                if (table, name) == (1, "NINH"):  # a slip; see the test below
                    continue
                expected[key] = dict(zip((12, 24, 32, 48), map(float, part), strict=True))
    assert numbers_of("SSGAH") == expected


def test_ninh_is_compared_with_the_row_that_is_not_shifted():
    """SSGAH's Table 1 has DSH-GANs' numbers one column to the right, 48 bits of CIFAR-10 at 12."""
    (row,) = re.findall(r"^NINH\t(.*)$", text_of("ssgah_eccv2018.txt").split("**Table 2")[0], re.M)
    shifted = [float(number) for number in row.split("\t")]
    right = [
        published.PAPERS[dataset, "per_class", "ninh", None][k][0].map
        for dataset in ("cifar10", "nus_wide")
        for k in published.CODE_LENGTHS
    ]
    assert shifted[1:] == right[:-1]
    assert published.lookup("cifar10", PROTOCOL, "ninh", None, 12) == [(0.552, "DSH-GANs, Table 1")]


def test_the_numbers_of_dsh_gans_are_those_of_its_text():
    text = text_of("dsh_gans_sigir2017.txt")
    table = text[text.index("Table 1: Accuracy") : text.index("Protocols and Baseline Methods")]
    numbers = [float(number) for number in re.findall(r"^0\.\d{3}$", table, re.MULTILINE)]
    # The text has the table by columns, in three blocks of methods; the column 12 bits on CIFAR-10
    # of the first block stands at the very end.
    numbers = numbers[-2:] + numbers[:-2]
    expected = {}
    columns = [(dataset, k) for dataset in ("cifar10", "nus_wide") for k in (12, 24, 32, 48)]
    blocks = (
        ("DSH-GANs", "DSH-GANs-"),
        ("DPSH", "NINH", "CNNH"),
        ("KSH+CNN", "ITQ+CNN", "SH+CNN", "LSH+CNN", "KSH", "ITQ", "SH", "LSH"),
    )
    assert len(numbers) == len(columns) * sum(map(len, blocks))
    remaining = iter(numbers)
    for block in blocks:
        for dataset, code_length in columns:
            for name in block:
                key = "DSH-GANs, Table 1", dataset, *name_and_variant(name, dataset)
                expected.setdefault(key, {})[code_length] = next(remaining)
    # "boosted up to 86.1%, 88.1%, 87.9% and 88.4%, respectively"
    percents = re.search(r"boosted up to ([\d.%, \nand]+), respectively", text)[1]
    maps = [round(float(p) / 100, 3) for p in re.findall(r"[\d.]+(?=%)", percents)]
    key = "DSH-GANs, section 4.4", "cifar10", "dsh_gan", "vgg19"
    expected[key] = dict(zip((12, 24, 32, 48), maps, strict=True))
    assert numbers_of("DSH-GANs") == expected

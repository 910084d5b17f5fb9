"""Encodes image files with a served model or an export; interrupted, it goes on when run again.

python -m tfhash.serving.encode --target=localhost:8500 --images='photos/**/*.jpg' \\
    --output=codes.npz
python -m tfhash.serving.encode --model=DIR/export --images='photos/**/*.jpg' --output=codes.npz \\
    --engine=onnxruntime
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from tfhash.cli import quiet

quiet.start()

from absl import flags  # noqa: E402

from tfhash.cli import mains  # noqa: E402
from tfhash.cli.flags import define_path, in_flags  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.files import MEGAPIXELS  # noqa: E402
from tfhash.names import shown  # noqa: E402

NAME = "tfhash.serving.encode"
mains.require(NAME, "serving", "tensorflow_serving", "tqdm")

import grpc  # noqa: E402
from tqdm import tqdm  # noqa: E402

from tfhash.serving import engines  # noqa: E402
from tfhash.serving.client import HashClient  # noqa: E402
from tfhash.serving.encode import files, results, run  # noqa: E402
from tfhash.serving.encode.in_process import InProcess  # noqa: E402
from tfhash.serving.encode.journal import InUseError, Journal, journal_path, locked  # noqa: E402
from tfhash.serving.encode.results import Row, Source  # noqa: E402
from tfhash.serving.errors import HashServiceError  # noqa: E402
from tfhash.serving.local import Tally, WrongModelError  # noqa: E402

_OF_AN_EXPORT = ("engine", "tf_threads")
_OF_A_SERVER = ("in_flight", "timeout", "tls_ca_file", "tls_cert_file", "tls_key_file")
_SERVED = "tfhash"  # the name of a model, where none is given
_INTERRUPTED_STATUS = 130  # 128 + SIGINT, as shells have it


def define_flags() -> None:
    flags.DEFINE_string("target", None, "HOST:PORT of a server's gRPC; without it --model encodes")
    flags.DEFINE_string("images", None, "quoted pattern such as 'a/**/*.jpg'", required=True)
    define_path("output", None, ".npz file to write", required=True)
    flags.DEFINE_string(
        "model",
        None,
        "folder of an export, which this process loads; with --target the name of the model there, "
        f"by default {_SERVED}",
    )
    flags.DEFINE_enum(
        "engine", engines.TENSORFLOW, engines.NAMES, f"with an export: {engines.HELP}"
    )
    flags.DEFINE_integer(
        "tf_threads", 0, "with an export: threads of the network; 0: as many as cores", 0
    )
    flags.DEFINE_integer(
        "batch", 32, "files at a time; of a request, no more than the server allows", 1
    )
    flags.DEFINE_integer(
        "max_image_megapixels",
        MEGAPIXELS,
        "larger files are not sent: .8 MiB a megapixel; as the flag that the model learned with",
        1,
    )
    flags.DEFINE_integer("in_flight", 4, "with --target: requests at a time", 1)
    flags.DEFINE_float(
        "timeout", 60, "with --target: seconds that a request may take, a restart included"
    )
    define_path("tls_ca_file", None, "PEM: who may vouch for the server; turns on TLS")
    define_path("tls_cert_file", None, "PEM: certificate of this client, for mutual TLS")
    define_path("tls_key_file", None, "PEM: private key of that certificate")


def main(argv: list[str]) -> int:
    given = flags.FLAGS
    output = Path(given.output)
    try:
        with locked(output):
            found = files.find(given.images)
            for note in found.notes:
                print(f"--images: {shown(note)}")
            earlier = results.read(output)
            with _client() as client:
                source = client.source if isinstance(client, InProcess) else _source(client)
                rows = _encode(client, source, found.paths, output, earlier)
    except InUseError as error:
        mains.print_error(NAME, error)
        return 1
    except (HashServiceError, WrongModelError) as error:
        mains.print_error(NAME, f"{error}; {_how_to_go_on(output)}")
        return 1
    except KeyboardInterrupt:
        mains.print_error(NAME, f"interrupted; {_how_to_go_on(output)}")
        return _INTERRUPTED_STATUS
    for path, reason in found.unreadable.items():
        rows[path] = Row(-1, -1, None, reason)
    status = _report(output, source, rows)
    if isinstance(client, InProcess):
        _tell(client.tally, source)
    return status


def _client() -> HashClient | InProcess:
    given = flags.FLAGS
    if given.target is None:
        if given.model is None:
            raise UserError(
                "--target, --model: expected HOST:PORT of a server, or the folder of an export as "
                "--model"
            )
        _refuse(_OF_A_SERVER, "no server is asked; allowed: with --target")
        return InProcess(Path(given.model), given.engine, given.tf_threads)
    _refuse(_OF_AN_EXPORT, "behind --target the server computes; allowed: without --target")
    return HashClient(
        given.target,
        given.model or _SERVED,
        timeout=given.timeout,
        tls=_credentials(given.tls_ca_file, given.tls_cert_file, given.tls_key_file),
        max_batch=given.batch,
        in_flight=given.in_flight,
    )


def _refuse(names: Iterable[str], why: str) -> None:
    for name in names:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name}: {why}")


def _source(client: HashClient) -> Source:
    metadata = client.metadata()
    given = flags.FLAGS
    name = given.model or _SERVED
    if metadata.code_length is None:
        raise UserError(f"--model: {name} does not tell the length of its codes")
    if not metadata.fingerprint:
        print(
            f"{shown(name)} tells no fingerprint, as its export is of before there were "
            "any: a model in its place with the same name, version and code length is not noticed"
        )
    return Source(given.target, name, metadata.version, metadata.code_length, metadata.fingerprint)


def _encode(
    client: HashClient | InProcess,
    source: Source,
    paths: list[str],
    output: Path,
    earlier: tuple[Source, dict[str, Row]] | None,
) -> dict[str, Row]:
    """Writes the output; returns the row of every path."""
    kept = {}
    if earlier and earlier[0] == source:
        kept = earlier[1]
    elif earlier:
        print(f"{shown(str(output))} is of {earlier[0]}: all files are encoded anew")
    with Journal(output, source, kept) as journal:
        if journal.dropped:
            print(
                f"{journal.dropped:,} rows of {shown(str(journal.path))} are damaged, or no codes "
                f"of {source.code_length} bits: their files are encoded anew"
            )
        with tqdm(total=len(paths), unit="file", disable=None) as bar:  # None: only on a terminal
            given = flags.FLAGS
            run.encode(
                client,
                source,
                paths,
                journal,
                given.batch,
                given.max_image_megapixels,
                bar.update,
            )
        rows = {path: journal.rows[path] for path in paths}
        results.write(output, source, rows)
        journal.delete()
    return rows


def _report(output: Path, source: Source, rows: Mapping[str, Row]) -> int:
    """Prints what came of it; returns the exit status."""
    failed = defaultdict(list)
    for path, row in rows.items():
        if row.code is None:
            failed[row.reason].append(path)
    count = sum(map(len, failed.values()))
    print(f"{shown(str(output))}: {len(rows) - count:,} codes of {source.code_length} bits")
    if not failed:
        return 0
    print(f"{count:,} of {len(rows):,} files have no code", file=sys.stderr)
    for reason, paths in sorted(failed.items()):
        reason = in_flags(reason, flags.FLAGS, None)
        print(f"{len(paths):,} {shown(reason)}:", *map(shown, paths), sep="\n  ", file=sys.stderr)
    return 1


def _tell(tally: Tally, source: Source) -> None:
    """Prints what bounded the work, and how far the codes are from the SavedModel's."""
    if profile := tally.profile():
        print(profile)
    if comparison := tally.comparison(source.engine):
        print(comparison, file=sys.stderr)


def _how_to_go_on(output: Path) -> str:
    part = journal_path(output)
    if not part.exists():
        return "nothing was encoded"
    return f"{shown(str(part))} keeps what was encoded, the same command goes on from there"


def _credentials(
    ca_file: str | None, cert_file: str | None, key_file: str | None
) -> grpc.ChannelCredentials | None:
    """What the flags ask for; None is plain text."""
    if bool(cert_file) != bool(key_file):
        raise UserError("--tls_cert_file, --tls_key_file: expected both or neither")
    if not (ca_file or cert_file):
        return None
    return grpc.ssl_channel_credentials(
        _pem("tls_ca_file", ca_file),
        private_key=_pem("tls_key_file", key_file),
        certificate_chain=_pem("tls_cert_file", cert_file),
    )


def _pem(flag: str, path: str | None) -> bytes | None:
    if not path:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"--{flag}: cannot read {shown(path)} ({error.strerror})") from None
    if b"-----BEGIN " not in content:  # gRPC would only say that it cannot connect
        raise UserError(f"--{flag}: expected PEM, {shown(path)} holds none")
    return content


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main)


if __name__ == "__main__":
    entry_point()

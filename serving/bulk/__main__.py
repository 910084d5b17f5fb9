"""Encodes any number of images with Apache Beam; run again, it encodes only what is new.

python -m tfhash.serving.bulk --model=DIR/export --input='photos/**' --output=codes@16.parquet
python -m tfhash.serving.bulk --target=HOST:PORT --input=images.tfrecord@* --output=codes@16.parquet

Flags that are not listed here are Beam's: --runner=DirectRunner (the default), DataflowRunner,
FlinkRunner, SparkRunner or PortableRunner, and the options of each, written --name=value.
--direct_running_mode=multi_processing --direct_num_workers=4 takes four processes of this machine.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import NoReturn

from tfhash.cli import quiet

quiet.start()

from absl import flags, logging  # noqa: E402

from tfhash import files, shards  # noqa: E402
from tfhash.cli import mains  # noqa: E402
from tfhash.errors import UserError  # noqa: E402
from tfhash.names import shown  # noqa: E402

NAME = "tfhash.serving.bulk"
mains.require(NAME, "bulk", "apache_beam", "google_crc32c", "pyarrow", "tensorflow_serving")

with quiet.logs():
    from tfhash.serving import engines
    from tfhash.serving.bulk import inputs, models, output, pipeline, places, running
    from tfhash.serving.bulk.making import Job
    from tfhash.serving.bulk.output import Total
from tfhash.serving.errors import HashServiceError  # noqa: E402

_INTERRUPTED_STATUS = 130  # 128 + SIGINT, as shells have it


def define_flags() -> None:
    flags.DEFINE_string(
        "input", None, "quoted pattern of images, .csv with a column path, or .tfrecord@*"
    )
    flags.DEFINE_string("output", None, f"files to write: {shards.ALLOWED}")
    flags.DEFINE_string("model", None, "folder of the export that each worker loads")
    flags.DEFINE_enum("engine", engines.TENSORFLOW, engines.NAMES, f"with --model: {engines.HELP}")
    flags.DEFINE_string("target", None, "HOST:PORT of a TF Serving's gRPC, in place of --model")
    flags.DEFINE_string("model_name", "tfhash", "with --target: name of the model there")
    flags.DEFINE_float("timeout", 60, "with --target: seconds that a request may take")
    flags.DEFINE_integer("batch", 32, "images that are encoded at a time, at most", 1)
    flags.DEFINE_integer("batch_mib", 32, "MiB of images that are encoded at a time, at most", 1)
    flags.DEFINE_integer(
        "max_image_megapixels",
        files.MEGAPIXELS,
        "larger files are not read: .8 MiB a megapixel; as the flag that the model learned with",
        1,
    )
    flags.DEFINE_string("image_feature", "image", "TFRecord: feature with the bytes of the image")
    flags.DEFINE_string("id_feature", "id", "TFRecord: feature with its id, else FILE:OFFSET")
    flags.DEFINE_integer(
        "tf_threads",
        1,
        "with --model: threads of the network in each process of workers, beside one that decodes; "
        "0: as many as cores",
        0,
    )
    for name in ("input", "output"):
        flags.mark_flag_as_required(name)


def main(argv: list[str]) -> int:
    options = running.options_of(argv[1:], quiet.is_verbose())
    try:
        job = _job()
        with places.named(job.name, "output"):
            existing = output.prepare(job)
        if existing.others:
            print(f"{existing.others:,} shards are of another model: all of theirs is encoded anew")
        with quiet.logs():
            counted = running.run(options, job)
    except HashServiceError as error:
        mains.print_error(NAME, error)
        return 1
    except running.FailedError as error:
        if quiet.is_verbose():
            logging.error("the whole message", exc_info=error.__cause__)
        mains.print_error(NAME, f"the job failed: {error}; {_how_to_go_on()}")
        return 1
    except KeyboardInterrupt:
        mains.print_error(NAME, f"interrupted; {_how_to_go_on()}")
        return _INTERRUPTED_STATUS
    return _report(job, counted, output.finish(job))


def _job() -> Job:
    """What the flags ask for; all that may be refused is refused here."""
    given = flags.FLAGS
    if (given.model is None) == (given.target is None):
        raise UserError("--model, --target: allowed: exactly one of them")
    try:
        name, count = shards.together(given.output)
    except ValueError as error:
        raise UserError(f"--output: {error}") from None
    limit = files.max_bytes(given.max_image_megapixels)
    source = inputs.source_of(given.input, limit, given.image_feature, given.id_feature)
    _check_flags(source)
    with places.named(given.input, "input"):
        source.check()
    if given.model is not None:
        with places.named(given.model, "model"):
            model = models.of_directory(given.model, given.tf_threads, given.engine)
    else:
        model = models.of_server(given.target, given.model_name, given.timeout, given.batch)
    return Job(
        places.absolute(name),
        count,
        source,
        model,
        given.max_image_megapixels,
        limit,
        given.batch,
        given.batch_mib * 2**20,
    )


def _check_flags(source: inputs.Source) -> None:
    """UserError for a flag that nothing would look at."""
    given = flags.FLAGS
    served = "behind --target the server computes; allowed: with --model"
    own = "no server is asked; allowed: with --target"
    no_records = "--input has no features; allowed: with .tfrecord in its name"
    for names, is_unused, why in (
        ("engine tf_threads", given.target is not None, served),
        ("model_name timeout", given.target is None, own),
        ("image_feature id_feature", not isinstance(source, inputs.Records), no_records),
    ):
        for name in names.split():
            if is_unused and given[name].present:
                raise UserError(f"--{name}: {why}")


def _report(job: Job, counted: Mapping[str, int], total: Total) -> int:
    """Prints what came of it; returns the exit status."""
    print(
        f"{shown(flags.FLAGS.output)}: {total.rows - total.errors:,} codes of "
        f"{job.model.code_length} bits, fingerprint {job.model.fingerprint}"
    )
    if counted:
        print(
            f"{counted['read']:,} images read, {counted['encoded']:,} encoded, "
            f"{counted['unchanged']:,} as they were; {counted['shards_finished']:,} of "
            f"{job.shards:,} shards were finished before"
        )
    tally = pipeline.tally_of(counted)
    if profile := tally.profile():
        print(profile)
    if comparison := tally.comparison(job.model.engine):
        print(f"{comparison} of each process", file=sys.stderr)
    if not total.errors:
        return 0
    mains.print_error(
        NAME, f"{total.errors:,} of {total.rows:,} images have no code: {shown(total.listed)}"
    )
    return 1


def _how_to_go_on() -> str:
    return "finished shards are kept, the same command goes on from there"


def entry_point() -> None:
    define_flags()
    mains.run(NAME, main, passes_on=True)


def start() -> NoReturn:
    """The command as a process of its own, which ends with it at once.

    Threads of gRPC that Beam's local runner leaves abort, now and then, an interpreter that closes.
    """
    try:
        entry_point()
    except SystemExit as ended:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(ended.code if isinstance(ended.code, int) else ended.code is not None)
    os._exit(0)


if __name__ == "__main__":
    start()

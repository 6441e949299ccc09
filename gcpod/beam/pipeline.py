"""The build as a pipeline: `gcpod.data.build` cut at the two places where many can work at once.

Annotations are read and paired where the command runs, for which no image is needed. Then images are looked at by many
workers; one gathers what they saw and plans, by the same functions as the build on one machine; shards are written by
many; the manifest is written last. So the files are the same, byte for byte, as those of `build_dataset`.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gcpod.beam import places
from gcpod.beam.options import DATAFLOW, BeamOptions, check_on_cloud, to_flags, to_pipeline_options
from gcpod.beam.package import worker_package
from gcpod.beam.places import Part, StoredImage
from gcpod.beam.stages import SAMPLES, Job, finish, look, outcome, plan, write
from gcpod.data.build import DatasetRequest, roots_of
from gcpod.data.manifest import DatasetManifest
from gcpod.data.scan import Scan, scan_dataset
from gcpod.errors import DataError, JobFailedError, SpecError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

_MIN_LOOK: Final = 64
_MAX_LOOKS: Final = 4096
"""Pieces of work that the images are dealt to at most: their places are part of the graph, which Dataflow bounds."""


def build_with_beam(
    request: DatasetRequest, out: str, options: BeamOptions | None = None, images: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> DatasetManifest:
    """Builds a dataset by a pipeline; shards that are there already, as the same plan gives them, are kept.

    One build at a time may write into a folder. A call that is interrupted does not end a pipeline on other machines.

    Args:
        request: what to build from what; its ``out`` is not used. Annotations are on this machine.
        out: folder of the dataset, here or gs://.
        options: where it runs; in this process by default.
        images: a gs:// folder of images in place of ``request.images``.
        notify: told the id of a job that was started on other machines.

    Returns:
        the manifest; its ``folder`` is a path only where ``out`` is.

    Raises:
        DatasetError: the check found errors; nothing was written.
        DataError: nothing to build from, an image that changed meanwhile, or a target that cannot be written.
        SpecError: options that do not go together, or Apache Beam is missing.
        JobFailedError: the pipeline itself failed.
    """
    options = options or BeamOptions()
    to_flags(options)
    with tempfile.TemporaryDirectory() as here:
        if not options.local and not options.brings_gcpod:
            options = replace(options, package=str(worker_package(Path(here))))
        flags = to_pipeline_options(options)
        _prepare(flags)
        images, out = places.checked_place(images) if images else None, places.checked_place(out)
        _check_places(options, request, images, out)
        scan = _scanned(request, images)
        with _workplace(options, here) as work:
            job = _job(request, scan, images, out, work)
            return _run(job, scan, flags, options, notify)


def _prepare(flags: PipelineOptions) -> None:
    from apache_beam.io.filesystems import FileSystems

    FileSystems.set_options(flags)


def _check_places(options: BeamOptions, request: DatasetRequest, images: str | None, out: str) -> None:
    if options.runner == DATAFLOW:
        check_on_cloud("the dataset's folder", out)
        check_on_cloud("the image folder", images or str(request.images))
    if request.materialise:
        found = "a pipeline does not write it"
        raise SpecError("writing the images to", request.materialise, found, "leave it away, or build on this machine")
    if images and not request.annotations:
        found = "annotations beside images in Cloud Storage are not looked for"
        raise SpecError("building from", images, found, "give the folder or file of the annotations on this machine")
    if images and not places.stored(images):
        raise SpecError("building from", images, "it is no gs:// folder", "give it as the request's images")
    if not places.stored(out) and Path(out).exists() and not Path(out).is_dir():
        raise DataError("writing the dataset to", out, "it is a file", "choose another folder")


def _scanned(request: DatasetRequest, images: str | None) -> Scan:
    """Annotations and images, paired; images in Cloud Storage as such."""
    if not images:
        return scan_dataset(request.images, request.annotations, request.format, request.masks)
    scan = scan_dataset(
        request.images, request.annotations, request.format, request.masks, listed=places.list_images(images),
    )
    if scan.source.format == "tfrecord":
        raise SpecError("building from", images, "the labels are TFRecords, which hold their images", "leave it away")
    return replace(scan, samples=tuple(
        replace(sample, image=StoredImage(f"{images}/{sample.name}")) if sample.image else sample
        for sample in scan.samples
    ))


def _job(request: DatasetRequest, scan: Scan, images: str | None, out: str, work: str) -> Job:
    known = replace(request, images=request.annotations) if images and request.annotations else request
    roots = (f"{images}/", *roots_of(known)) if images else roots_of(known)
    return Job(
        images or str(request.images), out, work, f"{out}/.building/beam-{uuid.uuid4().hex}", roots,
        request.check_options(scan.label_map), request.plan_options,
    )


@contextmanager
def _workplace(options: BeamOptions, here: str) -> Iterator[str]:
    """A folder for work files."""
    if not options.temp_location:
        yield here
        return
    work = f"{places.checked_place(options.temp_location)}/gcpod-{uuid.uuid4().hex}"
    with cleared(lambda: places.remove_folder(work), options):
        yield work


@contextmanager
def cleared(clear: Callable[[], object], options: BeamOptions) -> Iterator[None]:
    """Clears up afterwards, but for a call that is interrupted while its job goes on elsewhere and needs its files."""
    try:
        yield
    except BaseException as err:
        if options.local or isinstance(err, Exception):
            clear()
        raise
    clear()


def _run(
    job: Job, scan: Scan, flags: PipelineOptions, options: BeamOptions, notify: Callable[[str], None] | None,
) -> DatasetManifest:
    at_once = max(_MIN_LOOK, -(-len(scan.samples) // _MAX_LOOKS))
    pieces = [scan.samples[start : start + at_once] for start in range(0, max(1, len(scan.samples)), at_once)]
    _, *parts = places.write_parts(f"{job.work}/{SAMPLES}", (scan.faults, *pieces))
    try:
        pipeline = _pipeline(job, parts, flags)
    except (ValueError, ImportError, AttributeError) as err:
        found = str(err).strip(" .\n")
        raise SpecError("running a pipeline on", options.runner, found, "see the runners of Apache Beam") from err
    with cleared(lambda: _clear_up(job), options):
        state = _wait(pipeline, options.runner, notify)
        manifest = outcome(job)
        if manifest is None:
            raise _failed(options.runner, f"it ended as {state} without a result")
        return manifest


def _wait(pipeline: beam.Pipeline, runner: str, notify: Callable[[str], None] | None) -> object:
    """Runs the pipeline and returns the state that it ended in."""
    try:
        result: Any = pipeline.run()
        name = getattr(result, "job_id", None)
        if notify and callable(name):
            notify(str(name()))
        return result.wait_until_finish()
    except Exception as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        raise _failed(runner, lines[-1]) from err


def _failed(runner: str, found: str) -> JobFailedError:
    return JobFailedError("building the dataset by a pipeline on", runner, found, "see what its workers logged")


def _clear_up(job: Job) -> None:
    places.remove_folder(job.aside)
    places.remove_if_empty(f"{job.out}/.building")
    places.remove_if_empty(job.out)


def _pipeline(job: Job, parts: Sequence[Part], flags: PipelineOptions) -> beam.Pipeline:
    """The graph. Keys are there for Beam's grouping only: all go to one worker."""
    import apache_beam as beam

    pipeline = beam.Pipeline(options=flags)
    (
        pipeline
        | "pieces" >> beam.Create(parts)
        | "deal images" >> beam.Reshuffle()
        | "look" >> beam.Map(partial(look, job=job))
        | "looks" >> beam.GroupBy(_one)
        | "all looks" >> beam.Values()
        | "plan" >> beam.FlatMap(partial(plan, job=job))
        | "deal shards" >> beam.Reshuffle()
        | "write" >> beam.Map(partial(write, job=job))
        | "shards" >> beam.GroupBy(_one)
        | "all shards" >> beam.Values()
        | "finish" >> beam.Map(partial(finish, job=job))
    )
    return pipeline


def _one(_: object) -> int:
    return 0

"""Where a pipeline runs: checked options, and the flags of Apache Beam that they become.

Flags: https://cloud.google.com/dataflow/docs/reference/pipeline-options#python.
"""

from __future__ import annotations

import re
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Final

from gcpod.errors import SpecError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_REFERENCE: Final = "https://cloud.google.com/dataflow/docs/reference/pipeline-options#python"
DATAFLOW: Final = "DataflowRunner"

_HERE: Final = frozenset({"DirectRunner", "BundleBasedDirectRunner", "FnApiRunner", "PrismRunner"})
_NEEDED: Final = ("project", "region", "temp_location")
_FLAG: Final = re.compile(r"--\w+(=|$)", re.ASCII)
_OWN_SOFTWARE: Final = ("--setup_file", "--extra_package", "--requirements_file", "--prebuild_sdk_container_engine")


@dataclass(frozen=True)
class BeamOptions:
    """What runs the pipeline; everything but ``runner`` may be left to the runner's own defaults.

    Attributes:
        runner: one of Beam's (https://beam.apache.org/documentation/runners/capability-matrix/). "DirectRunner" works
            in this process, "DataflowRunner" on Google Cloud; it needs ``project``, ``region`` and ``temp_location``.
        project, region: of the Dataflow job.
        temp_location: folder for work files that all workers reach: on Dataflow a gs:// one, on this machine by
            default one of its own.
        staging_location: folder for the workers' software; by default below ``temp_location``.
        job_name: of the Dataflow job; by default made up.
        worker_machine_type: such as "n1-standard-4".
        max_workers: the most that Dataflow starts.
        service_account: e-mail address that the workers act as.
        network, subnetwork: where the workers run.
        sdk_container_image: an image that has Beam, gcpod and Pillow in it.
        package: a source distribution of gcpod for workers that have none, such as `gcpod.beam.package` makes.
        extra: further flags of Beam, each as "--disk_size_gb=100" or "--no_use_public_ips".
    """

    runner: str = "DirectRunner"
    project: str | None = None
    region: str | None = None
    temp_location: str | None = None
    staging_location: str | None = None
    job_name: str | None = None
    worker_machine_type: str | None = None
    max_workers: int | None = None
    service_account: str | None = None
    network: str | None = None
    subnetwork: str | None = None
    sdk_container_image: str | None = None
    package: str | None = None
    extra: tuple[str, ...] = ()

    @property
    def local(self) -> bool:
        """Whether the workers are on this machine."""
        return self.runner in _HERE

    @property
    def brings_gcpod(self) -> bool:
        """Whether these options say how the workers come by gcpod."""
        return bool(self.sdk_container_image or self.package) or any(
            flag.split("=")[0].startswith(_OWN_SOFTWARE) for flag in self.extra
        )


def to_flags(options: BeamOptions) -> list[str]:
    """The options as flags of Beam.

    Raises:
        SpecError: one is missing that the runner needs, a place is none that all workers reach, or a further flag is
            none.
    """
    for flag in options.extra:
        if not _FLAG.match(flag):
            raise _wrong(flag, "it is no option of Beam", "write --NAME=VALUE")
    if not options.local:
        _check_shared(options)
    # Beam's DirectRunner first tries Prism, a program that it fetches from GitHub; this is what it falls back to.
    runner = "FnApiRunner" if options.runner == "DirectRunner" else options.runner
    flags = {
        "runner": runner, "project": options.project, "region": options.region,
        "temp_location": options.temp_location, "staging_location": options.staging_location,
        "job_name": options.job_name, "worker_machine_type": options.worker_machine_type,
        "max_num_workers": options.max_workers, "service_account_email": options.service_account,
        "network": options.network, "subnetwork": options.subnetwork,
        "sdk_container_image": options.sdk_container_image, "extra_package": options.package,
    }
    return [*(f"--{name}={value}" for name, value in flags.items() if value is not None), *options.extra]


def to_pipeline_options(options: BeamOptions) -> PipelineOptions:
    """The options as Beam's own.

    Raises:
        SpecError: see `to_flags`; Apache Beam is not installed; or it does not know a flag, or refuses its value.
    """
    flags = to_flags(options)
    try:
        from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
    except ImportError as err:
        found = f"apache-beam cannot be imported ({err})"
        raise SpecError("running a pipeline on", options.runner, found, "pip install 'gcpod[beam]'") from err
    told = StringIO()
    try:
        with redirect_stderr(told):
            made = PipelineOptions(flags)
            known = made.get_all_options().keys()
            unknown = made.get_all_options(retain_unknown_options=True).keys() - known
    except SystemExit as err:
        found = told.getvalue().strip().rpartition("error: ")[2]
        raise _wrong(" ".join(options.extra) or options.runner, found) from err
    # Everything that a worker runs is in gcpod's modules.
    made.view_as(SetupOptions).save_main_session = False
    if unknown:
        raise _wrong(", ".join(f"--{name}" for name in sorted(unknown)), "Apache Beam knows no such option")
    return made


def _check_shared(options: BeamOptions) -> None:
    needed = _NEEDED if options.runner == DATAFLOW else ("temp_location",)
    missing = [name for name in needed if not getattr(options, name)]
    if missing:
        found = f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing"
        raise SpecError("running a pipeline on", options.runner, found, f"give {', '.join(missing)}")
    if options.runner == DATAFLOW:
        for name in ("temp_location", "staging_location"):
            check_on_cloud(name, getattr(options, name) or "gs://")


def check_on_cloud(what: str, place: str) -> None:
    """Makes sure that Dataflow's workers reach a place.

    Raises:
        SpecError: it is not in Cloud Storage.
    """
    if not place.startswith("gs://"):
        found = f"{what} is not in Cloud Storage, where the workers of {DATAFLOW} read and write"
        raise SpecError("using", place, found, "give a gs:// folder")


def _wrong(flag: str, found: str, fix: str = f"see {_REFERENCE}") -> SpecError:
    return SpecError("reading the pipeline options", flag, found, fix)

"""Options become Beam's own: each is read back by the class of Beam that it is meant for."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import PIL
import pytest

pytest.importorskip("apache_beam")

from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, SetupOptions, WorkerOptions

from gcpod.beam.options import BeamOptions, to_flags, to_pipeline_options
from gcpod.beam.package import REQUIRES, worker_package
from gcpod.errors import SpecError

ROOT = Path(__file__).resolve().parents[2]
CLOUD = BeamOptions(runner="DataflowRunner", project="p-1", region="europe-west4", temp_location="gs://b/tmp")


def test_every_option_of_dataflow_arrives() -> None:
    made = to_pipeline_options(replace(
        CLOUD, staging_location="gs://b/stage", job_name="cats-1", worker_machine_type="n1-highmem-4", max_workers=50,
        service_account="w@p-1.iam.gserviceaccount.com", network="n", subnetwork="regions/europe-west4/subnetworks/s",
        sdk_container_image="europe-docker.pkg.dev/p-1/r/beam:1", package="/x/gcpod-0.1.0.tar.gz",
        extra=("--disk_size_gb=80", "--no_use_public_ips", "--labels=team=cats"),
    ))
    cloud, worker = made.view_as(GoogleCloudOptions), made.view_as(WorkerOptions)
    assert made.get_all_options()["runner"] == "DataflowRunner"
    assert (cloud.project, cloud.region, cloud.job_name) == ("p-1", "europe-west4", "cats-1")
    assert (cloud.temp_location, cloud.staging_location) == ("gs://b/tmp", "gs://b/stage")
    assert cloud.service_account_email == "w@p-1.iam.gserviceaccount.com"
    assert cloud.labels == ["team=cats"]
    assert (worker.machine_type, worker.max_num_workers, worker.disk_size_gb) == ("n1-highmem-4", 50, 80)
    assert (worker.network, worker.subnetwork) == ("n", "regions/europe-west4/subnetworks/s")
    assert worker.sdk_container_image == "europe-docker.pkg.dev/p-1/r/beam:1"
    assert worker.use_public_ips is False
    assert made.view_as(SetupOptions).extra_packages == ["/x/gcpod-0.1.0.tar.gz"]
    assert made.view_as(SetupOptions).save_main_session is False


def test_what_is_not_given_is_left_to_beam() -> None:
    assert to_flags(CLOUD) == [
        "--runner=DataflowRunner", "--project=p-1", "--region=europe-west4", "--temp_location=gs://b/tmp",
    ]
    made = to_pipeline_options(BeamOptions(extra=("--direct_num_workers=2",)))
    assert made.get_all_options()["runner"] == "FnApiRunner"
    assert made.view_as(DirectOptions).direct_num_workers == 2
    assert made.view_as(WorkerOptions).max_num_workers is None


@pytest.mark.parametrize(("options", "told"), [
    (replace(CLOUD, project=None), "project is missing"),
    (replace(CLOUD, region=""), "region is missing"),
    (replace(CLOUD, temp_location=None), "temp_location is missing"),
    (BeamOptions(runner="DataflowRunner"), "project and region and temp_location are missing"),
    (replace(CLOUD, temp_location="/tmp/x"), "/tmp/x: temp_location is not in Cloud Storage"),
    (replace(CLOUD, staging_location="s3://b"), "s3://b: staging_location is not in Cloud Storage"),
    (BeamOptions(runner="FlinkRunner"), "temp_location is missing"),
    (BeamOptions(extra=("--wroker_zone=a", "--disk_size_gb=9")), "--wroker_zone: Apache Beam knows no such option"),
    (BeamOptions(extra=("disk_size_gb=9",)), "disk_size_gb=9: it is no option of Beam"),
    (BeamOptions(extra=("-",)), "it is no option of Beam"),
    (BeamOptions(extra=("--disk_size_gb=big",)), "disk_size_gb: .*invalid int value: 'big'"),
])
def test_options_that_cannot_work_are_named(options: BeamOptions, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        to_pipeline_options(options)


def test_without_beam_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['apache_beam'] = None\n"
        "from gcpod.beam.options import *\n"
        "try: to_pipeline_options(BeamOptions())\n"
        "except SpecError as err: print(err)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("E101: ")
    assert done.stdout.endswith("pip install 'gcpod[beam]'\n")


def test_a_module_alone_loads_no_beam() -> None:
    code = "import sys, gcpod.beam.pipeline; print([m for m in sys.modules if m.startswith('apache_beam')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("more", [
    {"sdk_container_image": "i"}, {"package": "p"}, {"extra": ("--setup_file=./setup.py",)},
    {"extra": ("--extra_packages=p.tar.gz",)},
])
def test_workers_get_gcpod_by_one_way(more: dict[str, str]) -> None:
    assert replace(CLOUD, **more).brings_gcpod  # type: ignore[arg-type]
    assert not CLOUD.brings_gcpod


def test_the_package_for_workers_is_enough_for_every_stage(tmp_path: Path) -> None:
    path = worker_package(tmp_path)
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path, filter="data")
    [folder] = (one for one in tmp_path.iterdir() if one.is_dir())
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\nimport gcpod.beam.stages as s; print(s.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{folder}/gcpod/beam/stages.py\n"
    told = (folder / "PKG-INFO").read_text(encoding="utf-8")
    assert f"Requires-Dist: pillow=={PIL.__version__}\n" in told
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert [one for one in REQUIRES if f'"{one}"' not in project] == []

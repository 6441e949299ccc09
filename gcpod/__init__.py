"""gcpod: from a folder of labelled images to a trained, evaluated, exported object detector on Google Cloud.

The public names are loaded at their first use, so that ``import gcpod`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcpod.api import build_in_bucket as build_in_bucket
    from gcpod.api import check as check
    from gcpod.api import fetch_tensorboard as fetch_tensorboard
    from gcpod.api import open_run as open_run
    from gcpod.api import open_sweep as open_sweep
    from gcpod.api import result as result
    from gcpod.api import run as run
    from gcpod.api import submit as submit
    from gcpod.api import sweep as sweep
    from gcpod.api import upload as upload
    from gcpod.api import wait as wait
    from gcpod.connection import connect as connect
    from gcpod.copying import copy as copy
    from gcpod.data.build import DatasetRequest as DatasetRequest
    from gcpod.data.build import build_dataset as build_dataset
    from gcpod.data.build import check_dataset as check_dataset
    from gcpod.data.inspect import inspect_dataset as inspect_dataset
    from gcpod.errors import GcpodError as GcpodError
    from gcpod.inputs import RunOptions as RunOptions
    from gcpod.jobs.service import Jobs as Jobs
    from gcpod.localcloud.cloud import JobCloud as JobCloud
    from gcpod.packaging.build import build_packages as build_packages
    from gcpod.pipeline.lint import lint_config as lint_config
    from gcpod.pipeline.render import RenderRequest as RenderRequest
    from gcpod.pipeline.render import render_config as render_config
    from gcpod.results.metrics import read_metrics as read_metrics
    from gcpod.results.report import RunResult as RunResult
    from gcpod.runner import Run as Run
    from gcpod.session import Session as Session
    from gcpod.spec import Spec as Spec
    from gcpod.specfile import load_spec as load_spec
    from gcpod.status import Finding as Finding
    from gcpod.status import JobInfo as JobInfo
    from gcpod.status import Metrics as Metrics

__version__ = "0.1.0"

_MODULES = {
    "gcpod.api": (
        "build_in_bucket", "check", "fetch_tensorboard", "open_run", "open_sweep", "result", "run", "submit", "sweep",
        "upload", "wait",
    ),
    "gcpod.connection": ("connect",),
    "gcpod.copying": ("copy",),
    "gcpod.data.build": ("DatasetRequest", "build_dataset", "check_dataset"),
    "gcpod.data.inspect": ("inspect_dataset",),
    "gcpod.errors": ("GcpodError",),
    "gcpod.inputs": ("RunOptions",),
    "gcpod.jobs.service": ("Jobs",),
    "gcpod.localcloud.cloud": ("JobCloud",),
    "gcpod.packaging.build": ("build_packages",),
    "gcpod.pipeline.lint": ("lint_config",),
    "gcpod.pipeline.render": ("RenderRequest", "render_config"),
    "gcpod.results.metrics": ("read_metrics",),
    "gcpod.results.report": ("RunResult",),
    "gcpod.runner": ("Run",),
    "gcpod.session": ("Session",),
    "gcpod.spec": ("Spec",),
    "gcpod.specfile": ("load_spec",),
    "gcpod.status": ("Finding", "JobInfo", "Metrics"),
}
_WHERE = {name: module for module, names in _MODULES.items() for name in names}
__all__ = [*_WHERE, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'gcpod' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""The commands as Python calls: each takes a spec or the path of one, and the same choice of cloud."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gcpod.checks import check as check_spec
from gcpod.data.build import DatasetRequest
from gcpod.data.check import Progress
from gcpod.data.manifest import DatasetManifest
from gcpod.errors import SpecError
from gcpod.jobs.reporter import Quiet, Reporter
from gcpod.jobs.request import Kind
from gcpod.layout import RunLayout
from gcpod.results.report import RunResult
from gcpod.runner import Run, RunOptions
from gcpod.session import Session
from gcpod.settings import ANY_LOCAL, Settings, resolve
from gcpod.spec import Spec
from gcpod.specfile import load_spec
from gcpod.status import Finding, JobInfo
from gcpod.storage.datasets import build_and_upload, build_to_bucket
from gcpod.storage.mirror import Mirrored
from gcpod.storage.objects import Objects
from gcpod.storage.traffic import PATIENCE_S, TransferOptions
from gcpod.storage.transfer import Tell
from gcpod.storage.tree import Symlinks
from gcpod.storage.trees import CopyPlan, plan_tree_download, plan_tree_upload
from gcpod.uris import GcsUri

LOCAL_PATIENCE_S = 60.0
IDLE_EXIT_S = 600.0
"""A local cloud started on behalf of a command ends after so many seconds without a request or a running job."""


def _loaded(spec: Spec | Path | str) -> Spec:
    return spec if isinstance(spec, Spec) else load_spec(Path(spec))


def local_root(spec: Spec) -> Path:
    """The folder of a project's local cloud, ``.gcpod/local`` beside gcpod.yaml."""
    return (spec.folder / ".gcpod" / "local").absolute()


def settings_of(spec: Spec, *, local: bool = False, endpoint: str | None = None) -> Settings:
    """Project, region, bucket and credentials, without asking any cloud; ``local`` starts no server.

    Raises:
        AuthError, SpecError: one of them cannot be found, or is no valid address.
    """
    return resolve(spec, endpoint=ANY_LOCAL if local and endpoint is None else endpoint)


def connect(spec: Spec, *, local: bool = False, endpoint: str | None = None) -> Session:
    """A session for a spec.

    Args:
        spec: names project, region and credentials, or leaves them to the environment and to gcloud.
        local: use the project's local cloud, which is started where it does not run.
        endpoint: base URL of a local cloud that serves already.

    Raises:
        AuthError, SpecError, LocalCloudError: settings are missing, or the local cloud does not start.
    """
    if local and endpoint is None:
        from gcpod.localcloud.cloud import ensure_running

        endpoint = ensure_running(local_root(spec), IDLE_EXIT_S)
    return Session(resolve(spec, endpoint=endpoint))


def objects_of(session: Session) -> Objects:
    """The objects a session reaches, with the patience that its cloud deserves."""
    return Objects(session, LOCAL_PATIENCE_S if session.is_local else PATIENCE_S)


def build_in_bucket(
    request: DatasetRequest, to: str, spec: Spec | Path | str | None = None, *, copy: bool = False, local: bool = False,
    endpoint: str | None = None, progress: Progress | None = None,
) -> DatasetManifest:
    """Builds a dataset into a bucket.

    Args:
        request: what to build.
        to: ``gs://BUCKET/FOLDER``; the bucket is made where it is missing.
        spec: names project, region and credentials, or leaves them to the environment and to gcloud.
        copy: also keep it in ``request.out``, and upload each shard while the next one is built.
        local, endpoint: see connect.
        progress: called with ("check" or "write", images done, images in all).

    Raises:
        DataError, SpecError: an input is wrong.
        StorageError, AuthError: the bucket cannot be written.
    """
    uri = GcsUri.parse(to)
    session = connect(_loaded(spec or Spec()), local=local, endpoint=endpoint)
    objects = objects_of(session)
    objects.ensure_bucket(uri.bucket)
    make = build_and_upload if copy else build_to_bucket
    return make(request, objects, uri, progress)


def copy(
    source: str, target: str, spec: Spec | Path | str | None = None, *, local: bool = False,
    endpoint: str | None = None, options: TransferOptions | None = None, symlinks: Symlinks = "refuse",
    dry_run: bool = False, tell: Tell = lambda _: None,
) -> CopyPlan:
    """Makes the target hold what the source holds; what is there already does not move, nothing is deleted.

    Args:
        source, target: one is ``gs://BUCKET/PATH``, the other a local folder or file; see storage/trees.py.
        spec, local, endpoint: see connect; ``storage`` of the spec has class, key and who pays.
        options: how bytes move.
        symlinks: what becomes of links in a local folder.
        dry_run: only say what would move.
        tell: told how far it is.

    Returns:
        what moved.

    Raises:
        SpecError: none or both of them are in a bucket.
        StorageError, AuthError, OutageError: a file or an object cannot be read or written; what moved stays.
    """
    up = target.startswith("gs://")
    if up == source.startswith("gs://"):
        found = "one of them has to be in a bucket, the other on this machine"
        raise SpecError("copying", f"{source} to {target}", found, "write gs://BUCKET/PATH for one")
    remote = GcsUri.parse(target if up else source)
    session = connect(_loaded(spec or Spec()), local=local, endpoint=endpoint)
    objects = objects_of(session)
    if up:
        plan = plan_tree_upload(objects, Path(source), remote, symlinks)
    else:
        plan = plan_tree_download(objects, remote, Path(target))
    if not dry_run:
        plan.go(options or TransferOptions(patience_s=objects.patience_s), tell)
    return plan


def check(spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None) -> list[Finding]:
    """Everything that can be known before a cent is spent; see checks.check."""
    loaded = _loaded(spec)
    return check_spec(loaded, settings_of(loaded, local=local, endpoint=endpoint))


def open_run(
    spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None, options: RunOptions | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """A run of a spec, not started; see runner.Run."""
    loaded = _loaded(spec)
    session = connect(loaded, local=local, endpoint=endpoint)
    chosen = options or RunOptions()
    if session.is_local:
        # A server on this machine that is gone does not come back by itself, as a network does.
        chosen = replace(chosen, patience_s=LOCAL_PATIENCE_S)
    return Run(loaded, session, reporter or Quiet(), chosen)


def run(
    spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None, again: bool = False,
    retry: bool = False, reporter: Reporter | None = None,
) -> RunResult:
    """Dataset, bucket, training, evaluation, export: everything that is not done yet.

    Args:
        spec: what to train, or the path of its gcpod.yaml.
        local, endpoint: see connect.
        again: start a new run although one of the same inputs exists.
        retry: submit a new attempt of a job that failed or was cancelled.
        reporter: told what happens; by default nobody.

    Raises:
        GcpodError: an input is wrong, the cloud refuses, or a job failed.
    """
    options = RunOptions(again=again, retry=retry)
    return open_run(spec, local=local, endpoint=endpoint, options=options, reporter=reporter).start()


def upload(spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None) -> RunLayout:
    """Builds records, config and packages, makes the bucket hold them, and returns where they lie."""
    return open_run(spec, local=local, endpoint=endpoint).upload().layout


def submit(
    kind: Kind, spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None, retry: bool = False,
) -> JobInfo:
    """Uploads what is missing and submits one job, or finds it where it was submitted before."""
    return open_run(spec, local=local, endpoint=endpoint, options=RunOptions(retry=retry)).submit(kind)


def fetch_tensorboard(
    spec: Spec | Path | str, *, local: bool = False, endpoint: str | None = None, out: Path | None = None,
) -> tuple[Path, Mirrored]:
    """Brings a run's event files up to date in a local folder: only new bytes travel."""
    return open_run(spec, local=local, endpoint=endpoint).fetch(out)

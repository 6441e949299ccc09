"""From a spec and a choice of cloud to a session: what every command begins with, and so light to import."""

from __future__ import annotations

from pathlib import Path

from gcpod.session import Session
from gcpod.settings import ANY_LOCAL, Settings, resolve
from gcpod.spec import Spec
from gcpod.storage.objects import Objects
from gcpod.storage.traffic import PATIENCE_S

LOCAL_PATIENCE_S = 60.0
IDLE_EXIT_S = 600.0
"""A local cloud started on behalf of a command ends after so many seconds without a request or a running job."""


def loaded(spec: Spec | Path | str) -> Spec:
    """The spec itself, or the one in the file of that path."""
    if isinstance(spec, Spec):
        return spec
    from gcpod.specfile import load_spec

    return load_spec(Path(spec))


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

"""What a run needs, built and brought into the bucket; and which run it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gcpod.cache import cache_dir
from gcpod.jobs.reporter import Reporter
from gcpod.layout import RunLayout, model_folder
from gcpod.models.fetch import FetchedModel, fetch_model, in_words
from gcpod.models.zoo import ZooModel
from gcpod.prepare import Prepared, Workdir, prepare
from gcpod.session import Session
from gcpod.spec import Spec
from gcpod.storage.objects import Objects
from gcpod.uploads import moved, upload_model, upload_run


@dataclass(frozen=True)
class RunOptions:
    """How a run deals with what lies there.

    Attributes:
        again: start a new run even though one of the same inputs has been made.
        again_when_done: the same, but only when the newest such run came to its end.
        retry: submit a new attempt of a job whose last one failed, was cancelled or is gone.
        patience_s: seconds that the cloud may be out of reach while jobs run before the run gives up watching.
    """

    again: bool = False
    again_when_done: bool = False
    retry: bool = False
    patience_s: float = math.inf


class Inputs:
    """Dataset, config, packages and checkpoint of a run.

    Args:
        spec, session, objects: of the run.
        reporter: told what is done.
        options: whether it is a new run.
        sleep: seconds.
    """

    def __init__(
        self, spec: Spec, session: Session, objects: Objects, reporter: Reporter, options: RunOptions,
        sleep: Callable[[float], None],
    ) -> None:
        self.spec, self.session, self.objects, self.reporter = spec, session, objects, reporter
        self.options, self.sleep = options, sleep

    def upload(self) -> Prepared:
        """Builds what is missing and makes the bucket hold it.

        Raises:
            GcpodError: an input is wrong, or the bucket cannot be written.
        """
        bucket = self.session.settings.bucket_uri
        made = self.objects.ensure_bucket(bucket.bucket)
        self.reporter.say(f"bucket: gs://{bucket.bucket}" + (" (made)" if made else ""))
        prepared = prepare(
            self.spec, self.session.settings, run_id=self._run_id, say=self.reporter.say, fetch=self._fetch_model,
        )
        for note in prepared.notes:
            self.reporter.say(f"machine of {note}")
        if prepared.fetched is not None:
            plan = upload_model(self.objects, prepared.fetched, bucket, self.reporter.moving)
            self.reporter.say(f"model: {moved(plan)}: {model_folder(bucket, prepared.fetched.model.name)}")
        upload_run(self.objects, prepared, self.reporter.say, self.reporter.moving)
        return prepared

    def prepare(self) -> Prepared:
        """The same without a word to anybody, and without touching the bucket.

        Raises:
            GcpodError: an input is wrong.
        """
        return prepare(self.spec, self.session.settings, run_id=self._run_id)

    def _fetch_model(self, model: ZooModel) -> FetchedModel:
        import requests

        with requests.Session() as http:
            return fetch_model(
                model, cache_dir(), http, base=self.spec.model.zoo_mirror, say=self.reporter.say, sleep=self.sleep,
                progress=in_words(self.reporter.say, model.name),
            )

    def _run_id(self, name: str) -> str:
        """The newest run of these inputs, or a fresh one when asked for another."""
        bucket, number = self.session.settings.bucket_uri, 1
        while self.objects.exists(RunLayout.of(bucket, _numbered(name, number)).manifest):
            number += 1
        newest = _numbered(name, max(1, number - 1))
        done = self.options.again_when_done and Workdir.of(self.spec).result(newest).exists()
        return _numbered(name, number) if self.options.again or done else newest


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"

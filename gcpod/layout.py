"""Where things lie in the bucket: the one place that knows."""

from __future__ import annotations

from dataclasses import dataclass

from gcpod.uris import GcsUri


def model_folder(bucket: GcsUri, name: str) -> GcsUri:
    """Where the checkpoint of a model of the zoo lies for all runs; ``bucket`` is it, or the folder in it to use."""
    return bucket / "models" / name


def image_source(bucket: GcsUri, digest: str) -> GcsUri:
    """The packed folder that a trainer image is built of."""
    return bucket / "builds" / f"{digest}.tar.gz"


def dataset_folder(bucket: GcsUri, digest: str) -> GcsUri:
    """Where the records and the label map of a dataset lie for all runs; ``digest`` is of its manifest."""
    return _named(bucket / "datasets", digest)


def packages_folder(bucket: GcsUri, digest: str) -> GcsUri:
    """Where packages lie for all runs; ``digest`` is of their names and contents."""
    return _named(bucket / "packages", digest)


def _named(folder: GcsUri, digest: str) -> GcsUri:
    if not digest:
        raise ValueError(f"a folder in {folder} has a digest for its name, and none is known")
    return folder / digest


@dataclass(frozen=True)
class RunLayout:
    """Addresses of one run: its own below its root, ``BUCKET/runs/RUN``, and those that it shares with other runs.

    Attributes:
        root: the run's own folder.
        data_digest: names its dataset; "" where only the run's own addresses are asked for.
        packages_digest: names its packages; "" as well.

    ``model`` and ``model/`` + ``logs`` agree with Vertex AI's AIP_MODEL_DIR, which is baseOutputDirectory + ``/model/``
    (https://cloud.google.com/vertex-ai/docs/training/code-requirements#environment-variables).
    """

    root: GcsUri
    data_digest: str = ""
    packages_digest: str = ""

    @classmethod
    def of(cls, bucket: GcsUri, run_id: str, data: str = "", packages: str = "") -> RunLayout:
        return cls(bucket / "runs" / run_id, data, packages)

    @property
    def bucket(self) -> GcsUri:
        """The bucket, or the folder in it, that the run was laid into."""
        return GcsUri(self.root.bucket, self.root.name.rpartition("runs/")[0].rstrip("/"))

    @property
    def data(self) -> GcsUri:
        """Records and label map, of all runs on the dataset."""
        return dataset_folder(self.bucket, self.data_digest)

    @property
    def label_map(self) -> GcsUri:
        return self.data / "label_map.pbtxt"

    @property
    def config(self) -> GcsUri:
        return self.root / "pipeline.config"

    @property
    def packages(self) -> GcsUri:
        """Packages of the jobs, of all runs that use the same."""
        return packages_folder(self.bucket, self.packages_digest)

    @property
    def checkpoint(self) -> GcsUri:
        """Folder of the fine-tune checkpoint when it comes from this machine."""
        return self.root / "fine_tune"

    @property
    def model(self) -> GcsUri:
        """The trainer's model_dir: checkpoints, ``train/`` and ``eval/`` event files."""
        return self.root / "model"

    @property
    def export(self) -> GcsUri:
        """``saved_model/``, ``checkpoint/`` and ``pipeline.config`` as the exporter writes them."""
        return self.root / "export"

    @property
    def saved_model(self) -> GcsUri:
        return self.export / "saved_model"

    @property
    def best(self) -> GcsUri:
        """The best checkpoint so far, which the evaluation copies there before the trainer rotates it away."""
        return self.root / "best"

    @property
    def manifest(self) -> GcsUri:
        """Written last: says that every upload before it is whole, and where records and packages lie."""
        return self.root / "manifest.json"

    def claim(self, intent: str) -> GcsUri:
        """The record that decides who submits a job, and under which name it runs; ``intent`` such as train-1."""
        return self.root / "jobs" / f"{intent}.json"

    def marker(self, attempt: int) -> GcsUri:
        """Written by the training job when it ends."""
        return self.root / "jobs" / f"train-{attempt}.ended.json"

    def stop(self, attempt: int) -> GcsUri:
        """Written by whoever wants the training job to end early, as if it had come to its last step."""
        return self.root / "jobs" / f"train-{attempt}.stop.json"

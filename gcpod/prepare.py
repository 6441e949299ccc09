"""Everything of a run that needs no network: dataset, config, packages, and the jobs it would ask for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gcpod.cache import cache_dir
from gcpod.data.build import DatasetRequest, build_dataset
from gcpod.data.labelmap import read_pbtxt
from gcpod.data.manifest import DatasetManifest
from gcpod.data.model import SPLITS
from gcpod.errors import ConfigError, PackageError, SpecError
from gcpod.jobs.machines import tpu_cores
from gcpod.jobs.request import JobPlan, Kind, image_uri, machines_of, plan_job, to_request
from gcpod.jobs.rules import refuse_jobs
from gcpod.layout import RunLayout
from gcpod.models.fetch import FetchedModel, fetched_model
from gcpod.models.start import (
    ZOO,
    address,
    check_fetched,
    check_start,
    checkpoint_files,
    start_of,
    zoo_model,
)
from gcpod.models.zoo import ZooModel
from gcpod.naming import run_name
from gcpod.packaging.build import Packages, ensure_packages, own_sources
from gcpod.packaging.modules import config_modules
from gcpod.pipeline.lint import LintContext, lint_config
from gcpod.pipeline.render import RenderRequest, render_config, template_names, template_text
from gcpod.pipeline.schema import Schema, built_in_schema, read_schema
from gcpod.runtimes import Runtime, find_runtime, image_python
from gcpod.settings import Settings
from gcpod.spec import MachineSpec, Spec, whole_blocks
from gcpod.status import Finding
from gcpod.storage.known import local_files
from gcpod.storage.plan import LocalFile
from gcpod.uris import GcsUri

Say = Callable[[str], None]
Fetch = Callable[[ZooModel], FetchedModel]
"""Brings a model of the zoo to this machine."""


@dataclass(frozen=True)
class Workdir:
    """Where a project's runs keep their local files: ``runs/`` beside gcpod.yaml."""

    root: Path

    @classmethod
    def of(cls, spec: Spec) -> Workdir:
        return cls(spec.folder / "runs")

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    def run(self, run_id: str) -> Path:
        return self.root / run_id

    def config(self, run_id: str) -> Path:
        return self.run(run_id) / "pipeline.config"

    def tensorboard(self, run_id: str) -> Path:
        return self.run(run_id) / "tensorboard"

    def log(self, run_id: str, intent: str) -> Path:
        """Of one attempt of a job; ``intent`` such as train-1."""
        return self.run(run_id) / "logs" / f"{intent}.log"

    def result(self, run_id: str) -> Path:
        return self.run(run_id) / "result.json"


def build_spec_dataset(spec: Spec, out: Path | None = None, progress: Any = None) -> DatasetManifest:
    """The dataset of a spec, built into its workdir, or at once when it lies there already.

    Raises:
        DataError: the images or annotations are wrong.
    """
    return build_dataset(dataset_request(spec, out), progress)


def dataset_request(spec: Spec, out: Path | None = None) -> DatasetRequest:
    """What a spec asks of its dataset; ``out`` is by default in its workdir.

    Raises:
        SpecError: labels are given twice.
        DataError: the label map cannot be read.
    """
    data = spec.data
    if data.labels and data.label_map:
        both = "it gives both, and they may differ"
        raise SpecError("reading data.labels and data.label_map of", spec.folder, both, "keep one of them")
    labels = read_pbtxt(spec.local_path(data.label_map)) if data.label_map else data.labels
    return DatasetRequest(
        images=spec.local_path(data.images),
        annotations=spec.local_path(data.annotations) if data.annotations else None,
        out=out or Workdir.of(spec).dataset, eval_fraction=data.eval_fraction, labels=labels, policies=data.policies,
        format=data.format, aliases=data.aliases or {}, verify=data.verify, near_duplicates=data.near_duplicates,
        max_side=data.max_side, masks=data.masks, train_shards=spec.train.workers + 1,
    )


def schema_of(source: Path | None, cache: Path | None = None) -> Schema:
    """What pipeline configs may hold for a source of object_detection; None is the one that is packaged by default.

    Raises:
        PackageError, ConfigError: the source cannot be read.
    """
    return read_schema(config_modules(source, cache or cache_dir()), source.name) if source else built_in_schema()


def render_spec_config(
    spec: Spec, manifest: DatasetManifest, layout: RunLayout, fetched: FetchedModel | None = None,
) -> str:
    """The pipeline config of a run; ``fetched`` is the zoo's model that it starts from, where that is here.

    Raises:
        ConfigError: the template is missing or damaged, or a setting does not exist.
        PackageError: the source that will be packaged cannot be read, or a mirror of the zoo has no allowed address.
        SpecError: the zoo has no such model.
    """
    template, where = template_text(spec.model.template, spec.folder)
    layout = replace(layout, data_digest=manifest.digest)
    start, steps = start_of(spec, layout, fetched), whole_blocks(spec.train.steps)
    version = {"train_config.fine_tune_checkpoint_version": start.version} if start.version else {}
    return render_config(template, RenderRequest(
        num_classes=manifest.num_classes,
        records=_pattern(manifest, "train", layout),
        eval_records=_pattern(manifest, "eval", layout),
        label_map=str(layout.label_map),
        batch_size=spec.train.batch_size,
        steps=steps,
        warmup_steps=spec.train.warmup_steps,
        image_size=spec.model.image_size,
        depth_multiplier=spec.model.depth_multiplier,
        learning_rate=spec.train.learning_rate,
        fine_tune_checkpoint=start.address,
        fine_tune_checkpoint_type=start.type,
        scale_learning_rate=spec.train.scale_learning_rate,
        eval_examples=manifest.images["eval"],
        metrics=spec.eval.metrics,
        settings={**version, **(spec.model.set or {})},
    ), where, schema_of(own_sources(spec)["source"]))


def lint_context(spec: Spec, manifest: DatasetManifest, machine: MachineSpec) -> LintContext:
    """What a run's config is for."""
    return LintContext(
        num_labels=manifest.num_classes, tpu_cores=tpu_cores(machine), tensorflow="2",
        gpus=0 if machine.is_tpu or not machine.accelerator else machine.count * (spec.train.workers + 1),
        schema=schema_of(own_sources(spec)["source"]),
    )


def check_config(config: str, spec: Spec, manifest: DatasetManifest, machine: MachineSpec) -> list[Finding]:
    """The warnings about a run's config.

    Raises:
        ConfigError: what is wrong with it; a job would end by it.
    """
    findings = lint_config(config, spec.model.template, lint_context(spec, manifest, machine))
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        first, more = errors[0], f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        raise ConfigError("checking the rendered", first.where, first.found, first.fix + more, code=first.code)
    return findings


def _pattern(manifest: DatasetManifest, split: Any, layout: RunLayout) -> str:
    """The shards of a split as one file pattern, ``train-?????-of-00002.tfrecord``."""
    shards = manifest.shard_paths(split)
    return str(layout.data / f"{split}-?????-of-{len(shards):05d}.tfrecord")


def check_spec_start(config: str, spec: Spec) -> None:
    """Holds the zoo's model that a run starts from against the run's config; another checkpoint is not looked at.

    Raises:
        ConfigError: C201, the trainer could not restore it.
        SpecError, PackageError: as for render_spec_config.
    """
    check_start(config, spec, ((name, template_text(name, spec.folder)[0]) for name in template_names()))


@dataclass(frozen=True)
class Prepared:
    """A run ready to upload and submit.

    Attributes:
        fetched: the zoo's model that it starts from; None where it starts from something else, or was not fetched.
    """

    spec: Spec
    run_id: str
    layout: RunLayout
    manifest: DatasetManifest
    config: str
    packages: Packages
    machines: dict[Kind, MachineSpec]
    notes: tuple[str, ...]
    fetched: FetchedModel | None = None

    @property
    def runtime(self) -> Runtime:
        return find_runtime(self.spec.runtime.name)

    def package_uris(self, paths: Sequence[Path]) -> tuple[str, ...]:
        return tuple(str(self.layout.packages / path.name) for path in paths)

    def plan(self, kind: Kind, attempt: int = 1, train_attempt: int = 1, checkpoint: str = "") -> JobPlan:
        """One of the run's jobs; see request.plan_job.

        Raises:
            SpecError: there is no such checkpoint or job.
        """
        # The trainer image holds the launcher and pycocotools; only Python-package mode needs them sent along.
        packages = self.packages
        sent = self.package_uris(packages.paths if self.spec.runtime.mode == "package" else packages.for_image)
        train = attempt if kind == "train" else train_attempt
        return plan_job(kind, attempt, self.spec, self.layout, self.machines, sent, self.run_id, train, checkpoint)

    def request(
        self, kind: Kind, settings: Settings, attempt: int = 1, train_attempt: int = 1, checkpoint: str = "",
    ) -> dict[str, Any]:
        """The body of customJobs.create, as it would go over the wire.

        Raises:
            SpecError: as for plan.
        """
        def image(machine: MachineSpec) -> str:
            return image_uri(self.spec, self.runtime, machine, settings.project.value, settings.region.value)

        plan = self.plan(kind, attempt, train_attempt, checkpoint)
        return to_request(plan, self.spec, self.layout, self.run_id, image)

    def files(self, config_path: Path) -> list[tuple[GcsUri, list[LocalFile]]]:
        """Everything to upload, with its address, by folder; what the config names comes before it."""
        shards = [self.manifest.folder / shard.name for shard in self.manifest.shards]
        layout, label_map = self.layout, self.manifest.label_map_path
        pairs: dict[GcsUri, list[tuple[Path, GcsUri]]] = {
            layout.data: [*((path, layout.data / path.name) for path in shards), (label_map, layout.label_map)],
            layout.packages: [(path, layout.packages / path.name) for path in self.packages.paths],
            layout.root: [
                *((path, layout.checkpoint / path.name) for path in checkpoint_files(self.spec)),
                (config_path, layout.config),
            ],
        }
        return [(folder, local_files(files)) for folder, files in pairs.items()]


def packages_digest(packages: Packages) -> str:
    """SHA-256, in hexadecimal, of the packages' names and contents, in their order.

    Raises:
        PackageError: one of them cannot be read.
    """
    total = hashlib.sha256()
    for path in packages.paths:
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as e:
            raise PackageError("reading", path, e.strerror or str(e), "run the command again") from e
        total.update(f"{path.name} {content}\n".encode())
    return total.hexdigest()


def prepare(
    spec: Spec, settings: Settings, *, run_id: Callable[[str], str] = lambda name: name,
    say: Say = lambda _: None, cache: Path | None = None, fetch: Fetch | None = None,
) -> Prepared:
    """Builds the dataset, the packages and the config of a run.

    Args:
        spec: what to train.
        settings: for the bucket and the region.
        run_id: chooses the id of the run from its name; by default the name itself.
        say: told what is being done.
        cache: the user's cache directory unless given.
        fetch: brings the zoo's model that the run starts from, once everything else is right; by default none is
            fetched, and what would be is said.

    Raises:
        DataError, ConfigError, PackageError, SpecError: an input is wrong.
    """
    model = zoo_model(spec)
    checkpoint_files(spec)
    runtime = find_runtime(spec.runtime.name)
    refuse_jobs(spec, settings)
    manifest = build_spec_dataset(spec)
    _check_shards(spec, manifest)
    counts = ", ".join(f"{manifest.images[split]} {split}" for split in SPLITS)
    labels = ", ".join(manifest.read_label_map().names)
    say(f"dataset: {counts} images of {manifest.num_classes} classes ({labels})")
    for finding in manifest.findings:
        say(str(finding))
    machines, notes = machines_of(spec, settings.region.value)
    image = image_uri(spec, runtime, machines["train"], settings.project.value, settings.region.value)
    python = image_python(runtime, image)
    packages = ensure_packages(runtime, python, cache or cache_dir(), **own_sources(spec))
    say(f"packages: {', '.join(map(_told, packages.paths))}")
    chosen = run_id(run_name(spec, manifest.digest))
    layout = RunLayout.of(settings.bucket_uri, chosen, manifest.digest, packages_digest(packages))
    config = render_spec_config(spec, manifest, layout)
    check_spec_start(config, spec)
    for finding in check_config(config, spec, manifest, machines["train"]):
        say(str(finding))
    if model is None:
        return Prepared(spec, chosen, layout, manifest, config, packages, machines, notes)
    fetched = fetch(model) if fetch else fetched_model(model, cache or cache_dir())
    if fetched is None:
        say(f"{ZOO}{model.name} is not here yet: a run fetches it once from {address(spec, model)}")
    else:
        check_fetched(fetched)
        config = render_spec_config(spec, manifest, layout, fetched)
    return Prepared(spec, chosen, layout, manifest, config, packages, machines, notes, fetched)


def _check_shards(spec: Spec, manifest: DatasetManifest) -> None:
    """Machines that train together deal files among themselves; one that gets none ends with an OutOfRangeError."""
    machines, shards = spec.train.workers + 1, len(manifest.shard_paths("train"))
    if machines > max(1, shards):
        raise SpecError("dealing the records to", f"{machines} machines", f"the training has {shards} shards",
                        f"set train.workers: {shards - 1} at the most, or add images", code="J402")


def _told(package: Path) -> str:
    """Its name and version, without the digest and tags that its file's name goes on with."""
    name, version, *_ = package.name.removesuffix(".tar.gz").split("-")
    return f"{name} {version.partition('+')[0]}"


def write_config(prepared: Prepared) -> Path:
    """Puts the rendered config into the run's local folder."""
    path = Workdir.of(prepared.spec).config(prepared.run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_text(prepared.config, encoding="utf-8")
    return aside.replace(path)



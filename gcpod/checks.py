"""Everything that can be known before a cent is spent: data, config, machines, checkpoint, settings."""

from __future__ import annotations

from dataclasses import replace

from gcpod.cache import cache_dir
from gcpod.data.build import DatasetError
from gcpod.data.manifest import DatasetManifest
from gcpod.errors import GcpodError
from gcpod.jobs.machines import kind_of, runs_tensorflow, runtimes_for, small_regions
from gcpod.jobs.request import machines_of
from gcpod.jobs.rules import check_jobs
from gcpod.layout import RunLayout, model_folder
from gcpod.models.fetch import fetched_model
from gcpod.models.start import address, check_fetched, checkpoint_files, zoo_model
from gcpod.naming import run_name
from gcpod.pipeline.lint import lint_config
from gcpod.prepare import build_spec_dataset, check_spec_start, lint_context, render_spec_config
from gcpod.runtimes import find_runtime
from gcpod.settings import Settings
from gcpod.spec import MachineSpec, Spec, whole_blocks
from gcpod.status import Finding


def check(spec: Spec, settings: Settings) -> list[Finding]:
    """All findings of a spec, errors and warnings; the dataset is built as a side effect when it has no errors.

    Args:
        spec: what would be trained.
        settings: for the region and the bucket's name; nothing is asked of them.
    """
    findings = _steps(spec)
    try:
        findings += _machines(spec, settings)
    except GcpodError as e:
        findings.append(_finding(e))
    try:
        findings += _start(spec, settings)
    except GcpodError as e:
        findings.append(_finding(e))
        # Told once: what else is wrong shows without it.
        spec = replace(spec, model=replace(spec.model, fine_tune_checkpoint=None))
    data, manifest = _dataset(spec)
    findings += data
    if manifest is not None:
        findings += _config(spec, settings, manifest)
    return findings


def _finding(error: GcpodError) -> Finding:
    return Finding(error.code, "error", error.on, error.found, error.fix)


def _steps(spec: Spec) -> list[Finding]:
    whole = whole_blocks(spec.train.steps)
    if whole == spec.train.steps:
        return []
    return [Finding("C210", "warning", "train.steps", f"{spec.train.steps} is no multiple of 100, the trainer's block",
                    f"{whole} steps will be run")]


def _machines(spec: Spec, settings: Settings) -> list[Finding]:
    region = settings.region.value
    machines, notes = machines_of(spec, region)
    findings = check_jobs(spec, settings) + _images(spec, machines["train"], region)
    return findings + [Finding("J402", "note", f"{note.partition(':')[0]}.machine", note.partition(": ")[2],
                               "on Google Cloud the machine asked for runs") for note in notes]


def _start(spec: Spec, settings: Settings) -> list[Finding]:
    """The checkpoint's files, or what a run would fetch; nothing is fetched here."""
    checkpoint_files(spec)
    model = zoo_model(spec)
    if model is None:
        return []
    fetched = fetched_model(model, cache_dir())
    if fetched is not None:
        check_fetched(fetched)
        return []
    to = model_folder(settings.bucket_uri, model.name)
    return [Finding("M600", "note", "model.fine_tune_checkpoint", f"{model.name} is not on this machine yet",
                    f"a run fetches {address(spec, model)} once and puts its checkpoint into {to}")]


def _images(spec: Spec, machine: MachineSpec, region: str) -> list[Finding]:
    """What the machine asks of the trainer image that gcpod's own recipe does not give."""
    runtime = find_runtime(spec.runtime.name)
    if spec.runtime.image is not None or region in small_regions():
        return []
    if not runs_tensorflow(machine, runtime.tensorflow):
        return []  # Told by the rules of the jobs; no image would help.
    if spec.runtime.mode == "package":
        found = "Google's prebuilt images lack tf-slim, tf-models-official and more that object_detection imports"
        return [Finding("K301", "warning", "runtime.mode", found, "use mode: container")]
    if kind_of(machine) not in runtime.recipes:
        found = f"there is no recipe for an image of {runtime.name} for {kind_of(machine)}"
        able = runtimes_for(machine)
        fix = f"set runtime.name: {able[0]}" if able else "build one and name it as runtime.image"
        return [Finding("K301", "warning", "runtime.image", found, fix)]
    return []


def _dataset(spec: Spec) -> tuple[list[Finding], DatasetManifest | None]:
    try:
        manifest = build_spec_dataset(spec)
    except DatasetError as e:
        return list(e.findings), None
    except GcpodError as e:
        return [replace(_finding(e), fix=f"{e.fix}; gcpod.yaml names it as data.images or data.annotations")], None
    return list(manifest.findings), manifest


def _config(spec: Spec, settings: Settings, manifest: DatasetManifest) -> list[Finding]:
    try:
        layout = RunLayout.of(settings.bucket_uri, run_name(spec, manifest.digest))
        text = render_spec_config(spec, manifest, layout)
    except GcpodError as e:
        return [_finding(e)]
    findings = []
    try:
        check_spec_start(text, spec)
    except GcpodError as e:
        findings.append(_finding(e))
    machines, _ = machines_of(spec, settings.region.value)
    return findings + lint_config(text, spec.model.template, lint_context(spec, manifest, machines["train"]))

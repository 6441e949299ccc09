"""Everything that can be known before a cent is spent: data, config, machines, checkpoint, settings."""

from __future__ import annotations

from gcpod.data.build import DatasetError
from gcpod.data.manifest import DatasetManifest
from gcpod.errors import GcpodError
from gcpod.jobs.machines import check_machine, tpu_cores
from gcpod.jobs.request import KINDS
from gcpod.layout import RunLayout
from gcpod.pipeline.lint import LintContext, lint_config
from gcpod.prepare import build_spec_dataset, checkpoint_files, machines_of, render_spec_config, run_name
from gcpod.runtimes import find_runtime
from gcpod.session import Settings
from gcpod.spec import Spec, whole_blocks
from gcpod.status import Finding


def check(spec: Spec, settings: Settings) -> list[Finding]:
    """All findings of a spec, errors and warnings; the dataset is built as a side effect when it has no errors.

    Args:
        spec: what would be trained.
        settings: for the region and the bucket's name; nothing is asked of them.
    """
    findings = [*_steps(spec), *_machines(spec, settings)]
    try:
        find_runtime(spec.runtime.name)
        checkpoint_files(spec)
    except GcpodError as e:
        findings.append(_finding(e))
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
    region, findings = settings.region.value, []
    machines, notes = machines_of(spec, region)
    for kind in KINDS:
        findings += check_machine(machines[kind], region, f"{kind}.machine", evaluation=kind == "eval")
    return findings + [Finding("J402", "note", f"{note.partition(':')[0]}.machine", note.partition(": ")[2],
                               "nothing to do") for note in notes]


def _dataset(spec: Spec) -> tuple[list[Finding], DatasetManifest | None]:
    try:
        manifest = build_spec_dataset(spec)
    except DatasetError as e:
        return list(e.findings), None
    except GcpodError as e:
        return [_finding(e)], None
    return list(manifest.findings), manifest


def _config(spec: Spec, settings: Settings, manifest: DatasetManifest) -> list[Finding]:
    try:
        layout = RunLayout.of(settings.bucket_uri, run_name(spec, manifest.digest))
        text = render_spec_config(spec, manifest, layout)
    except GcpodError as e:
        return [_finding(e)]
    machines, _ = machines_of(spec, settings.region.value)
    context = LintContext(num_labels=manifest.num_classes, tpu_cores=tpu_cores(machines["train"]))
    return lint_config(text, spec.model.template, context)

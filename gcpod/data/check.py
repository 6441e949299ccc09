"""Findings D101 to D107: whatever would stop a training or spoil it in silence, told by file and line before anything
is uploaded.

Declared sizes and suffixes are claims; what counts is what `gcpod.data.images` finds in the bytes. What happens to
each kind of fault is decided by `gcpod.spec.Policies`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from gcpod.data.boxes import LEFT_OUT, Labeller, judged, place_boxes
from gcpod.data.checked import Checked, CheckedSample
from gcpod.data.crew import Crew, batches
from gcpod.data.frame import prepare_image
from gcpod.data.images import ImageProbe, parse_image
from gcpod.data.labelmap import LabelMap
from gcpod.data.model import Annotation, Boxes, ImageSource, Sample
from gcpod.data.overall import (
    check_aliases,
    check_copies,
    check_lookalikes,
    check_unlabelled,
    group_copies,
    listed,
)
from gcpod.data.pixels import MAX_DECODED_PX, fingerprint, refused
from gcpod.errors import DataError
from gcpod.spec import Policies
from gcpod.status import Finding, Severity

Progress = Callable[[str, int, int], None]
"""Called with the phase ("check", "write"), what is done of it, and the whole."""

MAX_FINDINGS: Final = 10_000
"""Of one code and severity that are kept; the rest is counted, so that no dataset can fill the memory with faults."""

_AT_ONCE = 48


@dataclass(frozen=True)
class CheckOptions:
    """How to check.

    Attributes:
        label_map: an imposed one: labels it lacks are errors (D101). None means it will be derived from the data.
        aliases: new names by old ones, applied to labels first.
        policies: what happens to faults.
        verify: "decode" decodes every image, "header" reads their headers and ends only.
        near_duplicates: look for pictures that were encoded again; decodes each distinct image.
        max_side: larger images are shrunk to so many pixels.
    """

    label_map: LabelMap | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    policies: Policies = field(default_factory=Policies)
    verify: Literal["header", "decode"] = "header"
    near_duplicates: bool = True
    max_side: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What reading an image's bytes told: a probe, or the error why not."""

    probe: ImageProbe | None
    fault: DataError | None = None


def examine(
    samples: Sequence[Sample], options: CheckOptions | None = None, progress: Progress | None = None,
    faults: Iterable[Finding] = (), crew: Crew | None = None,
) -> Checked:
    """Checks each sample, a few images in memory at a time; samples with an error are left out of the result.

    Args:
        faults: what was found while reading the annotations.
        crew: who reads the images; None is this process alone.
    """
    options = options or CheckOptions()
    prints: dict[str, bytes] = {}
    images = [one.image if wanted(one, options.policies) else None for one in samples]

    def looks() -> Iterator[Seen]:
        for seen, new in (crew or Crew(0)).ordered(_Look(options), [*batches(images, _AT_ONCE)]):
            prints.update(new)
            yield from seen

    return conclude(samples, _counted(looks(), len(samples), progress), prints, options, faults)


class _Look:
    """Sees images a batch at a time, and decodes copies once: each process has one of its own."""

    def __init__(self, options: CheckOptions) -> None:
        self._options, self._prints = options, dict[str, bytes]()

    def __call__(self, images: Sequence[ImageSource | None]) -> tuple[list[Seen], dict[str, bytes]]:
        """What was seen, and the fingerprints that are new."""
        before = len(self._prints)
        seen = [see(image, self._prints, self._options) if image else Seen(None) for image in images]
        return seen, dict(islice(self._prints.items(), before, None))


def see(image: ImageSource, prints: dict[str, bytes], options: CheckOptions) -> Seen:
    """Reads an image; its fingerprint goes into ``prints``, by SHA-256, when it is wanted and not there yet."""
    try:
        data = image.read()
    except OSError as err:
        return Seen(None, refused(image, err.strerror or str(err), "put it there, or delete its label"))
    try:
        probe = parse_image(data, image)
        # Copies byte for byte decode alike: each distinct image is decoded once.
        if probe.sha256 not in prints and _decoded(probe, image, options):
            prints[probe.sha256] = fingerprint(data, image)
    except DataError as err:
        return Seen(None, err)
    return Seen(probe)


def _decoded(probe: ImageProbe, image: ImageSource, options: CheckOptions) -> bool:
    if probe.width * probe.height <= MAX_DECODED_PX:
        return options.near_duplicates or options.verify == "decode"
    if options.verify == "decode":
        found = f"it has {probe.width} x {probe.height} pixels, more than are decoded to verify it"
        raise refused(image, found, "cut it into tiles, or set data.verify: header")
    return False


def conclude(
    samples: Iterable[Sample], seen: Iterable[Seen], prints: Mapping[str, bytes], options: CheckOptions,
    faults: Iterable[Finding] = (),
) -> Checked:
    """What follows from the annotations and from what the images were seen to be; opens no file.

    Args:
        seen: one for each sample, in their order; taken one at a time.
        prints: fingerprints by SHA-256, complete once ``seen`` is taken.
    """
    findings = _Findings()
    findings.add(_by_policy(fault, options.policies) for fault in faults)
    labeller = Labeller(options.label_map, options.aliases, options.policies.unknown_label)
    good: list[CheckedSample] = []
    alone: list[Sample] = []
    labels: set[str] = set()
    for sample, look in zip(samples, seen, strict=True):
        labels.update(sample.annotation.boxes.labels if sample.annotation else ())
        if sample.image and sample.annotation is None and not sample.faults:
            alone.append(sample)
        checked, found = _check_sample(sample, look, labeller, options)
        findings.add(found)
        good += [checked] if checked else []
    findings.add(check_unlabelled(alone, options.policies))
    if options.near_duplicates:
        good = group_copies(good, prints)
    good, found = check_copies(good, options.policies)
    findings.add(found)
    if options.label_map is None:
        findings.add(check_lookalikes(good))
    findings.add(check_aliases(options.aliases, labels))
    return Checked(tuple(good), findings.all())


class _Findings:
    """Findings in their order, up to so many of each kind."""

    def __init__(self) -> None:
        self._kept: list[Finding] = []
        self._count: Counter[tuple[str, Severity]] = Counter()

    def add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            kind = (finding.code, finding.severity)
            self._count[kind] += 1
            if self._count[kind] <= MAX_FINDINGS:
                self._kept.append(finding)

    def all(self) -> tuple[Finding, ...]:
        more = {kind: count - MAX_FINDINGS for kind, count in self._count.items() if count > MAX_FINDINGS}
        return (*self._kept, *(
            Finding(code, severity, "", f"there are {count} more of the kind", "correct those above first")
            for (code, severity), count in more.items()
        ))


def _counted(seen: Iterator[Seen], total: int, progress: Progress | None) -> Iterator[Seen]:
    for done, one in enumerate(seen, 1):
        yield one
        if progress:
            progress("check", done, total)


def wanted(sample: Sample, policies: Policies) -> bool:
    """Whether the sample's image will be recorded if nothing is wrong with it."""
    return sample.annotation is not None or (policies.unlabelled == "fix" and not sample.faults)


def _check_sample(
    sample: Sample, seen: Seen, labeller: Labeller, options: CheckOptions,
) -> tuple[CheckedSample | None, list[Finding]]:
    policies = options.policies
    findings = [_by_policy(fault, policies) for fault in sample.faults]
    if sample.image is None or not wanted(sample, policies):
        missing = sample.image is None and sample.annotation and not findings
        return None, [*findings, _missing(sample.annotation, policies)] if missing and sample.annotation else findings
    if seen.probe is None:
        found = [_unreadable(seen.fault, policies)] if seen.fault else []
        return None, findings + found
    annotation = sample.annotation or Annotation(Path(sample.name), "", 0, 0, Boxes())
    findings += _check_name(sample, annotation)
    prepared, found = prepare_image(
        annotation, seen.probe, policies, options.max_side, sample.image.promised, str(sample.image),
    )
    findings += found
    if prepared is None:
        return None, findings
    boxes, found = place_boxes(annotation, prepared.frame, labeller, policies)
    findings += found
    if len(boxes) != len(annotation.boxes):
        findings += _uneven(sample.image)
    if prepared.conversion:
        findings += _stale(sample.image)
    if any(finding.severity == "error" for finding in findings):
        return None, findings
    frame, probe = prepared.frame, seen.probe
    return CheckedSample(
        sample.name, sample.image, probe, boxes, frame.width, frame.height, probe.sha256, prepared.conversion,
        sample.given,
    ), findings


def _by_policy(fault: Finding, policies: Policies) -> Finding:
    """A fault of reading: D104 errors are the annotation policy's matter, all others stand."""
    if fault.code == "D104" and fault.severity == "error" and policies.annotation == "warn":
        return replace(fault, severity="warning", fix=LEFT_OUT)
    return fault


def _unreadable(fault: DataError, policies: Policies) -> Finding:
    return judged("D106", policies.image, fault.on, fault.found, fault.fix, fault.fix)


def _missing(annotation: Annotation, policies: Policies) -> Finding:
    fix = f"put {annotation.claimed or 'the image'} into the image folder, or delete the annotation"
    return judged("D106", policies.missing_image, str(annotation.path), _no_image(annotation), fix, fix)


def _no_image(annotation: Annotation) -> str:
    return f"there is no image {annotation.claimed}" if annotation.claimed else "it has no image"


def _check_name(sample: Sample, annotation: Annotation) -> Iterator[Finding]:
    claimed, name = annotation.claimed, sample.name.rpartition("/")[2]
    if annotation.stem and claimed and claimed != name and sample.image and sample.image.promised:
        found = f"<filename> is {claimed!r}, the image {name!r} was taken by its name"
        yield Finding("D106", "warning", str(annotation.path), found, "correct <filename> if that is right")


def _uneven(image: ImageSource) -> Iterator[Finding]:
    """A record's own keys hold a value for each box, which cannot be told apart once boxes are left out."""
    keys = [key for key in image.extras() if key.startswith("image/object/")]
    if keys:
        found = f"a box is left out, but {listed(keys)} have values for all of them"
        yield Finding("D104", "error", str(image), found, "mend the box where the records were made")


def _stale(image: ImageSource) -> Iterator[Finding]:
    """A record's masks are pixels of the image that it holds."""
    if "image/object/mask" in image.extras():
        found = "its masks would not fit the image, which is turned, shrunk or converted"
        yield Finding("D104", "error", str(image), found, "build from what the records were made of, or do without")









"""`gcpod bucket`: make the bucket that the jobs need, and look at one that is there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gcpod.cli.common import cloud_options, json_option, load_if_there, print_findings, print_json
from gcpod.spec import STORAGE_CLASSES

if TYPE_CHECKING:
    from gcpod.session import Session
    from gcpod.settings import Settings
    from gcpod.status import Finding
    from gcpod.storage.buckets import BucketInfo


@click.group()
def bucket() -> None:
    """Make the bucket that the jobs need, and look at one that is there."""


@bucket.command()
@click.argument("name", required=False)
@cloud_options
@click.option("--region", help="Where it is made; default: where the jobs run.")
@click.option("--class", "storage_class", type=click.Choice(STORAGE_CLASSES, case_sensitive=False),
              help="Storage class of its objects; default: the spec's, else STANDARD.")
@click.option("--kms-key", metavar="projects/…/cryptoKeys/KEY",
              help="Your own key for its objects; default: the spec's, else Google's keys.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label of the bucket; may be repeated.")
@json_option
def create(
    name: str | None, file: Path, local: bool, endpoint: str | None, region: str | None,
    storage_class: str | None, kms_key: str | None, labels: tuple[str, ...], as_json: bool,
) -> None:
    """Make the bucket NAME, by default that of the spec: in one region, never public, uniform access.

    Pieces of uploads that nobody went on with are deleted after a week. A bucket that is there is left as it is, and
    what speaks against it is said.
    """
    from gcpod.connection import connect, settings_of
    from gcpod.storage.buckets import check_bucket, create_bucket, plan_bucket

    spec = load_if_there(file)
    settings = settings_of(spec, local=local, endpoint=endpoint)
    chosen, where = _bucket_name(settings, name), region or settings.region.value
    options: dict[str, Any] = {
        "storage_class": storage_class or spec.storage.storage_class or "STANDARD",
        "kms_key": kms_key or spec.storage.kms_key or "",
        "labels": _labels(labels),
    }
    asked = plan_bucket(chosen, where, **options)
    session = connect(spec, local=local, endpoint=endpoint)
    info, made = create_bucket(session, chosen, location=where, retry=_retry(session), **options)
    found = check_bucket(info, session.region, tpu=spec.train.machine.is_tpu, asked=asked)
    _show(info, "made" if made else "is there", found, as_json, {"made": made})


@bucket.command()
@click.argument("name", required=False)
@cloud_options
@json_option
def show(name: str | None, file: Path, local: bool, endpoint: str | None, as_json: bool) -> None:
    """Tell how the bucket NAME is set up, by default that of the spec, and what speaks against it (S504 to S507)."""
    from gcpod.connection import connect, settings_of
    from gcpod.errors import StorageError
    from gcpod.storage.buckets import check_bucket, find_bucket

    spec = load_if_there(file)
    chosen = _bucket_name(settings_of(spec, local=local, endpoint=endpoint), name)
    session = connect(spec, local=local, endpoint=endpoint)
    info = find_bucket(session, chosen, _retry(session))
    if info is None:
        raise StorageError("looking for the bucket", f"gs://{chosen}", "there is none",
                           f"make it with `gcpod bucket create {chosen}`")
    _show(info, "is there", check_bucket(info, session.region, tpu=spec.train.machine.is_tpu), as_json, {})


def _bucket_name(settings: Settings, name: str | None) -> str:
    """The bucket of an argument, with or without gs://; else the spec's."""
    from gcpod.errors import SpecError
    from gcpod.uris import GcsUri

    if name is None:
        return settings.bucket_uri.bucket
    uri = GcsUri.parse(name if name.startswith("gs://") else f"gs://{name}")
    if uri.name.strip("/"):
        raise SpecError("reading the bucket's name", name, "it is the name of an object", f"write {uri.bucket}")
    return uri.bucket


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    pairs = [label.partition("=") for label in given]
    for key, equals, _ in pairs:
        if not equals:
            raise click.BadParameter(f"{key!r} has no '='.", param_hint="--label")
    return {key: value for key, _, value in pairs}


def _retry(session: Session) -> object:
    from gcpod.connection import objects_of

    return objects_of(session).retry


def _show(info: BucketInfo, fate: str, found: list[Finding], as_json: bool, more: dict[str, bool]) -> None:
    if as_json:
        print_json({"bucket": asdict(info), **more, "findings": [asdict(one) for one in found]})
    else:
        access = "uniform access" if info.uniform_access else "access by object"
        public = "never public" if info.public_access_prevention == "enforced" else "public if somebody makes it so"
        key = info.kms_key or "Google's keys"
        click.echo(f"gs://{info.name} {fate}: {info.location} ({info.location_type}), {info.storage_class}, {access}, "
                   f"{public}, {key}")
        for label, value in info.labels.items():
            click.echo(f"  {label}={value}")
    print_findings(found, as_json, f"gs://{info.name}", quiet=as_json)

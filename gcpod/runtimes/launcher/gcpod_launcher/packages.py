"""Source distributions and wheels fetched from the bucket and put on the import path, without a build step."""

import os
import sys
import tarfile
import zipfile


def put_on_path(uris, folder):
    """Unpacks each package below ``folder`` and puts it first on sys.path, in the order given.

    Raises:
        SystemExit: a package cannot be read, or a member of it would leave the folder.
    """
    for number, uri in enumerate(reversed(uris)):
        target = os.path.join(folder, str(number))
        os.makedirs(target)
        archive = os.path.join(folder, uri.rsplit("/", 1)[-1])
        _fetch(uri, archive)
        sys.path.insert(0, unpack(archive, target))
        print(f"gcpod_launcher: {uri} is on the import path", flush=True)


def _fetch(uri, path):
    import tensorflow as tf

    try:
        tf.io.gfile.copy(uri, path, overwrite=True)
    except tf.errors.OpError as e:
        sys.exit(f"gcpod_launcher: fetching {uri}: {e.message}; upload the packages again with `gcpod upload`")


def unpack(archive, target):
    """Extracts an archive and returns the folder that holds its modules."""
    if archive.endswith(".whl"):
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                _confine(archive, target, name)
            wheel.extractall(target)
        return target
    with tarfile.open(archive) as sdist:
        members = [m for m in sdist.getmembers() if m.isfile() or m.isdir()]
        for member in members:
            _confine(archive, target, member.name)
        sdist.extractall(target, members=members)
    tops = {m.name.split("/", 1)[0] for m in members}
    return os.path.join(target, tops.pop()) if len(tops) == 1 else target


def _confine(archive, target, name):
    root = os.path.realpath(target)
    if os.path.commonpath([root, os.path.realpath(os.path.join(root, name))]) != root:
        sys.exit(f"gcpod_launcher: unpacking {archive}: its member {name!r} leads outside; build the package again")

"""What stands for pulling an image and installing packages: the command and the environment of each replica."""

from __future__ import annotations

import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gcpod.errors import LocalCloudError
from gcpod.localcloud.jobdb import JobRecord
from gcpod.localcloud.pools import Pool, Replica, cluster_variables, free_addresses, replicas_of
from gcpod.localcloud.process import ENTRYPOINT, Command, base_environment, job_variables
from gcpod.localcloud.runtime import ensure_environment
from gcpod.runtimes import Runtime, runtime_of_image
from gcpod.uris import GcsUri, inside

EnvironmentOf = Callable[[Runtime, str, Path, Callable[[str], None]], Path]
Say = Callable[[str], None]


def project_number(project: str) -> str:
    """Twelve digits that stand for a project id; a number stands for itself."""
    if project.isdigit():
        return project
    return str(100_000_000_000 + int.from_bytes(project.encode(), "big") % 899_999_999_989)


class Images:
    """Makes jobs ready to start.

    Args:
        root: the local cloud's folder; jobs work below ``root/jobs``.
        cache: the user's cache directory, for runtimes.
        url: base URL of the local cloud.
        variables: what a job needs so that its gs:// paths lead here.
        environment_of: makes a runtime's interpreter; given by tests that need no TensorFlow.
    """

    def __init__(
        self, root: Path, cache: Path, url: str, variables: Mapping[str, str],
        environment_of: EnvironmentOf = ensure_environment,
    ) -> None:
        self.root, self.cache, self.url = root, cache, url
        self.variables, self.environment_of = dict(variables), environment_of

    def folder(self, job_id: str) -> Path:
        """Where a job works; each of its replicas has a folder below it."""
        return inside(self.root / "jobs", job_id)

    def clear(self, job_id: str) -> None:
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def prepare(self, job: JobRecord, location: str, say: Say) -> dict[str, Command]:
        """The commands of a job's replicas by task, in folders that are new.

        Raises:
            LocalCloudError: there is no runtime for an image, a package cannot be had, or a program is missing.
        """
        self.clear(job.id)
        spec: Mapping[str, Any] = job.body["jobSpec"]
        replicas = replicas_of(spec)
        addresses = free_addresses(len(replicas))
        # gRPC would take the replicas' way to each other through the proxy that leads to the storage.
        shared = {**self.variables, "no_grpc_proxy": "127.0.0.1",
                  **job_variables(job.id, project_number(job.project), location, spec)}
        made: dict[int, tuple[Path, Path]] = {}
        commands = {}
        for replica in replicas:
            place = replica.pool.place
            if place not in made:
                made[place] = self._pythons(replica.pool, job.id, shared, say)
            own = {**shared, **cluster_variables(replica, replicas, addresses, spec)}
            commands[replica.task] = self._command(replica, self.folder(job.id) / replica.task, *made[place], own)
        return commands

    def _pythons(self, pool: Pool, job_id: str, variables: Mapping[str, str], say: Say) -> tuple[Path, Path]:
        """The interpreter of a pool's image, and the one that has the pool's packages: the same where it has none."""
        image = pool.program.get("imageUri") or pool.program.get("executorImageUri", "")
        runtime = runtime_of_image(image)
        if runtime is None:
            raise LocalCloudError("pulling the image", image, "the local cloud has no runtime for it",
                                  "use the trainer image of a runtime of gcpod")
        python = self.environment_of(runtime, image, self.cache, say)
        if "pythonPackageSpec" not in pool.body:
            return python, python
        folder = self.folder(job_id) / f"image{pool.place}"
        (folder / "tmp").mkdir(parents=True)
        environment = {**base_environment(python, folder), **variables, **_variables_of(pool)}
        return python, self._install(pool.program.get("packageUris", []), python, folder, environment, say)

    def _command(
        self, replica: Replica, folder: Path, image: Path, python: Path, variables: Mapping[str, str],
    ) -> Command:
        folder.mkdir(parents=True)
        program = replica.pool.program
        environment = {**base_environment(image, folder), **variables, **_variables_of(replica.pool)}
        if "containerSpec" in replica.pool.body:
            argv = (*(program.get("command") or ENTRYPOINT), *program.get("args", []))
        else:
            # A prebuilt image brings no launcher of ours; it comes as one of the packages.
            environment |= {"PATH": f"{python.parent}:{environment['PATH']}", "PYTHONPATH": ""}
            argv = (str(python), "-m", program["pythonModule"], *program.get("args", []))
        found = shutil.which(argv[0], path=environment["PATH"])
        if found is None:
            raise LocalCloudError("starting the job", argv[0], "the image has no such program", "correct the command")
        return Command((found, *argv[1:]), environment, folder)

    def _install(
        self, uris: list[str], python: Path, folder: Path, environment: dict[str, str], say: Say,
    ) -> Path:
        """An environment of the pool's own over the runtime's, with the packages installed by pip, without an index."""
        packages = [self._fetch(GcsUri.parse(uri), folder / "packages") for uri in uris]
        own = folder / "environment"
        say(f"installing {len(packages)} packages")
        _checked([str(python), "-m", "venv", "--without-pip", str(own)], environment, "making the job's environment")
        libraries = next((own / "lib").glob("python*")) / "site-packages"
        runtime_libraries = next((python.parent.parent / "lib").glob("python*")) / "site-packages"
        (libraries / "runtime.pth").write_text(f"{runtime_libraries}\n")
        mine = own / "bin" / "python"
        options = ["install", "--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall", "--quiet"]
        # The packages' own setup code runs here: it gets the job's environment, not the user's.
        environment = {**environment, "PYTHONPATH": ""}
        _checked([str(mine), "-m", "pip", *options, *map(str, packages)], environment, "installing the packages")
        return mine

    def _fetch(self, uri: GcsUri, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = inside(folder, uri.name.rsplit("/", 1)[-1])
        name = urllib.parse.quote(uri.name, safe="")
        address = f"{self.url}/storage/v1/b/{uri.bucket}/o/{name}?alt=media"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(address, timeout=60) as reply, path.open("wb") as f:
                shutil.copyfileobj(reply, f)
        except OSError as e:
            raise LocalCloudError("fetching the package", uri, str(e), "upload the packages again") from e
        return path


def _variables_of(pool: Pool) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in pool.program.get("env", [])}


def _checked(command: list[str], environment: dict[str, str], tried: str) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["no message"]
        raise LocalCloudError(tried, command[0], lines[-1], "check that the package builds with setuptools alone")

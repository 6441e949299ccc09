"""Which machine may carry which accelerator in which region with which runtime (findings J401, J402)."""

from __future__ import annotations

import re
from typing import Any

from gcpod.jobs.machine_table import MACHINES_VARIABLE, machine_table
from gcpod.runtimes import all_runtimes
from gcpod.spec import MachineSpec
from gcpod.status import Finding

_CORES_OF_A_BOARD = 8


def tpu_cores(machine: MachineSpec) -> int:
    """Cores that a batch is divided among; 0 for a machine without a TPU."""
    if machine.tpu_topology:
        product = 1
        for side in machine.tpu_topology.split("x"):
            product *= int(side) if side.isdigit() else 0
        return product
    return machine.count if machine.is_tpu else 0


def is_pod(machine: MachineSpec) -> bool:
    """Whether a TPU is more than one machine holds: 8 cores of v2 or v3, the chips that a v5e's type ends with
    (https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm)."""
    if machine.tpu_topology is None:
        return machine.is_tpu and machine.count > _CORES_OF_A_BOARD
    chips = re.search(r"-([0-9]+)t$", machine.type)
    return chips is not None and tpu_cores(machine) > int(chips[1])


def kind_of(machine: MachineSpec) -> str:
    """Which of a runtime's images fits: cpu, gpu or tpu."""
    if machine.is_tpu:
        return "tpu"
    return "gpu" if machine.accelerator else "cpu"


def small_regions() -> frozenset[str]:
    """Regions that offer fewer machines than Google's."""
    return frozenset(machine_table()["small_regions"])


def offered(machine: MachineSpec, region: str) -> tuple[MachineSpec, str]:
    """The machine a region will run, and a sentence that says so where it is another than asked."""
    small = machine_table()["small_regions"].get(region)
    if small is None or (not machine.accelerator and not machine.tpu_topology and machine.type != "cloud-tpu"):
        return machine, ""
    instead = MachineSpec(small["instead"])
    return instead, f"{small['why']}: {instead} runs in place of {machine}"


def check_machine(machine: MachineSpec, region: str, where: str, *, evaluation: bool = False) -> list[Finding]:
    """What cannot run about a machine in a region; each finding names the nearest machine that can.

    Args:
        machine: as asked for.
        region: where.
        where: spec key, for the findings.
        evaluation: the job evaluates, which never runs on a TPU.
    """
    refusal = _refusal(machine, region, evaluation)
    if refusal is None:
        return []
    code, found, fix = refusal
    near = nearest(machine, region, evaluation=evaluation)
    if near is not None:
        fix += f"; the nearest that runs: {near[0]} in {near[1]}"
    return [Finding(code, "error", where, found, fix)]


def nearest(machine: MachineSpec, region: str, *, evaluation: bool = False) -> tuple[MachineSpec, str] | None:
    """The machine and region closest to what was asked for among those that run; None where the table has none.

    Kept as long as anything allows it, in this order: the kind of machine, the accelerator, the region, the continent,
    the machine type, the number of accelerators or chips, the series and class of the machine type, its vCPUs.
    """
    plain = [MachineSpec(kind) for kind in _plain_types()] if _kind(machine) == "cpu" else []
    candidates = [
        (one, place) for one in listed() + plain for place in (regions_of(one) or (region,))
        if _refusal(one, place, evaluation) is None
    ]

    def distance(candidate: tuple[MachineSpec, str]) -> tuple[int, ...]:
        one, place = candidate
        alike = _kind(one) == _kind(machine)
        return (
            # What a TPU does, a GPU does sooner than a CPU; how many of the one make up for the other is not known.
            0 if alike else 1 + (_kind(one) == "cpu"), _chip(one) != _chip(machine), place != region,
            place.split("-")[0] != region.split("-")[0], one.type != machine.type,
            abs(_size(one) - _size(machine)) if alike else _size(one),
            *(_unlike(one.type, machine.type) if alike else ()),
        )

    return min(candidates, key=distance, default=None)


def listed() -> list[MachineSpec]:
    """Every row of the table as a machine, those without an accelerator first."""
    table = machine_table()
    carriers = {kind for known in table["accelerators"].values() for kind in known["machines"]}
    plain = [MachineSpec(kind) for kind in table["shapes"] if kind in carriers and kind.startswith("n1-")]
    carrying = [
        MachineSpec(kind, accelerator, count) for accelerator, known in table["accelerators"].items()
        for kind, counts in known["machines"].items() for count in counts
    ]
    sliced = [
        MachineSpec(kind, tpu_topology=topology) for kind, known in table["tpu_topologies"].items()
        for topology in known["topologies"]
    ]
    return plain + carrying + sliced


def regions_of(machine: MachineSpec) -> tuple[str, ...]:
    """The regions that the table names for a machine of it; empty where it names none."""
    return tuple(_row(machine).get("regions", ()))


def tensorflow_of(machine: MachineSpec) -> str:
    """The oldest TensorFlow that runs on a machine, as "2.15"; "" where every one does.

    https://cloud.google.com/vertex-ai/docs/training/training-with-tpu-vm
    """
    return str(_row(machine).get("tensorflow", ""))


def runs_tensorflow(machine: MachineSpec, version: str) -> bool:
    """Whether a machine runs a version of TensorFlow, such as "2.15.1"."""
    return _version(version) >= _version(tensorflow_of(machine) or "0")


def runtimes_for(machine: MachineSpec) -> tuple[str, ...]:
    """The runtimes whose TensorFlow runs on a machine and whose image for it there is a recipe of."""
    return tuple(
        name for name, one in all_runtimes().items()
        if kind_of(machine) in one.recipes and runs_tensorflow(machine, one.tensorflow)
    )


def shapes() -> dict[str, tuple[int, int]]:
    """vCPUs and GiB of memory by machine type, for those whose price is the sum of both."""
    return {kind: (vcpus, memory) for kind, (vcpus, memory) in machine_table()["shapes"].items()}


def accelerators() -> tuple[str, ...]:
    """Every accelerator of the table."""
    return tuple(machine_table()["accelerators"])


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _plain_types() -> list[str]:
    """Machine types without accelerators."""
    return [f"{kind}-{vcpus}" for kind, sizes in machine_table()["types"].items() for vcpus in sizes]


def _series() -> list[str]:
    return list(dict.fromkeys(group.partition("-")[0] for group in machine_table()["types"]))


def _or_newer(fix: str) -> str:
    """What Google offers since the table was read is no error for ever."""
    return f"{fix}; what is newer than {machine_table()['updated']} goes into a file for {MACHINES_VARIABLE}"


def _unlike(one: str, other: str) -> tuple[int, ...]:
    """How far apart two machine types are by series, class and vCPUs, where their names tell: n1-standard-8."""
    first, second = (re.fullmatch(r"([a-z0-9]+)-([a-z]+)-([0-9]{1,4})", kind) for kind in (one, other))
    if first is None or second is None:
        return 0, 0, 0
    return first[1] != second[1], first[2] != second[2], abs(int(first[3]) - int(second[3]))


def _row(machine: MachineSpec) -> dict[str, Any]:
    table = machine_table()
    rows, key = (table["accelerators"], machine.accelerator)
    if machine.tpu_topology is not None:
        rows, key = table["tpu_topologies"], machine.type
    row: dict[str, Any] = rows.get(key, {})
    return row


def _kind(machine: MachineSpec) -> str:
    """As kind_of, also for a TPU's machine without its accelerator or topology."""
    of_tpus = machine.type == "cloud-tpu" or machine.type in machine_table()["tpu_topologies"]
    return "tpu" if of_tpus else kind_of(machine)


def _chip(machine: MachineSpec) -> str:
    return (machine.type if machine.tpu_topology is not None else machine.accelerator) or ""


def _size(machine: MachineSpec) -> int:
    return tpu_cores(machine) if machine.tpu_topology is not None else machine.count


def _refusal(machine: MachineSpec, region: str, evaluation: bool) -> tuple[str, str, str] | None:
    """Code, what is wrong and what would be right; None for a machine that runs."""
    if evaluation and _kind(machine) == "tpu":
        return "J401", f"{machine}: evaluation does not run on a TPU", "name a GPU or CPU machine"
    found = _wrong_topology(machine) if machine.tpu_topology is not None else _wrong_accelerator(machine)
    if found is not None:
        return "J402", *found
    regions = regions_of(machine)
    if regions and region not in regions:
        return "J402", f"{_chip(machine)} is not offered in {region}", _or_newer(f"use region: {', '.join(regions)}")
    return None


def _wrong_accelerator(machine: MachineSpec) -> tuple[str, str] | None:
    table = machine_table()
    if machine.accelerator is None:
        if machine.type == "cloud-tpu":
            return "cloud-tpu without an accelerator", "add accelerator: TPU_V2 and count: 8"
        if machine.type in table["tpu_topologies"]:
            return f"{machine.type} without a topology", f"add tpu_topology: {_topologies(machine.type)}"
        return _wrong_type(machine.type)
    known = table["accelerators"].get(machine.accelerator)
    if known is None:
        return (f"the accelerator {machine.accelerator} is not known or retired",
                _or_newer(f"use one of: {', '.join(table['accelerators'])}"))
    if machine.type not in known["machines"]:
        return (f"{machine.accelerator} is not offered on {machine.type}",
                _or_newer(f"use type: {', '.join(known['machines'])}"))
    counts = known["machines"][machine.type]
    if machine.count not in counts:
        return (f"{machine.count} x {machine.accelerator} is not offered on {machine.type}",
                f"use count: {', '.join(map(str, counts))}")
    return None


def _wrong_type(kind: str) -> tuple[str, str] | None:
    """Of a machine without accelerators."""
    table = machine_table()
    group, _, vcpus = kind.rpartition("-")
    if group in table["refused"]:
        return f"{kind} is left out: {table['refused'][group]}", _or_newer("use another machine")
    for accelerator, known in table["accelerators"].items():
        if kind in known["machines"] and group not in table["types"]:
            # Without it the job would start the image for CPUs on a machine that is paid for its GPUs.
            counts = ", ".join(map(str, known["machines"][kind]))
            return f"{kind} without an accelerator", f"add accelerator: {accelerator} and count: {counts}"
    sizes = table["types"].get(group, ())
    if vcpus in map(str, sizes):
        return None
    if sizes:
        return f"{group} does not come with {vcpus} vCPUs", _or_newer(f"use one of: {', '.join(map(str, sizes))}")
    return f"there is no machine type {kind!r}", _or_newer(f"use one of the series {', '.join(_series())}")


def _wrong_topology(machine: MachineSpec) -> tuple[str, str] | None:
    known = machine_table()["tpu_topologies"]
    group = machine.type.rpartition("-")[0]
    if machine.type not in known and group in machine_table()["refused"]:
        return _wrong_type(machine.type)
    if machine.type not in known:
        return f"{machine.type} has no topology {machine.tpu_topology}", _or_newer(f"use type: {', '.join(known)}")
    if machine.tpu_topology not in known[machine.type]["topologies"]:
        return (f"{machine.type} has no topology {machine.tpu_topology}",
                _or_newer(f"use one of: {_topologies(machine.type)}"))
    return None


def _topologies(kind: str) -> str:
    return ", ".join(machine_table()["tpu_topologies"][kind]["topologies"])

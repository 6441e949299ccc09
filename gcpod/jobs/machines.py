"""Which machine may carry which accelerator in which region (findings J401, J402)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from gcpod.spec import MachineSpec
from gcpod.status import Finding


@lru_cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "machines.yaml").read_text(encoding="utf-8"))
    return table


def tpu_cores(machine: MachineSpec) -> int:
    """Cores that a batch is divided among; 0 for a machine without a TPU."""
    if machine.tpu_topology:
        product = 1
        for side in machine.tpu_topology.split("x"):
            product *= int(side) if side.isdigit() else 0
        return product
    return machine.count if machine.is_tpu else 0


def kind_of(machine: MachineSpec) -> str:
    """Which of a runtime's images fits: cpu, gpu or tpu."""
    if machine.is_tpu:
        return "tpu"
    return "gpu" if machine.accelerator else "cpu"


def small_regions() -> frozenset[str]:
    """Regions that offer fewer machines than Google's."""
    return frozenset(_table()["small_regions"])


def offered(machine: MachineSpec, region: str) -> tuple[MachineSpec, str]:
    """The machine a region will run, and a sentence that says so where it is another than asked."""
    small = _table()["small_regions"].get(region)
    if small is None or (not machine.accelerator and not machine.tpu_topology and machine.type != "cloud-tpu"):
        return machine, ""
    instead = MachineSpec(small["instead"])
    return instead, f"{small['why']}: {instead} runs in place of {machine}"


def check_machine(machine: MachineSpec, region: str, where: str, *, evaluation: bool = False) -> list[Finding]:
    """What cannot run about a machine in a region.

    Args:
        machine: as asked for.
        region: where.
        where: spec key, for the findings.
        evaluation: the job evaluates, which never runs on a TPU.
    """
    def error(code: str, found: str, fix: str) -> list[Finding]:
        return [Finding(code, "error", where, found, fix)]

    if evaluation and machine.is_tpu:
        return error("J401", f"{machine}: evaluation does not run on a TPU", "name a GPU or CPU machine")
    if machine.tpu_topology is not None:
        return _check_topology(machine, region, where)
    if machine.accelerator is None:
        if machine.type == "cloud-tpu":
            return error("J402", "cloud-tpu without an accelerator", "add accelerator: TPU_V2 and count: 8")
        return []
    known = _table()["accelerators"].get(machine.accelerator)
    if known is None:
        return error("J402", f"the accelerator {machine.accelerator} is not known or retired",
                     f"use one of: {', '.join(_table()['accelerators'])}")
    if machine.type not in known["machines"]:
        return error("J402", f"{machine.accelerator} is not offered on {machine.type}",
                     f"use type: {next(iter(known['machines']))}")
    if machine.count not in known["machines"][machine.type]:
        counts = ", ".join(map(str, known["machines"][machine.type]))
        return error("J402", f"{machine.count} x {machine.accelerator} is not offered on {machine.type}",
                     f"use count: {counts}")
    return _check_region(machine.accelerator, known, region, where)


def _check_topology(machine: MachineSpec, region: str, where: str) -> list[Finding]:
    known = _table()["tpu_topologies"].get(machine.type)
    if known is None or machine.tpu_topology not in known["topologies"]:
        choices = ", ".join(known["topologies"]) if known else ", ".join(_table()["tpu_topologies"])
        return [Finding("J402", "error", where, f"{machine.type} has no topology {machine.tpu_topology}",
                        f"use one of: {choices}")]
    return _check_region(machine.type, known, region, where)


def _check_region(what: str, known: dict[str, Any], region: str, where: str) -> list[Finding]:
    regions = known.get("regions")
    if regions is None or region in regions:
        return []
    return [Finding("J402", "error", where, f"{what} is not offered in {region}", f"use region: {', '.join(regions)}")]

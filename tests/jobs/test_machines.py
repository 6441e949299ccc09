"""The machine table: every row runs, its neighbours do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gcpod.errors import SpecError
from gcpod.jobs.machine_table import MACHINES_VARIABLE, MAX_BYTES, load_rows, parse_rows
from gcpod.jobs.machines import (
    accelerators,
    check_machine,
    is_pod,
    kind_of,
    listed,
    nearest,
    offered,
    regions_of,
    runs_tensorflow,
    runtimes_for,
    shapes,
    tensorflow_of,
    tpu_cores,
)
from gcpod.spec import MachineSpec
from gcpod.status import Finding

# The rows of Vertex AI's documentation: accelerator, machine type, counts, regions that offer it (() for "most").
V2_REGIONS, V3_REGIONS = ("us-central1", "europe-west4", "asia-east1"), ("us-central1", "europe-west4")
V5E_REGIONS = ("us-central1", "us-east1", "us-west1", "us-west4")
ROWS: list[tuple[str, str, tuple[int, ...], tuple[str, ...]]] = [
    ("TPU_V2", "cloud-tpu", (8, 32), V2_REGIONS),
    ("TPU_V3", "cloud-tpu", (8, 32), V3_REGIONS),
    *[("NVIDIA_TESLA_T4", f"n1-standard-{size}", (1, 2, 4), ()) for size in (4, 8, 16)],
    ("NVIDIA_TESLA_T4", "n1-standard-32", (2, 4), ()),
    *[("NVIDIA_TESLA_T4", f"n1-standard-{size}", (4,), ()) for size in (64, 96)],
    *[("NVIDIA_TESLA_V100", f"n1-standard-{size}", (1, 2, 4, 8), ()) for size in (4, 8)],
    ("NVIDIA_TESLA_V100", "n1-standard-16", (2, 4, 8), ()),
    ("NVIDIA_TESLA_V100", "n1-standard-32", (4, 8), ()),
    *[("NVIDIA_TESLA_V100", f"n1-standard-{size}", (8,), ()) for size in (64, 96)],
    *[("NVIDIA_TESLA_P4", f"n1-standard-{size}", (1, 2, 4), ()) for size in (4, 8, 16)],
    *[("NVIDIA_TESLA_A100", f"a2-highgpu-{count}g", (count,), ()) for count in (1, 2, 4, 8)],
    ("NVIDIA_TESLA_A100", "a2-megagpu-16g", (16,), ()),
    *[("NVIDIA_A100_80GB", f"a2-ultragpu-{count}g", (count,), ()) for count in (1, 2, 4, 8)],
    *[("NVIDIA_L4", f"g2-standard-{size}", (1,), ()) for size in (4, 8, 12, 16, 32)],
    *[("NVIDIA_L4", f"g2-standard-{size}", (size // 12,), ()) for size in (24, 48, 96)],
    *[("NVIDIA_H100_80GB", f"a3-highgpu-{count}g", (count,), ()) for count in (1, 2, 4, 8)],
]
TOPOLOGIES = {
    "ct5lp-hightpu-1t": ("1x1",), "ct5lp-hightpu-4t": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "ct5lp-hightpu-8t": ("2x4",),
}


def found(machine: MachineSpec, region: str = "us-central1", evaluation: bool = False) -> list[Finding]:
    return check_machine(machine, region, "train.machine", evaluation=evaluation)


@pytest.mark.parametrize(("accelerator", "kind", "counts", "regions"), ROWS)
def test_row(accelerator: str, kind: str, counts: tuple[int, ...], regions: tuple[str, ...]) -> None:
    for count in counts:
        for region in regions or ("us-central1",):
            assert found(MachineSpec(kind, accelerator, count), region) == []
    for count in {0, 3, 5, 1, 2, 4, 8, 16} - set(counts):
        [finding] = found(MachineSpec(kind, accelerator, count))
        assert (finding.code, finding.severity, finding.where) == ("J402", "error", "train.machine")
        assert f"{count} x {accelerator} is not offered on {kind}" in finding.found
        assert all(str(one) in finding.fix for one in counts)
    [finding] = found(MachineSpec("e2-standard-4", accelerator, counts[0]))
    assert (finding.code, finding.found) == ("J402", f"{accelerator} is not offered on e2-standard-4")
    if regions:
        [finding] = found(MachineSpec(kind, accelerator, counts[0]), "us-east4")
        assert (finding.code, finding.fix.partition(";")[0]) == ("J402", f"use region: {', '.join(regions)}")


@pytest.mark.parametrize("kind", TOPOLOGIES)
def test_topologies(kind: str) -> None:
    for topology in TOPOLOGIES[kind]:
        machine = MachineSpec(kind, tpu_topology=topology)
        for region in V5E_REGIONS:
            assert found(machine, region) == []
        assert found(machine, "europe-west4")[0].code == "J402"
        first, second = topology.split("x")
        assert tpu_cores(machine) == int(first) * int(second)
    [finding] = found(MachineSpec(kind, tpu_topology="3x3"))
    assert (finding.code, finding.fix.partition(";")[0]) == ("J402", f"use one of: {', '.join(TOPOLOGIES[kind])}")


def test_machines_that_are_not_in_the_table() -> None:
    assert found(MachineSpec("ct6e-standard-4t", tpu_topology="2x2"))[0].code == "J402"
    for retired in ("NVIDIA_TESLA_P100", "NVIDIA_TESLA_K80", "TPU_V4"):
        [finding] = found(MachineSpec("n1-standard-8", retired, 1))
        assert (finding.code, "not known or retired" in finding.found) == ("J402", True)
    assert found(MachineSpec("cloud-tpu"))[0].fix.startswith("add accelerator: TPU_V2 and count: 8; the nearest")
    assert found(MachineSpec("ct5lp-hightpu-1t"))[0].fix.startswith("add tpu_topology: 1x1; the nearest")
    assert found(MachineSpec("n1-standard-8")) == []


@pytest.mark.parametrize("kind", [
    "n1-highmem-2", "n1-standard-4", "e2-standard-32", "n2-highcpu-96", "n2d-standard-224", "c2-standard-60",
    "c2d-highmem-112", "c3-standard-176", "m1-ultramem-160",
])
def test_machines_without_accelerators(kind: str) -> None:
    assert found(MachineSpec(kind)) == found(MachineSpec(kind), "local") == []
    assert found(MachineSpec(kind), evaluation=True) == []


@pytest.mark.parametrize(("kind", "wrong", "nearest_kind"), [
    ("n1-standard-9", "n1-standard does not come with 9 vCPUs", "n1-standard-8"),
    ("e2-standard-64", "e2-standard does not come with 64 vCPUs", "e2-standard-32"),
    ("n1-standard-08", "n1-standard does not come with 08 vCPUs", "n1-standard-8"),
    ("n1-ultramem-8", "there is no machine type 'n1-ultramem-8'", "n1-standard-8"),
    ("foo", "there is no machine type 'foo'", "n1-standard-4"), ("", "there is no machine type ''", "n1-standard-4"),
    ("n1-standard-8\n", "n1-standard does not come with 8\n vCPUs", "n1-standard-4"),
    ("c4-standard-8", "there is no machine type 'c4-standard-8'", "n1-standard-8"),
    ("ct6e-standard-4t", "ct6e-standard-4t is left out: Google's pages contradict each other", "n1-standard-4"),
])
def test_machine_types_that_are_none(kind: str, wrong: str, nearest_kind: str) -> None:
    for region in ("us-central1", "local"):
        [finding] = found(MachineSpec(kind), region)
        assert (finding.code, finding.severity) == ("J402", "error")
        assert finding.found.startswith(wrong)
        assert "; what is newer than 2026-11-21 goes into a file for GCPOD_MACHINES; the nearest" in finding.fix
        assert finding.fix.endswith(f"the nearest that runs: {nearest_kind} in {region}")


def test_a_machine_that_is_paid_for_its_gpus_is_not_taken_without_them() -> None:
    [finding] = found(MachineSpec("a2-highgpu-2g"))
    assert (finding.code, finding.found) == ("J402", "a2-highgpu-2g without an accelerator")
    assert finding.fix.startswith("add accelerator: NVIDIA_TESLA_A100 and count: 2; the nearest that runs: ")


NEWER = """
date: 2027-03-01
types: {c4-standard: [2, 48]}
accelerators:
  NVIDIA_H200_141GB: {machines: {a3-ultragpu-8g: [8]}, regions: [us-central1]}
tpu_topologies:
  ct6e-standard-4t: {topologies: [2x2], tensorflow: "2.15"}
"""


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "machines.yaml"
    path.write_text(NEWER, encoding="utf-8")
    monkeypatch.setenv(MACHINES_VARIABLE, str(path))
    return path


def test_a_file_of_newer_machines_adds_to_the_table(newer: Path) -> None:
    h200 = MachineSpec("a3-ultragpu-8g", "NVIDIA_H200_141GB", 8)
    v6e = MachineSpec("ct6e-standard-4t", tpu_topology="2x2")
    for known in (h200, v6e, MachineSpec("c4-standard-48"), MachineSpec("n1-standard-8")):
        assert found(known) == []
    assert {h200, v6e} <= set(listed())
    assert (tensorflow_of(v6e), tpu_cores(v6e), kind_of(v6e)) == ("2.15", 4, "tpu")
    assert found(h200, "us-east1")[0].fix.startswith("use region: us-central1; what is newer than 2027-03-01")
    assert found(MachineSpec("c4-standard-4"))[0].fix.endswith("c4-standard-2 in us-central1")
    [left_out] = found(MachineSpec("ct6e-standard-1t", tpu_topology="1x1"))
    assert left_out.found.startswith("ct6e-standard-1t is left out")


def test_the_file_that_the_documents_show_is_taken(newer: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "machines.md").read_text(encoding="utf-8")
    shown = re.search(r"GCPOD_MACHINES.*?```yaml\n(.*?)```", text, re.DOTALL)
    assert shown is not None
    newer.write_text(shown[1], encoding="utf-8")
    assert found(MachineSpec("a3-ultragpu-8g", "NVIDIA_H200_141GB", 8)) == found(MachineSpec("c4-standard-16")) == []


def test_a_row_of_a_file_takes_the_place_of_the_tables(newer: Path) -> None:
    newer.write_text("{date: 2027-03-01, accelerators: {TPU_V2: {machines: {cloud-tpu: [8]}, regions: [mars-1]}}}")
    assert found(V2, "mars-1") == []
    assert found(V2)[0].code == "J402"


@pytest.mark.parametrize("text", [
    "", "[]", "x", "types: {}", "date: soon", "date: 20261121", "date: [2026-11-21]", "{date: 2026-11-21, more: {}}",
    "{date: 2026-11-21",
    "{date: 2026-11-21, types: []}", "{date: 2026-11-21, types: {c4: [1]}}", "{date: 2026-11-21, types: {c4-x: 1}}",
    "{date: 2026-11-21, types: {c4-x: [0]}}", "{date: 2026-11-21, types: {c4-x: [-1]}}",
    "{date: 2026-11-21, types: {c4-x: [1.5]}}", "{date: 2026-11-21, types: {c4-x: [٣]}}",
    "{date: 2026-11-21, types: {c4-x: []}}", "{date: 2026-11-21, types: {c4-x: [[1]]}}",
    "{date: 2026-11-21, types: {? [a] : [1]}}",
    "{date: 2026-11-21, accelerators: {A100: {machines: {a-b: [1]}}}}", "{date: 2026-11-21, accelerators: {TPU_V9: 3}}",
    "{date: 2026-11-21, accelerators: {TPU_V9: {machines: {}}}}",
    "{date: 2026-11-21, accelerators: {TPU_V9: {machines: {a-b-1: [1]}, price: 3}}}",
    "{date: 2026-11-21, accelerators: {TPU_V9: {machines: {a-b-1: [1]}, regions: us}}}",
    "{date: 2026-11-21, accelerators: {TPU_V9: {machines: {a-b-1: [1]}, regions: ['../x']}}}",
    "{date: 2026-11-21, tpu_topologies: {ct9-x-1t: {topologies: [2]}}}",
    "{date: 2026-11-21, tpu_topologies: {ct9-x-1t: {topologies: [2x2], tensorflow: newest}}}",
    "{date: &a 2026-11-21, types: *a}", "[" * 50_000, "\x00",
])
def test_a_file_that_is_no_table_is_one_line(newer: Path, text: str) -> None:
    newer.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_rows(newer)
    assert str(caught.value).startswith(f"J402: reading the machines in {newer}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "latin").write_bytes(b"date: \xe9")
    for path in (large, tmp_path / "latin", tmp_path / "absent", tmp_path):
        monkeypatch.setenv(MACHINES_VARIABLE, str(path))
        with pytest.raises(SpecError, match=r"^J402: reading the machines in ") as caught:
            found(V2)
        assert "\n" not in str(caught.value)


SCALARS = st.sampled_from(["2026-11-21", "8", "2x2", "TPU_V9", "c4-standard", "a-b-1t", "us-east1", "2.15", "", "x"])
TABLES = st.recursive(
    SCALARS | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        SCALARS | st.sampled_from(["date", "types", "accelerators", "tpu_topologies", "machines", "topologies"]), inner,
        max_size=4), max_leaves=10,
)


@given(st.text(max_size=60) | TABLES.map(yaml.safe_dump))
def test_any_text_is_a_table_or_refused(text: str) -> None:
    try:
        rows = parse_rows(text, Path("m.yaml"))
    except SpecError:
        return
    assert rows.keys() == {"date", "types", "accelerators", "tpu_topologies"}


@pytest.mark.parametrize("machine", [
    MachineSpec("cloud-tpu", "TPU_V2", 8), MachineSpec("ct5lp-hightpu-1t", tpu_topology="1x1"),
])
def test_evaluation_never_runs_on_a_tpu(machine: MachineSpec) -> None:
    [finding] = found(machine, evaluation=True)
    assert (finding.code, finding.severity) == ("J401", "error")
    assert finding.fix.endswith("the nearest that runs: n1-standard-4 with 1 x NVIDIA_TESLA_T4 in us-central1")
    assert found(machine) == []
    assert kind_of(machine) == "tpu"


def test_kinds_and_cores() -> None:
    assert kind_of(MachineSpec("n1-standard-8")) == "cpu"
    assert kind_of(MachineSpec("n1-standard-8", "NVIDIA_TESLA_T4", 1)) == "gpu"
    assert tpu_cores(MachineSpec("cloud-tpu", "TPU_V3", 32)) == 32
    assert tpu_cores(MachineSpec("n1-standard-8", "NVIDIA_TESLA_T4", 4)) == 0
    assert tpu_cores(MachineSpec("ct5lp-hightpu-4t", tpu_topology="2xtwo")) == 0


def test_what_the_local_region_offers() -> None:
    tpu = MachineSpec("cloud-tpu", "TPU_V2", 8)
    gpu, v5e = MachineSpec("n1-standard-4", "NVIDIA_TESLA_T4", 1), MachineSpec("ct5lp-hightpu-1t", tpu_topology="1x1")
    for asked in (tpu, gpu, v5e, MachineSpec("cloud-tpu")):
        machine, why = offered(asked, "local")
        assert (machine.accelerator, machine.tpu_topology) == (None, None)
        assert machine.type != "cloud-tpu"
        assert why == f"the local region offers CPU machines only: {machine} runs in place of {asked}"
    assert offered(MachineSpec("n1-highmem-2"), "local") == (MachineSpec("n1-highmem-2"), "")
    assert offered(tpu, "us-central1") == (tpu, "")


T4, V2 = MachineSpec("n1-standard-4", "NVIDIA_TESLA_T4", 1), MachineSpec("cloud-tpu", "TPU_V2", 8)


@pytest.mark.parametrize(("asked", "region", "expected", "place"), [
    (V2, "us-west2", V2, "us-central1"), (V2, "europe-west1", V2, "europe-west4"),
    (MachineSpec("cloud-tpu", "TPU_V2", 16), "us-central1", V2, "us-central1"),
    (MachineSpec("cloud-tpu", "TPU_V3", 8), "asia-east1", MachineSpec("cloud-tpu", "TPU_V3", 8), "us-central1"),
    (MachineSpec("n1-standard-64", "NVIDIA_TESLA_T4", 1), "us-east1",
     MachineSpec("n1-standard-64", "NVIDIA_TESLA_T4", 4), "us-east1"),
    (MachineSpec("e2-standard-4", "NVIDIA_TESLA_T4", 1), "us-east1", T4, "us-east1"),
    (MachineSpec("n1-standard-8", "NVIDIA_TESLA_P100", 1), "us-east1",
     MachineSpec("n1-standard-8", "NVIDIA_TESLA_T4", 1), "us-east1"),
    (MachineSpec("ct5lp-hightpu-4t", tpu_topology="3x3"), "us-west4",
     MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x4"), "us-west4"),
    (MachineSpec("cloud-tpu"), "us-central1", V2, "us-central1"),
])
def test_the_nearest_machine_is_close(asked: MachineSpec, region: str, expected: MachineSpec, place: str) -> None:
    [finding] = found(asked, region)
    assert finding.fix.endswith(f"; the nearest that runs: {expected} in {place}")


ASKED = st.builds(
    MachineSpec,
    st.sampled_from(("cloud-tpu", "e2-standard-4", "ct6e-standard-1t", *shapes(), *TOPOLOGIES)) | st.text(max_size=8),
    st.none() | st.sampled_from(("TPU_V4", "NVIDIA_TESLA_K80", *accelerators())) | st.text(max_size=8),
    st.integers(0, 4096), st.none() | st.sampled_from(("1x1", "2x2", "3x3", "16x16", "x")) | st.text(max_size=5),
)
REGIONS = st.sampled_from(("us-central1", "europe-west4", "asia-east1", "us-west2", "mars-1", "")) | st.text(max_size=8)


@given(ASKED, REGIONS, st.booleans())
def test_what_is_offered_as_nearest_runs(asked: MachineSpec, region: str, evaluation: bool) -> None:
    near = nearest(asked, region, evaluation=evaluation)
    assert near is not None
    assert check_machine(*near, "x", evaluation=evaluation) == []
    refused = check_machine(asked, region, "x", evaluation=evaluation)
    assert [str(near[0]) in one.fix and near[1] in one.fix for one in refused] in ([], [True])
    if not refused and asked in listed():
        assert near == (asked, region)


def test_the_list_is_the_table() -> None:
    rows = listed()
    assert len(rows) == len(set(rows))
    for one in rows:
        for region in regions_of(one) or ("us-central1",):
            assert found(one, region) == []
    assert {one.accelerator for one in rows} == {None, *accelerators()}
    assert MachineSpec("n1-standard-4") in rows
    assert MachineSpec("a2-highgpu-1g") not in rows
    assert {one.tpu_topology for one in rows} - {None} == {t for every in TOPOLOGIES.values() for t in every}


def test_shapes_are_those_of_their_series() -> None:
    for kind, (vcpus, memory) in shapes().items():
        series, size = kind.split("-")[0], kind.rsplit("-", 1)[1]
        if series in ("n1", "g2"):
            assert vcpus == int(size)
            assert memory == vcpus * {"n1": 3.75, "g2": 4}[series]
        elif kind != "a2-megagpu-16g":
            gpus = int(size.removesuffix("g"))
            assert (vcpus, memory) == {"a2": (12 * gpus, 85 * gpus), "a3": (26 * gpus, 234 * gpus)}[series]


def test_runtimes_that_have_an_image_for_a_machine() -> None:
    v5e = MachineSpec("ct5lp-hightpu-1t", tpu_topology="1x1")
    assert runtimes_for(v5e) == runtimes_for(V2) == ("tf2.15",)
    assert {"tf2.12", "tf2.15"} <= set(runtimes_for(T4)) & set(runtimes_for(MachineSpec("n1-standard-4")))
    assert (tensorflow_of(v5e), tensorflow_of(V2), tensorflow_of(T4)) == ("2.15", "2.11", "")
    assert [runs_tensorflow(v5e, one) for one in ("2.9.1", "2.12.1", "2.15", "2.15.1", "3.0")] == [
        False, False, True, True, True,
    ]


@pytest.mark.parametrize(("machine", "pod"), [
    (MachineSpec("cloud-tpu", "TPU_V2", 8), False), (MachineSpec("cloud-tpu", "TPU_V3", 32), True),
    (MachineSpec("ct5lp-hightpu-1t", tpu_topology="1x1"), False),
    (MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x2"), False),
    (MachineSpec("ct5lp-hightpu-4t", tpu_topology="2x4"), True),
    (MachineSpec("ct5lp-hightpu-8t", tpu_topology="2x4"), False),
    (MachineSpec("n1-standard-8", "NVIDIA_TESLA_V100", 8), False), (MachineSpec("a2-megagpu-16g"), False),
    (MachineSpec("a2-megagpu-16g", "NVIDIA_TESLA_A100", 16), False),
])
def test_a_tpu_of_several_machines_is_a_pod(machine: MachineSpec, pod: bool) -> None:
    assert is_pod(machine) is pod

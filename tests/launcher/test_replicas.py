from __future__ import annotations

import json

import pytest
from gcpod_launcher.replicas import Replica, replica_of, settle
from hypothesis import given
from hypothesis import strategies as st

CLUSTER = {"chief": ["a:2222"], "worker": ["b:2222", "c:2222"]}
POOLS = {"workerpool0": ["a:2222"], "workerpool1": ["b:2222"], "workerpool3": ["d:2222"]}


def environ(kind: str, index: int, cluster: object = CLUSTER, pools: object = None) -> dict[str, str]:
    config = {"cluster": cluster, "task": {"type": kind, "index": index}, "environment": "cloud"}
    return {"TF_CONFIG": json.dumps(config), "CLUSTER_SPEC": json.dumps({"cluster": pools or {}})}


@pytest.mark.parametrize(("given", "expected"), [
    ({}, Replica()),
    ({"TF_CONFIG": ""}, Replica()),
    ({"TF_CONFIG": "{}"}, Replica()),
    (environ("chief", 0), Replica("chief", 0, True)),
    (environ("worker", 0), Replica("worker", 0, False)),
    (environ("worker", 1), Replica("worker", 1, False)),
    (environ("worker", 0, {"worker": ["a:1", "b:1"]}), Replica("worker", 0, True)),
    (environ("worker", 1, {"worker": ["a:1", "b:1"]}), Replica("worker", 1, False)),
    (environ("chief", 0, pools=POOLS), Replica("chief", 0, True, evaluator_beside=True)),
    (environ("chief", 0, {**CLUSTER, "evaluator": ["d:1"]}), Replica("chief", 0, True, evaluator_beside=True)),
    (environ("evaluator", 0, pools=POOLS), Replica("evaluator", 0, False)),
    ({**environ("chief", 0), "CLUSTER_SPEC": "not for us"}, Replica("chief", 0, True)),
])
def test_a_machine_knows_its_place(given: dict[str, str], expected: Replica) -> None:
    assert replica_of(given) == expected


@pytest.mark.parametrize("text", ["{", "[]", "5", '"chief"', '{"task": {"type": 5}}', '{"task": {"index": "0"}}',
                                  "[" * 100_000])
def test_what_tensorflow_could_not_read_ends_in_one_line(text: str) -> None:
    with pytest.raises(SystemExit) as stop:
        replica_of({"TF_CONFIG": text})
    assert str(stop.value.code).startswith("gcpod_launcher: reading TF_CONFIG: ")
    assert "\n" not in str(stop.value.code)
    assert len(str(stop.value.code)) < 400


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_environment_is_understood_or_refused(config: str, cluster: str) -> None:
    try:
        replica = replica_of({"TF_CONFIG": config, "CLUSTER_SPEC": cluster})
    except SystemExit:
        replica = Replica()
    assert isinstance(replica.type, str)


def test_an_evaluation_is_alone() -> None:
    given = environ("evaluator", 0)
    settle(given, "eval")
    assert "TF_CONFIG" not in given


@pytest.mark.parametrize(("role", "kept"), [("train", CLUSTER), ("other", {**CLUSTER, "evaluator": ["d:2222"]})])
def test_a_training_hears_of_those_that_train(role: str, kept: object) -> None:
    given = environ("worker", 1, {**CLUSTER, "evaluator": ["d:2222"]})
    settle(given, role)
    assert json.loads(given["TF_CONFIG"]) == {"cluster": kept, "task": {"type": "worker", "index": 1},
                                              "environment": "cloud"}


def test_what_vertex_ai_sets_for_trainings_stays_as_it_is() -> None:
    given = environ("worker", 1)
    before = dict(given)
    settle(given, "train")
    assert given == before

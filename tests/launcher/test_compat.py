from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gcpod_launcher import tf1

from gcpod.runtimes import LAUNCHER

TF2_MODULES = ("object_detection.model_main_tf2", "object_detection.exporter_main_v2", "trainer.legacy.train")
V1 = """
def disable_v2_behavior():
    print("disabled")
class train:
    class Optimizer: pass
class profiler:
    class ProfileOptionBuilder:
        trainable_variables_parameter = staticmethod(lambda: {"of": "parameters"})
        float_operation = staticmethod(lambda: {"of": "operations"})
    profile = staticmethod(lambda graph, options: print("profile", graph, options["of"]))
"""
CONTROL_FLOW = "def case(): return 'its own'\ndef cond(): return 'its own'\n"
MOVED = "def case(): return 'moved'\ndef while_loop(): return 'moved'\ndef Assert(): return 'moved'\n"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.fixture
def tensorflow(tmp_path: Path) -> Path:
    """An import path with a TensorFlow 2.13 that has nothing but what the launcher touches; it says what is called."""
    write(tmp_path, {
        "tensorflow/__init__.py": "from tensorflow.compat import v1\n",
        "tensorflow/compat/__init__.py": "",
        "tensorflow/compat/v1.py": V1,
        "tensorflow/python/ops/control_flow_ops.py": CONTROL_FLOW,
        **{f"tensorflow/python/ops/{name}.py": MOVED for name in ("control_flow_case", "while_loop",
                                                                 "control_flow_assert")},
    })
    return tmp_path


def python(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env={"PYTHONPATH": f"{LAUNCHER}:{path}"}, capture_output=True,
                          text=True, timeout=60, check=False)


def said(path: Path, program: str) -> list[str]:
    done = python(path, "-c", "from gcpod_launcher import compat\n" + program)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_names_that_moved_are_put_back_and_others_stay(tensorflow: Path) -> None:
    program = """
compat.apply()
from tensorflow.python.ops import control_flow_ops as ops
print([f() for f in (ops.case, ops.cond, ops.while_loop, ops.Assert)])
"""
    assert said(tensorflow, program) == ["['its own', 'its own', 'moved', 'moved']"]


BODY = """
try:
    import tensorflow.contrib.training
    print("contrib")
except ImportError:
    print("no contrib")
"""


@pytest.mark.parametrize("module", [*sorted(tf1.MODULES), *TF2_MODULES])
def test_only_the_entry_points_of_tensorflow_1_run_as_such(tensorflow: Path, module: str) -> None:
    write(tensorflow, {module.replace(".", "/") + ".py": BODY})
    done = python(tensorflow, "-m", "gcpod_launcher", "--module", module)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == (["no contrib"] if module in TF2_MODULES else ["disabled", "contrib"])


def test_a_contrib_that_is_there_is_left_alone(tensorflow: Path) -> None:
    write(tensorflow, {"tensorflow/contrib/training.py": "HParams = 'real'\n"})
    program = """
compat.apply("object_detection.model_main")
from tensorflow.contrib import training
print(training.HParams)
"""
    assert said(tensorflow, program) == ["disabled", "real"]


def test_what_contrib_had_is_an_import_error_unless_it_stands_here(tensorflow: Path) -> None:
    program = """
compat.apply("object_detection.model_main")
compat.apply("object_detection.model_main")
for line in ("from tensorflow.contrib import learn", "from tensorflow.contrib.quantize.python import graph_matcher"):
    try:
        exec(line)
    except ImportError:
        print("none")
from tensorflow.contrib import tfprof
analyzer = tfprof.model_analyzer
for options in (analyzer.TRAINABLE_VARS_PARAMS_STAT_OPTIONS, analyzer.FLOAT_OPS_OPTIONS):
    analyzer.print_model_analysis("graph", tfprof_options=options)
from tensorflow.contrib.training import HParams
sizes = HParams(cells=4, stem=1)
sizes.set_hparam("cells", 2)
print(sizes.cells, sizes.stem)
"""
    assert said(tensorflow, program) == [
        "disabled", "disabled", "none", "none", "profile graph parameters", "profile graph operations", "2 1",
    ]


@pytest.mark.parametrize(("statement", "missing", "fix"), [
    ("contrib.quantize.experimental_create_training_graph(input_graph=0, quant_delay=1)", "quantize", "graph_rewriter"),
    ("contrib.quantize.experimental_create_eval_graph(input_graph=0)", "quantize", "graph_rewriter"),
    ("contrib.image.python.ops.image_ops.bipartite_match(0, 1)", "image.bipartite_match", "argmax_matcher"),
])
def test_what_cannot_be_had_ends_the_job_with_one_line(
    tensorflow: Path, statement: str, missing: str, fix: str,
) -> None:
    write(tensorflow, {"object_detection/model_main.py": "import tensorflow.contrib as contrib\n" + statement})
    done = python(tensorflow, "-m", "gcpod_launcher", "--module", "object_detection.model_main")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"gcpod_launcher: building the graph: tensorflow.contrib.{missing} is not part of TensorFlow 2; ")
    assert fix in done.stderr
    assert done.stderr.count("\n") == 1

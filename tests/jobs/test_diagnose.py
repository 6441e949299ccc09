"""Known failures: a log for each, in the shape of the real ones; nothing where nothing failed; never slow."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import date
from itertools import chain, repeat
from pathlib import Path

import click
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gcpod.cli.main import cli
from gcpod.jobs import diagnose as diagnose_module
from gcpod.jobs.diagnose import diagnose, in_words, known
from gcpod.status import Finding

JOB = "projects/1/locations/us-central1/customJobs/7"
EXITED = "The replica workerpool0-0 exited with a non-zero status of 1. To find out more about why your job exited "
TF = "tensorflow.python.framework.errors_impl."
SA = "trainer@my-project.iam.gserviceaccount.com"

FAILED: list[tuple[str, str, str, str]] = [
    # code, the line that shows it, words of what was found, words of the remedy
    ("C200", "google.protobuf.text_format.ParseError: 14:9 : Expected \"{\".", "at 14:9", "config lint"),
    ("C201", f"{TF}NotFoundError: Unsuccessful TensorSliceReader constructor: Failed to find any matching files for "
     "gs://b/start/ckpt-0.index", "no checkpoint gs://b/start/ckpt-0.index", "gs://b/start/ckpt-0.index*"),
    ("C201", f"{TF}DataLossError: Unable to open table file gs://b/ckpt-0.data-00000-of-00001: Data loss: no sstable",
     "no checkpoint gs://b/ckpt-0.data-00000-of-00001", "prefix"),
    ("C201", f"{TF}NotFoundError: Error executing an HTTP request: HTTP response code 404 with body 'No such object' "
     "when reading metadata of gs://b/data/train.record", "gs://b/data/train.record is not there", "upload"),
    ("C202", "google.protobuf.text_format.ParseError: 3:5 : Message type \"object_detection.protos.Ssd\" has no field "
     "named \"mask_head\".", "field mask_head at 3:5", "config lint"),
    ("C202", "ValueError: Checkpoint version should be V2", "one of TensorFlow 1", "V2"),
    ("C202", "google.protobuf.text_format.ParseError: 9:3 : Enum type \"object_detection.protos.Hint\" has no value "
     "named BOTH.", "value BOTH,", "nearest"),
    ("C203", "AssertionError: Some Python objects were not bound to checkpointed values, likely due to changes in the "
     "Python program: [MirroredVariable:{", "does not fit", "fine_tune_checkpoint_type"),
    ("C203", "ValueError: Not supported fine_tune_checkpoint_type: fine_tune", "type of fine_tune", "detection"),
    ("C203", "ValueError: ssd_mobilenet_v2 is not supported for tf version 2. See `model_builder.py` for features",
     "extractor ssd_mobilenet_v2 for", "_keras"),
    ("C204", "google.protobuf.text_format.ParseError: 151:17 : Expected string but found: '“'", "quote “ at 151:17",
     "--fix"),
    ("C205", "ValueError: Label map id 0 is reserved for the background label", "do not begin at 1", "num_classes"),
    ("C206", f"{TF}NotFoundError: Unsuccessful TensorSliceReader constructor: Failed to find any matching files for "
     "PATH_TO_BE_CONFIGURED", "PATH_TO_BE_CONFIGURED", "config lint"),
    ("C207", f"{TF}UnimplementedError: File system scheme '[local]' not implemented (file: 'data/train.record')",
     "data/train.record is local", "gs://"),
    ("C207", f"{TF}NotFoundError: /Users/me/train.record; No such file or directory", "/Users/me/train.record", "gs://"),
    ("C208", f"{TF}UnimplementedError: Compilation failure: Dynamic Spatial Convolution is not supported: %convolution",
     "does not compile", "fixed_shape_resizer"),
    ("C208", "ValueError: The `global_batch_size` 12 is not divisible by `num_replicas_in_sync` 8 ",
     "batch of 12 does not divide among 8", "multiple of 8"),
    ("C209", "ValueError: First step cannot be zero.", "schedule", "--fix"),
    ("C210", "INFO:tensorflow:Timed-out waiting for a checkpoint.", "never came", "multiple of 100"),
    ("D101", "TypeError: None has type NoneType, but expected one of: int, long", "not in the label map", "aliases"),
    ("D102", f"{TF}InvalidArgumentError: assertion failed: [maximum box coordinate value is larger than 1.100000: ] "
     "[1.15277779]", "to 1.15277779", "dataset build"),
    ("D102", f"{TF}InvalidArgumentError: Expected 'tf.Tensor(False, shape=(), dtype=bool)' to be true. Summarized "
     "data: b'maximum box coordinate value is larger than 1.100000: '", "outside its image", "dataset build"),
    ("D102", f"{TF}InvalidArgumentError: All bounding box coordinates must be in [0.0, 1.0]: 1.02", "to 1.02",
     "dataset build"),
    ("D103", f"{TF}InvalidArgumentError: assertion failed: [[0.91 0.25]] [[0.4 0.75]]", "backwards", "dataset check"),
    ("D105", f"{TF}InvalidArgumentError: LossTensor is inf or nan. : Tensor had NaN values", "loss", "learning_rate"),
    ("D105", "{'Loss/classification_loss': nan,", "loss", "learning_rate"),
    ("D105", " 'Loss/total_loss': np.float32(inf),", "loss", "learning_rate"),
    ("D105", "I1121 21:17:50.1 140 model_lib_v2.py:1018] \t+ Loss/total_loss: nan", "loss", "learning_rate"),
    ("D106", f"{TF}InvalidArgumentError: Unknown image file format. One of JPEG, PNG, GIF, BMP required.", "decoded",
     "verify: decode"),
    ("J401", "ValueError: Please provide a TPU Name to connect to.", "TPU", "--tpu_name=local"),
    ("J402", "Accelerator \"NVIDIA_TESLA_T4\" is not supported for machine type \"n1-highcpu-2\".",
     "n1-highcpu-2 does not carry NVIDIA_TESLA_T4", "gcpod machines"),
    ("J403", "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_tpu_v2",
     "aiplatform.googleapis.com/custom_model_training_tpu_v2 is used up in the region of the job", "iam-admin/quotas"),
    ("J403", "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_cpus "
     "(region europe-west4)", "custom_model_training_cpus is used up in the region europe-west4", "quotas"),
    ("J404", f"You do not have permission to act as service_account: {SA}. (or it may not exist).", f"act as {SA}",
     f"gcloud iam service-accounts add-iam-policy-binding {SA} --member=user:"),
    ("J404", f"{SA} does not have storage.objects.get access to the Google Cloud Storage object gs://my-bucket/a.",
     f"{SA} lacks storage.objects.get on gs://my-bucket", "add-iam-policy-binding gs://my-bucket --member=serviceAcc"),
    ("J404", f"Service account `{SA}` does not have `[storage.objects.get, storage.objects.create]` IAM permission(s) "
     "to the bucket \"my-bucket\".", "on gs://my-bucket", f"serviceAccount:{SA} --role=roles/storage.objectAdmin"),
    ("J404", "Vertex AI API has not been used in project 42 before or it is disabled. Enable it by visiting "
     "https://console.developers.google.com/apis/api/aiplatform.googleapis.com/overview?project=42 then retry.",
     "project 42 has not enabled aiplatform.googleapis.com", "services enable aiplatform.googleapis.com --project=42"),
    ("J404", "Permission \"artifactregistry.repositories.downloadArtifacts\" denied on resource "
     "\"projects/p/locations/us/repositories/gcpod\" (or it may not exist)", "repository gcpod",
     "gcloud artifacts repositories add-iam-policy-binding gcpod --location=us"),
    ("J404", "Permission 'aiplatform.customJobs.create' denied on resource '//aiplatform.googleapis.com/projects/my-p/"
     "locations/us-central1' (or it may not exist).", "aiplatform.customJobs.create is not granted in the project my-p",
     "gcloud projects add-iam-policy-binding my-p"),
    ("J405", "Internal error occurred for the current attempt.", "Vertex AI itself", "--retry"),
    ("J406", "The replica workerpool0-0 ran out-of-memory and exited with a non-zero status of 137.",
     "replica workerpool0-0", "batch_size"),
    ("J406", f"{TF}ResourceExhaustedError: OOM when allocating tensor with shape[64,640,640,3] and type float",
     "[64,640,640,3]", "image_size"),
    ("J407", "STOCKOUT: the region has no machines of this kind to give at the moment. Try again later.",
     "no such machine", "flex_start"),
    ("J407", "Resources are insufficient in region: us-central1. Please try a different region.", "region us-central1",
     "run again later"),
    ("K301", "ModuleNotFoundError: No module named 'nets'", "no module nets", "put nets into"),
    ("K301", "ImportError: No module named object_detection.protos", "object_detection.protos", "package check"),
    ("K302", "ModuleNotFoundError: No module named 'pycocotools'", "pycocotools", "runtime list"),
    ("K303", "TypeError: Descriptors cannot be created directly.", "protobuf", "package check"),
    ("K303", "ImportError: cannot import name 'runtime_version' from 'google.protobuf' (/usr/lib/__init__.py)",
     "protobuf", "package check"),
    ("K304", "ImportError: /usr/lib/libfoo.so: undefined symbol: _ZN10tensorflow4data11DatasetBase",
     "_ZN10tensorflow4data11DatasetBase", "package check"),
    ("K304", "ModuleNotFoundError: No module named 'tensorflow.contrib'", "tensorflow.contrib", "runtime.name"),
    ("K304", "AttributeError: 'FreeTypeFont' object has no attribute 'getsize'", "replaced", "package check"),
]
SILENT = {"D104", "D107"}
"""Boxes read by position and pictures on both sides of the split leave no trace in any log."""

INNOCENT = """\
2026-11-21 09:16:26.490621: I tensorflow/core/util/port.cc:110] oneDNN custom operations are on. You may see slightly
2026-11-21 09:16:26.517069: I tensorflow/core/platform/cpu_feature_guard.cc:182] This TensorFlow binary is optimized
WARNING:tensorflow:There are non-GPU devices in `tf.distribute.Strategy`, not using nccl allreduce.
INFO:tensorflow:Using MirroredStrategy with devices ('/job:localhost/replica:0/task:0/device:CPU:0',)
W1121 09:16:29.813431 140554363169664 deprecation.py:364] From object_detection/model_lib_v2.py:563: StrategyBase.
Instructions for updating:
INFO:tensorflow:Reading unweighted datasets: ['gs://b/runs/r/data/train.record-00000-of-00001']
WARNING:tensorflow:num_readers has been reduced to 1 to match input file shards.
UserWarning: unable to load libtensorflow_io_plugins.so: unable to open file: libtensorflow_io_plugins.so
caused by: ['libtensorflow_io_plugins.so: undefined symbol: _ZN3tsl5mutex6unlockEv']
W tensorflow/tsl/framework/bfc_allocator.cc:290] Allocator (GPU_0_bfc) ran out of memory trying to allocate 2.25GiB \
with freed_by_count=0. The caller indicates that this is not a failure, but this may mean that there could be gains
INFO:tensorflow:Step 100 per-step time 0.357s
{'Loss/classification_loss': 0.4812, 'Loss/localization_loss': 0.211, 'Loss/regularization_loss': 0.0153,
 'Loss/total_loss': 0.7075, 'learning_rate': 0.08}
INFO:tensorflow:Waiting for new checkpoint at gs://b/runs/r/model
INFO:tensorflow:Eval metrics at step 100
INFO:tensorflow:\t+ DetectionBoxes_Precision/mAP (small): -1.000000
INFO:tensorflow:\t+ Loss/total_loss: 0.512
 Average Recall     (AR) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = nan
Corrupt JPEG data: 12 extraneous bytes before marker 0xd9
the learning rate’s warm-up “ends” at step 50
Job completed successfully.
""".splitlines()


def shown(error: str, *lines: str) -> list[Finding]:
    return diagnose(error, lines, JOB)


@pytest.mark.parametrize(("code", "line", "found", "fix"), FAILED, ids=[f"{row[0]}-{row[1][:30]}" for row in FAILED])
def test_each_failure_is_known_by_its_line(code: str, line: str, found: str, fix: str) -> None:
    trace = ["Traceback (most recent call last):", '  File "model_lib_v2.py", line 605, in train_loop', line]
    for findings in (shown(EXITED, *INNOCENT[:9], *trace), shown(f"{EXITED}Termination reason: Error. {line}")):
        assert [one.code for one in findings] == [code]
        assert findings[0].where == JOB
        assert found in findings[0].found
        assert " ".join(line.split())[-30:] in findings[0].found or len(line) > 100
        assert fix in findings[0].fix
        assert "{" not in findings[0].fix


def test_every_code_of_the_table_has_its_log() -> None:
    codes = {one.code for one in known()}
    assert codes == {row[0] for row in FAILED}
    assert codes >= {f"{kind}{number}" for kind, numbers in (
        ("D", range(101, 108)), ("C", range(201, 211)), ("K", range(301, 305)), ("J", range(401, 408)),
    ) for number in numbers} - SILENT
    assert all(re.fullmatch(r"https://[^\s]+", one.source) for one in known())
    table = yaml.safe_load(Path(diagnose_module.__file__).with_name("diagnoses.yaml").read_text(encoding="utf-8"))
    assert date(2026, 1, 1) < date.fromisoformat(table["as_of"]) <= date.today()


def test_nothing_is_known_of_a_log_without_failure() -> None:
    assert shown("", *INNOCENT) == []
    assert shown(EXITED, *INNOCENT, "ValueError: the training was told to fail") == []


def test_the_most_specific_comes_first_and_each_code_once() -> None:
    findings = shown(EXITED, "{'Loss/total_loss': nan,", "ModuleNotFoundError: No module named 'nets'",
                     "ModuleNotFoundError: No module named 'deployment'", "ValueError: First step cannot be zero.")
    assert [one.code for one in findings] == ["C209", "K301", "D105"]
    assert "nets" in findings[1].found


def test_commands_that_are_named_exist() -> None:
    named = {tuple(match.split()) for one in known() for match in re.findall(r"`gcpod ([a-z -]+)`?", one.fix)}
    assert ("config", "lint") in named
    for words in named:
        command: click.Command = cli
        options = {word for word in words if word.startswith("--")}
        for word in words:
            if not word.startswith("--"):
                assert isinstance(command, click.Group), words
                found = command.get_command(click.Context(command), word)
                assert found is not None, words
                command = found
        assert options <= {name for one in command.params for name in one.opts}, words


HOSTILE = [
    "ModuleNotFoundError: No module named '" + "a" * 10_000_000, "NotFoundError" * 800_000, "a.b-" * 8000 + "@",
    "assertion failed: [" + "[1" * 50_000, "1:1 : " * 5000 + "Expected" * 1000 + "“", "ImportError: " * 3000,
    ("a-" * 30 + ".") * 200 + "@" + "b." * 8000 + " does not have storage.", "shape[" + "1," * 16_000,
    "Loss/" + "a" * 32_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_line_makes_it_slow(text: str) -> None:
    marks = " ".join(mark for one in known() for mark in one.marks)
    started = time.process_time()
    findings = shown(f"{text} {marks}", f"{marks} {text}", text)
    assert time.process_time() - started < 1
    assert all(len(one.found) < 2000 for one in findings)


def test_a_long_log_takes_seconds_and_is_never_held() -> None:
    def lines() -> Iterator[str]:
        yield from chain.from_iterable(repeat(INNOCENT, 4000))
        yield "ModuleNotFoundError: No module named 'nets'"

    started = time.process_time()
    assert [one.code for one in diagnose("", lines(), JOB)] == ["K301"]
    # A hundred thousand lines; a million take ten times as long.
    assert time.process_time() - started < 2


def test_what_a_line_holds_does_nothing_to_a_terminal() -> None:
    [finding] = shown("", "ImportError: No module named nets\x1b[2J\x1b]0;owned\x07 {fix} %s")
    assert finding.found.isprintable()
    assert "\\x1b[2J" in finding.found


WORDS = st.sampled_from(sorted(
    {mark for one in known() for mark in one.marks} | {word for row in FAILED for word in row[1].split()}
))


LINES = st.one_of(st.text(max_size=50), st.lists(WORDS, max_size=6).map(" ".join))


@given(st.text(max_size=50), st.lists(LINES, max_size=6))
def test_any_log_gives_findings_each_code_once(error: str, lines: list[str]) -> None:
    findings = diagnose(error, lines, JOB)
    codes = [one.code for one in findings]
    assert len(set(codes)) == len(codes)
    assert all(str(one).isprintable() for one in findings)


def test_what_was_seen_elsewhere_is_told_in_the_same_words() -> None:
    error = "The following quota metrics exceed quota limits: m in the region local"
    told = {one.code: (one.found, one.fix) for one in diagnose(error, (), JOB)}
    found, fix = in_words("J403", metric="m", region="local")
    assert (told["J403"][0].partition(" (")[0], told["J403"][1]) == (found, fix)
    odd = in_words("J403", metric="a\x1b[2Jb")[0]
    assert odd == "the project's quota a\\x1b[2Jb is used up in the region of the job"
    for code in ("J999", "J403"):  # None of the one; the other is about a metric.
        with pytest.raises(KeyError):
            in_words(code)

"""Models are found by name, path, address and bytes, refused in the program's words, and travel between processes."""

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from http.server import HTTPServer, SimpleHTTPRequestHandler

import numpy as np
import pytest

import nat_infer as ni


def test_models_are_listed(program):
    names = ni.list_models()
    listed = json.loads(program("nat-infer", "models", "--format", "json").stdout)
    assert names == [model["name"] for model in listed]
    for task in ["classify", "detect", "segment"]:
        assert ni.list_models(task) == [model["name"] for model in listed if model["task"] == task] != []
    with pytest.raises(ValueError, match='no model is for "swim": the tasks are classify, detect, segment'):
        ni.list_models("swim")
    info = ni.model_info("nat-tiny")
    assert info["task"] == "classify" and info["classes"] == len(info["labels"]) == 1000
    assert info["parameters"] == next(model["parameters"] for model in listed if model["name"] == "nat-tiny")
    assert info["hub"] == "shi-labs/nat-tiny-in1k-224" and info["reported"]["top1"] == 83.2
    with pytest.raises(ni.ModelError, match="nat-tiny"):
        ni.model_info("nat-tyny")


def test_a_file_is_loaded_from_everywhere(golden, tmp_path, monkeypatch):
    path, image = golden / "classify" / "nat-k7.pth", golden / "images" / "chelsea.png"

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=path.parent)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(path, "model.pth")
    shutil.copy(path, "no-ending")
    address = f"http://127.0.0.1:{server.server_port}/nat-k7.pth"
    answers = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ni.CheckpointWarning)
        for source in [
            path,
            str(path),
            "model.pth",
            "./model.pth",
            "~/model.pth",
            "no-ending",
            path.read_bytes(),
            address,
        ]:
            model = ni.load(source, quiet=True)
            assert model.task == "classify" and model.labels is None and "nat_infer.Model" in repr(model)
            answers.append(model.classify(image).top)
        named = ni.load(path, labels=[f"class {i}" for i in range(10)])
    server.shutdown()
    assert all(answer == answers[0] for answer in answers)
    assert (
        named.classify(image).top[0]["label"] == f"class {answers[0][0]['index']}"
        and named.labels[3] == "class 3"
    )
    assert named.metadata()["nat"]["architecture"]["backbone"]["kernel_size"] == 7


def test_the_folder_of_transformers_is_loaded(golden, records):
    folder, image = golden / "transformers" / "nat-hf", golden / "images" / "chelsea.png"
    model = ni.load(folder)
    assert (
        model.labels and model.classify(image).to_dict() == records("classify", image, "--weights", folder)[0]
    )


def test_what_a_file_does_not_say_is_a_warning(golden):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ni.load(golden / "classify" / "nat-k7.pth", ignore="nothing")
    words = [str(warning.message) for warning in caught]
    assert all(
        warning.category is ni.CheckpointWarning and warning.filename == __file__ for warning in caught
    )
    for says in [
        "does not name its 10 classes, they are shown as numbers; labels names them",
        "arch or dilations states them if it is a DiNAT",
        "no tensor is called like `nothing`",
    ]:
        assert sum(says in text for text in words) == 1, words
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ni.load("demo-digits")


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("nat-tyny",), ni.ModelError, "no model is named `nat-tyny`; the nearest names are nat-tiny"),
        (("none.pth",), ni.ModelError, "none.pth: "),
        (("./none",), ni.ModelError, "none: "),
        ((b"hello",), ni.ModelError, "bytes: "),
        (("user/repo@../x",), ni.ModelError, "a revision is a branch, a tag or a commit"),
        ((7,), TypeError, "int is no model; a name, a path or the bytes of a file is"),
    ],
)
def test_what_is_no_model_is_refused(arguments, kind, words):
    with pytest.raises(kind, match=words) as caught:
        ni.load(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"device": "tpu"}, ValueError, 'device "tpu": cpu, cuda, cuda:N and auto are possible'),
        ({"device": "cuda:x"}, ValueError, "device"),
        ({"device": "cuda"}, ni.ModelError, 'GPU 0: .*; device="cpu" does without'),
        ({"dtype": "f64"}, ValueError, 'dtype "f64": f32, f16 and bf16 are possible'),
        ({"threads": 0}, ValueError, "threads 0 is not from 1 to 1024"),
        ({"labels": ["a"]}, ni.ModelError, "1 labels are given and `demo-digits` has 10 classes"),
        (
            {"arch": "nat-tiny"},
            ni.ModelError,
            'arch says what a file is; "demo-digits" takes the published model',
        ),
        ({"dilations": "1,x"}, ValueError, "not a number from 1 to 4096"),
    ],
)
def test_options_that_do_not_suit_are_refused(options, kind, words):
    with pytest.raises(kind, match=words):
        ni.load("demo-digits", **options)


def test_offline_is_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(
        ni.ModelError, match="load it once without offline=True, or a file instead .*demo-digits"
    ):
        ni.load("nat-tiny", offline=True)


def test_questions_that_do_not_suit_are_refused(golden, nine):
    model = ni.load("demo-digits")
    with pytest.raises(ni.ModelError, match="`demo-digits` is made to classify, it can't segment"):
        model.segment(nine)
    with pytest.raises(ValueError, match="top_k 0 is not from 1"):
        model.classify(nine, top_k=0)
    with pytest.raises(ValueError, match="resolution 0 is not from 1 to"):
        model.classify(nine, resolution=0)
    with pytest.raises(ValueError, match="`demo-digits` has no class `cat`"):
        model.saliency(nine, target="cat")
    with pytest.raises(ValueError, match="has the classes 0 to 9, 10 is none"):
        model.saliency(nine, target=10)
    with pytest.raises(ValueError, match='method "x": smooth-grad and grad-cam are possible'):
        model.saliency(nine, method="x")
    with pytest.raises(ValueError, match="noise"):
        model.saliency(nine, noise=float("nan"))
    with pytest.raises(ValueError, match="batch_size 0"):
        model.classify(nine, batch_size=0)
    with pytest.raises(ValueError, match="legend"):
        model.saliency(nine, method="grad-cam").plot(legend="below")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ni.CheckpointWarning)
        detector = ni.load(golden / "detect" / "maskrcnn_s" / "model.pth")
    for options in [
        {"masks": "png"},
        {"score_threshold": 2},
        {"scale": (0, 5)},
        {"scale": (5,)},
        {"max_detections": 0},
    ]:
        with pytest.raises(ValueError, match=next(iter(options))):
            detector.detect(nine, **options)
    with pytest.raises(ni.ModelError, match="only classifiers have"):
        detector.embed(nine, resolution=64)
    with pytest.raises(ni.ModelError, match="can't classify"):
        detector.saliency(nine)


def test_a_half_precision_model_answers_as_the_program(records, nine):
    for dtype in ["f16", "bf16"]:
        expected = records("classify", nine, "--model", "demo-digits", "--dtype", dtype)
        assert ni.load("demo-digits", dtype=dtype).classify(nine).to_dict() == expected[0]


def test_a_model_travels(nine):
    model = ni.load("demo-digits", threads=1)
    again = pickle.loads(pickle.dumps(model))
    assert again.classify(nine) == model.classify(nine) and again.name == model.name


def ask_in_child(model, image, queue):
    # Of this size gradients are added up by candle, which has threads of its own.
    loud = model.saliency(image, samples=2, resolution=448).map
    queue.put((model.classify(image).top[0]["label"], loud.max()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_that_are_forked_or_spawned_compute_too(nine, method):
    model = ni.load("demo-digits")
    # Threads are at work before the fork.
    loud = model.saliency(nine, samples=2, resolution=448).map
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=ask_in_child, args=(model, str(nine), queue)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in children] == [("9", loud.max())] * 2
    for child in children:
        child.join(60)
        assert child.exitcode == 0


def test_ctrl_c_ends_a_call(nine):
    code = f"""
import os, signal, threading, time
import nat_infer as ni
model = ni.load("demo-digits")
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
begin = time.monotonic()
try:
    model.saliency([{str(nine)!r}] * 1000, samples=1000)
except KeyboardInterrupt:
    print(time.monotonic() - begin)
assert model.classify({str(nine)!r}).top[0]["label"] == "9"
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert 0.4 < float(done.stdout) < 3


def test_threads_share_a_model(golden, nine):
    model = ni.load("demo-digits")
    images = [nine, golden / "digits" / "images" / "digit-0-012.png", ni.read_image(nine)[:, ::-1]]
    expected = [model.classify(image).top for image in images]
    wrong = []

    def ask(first):
        for i in range(first, first + 60):
            if model.classify(images[i % 3]).top != expected[i % 3]:
                wrong.append(i)
        got = model.saliency(images[0], samples=2)
        if not np.array_equal(got.map, saliency.map):
            wrong.append("map")

    saliency = model.saliency(images[0], samples=2)
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_python_goes_on_while_a_model_computes(nine):
    model = ni.load("demo-digits", threads=1)
    turns, stop = 0, threading.Event()

    def compute():
        model.saliency(nine, samples=200)
        stop.set()

    thread = threading.Thread(target=compute)
    thread.start()
    while not stop.is_set():
        turns += 1
        stop.wait(0.001)
    thread.join()
    # With the lock held it would be one or two.
    assert turns > 20


def test_answers_do_not_depend_on_threads_or_batches(golden):
    image = golden / "images" / "chelsea.png"
    images = [image, golden / "images" / "rocket.png", golden / "images" / "coffee.png"]
    expected = None
    for threads in [1, 3]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ni.CheckpointWarning)
            model = ni.load(golden / "classify" / "nat-k7.pth", threads=threads)
        for batch_size in [1, 2, 16]:
            got = model.classify(images, batch_size=batch_size)
            expected = expected or got
            assert got == expected


def test_memory_is_flat(nine):
    code = f"""
import nat_infer as ni
model = ni.load("demo-digits")
pixels = ni.read_image({str(nine)!r})
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
sizes = []
for i in range(5000):
    model.classify(pixels)
    if i % 50 == 0:
        model.classify([pixels] * 4, batch_size=2)
        try:
            model.classify(b"none")
        except ni.ImageError:
            pass
    if i in (999, 4999):
        sizes.append(resident())
print(*sizes)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    early, late = map(int, done.stdout.split())
    assert late < 1.03 * early, f"{early} kB after 1000 calls, {late} after 5000"


def test_importing_is_quick():
    code = "import time; begin = time.perf_counter(); import nat_infer; print(time.perf_counter() - begin)"
    best = min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5))
    numpy = "import time; begin = time.perf_counter(); import numpy; print(time.perf_counter() - begin)"
    its = min(float(subprocess.check_output([sys.executable, "-c", numpy])) for _ in range(5))
    assert best < 0.2 or best - its < 0.1, f"{best:.3f} s, numpy alone {its:.3f}"


def test_nothing_but_numpy_is_needed():
    code = "import sys, nat_infer; print([name for name in ('PIL', 'torch', 'transformers') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    assert "CANDLE_NUM_THREADS" not in os.environ

"""What strangers bring and do is neither silently wrong nor lost: files that change, broken images, threads that stay behind."""

import copy
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

import nat_infer as ni

pytestmark = pytest.mark.filterwarnings("ignore::nat_infer.CheckpointWarning")


@pytest.fixture(scope="module")
def model():
    return ni.load("demo-digits")


@pytest.fixture
def served():
    """Serves bytes: `served(bytes, wait)` is their address; each kilobyte takes so many seconds."""
    servers = []

    def serve(content, wait=0.0):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                for begin in range(0, len(content), 1024):
                    self.wfile.write(content[begin : begin + 1024])
                    time.sleep(wait)
                    sent.append(begin)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        sent = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.sent = sent
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/file.png", server

    yield serve
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize(
    "work", ["model.classify([image] * 20000)", "ni.load('demo-digits')", "ni.read_image(image)"]
)
def test_a_thread_that_stays_behind_does_not_end_python_badly(nine, work):
    code = f"""
import threading, time
import nat_infer as ni
model, image = ni.load("demo-digits"), {str(nine)!r}
def work():
    while True:
        {work}
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
"""
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_what_runs_at_the_end_computes(nine):
    code = f"""
import atexit
atexit.register(lambda: print(model.classify({str(nine)!r}).top[0]["label"]))
import nat_infer as ni
model = ni.load("demo-digits")
"""
    assert subprocess.check_output([sys.executable, "-c", code], timeout=60).split() == [b"9"]


def test_a_file_that_is_another_by_now_is_refused(golden, nine, tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    shutil.copy(golden / "classify" / "nat-k7.pth", first / "w.pth")
    shutil.copy(golden / "classify" / "nat-padded.pth", second / "w.pth")
    monkeypatch.chdir(first)
    model = ni.load("w.pth")
    expected = ni.load(golden / "classify" / "nat-k7.pth").saliency(nine, samples=2).map
    # Another folder is no other file.
    monkeypatch.chdir(second)
    assert np.array_equal(model.saliency(nine, samples=2).map, expected)
    assert pickle.loads(pickle.dumps(model)).name == model.name
    model = ni.load(first / "w.pth")
    os.replace(second / "w.pth", first / "w.pth")
    with pytest.raises(ni.ModelError, match="w.pth@1d514b2a is w.pth@.* by now: load the model again"):
        model.saliency(nine)
    with pytest.raises(ni.ModelError, match="w.pth@1d514b2a is w.pth@.* where it was sent to"):
        pickle.loads(pickle.dumps(model))
    assert model.classify(nine).model == model.name


def test_a_long_call_does_not_hold_up_a_short_one(nine, served):
    model = ni.load("demo-digits", threads=1)
    address, _ = served(nine.read_bytes(), wait=0.2)
    slow = threading.Thread(target=model.classify, args=([address],))
    slow.start()
    long = threading.Thread(target=model.classify, args=([nine] * 2000,))
    long.start()
    time.sleep(0.1)
    assert long.is_alive()
    for _ in range(5):
        assert model.classify(nine).top[0]["label"] == "9"
    assert long.is_alive() and slow.is_alive()
    long.join()
    slow.join()


def test_a_mask_is_bounded_as_images_are():
    # All pixels of 2^20 x 2^20, in some hundred bytes.
    with pytest.raises(ValueError, match="over the limit"):
        ni.decode_mask({"size": [1 << 20, 1 << 20], "counts": "0" * 500})


def test_a_broken_image_is_one_error_in_its_place_whatever_it_is(model, nine, tmp_path):
    whole = (tmp_path / "whole.png", tmp_path / "half.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 80, 3), np.uint8)).save(whole[0])
    whole[1].write_bytes(whole[0].read_bytes()[:9000])
    floats = Image.fromarray(np.full((4, 5), 200, np.float32))
    for broken in [Image.open(whole[1]), whole[1], whole[1].read_bytes(), floats]:
        with pytest.raises(ni.ImageError, match="1 of 3 images failed") as caught:
            model.classify([nine, broken, nine])
        first, error, last = caught.value.results
        assert first == last == model.classify(nine) and isinstance(error, ni.ImageError)
        assert str(error).startswith("image 1: " if broken is not whole[1] else str(whole[1]))
    with pytest.raises(ni.ImageError, match="image 0: floats above 1"):
        model.classify(floats)


def test_open_files_are_read_and_what_has_no_order_is_refused(model, nine):
    with open(nine, "rb") as file:
        assert model.classify(file).top == model.classify(nine).top
    with open(__file__) as file, pytest.raises(TypeError, match='image 0: a file of text; open it with "rb"'):
        model.classify(file)
    with pytest.raises(TypeError, match="images in a set have no order"):
        model.classify({str(nine)})
    assert [answer.image for answer in model.classify(ni.read_image(nine) for _ in range(3))] == [
        "image 0",
        "image 1",
        "image 2",
    ]


def test_what_is_done_is_not_lost_where_images_end_badly(model, nine):
    pixels = ni.read_image(nine)

    def images(count, last):
        yield from [pixels] * count
        if isinstance(last, Exception):
            raise last
        yield last

    for last, words in [(OSError("no more"), "no more"), (7, "int is no image")]:
        # Before anything is done it is as it is, later it comes with what is done.
        with pytest.raises(type(last) if isinstance(last, Exception) else TypeError, match=words):
            model.classify(images(3, last))
        with pytest.raises(ni.ImageError, match=f"the images ended at 1024: .*{words}") as caught:
            model.classify(images(1030, last))
        assert len(caught.value.results) == 1024


def test_a_name_comes_before_an_index_that_is_written_alike(nine):
    model = ni.load("demo-digits", labels=list("9876543210"))
    assert model.saliency(nine, target="9", method="grad-cam").target["index"] == 0
    assert model.saliency(nine, target=9, method="grad-cam").target["index"] == 9
    assert model.saliency(nine, target=np.int64(9), method="grad-cam").target["label"] == "0"


def test_pictures_are_of_their_image(model, nine, served, tmp_path, monkeypatch):
    pixels = ni.read_image(nine)
    result = model.saliency(pixels, method="grad-cam")
    with pytest.raises(ValueError, match="the result is of 128x128 pixels, the image has 100x128"):
        result.plot(pixels[:, :100])
    # Of an address, and of a path from another folder.
    address, _ = served(nine.read_bytes())
    picture = np.asarray(result.plot())
    assert np.array_equal(np.asarray(model.saliency(address, method="grad-cam").plot()), picture)
    assert np.array_equal(ni.read_image(address), pixels)
    shutil.copy(nine, tmp_path / "here.png")
    monkeypatch.chdir(tmp_path)
    relative = model.saliency("here.png", method="grad-cam")
    monkeypatch.chdir("/")
    assert np.array_equal(np.asarray(relative.plot()), picture)
    # A copy is no journey.
    for made in [copy.copy(result), copy.deepcopy(result)]:
        assert type(made) is ni.Saliency and np.array_equal(np.asarray(made.plot()), picture)
    # Of an iterator nothing is held on to but names.
    (lazy,) = model.saliency(iter([pixels]), method="grad-cam")
    with pytest.raises(ValueError, match="does not hold its image any more"):
        lazy.plot()


def test_what_is_no_option_is_one_clear_line(model, nine):
    for options, kind, words in [
        ({"samples": "3"}, TypeError, "samples '3' is no integer"),
        ({"seed": -1}, ValueError, "seed -1 is not from 0"),
        ({"noise": "much"}, TypeError, "noise 'much' is no number"),
        ({"resolution": -1}, ValueError, "resolution -1 is not from 1"),
        ({"target": -1}, ValueError, "target -1 is no class"),
    ]:
        with pytest.raises(kind, match=words):
            model.saliency(nine, **options)
    for options, kind, words in [
        ({"dilations": [1, 2]}, TypeError, r"dilations \[1, 2\]: they are written"),
        ({"ignore": [1]}, TypeError, r"ignore \[1\]: names of tensors are wanted"),
        ({"threads": "2"}, TypeError, "threads '2' is no integer"),
        ({"labels": "0123456789"}, TypeError, "labels is a text"),
    ]:
        with pytest.raises(kind, match=words):
            ni.load("demo-digits", **options)
    with pytest.raises(ni.ModelError, match="No such file"):
        ni.load("a\udcff.pth")
    labels = pickle.loads(pickle.dumps(ni.load("demo-digits", labels=(str(i) for i in range(10))))).labels
    assert labels == list("0123456789")


def test_ctrl_c_ends_a_download(served, tmp_path):
    address, server = served(bytes(3_000_000), wait=0.005)
    code = f"""
import os, signal, threading
import nat_infer as ni
threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    ni.load({address.replace(".png", ".pth")!r}, quiet=True)
except KeyboardInterrupt:
    threading.Event().wait(1.5)
    print("ended")
"""
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.stdout == "ended\n", done.stderr
    sent = len(server.sent)
    time.sleep(0.5)
    assert len(server.sent) - sent < 10


def test_processes_that_are_forked_while_a_model_is_loaded_do_not_wait(nine):
    code = f"""
import os, threading
import nat_infer as ni
model = ni.load("demo-digits")
def again():
    while True:
        ni.load("demo-digits").saliency({str(nine)!r}, samples=1)
for _ in range(2):
    threading.Thread(target=again, daemon=True).start()
for i in range(20):
    child = os.fork()
    if child == 0:
        ok = model.classify({str(nine)!r}).top[0]["label"] == "9"
        model.saliency({str(nine)!r}, samples=1)
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
"""
    with warnings.catch_warnings():
        subprocess.run([sys.executable, "-c", code], timeout=120, check=True)

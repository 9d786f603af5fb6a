"""The operator and the module for PyTorch: against golden data, the definition, and others' networks."""

import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from nat_torch import NAT, naive_mix, naive_na2d, naive_scores, split  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from nat_infer.torch import NeighborhoodAttention2D, compat, na2d  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
ATTENTION = sorted((GOLDEN / "attention").glob("*.safetensors"))
#: Types with what results may be off by.
TYPES = [(torch.float64, 1e-6), (torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)]


def off(got: torch.Tensor, want: torch.Tensor) -> float:
    """‖got − want‖ / ‖want‖."""
    assert got.shape == want.shape
    got, want = got.detach().double(), want.detach().double()
    return ((got - want).norm() / want.norm()).item()


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sizes(path: Path) -> tuple:
    """Heads, kernel size and dilation of a golden case."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    return tuple(int(metadata[name]) for name in ("heads", "kernel_size", "dilation"))


@pytest.mark.parametrize("path", ATTENTION, ids=lambda path: path.stem)
@pytest.mark.parametrize("dtype, tolerance", TYPES, ids=lambda x: str(x).replace("torch.", ""))
def test_golden_attention(path, dtype, tolerance):
    golden = load_file(path)
    qkv, rpb = (golden[name].to(dtype).requires_grad_() for name in ("qkv", "rpb"))
    out = na2d(qkv, rpb, *sizes(path))
    out.backward(golden["grad_out"].to(dtype))
    assert out.dtype == qkv.grad.dtype == rpb.grad.dtype == dtype
    assert off(out, golden["out"]) < tolerance
    assert off(qkv.grad, golden["grad_qkv"]) < 3 * tolerance
    assert off(rpb.grad, golden["grad_rpb"]) < 3 * tolerance


@pytest.mark.parametrize("path", ATTENTION, ids=lambda path: path.stem)
def test_golden_attention_in_two_halves(path):
    golden = load_file(path)
    heads, kernel, dilation = sizes(path)
    qkv, rpb = golden["qkv"].requires_grad_(), golden["rpb"].requires_grad_()
    query, key, value = split(qkv, heads)
    scores = compat.natten2dqkrpb(query * query.shape[-1] ** -0.5, key, rpb, kernel, dilation)
    out = compat.natten2dav(scores.softmax(-1), value, kernel, dilation).permute(0, 2, 3, 1, 4).flatten(3)
    out.backward(golden["grad_out"])
    assert off(out, golden["out"]) < 1e-5
    assert off(qkv.grad, golden["grad_qkv"]) < 1e-5
    assert off(rpb.grad, golden["grad_rpb"]) < 1e-5


@pytest.mark.parametrize(
    "size, kernel, dilation", [((4, 5), 3, 1), ((7, 6), 3, 2), ((3, 3), 1, 2), ((2, 2), 2, 1)]
)
def test_gradients_are_limits_of_differences(size, kernel, dilation):
    heads, dim, side = 2, 3, 2 * kernel - 1
    shape = (2, heads, *size, dim)
    rpb = noise(heads, side, side, dtype=torch.float64).requires_grad_()
    qkv = noise(2, *size, 3 * heads * dim, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: na2d(*x, heads, kernel, dilation), (qkv, rpb))
    assert torch.autograd.gradcheck(lambda x: na2d(x, None, heads, kernel, dilation), (qkv,))
    query, key, value = (noise(*shape, seed=i, dtype=torch.float64).requires_grad_() for i in range(3))
    attn = noise(*shape[:4], kernel**2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: compat.natten2dqkrpb(*x, kernel, dilation), (query, key, rpb))
    assert torch.autograd.gradcheck(lambda *x: compat.natten2dqk(*x, kernel, dilation), (query, key))
    assert torch.autograd.gradcheck(lambda *x: compat.natten2dav(*x, kernel, dilation), (attn, value))


def test_any_layout_and_no_more_gradients_than_asked_for():
    qkv, rpb = noise(2, 9, 8, 48), noise(2, 9, 9)
    want = naive_na2d(qkv, rpb, 2, 5)
    swapped = qkv.transpose(1, 2).contiguous().transpose(1, 2)
    assert not swapped.is_contiguous() and torch.equal(na2d(swapped, rpb, 2, 5), na2d(qkv, rpb, 2, 5))
    assert off(na2d(qkv, rpb, 2, 5), want) < 1e-6
    assert off(na2d(qkv, rpb.transpose(1, 2).contiguous().transpose(1, 2), 2, 5), want) < 1e-6
    assert na2d(qkv[:0], rpb, 2, 5).shape == (0, 9, 8, 16)
    for tensor, kept in [(qkv, 0), (rpb, 1)]:
        inputs = [qkv.clone(), rpb.clone()]
        inputs[kept].requires_grad_()
        na2d(*inputs, 2, 5).sum().backward()
        assert inputs[kept].grad.shape == tensor.shape and inputs[1 - kept].grad is None
    with torch.no_grad():
        assert not na2d(qkv.requires_grad_(), rpb, 2, 5).requires_grad
    with torch.inference_mode():
        assert off(na2d(qkv.detach().clone(), rpb.clone(), 2, 5), want) < 1e-6


def test_types_that_meet():
    qkv, rpb = noise(1, 7, 7, 48), noise(2, 5, 5).requires_grad_()
    out = na2d(qkv.bfloat16(), rpb, 2, 3)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16 and rpb.grad.dtype == torch.float32
    query, key, value = split(qkv, 2)
    scores = compat.natten2dqkrpb(query.bfloat16(), key, rpb, 3, 1)
    assert scores.dtype == torch.float32
    assert compat.natten2dav(scores, value.bfloat16(), 3, 1).dtype == torch.float32


def test_autocast():
    layer = NeighborhoodAttention2D(32, 2, 3, attn_drop=0.5)
    x = noise(1, 9, 9, 32)
    want = layer.eval()(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = layer(x)
        dropped = layer.train()(x)
    assert got.dtype == dropped.dtype == torch.bfloat16 and off(got, want) < 3e-2
    (got.float().sum() + dropped.float().sum()).backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters())


def test_many_threads_at_once():
    inputs = [noise(1, 21, 19, 96, seed=i) for i in range(8)]
    want = [na2d(qkv, None, 2, 7) for qkv in inputs]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            got = list(threads.map(lambda qkv: na2d(qkv, None, 2, 7), inputs))
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_refusals():
    qkv, rpb = noise(1, 9, 8, 48), noise(2, 9, 9)
    for call, error, words in [
        (lambda: na2d(qkv[0], rpb, 2, 5), ValueError, "qkv has 3 axes, expected 4"),
        (lambda: na2d(qkv, rpb, 2, 9), ValueError, "a map of 9x8 is too small for kernel size 9"),
        (lambda: na2d(qkv, rpb, 2, 4), ValueError, "kernel size 4 is even"),
        (lambda: na2d(qkv, rpb, 5, 5), ValueError, "cannot be divided into q, k and v of 5 heads"),
        (lambda: na2d(qkv, rpb, 2, 3), ValueError, "bias has 162 values, expected 50"),
        (lambda: na2d(qkv, rpb, 2, 0), ValueError, "kernel size 0"),
        (lambda: na2d(qkv.int(), rpb, 2, 5), TypeError, "qkv is torch.int32"),
        (lambda: na2d(qkv.numpy(), rpb, 2, 5), TypeError, "qkv is ndarray"),
        (lambda: na2d(qkv, rpb.to("meta"), 2, 5), RuntimeError, "rpb is on meta"),
        (lambda: compat.natten2dqk(qkv, qkv, 3, 1), ValueError, "axes, expected 5"),
        (
            lambda: compat.natten2dqk(qkv[None], qkv[None, :, 1:], 3, 1),
            ValueError,
            "second factor of the scores",
        ),
        (lambda: compat.natten2dav(qkv[None], qkv[None], 3, 1), ValueError, "tensor of weights"),
        (lambda: compat.na2d_qk(qkv[None], qkv[None], (3, 5)), NotImplementedError, "a kernel size of 3x5"),
        (lambda: compat.na2d_qk(qkv[None], qkv[None], 3, is_causal=True), NotImplementedError, "causal"),
        (lambda: compat.na2d_av(qkv[None], qkv[None], 3, 1, qkv), NotImplementedError, "additional values"),
        (lambda: NeighborhoodAttention2D(32, 2, 4), ValueError, "an odd number above 1, got 4"),
        (lambda: NeighborhoodAttention2D(32, 3, 3), ValueError, "32 channels cannot be divided into 3 heads"),
        (lambda: NeighborhoodAttention2D(32, 2, 3, 0), ValueError, "dilation has to be at least 1"),
    ]:
        with pytest.raises(error, match=words):
            call()
    qkv.requires_grad_()
    (grad,) = torch.autograd.grad(na2d(qkv, rpb, 2, 5).pow(2).sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def naive_module(layer: NeighborhoodAttention2D, x: torch.Tensor) -> torch.Tensor:
    """What the module computes, by the definition."""
    height, width = x.shape[1:3]
    span = layer.kernel_size * layer.dilation
    x = torch.nn.functional.pad(x, (0, 0, 0, max(0, span - width), 0, max(0, span - height)))
    x = naive_na2d(layer.qkv(x), layer.rpb, layer.num_heads, layer.kernel_size, layer.dilation, layer.scale)
    return layer.proj(x[:, :height, :width])


@pytest.mark.parametrize("size", [(14, 15), (9, 30), (30, 5), (6, 5)])
@pytest.mark.parametrize(
    "options", [{}, {"bias": False, "qkv_bias": False}, {"qk_scale": 0.3}, {"attn_drop": 0.4}]
)
def test_module(size, options):
    torch.manual_seed(1)
    layer = NeighborhoodAttention2D(32, 2, 7, 2, **options).eval()
    if layer.rpb is not None:
        torch.nn.init.normal_(layer.rpb)
    x = noise(2, *size, 32)
    got, want = layer(x), naive_module(layer, x)
    assert off(got, want) < 1e-5
    grads = [torch.autograd.grad(out.square().sum(), list(layer.parameters())) for out in (got, want)]
    assert all(off(a, b) < 1e-4 for a, b in zip(*grads, strict=True))


def test_module_has_the_parameters_of_natten():
    layer = NeighborhoodAttention2D(dim=64, num_heads=2, kernel_size=7, dilation=None)
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes == {
        "rpb": (2, 13, 13),
        "qkv.weight": (192, 64),
        "qkv.bias": (192,),
        "proj.weight": (64, 64),
        "proj.bias": (64,),
    }
    assert set(NeighborhoodAttention2D(64, 2, 7, 1, False, False).state_dict()) == {
        "qkv.weight",
        "proj.weight",
        "proj.bias",
    }
    assert layer.dilation == 1 and 0 < layer.rpb.std() < 0.03
    assert "head_dim=32, num_heads=2, kernel_size=7, dilation=1, rel_pos_bias=True" in repr(layer)


def test_dropout():
    torch.manual_seed(2)
    layer = NeighborhoodAttention2D(16, 2, 3, attn_drop=0.25).train()
    x = noise(4, 12, 11, 16)
    plain = layer.eval()(x)
    # Both paths are the same where nothing is dropped.
    qkv = layer.qkv(x)
    layer.train()
    layer.attn_drop.p = 0.0
    assert off(layer._dropped(qkv), na2d(qkv, layer.rpb, 2, 3)) < 1e-6
    assert torch.equal(layer(x), plain)
    # What is dropped is made up for: the mean is the value without. A seed makes it repeatable.
    layer.attn_drop.p = 0.25
    with torch.no_grad():
        mean = torch.stack([layer(x) for _ in range(300)]).mean(0)
    assert off(mean, plain) < 0.06 and off(layer(x), plain) > 0.1
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)
    first.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    # Dropped results.
    layer = NeighborhoodAttention2D(16, 2, 3, proj_drop=0.5).train()
    assert 0.4 < (layer(x) == 0).float().mean() < 0.6


def state_dict(checkpoint: dict) -> dict:
    """The weights in what a training program saved."""
    for name in ("state_dict_ema", "state_dict", "model"):
        if name in checkpoint:
            checkpoint = checkpoint[name]
            break
    return {name.replace("module.", "", 1): value.float() for name, value in checkpoint.items()}


@pytest.mark.parametrize("name", ["nat-k7", "dinat-k7-f16", "nat-padded", "dinat-s", "nat-k5-layerscale-ema"])
def test_reference_model_gets_the_golden_logits(monkeypatch, name):
    spec = json.loads((GOLDEN / "classify" / f"{name}.json").read_text())
    model = NAT(NeighborhoodAttention2D, **spec["config"], patches=spec["family"] == "dinat_s").eval()
    if not hasattr(numpy, "_core"):
        # One has a number in it that numpy 2 wrote, whose modules have other names.
        monkeypatch.setitem(sys.modules, "numpy._core", numpy.core)
        monkeypatch.setitem(sys.modules, "numpy._core.multiarray", numpy.core.multiarray)
    checkpoint = torch.load(GOLDEN / "classify" / f"{name}.pth", map_location="cpu", weights_only=False)
    model.load_state_dict(state_dict(checkpoint))
    golden = load_file(GOLDEN / "classify" / f"{name}.safetensors")
    with torch.no_grad():
        assert off(model(golden["input"]), golden["logits"]) < 1e-4
    # Training goes through it: every weight has a gradient.
    model(golden["input"]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def python(script: str, *arguments: object, path: str = "") -> subprocess.CompletedProcess:
    """Runs a script in a process of its own, where nothing is imported yet."""
    paths = [path, os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=environment)


def test_code_for_natten_finds_it():
    done = python("""
import importlib.metadata, importlib.util
assert importlib.util.find_spec("natten") is None
from nat_infer.torch import NeighborhoodAttention2D, compat
compat.install()
compat.install()
import natten
from natten import NeighborhoodAttention2D as theirs
from natten.functional import na2d_av, na2d_qk, natten2dav, natten2dqk, natten2dqkrpb
from natten.natten2d import NeighborhoodAttention2D as also
assert theirs is NeighborhoodAttention2D is also and natten2dav is compat.natten2dav
assert natten.__version__ == importlib.metadata.version("natten") == "0.14.6"
assert natten.functional.natten2dqkrpb is natten2dqkrpb
assert importlib.util.find_spec("natten.cuda") is None
try:
    importlib.metadata.version("natten2")
    raise SystemExit("no such package")
except importlib.metadata.PackageNotFoundError:
    pass
assert "numpy" in {d.metadata["Name"] for d in importlib.metadata.distributions()}
""")
    assert done.returncode == 0, done.stderr


def test_natten_itself_is_not_hidden(tmp_path):
    (tmp_path / "natten").mkdir()
    (tmp_path / "natten" / "__init__.py").write_text("")
    script = "from nat_infer.torch import compat; compat.install()"
    done = python(script, path=str(tmp_path))
    assert "RuntimeError: a module natten is there" in done.stderr
    (tmp_path / "natten-0.17.5.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: natten\nVersion: 0.17.5\n"
    (tmp_path / "natten-0.17.5.dist-info" / "METADATA").write_text(metadata)
    done = python(script, path=str(tmp_path))
    assert "RuntimeError: natten 0.17.5 is installed" in done.stderr


def test_transformers_has_to_come_later():
    pytest.importorskip("transformers")
    done = python("import transformers; from nat_infer.torch import compat; compat.install()")
    assert "RuntimeError: transformers is imported already" in done.stderr


#: Makes a small DiNAT with random weights in a folder, and writes its logits of an input.
DINAT = """
import sys
import torch
from safetensors.torch import load_file, save_file
from nat_infer.torch import compat
compat.install()
from transformers import DinatConfig, DinatForImageClassification
folder, what = sys.argv[1:]
if what == "make":
    torch.manual_seed(5)
    config = DinatConfig(
        embed_dim=16, depths=[2, 1, 2, 2], num_heads=[1, 2, 4, 8], kernel_size=5, mlp_ratio=2.0, num_labels=7,
        layer_scale_init_value=0.5, dilations=[[1, 9], [4], [2, 1], [1, 2]],
    )
    model = DinatForImageClassification(config)
    for name, value in model.named_parameters():
        torch.nn.init.normal_(value, std=0.7 if name.endswith("rpb") else 0.15)
    model.save_pretrained(folder)
else:
    model = DinatForImageClassification.from_pretrained(folder).eval()
    pixels = load_file(f"{folder}/input.safetensors")["input"]
    with torch.no_grad():
        alone = model(pixels).logits
        out = model(pixels, output_attentions=True)
    assert torch.equal(out.logits, alone) and out.attentions[0].shape[-1] == 25
    # Training goes through it.
    model.train()(pixels).logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    save_file({"logits": alone}, f"{folder}/output.safetensors")
"""


@pytest.mark.parametrize("resolution", [224, 96])
def test_dinat_of_transformers_computes_what_we_do(tmp_path, resolution):
    pytest.importorskip("transformers")
    from safetensors.torch import save_file

    import nat_infer

    done = python(DINAT, tmp_path, "make")
    assert done.returncode == 0, done.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nat_infer.load(tmp_path)
    ours = model.features(GOLDEN / "images" / "rocket.png", resolution=resolution)
    save_file({"input": torch.from_numpy(ours["input"])}, tmp_path / "input.safetensors")
    done = python(DINAT, tmp_path, "compute")
    assert done.returncode == 0, done.stderr
    assert off(load_file(tmp_path / "output.safetensors")["logits"], torch.from_numpy(ours["logits"])) < 1e-4


def test_nat_of_transformers_gets_the_golden_logits():
    pytest.importorskip("transformers")
    done = python(
        """
import sys
import torch
from safetensors.torch import load_file
from nat_infer.torch import compat
compat.install()
try:
    from transformers.models.deprecated.nat.modeling_nat import NatForImageClassification
except ImportError:
    try:
        from transformers import NatForImageClassification
    except ImportError:
        raise SystemExit("this version of transformers has no NAT")
model = NatForImageClassification.from_pretrained(sys.argv[1]).eval()
golden = load_file(f"{sys.argv[1]}/golden.safetensors")
with torch.no_grad():
    logits = model(golden["input"]).logits
print((logits - golden["logits"]).norm().item() / golden["logits"].norm().item())
""",
        GOLDEN / "transformers" / "nat-hf",
    )
    if "has no NAT" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 1e-4


def test_halves_are_those_of_the_definition():
    query, key, value = (noise(2, 3, 10, 13, 20, seed=i) for i in range(3))
    rpb, attn = noise(3, 9, 9), noise(2, 3, 10, 13, 25)
    assert off(compat.natten2dqkrpb(query, key, rpb, 5, 2), naive_scores(query, key, rpb, 5, 2)) < 1e-6
    assert off(compat.na2d_qk(query, key, (5, 5), 2, rpb=rpb), naive_scores(query, key, rpb, 5, 2)) < 1e-6
    assert off(compat.natten2dqk(query, key, 5, 1), naive_scores(query, key, None, 5, 1)) < 1e-6
    assert off(compat.natten2dav(attn, value, 5, 2), naive_mix(attn, value, 5, 2)) < 1e-6
    assert off(compat.na2d_av(attn, value, 5, (2, 2)), naive_mix(attn, value, 5, 2)) < 1e-6

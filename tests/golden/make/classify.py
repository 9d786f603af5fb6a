"""Makes tests/golden/attention and tests/golden/classify.

    pip install torch==2.5.1 numpy pillow safetensors
    python tests/golden/make/classify.py OUT [ORIGINAL]

The model is benches/peers/nat_torch.py. With ORIGINAL, the folder of the published classification code (nat.py,
dinats.py, isotropic.py; natten 0.17.5), its logits are compared with the model's, and it is they that are stored.
Weights, images after preprocessing and everything of the operator (float64) are the same with any PyTorch from 2.5
to 2.15; maps and logits (float32) within 1e-6 of their size.
"""

import argparse
import collections
import json
import math
import pathlib
import sys

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "benches/peers"))
import nat_torch as nt  # noqa: E402

SEED = 11
IMAGES = ROOT / "tests/golden/images"
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

CASES = [
    # name, family, configuration, what stands around the weights, zip?, dtype, image, resolution
    ("nat-k7", "nat", dict(embed_dim=16, depths=[1, 2, 2, 1], heads=[1, 1, 2, 4], mlp_ratio=3, kernel=7, classes=10),
     "bare", True, "f32", "chelsea.png", 224),
    ("nat-k5-layerscale-ema", "nat", dict(embed_dim=16, depths=[2, 1, 1, 2], heads=[1, 2, 4, 8], mlp_ratio=2, kernel=5,
                                          classes=10, layer_scale=1e-5),
     "timm", False, "f32", "coffee.png", 224),
    ("dinat-k7-f16", "dinat", dict(embed_dim=16, depths=[2, 2, 2, 2], heads=[1, 2, 4, 8], mlp_ratio=3, kernel=7,
                                   classes=10, dilations=[[1, 8], [1, 4], [1, 2], [1, 1]]),
     "ddp", True, "f16", "rocket.png", 224),
    ("dinat-s", "dinat_s", dict(embed_dim=16, depths=[2, 2, 2, 1], heads=[2, 4, 8, 16], mlp_ratio=4, kernel=7,
                                classes=10, dilations=[[1, 8], [1, 4], [1, 2], [1]]),
     "bare", False, "f32", "flower.png", 224),
    ("nat-iso", "iso", dict(embed_dim=48, depth=3, heads=3, mlp_ratio=4, kernel=7, dilation=2, classes=10),
     "params", True, "f32", "china.png", 224),
    ("vit-rpb", "iso", dict(embed_dim=48, depth=2, heads=3, mlp_ratio=4, full=True, classes=10),
     "bare", True, "f32", "astronaut.png", 224),
    ("nat-padded", "nat", dict(embed_dim=16, depths=[1, 1, 2, 1], heads=[2, 4, 8, 16], mlp_ratio=3, kernel=7,
                               classes=10),
     "bare", True, "bf16", "camera.png", 96),
]

ATTENTION = [
    # batch, height, width, heads, dim, kernel size, dilation
    (1, 7, 7, 1, 32, 7, 1), (2, 14, 11, 2, 32, 7, 1), (1, 20, 23, 3, 16, 5, 2), (1, 29, 31, 2, 8, 7, 4),
    (2, 9, 16, 4, 24, 3, 3), (1, 26, 28, 1, 32, 13, 2), (1, 33, 21, 1, 64, 7, 3), (1, 56, 57, 1, 8, 7, 8),
]


def preprocess(image, resolution, crop_pct=0.875):
    """timm's transform for evaluation: bicubic to floor(resolution / crop_pct) on the short side, centre crop."""
    image = image.convert("RGB")
    short = math.floor(resolution / crop_pct)
    width, height = image.size
    size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    image = image.resize(size, Image.BICUBIC)
    left, top = [round((side - resolution) / 2) for side in size]
    image = image.crop((left, top, left + resolution, top + resolution))
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
    return ((values - MEAN) / STD)[None]


def model(family, config):
    if family == "iso":
        return nt.Isotropic(**config)
    return nt.NAT(**config, s=family == "dinat_s")


def original(family, c, folder):
    """The published network; it needs natten."""
    sys.path.insert(0, folder)
    import dinats
    import isotropic
    import nat
    if family == "iso":
        layer = isotropic.VisionTransformerLayer if c.get("full") else isotropic.NATransformerLayer
        net = isotropic.NATIsotropic(
            img_size=224, patch_size=16, embed_dim=c["embed_dim"], depth=c["depth"], num_heads=c["heads"],
            mlp_ratio=c["mlp_ratio"], kernel_size=c.get("kernel", 7), dilation=c.get("dilation", 1), layer=layer,
            num_classes=c["classes"])
    else:
        shared = dict(embed_dim=c["embed_dim"], mlp_ratio=c["mlp_ratio"], depths=c["depths"], num_heads=c["heads"],
                      kernel_size=c["kernel"], dilations=c.get("dilations"), num_classes=c["classes"])
        net = dinats.DiNAT_s(**shared) if family == "dinat_s" else nat.NAT(**shared, layer_scale=c.get("layer_scale"))
    return net.eval()


def wrapped(weights, how, seed):
    """What different training programs save."""
    if how == "bare":
        return collections.OrderedDict(weights)
    if how == "ddp":
        return {"model": collections.OrderedDict(("module." + k, v) for k, v in weights.items()), "epoch": 3}
    floating = {k: v.is_floating_point() for k, v in weights.items()}
    if how == "params":
        parameter = torch.nn.Parameter
        return {"state_dict": collections.OrderedDict(
            (k, parameter(v) if floating[k] else v) for k, v in weights.items())}
    assert how == "timm", how
    g = torch.Generator().manual_seed(seed)
    raw = collections.OrderedDict(
        (k, v + 0.01 * torch.randn(v.shape, generator=g) if floating[k] else v) for k, v in weights.items())
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    return {"epoch": 299, "arch": "nat_mini", "state_dict": raw, "optimizer": optimizer, "version": 2,
            "args": argparse.Namespace(lr=1e-3, model="nat_mini", mean=None), "amp_scaler": {"scale": 65536.0},
            "state_dict_ema": collections.OrderedDict(weights), "metric": np.float64(81.8)}


def attention(out):
    """The operator alone, forward and backward, in float64."""
    out.mkdir(parents=True, exist_ok=True)
    g = torch.Generator().manual_seed(SEED)
    for b, h, w, heads, dim, k, dilation in ATTENTION:
        qkv = torch.randn(b, h, w, 3 * heads * dim, generator=g)
        rpb = 0.7 * torch.randn(heads, 2 * k - 1, 2 * k - 1, generator=g)
        wide, table = qkv.double().requires_grad_(), rpb.double().requires_grad_()
        result = nt.na2d(wide, table, heads, k, dilation)
        grad_out = torch.randn(result.shape, generator=g)
        result.backward(grad_out.double())
        tensors = {"qkv": qkv, "rpb": rpb, "out": result.detach().float(), "grad_out": grad_out,
                   "grad_qkv": wide.grad.float(), "grad_rpb": table.grad.float()}
        layout = "qkv [B,H,W,3*heads*dim] in order q,k,v; rpb [heads,2k-1,2k-1]; computed in float64"
        metadata = {"heads": str(heads), "kernel_size": str(k), "dilation": str(dilation), "layout": layout}
        name = f"b{b}_h{h}_w{w}_heads{heads}_dim{dim}_k{k}_d{dilation}.safetensors"
        save_file(tensors, out / name, metadata=metadata)


def classify(out, folder):
    out.mkdir(parents=True, exist_ok=True)
    for i, (name, family, config, how, zipped, dtype, image, resolution) in enumerate(CASES):
        net = nt.randomize(model(family, config), SEED + i, rpb_std=0.7)
        weights = {k: v.to(DTYPES[dtype]) if v.is_floating_point() else v for k, v in net.state_dict().items()}
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
        x = preprocess(Image.open(IMAGES / image), resolution)
        with torch.no_grad():
            found = net.features(x)
            if folder is not None:
                published = original(family, config, folder)
                published.load_state_dict(net.state_dict())
                try:
                    logits = published(x)
                except RuntimeError as error:  # natten 0.17 refuses maps smaller than the window; 0.14 padded them
                    print(f"{name}: the original refuses ({str(error).splitlines()[0]}); the model's own are kept")
                    logits = found["logits"]
                off = (logits - found["logits"]).abs().max().item()
                assert off < 2e-4 * max(1, logits.abs().max().item()), f"{name} is {off} off the original"
                found["logits"] = logits
        torch.save(wrapped(weights, how, SEED), out / f"{name}.pth", _use_new_zipfile_serialization=zipped)
        tensors = {k: v.contiguous() for k, v in found.items()}
        if tensors["stage1"].numel() > 40000:  # a corner is enough of the large ones
            tensors["stage1.corner"] = tensors.pop("stage1")[:, :, :16, :16].contiguous()
        save_file(tensors, out / f"{name}.safetensors")
        note = ("computed in float32 from the stored weights; stage outputs are each level's output before its "
                "downsampler, without norm, NCHW; stage1.corner is stage1[:, :, :16, :16]")
        case = dict(name=name, family=family, config=config, wrapper=how, container="zip" if zipped else "legacy",
                    stored_dtype=dtype, image=image, resolution=resolution, crop_pct=0.875, note=note)
        (out / f"{name}.json").write_text(json.dumps(case, indent=1))


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[1])
    attention(target / "attention")
    classify(target / "classify", sys.argv[2] if len(sys.argv) > 2 else None)

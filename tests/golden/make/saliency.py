"""Makes tests/golden/saliency: gradients of the largest logit with respect to the input, in float64.

    pip install torch==2.5.1 numpy pillow safetensors
    python tests/golden/make/saliency.py tests/golden/classify OUT

Of nat-padded: `grad`, `noise` and `grad_noisy` (at input + noise[i]); of dinat-k7-f16, which is larger, the corner
[:96, :96] of the gradient. The same to the bit with PyTorch 2.5 to 2.15.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import classify  # noqa: E402


def gradients(folder, name):
    case = json.loads((folder / f"{name}.json").read_text())
    weights = torch.load(folder / f"{name}.pth", map_location="cpu", weights_only=False)
    for key in ("state_dict_ema", "state_dict", "model"):
        if key in weights:
            weights = weights[key]
            break
    weights = {k.removeprefix("module."): v.detach().float() for k, v in weights.items()}
    model = classify.model(case["family"], case["config"])
    model.load_state_dict(weights)
    model = model.double().eval()
    x = load_file(folder / f"{name}.safetensors")["input"].double()
    g = torch.Generator().manual_seed(42)
    noise = (0.15 * (x.max() - x.min()) * torch.randn((3,) + x.shape[1:], generator=g).double()).float()
    top = model(x).argmax(1).item()

    def grad(batch):
        batch = batch.clone().requires_grad_()
        model(batch)[:, top].sum().backward()
        return batch.grad.float().contiguous()

    return top, {"noise": noise, "grad": grad(x), "grad_noisy": grad(x + noise.double())}


def main():
    folder, out = [pathlib.Path(argument) for argument in sys.argv[1:3]]
    out.mkdir(parents=True, exist_ok=True)
    note = ("gradient of logit[class] with respect to the normalised input, float64; grad_noisy at input + noise[i]; "
            "X.corner is X[..., :96, :96]")
    for name, corner in [("nat-padded", False), ("dinat-k7-f16", True)]:
        top, tensors = gradients(folder, name)
        if corner:
            tensors = {"grad.corner": tensors["grad"][..., :96, :96].contiguous()}
        save_file(tensors, out / f"{name}.safetensors", metadata={"class": str(top), "note": note})


main()

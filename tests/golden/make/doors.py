"""Makes tests/golden/doors: one tiny network (DiNAT_s of one level and one block), saved in the ways of everyday
tools, and in ways that can't be read.

Every file of the folder `read` has the tensors of plain.pth; beside an average (EMA) lie others, twice as large.

    python tests/golden/make/doors.py tests/golden/doors        (torch 2.15, numpy, safetensors)
"""

import collections
import pathlib
import sys
import warnings
import zipfile

import torch
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
FOLDER = pathlib.Path(sys.argv[1])


def network():
    """Names as SHI-Labs' dinat_s.py has them; sizes as small as they can be."""
    torch.manual_seed(0)
    block = "layers.0.blocks.0."
    shapes = {
        "patch_embed.proj.weight": (4, 3, 4, 4), "patch_embed.proj.bias": (4,),
        "patch_embed.norm.weight": (4,), "patch_embed.norm.bias": (4,),
        block + "norm1.weight": (4,), block + "norm1.bias": (4,),
        block + "attn.qkv.weight": (12, 4), block + "attn.qkv.bias": (12,),
        block + "attn.rpb": (1, 5, 5), block + "attn.proj.weight": (4, 4), block + "attn.proj.bias": (4,),
        block + "norm2.weight": (4,), block + "norm2.bias": (4,),
        block + "mlp.fc1.weight": (8, 4), block + "mlp.fc1.bias": (8,),
        block + "mlp.fc2.weight": (4, 8), block + "mlp.fc2.bias": (4,),
        "norm.weight": (4,), "norm.bias": (4,), "head.weight": (3, 4), "head.bias": (3,),
    }
    return collections.OrderedDict((name, torch.randn(shape)) for name, shape in shapes.items())


def save(value, name, **options):
    torch.save(value, FOLDER / name, **{"_use_new_zipfile_serialization": False, **options})


def under(prefix, weights):
    return collections.OrderedDict((prefix + name, value) for name, value in weights.items())


def optimizer(weights):
    """The state of a real one, by number, and one by name as FSDP saves it."""
    parameters = [torch.nn.Parameter(value.clone()) for value in weights.values()]
    adam = torch.optim.AdamW(parameters)
    sum(p.sum() for p in parameters).backward()
    adam.step()
    by_name = {name: {"exp_avg": value, "step": torch.tensor(1.0)} for name, value in weights.items()}
    return adam.state_dict(), {"state": by_name, "exp_avg": under("", weights)}


def main():
    net = network()
    other = collections.OrderedDict((name, 2 * value) for name, value in net.items())
    (FOLDER / "read").mkdir(parents=True, exist_ok=True)
    (FOLDER / "refused").mkdir(exist_ok=True)
    save(net, "plain.pth")

    # Prefixes.
    save(under("_orig_mod.", net), "read/compiled.pth")
    save({"state_dict": under("model._orig_mod.", net), "epoch": 3}, "read/lightning_compiled.ckpt")
    save({"state_dict": under("student.", net)}, "read/student.pth")
    inside = {name.replace("blocks.0", "blocks._fsdp_wrapped_module.0._checkpoint_wrapped_module"): value
              for name, value in net.items()}
    save({"module": under("_forward_module.", inside)}, "read/deepspeed_fsdp.pt")
    # Entries that are no part of the network.
    metrics = under("model.", net)
    metrics["train_acc.tp"] = torch.zeros(10, dtype=torch.long)
    metrics["val_acc.total"] = torch.tensor(3)
    metrics["val_loss.mean_value"] = torch.tensor(0.5)
    metrics["criterion.weight"] = torch.ones(3)
    save({"state_dict": metrics, "epoch": 3}, "read/lightning_metrics.ckpt")
    save({"state_dict": {**under("visual.", net), "logit_scale": torch.tensor(4.6),
                         **under("text_encoder.", {"layers.0.attn.qkv.weight": torch.ones(12, 4)})}}, "read/clip.pt")
    hook = {"ema_backbone_" + name.replace(".", "_"): value for name, value in other.items()}
    save({"state_dict": {**under("backbone.", net), **hook}}, "read/mmcv_ema_hook.pth")
    # Wrappers, with and without averages.
    by_number, by_name = optimizer(other)
    save({"epoch": 1, "model_state_dict": net, "optimizer_state_dict": by_number, "loss": 0.1},
         "read/model_state_dict.pth")
    save({"optim": by_name, "generator": {"net_g": {"params": net}}}, "read/nested.pth")
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Identity()).state_dict()
    save({**averaged, **under("module.", net)}, "read/averaged_model.pth")
    save({"state_dict": other, "state_dict_ema": net, "arch": "x"}, "read/timm_ema.pth")
    save({"state_dict": under("model.", other),
          "callbacks": {"EMA": {"ema_weights": under("model.", net), "cur_step": 7}}}, "read/lightning_ema.ckpt")
    # mmengine exchanges the averages and the weights when it saves.
    save({"state_dict": net, "ema_state_dict": {"steps": torch.tensor(9), **under("module.", other)},
          "message_hub": {}}, "read/mmengine_ema.pth")
    # Containers.
    save(net, "read/protocol0.pth", pickle_protocol=0)
    save(net, "read/protocol1.pth", pickle_protocol=1, _use_new_zipfile_serialization=True)
    stored = FOLDER / "stored.pth"
    save(net, "stored.pth", _use_new_zipfile_serialization=True)
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(FOLDER / "read/deflated.pth", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), old.read(name), zipfile.ZIP_DEFLATED)
    stored.unlink()

    # What can't be weights.
    zipped = {"_use_new_zipfile_serialization": True}
    save({name: value.numpy() for name, value in net.items()}, "refused/numpy.pth")
    save({**net, "head.weight": net["head.weight"].numpy()}, "refused/one_numpy.pth")
    quantised = torch.quantize_per_tensor(net["head.weight"], 0.1, 0, torch.qint8)
    save({**net, "head.weight": quantised}, "refused/quantised.pth", **zipped)
    save({**net, "head.weight": net["head.weight"].to(torch.int8)}, "refused/int8.pth")
    save({**net, "head.weight": net["head.weight"].to_sparse()}, "refused/sparse.pth")
    save({name: value.to("meta") for name, value in net.items()}, "refused/meta.pth", **zipped)
    save({**net, "norm.bias": net["norm.bias"].to(torch.complex64)}, "refused/complex.pth")
    save({name: value.to(torch.float8_e4m3fn) for name, value in net.items()}, "refused/float8.pth", **zipped)
    save_file({name: value.to(torch.float8_e4m3fn) for name, value in net.items()},
              FOLDER / "refused/float8.safetensors")
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(1)])
    save({**net, "norm.bias": nested}, "refused/nested.pth", **zipped)
    negated = torch.view_as_complex(torch.ones(4, 2)).conj().imag
    save({**net, "norm.bias": negated}, "refused/negated.pth")


main()

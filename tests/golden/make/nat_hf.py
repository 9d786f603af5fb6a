"""Makes tests/golden/transformers/nat-hf: a folder as on the Hub, and what Transformers answers.

    pip install torch==2.5.1 transformers==4.46.3 natten==0.17.5 numpy pillow safetensors
    python tests/golden/make/nat_hf.py OUT

NAT left Transformers after 4.4x; natten 0.17 wants its newer names, which are put in the place of the old ones.
The weights are the same to the bit with any PyTorch from 2.5 on.
"""

import json
import pathlib
import sys

import natten.functional as nf
import torch
from PIL import Image
from safetensors.torch import save_file

nf.natten2dqkrpb = lambda q, k, rpb, kernel, dilation: nf.na2d_qk(
    q.contiguous(), k.contiguous(), kernel, dilation, rpb=rpb)
nf.natten2dav = lambda a, v, kernel, dilation: nf.na2d_av(a, v.contiguous(), kernel, dilation)
try:
    from transformers import NatConfig, NatForImageClassification
except ImportError:
    from transformers.models.deprecated.nat import NatConfig, NatForImageClassification

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import classify  # noqa: E402

IMAGE = "chelsea.png"


def main():
    folder = pathlib.Path(sys.argv[1]) / "nat-hf"
    config = NatConfig(
        embed_dim=16, depths=[1, 2, 2, 1], num_heads=[1, 1, 2, 4], kernel_size=7, mlp_ratio=3.0,
        layer_scale_init_value=0.0, num_labels=4,
        id2label={0: "tabby", 1: "coffee mug", 2: "missile", 3: "pagoda"})
    model = classify.nt.randomize(NatForImageClassification(config), 77, rpb_std=0.7)
    model.save_pretrained(folder, safe_serialization=False)
    processor = {"do_normalize": True, "do_resize": True, "feature_extractor_type": "ViTFeatureExtractor",
                 "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3, "size": 224}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1))
    x = classify.preprocess(Image.open(classify.IMAGES / IMAGE), 224)
    with torch.no_grad():
        logits = model(x).logits
    save_file({"input": x, "logits": logits}, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps({"image": IMAGE, "resolution": 224, "crop_pct": 0.875}))


main()

"""Makes tests/golden/detect, tests/golden/segment and tests/golden/keys with OpenMMLab's own code of 2022.

    python3.10 -m venv venv && . venv/bin/activate
    pip install torch==1.13.1 torchvision==0.14.1 numpy==1.23.5 timm==0.6.13 opencv-python-headless==4.8.1.78 \\
        pycocotools safetensors pillow scikit-image==0.19.3
    pip install mmcv-full==1.7.2 -f https://download.openmmlab.com/mmcv/dist/cu117/torch1.13/index.html
    pip install mmdet==2.28.2 mmsegmentation==0.30.0
    pip install natten==0.14.6 -f https://shi-labs.com/natten/wheels/cu117/torch1.13/index.html
    git clone https://github.com/SHI-Labs/Neighborhood-Attention-Transformer original

    python tests/golden/make/openmmlab.py images  tests/golden/detect/cascade_b OUT
    python tests/golden/make/openmmlab.py answers tests/golden/detect/cascade_b OUT --original original
    python tests/golden/make/openmmlab.py keys    tests/golden/detect/cascade_b OUT --original original

images   `image.png` and `resized.png` by the `spec` of golden.json. Needs Pillow, numpy and OpenCV alone.
answers  golden.json, tensors.safetensors and the label maps: what the network with the folder's own weights, built of
         `model_cfg`, answers on the folder's image. One call a folder. `summary` and `margins`, which say how well
         decisions are separated and which no test reads, are copied.
keys     names, shapes and types of the mini network of full size that is made like the folder's.

The weights are data: model.pth is kept, and not made. They were drawn at random (`seed`), biases were shifted until
about as many objects were found as `calib` says on as many levels as `want_levels`, and another draw would do as well.

NOT ALL OF IT HAS BEEN RUN: `images` has, and every pixel is the same. `answers` and `keys` were
written after the sets, from their golden.json and the interfaces of mmdet 2.28.2 and mmseg 0.30.0, and have not been
run: the versions above no longer install everywhere. Every tensor is compared with the names and shapes that golden.json
lists, so that what is different is said.
"""

import argparse
import copy
import json
import pathlib
import sys

import cv2
import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[3]
PHOTOGRAPHS = ROOT / "tests/golden/images"
NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


# Images.

def photograph(spec):
    """The part of a photograph that the spec names, shrunk by OpenCV; `crop` is x, y, width, height."""
    source = PHOTOGRAPHS / spec["source"]
    if not source.exists():  # rocket.jpg in its own size
        import skimage
        source = pathlib.Path(skimage.__file__).parent / "data" / spec["source"]
    image = Image.open(source).convert("RGB")
    if "crop" in spec:
        x, y, width, height = spec["crop"]
        image = image.crop((x, y, x + width, y + height))
    return cv2.resize(np.array(image), tuple(spec["size"]), interpolation=cv2.INTER_AREA)


def resized(image, scale):
    """As mmcv.imrescale: the ratio is kept, sides are rounded half up."""
    height, width = image.shape[:2]
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    size = int(width * factor + 0.5), int(height * factor + 0.5)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def images(folder, out, golden):
    image = photograph(golden["spec"]["image"])
    Image.fromarray(image).save(out / "image.png")
    Image.fromarray(resized(image, golden["spec"]["img_scale"])).save(out / "resized.png")


# Networks.

def build(config, original):
    """The network of a configuration, in evaluation, with the original backbones registered."""
    import importlib

    import torch
    from mmcv import Config
    from mmcv.cnn.utils import revert_sync_batchnorm
    segmenter = config["type"] == "EncoderDecoder"
    folder = pathlib.Path(original) / ("segmentation" if segmenter else "detection")
    sys.path.insert(0, str(folder))
    for module in ("nat", "dinat", "dinat_s", "dinats"):  # each registers its class
        if (folder / f"{module}.py").exists():
            importlib.import_module(module)
    torch.manual_seed(0)
    if segmenter:
        from mmseg.models import build_segmentor
        model = build_segmentor(Config(copy.deepcopy(config)))
    else:
        from mmdet.models import build_detector
        model = build_detector(Config(copy.deepcopy(config)))
    return revert_sync_batchnorm(model).eval()


def pipeline(scale, segmenter, ratios=None, flip=False):
    transforms = [dict(type="Resize", keep_ratio=True), dict(type="RandomFlip"), dict(type="Normalize", **NORM)]
    if not segmenter:
        transforms.append(dict(type="Pad", size_divisor=32))
    transforms += [dict(type="ImageToTensor", keys=["img"]), dict(type="Collect", keys=["img"])]
    outer = dict(type="MultiScaleFlipAug", img_scale=tuple(scale), flip=flip, transforms=transforms)
    if ratios:
        outer["img_ratios"] = ratios
    return [dict(type="LoadImageFromFile"), outer]


def prepared(folder, steps, segmenter):
    """Batches of one image and their descriptions, one for each view."""
    if segmenter:
        from mmseg.datasets.pipelines import Compose
    else:
        from mmdet.datasets.pipelines import Compose
    source = dict(img_info=dict(filename=str(folder / "image.png")), img_prefix=None)
    data = Compose(steps)(source)
    return [(image[None], meta.data) for image, meta in zip(data["img"], data["img_metas"])]


def description(meta):
    keys = ("ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "flip_direction")
    return {key: np.asarray(meta[key]).tolist() if key.endswith(("shape", "factor")) else meta[key] for key in keys}


# Detectors.

def boxes_of(head, rois, logits, deltas, meta, config):
    """Detections in original pixels, and the proposal that each comes from."""
    from mmdet.core import multiclass_nms
    shape, factor = meta["img_shape"], meta["scale_factor"]
    corners, scores = head.get_bboxes(rois, logits, deltas, shape, factor, rescale=True, cfg=None)
    found, labels, kept = multiclass_nms(
        corners, scores, config.score_thr, config.nms, config.max_per_img, return_inds=True)
    return found, labels, kept // head.num_classes


def detect(model, image, meta):
    import torch
    from mmdet.core import bbox2roi
    tensors = {"input": image}
    maps = model.backbone(image)
    tensors |= {f"backbone.{i}": x for i, x in enumerate(maps)}
    pyramid = model.neck(maps)
    tensors |= {f"fpn.{i}": x for i, x in enumerate(pyramid)}
    scores, deltas = model.rpn_head(pyramid)
    for level, (cls, reg) in enumerate(zip(scores, deltas)):
        tensors |= {f"rpn.cls.{level}": cls, f"rpn.reg.{level}": reg}
    proposals = model.rpn_head.get_bboxes(scores, deltas, img_metas=[meta], cfg=model.test_cfg.rpn)
    tensors["proposals"] = proposals[0]
    roi_head, rois = model.roi_head, bbox2roi(proposals)
    cascade = isinstance(roi_head.bbox_head, torch.nn.ModuleList)
    stages = list(roi_head.bbox_head) if cascade else [roi_head.bbox_head]
    extractor = roi_head.bbox_roi_extractor[0] if cascade else roi_head.bbox_roi_extractor
    levels = extractor.map_roi_levels(rois, extractor.num_inputs)
    tensors["proposal_roi_level"] = levels.int()

    logits = []
    for i, head in enumerate(stages):
        found = roi_head._bbox_forward(i, pyramid, rois) if cascade else roi_head._bbox_forward(pyramid, rois)
        tensors |= {f"stage{i}.rois": rois[:, 1:], f"stage{i}.roi_feats_first6": found["bbox_feats"][:6],
                    f"stage{i}.cls_score_first64": found["cls_score"][:64],
                    f"stage{i}.bbox_pred_first24": found["bbox_pred"][:24]}
        logits.append(found["cls_score"])
        if i + 1 < len(stages):
            labels = found["cls_score"][:, :-1].argmax(1)
            tensors[f"stage{i}.argmax"] = labels.int()
            rois = head.regress_by_class(rois, labels, found["bbox_pred"], meta)
    mean = sum(logits) / len(logits)
    if cascade:
        tensors["softmax_first64"] = mean[:64].softmax(1)
    config = model.test_cfg.rcnn
    boxes, labels, proposal = boxes_of(stages[-1], rois, mean, found["bbox_pred"], meta, config)
    tensors |= {"det_bboxes": boxes, "det_labels": labels.int(), "det_proposal_index": proposal.int()}

    in_network = boxes[:, :4] * boxes.new_tensor(meta["scale_factor"])
    tensors["mask_rois"] = in_network
    mask_rois = bbox2roi([in_network])
    own = torch.arange(len(labels)), labels
    probabilities = []
    for i in range(len(stages)):
        found = roi_head._mask_forward(i, pyramid, mask_rois) if cascade else roi_head._mask_forward(pyramid, mask_rois)
        tensors[f"mask_logits_first16.{i}"] = found["mask_pred"][own][:16]
        probabilities.append(found["mask_pred"].sigmoid())
    mean = sum(probabilities) / len(probabilities)
    tensors["mask_prob"] = mean[own]
    return tensors, boxes, labels, mean, cascade


def objects(model, boxes, labels, probabilities, cascade, meta):
    from pycocotools import mask as coco
    head = model.roi_head.mask_head[-1] if cascade else model.roi_head.mask_head
    # Logits of a single stage go in as logits, means as probabilities, as in simple_test.
    given = probabilities.cpu().numpy() if cascade else (probabilities / (1 - probabilities)).log()
    masks = head.get_seg_masks(
        given, boxes, labels, model.test_cfg.rcnn, meta["ori_shape"], meta["scale_factor"], rescale=True)
    masks = [iter(of_class) for of_class in masks]
    results = []
    for box, label in zip(boxes.tolist(), labels.tolist()):
        encoded = coco.encode(np.asfortranarray(next(masks[label]).astype(np.uint8)))
        mask = {"size": list(map(int, encoded["size"])), "counts": encoded["counts"].decode(),
                "area": int(coco.area(encoded))}
        results.append({"label": label, "score": box[4], "bbox": box[:4], "mask": mask})
    return results


# Segmenters.

def segment(model, image, meta):
    from mmseg.ops import resize
    head = model.decode_head

    def to(x, size):
        return resize(x, size=size, mode="bilinear", align_corners=head.align_corners)

    tensors = {"input": image}
    maps = model.extract_feat(image)
    tensors |= {f"backbone.{i}": x for i, x in enumerate(maps)}
    chosen = head._transform_inputs(maps)
    tensors |= {f"ppm.{i}": part(chosen[-1]) for i, part in enumerate(head.psp_modules)}
    tensors["psp_out"] = head.psp_forward(chosen)
    tensors["decoder_feature"] = head._forward_feature(maps)
    logits = head(maps)
    tensors |= {"logits": logits, "logits_input_size": to(logits, image.shape[2:])}
    full = to(tensors["logits_input_size"], meta["ori_shape"][:2])
    tensors |= {"logits_full": full, "prob_full": full.softmax(1), "aux_logits": model.auxiliary_head(maps)}
    return tensors


def views(model, folder, spec, ratios):
    """Probabilities of every size and its mirror image, and their mean."""
    steps = pipeline(spec["img_scale"], True, ratios, flip=True)
    found, order = [], []
    for image, meta in prepared(folder, steps, True):
        found.append(model.inference(image, [meta], rescale=True))
        ratio = ratios[len(order) // 2]
        order.append({"ratio": ratio, "flip": bool(meta["flip"]), "img_shape": list(meta["img_shape"]),
                      "input_shape": list(image.shape)})
    tensors = {"ms_prob": sum(found) / len(found)}
    tensors |= {f"ms{i}.prob": found[i] for i in (0, 1, len(found) - 1)}
    return tensors, order


# Files.

def stored(tensors, listed):
    """Big maps thinned out as golden.json says, and what it lists and is not there, or the other way round."""
    import torch
    kept, wrong = {}, sorted(set(listed) ^ set(tensors))
    for name, entry in listed.items():
        if name not in tensors:
            continue
        x = tensors[name].detach().cpu()
        stride = entry["spatial_stride"]
        if list(x.shape) != entry["full_shape"]:
            wrong.append(f"{name} of {list(x.shape)}, not {entry['full_shape']}")
        x = x[:, :, ::stride, ::stride] if stride > 1 else x
        kept[name] = x.to(getattr(torch, entry["dtype"])).contiguous()
    return kept, wrong


def answers(folder, out, golden, original):
    import torch
    from safetensors.torch import save_file
    spec, segmenter = golden["spec"], golden["spec"]["kind"] == "upernet"
    model = build(golden["model_cfg"], original)
    checkpoint = next(p for p in (folder / "model.pth", folder / "model_legacy.pth") if p.exists())
    model.load_state_dict(torch.load(checkpoint, map_location="cpu")["state_dict"], strict=True)
    [(image, meta)] = prepared(folder, pipeline(spec["img_scale"], segmenter), segmenter)
    with torch.no_grad():
        if segmenter:
            tensors = segment(model, image, meta)
            more, golden["ms"]["order"] = views(model, folder, spec, golden["ms"]["ratios"])
            tensors |= more
            for name, key in [("label.png", "prob_full"), ("label_ms.png", "ms_prob")]:
                label = tensors[key][0].argmax(0).to(torch.uint8).numpy()
                Image.fromarray(label).save(out / name)
        else:
            tensors, boxes, labels, masks, cascade = detect(model, image, meta)
            golden["results"] = objects(model, boxes, labels, masks, cascade, meta)
    kept, wrong = stored(tensors, golden["tensors"])
    save_file(kept, out / "tensors.safetensors")
    golden["img_meta"], golden["input_shape"] = description(meta), list(image.shape)
    (out / "golden.json").write_text(json.dumps(golden))
    if wrong:
        sys.exit("not as golden.json lists it: " + "; ".join(wrong))


def mini(config):
    """The configuration of the mini network of full size that is made like this one."""
    config = copy.deepcopy(config)
    config["backbone"] |= dict(embed_dim=64, depths=[3, 4, 6, 5], num_heads=[2, 4, 8, 16], kernel_size=7,
                               mlp_ratio=3.0, dilations=None)
    config["backbone"].pop("layer_scale", None)
    config["backbone"]["type"] = "NAT"
    config["backbone"].pop("dilations")
    widths = [64, 128, 256, 512]
    if config["type"] == "EncoderDecoder":
        config["decode_head"] |= dict(in_channels=widths, channels=512, num_classes=150)
        config["auxiliary_head"] |= dict(in_channels=256, channels=256, num_classes=150)
        return config
    config["neck"] |= dict(in_channels=widths, out_channels=256)
    config["rpn_head"] |= dict(in_channels=256, feat_channels=256)
    roi = config["roi_head"]
    for extractor in ("bbox_roi_extractor", "mask_roi_extractor"):
        roi[extractor]["out_channels"] = 256
    heads = roi["bbox_head"] if isinstance(roi["bbox_head"], list) else [roi["bbox_head"]]
    for head in heads:
        head |= dict(in_channels=256, fc_out_channels=1024, num_classes=80)
        if "conv_out_channels" in head:
            head["conv_out_channels"] = 256
    roi["mask_head"] |= dict(in_channels=256, conv_out_channels=256, num_classes=80)
    return config


def keys(out, golden, original):
    name = {"maskrcnn": "maskrcnn", "cascade": "cascade", "upernet": "upernet"}[golden["spec"]["kind"]]
    state = build(mini(golden["model_cfg"]), original).state_dict()
    lines = [f"{key}\t{list(x.shape)}\t{str(x.dtype).removeprefix('torch.')}" for key, x in state.items()]
    (out / f"keys_{name}.txt").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["images", "answers", "keys"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--original", help="the original repository; only for answers and keys")
    args = parser.parse_args()
    golden = json.loads((args.folder / "golden.json").read_text())
    args.out.mkdir(parents=True, exist_ok=True)
    if args.what == "images":
        images(args.folder, args.out, golden)
    elif args.what == "answers":
        answers(args.folder, args.out, golden, args.original)
    else:
        keys(args.out, golden, args.original)


main()

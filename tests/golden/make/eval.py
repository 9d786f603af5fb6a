"""Small sets with what the usual evaluators answer on them. usage: eval.py OUT SEED   (pycocotools 2.0, mmseg 0.30)"""
import json, os, sys
import numpy as np
from PIL import Image
from pycocotools import mask as M
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

out, seed = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(seed)
os.makedirs(f"{out}/segment/truth", exist_ok=True), os.makedirs(f"{out}/segment/predicted", exist_ok=True)


def blob(h, w):
    cy, cx, ry, rx = rng.uniform(0.1, 0.9) * h, rng.uniform(0.1, 0.9) * w, rng.uniform(0.03, 0.3) * h, rng.uniform(0.03, 0.3) * w
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    r = 1 + 0.2 * rng.standard_normal(24)
    return np.stack([np.clip(cx + rx * r * np.cos(t), 0, w - 1), np.clip(cy + ry * r * np.sin(t), 0, h - 1)], 1)


cats = [1, 3, 18, 44, 90]
images, anns, dets = [], [], []
for i in range(24):
    h, w = int(rng.integers(120, 400)), int(rng.integers(120, 400))
    images.append({"id": 1000 + i, "file_name": f"{i:03d}.jpg", "height": h, "width": w})
    for _ in range(int(rng.integers(0, 7))):
        p = blob(h, w)
        rle = M.merge(M.frPyObjects([p.flatten().tolist()], h, w))
        crowd = int(rng.random() < 0.08)
        seg = [[round(float(v), 2) for v in p.flatten()]]
        if crowd:
            m = M.decode(rle)
            flat = np.diff(np.concatenate([[0], m.T.flatten(), [0]]))
            counts, last = [], 0
            edges = np.flatnonzero(np.diff(np.concatenate([[0], m.T.flatten()]))).tolist() + [m.size]
            prev = 0
            for e in edges:
                counts.append(int(e - prev)); prev = e
            seg = {"size": [h, w], "counts": counts}
        cat = int(rng.choice(cats))
        anns.append({"id": len(anns) + 1, "image_id": 1000 + i, "category_id": cat, "iscrowd": crowd, "area": float(M.area(rle)), "bbox": [round(float(v), 2) for v in M.toBbox(rle)], "segmentation": seg})
        for _ in range(int(rng.integers(0, 3))):
            q = np.clip(p + rng.normal(0, rng.uniform(0.5, 8), p.shape), 0, [w - 1, h - 1])
            r = M.merge(M.frPyObjects([q.flatten().tolist()], h, w))
            dets.append({"image_id": 1000 + i, "category_id": cat if rng.random() < 0.85 else int(rng.choice(cats)), "bbox": [round(float(v), 3) for v in M.toBbox(r)], "score": round(float(rng.random()), 4), "segmentation": {"size": [h, w], "counts": r["counts"].decode()}})
    for _ in range(int(rng.integers(0, 3))):
        q = blob(h, w)
        r = M.merge(M.frPyObjects([q.flatten().tolist()], h, w))
        dets.append({"image_id": 1000 + i, "category_id": int(rng.choice(cats)), "bbox": [round(float(v), 3) for v in M.toBbox(r)], "score": round(float(rng.random()) * 0.6, 4), "segmentation": {"size": [h, w], "counts": r["counts"].decode()}})
json.dump({"images": images, "annotations": anns, "categories": [{"id": c, "name": f"class {c}"} for c in cats]}, open(f"{out}/coco_truth.json", "w"))
json.dump(dets, open(f"{out}/coco_detections.json", "w"))
gt = COCO(f"{out}/coco_truth.json")
res = {}
for kind in ("bbox", "segm"):
    e = COCOeval(gt, gt.loadRes(f"{out}/coco_detections.json"), kind)
    e.evaluate(), e.accumulate(), e.summarize()
    res[kind] = [float(v) for v in e.stats]

n = 9
pairs = []
for i in range(8):
    h, w = int(rng.integers(40, 120)), int(rng.integers(40, 120))
    t = np.kron(rng.integers(0, n - 1, ((h + 7) // 8, (w + 7) // 8)), np.ones((8, 8), int))[:h, :w]   # class n-1 is in no truth
    t = np.where(rng.random((h, w)) < 0.05, 255, t).astype(np.uint8)
    p = np.where(rng.random((h, w)) < 0.7, np.where(t == 255, 0, t), rng.integers(0, n - 2, (h, w))).astype(np.uint8)   # class n-2 half predicted
    Image.fromarray(t).save(f"{out}/segment/truth/{i}.png"), Image.fromarray(p).save(f"{out}/segment/predicted/{i}.png")
    pairs.append((p, t))
from mmseg.core.evaluation import eval_metrics
m = eval_metrics([p for p, _ in pairs], [t for _, t in pairs], n, 255, metrics=["mIoU"], reduce_zero_label=False)
mz = eval_metrics([p for p, _ in pairs], [t.copy() for _, t in pairs], n, 255, metrics=["mIoU"], reduce_zero_label=True)
f = lambda d: {"aAcc": float(d["aAcc"]), "IoU": [None if np.isnan(v) else float(v) for v in d["IoU"]], "Acc": [None if np.isnan(v) else float(v) for v in d["Acc"]], "mIoU": float(np.nanmean(d["IoU"])), "mAcc": float(np.nanmean(d["Acc"]))}
res["segment"] = {"classes": n, "ignore_index": 255, "plain": f(m), "reduce_zero_label": f(mz)}
json.dump(res, open(f"{out}/expected.json", "w"), indent=1)

"""A small COCO panoptic set with predictions and its PQ. usage: panoptic.py OUT SEED   (numpy, pillow)

The rules are panopticapi's: segments of the same category match at IoU > 0.5, where the prediction's part on void does not count; unmatched truth is a miss unless crowd;
an unmatched prediction is a false alarm unless more than half of it lies on void or on crowd of its category. Averages are over categories that occur."""
import json, os, sys
import numpy as np
from PIL import Image

out, rng = sys.argv[1], np.random.default_rng(int(sys.argv[2]))
cats = [{"id": c, "name": f"class {c}", "isthing": int(c < 5)} for c in (1, 2, 4, 7, 9, 12)]
os.makedirs(f"{out}/truth", exist_ok=True), os.makedirs(f"{out}/predicted", exist_ok=True)


def save(path, ids):
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(path)


def blobs(h, w, n):
    """A label map of n regions: the nearest of n points, some of them left void (0)."""
    p = rng.uniform(0, 1, (n, 2)) * (h, w)
    y, x = np.mgrid[:h, :w]
    return np.argmin([(y - a) ** 2 + (x - b) ** 2 for a, b in p], 0) + 1


def segments(ids, chosen, crowd=False):
    s = []
    for i in np.unique(ids):
        if i == 0:
            continue
        m = ids == i
        ys, xs = np.nonzero(m)
        s.append({"id": int(i), "category_id": int(chosen[i]), "area": int(m.sum()), "bbox": [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1],
                  "iscrowd": int(crowd and chosen[i] < 5 and rng.random() < 0.15)})
    return s


truth, pred, images = [], [], []
for k in range(12):
    h, w, n = int(rng.integers(40, 160)), int(rng.integers(40, 160)), int(rng.integers(3, 9))
    base = blobs(h, w, n)
    g = np.where(np.isin(base, rng.integers(1, n + 1, 1)), 0, base) * int(rng.integers(1, 3000))
    stuff = {}
    gc = {}
    for i in np.unique(g):
        c = int(rng.choice([c["id"] for c in cats]))
        if c >= 5 and c in stuff:
            g[g == i] = stuff[c] if i else 0
        elif i:
            gc[i] = c; stuff.setdefault(c, i)
    shift = rng.integers(-6, 7, 2)
    p0 = np.roll(base, shift, (0, 1))
    p = np.where(rng.random((h, w)) < 0.02, 0, p0) * 7 + (p0 > 0)
    pc = {}
    for i in np.unique(p):
        if i:
            inside = g[p == i]; v = np.bincount(inside).argmax()
            pc[i] = gc.get(v, 12) if rng.random() < 0.85 else int(rng.choice([c["id"] for c in cats]))
    name = f"{k:04d}"
    images.append({"id": 500 + k, "file_name": name + ".jpg", "height": h, "width": w})
    truth.append({"image_id": 500 + k, "file_name": name + ".png", "segments_info": segments(g, gc, True)}); save(f"{out}/truth/{name}.png", g)
    pred.append({"image_id": 500 + k, "file_name": name + ".png", "segments_info": [{"id": s["id"], "category_id": s["category_id"]} for s in segments(p, pc)]}); save(f"{out}/predicted/{name}.png", p)

json.dump({"images": images, "annotations": truth, "categories": cats}, open(f"{out}/truth.json", "w"))
json.dump({"annotations": pred}, open(f"{out}/predicted.json", "w"))

stat = {c["id"]: [0, 0, 0, 0.0] for c in cats}  # tp, fp, fn, sum of IoU
read = lambda f: (lambda a: a[..., 0].astype(int) + 256 * a[..., 1].astype(int) + 65536 * a[..., 2].astype(int))(np.asarray(Image.open(f)))
for t, q in zip(truth, pred):
    g, p = read(f"{out}/truth/{t['file_name']}"), read(f"{out}/predicted/{q['file_name']}")
    G, P = {s["id"]: s for s in t["segments_info"]}, {s["id"]: s for s in q["segments_info"]}
    area = {i: int((p == i).sum()) for i in P}
    pairs, counts = np.unique(np.stack([g.ravel(), p.ravel()], 1), axis=0, return_counts=True)
    inter = {(int(a), int(b)): int(n) for (a, b), n in zip(pairs, counts)}
    gm, pm = set(), set()
    for (a, b), n in inter.items():
        if a not in G or b not in P or G[a]["iscrowd"] or G[a]["category_id"] != P[b]["category_id"]:
            continue
        iou = n / (area[b] + G[a]["area"] - n - inter.get((0, b), 0))
        if iou > 0.5:
            s = stat[G[a]["category_id"]]; s[0] += 1; s[3] += iou; gm.add(a); pm.add(b)
    crowd = {}
    for a, s in G.items():
        if a in gm: continue
        if s["iscrowd"]: crowd[s["category_id"]] = a; continue
        stat[s["category_id"]][2] += 1
    for b, s in P.items():
        if b in pm: continue
        n = inter.get((0, b), 0) + (inter.get((crowd[s["category_id"]], b), 0) if s["category_id"] in crowd else 0)
        if n / area[b] > 0.5: continue
        stat[s["category_id"]][1] += 1
res = {}
for kind, want in (("All", None), ("Things", 1), ("Stuff", 0)):
    rows = []
    for c in cats:
        tp, fp, fn, iou = stat[c["id"]]
        if (want is None or c["isthing"] == want) and tp + fp + fn:
            d = tp + fp / 2 + fn / 2
            rows.append((iou / d, iou / tp if tp else 0.0, tp / d))
    res[kind] = dict(zip(("PQ", "SQ", "RQ"), (100 * float(v) for v in np.mean(rows, 0)))) | {"n": len(rows)}
json.dump({"metrics": res, "per_class": {c: dict(zip(("tp", "fp", "fn", "iou"), s)) for c, s in stat.items()}}, open(f"{out}/expected.json", "w"), indent=1)
print(res)

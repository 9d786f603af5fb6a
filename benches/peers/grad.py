"""Forward and back to the input, of the largest logit, in PyTorch with tiled attention: median ms per image, float32, random weights.

usage: grad.py MODEL BATCH RES [--threads 2] [--weights]     --weights: their gradients too, as PyTorch does unless told otherwise
Prints one JSON line. Ours: nat-infer bench --arch nat-mini --batch-size BATCH --resolution RES --threads 2 --gradients
"""
import argparse, json, os, resource, statistics, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import torch
import nat_torch as nt
import race

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("model"); parser.add_argument("batch", type=int); parser.add_argument("resolution", type=int)
parser.add_argument("--threads", type=int, default=2); parser.add_argument("--weights", action="store_true")
a = parser.parse_args()
torch.set_num_threads(a.threads)
model = nt.randomize(nt.NAT(**nt.ZOO[a.model]), 1).requires_grad_(a.weights)
nt.na2d = race.tiled_op
x = torch.randn(a.batch, 3, a.resolution, a.resolution)


def run():
    y = x.clone().requires_grad_()
    model(y).max(1).values.sum().backward()


run()
times = []
while len(times) < 5 or sum(times) < 5:
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
print(json.dumps({"engine": "torch backward" + (" with weights" if a.weights else ""), "model": a.model, "batch": a.batch,
                  "resolution": a.resolution, "threads": a.threads, "median_ms": round(1e3 * statistics.median(times) / a.batch, 2),
                  "min_ms": round(1e3 * min(times) / a.batch, 2), "runs": len(times),
                  "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}))

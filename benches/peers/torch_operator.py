"""The attention operator in PyTorch, of NATTEN 0.17.5 and of nat_infer.torch: median and fastest ms, float32, batch 1.

usage: torch_operator.py natten|na2d|halves [--threads 2] [--backward]      NATTEN_FAST: the folder with NATTEN built at -O3
The maps are NAT-Tiny's. `halves` is what code that was written for NATTEN calls: natten2dqkrpb, softmax, natten2dav.
Prints one JSON line.
"""
import argparse, json, os, statistics, sys, time
if os.environ.get("NATTEN_FAST"):
    sys.path.insert(0, os.environ["NATTEN_FAST"])
import torch

MAPS = [(56, 2), (28, 4), (14, 8), (7, 16)]  # side, heads; of 32 channels
KERNEL, DIM = 7, 32

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("engine", choices=["natten", "na2d", "halves"])
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--backward", action="store_true")
a = parser.parse_args()
torch.set_num_threads(a.threads)

if a.engine == "natten":
    from natten.functional import na2d_av, na2d_qk
    qk = lambda q, k, rpb: na2d_qk(q, k, KERNEL, 1, rpb=rpb)
    av = lambda p, v: na2d_av(p, v, KERNEL, 1)
else:
    from nat_infer.torch import na2d
    from nat_infer.torch.compat import natten2dav, natten2dqkrpb
    qk = lambda q, k, rpb: natten2dqkrpb(q, k, rpb, KERNEL, 1)
    av = lambda p, v: natten2dav(p, v, KERNEL, 1)


def halves(qkv, rpb, heads):
    """As NATTEN's own module computes it."""
    b, h, w, _ = qkv.shape
    q, k, v = qkv.reshape(b, h, w, 3, heads, DIM).permute(3, 0, 4, 1, 2, 5)
    out = av(qk(q * DIM**-0.5, k, rpb).softmax(-1), v)
    return out.permute(0, 2, 3, 1, 4).reshape(b, h, w, -1)


operator = (lambda qkv, rpb, heads: na2d(qkv, rpb, heads, KERNEL)) if a.engine == "na2d" else halves
line = {"engine": a.engine, "threads": a.threads, "backward": a.backward}
for side, heads in MAPS:
    torch.manual_seed(0)
    qkv = torch.randn(1, side, side, 3 * heads * DIM, requires_grad=a.backward)
    rpb = torch.randn(heads, 2 * KERNEL - 1, 2 * KERNEL - 1, requires_grad=a.backward)
    grad = torch.randn(1, side, side, heads * DIM)

    def run():
        if a.backward:
            return torch.autograd.grad(operator(qkv, rpb, heads), (qkv, rpb), grad)
        with torch.no_grad():
            return operator(qkv, rpb, heads)

    run()
    times = []
    while len(times) < 10 or sum(times) < 0.7:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    line[f"{side}x{side}"] = [round(1e3 * statistics.median(times), 3), round(1e3 * min(times), 3)]
print(json.dumps(line))

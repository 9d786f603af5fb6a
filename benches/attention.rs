//! The attention operator alone, at the shapes of published models, in multiply-adds a second
//! (times two: FLOP/s), and forward and back, where the way back counts as two and a half times as
//! many. `RAYON_NUM_THREADS` sets the threads, `NAT_INFER_ISA` the instruction set.

// criterion_group! writes a public function without a comment.
#![allow(missing_docs)]

use candle_core::{Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nat_infer::attention::NeighborhoodAttention;

/// Name, side of the map, heads, kernel size, dilation; 32 channels per head.
const SHAPES: [(&str, usize, usize, usize, usize); 10] = [
    ("nat-tiny level 1", 56, 2, 7, 1),
    ("nat-tiny level 2", 28, 4, 7, 1),
    ("nat-tiny level 3", 14, 8, 7, 1),
    ("nat-tiny level 4", 7, 16, 7, 1),
    ("dinat-tiny level 1", 56, 2, 7, 8),
    ("dinat-tiny level 2", 28, 4, 7, 4),
    ("dinat-tiny level 3", 14, 8, 7, 2),
    ("kernel 13", 56, 2, 13, 1),
    ("whole map 14", 14, 12, 14, 1),
    ("detection level 1", 200, 2, 7, 1),
];

fn operator(c: &mut Criterion) {
    for (group, gradients) in [("attention", false), ("attention gradients", true)] {
        let mut group = c.benchmark_group(group);
        for (name, side, heads, kernel_size, dilation) in SHAPES {
            let attention = NeighborhoodAttention { heads, kernel_size, dilation };
            let qkv = Var::randn(0f32, 1., (1, side, side, 3 * heads * 32), &Device::Cpu).unwrap();
            let rpb = (heads, 2 * kernel_size - 1, 2 * kernel_size - 1);
            let rpb = Tensor::randn(0f32, 1., rpb, &Device::Cpu).unwrap();
            let multiply_adds = 2 * side * side * kernel_size * kernel_size * heads * 32;
            let passes = if gradients { 7 } else { 2 };
            group.throughput(Throughput::Elements((multiply_adds * passes / 2) as u64));
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| {
                    let out = attention.forward(&qkv, Some(&rpb)).unwrap();
                    gradients.then(|| out.backward().unwrap())
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, operator);
criterion_main!(benches);

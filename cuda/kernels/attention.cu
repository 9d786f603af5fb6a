// Neighborhood attention for any kernel size, dilation, channels of a head and element type; sums and softmax in f32.
//
// A warp computes one query of one head. Its lanes first take a neighbour each, 32 at a time, for the scores; then a channel
// each, for the sums of the values. The softmax is online, so a window of any size needs no memory of its own. Keys and
// values that neighbouring queries share come from the caches.
#include "attention.cuh"

// qkv [batch, height, width, 3, heads, dim], rpb [heads, 2 kernel - 1, 2 kernel - 1], out [batch, height, width, heads, dim]; pad,
// of a padded position if there are any, [3, heads, dim]; query_bias, which q lacks if it is there, [heads, dim].
// PARTS: how many channels a lane sums up in one pass over the window; wider heads take several.
template <typename T, int PARTS>
__device__ __forceinline__ void attention(const T* __restrict__ qkv, const T* __restrict__ rpb,
                                          const T* __restrict__ pad, const T* __restrict__ query_bias, T* __restrict__ out,
                                          const Sizes& sizes) {
  const int lane = threadIdx.x % 32;
  const Point query(sizes, warp_index());
  if (query.pixel >= sizes.pixels()) return;
  const int sy = query.rows.start(query.y), sx = query.columns.start(query.x);
  const Window neighbours(query, sy, sx);
  const int kernel = sizes.kernel, window = kernel * kernel, dim = sizes.dim;
  const T* bias = rpb + sizes.bias(query.head, query.rows.bias(query.y, sy), query.columns.bias(query.x, sx));
  const T* q = qkv + sizes.q(query.pixel, query.head);
  const T* missing = query_bias ? query_bias + size_t(query.head) * dim : nullptr;
  const float scale = sizes.scale();

  for (int first = 0; first < dim; first += 32 * PARTS) {
    float largest = -INFINITY, sum = 0, values[PARTS] = {};
    for (int done = 0; done < window; done += 32) {
      const int t = done + lane, ty = t / kernel, tx = t % kernel;
      float score = -INFINITY;
      const T* k = q;
      if (t < window) {
        k = neighbours.key(qkv, pad, sizes, query.head, ty, tx);
        const float product = missing ? dot<2, true>(q, k, sizes, missing) : dot<4>(q, k, sizes);
        score = fmaf(product, scale, to_float(bias[ty * sizes.side() + tx]));
      }
      const float before = largest;
      largest = fmaxf(largest, warp_max(score));
      const float p = t < window ? expf(score - largest) : 0, correction = expf(before - largest);
      sum = sum * correction + warp_sum(p);
#pragma unroll
      for (int i = 0; i < PARTS; i++) values[i] *= correction;
      const size_t v = reinterpret_cast<size_t>(k + sizes.stride());
      for (int j = 0; j < min(32, window - done); j++) {
        const float weight = __shfl_sync(ALL, p, j);
        const T* from = reinterpret_cast<const T*>(__shfl_sync(ALL, v, j));
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
          const int channel = first + 32 * i + lane;
          if (channel < dim) values[i] = fmaf(weight, to_float(from[channel]), values[i]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
      const int channel = first + 32 * i + lane;
      if (channel < dim) out[sizes.out(query.pixel, query.head) + channel] = from_float<T>(values[i] / sum);
    }
  }
}

#define ATTENTION(name, T, PARTS)                                                                                          \
  extern "C" __global__ void __launch_bounds__(128) name(const T* qkv, const T* rpb, const T* pad,                         \
                                                           const T* query_bias, T* out, PARAMETERS) {                      \
    attention<T, PARTS>(qkv, rpb, pad, query_bias, out, SIZES);                                                            \
  }                                                                                                                        \
  KERNEL(name)

FOR_EACH_TYPE(ATTENTION, attention)

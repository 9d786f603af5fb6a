// Neighborhood attention for any kernel size, dilation, channels of a head and element type; sums and softmax in f32.
//
// A warp computes one query of one head. Its lanes first take a neighbour each, 32 at a time, for the scores; then a channel
// each, for the sums of the values. The softmax is online, so a window of any size needs no memory of its own. Keys and
// values that neighbouring queries share come from the caches.
#include "device.cuh"
#include "window.cuh"

constexpr unsigned ALL = 0xffffffffu;

__device__ __forceinline__ float warp_max(float x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, lanes));
  return x;
}

__device__ __forceinline__ float warp_sum(float x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL, x, lanes);
  return x;
}

// The dot product of two vectors; `aligned` to 16 bytes, and of whole words of 16 bytes.
template <typename T> __device__ __forceinline__ float dot(const T* a, const T* b, int dim, bool aligned) {
  float sum = 0;
  if (aligned) {
    constexpr int N = 16 / sizeof(T);
    for (int i = 0; i < dim; i += N) {
      const uint4 wa = *reinterpret_cast<const uint4*>(a + i), wb = *reinterpret_cast<const uint4*>(b + i);
      const T *va = reinterpret_cast<const T*>(&wa), *vb = reinterpret_cast<const T*>(&wb);
#pragma unroll
      for (int j = 0; j < N; j++) sum = fmaf(to_float(va[j]), to_float(vb[j]), sum);
    }
  } else {
    for (int i = 0; i < dim; i++) sum = fmaf(to_float(a[i]), to_float(b[i]), sum);
  }
  return sum;
}

// qkv [batch, height, width, 3, heads, dim], rpb [heads, 2 kernel - 1, 2 kernel - 1], out [batch, height, width, heads, dim].
// PARTS: how many channels a lane sums up in one pass over the window; wider heads take several.
template <typename T, int PARTS>
__device__ __forceinline__ void attention(const T* __restrict__ qkv, const T* __restrict__ rpb, T* __restrict__ out, int batch,
                                          int height, int width, int heads, int dim, int kernel, int dilation, int aligned) {
  const int lane = threadIdx.x % 32;
  const size_t warp = blockIdx.x * size_t(blockDim.x / 32) + threadIdx.x / 32;
  const int head = warp % heads;
  const size_t pixel = warp / heads;
  if (pixel >= size_t(batch) * height * width) return;
  const int x = pixel % width, y = pixel / width % height;
  const size_t image = pixel / width / height * height * width;
  const Axis rows(height, kernel, dilation, y % dilation), columns(width, kernel, dilation, x % dilation);
  const int my = y / dilation, mx = x / dilation, sy = rows.start(my), sx = columns.start(mx);
  const int side = 2 * kernel - 1, window = kernel * kernel;
  const T* bias = rpb + (size_t(head) * side + rows.bias(my, sy)) * side + columns.bias(mx, sx);
  const size_t stride = size_t(heads) * dim;  // from q to k and from k to v
  const T* q = qkv + pixel * 3 * stride + size_t(head) * dim;
  const float scale = 1.0f / sqrtf(float(dim));

  for (int first = 0; first < dim; first += 32 * PARTS) {
    float largest = -INFINITY, sum = 0, values[PARTS] = {};
    for (int done = 0; done < window; done += 32) {
      const int t = done + lane, ty = t / kernel, tx = t % kernel;
      float score = -INFINITY;
      const T* k = q;
      if (t < window) {
        k = qkv + (image + size_t(rows.position(sy + ty)) * width + columns.position(sx + tx)) * 3 * stride + stride + size_t(head) * dim;
        score = fmaf(dot(q, k, dim, aligned), scale, to_float(bias[ty * side + tx]));
      }
      const float before = largest;
      largest = fmaxf(largest, warp_max(score));
      const float p = t < window ? expf(score - largest) : 0, correction = expf(before - largest);
      sum = sum * correction + warp_sum(p);
#pragma unroll
      for (int i = 0; i < PARTS; i++) values[i] *= correction;
      const size_t v = k - qkv + stride;
      for (int j = 0; j < min(32, window - done); j++) {
        const float weight = __shfl_sync(ALL, p, j);
        const T* from = qkv + __shfl_sync(ALL, v, j);
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
      if (channel < dim) out[pixel * stride + size_t(head) * dim + channel] = from_float<T>(values[i] / sum);
    }
  }
}

#define ATTENTION(name, T, PARTS)                                                                                          \
  extern "C" __global__ void __launch_bounds__(128)                                                                        \
      name(const T* qkv, const T* rpb, T* out, int batch, int height, int width, int heads, int dim, int kernel,           \
           int dilation, int aligned) {                                                                                    \
    attention<T, PARTS>(qkv, rpb, out, batch, height, width, heads, dim, kernel, dilation, aligned);                       \
  }                                                                                                                        \
  KERNEL(name)

ATTENTION(attention_f32, float, 1)
ATTENTION(attention_f16, __half, 1)
ATTENTION(attention_bf16, __nv_bfloat16, 1)
ATTENTION(attention_wide_f32, float, 4)
ATTENTION(attention_wide_f16, __half, 4)
ATTENTION(attention_wide_bf16, __nv_bfloat16, 4)

// What the general kernels of neighborhood attention and of its gradient share.
#pragma once

#include "device.cuh"
#include "window.cuh"

// The sizes of a computation. `aligned`: vectors of a head begin at a multiple of 16 bytes and are whole words of 16 bytes.
struct Sizes {
  int batch, height, width, heads, dim, kernel, dilation, aligned;

  __device__ size_t pixels() const { return size_t(batch) * height * width; }
  // From a pixel's q to its k and from k to v.
  __device__ size_t stride() const { return size_t(heads) * dim; }
  // Where a head's vector begins: q in qkv, and that of an output.
  __device__ size_t q(size_t pixel, int head) const { return (pixel * 3 * heads + head) * dim; }
  __device__ size_t out(size_t pixel, int head) const { return (pixel * heads + head) * dim; }
  // Biases on an axis, and where one lies.
  __device__ int side() const { return 2 * kernel - 1; }
  __device__ size_t bias(int head, int y, int x) const { return (size_t(head) * side() + y) * side() + x; }
  // On each axis.
  __device__ int dilation_y() const { return dilation_of(height, dilation); }
  __device__ int dilation_x() const { return dilation_of(width, dilation); }
  __device__ float scale() const { return 1.0f / sqrtf(float(dim)); }
};

// A kernel's parameters behind its pointers, and what they say.
#define PARAMETERS int batch, int height, int width, int heads, int dim, int kernel, int dilation, int aligned
#define SIZES Sizes{batch, height, width, heads, dim, kernel, dilation, aligned}

// A kernel for each type, and for narrow heads and wide ones: the PARTS of attention.cu.
#define FOR_EACH_TYPE(DEFINE, name)                                                                                         \
  FOR_F32(DEFINE(name##_f32, float, 1) DEFINE(name##_wide_f32, float, 4))                                                  \
  FOR_F16(DEFINE(name##_f16, __half, 1) DEFINE(name##_wide_f16, __half, 4))                                                \
  FOR_BF16(DEFINE(name##_bf16, __nv_bfloat16, 1) DEFINE(name##_wide_bf16, __nv_bfloat16, 4))

// The pixel and the head that a warp computes. Heads are fastest, since they lie side by side in memory.
struct Point {
  int head, width;
  size_t pixel, image;  // image: its first pixel
  Axis rows, columns;   // the classes of the pixel
  int y, x;             // its place in them

  __device__ Point(const Sizes& s, size_t warp)
      : head(warp % s.heads), width(s.width), pixel(warp / s.heads), image(pixel / s.width / s.height * s.height * s.width),
        rows(s.height, s.kernel, s.dilation_y(), pixel / s.width % s.height % s.dilation_y()),
        columns(s.width, s.kernel, s.dilation_x(), pixel % s.width % s.dilation_x()),
        y(pixel / s.width % s.height / s.dilation_y()), x(pixel % s.width / s.dilation_x()) {}

  // The pixel at a place of the same classes, which is not padded.
  __device__ size_t at(int y, int x) const { return image + size_t(rows.position(y)) * width + columns.position(x); }
};

// The keys of a query.
struct Window {
  size_t first, row;        // the pixel of the first one, and from one row of them to the next
  int column, rows, columns;  // from one key to the next; how many are not padded

  // Those from a place on.
  __device__ Window(const Point& query, int y, int x)
      : first(query.at(y, x)), row(size_t(query.rows.dilation) * query.width), column(query.columns.dilation),
        rows(query.rows.size - y), columns(query.columns.size - x) {}

  // One of them. `pad` has, as qkv has of each pixel, q, k and v of all padded places.
  template <typename T> __device__ const T* key(const T* qkv, const T* pad, const Sizes& s, int head, int y, int x) const {
    return (y < rows && x < columns ? qkv + s.q(first + y * row + x * column, head) : pad + s.q(0, head)) + s.stride();
  }
};

// Which of all warps this one is.
__device__ __forceinline__ size_t warp_index() { return blockIdx.x * size_t(blockDim.x / 32) + threadIdx.x / 32; }

// The sum of two elements as a tensor of their type keeps it.
template <typename T> __device__ __forceinline__ float rounded_sum(T a, T b) {
  return to_float(from_float<T>(to_float(a) + to_float(b)));
}

// The dot product of two vectors of a head, in a SUM the first one plus a third one. UNROLLED: how many words of each are under way
// at once, in registers.
template <int UNROLLED, bool SUM = false, typename T>
__device__ __forceinline__ float dot(const T* a, const T* b, const Sizes& s, const T* to_a = nullptr) {
  float sum = 0;
  if (s.aligned) {
    constexpr int N = 16 / sizeof(T);
#pragma unroll UNROLLED
    for (int i = 0; i < s.dim; i += N) {
      const uint4 wa = *reinterpret_cast<const uint4*>(a + i), wb = *reinterpret_cast<const uint4*>(b + i);
      const uint4 wc = SUM ? *reinterpret_cast<const uint4*>(to_a + i) : wa;
      const T *va = reinterpret_cast<const T*>(&wa), *vb = reinterpret_cast<const T*>(&wb), *vc = reinterpret_cast<const T*>(&wc);
#pragma unroll
      for (int j = 0; j < N; j++) sum = fmaf(SUM ? rounded_sum(va[j], vc[j]) : to_float(va[j]), to_float(vb[j]), sum);
    }
  } else {
    for (int i = 0; i < s.dim; i++) sum = fmaf(SUM ? rounded_sum(a[i], to_a[i]) : to_float(a[i]), to_float(b[i]), sum);
  }
  return sum;
}

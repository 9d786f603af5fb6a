// Moving the values of maps and images: nothing is computed but a rounding. Along x a block's threads go through a row of the
// result, y is the row, and z the image, of which a block takes several where there are more than a grid has.
#include "device.cuh"

// N elements that are read and written at once.
template <typename T, int N> struct alignas(sizeof(T) * N) Pack { T at[N]; };

// x [count] in another type.
template <typename S, typename T> __device__ __forceinline__ void convert(const S* x, T* out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = from_float<T>(to_float(x[i]));
}

// The four neighbours of every 2x2 positions of x [batch, height, width, channels] side by side, in the order of columns, then
// rows: out [batch, (height + 1) / 2, (width + 1) / 2, 2, 2, channels], zero beyond the map.
template <typename T, int N>
__device__ __forceinline__ void merge(const T* x, T* out, int batch, int height, int width, int channels) {
  using P = Pack<T, N>;
  const int out_width = (width + 1) / 2, depth = 4 * channels;
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (i >= out_width * depth) return;
  const int neighbour = i % depth / channels, channel = i % channels;
  const int sx = i / depth * 2 + neighbour / 2, sy = blockIdx.y * 2 + neighbour % 2;
  for (int image = blockIdx.z; image < batch; image += gridDim.z) {
    P value = {};
    if (sx < width && sy < height)
      value = *reinterpret_cast<const P*>(x + ((size_t(image) * height + sy) * width + sx) * channels + channel);
    *reinterpret_cast<P*>(out + (size_t(image) * gridDim.y + blockIdx.y) * out_width * depth + i) = value;
  }
}

// The windows of a convolution of images x [batch, channels, height, width] as rows of a product: out [batch, out_height,
// out_width, depth], a row as PyTorch's weights are, [channels, kernel, kernel], zero outside the image, and then zeros.
template <typename S, typename T>
__device__ __forceinline__ void image_windows(const S* x, T* out, int batch, int channels, int height, int width, int out_width,
                                              int depth, int kernel, int stride, int padding) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= out_width * depth) return;
  const int at = i % depth, kx = at % kernel, ky = at / kernel % kernel, channel = at / kernel / kernel;
  const int sx = i / depth * stride + kx - padding, sy = int(blockIdx.y) * stride + ky - padding;
  const bool inside = channel < channels && unsigned(sx) < unsigned(width) && unsigned(sy) < unsigned(height);
  for (int image = blockIdx.z; image < batch; image += gridDim.z) {
    const float value = inside ? to_float(x[((size_t(image) * channels + channel) * height + sy) * width + sx]) : 0.0f;
    out[(size_t(image) * gridDim.y + blockIdx.y) * out_width * depth + i] = from_float<T>(value);
  }
}

#define CONVERT(name, S, T)                                                                                                \
  extern "C" __global__ void __launch_bounds__(256) name(const S* x, T* out, int count) { convert(x, out, count); }         \
  KERNEL(name)

#define MERGE(name, T, N)                                                                                                  \
  extern "C" __global__ void __launch_bounds__(256) name(const T* x, T* out, int batch, int height, int width, int channels) { \
    merge<T, N>(x, out, batch, height, width, channels);                                                                   \
  }                                                                                                                        \
  KERNEL(name)

#define IMAGE_WINDOWS(name, S, T)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256) name(const S* x, T* out, int batch, int channels, int height, int width, \
                                                         int out_width, int depth, int kernel, int stride, int padding) {  \
    image_windows(x, out, batch, channels, height, width, out_width, depth, kernel, stride, padding);                      \
  }                                                                                                                        \
  KERNEL(name)

CONVERT(convert_f16_f32, __half, float)
CONVERT(convert_bf16_f32, __nv_bfloat16, float)

MERGE(merge_f32, float, 1)
MERGE(merge_f16, __half, 1)
MERGE(merge_bf16, __nv_bfloat16, 1)
MERGE(merge_f32_vector, float, 4)
MERGE(merge_f16_vector, __half, 8)
MERGE(merge_bf16_vector, __nv_bfloat16, 8)

IMAGE_WINDOWS(image_windows_f32_f32, float, float)
IMAGE_WINDOWS(image_windows_f32_f16, float, __half)
IMAGE_WINDOWS(image_windows_f32_bf16, float, __nv_bfloat16)
IMAGE_WINDOWS(image_windows_f16_f16, __half, __half)
IMAGE_WINDOWS(image_windows_bf16_bf16, __nv_bfloat16, __nv_bfloat16)

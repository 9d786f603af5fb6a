// What stands between the matrix products of a layer. Every tensor is [rows, channels], contiguous, of one type; arithmetic in
// f32. A thread takes whole words of 16 bytes where channels allow it (_vector), else single elements.
#include "layers.cuh"

// out = residual + gamma * activation(x + bias); each of bias, gamma [channels] and residual [rows, channels] may be null, and out
// may be x. A thread keeps the bias and gamma of its N channels, which the grid's y and the block's x say, for all its rows.
template <typename T, int N, Activation A>
__device__ __forceinline__ void finish(const T* x, const T* bias, const T* gamma, const T* residual, T* out, int rows,
                                       int channels) {
  using P = Pack<T, N>;
  const unsigned words = unsigned(channels) / N, word = blockIdx.y * blockDim.x + threadIdx.x;
  if (word >= words) return;
  float b[N], g[N];
  widen_given(bias, word, 0, b);
  widen_given(gamma, word, 1, g);
  for (unsigned row = blockIdx.x * blockDim.y + threadIdx.y; row < unsigned(rows); row += gridDim.x * blockDim.y) {
    const unsigned i = row * words + word;
    reinterpret_cast<P*>(out)[i] = finished<T, N, A>(load<T, N>(x, i), b, g, residual, i);
  }
}

// The windows of a convolution as rows of a product: x [batch, height, width, channels] to out
// [batch, out_height, out_width, depth], of which the first kernel x kernel x channels are the window, zero outside the map, and
// the rest zero. A thread takes a word of N neighbouring channels, of which the grid's x is the row and y and the block's x the place
// in it, for the images that the grid's z says: all but the image is the same for each.
template <typename T, int N>
__device__ __forceinline__ void windows(const T* x, T* out, int batch, int height, int width, int channels, int out_height,
                                        int out_width, int depth, int kernel, int stride, int padding) {
  using P = Pack<T, N>;
  const unsigned word = blockIdx.y * blockDim.x + threadIdx.x, words = unsigned(depth) / N, row_words = out_width * words;
  if (word >= row_words) return;
  const unsigned column = word / words, at = (word - column * words) * N;
  const unsigned tap = at / channels, channel = at - tap * channels, ky = tap / kernel, kx = tap - ky * kernel;
  const int sx = int(column * stride + kx) - padding, sy = int(blockIdx.x * stride + ky) - padding;
  const bool inside = ky < unsigned(kernel) && unsigned(sx) < unsigned(width) && unsigned(sy) < unsigned(height);
  const size_t image = size_t(height) * width * channels, out_image = size_t(out_height) * row_words;
  x += blockIdx.z * image + (size_t(sy) * width + sx) * channels + channel;
  P* to = reinterpret_cast<P*>(out) + blockIdx.z * out_image + size_t(blockIdx.x) * row_words + word;
  for (unsigned i = blockIdx.z; i < unsigned(batch); i += gridDim.z) {
    P value = {};
    if (inside) value = *reinterpret_cast<const P*>(x);
    *to = value;
    x += gridDim.z * image;
    to += gridDim.z * out_image;
  }
}

// The mean of x [batch, places, channels] over its places, [batch, channels]. A block takes an image and 32 channels: its
// warps share the places.
template <typename T>
__device__ __forceinline__ void mean(const T* x, T* out, int places, int channels) {
  constexpr int WARPS = 8;
  __shared__ float sums[WARPS][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int parts = (channels + 31) / 32, channel = blockIdx.x % parts * 32 + lane;
  const size_t image = blockIdx.x / parts;
  float sum = 0;
  if (channel < channels)
    for (int place = warp; place < places; place += WARPS) sum += to_float(x[(image * places + place) * channels + channel]);
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || channel >= channels) return;
  for (int i = 1; i < WARPS; i++) sum += sums[i][lane];
  out[image * channels + channel] = from_float<T>(sum / places);
}

#define FINISH(name, T, N, A)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256)                                                                        \
      name(const T* x, const T* bias, const T* gamma, const T* residual, T* out, int rows, int channels) {                 \
    finish<T, N, A>(x, bias, gamma, residual, out, rows, channels);                                                        \
  }                                                                                                                        \
  KERNEL(name)

// The name of a kernel says its type and how many elements a thread takes.
#define KERNELS(type, T, suffix, N)                                                                                         \
  FINISH(finish_##type##suffix, T, N, NONE)                                                                                \
  FINISH(finish_gelu_##type##suffix, T, N, GELU)                                                                           \
  FINISH(finish_relu_##type##suffix, T, N, RELU)                                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                                                        \
      windows_##type##suffix(const T* x, T* out, int batch, int height, int width, int channels, int out_height,           \
                             int out_width, int depth, int kernel, int stride, int padding) {                              \
    windows<T, N>(x, out, batch, height, width, channels, out_height, out_width, depth, kernel, stride, padding);          \
  }                                                                                                                        \
  KERNEL(windows_##type##suffix)

#define ALL_KERNELS(type, T)                                                                                               \
  KERNELS(type, T, _vector, 16 / sizeof(T))                                                                                \
  KERNELS(type, T, , 1)                                                                                                    \
  extern "C" __global__ void __launch_bounds__(256) mean_##type(const T* x, T* out, int places, int channels) {            \
    mean<T>(x, out, places, channels);                                                                                     \
  }                                                                                                                        \
  KERNEL(mean_##type)

FOR_F32(ALL_KERNELS(f32, float))
FOR_F16(ALL_KERNELS(f16, __half))
FOR_BF16(ALL_KERNELS(bf16, __nv_bfloat16))

// Layer norm over the channels: (x - mean) / sqrt(variance + epsilon) * weight + bias (arXiv 1607.06450), alone and behind what
// ends a layer. Tensors are [rows, channels], contiguous, of one type.
#include "layers.cuh"

// The sum over the lanes that share a row: those of the block's x, a power of two up to 32.
__device__ __forceinline__ float row_sum(float x) {
  for (int lanes = blockDim.x / 2; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL, x, lanes);
  return x;
}

// How a row of a block is normalised: `inverse` is 1 / channels.
struct Scaling { float inverse, epsilon; };

// 1 / sqrt(variance + epsilon) of the sum of squared deviations.
__device__ __forceinline__ float row_scale(float squares, Scaling scaling) {
  return rsqrtf(fmaf(squares, scaling.inverse, scaling.epsilon));
}

template <typename T, int N>
__device__ __forceinline__ Pack<T, N> normed(Pack<T, N> x, float mean, float scale, const T* weight, const T* bias, unsigned i) {
  float value[N], w[N], b[N];
  widen<T>(x, value);
  widen<T>(load<T, N>(weight, i), w);
  widen<T>(load<T, N>(bias, i), b);
#pragma unroll
  for (int j = 0; j < N; j++) value[j] = fmaf((value[j] - mean) * scale, w[j], b[j]);
  return rounded<T>(value);
}

// A row in registers: the block's x is the lanes that share it, each of which has up to W words of it, and zeros for what it has
// not. The row of `words` words, or of none behind the last row, begins at word `first` of the tensors.
template <typename T, int W> struct Row {
  static constexpr int N = 16 / sizeof(T);
  uint4 at[W];
  unsigned first, words;

  __device__ __forceinline__ Row(int rows, int channels) : at{} {
    const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    words = row < unsigned(rows) ? unsigned(channels) / N : 0;
    first = row * (unsigned(channels) / N);
  }

  // Calls use(word of this lane, its place in the row) for each.
  template <typename F> __device__ __forceinline__ void each(F use) {
#pragma unroll
    for (int i = 0; i < W; i++) {
      const unsigned word = i * blockDim.x + threadIdx.x;
      if (word < words) use(at[i], word);
    }
  }

  // All lanes of a warp call it.
  __device__ __forceinline__ void normalise(const T* weight, const T* bias, T* out, Scaling scaling) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < W; i++) {
      float value[N];
      widen<T>(at[i], value);
#pragma unroll
      for (int j = 0; j < N; j++) sum += value[j];
    }
    const float mean = row_sum(sum) * scaling.inverse;
    // From the registers once more: E[x²] - mean² would cancel.
    float squares = 0;
    each([&](uint4 x, unsigned) {
      float value[N];
      widen<T>(x, value);
#pragma unroll
      for (int j = 0; j < N; j++) squares = fmaf(value[j] - mean, value[j] - mean, squares);
    });
    const float scale = row_scale(row_sum(squares), scaling);
    each([&](uint4 x, unsigned word) {
      reinterpret_cast<uint4*>(out)[first + word] = normed<T, N>(x, mean, scale, weight, bias, word);
    });
  }
};

template <typename T, int W>
__device__ __forceinline__ void layer_norm(const T* x, const T* weight, const T* bias, T* out, int rows, int channels, Scaling scaling) {
  Row<T, W> row(rows, channels);
  row.each([&](uint4& to, unsigned word) { to = load<T, row.N>(x, row.first + word); });
  row.normalise(weight, bias, out, scaling);
}

// out = residual + gamma * (x + bias), each of bias, gamma and residual null where there is none, and the norm of this out, as it
// was rounded, into `normed`. out is null where only the norm is wanted.
template <typename T, int W>
__device__ __forceinline__ void finish_norm(const T* x, const T* bias, const T* gamma, const T* residual, const T* weight,
                                            const T* norm_bias, T* out, T* normed, int rows, int channels, Scaling scaling) {
  constexpr int N = Row<T, W>::N;
  Row<T, W> row(rows, channels);
  row.each([&](uint4& to, unsigned word) {
    float b[N], g[N];
    widen_given(bias, word, 0, b);
    widen_given(gamma, word, 1, g);
    const unsigned i = row.first + word;
    to = finished<T, N, NONE>(load<T, N>(x, i), b, g, residual, i);
    if (out) reinterpret_cast<uint4*>(out)[i] = to;
  });
  row.normalise(weight, norm_bias, normed, scaling);
}

// For rows that are no whole words, or too wide for registers.
template <typename T>
__device__ __forceinline__ void layer_norm_any(const T* x, const T* weight, const T* bias, T* out, int rows, int channels, Scaling scaling) {
  const unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
  const unsigned end = row < unsigned(rows) ? channels : 0;
  x += size_t(row) * channels;
  out += size_t(row) * channels;
  float sum = 0, squares = 0;
  for (unsigned c = threadIdx.x; c < end; c += blockDim.x) sum += to_float(x[c]);
  const float mean = row_sum(sum) * scaling.inverse;
  for (unsigned c = threadIdx.x; c < end; c += blockDim.x) {
    const float d = to_float(x[c]) - mean;
    squares = fmaf(d, d, squares);
  }
  const float scale = row_scale(row_sum(squares), scaling);
  for (unsigned c = threadIdx.x; c < end; c += blockDim.x)
    out[c] = normed<T, 1>(x[c], mean, scale, weight, bias, c);
}

// Sizes are whole numbers: `inverse` and `epsilon` come as their bits.
#define LAYER_NORM(name, T, norm)                                                                                           \
  extern "C" __global__ void __launch_bounds__(128)                                                                        \
      name(const T* x, const T* weight, const T* bias, T* out, int rows, int channels, int inverse, int epsilon) {         \
    norm(x, weight, bias, out, rows, channels, Scaling{__int_as_float(inverse), __int_as_float(epsilon)});                 \
  }                                                                                                                        \
  KERNEL(name)

// The name of a kernel says its type and how many words a lane takes.
#define ROWS(type, T, W)                                                                                                    \
  LAYER_NORM(layer_norm_##type##_##W, T, (layer_norm<T, W>))                                                               \
  extern "C" __global__ void __launch_bounds__(128)                                                                        \
      finish_norm_##type##_##W(const T* x, const T* bias, const T* gamma, const T* residual, const T* weight,              \
                               const T* norm_bias, T* out, T* normed, int rows, int channels, int inverse, int epsilon) {  \
    finish_norm<T, W>(x, bias, gamma, residual, weight, norm_bias, out, normed, rows, channels,                            \
                      {__int_as_float(inverse), __int_as_float(epsilon)});                                                 \
  }                                                                                                                        \
  KERNEL(finish_norm_##type##_##W)

#define NORMS(type, T)                                                                                                      \
  LAYER_NORM(layer_norm_##type, T, layer_norm_any<T>)                                                                      \
  ROWS(type, T, 1)                                                                                                         \
  ROWS(type, T, 3)                                                                                                         \
  ROWS(type, T, 4)                                                                                                         \
  ROWS(type, T, 8)

// 2048 channels are twice as many words in f32.
FOR_F32(NORMS(f32, float) ROWS(f32, float, 16))
FOR_F16(NORMS(f16, __half))
FOR_BF16(NORMS(bf16, __nv_bfloat16))

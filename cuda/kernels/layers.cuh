// What the kernels of layers share: words of 16 bytes, and what follows a product. Arithmetic is in f32.
#pragma once
#include <type_traits>

#include "device.cuh"

// N elements that are read and written at once: one, or as many as 16 bytes hold. In words, since of 16-bit elements the compiler
// would take a register each.
template <typename T, int N> using Pack = std::conditional_t<N == 1, T, uint4>;

template <typename T> __device__ __forceinline__ void widen(const T& from, float (&to)[1]) { to[0] = to_float(from); }
template <typename T> __device__ __forceinline__ void widen(const uint4& from, float (&to)[4]) {
  to[0] = __uint_as_float(from.x), to[1] = __uint_as_float(from.y), to[2] = __uint_as_float(from.z), to[3] = __uint_as_float(from.w);
}
template <typename T> __device__ __forceinline__ void widen(const uint4& from, float (&to)[8]) {
  unpack<T>(from.x, to[0], to[1]);
  unpack<T>(from.y, to[2], to[3]);
  unpack<T>(from.z, to[4], to[5]);
  unpack<T>(from.w, to[6], to[7]);
}

template <typename T> __device__ __forceinline__ T rounded(const float (&from)[1]) { return from_float<T>(from[0]); }
template <typename T> __device__ __forceinline__ uint4 rounded(const float (&x)[4]) {
  return make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3]));
}
template <typename T> __device__ __forceinline__ uint4 rounded(const float (&x)[8]) {
  return make_uint4(pack<T>(x[0], x[1]), pack<T>(x[2], x[3]), pack<T>(x[4], x[5]), pack<T>(x[6], x[7]));
}

// Word `i` from `from` on.
template <typename T, int N> __device__ __forceinline__ Pack<T, N> load(const T* from, size_t i) {
  return reinterpret_cast<const Pack<T, N>*>(from)[i];
}

// Elements of channels that begin at word `i`, or `absent` where there are none.
template <typename T, int N>
__device__ __forceinline__ void widen_given(const T* from, size_t i, float absent, float (&to)[N]) {
  if (from) {
    widen<T>(load<T, N>(from, i), to);
  } else {
#pragma unroll
    for (int j = 0; j < N; j++) to[j] = absent;
  }
}

enum Activation { NONE, GELU, RELU };

// GELU for types of 16 bits, without a branch: x Phi(x) = max(x, 0) - |x| Q(|x|), with log2 Q as a polynomial, Q being the upper
// tail 1 - Phi of the normal distribution. The polynomial is fitted to log2 Q on [0, 13.4] for the smallest largest error: Q is
// within 5e-5 of itself to 5.2, where halves end, and within 5e-4 behind it; at 13.4 and all that lies behind 2^log2 Q is 0. So a
// result is within 0.13 units in the last place before it is rounded, one below 2^-122 may be 0, that of -infinity is 0, NaN stays.
__device__ __forceinline__ float gelu_of_half(float x) {
  constexpr float LAST = 13.4f;
  constexpr float LOG_TAIL[] = {-1.000070571899414f,    -1.150313377380371f,     -0.4604443907737732f,
                                -0.05240354686975479f,  0.007945852354168892f,   -0.0008360919891856611f,
                                5.635338311549276e-5f,  -2.160456915589748e-6f,  3.556187166964264e-8f};
  constexpr int DEGREE = sizeof LOG_TAIL / sizeof LOG_TAIL[0] - 1;
  const float size = fminf(fabsf(x), LAST);
  float tail = LOG_TAIL[DEGREE];
#pragma unroll
  for (int i = DEGREE - 1; i >= 0; i--) tail = fmaf(tail, size, LOG_TAIL[i]);
  return fmaf(-size, exp2_approximate(tail), x < 0 ? 0 : x);
}

template <typename T, Activation A> __device__ __forceinline__ float activated(float x) {
  if constexpr (A == RELU) return x < 0 ? 0 : x;  // NaN stays
  if constexpr (A == GELU && sizeof(T) == 2) return gelu_of_half(x);
  // 0.5 x (1 + erf(x / sqrt 2)): GELU as PyTorch computes it by default.
  if constexpr (A == GELU) return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
  return x;
}

// residual + gamma * activation(x + bias); `residual` may be null.
template <typename T, int N, Activation A>
__device__ __forceinline__ Pack<T, N> finished(const Pack<T, N>& x, const float (&bias)[N], const float (&gamma)[N],
                                               const T* residual, unsigned i) {
  float value[N], rest[N];
  widen<T>(x, value);
  widen_given(residual, i, 0, rest);
#pragma unroll
  for (int j = 0; j < N; j++) value[j] = fmaf(activated<T, A>(value[j] + bias[j]), gamma[j], rest[j]);
  return rounded<T>(value);
}

// What the kernels share: element types, and the instructions that CUDA C++ has no words for. Compiled by anything
// but nvcc, the kernels run on the CPU (emulate/cuda.h), and these instructions have bodies there.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

// Lists a kernel by its name for the emulation; nvcc exports it anyway.
#define KERNEL(name)

// The block's dynamic shared memory.
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return bytes;
}
#else
#include "cuda.h"
#endif

// A driver compiles a module as a whole, so a module has the kernels of one type: nvcc is told which, as -DONLY_F16. Told nothing, as
// in the emulation, it compiles all.
#if defined(ONLY_F32)
#define FOR_F32(...) __VA_ARGS__
#define FOR_F16(...)
#define FOR_BF16(...)
#elif defined(ONLY_F16)
#define FOR_F32(...)
#define FOR_F16(...) __VA_ARGS__
#define FOR_BF16(...)
#elif defined(ONLY_BF16)
#define FOR_F32(...)
#define FOR_F16(...)
#define FOR_BF16(...) __VA_ARGS__
#else
#define FOR_F32(...) __VA_ARGS__
#define FOR_F16(...) __VA_ARGS__
#define FOR_BF16(...) __VA_ARGS__
#endif

// All lanes of a warp.
constexpr unsigned ALL = 0xffffffffu;

__device__ __forceinline__ float warp_max(float x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, lanes));
  return x;
}

__device__ __forceinline__ float warp_sum(float x) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(ALL, x, lanes);
  return x;
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16(x); }

// The type of two values.
__device__ inline __half2 pair_of(__half);
__device__ inline __nv_bfloat162 pair_of(__nv_bfloat16);

// Two values in the halves of a word, the first one below.
template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high);
template <> __device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
  __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<uint32_t*>(&pair);
}
template <> __device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<uint32_t*>(&pair);
}

// The two values of such a word.
template <typename T> __device__ __forceinline__ void unpack(uint32_t word, float& low, float& high);
template <> __device__ __forceinline__ void unpack<__half>(uint32_t word, float& low, float& high) {
  const __half2 pair = *reinterpret_cast<__half2*>(&word);
  low = to_float(pair.x), high = to_float(pair.y);
}
template <> __device__ __forceinline__ void unpack<__nv_bfloat16>(uint32_t word, float& low, float& high) {
  low = __uint_as_float(word << 16), high = __uint_as_float(word & 0xffff0000u);
}

// The sums of two pairs, rounded to their type: the same as through f32, which is wide enough to be rounded twice.
template <typename T> __device__ __forceinline__ uint32_t add_pairs(uint32_t a, uint32_t b) {
  using Pair = decltype(pair_of(T()));
  const Pair sum = __hadd2(*reinterpret_cast<const Pair*>(&a), *reinterpret_cast<const Pair*>(&b));
  return *reinterpret_cast<const uint32_t*>(&sum);
}

#if defined(__CUDACC__)
// 2^x, to 2 units in the last place; below the normal numbers it is zero.
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x, to one unit in the last place.
__device__ __forceinline__ float reciprocal_approximate(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

#if defined(__CUDACC__) && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800)
// Copies 16 bytes from global to shared memory behind the program's back, or writes zeros if `real` is false.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool real) {
  uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  int bytes = real ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}

// Copies as `copy_async` does, or does nothing: without a branch, which would cost more than the copy.
__device__ __forceinline__ void copy_async_if(bool real, void* to, const void* from) {
  uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("{\n .reg .pred real;\n setp.ne.b32 real, %2, 0;\n @real cp.async.cg.shared.global [%0], [%1], 16;\n}"
               ::"r"(address), "l"(from), "r"(int(real)) : "memory");
}

// Waits for this thread's copies; __syncthreads then shows them to the block.
__device__ __forceinline__ void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Four 8x8 matrices of 16-bit values from shared memory, transposed. Lane l gives the address of row l % 8 of matrix l / 8 (16
// bytes) and gets of each matrix the values (2 (l % 4), l / 4) and (2 (l % 4) + 1, l / 4).
__device__ __forceinline__ void load_transposed(uint32_t (&m)[4], const void* row) {
  uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3]) : "r"(address) : "memory");
}

// c += a b of a warp: a 16x16, b 16x8, c 16x8 in f32 (mma.m16n8k16, PTX ISA 9.7.14: with g = lane / 4 and t = lane % 4,
// a holds (g, 2t..), (g + 8, 2t..), (g, 2t + 8..), (g + 8, 2t + 8..); b (2t.., g), (2t + 8.., g); c (g, 2t..), (g + 8, 2t..)).
template <typename T> __device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <> __device__ __forceinline__ void multiply<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <> __device__ __forceinline__ void multiply<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

// The part of CUDA C++ that the kernels use, on the CPU, for tests without a GPU. What a kernel computes is what it would compute
// on a GPU, and some mistakes show that a GPU may hide: shared memory begins as NaN, asynchronous copies land as late as they
// may, reads of matrices have to be aligned, writes behind the shared memory are found, and so is a barrier that some threads
// never reach. With NAT_CUDA_REVERSE=1 threads run in the other order, so that a missing barrier changes results.
//
// Every thread of a block is a fiber; barriers and exchanges among a warp's lanes switch to the next one. Blocks are independent
// and are spread over the CPU's threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static thread_local

struct uint3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulated {

#define EMULATED_FAIL(...) (std::fprintf(stderr, "emulated kernel: " __VA_ARGS__), std::fputc('\n', stderr), std::abort())

#if defined(__x86_64__)
// A saved context is a stack pointer, with the registers that a call preserves below it.
using Context = void*;
__attribute__((naked, noinline, unused)) static void switch_context(Context*, Context*) {
  asm("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, (%rdi)\n mov (%rsi), %rsp\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret");
}
inline void make_context(Context& context, char* stack, size_t size, void (*run)()) {
  auto top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(stack) + size) & ~uintptr_t(15));
  *--top = nullptr;  // a function expects its stack 8 bytes off
  *--top = reinterpret_cast<void*>(run);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  context = top;
}
#else
using Context = ucontext_t;
inline void switch_context(Context* from, Context* to) { swapcontext(from, to); }
inline void make_context(Context& context, char* stack, size_t size, void (*run)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = size;
  context.uc_link = nullptr;
  makecontext(&context, run, 0);
}
#endif

struct Copy { void* to; const void* from; bool real; };

struct Fiber {
  Context context;
  uint3 index;
  unsigned number;
  bool done;
  uint64_t exchanges;         // that this lane took part in
  std::vector<Copy> copies;   // under way
};

// What a lane shows to the others of its warp.
struct alignas(8) Message { unsigned char bytes[32]; };

struct Block {
  static constexpr size_t STACK = 64 << 10, GUARD = 64;
  uint3 grid, size, index;
  std::vector<Fiber> fibers;
  std::unique_ptr<char[]> stacks;
  std::vector<unsigned char> shared;
  std::vector<Message> messages[2];  // of even and odd exchanges: no lane is two ahead of another
  std::vector<uint64_t> arrivals;    // at exchanges, of all lanes of a warp
  size_t shared_bytes;
  Context scheduler;
  unsigned current, alive, waiting;
  uint64_t barriers, steps;          // steps: how often a fiber got further
  const std::function<void()>* kernel;
};
inline thread_local Block* block = nullptr;

inline Fiber& fiber() { return block->fibers[block->current]; }
inline void yield() { switch_context(&fiber().context, &block->scheduler); }
inline void release_barrier() {
  if (block->alive > 0 && block->waiting == block->alive) block->waiting = 0, block->barriers++, block->steps++;
}
inline void run_fiber() {
  (*block->kernel)();
  if (!fiber().copies.empty()) EMULATED_FAIL("thread %u ends before its copies are done", fiber().number);
  fiber().done = true;
  block->alive--, block->steps++;
  release_barrier();
  yield();
}

inline void barrier() {
  const uint64_t before = block->barriers;
  block->waiting++, block->steps++;
  release_barrier();
  while (block->barriers == before) yield();
}

// Shows `mine` to the lanes of the warp and gives what each of them shows.
template <typename T> const Message* exchange(unsigned mask, const T& mine) {
  static_assert(sizeof(T) <= sizeof(Message));
  Block& b = *block;
  Fiber& f = b.fibers[b.current];
  const unsigned warp = f.number / 32;
  if (mask != ~0u) EMULATED_FAIL("an exchange among some lanes only, %08x, which this emulation has no need for yet", mask);
  const uint64_t turn = ++f.exchanges;
  Message* messages = &b.messages[turn % 2][warp * 32];
  std::memcpy(messages[f.number % 32].bytes, &mine, sizeof mine);
  b.arrivals[warp]++, b.steps++;
  while (b.arrivals[warp] < turn * 32) yield();
  return messages;
}
template <typename T> T message(const Message* messages, unsigned lane) {
  T value;
  std::memcpy(&value, messages[lane].bytes, sizeof value);
  return value;
}
inline unsigned lane() { return fiber().number % 32; }

inline void run_block(Block& b, uint3 index, bool reverse) {
  b.index = index;
  const unsigned threads = b.size.x * b.size.y * b.size.z;
  std::fill(b.shared.begin(), b.shared.end(), 0xff);
  std::fill(b.arrivals.begin(), b.arrivals.end(), 0);
  b.alive = threads;
  b.waiting = 0, b.barriers = 0, b.steps = 0;
  for (unsigned i = 0; i < threads; i++) {
    Fiber& f = b.fibers[i];
    f.index = {i % b.size.x, i / b.size.x % b.size.y, i / (b.size.x * b.size.y)};
    f.number = i, f.done = false, f.exchanges = 0;
    make_context(f.context, &b.stacks[i * Block::STACK], Block::STACK, run_fiber);
  }
  for (uint64_t before = ~uint64_t(0); b.alive > 0;) {
    if (b.steps == before)
      EMULATED_FAIL("block (%u, %u, %u) waits forever: %u threads are left, %u of them at a barrier", index.x, index.y, index.z, b.alive, b.waiting);
    before = b.steps;
    // A warp goes on for as long as it can: its lanes wait for each other far more often than for other warps.
    for (unsigned i = 0; i < threads; i += 32)
      for (uint64_t inner = ~uint64_t(0); b.steps != inner;) {
        inner = b.steps;
        for (unsigned j = i; j < std::min(i + 32, threads); j++) {
          b.current = reverse ? threads - 1 - j : j;
          if (!fiber().done) switch_context(&b.scheduler, &fiber().context);
        }
      }
  }
  for (size_t i = 0; i < Block::GUARD; i++)
    if (b.shared[(16 + b.shared_bytes) + i] != 0xff) EMULATED_FAIL("a write %zu bytes behind the shared memory", i);
}

inline void run(uint3 grid, uint3 size, size_t shared_bytes, const std::function<void()>& kernel) {
  static const bool reverse = std::getenv("NAT_CUDA_REVERSE") != nullptr;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  const unsigned threads = size.x * size.y * size.z;
  std::atomic<uint64_t> next{0};
  auto worker = [&] {
    Block b;
    b.grid = grid, b.size = size, b.kernel = &kernel, b.shared_bytes = shared_bytes;
    b.fibers.resize(threads);
    b.stacks.reset(new char[threads * Block::STACK]);  // not cleared, which would take longer than small kernels
    b.shared.resize(16 + shared_bytes + Block::GUARD);
    for (auto& messages : b.messages) messages.resize((threads + 31) / 32 * 32);
    b.arrivals.resize((threads + 31) / 32);
    block = &b;
    for (uint64_t i; (i = next++) < blocks;)
      run_block(b, {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)}, reverse);
    block = nullptr;
  };
  std::vector<std::thread> others;
  for (unsigned i = 1; i < std::min<uint64_t>(std::thread::hardware_concurrency(), blocks); i++) others.emplace_back(worker);
  worker();
  for (auto& other : others) other.join();
}

// A kernel: as a function of the addresses of its parameters, and the pointers among these.
struct Kernel {
  std::function<std::function<void()>(void**)> bind;
  std::function<std::vector<const void*>(void**)> pointers;
};
// The kernels by their names.
inline std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}
template <typename... A> std::tuple<A...> values(void** parameters) {
  std::tuple<A...> values;
  size_t i = 0;
  std::apply([&](auto&... value) { ((std::memcpy(&value, parameters[i++], sizeof value)), ...); }, values);
  return values;
}
struct Register {
  template <typename... A> Register(const char* name, void (*kernel)(A...)) {
    kernels()[name].bind = [kernel](void** parameters) -> std::function<void()> {
      return [kernel, all = values<A...>(parameters)] { std::apply(kernel, all); };
    };
    kernels()[name].pointers = [](void** parameters) {
      std::vector<const void*> pointers;
      auto keep = [&](auto value) {
        if constexpr (std::is_pointer_v<decltype(value)>) pointers.push_back(value);
      };
      std::apply([&](auto... value) { (keep(value), ...); }, values<A...>(parameters));
      return pointers;
    };
  }
};

}  // namespace emulated

#define KERNEL(name) static const emulated::Register register_##name{#name, &name};

#define threadIdx (emulated::fiber().index)
#define blockIdx (emulated::block->index)
#define blockDim (emulated::block->size)
#define gridDim (emulated::block->grid)

inline unsigned char* dynamic_shared() {
  auto bytes = reinterpret_cast<uintptr_t>(emulated::block->shared.data());
  return reinterpret_cast<unsigned char*>((bytes + 15) & ~uintptr_t(15));
}

inline void __syncthreads() { emulated::barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { emulated::exchange(mask, 0); }
template <typename T> T __shfl_sync(unsigned mask, T value, int source) {
  return emulated::message<T>(emulated::exchange(mask, value), source % 32);
}
template <typename T> T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return emulated::message<T>(emulated::exchange(mask, value), emulated::lane() ^ bits);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const auto* all = emulated::exchange(mask, predicate);
  unsigned votes = 0;
  for (unsigned l = 0; l < 32; l++)
    votes |= unsigned(emulated::message<int>(all, l) != 0) << l;
  return votes;
}

using std::max;
using std::min;
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
// Between threads of a block; blocks that share an address would need more.
template <typename T> T atomicAdd(T* address, T value) {
  static_assert(sizeof(T) == 4);
  uint32_t* bits = reinterpret_cast<uint32_t*>(address);
  uint32_t before = __atomic_load_n(bits, __ATOMIC_RELAXED), after;
  T old;
  do {
    std::memcpy(&old, &before, 4);
    const T sum = old + value;
    std::memcpy(&after, &sum, 4);
  } while (!__atomic_compare_exchange_n(bits, &before, after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

// 16-bit floats, rounded to the nearest, ties to even.
struct __half { uint16_t bits; };
struct __nv_bfloat16 { uint16_t bits; };
struct alignas(4) __half2 { __half x, y; };
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
inline float __uint_as_float(uint32_t bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline float __int_as_float(int bits) { return __uint_as_float(uint32_t(bits)); }
inline uint32_t __float_as_uint(float x) { uint32_t bits; std::memcpy(&bits, &x, 4); return bits; }
inline float __half2float(__half h) {
  const uint32_t sign = (h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent == 0) return __uint_as_float(sign | __float_as_uint(fraction * 0x1p-24f));
  return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}
inline __half __float2half(float x) {
  const uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return {uint16_t(sign | 0x7fff)};
  if (size >= 0x477ff000) return {uint16_t(sign | 0x7c00)};
  // Below the normal numbers: a multiple of 2^-24.
  if (size < 0x38800000) return {uint16_t(sign | uint32_t(std::nearbyintf(__uint_as_float(size) * 0x1p24f)))};
  return {uint16_t(sign | ((size + 0xfff + (size >> 13 & 1)) >> 13) - (112 << 10))};
}
inline float __bfloat162float(__nv_bfloat16 b) { return __uint_as_float(uint32_t(b.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16(float x) {
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline __half2 __hadd2(__half2 a, __half2 b) {
  return {__float2half(__half2float(a.x) + __half2float(b.x)), __float2half(__half2float(a.y) + __half2float(b.y))};
}
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) {
  return {__float2bfloat16(__bfloat162float(a.x) + __bfloat162float(b.x)), __float2bfloat16(__bfloat162float(a.y) + __bfloat162float(b.y))};
}
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16(x), __float2bfloat16(y)}; }

// The instructions that device.cuh writes in PTX.

// Below the normal numbers there is nothing.
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
inline float exp2_approximate(float x) { return flushed(std::exp2(x)); }
inline float reciprocal_approximate(float x) { return flushed(1 / flushed(x)); }

// Lands when the thread waits for it.
inline void copy_async(void* to, const void* from, bool real) {
  if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16) EMULATED_FAIL("a copy that is not aligned to 16 bytes");
  emulated::fiber().copies.push_back({to, from, real});
}
inline void copy_async_if(bool real, void* to, const void* from) {
  if (real) copy_async(to, from, true);
}
inline void copies_done() {
  for (const auto& copy : emulated::fiber().copies)
    if (copy.real) std::memcpy(copy.to, copy.from, 16);
    else std::memset(copy.to, 0, 16);
  emulated::fiber().copies.clear();
}
inline void load_transposed(uint32_t (&m)[4], const void* row) {
  if (reinterpret_cast<uintptr_t>(row) % 16) EMULATED_FAIL("a row of a matrix that is not aligned to 16 bytes");
  const auto* rows = emulated::exchange(~0u, row);
  const unsigned lane = emulated::lane();
  for (unsigned i = 0; i < 4; i++)
    for (unsigned j = 0; j < 2; j++)
      std::memcpy(reinterpret_cast<char*>(&m[i]) + 2 * j, emulated::message<const char*>(rows, 8 * i + lane % 4 * 2 + j) + 2 * (lane / 4), 2);
  emulated::exchange(~0u, 0);  // nobody overwrites what another lane has not read
}
template <typename T> void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
namespace emulated {
struct Registers { uint32_t a[4], b[2]; };
template <typename T> void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (*widen)(T)) {
  const auto* all = exchange(~0u, Registers{{a[0], a[1], a[2], a[3]}, {b0, b1}});
  auto value = [&](uint32_t word, unsigned k) { return widen(T{uint16_t(word >> 16 * (k % 2))}); };
  const unsigned g = lane() / 4, t = lane() % 4;
  for (unsigned i = 0; i < 4; i++) {
    const unsigned row = g + 8 * (i / 2), column = 2 * t + i % 2;
    float sum = 0;
    for (unsigned k = 0; k < 16; k++) {
      const unsigned holder = k % 8 / 2, upper = k / 8;
      const auto from_a = message<Registers>(all, row % 8 * 4 + holder), from_b = message<Registers>(all, column * 4 + holder);
      sum += value(from_a.a[row / 8 + 2 * upper], k) * value(from_b.b[upper], k);
    }
    c[i] += sum;
  }
}
}  // namespace emulated
template <> inline void multiply<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulated::multiply<__half>(c, a, b0, b1, __half2float);
}
template <> inline void multiply<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulated::multiply<__nv_bfloat16>(c, a, b0, b1, __bfloat162float);
}

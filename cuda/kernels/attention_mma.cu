// Neighborhood attention on the matrix units: f16 and bf16, 32 channels a head, kernel sizes 3 to 13. Compute capability 8.0.
//
// A block takes a tile of queries of one class (window.cuh) and one head, and copies the keys and values of all their windows,
// the halo, to shared memory. A warp takes 4x4 of the queries and multiplies them with all keys of their common window: (K + 3)²
// of them, of which each query sees K². The others are masked: 47 % of the products count at K = 7, which is still several times
// faster than what the other units could do. The softmax is online over chunks of the keys, in f32.
//
// Masked products are multiplied by zero, so an infinite value or NaN reaches the other queries of its warp too.
#include "device.cuh"
#include "window.cuh"

constexpr int DIM = 32;           // channels of a head
constexpr int ROW = DIM * 2;      // bytes of a key
constexpr int SIDE = 4;           // of a warp's queries
constexpr float LOG2E = 1.4426950408889634f;
constexpr float MASKED = -1e30f;  // below any score, and finite: a chunk without a neighbour is undone by the next correction

// Where a 16-byte part of a value lies: moved so that eight values in a row, of which ldmatrix takes the same part, use all banks.
__device__ __forceinline__ int swizzled(int place, int part) { return place * ROW + ((part ^ (place >> 1 & 3)) << 4); }

// Words j of lanes t to word t of lane j, among the four lanes of a quad.
__device__ __forceinline__ void transpose_quad(uint32_t (&w)[4], int t) {
#pragma unroll
  for (int step = 1; step <= 2; step *= 2) {
    const bool upper = t & step;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (i & step) continue;
      const uint32_t got = __shfl_xor_sync(ALL, upper ? w[i] : w[i + step], step);
      if (upper) w[i] = got;
      else w[i + step] = got;
    }
  }
}

// The sums of eight elements, rounded to their type.
template <typename T> __device__ __forceinline__ uint4 rounded_sums(uint4 a, uint4 b) {
  const T *from_a = reinterpret_cast<const T*>(&a), *from_b = reinterpret_cast<const T*>(&b);
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; i++)
    words[i] = pack<T>(to_float(from_a[2 * i]) + to_float(from_b[2 * i]), to_float(from_a[2 * i + 1]) + to_float(from_b[2 * i + 1]));
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// WARPS_Y x WARPS_X warps a block.
template <typename T, int K, int WARPS_Y, int WARPS_X>
__device__ __forceinline__ void attention(const T* __restrict__ qkv, const T* __restrict__ rpb,
                                          const T* __restrict__ pad, const T* __restrict__ query_bias, T* __restrict__ out,
                                          int height, int width, int heads, int dilation) {
  constexpr int TILE_Y = SIDE * WARPS_Y, TILE_X = SIDE * WARPS_X, THREADS = 32 * WARPS_Y * WARPS_X;
  constexpr int BIASES = 2 * K - 1, WINDOW = SIDE + K - 1;         // sides of the bias table and of a warp's keys
  constexpr int STEPS = (WINDOW * WINDOW + 15) / 16;               // of 16 keys
  constexpr int CHUNKS = (STEPS + 3) / 4, CHUNK = (STEPS + CHUNKS - 1) / CHUNKS;
  static_assert(WINDOW % 2 == 0, "two neighbouring keys lie in one row");

  // Which tile: heads fastest, since they lie side by side in memory.
  const int dilation_y = dilation_of(height, dilation), dilation_x = dilation_of(width, dilation);
  const int tiles_y = ((height + dilation_y - 1) / dilation_y + TILE_Y - 1) / TILE_Y;
  const int tiles_x = ((width + dilation_x - 1) / dilation_x + TILE_X - 1) / TILE_X;
  unsigned index = blockIdx.x;
  const int head = index % heads; index /= heads;
  const int tile_x = index % tiles_x * TILE_X; index /= tiles_x;
  const int tile_y = index % tiles_y * TILE_Y; index /= tiles_y;
  const Axis columns(width, K, dilation_x, index % dilation_x); index /= dilation_x;
  const Axis rows(height, K, dilation_y, index % dilation_y); index /= dilation_y;
  const size_t image = size_t(index) * height * width;
  if (tile_y >= rows.size || tile_x >= columns.size) return;       // a class may be one place shorter than the first
  const size_t stride = size_t(heads) * DIM;                       // from q to k and from k to v

  // The halo.
  const int top = rows.start(tile_y), left = columns.start(tile_x);
  const int halo_y = rows.start(min(tile_y + TILE_Y, rows.size) - 1) + K - top;
  const int halo_x = columns.start(min(tile_x + TILE_X, columns.size) - 1) + K - left;
  unsigned char* keys = dynamic_shared();
  unsigned char* values = keys + halo_y * halo_x * ROW;
  float* biases = reinterpret_cast<float*>(values + halo_y * halo_x * ROW);
  for (int i = threadIdx.x; i < halo_y * halo_x * 8; i += THREADS) {
    const int part = i % 4, place = i / 8, y = place / halo_x, x = place % halo_x;
    const bool value = i & 4;
    const bool padded = top + y >= rows.size || left + x >= columns.size;
    const size_t pixel = image + size_t(rows.position(top + y)) * width + columns.position(left + x);
    const T* from = (padded ? pad : qkv + pixel * 3 * stride) + (1 + value) * stride + head * DIM + part * 8;
    copy_async(value ? values + swizzled(place, part) : keys + place * ROW + part * 16, from, true);
  }
  for (int i = threadIdx.x; i < BIASES * BIASES; i += THREADS)
    biases[i] = to_float(rpb[size_t(head) * BIASES * BIASES + i]) * LOG2E;

  // This warp's queries. Query r of 16 lies at (r / 4, r % 4); a lane has the rows g and g + 8 of every product, and of
  // queries and keys the channels 8t to 8t + 7: which channels meet in a product does not matter, as long as both agree.
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int base_y = tile_y + warp / WARPS_X * SIDE, base_x = tile_x + warp % WARPS_X * SIDE;
  const bool idle = base_y >= rows.size || base_x >= columns.size;
  uint32_t q[2][4];                                                // [step of 16 channels][register]
  size_t pixels[2];
  bool real[2];
  int first_y[2], first_x[2], bias[2];                             // of each query's window, in the warp's keys
  const int warp_y = idle ? 0 : rows.start(base_y) - top, warp_x = idle ? 0 : columns.start(base_x) - left;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int y = base_y + (g + 8 * r) / SIDE, x = base_x + (g + 8 * r) % SIDE;
    real[r] = y < rows.size && x < columns.size;
    const int my = min(y, rows.size - 1), mx = min(x, columns.size - 1);
    pixels[r] = image + size_t(rows.position(my)) * width + columns.position(mx);
    uint4 words = *reinterpret_cast<const uint4*>(qkv + pixels[r] * 3 * stride + head * DIM + 8 * t);
    if (query_bias) words = rounded_sums<T>(words, *reinterpret_cast<const uint4*>(query_bias + head * DIM + 8 * t));
    q[0][r] = words.x; q[0][r + 2] = words.y; q[1][r] = words.z; q[1][r + 2] = words.w;
    first_y[r] = rows.start(my) - top - warp_y;
    first_x[r] = columns.start(mx) - left - warp_x;
    bias[r] = rows.bias(my, top + warp_y) * BIASES + columns.bias(mx, left + warp_x);
  }
  copies_done();
  __syncthreads();
  if (idle) return;

  // Where key n of the warp's window lies. Beyond the halo, where no query looks, another key stands in.
  auto place = [&](int n) {
    const int y = min(warp_y + n / WINDOW, halo_y - 1), x = min(warp_x + n % WINDOW, halo_x - 1);
    return y * halo_x + x;
  };
  const float scale = LOG2E * 0.17677669529663687f;                // 32^-0.5
  float largest[2] = {MASKED, MASKED}, sums[2] = {}, sum_values[4][4] = {};
#pragma unroll
  for (int chunk = 0; chunk < STEPS; chunk += CHUNK) {
    constexpr int TILES = 2 * CHUNK;                               // of 8 keys
    float scores[TILES][4];
    float highest[2] = {largest[0], largest[1]};
#pragma unroll
    for (int j = 0; j < TILES; j++) {
      const int n = chunk * 16 + j * 8;
      if (n >= STEPS * 16) continue;
      const uint4 k = *reinterpret_cast<const uint4*>(keys + place(n + g) * ROW + t * 16);
#pragma unroll
      for (int i = 0; i < 4; i++) scores[j][i] = 0;
      multiply<T>(scores[j], q[0], k.x, k.y);
      multiply<T>(scores[j], q[1], k.z, k.w);
      const int key = n + 2 * t, y = key / WINDOW, x = key % WINDOW;
#pragma unroll
      for (int i = 0; i < 4; i++) {                                // (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
        const int r = i / 2, e = i % 2;
        const bool neighbour = unsigned(y - first_y[r]) < K && unsigned(x + e - first_x[r]) < K;
        const float b = biases[neighbour ? bias[r] + y * BIASES + x + e : 0];
        scores[j][i] = neighbour ? fmaf(scores[j][i], scale, b) : MASKED;
        highest[r] = fmaxf(highest[r], scores[j][i]);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(ALL, highest[r], 1));
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(ALL, highest[r], 2));
      const float correction = exp2f(largest[r] - highest[r]);
      largest[r] = highest[r];
      sums[r] *= correction;
#pragma unroll
      for (int j = 0; j < 4; j++) { sum_values[j][2 * r] *= correction; sum_values[j][2 * r + 1] *= correction; }
    }
#pragma unroll
    for (int step = 0; step < CHUNK; step++) {
      const int n = chunk * 16 + step * 16;
      if (n >= STEPS * 16) continue;
      uint32_t p[4];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float* s = scores[2 * step + half];
#pragma unroll
        for (int i = 0; i < 4; i++) { s[i] = exp2f(s[i] - largest[i / 2]); sums[i / 2] += s[i]; }
        p[2 * half] = pack<T>(s[0], s[1]);
        p[2 * half + 1] = pack<T>(s[2], s[3]);
      }
      const int from = place(n + lane % 16);                       // matrices 0 and 2 are keys 0 to 7, 1 and 3 the others
#pragma unroll
      for (int j = 0; j < 4; j += 2) {                             // 8 channels
        uint32_t v[4];
        load_transposed(v, values + swizzled(from, j + lane / 16));
        multiply<T>(sum_values[j], p, v[0], v[1]);
        multiply<T>(sum_values[j + 1], p, v[2], v[3]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    sums[r] += __shfl_xor_sync(ALL, sums[r], 1);
    sums[r] += __shfl_xor_sync(ALL, sums[r], 2);
    const float share = 1.0f / sums[r];
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; j++) words[j] = pack<T>(sum_values[j][2 * r] * share, sum_values[j][2 * r + 1] * share);
    transpose_quad(words, t);
    if (real[r])
      *reinterpret_cast<uint4*>(out + pixels[r] * stride + head * DIM + 8 * t) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

#define ATTENTION(name, T, K, WARPS_Y, WARPS_X)                                                                            \
  extern "C" __global__ void __launch_bounds__(32 * WARPS_Y * WARPS_X)                                                     \
      name(const T* qkv, const T* rpb, const T* pad, const T* query_bias, T* out, int height, int width, int heads,        \
           int dilation) {                                                                                                 \
    attention<T, K, WARPS_Y, WARPS_X>(qkv, rpb, pad, query_bias, out, height, width, heads, dilation);                     \
  }                                                                                                                        \
  KERNEL(name)

ATTENTION(attention_mma_f16_3, __half, 3, 2, 2)
ATTENTION(attention_mma_f16_5, __half, 5, 2, 2)
ATTENTION(attention_mma_f16_7, __half, 7, 2, 2)
ATTENTION(attention_mma_f16_9, __half, 9, 2, 2)
ATTENTION(attention_mma_f16_11, __half, 11, 2, 2)
ATTENTION(attention_mma_f16_13, __half, 13, 1, 2)  // so that the halo stays under 48 KiB
ATTENTION(attention_mma_bf16_3, __nv_bfloat16, 3, 2, 2)
ATTENTION(attention_mma_bf16_5, __nv_bfloat16, 5, 2, 2)
ATTENTION(attention_mma_bf16_7, __nv_bfloat16, 7, 2, 2)
ATTENTION(attention_mma_bf16_9, __nv_bfloat16, 9, 2, 2)
ATTENTION(attention_mma_bf16_11, __nv_bfloat16, 11, 2, 2)
ATTENTION(attention_mma_bf16_13, __nv_bfloat16, 13, 1, 2)

// Neighborhood attention on the matrix units: f16 and bf16, 32 channels a head, kernel sizes 3 to 13. Compute capability 8.0.
//
// A block takes a tile of queries of one class (window.cuh) and one head, and copies the keys and values of all their windows,
// the halo, to shared memory. Its warps take two rows of eight queries each, and multiply them with all keys of their common
// window: K + 1 whole rows of the halo, K + 7 keys wide, of which each query sees K². The others are masked: 44 % of the products
// count at K = 7, which is still several times faster than what the other units could do. The softmax is online over chunks of
// the keys, in f32.
//
// The products are few beside what surrounds them, so the rest is made of constants as far as possible. The keys of a warp follow
// one another in shared memory, whatever the map; so do the biases of a query, in a table that has a row of the halo's width
// for every row of keys and MASKED where the query does not see the column. A score then costs half a load besides its product:
// the bias is what the sum of products begins with. Of a warp's rows only the first and the last one are not seen by both rows of
// its queries.
//
// Where a class has no more than K places on either axis, every query sees all keys: the kernel for such whole maps has K rows
// of K keys and masks no row. A dilation may divide a map into nothing but these.
//
// Masked products are multiplied by zero, so an infinite value or NaN reaches the other queries of its warp too, and so does a
// product of q and k beyond 10^30, which only bf16 can hold.
#include "device.cuh"
#include "window.cuh"

constexpr int DIM = 32;                     // channels of a head
constexpr int ROW = DIM * 2;                // bytes of a key
constexpr int QUERIES_Y = 2, QUERIES_X = 8; // of a warp
constexpr float ROOT_DIM = 5.65685424949238f;
constexpr float LOG2E = 1.4426950408889634f;
constexpr float MASKED = -1e30f;            // below any score, and finite: a chunk without a neighbour is undone by the next correction

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
  return make_uint4(add_pairs<T>(a.x, b.x), add_pairs<T>(a.y, b.y), add_pairs<T>(a.z, b.z), add_pairs<T>(a.w, b.w));
}

// The sizes of a block's work. WHOLE: of classes that are K x K places with the padded ones.
template <int K, int WARPS, bool WHOLE> struct Tile {
  static constexpr int Y = QUERIES_Y * WARPS, X = QUERIES_X, THREADS = 32 * WARPS;     // queries
  static constexpr int HALO_Y = WHOLE ? K : Y + K - 1, HALO_X = WHOLE ? K + 1 : X + K - 1;
  static constexpr int PLACES = HALO_Y * HALO_X;
  static constexpr int ROWS = WHOLE ? K : K + QUERIES_Y - 1, KEYS = ROWS * HALO_X;     // of a warp's window
  static constexpr int BIASES = 2 * K - 1;                                             // side of the bias table
  static constexpr int BIAS_ROWS = BIASES < Y + K - 1 ? BIASES : Y + K - 1;            // that the queries of a block can use
  // From a query's column of biases to the next one's: four of them, with two biases for each of four lanes, use all banks.
  static constexpr int BIAS_STRIDE = (BIAS_ROWS * HALO_X + 7) / 16 * 16 + 8;
  static_assert(KEYS % 8 == 0 && HALO_X % 2 == 0, "tiles of eight keys, pairs of keys in one row");
};

// class_y and class_x: places of the first class on each axis, which is the longest one.
template <typename T, int K, int WARPS, bool WHOLE>
__device__ __forceinline__ void attention(const T* __restrict__ qkv, const T* __restrict__ rpb, const T* __restrict__ pad,
                                          const T* __restrict__ query_bias, T* __restrict__ out, int height, int width,
                                          unsigned heads, int dilation_y, int dilation_x, int class_y, int class_x) {
  using B = Tile<K, WARPS, WHOLE>;
  constexpr int HALO_X = B::HALO_X;

  // Which tile: heads fastest, since they lie side by side in memory. A division takes twenty instructions: those by one are left
  // out.
  unsigned index = blockIdx.x;
  auto next = [&](unsigned count) {
    if (count == 1) return 0;
    const unsigned digit = index % count;
    index /= count;
    return int(digit);
  };
  const int head = next(heads);
  const int tile_x = WHOLE ? 0 : next((class_x + B::X - 1u) / B::X) * B::X;
  const int tile_y = WHOLE ? 0 : next((class_y + B::Y - 1u) / B::Y) * B::Y;
  const Axis columns(width, K, dilation_x, next(dilation_x), class_x), rows(height, K, dilation_y, next(dilation_y), class_y);
  if (tile_y >= rows.size || tile_x >= columns.size) return;       // a class may be one place shorter than the first
  // Pixels of all images are counted in 31 bits: of more of them, qkv would take 400 GB.
  const unsigned image = index * height * width, stride = heads * DIM;  // stride: from q to k and from k to v
  auto pixel = [&](int y, int x) { return image + unsigned(rows.position(y) * width + columns.position(x)); };

  // This warp's queries, which come while the rest is prepared. A lane has the rows g and g + 8 of every product, which are the
  // queries (0, g) and (1, g), and of queries and keys the channels 8t to 8t + 7: which channels meet in a product does not matter,
  // as long as both agree.
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int base_y = tile_y + QUERIES_Y * warp, query_x = tile_x + g;
  const unsigned channel = head * DIM + 8 * t;
  const bool real[2] = {base_y < rows.size && query_x < columns.size, base_y + 1 < rows.size && query_x < columns.size};
  uint4 queries[2], missing = make_uint4(0, 0, 0, 0);
  const size_t first_pixel = real[0] ? pixel(base_y, query_x) : image, row_step = size_t(unsigned(dilation_y * width)) * stride;
  const T* query = qkv + first_pixel * (3 * stride) + channel;
  T* result = out + first_pixel * stride + channel;
#pragma unroll
  for (int r = 0; r < 2; r++) queries[r] = *reinterpret_cast<const uint4*>(query + (real[r] ? 3 * r * row_step : 0));
  if (query_bias) missing = *reinterpret_cast<const uint4*>(query_bias + channel);

  // The halo, and how much of it there is.
  const int top = rows.start(tile_y), left = columns.start(tile_x);
  const int last_y = min(tile_y + B::Y, rows.size) - 1, last_x = min(tile_x + B::X, columns.size) - 1;
  const int halo_y = rows.start(last_y) + K - top, halo_x = columns.start(last_x) + K - left;
  unsigned char* keys = dynamic_shared();
  unsigned char* values = keys + B::PLACES * ROW;
  float* biases = reinterpret_cast<float*>(values + B::PLACES * ROW);

  // A thread copies 16 bytes of every row of a column. Padded places come from `pad`, and what no query looks at is zero: it is
  // multiplied, too.
  {
    const int part = threadIdx.x % 4;
    const bool value = threadIdx.x & 4;
    const unsigned vector = (1 + value) * stride + head * DIM + 8 * part;
    const size_t step = 3 * row_step;
    const T* outside = pad ? pad + vector : qkv;
    for (int x = threadIdx.x / 8; x < HALO_X; x += B::THREADS / 8) {
      const int inside = x < min(halo_x, columns.size - left) ? min(halo_y, rows.size - top) : 0;
      const T* from = qkv + size_t(pixel(top, left + x)) * (3 * stride) + vector;
      auto to = [&](int y) {
        const int place = y * HALO_X + x;
        return keys + (value ? B::PLACES * ROW + swizzled(place, part) : place * ROW + 16 * part);
      };
      // Four rows on, a value's part is moved by as much: so there are four addresses, and the others lie behind them.
      constexpr int FOUR_ROWS = 4 * HALO_X * ROW;
      static_assert(FOUR_ROWS % (8 * ROW) == 0, "the swizzle repeats after eight places");
      unsigned char* const first[4] = {to(0), to(1), to(2), to(3)};
#pragma unroll 1
      for (int y = 0, moved = 0; y < inside; y += 4, moved += FOUR_ROWS)
#pragma unroll
        for (int i = 0; i < 4; i++, from += step) copy_async_if(y + i < inside, first[i] + moved, from);
#pragma unroll 1
      for (int y = inside; y < min(halo_y + 1, B::HALO_Y); y++) copy_async(to(y), outside, pad);
    }
  }

  // The biases of each column of queries, in units of the products of q and k: those of the rows from the last query's first one
  // on, for every column of the halo.
  const int first_bias = rows.bias(last_y, rows.start(last_y)), bias_rows = rows.bias(tile_y, top) + K - first_bias;
  for (unsigned i = threadIdx.x; i < B::X * HALO_X; i += B::THREADS) {
    const int query = i / HALO_X, x = i % HALO_X, mx = min(tile_x + query, columns.size - 1), key_x = left + x;
    const bool neighbour = unsigned(key_x - columns.start(mx)) < K;
    const unsigned column = neighbour ? columns.bias(mx, key_x) : 0;
    const T* from = rpb + (head * B::BIASES + first_bias) * B::BIASES + column;
    float* to = biases + query * B::BIAS_STRIDE + x;
    auto put = [&](int y, T bias) { to[y * HALO_X] = neighbour ? to_float(bias) * ROOT_DIM : MASKED; };
    // There are K rows at least, whose loads are all under way at once; only borders have more.
    T loaded[K];
#pragma unroll
    for (int y = 0; y < K; y++) loaded[y] = from[y * B::BIASES];
#pragma unroll
    for (int y = 0; y < K; y++) put(y, loaded[y]);
#pragma unroll 1
    for (int y = K; y < bias_rows; y++) put(y, from[y * B::BIASES]);
  }

  uint32_t q[2][4];                                                // [step of 16 channels][register]
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const uint4 words = rounded_sums<T>(queries[r], missing);
    q[0][r] = words.x; q[0][r + 2] = words.y; q[1][r] = words.z; q[1][r + 2] = words.w;
  }
  copies_done();
  __syncthreads();
  if (base_y >= rows.size) return;

  // The warp's keys, values and biases, of which a constant distance on lie the next ones. The biases of the second row of queries are
  // one row before those of the first; below the map, where it is no query, they may be anything.
  const int start = rows.start(base_y), first_place = (start - top) * HALO_X;
  const bool shifted = rows.start(base_y + 1) > start;             // the second row's window is one row further down
  const unsigned char* key = keys + (first_place + g) * ROW + t * 16;
  const unsigned char* value = values + swizzled(first_place + lane % 16, lane / 16);
  const unsigned char* next_value = values + swizzled(first_place + lane % 16, lane / 16 + 2);
  const float* bias = biases + g * B::BIAS_STRIDE + (rows.bias(base_y, start) - first_bias) * HALO_X + 2 * t;

  constexpr int TILES = B::KEYS / 8, STEPS = (TILES + 1) / 2;      // of 8 and 16 keys
  constexpr int CHUNKS = (STEPS + 3) / 4, CHUNK = (STEPS + CHUNKS - 1) / CHUNKS;
  constexpr float SCALE = LOG2E / ROOT_DIM;
  const uint32_t ones = pack<T>(1, 1);
  float largest[2] = {MASKED, MASKED}, sums[4] = {}, sum_values[4][4] = {};
#pragma unroll
  for (int chunk = 0; chunk < STEPS; chunk += CHUNK) {
    float scores[2 * CHUNK][4];                                    // (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
    float highest[2] = {largest[0], largest[1]};
#pragma unroll
    for (int j = 0; j < 2 * CHUNK; j++) {
      const int n = (2 * chunk + j) * 8;
      if (n >= B::KEYS) continue;
      const int first_row = n / HALO_X, last_row = (n + 7) / HALO_X, row = (n + 2 * t) / HALO_X;
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const bool always = WHOLE || (r == 0 ? last_row < K : first_row > 0 && last_row < K);
        float2 pair = make_float2(MASKED, MASKED);
        if (always || (r == 0 ? row < K : shifted ? row > 0 : row < K))
          pair = *reinterpret_cast<const float2*>(bias + n - r * HALO_X);
        scores[j][2 * r] = pair.x;
        scores[j][2 * r + 1] = pair.y;
      }
      const uint4 k = *reinterpret_cast<const uint4*>(key + n * ROW);
      multiply<T>(scores[j], q[0], k.x, k.y);
      multiply<T>(scores[j], q[1], k.z, k.w);
#pragma unroll
      for (int i = 0; i < 4; i++) highest[i / 2] = fmaxf(highest[i / 2], scores[j][i]);
    }
    float shift[2];                                                // of the exponents of two, to none above zero
#pragma unroll
    for (int r = 0; r < 2; r++) {
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(ALL, highest[r], 1));
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(ALL, highest[r], 2));
      shift[r] = -highest[r] * SCALE;
      if (chunk > 0) {
        const float correction = exp2_approximate(fmaf(largest[r], SCALE, shift[r]));
        sums[2 * r] *= correction;
#pragma unroll
        for (int j = 0; j < 4; j++) { sum_values[j][2 * r] *= correction; sum_values[j][2 * r + 1] *= correction; }
      }
      largest[r] = highest[r];
    }
#pragma unroll
    for (int step = 0; step < CHUNK; step++) {
      const int n = (chunk + step) * 16;
      if (n >= B::KEYS) continue;
      const bool half = n + 8 == B::KEYS;                          // no keys are left for its other half
      uint32_t p[4];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        if (i == 1 && half) { p[2] = p[3] = 0; continue; }
        float* s = scores[2 * step + i];
#pragma unroll
        for (int e = 0; e < 4; e++) s[e] = exp2_approximate(fmaf(s[e], SCALE, shift[e / 2]));
        p[2 * i] = pack<T>(s[0], s[1]);
        p[2 * i + 1] = pack<T>(s[2], s[3]);
      }
      multiply<T>(sums, p, ones, ones);
      const int back = half && lane & 8 ? 8 : 0;                   // to keys that there are
#pragma unroll
      for (int j = 0; j < 4; j += 2) {                             // 8 channels
        uint32_t v[4];                                             // matrices 0 and 2 are keys 0 to 7, 1 and 3 the others
        load_transposed(v, (j == 0 ? value : next_value) + (n - back) * ROW);
        multiply<T>(sum_values[j], p, v[0], v[1]);
        multiply<T>(sum_values[j + 1], p, v[2], v[3]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const float share = reciprocal_approximate(sums[2 * r]);
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; j++) words[j] = pack<T>(sum_values[j][2 * r] * share, sum_values[j][2 * r + 1] * share);
    transpose_quad(words, t);
    if (real[r]) *reinterpret_cast<uint4*>(result + r * row_step) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

#define ATTENTION(name, T, K, WARPS, WHOLE, BLOCKS)                                                                        \
  extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS)                                                         \
      name(const T* qkv, const T* rpb, const T* pad, const T* query_bias, T* out, int height, int width, int heads,        \
           int dilation_y, int dilation_x, int class_y, int class_x) {                                                     \
    attention<T, K, WARPS, WHOLE>(qkv, rpb, pad, query_bias, out, height, width, heads, dilation_y, dilation_x, class_y,   \
                                  class_x);                                                                                \
  }                                                                                                                        \
  KERNEL(name)

#define BOTH_TYPES(suffix, K, WARPS, WHOLE, BLOCKS)                                                                        \
  FOR_F16(ATTENTION(attention_mma_f16_##suffix, __half, K, WARPS, WHOLE, BLOCKS))                                          \
  FOR_BF16(ATTENTION(attention_mma_bf16_##suffix, __nv_bfloat16, K, WARPS, WHOLE, BLOCKS))

// A module has one kernel size, of which nvcc is told as -DONLY_SIZE=7.
#ifdef ONLY_SIZE
#define HAS_SIZE(K) (K == ONLY_SIZE)
#else
#define HAS_SIZE(K) true
#endif

// The warps of a block are as many as keep its shared memory under 48 KiB; then the blocks that a multiprocessor of an H100 has
// shared memory and, without spilling, registers for.
#if HAS_SIZE(3)
BOTH_TYPES(3, 3, 4, false, 7)
#endif
#if HAS_SIZE(5)
BOTH_TYPES(5, 5, 4, false, 6)
#endif
#if HAS_SIZE(7)
BOTH_TYPES(7, 7, 4, false, 5)
BOTH_TYPES(7_whole, 7, 4, true, 7)
#endif
#if HAS_SIZE(9)
BOTH_TYPES(9, 9, 4, false, 4)
#endif
#if HAS_SIZE(11)
BOTH_TYPES(11, 11, 3, false, 4)
#endif
#if HAS_SIZE(13)
BOTH_TYPES(13, 13, 1, false, 5)
#endif

// The gradient of neighborhood attention for any kernel size, dilation, channels of a head and element type; sums in f32.
//
// With p = softmax(q·k / √dim + rpb) over the keys of a query and g the gradient of its output, the gradient of a score is
// p (g·v - mean), where mean = Σ p g·v. Nothing is kept for a pair of a query and a key: scores are computed anew, three times.
//
// - For each query: its gradient, and what takes a score to p, the logarithm of Σ e^score, with the mean.
// - For each key: the gradients of k and v, sums over the queries that have it in their windows.
// - For each bias: its gradient, a sum over the queries of all images.
//
// Every sum is one warp's or one block's and has one order, so that results do not depend on chance.
//
// Parameters: qkv [batch, height, width, 3, heads, dim], rpb [heads, 2 kernel - 1, 2 kernel - 1], pad [3, heads, dim], which is a
// constant, and grad, the gradient of the output, [batch, height, width, heads, dim]. pad and PARTS as in attention.cu.
#include "attention.cuh"

constexpr int WARPS = 4;   // of a block
constexpr int BLOCKS = 6;  // of a multiprocessor, at least: where no number is given, ptxas spills a word for one more

// What a lane found of a pair of a query and a key, for the other lanes of its warp: two weights, and where the vectors lie that
// they are for: an address or a pixel. Read from shared memory at once; shuffles would bring it word by word.
struct alignas(16) Found { float weights[2]; size_t at; };

// Of each query and head, [batch, height, width, heads].
struct alignas(8) Statistics { float log_sum, mean; };

// Writes q's part of grad_qkv, which is as qkv. A warp computes one query: its lanes first take a neighbour each, 32 at a time,
// then a channel each. The sum of the keys with weights p (g·v - mean) is made of two that need not know the mean, so that the
// softmax can be online.
template <typename T, int PARTS>
__device__ __forceinline__ void query_gradients(const T* __restrict__ qkv, const T* __restrict__ rpb, const T* __restrict__ pad,
                                                const T* __restrict__ grad, T* __restrict__ grad_qkv,
                                                Statistics* __restrict__ statistics, const Sizes& sizes) {
  const int lane = threadIdx.x % 32;
  const Point query(sizes, warp_index());
  if (query.pixel >= sizes.pixels()) return;
  const int sy = query.rows.start(query.y), sx = query.columns.start(query.x);
  const Window neighbours(query, sy, sx);
  const int kernel = sizes.kernel, window = kernel * kernel, dim = sizes.dim;
  const T* bias = rpb + sizes.bias(query.head, query.rows.bias(query.y, sy), query.columns.bias(query.x, sx));
  const T *q = qkv + sizes.q(query.pixel, query.head), *g = grad + sizes.out(query.pixel, query.head);
  const float scale = sizes.scale();
  __shared__ Found shared[WARPS][32];
  Found* found = shared[threadIdx.x / 32];

  for (int first = 0; first < dim; first += 32 * PARTS) {
    float largest = -INFINITY, sum = 0, mean = 0;  // the sums of this lane's neighbours
    float keys[PARTS] = {}, products[PARTS] = {};  // Σ p k and Σ p g·v k
    for (int done = 0; done < window; done += 32) {
      const int t = done + lane, ty = t / kernel, tx = t % kernel;
      float score = -INFINITY, grad_p = 0;
      const T* k = q;
      if (t < window) {
        k = neighbours.key(qkv, pad, sizes, query.head, ty, tx);
        score = fmaf(dot<2>(q, k, sizes), scale, to_float(bias[ty * sizes.side() + tx]));
        grad_p = dot<2>(g, k + sizes.stride(), sizes);
      }
      const float before = largest;
      largest = fmaxf(largest, warp_max(score));
      const float p = t < window ? expf(score - largest) : 0, product = p * grad_p, correction = expf(before - largest);
      sum = sum * correction + p;
      mean = mean * correction + product;
#pragma unroll
      for (int i = 0; i < PARTS; i++) { keys[i] *= correction; products[i] *= correction; }
      __syncwarp();
      found[lane] = {{p, product}, reinterpret_cast<size_t>(k)};
      __syncwarp();
      for (int j = 0; j < min(32, window - done); j++) {
        const Found of = found[j];
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
          const int channel = first + 32 * i + lane;
          const float x = channel < dim ? to_float(reinterpret_cast<const T*>(of.at)[channel]) : 0;
          keys[i] = fmaf(of.weights[0], x, keys[i]);
          products[i] = fmaf(of.weights[1], x, products[i]);
        }
      }
    }
    sum = warp_sum(sum);
    mean = warp_sum(mean) / sum;
    if (first == 0 && lane == 0) statistics[query.pixel * sizes.heads + query.head] = {largest + logf(sum), mean};
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
      const int channel = first + 32 * i + lane;
      if (channel < dim)
        grad_qkv[sizes.q(query.pixel, query.head) + channel] = from_float<T>((products[i] - mean * keys[i]) / sum * scale);
    }
  }
}

// A probability and the gradient of its score.
struct Pair { float p, grad_score; };

// Those of a query's q and g, and a key's k.
template <typename T>
__device__ __forceinline__ Pair pair(const T* q, const T* g, const T* k, T bias, Statistics of_query, const Sizes& sizes) {
  const float p = expf(fmaf(dot<2>(q, k, sizes), sizes.scale(), to_float(bias)) - of_query.log_sum);
  return {p, p * (dot<2>(g, k + sizes.stride(), sizes) - of_query.mean)};
}

// Writes the parts of k and v. A warp computes one key: its lanes take a query each, then a channel each.
template <typename T, int PARTS>
__device__ __forceinline__ void key_gradients(const T* __restrict__ qkv, const T* __restrict__ rpb, const T* __restrict__ grad,
                                              const Statistics* __restrict__ statistics, T* __restrict__ grad_qkv,
                                              const Sizes& sizes) {
  const int lane = threadIdx.x % 32, dim = sizes.dim;
  const Point key(sizes, warp_index());
  if (key.pixel >= sizes.pixels()) return;
  const int top = key.rows.first_query(key.y), left = key.columns.first_query(key.x);
  const int columns = key.columns.last_query(key.x) + 1 - left, queries = (key.rows.last_query(key.y) + 1 - top) * columns;
  const size_t k = sizes.q(key.pixel, key.head) + sizes.stride();
  const float scale = sizes.scale();
  __shared__ Found shared[WARPS][32];
  Found* found = shared[threadIdx.x / 32];

  for (int first = 0; first < dim; first += 32 * PARTS) {
    float keys[PARTS] = {}, values[PARTS] = {};
    for (int done = 0; done < queries; done += 32) {
      const int t = done + lane, y = top + t / columns, x = left + t % columns;
      size_t pixel = 0;
      Pair of = {};
      if (t < queries) {
        pixel = key.at(y, x);
        const T bias = rpb[sizes.bias(key.head, key.rows.bias(y, key.y), key.columns.bias(x, key.x))];
        const Statistics of_query = statistics[pixel * sizes.heads + key.head];
        of = pair(qkv + sizes.q(pixel, key.head), grad + sizes.out(pixel, key.head), qkv + k, bias, of_query, sizes);
      }
      __syncwarp();
      found[lane] = {{of.grad_score, of.p}, pixel};
      __syncwarp();
      for (int j = 0; j < min(32, queries - done); j++) {
        const Found of = found[j];
        const T *q = qkv + sizes.q(of.at, key.head), *g = grad + sizes.out(of.at, key.head);
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
          const int channel = first + 32 * i + lane;
          if (channel >= dim) continue;
          keys[i] = fmaf(of.weights[0], to_float(q[channel]), keys[i]);
          values[i] = fmaf(of.weights[1], to_float(g[channel]), values[i]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
      const int channel = first + 32 * i + lane;
      if (channel >= dim) continue;
      grad_qkv[k + channel] = from_float<T>(keys[i] * scale);
      grad_qkv[k + sizes.stride() + channel] = from_float<T>(values[i]);
    }
  }
}

// Writes grad_rpb, which is as rpb. A block computes one bias: its threads share the queries.
template <typename T>
__device__ __forceinline__ void bias_gradients(const T* __restrict__ qkv, const T* __restrict__ rpb, const T* __restrict__ pad,
                                               const T* __restrict__ grad, const Statistics* __restrict__ statistics,
                                               T* __restrict__ grad_rpb, const Sizes& sizes) {
  __shared__ float sums[WARPS];
  const int side = sizes.side(), head = blockIdx.x / side / side;
  const int y = int(blockIdx.x) / side % side - sizes.kernel + 1, x = int(blockIdx.x) % side - sizes.kernel + 1;
  const int height = sizes.height, width = sizes.width, to_row = y * sizes.dilation_y(), to_column = x * sizes.dilation_x();
  const Queries rows(height, sizes.kernel, sizes.dilation_y(), y), columns(width, sizes.kernel, sizes.dilation_x(), x);
  const T bias = rpb[blockIdx.x];
  float sum = 0;
  for (size_t i = threadIdx.x; i < size_t(sizes.batch) * rows.count * columns.count; i += 32 * WARPS) {
    const int query_y = rows.first + i / columns.count % rows.count, query_x = columns.first + i % columns.count;
    const size_t first = i / columns.count / rows.count * height * width, pixel = first + size_t(query_y) * width + query_x;
    const int key_y = query_y + to_row, key_x = query_x + to_column;
    const bool padded = key_y >= height || key_x >= width;
    const size_t key = first + size_t(key_y) * width + key_x;
    const T* k = (padded ? pad + sizes.q(0, head) : qkv + sizes.q(key, head)) + sizes.stride();
    const Statistics of_query = statistics[pixel * sizes.heads + head];
    sum += pair(qkv + sizes.q(pixel, head), grad + sizes.out(pixel, head), k, bias, of_query, sizes).grad_score;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < WARPS; i++) sum += sums[i];
  grad_rpb[blockIdx.x] = from_float<T>(sum);
}

#define QUERY_GRADIENTS(name, T, PARTS)                                                                                    \
  extern "C" __global__ void __launch_bounds__(32 * WARPS, BLOCKS)                                                         \
      name(const T* qkv, const T* rpb, const T* pad, const T* grad, T* grad_qkv, Statistics* statistics, PARAMETERS) {     \
    query_gradients<T, PARTS>(qkv, rpb, pad, grad, grad_qkv, statistics, SIZES);                                           \
  }                                                                                                                        \
  KERNEL(name)
#define KEY_GRADIENTS(name, T, PARTS)                                                                                      \
  extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                                 \
      name(const T* qkv, const T* rpb, const T*, const T* grad, const Statistics* statistics, T* grad_qkv, PARAMETERS) {   \
    key_gradients<T, PARTS>(qkv, rpb, grad, statistics, grad_qkv, SIZES);                                                  \
  }                                                                                                                        \
  KERNEL(name)
#define BIAS_GRADIENTS(name, T)                                                                                            \
  extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                                 \
      name(const T* qkv, const T* rpb, const T* pad, const T* grad, const Statistics* statistics, T* grad_rpb,             \
           PARAMETERS) {                                                                                                   \
    bias_gradients<T>(qkv, rpb, pad, grad, statistics, grad_rpb, SIZES);                                                   \
  }                                                                                                                        \
  KERNEL(name)

FOR_EACH_TYPE(QUERY_GRADIENTS, attention_grad_query)
FOR_EACH_TYPE(KEY_GRADIENTS, attention_grad_key)
FOR_F32(BIAS_GRADIENTS(attention_grad_bias_f32, float))
FOR_F16(BIAS_GRADIENTS(attention_grad_bias_f16, __half))
FOR_BF16(BIAS_GRADIENTS(attention_grad_bias_bf16, __nv_bfloat16))

// Regions and boxes of detectors.
#include "device.cuh"

// A level of a feature pyramid: a map [height, width, channels], and pixels a position.
template <typename T> struct Level { const T* map; int height, width, stride; };

// Where a sample lies on an axis of `size` positions: between `low` and `high`, at `part`. False if it is more than one position outside.
__device__ __forceinline__ bool split(float place, int size, int& low, int& high, float& part) {
  if (!(place >= -1.0f && place <= size)) return false;
  place = fmaxf(place, 0.0f);
  low = min(int(place), size - 1);
  high = min(low + 1, size - 1);
  part = high == low ? 0.0f : place - low;
  return true;
}

// RoIAlign (arXiv 1703.06870) as mmcv computes it with aligned=True and an adaptive grid. `rois` [count, 5]: level, x1, y1, x2, y2 in
// pixels; out [count, side, side, channels]. A block computes one bin, a thread some of its channels.
template <typename T>
__device__ __forceinline__ void roi_align(const Level<T> (&levels)[4], const float* rois, T* out, int channels, int side) {
  const int px = blockIdx.x % side, py = blockIdx.x / side % side, roi = blockIdx.x / side / side;
  const float* r = rois + 5 * size_t(roi);
  Level<T> level = levels[0];
#pragma unroll
  for (int i = 1; i < 4; i++)  // an index that the compiler knows keeps them in registers
    if (i == int(r[0])) level = levels[i];
  const float scale = 1.0f / level.stride;
  const float x = r[1] * scale - 0.5f, y = r[2] * scale - 0.5f;
  const float bin_w = (r[3] * scale - 0.5f - x) / side, bin_h = (r[4] * scale - 0.5f - y) / side;
  const int grid_w = max(int(ceilf(bin_w)), 0), grid_h = max(int(ceilf(bin_h)), 0);
  for (int c = threadIdx.x; c < channels; c += blockDim.x) {
    float sum = 0;
    for (int iy = 0; iy < grid_h; iy++) {
      int y0, y1;
      float fy;
      if (!split(y + py * bin_h + (iy + 0.5f) * bin_h / grid_h, level.height, y0, y1, fy)) continue;
      for (int ix = 0; ix < grid_w; ix++) {
        int x0, x1;
        float fx;
        if (!split(x + px * bin_w + (ix + 0.5f) * bin_w / grid_w, level.width, x0, x1, fx)) continue;
        auto at = [&](int y, int x) { return to_float(level.map[(size_t(y) * level.width + x) * channels + c]); };
        sum += (1 - fy) * ((1 - fx) * at(y0, x0) + fx * at(y0, x1)) + fy * ((1 - fx) * at(y1, x0) + fx * at(y1, x1));
      }
    }
    out[size_t(blockIdx.x) * channels + c] = from_float<T>(sum / max(grid_h * grid_w, 1));
  }
}

#define ROI_ALIGN(name, T)                                                                                                 \
  extern "C" __global__ void __launch_bounds__(256)                                                                        \
      name(const T* map0, const T* map1, const T* map2, const T* map3, const float* rois, T* out, int height0, int width0, \
           int stride0, int height1, int width1, int stride1, int height2, int width2, int stride2, int height3,           \
           int width3, int stride3, int channels, int side) {                                                              \
    const Level<T> levels[4] = {{map0, height0, width0, stride0},                                                          \
                                {map1, height1, width1, stride1},                                                          \
                                {map2, height2, width2, stride2},                                                          \
                                {map3, height3, width3, stride3}};                                                         \
    roi_align<T>(levels, rois, out, channels, side);                                                                       \
  }                                                                                                                        \
  KERNEL(name)

ROI_ALIGN(roi_align_f32, float)
ROI_ALIGN(roi_align_f16, __half)
ROI_ALIGN(roi_align_bf16, __nv_bfloat16)

// The area of a box, and intersection over union, each operation rounded by itself as on the CPU: what is suppressed jumps.
__device__ __forceinline__ float area(float4 b) { return __fmul_rn(__fsub_rn(b.z, b.x), __fsub_rn(b.w, b.y)); }
__device__ __forceinline__ float iou(float4 a, float4 b) {
  const float width = fmaxf(__fsub_rn(fminf(a.z, b.z), fmaxf(a.x, b.x)), 0.0f);
  const float height = fmaxf(__fsub_rn(fminf(a.w, b.w), fmaxf(a.y, b.y)), 0.0f);
  const float shared = __fmul_rn(width, height);
  return __fdiv_rn(shared, __fsub_rn(__fadd_rn(area(a), area(b)), shared));
}

// Which later boxes each of `boxes` [count] overlaps by more than a threshold (bits of an f32): bit j % 32 of mask [count, words] word
// j / 32. A block compares 32 boxes with 32.
extern "C" __global__ void __launch_bounds__(32) overlaps(const float4* boxes, uint32_t* mask, int count, int words, int threshold) {
  __shared__ float4 others[32];
  const int word = blockIdx.x % words, i = blockIdx.x / words * 32 + threadIdx.x, j = word * 32 + threadIdx.x;
  if (j < count) others[threadIdx.x] = boxes[j];
  __syncthreads();
  if (i >= count) return;
  const float4 box = boxes[i];
  uint32_t bits = 0;
  for (int k = max(i + 1 - word * 32, 0); k < min(32, count - word * 32); k++)
    if (iou(box, others[k]) > __int_as_float(threshold)) bits |= 1u << k;
  mask[size_t(i) * words + word] = bits;
}
KERNEL(overlaps)

// Greedy suppression, best box first: kept [count] is 1 for a box that no kept one before it overlaps. One block, whose thread t
// knows which of the boxes 32 t to 32 t + 31 are gone: up to 8192.
extern "C" __global__ void __launch_bounds__(256) suppress(const uint32_t* mask, uint32_t* kept, int count, int words) {
  __shared__ uint32_t shared_word;
  const int t = threadIdx.x;
  uint32_t gone = 0;
  for (int word = 0; word < words; word++) {
    if (t == word) shared_word = gone;
    __syncthreads();
    uint32_t here = shared_word;  // every thread follows these 32 boxes
    for (int i = word * 32; i < min(word * 32 + 32, count); i++) {
      const bool stays = !(here >> (i % 32) & 1);
      if (stays) {
        here |= mask[size_t(i) * words + word];
        if (t < words) gone |= mask[size_t(i) * words + t];
      }
      if (t == 0) kept[i] = stays;
    }
    __syncthreads();
  }
}
KERNEL(suppress)

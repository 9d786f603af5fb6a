// The first convolution of a network: from an image as it comes to a map with channels last.
#include "layers.cuh"

// image [batch, channels, height, width] to out [batch, out_height, out_width, outputs], `rows` being batch x out_height: the
// convolution with weight [outputs, channels, KERNEL, KERNEL], zeros all around the image, plus bias [outputs], which may be null.
//
// A thread computes 8 outputs, which the block's x says, of 4 neighbouring positions of a row: each weight that it takes from shared
// memory serves 4 of them, each pixel all windows that it is in, and every place is a constant away from the first. The weights lie
// by taps, then by halves of a thread's 8 outputs, so that the threads read neighbouring words.
template <typename S, typename T, int KERNEL, int STRIDE>
__device__ __forceinline__ void image_conv(const S* image, const T* weight, const T* bias, T* out, int rows, int channels, int height,
                                           int width, int out_height, int out_width, int outputs, int padding) {
  constexpr int POSITIONS = 4, COLUMNS = (POSITIONS - 1) * STRIDE + KERNEL, OUTPUTS = 8, N = 16 / sizeof(T);
  const int taps = channels * KERNEL * KERNEL, first = OUTPUTS * threadIdx.x;
  float4* weights = reinterpret_cast<float4*>(dynamic_shared()) + threadIdx.x;
  const int half = blockDim.x, step = 2 * half;  // in words of 4 weights
  for (int tap = threadIdx.y; tap < taps; tap += blockDim.y) {
    auto at = [&](int j) { return to_float(weight[(first + j) * taps + tap]); };
    weights[tap * step] = make_float4(at(0), at(1), at(2), at(3));
    weights[tap * step + half] = make_float4(at(4), at(5), at(6), at(7));
  }
  __syncthreads();

  float start[OUTPUTS];
#pragma unroll
  for (int j = 0; j < OUTPUTS; j++) start[j] = bias ? to_float(bias[first + j]) : 0;
  const int position = (blockIdx.y * blockDim.y + threadIdx.y) * POSITIONS, left = position * STRIDE - padding;
  unsigned inside = 0;  // a bit a column
#pragma unroll
  for (int x = 0; x < COLUMNS; x++) inside |= unsigned(unsigned(left + x) < unsigned(width)) << x;
  const size_t plane = size_t(height) * width;
  for (unsigned row = blockIdx.x; row < unsigned(rows); row += gridDim.x) {
    const unsigned number = row / out_height;
    const int top = int(row - number * out_height) * STRIDE - padding;
    float sum[POSITIONS][OUTPUTS];
#pragma unroll
    for (int p = 0; p < POSITIONS; p++)
#pragma unroll
      for (int j = 0; j < OUTPUTS; j++) sum[p][j] = start[j];
    // One copy of the code is enough: of a row of a window it has some 150 instructions.
#pragma unroll 1
    for (int c = 0; c < channels; c++) {
      const S* map = image + (number * size_t(channels) + c) * plane;
#pragma unroll 1
      for (int ky = max(0, -top); ky < min(KERNEL, height - top); ky++) {
        const S* line = map + ((top + ky) * width + left);
        float pixel[COLUMNS];
#pragma unroll
        for (int x = 0; x < COLUMNS; x++) pixel[x] = inside >> x & 1 ? to_float(line[x]) : 0;
        const float4* w = weights + (c * KERNEL + ky) * KERNEL * step;
#pragma unroll
        for (int kx = 0; kx < KERNEL; kx++) {
          const float4 low = w[kx * step], high = w[kx * step + half];
          const float by[OUTPUTS] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
          for (int p = 0; p < POSITIONS; p++)
#pragma unroll
            for (int j = 0; j < OUTPUTS; j++) sum[p][j] = fmaf(pixel[p * STRIDE + kx], by[j], sum[p][j]);
        }
      }
    }
    T* to = out + (size_t(row) * out_width + position) * outputs + first;
#pragma unroll
    for (int p = 0; p < POSITIONS; p++, to += outputs) {
      if (position + p >= out_width) break;
#pragma unroll
      for (int i = 0; i < OUTPUTS / N; i++) {
        float word[N];
#pragma unroll
        for (int j = 0; j < N; j++) word[j] = sum[p][i * N + j];
        reinterpret_cast<uint4*>(to)[i] = rounded<T>(word);
      }
    }
  }
}

#define IMAGE_CONV(name, S, T, KERNEL_SIDE, STRIDE)                                                                         \
  extern "C" __global__ void __launch_bounds__(128)                                                                        \
      name(const S* image, const T* weight, const T* bias, T* out, int rows, int channels, int height, int width,          \
           int out_height, int out_width, int outputs, int padding) {                                                      \
    image_conv<S, T, KERNEL_SIDE, STRIDE>(image, weight, bias, out, rows, channels, height, width, out_height, out_width,  \
                                          outputs, padding);                                                               \
  }                                                                                                                        \
  KERNEL(name)

// The name says the kernel, the stride, and the types of the image and of the map. 3 and 2 are those of a tokenizer of overlapping
// windows, 4 and 4 of one of patches.
#define IMAGES(image, S, type, T)                                                                                           \
  IMAGE_CONV(image_conv_3_2_##image##_##type, S, T, 3, 2)                                                                  \
  IMAGE_CONV(image_conv_4_4_##image##_##type, S, T, 4, 4)

FOR_F32(IMAGES(f32, float, f32, float))
FOR_F16(IMAGES(f32, float, f16, __half) IMAGES(f16, __half, f16, __half))
FOR_BF16(IMAGES(f32, float, bf16, __nv_bfloat16) IMAGES(bf16, __nv_bfloat16, bf16, __nv_bfloat16))

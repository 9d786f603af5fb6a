// candle's kernels, as far as the networks here launch them (candle-kernels: unary.cu, binary.cu, affine.cu, reduce.cu, ...), as
// plain loops.
#pragma once

#include "cuda.h"

namespace candle {

using Call = std::function<void()>;

template <typename T> float widen(T x);
template <> float widen(float x) { return x; }
template <> float widen(__half x) { return __half2float(x); }
template <> float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T> T narrow(float x);
template <> float narrow(float x) { return x; }
template <> __half narrow(float x) { return __float2half(x); }
template <> __nv_bfloat16 narrow(float x) { return __float2bfloat16(x); }

// Where element i of a tensor of these sizes and strides lies; without them it is contiguous.
size_t place(size_t i, size_t rank, const size_t* sizes, const size_t* strides) {
  if (!sizes) return i;
  size_t at = 0;
  for (size_t d = rank; d-- > 0; i /= sizes[d]) at += i % sizes[d] * strides[d];
  return at;
}

template <typename T> T parameter(void** parameters, int i) { return *static_cast<T*>(parameters[i]); }

// Parameters: elements, dimensions, their sizes and strides, input, output.
template <typename S, typename T> Call unary(void** parameters, float (*f)(float)) {
  const auto count = parameter<size_t>(parameters, 0), rank = parameter<size_t>(parameters, 1);
  const auto* info = parameter<const size_t*>(parameters, 2);
  const auto* in = parameter<const S*>(parameters, 3);
  auto* out = parameter<T*>(parameters, 4);
  return [=] {
    for (size_t i = 0; i < count; i++) out[i] = narrow<T>(f(widen(in[place(i, rank, info, info + rank)])));
  };
}

// The same with the sizes and strides of two inputs.
template <typename T> Call binary(void** parameters, float (*f)(float, float)) {
  const auto count = parameter<size_t>(parameters, 0), rank = parameter<size_t>(parameters, 1);
  const auto* info = parameter<const size_t*>(parameters, 2);
  const auto *a = parameter<const T*>(parameters, 3), *b = parameter<const T*>(parameters, 4);
  auto* out = parameter<T*>(parameters, 5);
  return [=] {
    for (size_t i = 0; i < count; i++)
      out[i] = narrow<T>(f(widen(a[place(i, rank, info, info + rank)]), widen(b[place(i, rank, info, info + 2 * rank)])));
  };
}

// As unary, and then a factor and a summand.
template <typename T> Call affine(void** parameters) {
  const auto count = parameter<size_t>(parameters, 0), rank = parameter<size_t>(parameters, 1);
  const auto* info = parameter<const size_t*>(parameters, 2);
  const auto* in = parameter<const T*>(parameters, 3);
  auto* out = parameter<T*>(parameters, 4);
  const auto factor = widen(parameter<T>(parameters, 5)), summand = widen(parameter<T>(parameters, 6));
  return [=] {
    for (size_t i = 0; i < count; i++) out[i] = narrow<T>(widen(in[place(i, rank, info, info + rank)]) * factor + summand);
  };
}

// As unary, of a value instead of an input.
template <typename T> Call fill(void** parameters) {
  const auto count = parameter<size_t>(parameters, 0), rank = parameter<size_t>(parameters, 1);
  const auto* info = parameter<const size_t*>(parameters, 2);
  const T value = parameter<T>(parameters, 3);
  auto* out = parameter<T*>(parameters, 4);
  return [=] {
    for (size_t i = 0; i < count; i++) out[place(i, rank, info, info + rank)] = value;
  };
}

// Parameters: elements of the input (of the result if `small`), elements of a sum, dimensions, sizes and strides with the summed ones last, input, output.
template <typename T, bool small> Call sum(void** parameters) {
  const auto count = parameter<size_t>(parameters, 0), each = parameter<size_t>(parameters, 1), rank = parameter<size_t>(parameters, 2);
  const auto* info = parameter<const size_t*>(parameters, 3);
  const auto* in = parameter<const T*>(parameters, 4);
  auto* out = parameter<T*>(parameters, 5);
  return [=] {
    for (size_t i = 0; i < (small ? count : count / each); i++) {
      float total = 0;
      for (size_t j = 0; j < each; j++) total += widen(in[place(i * each + j, rank, info, info + rank)]);
      out[i] = narrow<T>(total);
    }
  };
}

// Parameters: elements, and of the indices dimensions, sizes and strides (contiguous here); indices, input, output, and the sizes
// before the indexed dimension, of it, of the indices, and behind it.
template <typename T> Call index_select(void** parameters) {
  const auto count = parameter<size_t>(parameters, 0);
  const auto* ids = parameter<const uint32_t*>(parameters, 3);
  const auto* in = parameter<const T*>(parameters, 4);
  auto* out = parameter<T*>(parameters, 5);
  const auto from = parameter<size_t>(parameters, 7), indices = parameter<size_t>(parameters, 8), right = parameter<size_t>(parameters, 9);
  return [=] {
    for (size_t i = 0; i < count; i++) {
      const size_t left = i / right / indices;
      out[i] = in[(left * from + ids[i / right % indices]) * right + i % right];
    }
  };
}

// Parameters: elements, indices (one for each), input, output, and the sizes before the indexed dimension, of it, of the indices,
// and behind it.
template <typename T> Call gather(void** parameters) {
  const auto count = parameter<size_t>(parameters, 0);
  const auto* ids = parameter<const uint32_t*>(parameters, 1);
  const auto* in = parameter<const T*>(parameters, 2);
  auto* out = parameter<T*>(parameters, 3);
  const auto from = parameter<size_t>(parameters, 5), indices = parameter<size_t>(parameters, 6), right = parameter<size_t>(parameters, 7);
  return [=] {
    for (size_t i = 0; i < count; i++) out[i] = in[(i / right / indices * from + ids[i]) * right + i % right];
  };
}

// The other way, added up. Parameters: indices, input, output, sizes as above, the indexed dimension's behind that of the indices.
template <typename T> Call scatter_add(void** parameters) {
  const auto* ids = parameter<const uint32_t*>(parameters, 0);
  const auto* in = parameter<const T*>(parameters, 1);
  auto* out = parameter<T*>(parameters, 2);
  const auto left = parameter<size_t>(parameters, 3), indices = parameter<size_t>(parameters, 4), to = parameter<size_t>(parameters, 5);
  const auto right = parameter<size_t>(parameters, 6);
  return [=] {
    for (size_t i = 0; i < left * indices * right; i++) {
      T& sum = out[(i / right / indices * to + ids[i]) * right + i % right];
      sum = narrow<T>(widen(sum) + widen(in[i]));
    }
  };
}

// Parameters: elements, height and width of the result and of the kernel, stride, padding, dilation, sizes and strides of the
// input [batch, channels, height, width], input, output [batch, height, width, channels, kernel, kernel].
template <typename T> Call im2col(void** parameters) {
  size_t n[8];
  for (int i = 0; i < 8; i++) n[i] = parameter<size_t>(parameters, i);
  const auto [count, height, width, kernel_y, kernel_x, stride, padding, dilation] = n;
  const auto* info = parameter<const size_t*>(parameters, 8);
  const auto* in = parameter<const T*>(parameters, 9);
  auto* out = parameter<T*>(parameters, 10);
  return [=, count = count, height = height, width = width, kernel_y = kernel_y, kernel_x = kernel_x, stride = stride,
          padding = padding, dilation = dilation] {
    for (size_t i = 0; i < count; i++) {
      const size_t kx = i % kernel_x, ky = i / kernel_x % kernel_y, channel = i / kernel_x / kernel_y % info[1];
      const size_t place = i / kernel_x / kernel_y / info[1];
      const size_t x = place % width * stride + kx * dilation - padding, y = place / width % height * stride + ky * dilation - padding;
      const bool inside = y < info[2] && x < info[3];  // what is below zero has wrapped
      out[i] = inside ? in[place / width / height * info[4] + channel * info[5] + y * info[6] + x * info[7]] : narrow<T>(0);
    }
  };
}

// Parameters: elements of the input, width and height of the result, stride, padding, output padding, dilation (1 here), sizes
// and strides of the input [batch, channels, height, width] and of the kernel [channels, outputs, height, width], input, kernel,
// output.
template <typename T> Call conv_transpose2d(void** parameters) {
  const auto width = parameter<size_t>(parameters, 1), height = parameter<size_t>(parameters, 2), stride = parameter<size_t>(parameters, 3);
  const auto padding = parameter<size_t>(parameters, 4);
  const auto* info = parameter<const size_t*>(parameters, 7);
  const auto *in = parameter<const T*>(parameters, 8), *kernel = parameter<const T*>(parameters, 9);
  auto* out = parameter<T*>(parameters, 10);
  return [=] {
    const auto *strides = info + 4, *sizes = info + 8, *kernel_strides = info + 12;
    for (size_t i = 0; i < info[0] * sizes[1] * height * width; i++) {
      const size_t x = i % width + padding, y = i / width % height + padding, channel = i / width / height % sizes[1];
      const size_t image = i / width / height / sizes[1];
      float sum = 0;
      for (size_t ky = y % stride; ky < sizes[2] && ky <= y; ky += stride)
        for (size_t kx = x % stride; kx < sizes[3] && kx <= x; kx += stride) {
          const size_t from_y = (y - ky) / stride, from_x = (x - kx) / stride;
          if (from_y >= info[2] || from_x >= info[3]) continue;
          for (size_t c = 0; c < info[1]; c++)
            sum += widen(in[image * strides[0] + c * strides[1] + from_y * strides[2] + from_x * strides[3]]) *
                   widen(kernel[c * kernel_strides[0] + channel * kernel_strides[1] + ky * kernel_strides[2] + kx * kernel_strides[3]]);
        }
      out[i] = narrow<T>(sum);
    }
  };
}

// Parameters: width and height of the result, align_corners and scales (not used here), sizes and strides of the input [batch,
// channels, height, width], input, output.
template <typename T> Call bilinear(void** parameters) {
  const auto width = parameter<size_t>(parameters, 0), height = parameter<size_t>(parameters, 1);
  const auto* info = parameter<const size_t*>(parameters, 7);
  const auto* in = parameter<const T*>(parameters, 8);
  auto* out = parameter<T*>(parameters, 9);
  return [=] {
    auto split = [](size_t i, size_t from, size_t to, size_t& low, size_t& high) {
      const double at = std::max((i + 0.5) * from / to - 0.5, 0.0);
      low = std::min(size_t(at), from - 1), high = std::min(low + 1, from - 1);
      return float(at - low);
    };
    for (size_t i = 0; i < info[0] * info[1] * height * width; i++) {
      size_t x0, x1, y0, y1;
      const float fx = split(i % width, info[3], width, x0, x1), fy = split(i / width % height, info[2], height, y0, y1);
      const size_t plane = i / width / height;
      auto at = [&](size_t y, size_t x) {
        return widen(in[plane / info[1] * info[4] + plane % info[1] * info[5] + y * info[6] + x * info[7]]);
      };
      out[i] = narrow<T>((1 - fy) * ((1 - fx) * at(y0, x0) + fx * at(y0, x1)) + fy * ((1 - fx) * at(y1, x0) + fx * at(y1, x1)));
    }
  };
}

// Parameters: source, target, rows, columns, their strides.
template <typename T> Call copy2d(void** parameters) {
  const T* from = *static_cast<const T**>(parameters[0]);
  T* to = *static_cast<T**>(parameters[1]);
  uint32_t sizes[4];
  for (int i = 0; i < 4; i++) sizes[i] = *static_cast<uint32_t*>(parameters[2 + i]);
  const auto [rows, columns, from_stride, to_stride] = sizes;
  return [=, rows = rows, columns = columns, from_stride = from_stride, to_stride = to_stride] {
    for (size_t r = 0; r < rows; r++)
      for (size_t c = 0; c < columns; c++) to[r * to_stride + c] = from[r * from_stride + c];
  };
}

using Kernel = std::function<Call(void**)>;

template <typename T> void add(std::map<std::string, Kernel>& all, const std::string& type) {
  auto map = [&](const char* name, float (*f)(float)) { all[name + type] = [=](void** p) { return unary<T, T>(p, f); }; };
  map("ucopy_", [](float x) { return x; });
  map("uneg_", [](float x) { return -x; });
  map("uexp_", [](float x) { return std::exp(x); });
  map("urecip_", [](float x) { return 1 / x; });
  map("usqrt_", [](float x) { return std::sqrt(x); });
  map("urelu_", [](float x) { return x < 0 ? 0 : x; });
  map("usqr_", [](float x) { return x * x; });
  map("uerf_", [](float x) { return std::erf(x); });
  map("ugelu_erf_", [](float x) { return 0.5f * x * (1 + std::erf(x * 0.70710678f)); });
  auto zip = [&](const char* name, float (*f)(float, float)) { all[name + type] = [=](void** p) { return binary<T>(p, f); }; };
  zip("badd_", [](float x, float y) { return x + y; });
  zip("bsub_", [](float x, float y) { return x - y; });
  zip("bdiv_", [](float x, float y) { return x / y; });
  zip("bmul_", [](float x, float y) { return x * y; });
  all["affine_" + type] = affine<T>;
  all["const_set_" + type] = fill<T>;
  all["fast_sum_" + type] = sum<T, false>;
  all["fast_sum_small_" + type] = sum<T, true>;
  all["is_u32_" + type] = index_select<T>;
  all["gather_u32_" + type] = gather<T>;
  all["sa_u32_" + type] = scatter_add<T>;
  all["im2col_" + type] = im2col<T>;
  all["conv_transpose2d_" + type] = conv_transpose2d<T>;
  all["upsample_bilinear2d_" + type] = bilinear<T>;
  all["copy2d_" + type] = copy2d<T>;
  auto same = [](float x) { return x; };
  all["cast_" + type + "_f32"] = [=](void** p) { return unary<T, float>(p, same); };
  all["cast_" + type + "_f16"] = [=](void** p) { return unary<T, __half>(p, same); };
  all["cast_" + type + "_bf16"] = [=](void** p) { return unary<T, __nv_bfloat16>(p, same); };
}

inline const std::map<std::string, Kernel>& kernels() {
  static const auto all = [] {
    std::map<std::string, Kernel> all;
    add<float>(all, "f32");
    add<__half>(all, "f16");
    add<__nv_bfloat16>(all, "bf16");
    return all;
  }();
  return all;
}

}  // namespace candle

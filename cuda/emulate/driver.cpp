// An NVIDIA driver, cuBLAS and cuRAND of which candle gets as much as the networks here ask for, on the CPU: device memory is
// ordinary memory, a stream does everything at once, a recorded graph is a list of calls. So the program built with CUDA runs
// its own launches, arguments, copies and graphs on a machine without a GPU (emulated-device.sh). The kernels of this project are
// emulated; of candle's own there are plain loops for those that it launches.
#include <mutex>

#include "cuda.h"

namespace {

using Call = std::function<void()>;
// Each thread has its own graph: on a GPU it would be each stream.
thread_local std::vector<Call>* recording = nullptr;
char handle;  // stands for whatever has no contents here

void act(Call call) {
  if (recording) recording->push_back(std::move(call));
  else call();
}

enum Status { SUCCESS = 0, INVALID_VALUE = 1, NOT_FOUND = 500 };

// candle's kernels, as far as the networks launch them (candle-kernels: unary.cu, binary.cu, affine.cu, reduce.cu, ...).

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

using Candle = std::function<Call(void**)>;

template <typename T> void add_candle(std::map<std::string, Candle>& all, const std::string& type) {
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

const std::map<std::string, Candle>& candle() {
  static const auto all = [] {
    std::map<std::string, Candle> all;
    add_candle<float>(all, "f32");
    add_candle<__half>(all, "f16");
    add_candle<__nv_bfloat16>(all, "bf16");
    return all;
  }();
  return all;
}

struct Function {
  std::string name;
};

float element(const void* values, int type, size_t i) {
  switch (type) {
    case 0: return static_cast<const float*>(values)[i];
    case 2: return __half2float(static_cast<const __half*>(values)[i]);
    case 14: return __bfloat162float(static_cast<const __nv_bfloat16*>(values)[i]);
  }
  EMULATED_FAIL("a product of the type %d", type);
}

}  // namespace

extern "C" {

// The driver.
int cuInit(unsigned) { return SUCCESS; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal == 0 ? SUCCESS : 101; }
int cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
int cuDeviceGetName(char* name, int length, int) { return std::snprintf(name, length, "emulated GPU"), SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = size_t(1) << 30, SUCCESS; }
int cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  // Compute capability 8.0, with pools of memory.
  *value = attribute == 75 ? 8 : attribute == 115 ? 1 : 0;
  return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &handle, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxGetCurrent(void** context) { return *context = &handle, SUCCESS; }
int cuCtxSetCurrent(void*) { return SUCCESS; }
int cuCtxSynchronize() { return SUCCESS; }
int cuCtxDestroy_v2(void*) { return SUCCESS; }
int cuDeviceGetDefaultMemPool(void** pool, int) { return *pool = &handle, SUCCESS; }
int cuMemPoolSetAttribute(void*, int attribute, void* value) {
  return attribute == 4 && *static_cast<uint64_t*>(value) == ~uint64_t(0) ? SUCCESS : INVALID_VALUE;
}
int cuGetErrorString(int, const char** text) { return *text = "an error of the emulated driver", SUCCESS; }
int cuGetErrorName(int, const char** text) { return *text = "EMULATED", SUCCESS; }

// Memory begins as NaN, and is aligned as on a GPU. What a graph uses stays.
int cuMemAllocAsync(void** address, size_t bytes, void*) {
  *address = std::aligned_alloc(256, (bytes + 255) & ~size_t(255));
  std::memset(*address, 0xff, bytes);
  return SUCCESS;
}
int cuMemAlloc_v2(void** address, size_t bytes) { return cuMemAllocAsync(address, bytes, nullptr); }
int cuMemFreeAsync(void* address, void*) { return recording ? SUCCESS : (std::free(address), SUCCESS); }
int cuMemFree_v2(void* address) { return cuMemFreeAsync(address, nullptr); }
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void*) {
  if (recording) EMULATED_FAIL("a copy from the host is recorded: its source may be gone when the graph runs");
  return std::memcpy(to, from, bytes), SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void*) {
  if (recording) EMULATED_FAIL("a copy to the host is recorded");
  return std::memcpy(to, from, bytes), SUCCESS;
}
int cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void*) {
  return act([=] { std::memcpy(to, from, bytes); }), SUCCESS;
}
int cuMemsetD8Async(void* to, unsigned char value, size_t bytes, void*) {
  return act([=] { std::memset(to, value, bytes); }), SUCCESS;
}

int cuStreamCreate(void** stream, unsigned) { return *stream = &handle, SUCCESS; }
int cuStreamDestroy_v2(void*) { return SUCCESS; }
int cuStreamSynchronize(void*) { return SUCCESS; }
int cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
int cuEventCreate(void** event, unsigned) { return *event = &handle, SUCCESS; }
int cuEventRecord(void*, void*) { return SUCCESS; }
int cuEventDestroy_v2(void*) { return SUCCESS; }

int cuStreamIsCapturing(void*, int* status) { return *status = recording != nullptr, SUCCESS; }
int cuStreamBeginCapture_v2(void*, int) { return recording = new std::vector<Call>, SUCCESS; }
int cuStreamEndCapture(void*, void** graph) { return *graph = recording, recording = nullptr, SUCCESS; }
int cuGraphInstantiateWithFlags(void** executable, void* graph, uint64_t) { return *executable = graph, SUCCESS; }
int cuGraphLaunch(void* graph, void*) {
  for (const auto& call : *static_cast<std::vector<Call>*>(graph)) call();
  return SUCCESS;
}
int cuGraphExecDestroy(void*) { return SUCCESS; }
int cuGraphDestroy(void*) { return SUCCESS; }

int cuModuleLoadData(void** module, const void*) { return *module = &handle, SUCCESS; }
int cuModuleLoad(void** module, const char*) { return *module = &handle, SUCCESS; }
int cuModuleUnload(void*) { return SUCCESS; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  static std::map<std::string, Function> functions;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (!emulated::kernels().count(name) && !candle().count(name)) {
    std::fprintf(stderr, "emulated driver: there is no kernel %s\n", name);
    return NOT_FOUND;
  }
  return *function = &functions.try_emplace(name, Function{name}).first->second, SUCCESS;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared_bytes,
                   void*, void** parameters, void**) {
  const auto& name = static_cast<Function*>(function)->name;
  if (gx * gy * gz == 0 || bx * by * bz == 0 || bx * by * bz > 1024 || shared_bytes > 48 << 10) return INVALID_VALUE;
  if (const auto moves = candle().find(name); moves != candle().end()) return act(moves->second(parameters)), SUCCESS;
  const auto kernel = emulated::kernels().at(name)(parameters);
  act([=] { emulated::run({gx, gy, gz}, {bx, by, bz}, shared_bytes, kernel); });
  return SUCCESS;
}

// cuBLAS: matrices are column by column.
int cublasCreate_v2(void** handle) { return *handle = &handle, SUCCESS; }
int cublasDestroy_v2(void*) { return SUCCESS; }
int cublasSetStream_v2(void*, void*) { return SUCCESS; }
int cublasGemmStridedBatchedEx(void*, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a, int a_type,
                               int lda, long long stride_a, const void* b, int b_type, int ldb, long long stride_b, const void* beta,
                               void* c, int c_type, int ldc, long long stride_c, int batch, int compute, int) {
  // CUBLAS_COMPUTE_16F has factors of its own type.
  const int scalar = compute == 64 || compute == 65 ? 2 : 0;
  if (element(alpha, scalar, 0) != 1 || element(beta, scalar, 0) != 0) EMULATED_FAIL("a product with factors");
  act([=] {
    for (long long i = 0; i < batch; i++)
      for (long long column = 0; column < n; column++)
        for (long long row = 0; row < m; row++) {
          float sum = 0;
          for (long long j = 0; j < k; j++)
            sum += element(a, a_type, i * stride_a + (transpose_a ? row * lda + j : j * lda + row)) *
                   element(b, b_type, i * stride_b + (transpose_b ? j * ldb + column : column * ldb + j));
          const long long to = i * stride_c + column * ldc + row;
          if (c_type == 0) static_cast<float*>(c)[to] = sum;
          else if (c_type == 2) static_cast<__half*>(c)[to] = __float2half(sum);
          else static_cast<__nv_bfloat16*>(c)[to] = __float2bfloat16(sum);
        }
  });
  return SUCCESS;
}

// cuRAND: candle makes a generator for every device.
int curandCreateGenerator(void** generator, int) { return *generator = &handle, SUCCESS; }
int curandDestroyGenerator(void*) { return SUCCESS; }
int curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return SUCCESS; }
int curandSetStream(void*, void*) { return SUCCESS; }
int curandGenerateNormal(void*, float* values, size_t count, float mean, float deviation) {
  for (size_t i = 0; i < count; i++) values[i] = mean + deviation * std::sin(12.9898f * i);
  return SUCCESS;
}
}

// An NVIDIA driver, cuBLAS and cuRAND of which candle gets as much as the networks here ask for, on the CPU: device memory is
// ordinary memory (device.h says what a stream and a graph are). So the program built with CUDA runs its own launches, arguments,
// copies and graphs on a machine without a GPU (emulated-device.sh). The kernels of this project are emulated; of candle's own
// there are plain loops for those that it launches (candle.h).
#include <utility>

#include "candle.h"
#include "device.h"

using namespace device;

namespace {

char handle;  // stands for whatever has no contents here

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
int cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal == 0 ? SUCCESS : 101; }
int cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
int cuDeviceGetName(char* name, int length, int) { return std::snprintf(name, length, "emulated GPU"), SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = size_t(1) << 30, SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  // Compute capability 8.0, with pools of memory.
  *value = attribute == 75 ? 8 : attribute == 115 ? 1 : 0;
  return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &handle, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxGetCurrent(void** context) { return *context = &handle, SUCCESS; }
int cuCtxSetCurrent(void*) { return SUCCESS; }
int cuCtxSynchronize() {
  LOCKED;
  for (Stream* each : streams)
    if (each->recording) return each->recording->broken = true, CAPTURE_UNSUPPORTED;
  for (Stream* each : streams) each->run();
  return wait(nullptr);
}
int cuCtxDestroy_v2(void*) { return SUCCESS; }
int cuDeviceGetDefaultMemPool(void** pool, int) { return *pool = &handle, SUCCESS; }
int cuMemPoolSetAttribute(void*, int attribute, void* value) {
  return attribute == 4 && *static_cast<uint64_t*>(value) == ~uint64_t(0) ? SUCCESS : INVALID_VALUE;
}
int cuGetErrorString(int, const char** text) { return *text = "an error of the emulated driver", SUCCESS; }
int cuGetErrorName(int, const char** text) { return *text = "EMULATED", SUCCESS; }

int cuMemAllocAsync(void** address, size_t bytes, void* stream) { return allocate_on(address, bytes, stream); }
int cuMemAlloc_v2(void** address, size_t bytes) { return *address = allocate(bytes), SUCCESS; }
int cuMemFreeAsync(void* address, void* stream) { return free_on(address, stream); }
int cuMemFree_v2(void* address) { return cuCtxSynchronize(), release(address), SUCCESS; }
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  LOCKED;
  if (device::stream(stream)->recording) EMULATED_FAIL("a copy from the host is recorded: its source may be gone when the graph runs");
  // Memory that is not pinned is read before the call returns.
  std::vector<char> staged(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
  return submit(stream, [to, staged = std::move(staged)] { std::memcpy(to, staged.data(), staged.size()); });
}
int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  LOCKED;
  if (device::stream(stream)->recording) EMULATED_FAIL("a copy to the host is recorded");
  if (const int status = wait(stream)) return status;
  if (counting()) std::memset(to, 0, bytes);
  else std::memcpy(to, from, bytes);
  return SUCCESS;
}
int cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  return submit(stream, [=] {
    count("copy", 2 * bytes);
    if (!counting()) std::memcpy(to, from, bytes);
  });
}
int cuMemsetD8Async(void* to, unsigned char value, size_t bytes, void* stream) {
  return submit(stream, [=] {
    count("set", bytes);
    if (!counting()) std::memset(to, value, bytes);
  });
}

int cuStreamCreate(void** stream, unsigned) {
  LOCKED;
  return *stream = *streams.insert(new Stream).first, SUCCESS;
}
int cuStreamDestroy_v2(void* stream) {
  LOCKED;
  auto* gone = static_cast<Stream*>(stream);
  gone->recording.reset();
  gone->run();
  return streams.erase(gone), delete gone, SUCCESS;
}
int cuStreamSynchronize(void* stream) { return wait(stream); }
int cuEventCreate(void** event, unsigned) { return *event = new Event, SUCCESS; }
int cuEventRecord(void* event, void* stream) {
  LOCKED;
  Stream* on = device::stream(stream);
  return *static_cast<Event*>(event) = {on, on->taken}, SUCCESS;
}
int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  const Event until = *static_cast<Event*>(event);
  if (!until.stream) return SUCCESS;
  return submit(stream, [until] { until.stream->run_until(until.place); });
}
int cuEventDestroy_v2(void* event) { return delete static_cast<Event*>(event), SUCCESS; }

int cuStreamIsCapturing(void* stream, int* status) {
  LOCKED;
  const auto& recording = device::stream(stream)->recording;
  return *status = !recording ? 0 : recording->broken ? 2 : 1, SUCCESS;
}
int cuStreamBeginCapture_v2(void* stream, int) { return begin(stream); }
int cuStreamEndCapture(void* stream, void** graph) { return end(stream, graph); }
int cuGraphInstantiateWithFlags(void** executable, void* graph, uint64_t flags) { return instantiate(executable, graph, flags); }
int cuGraphLaunch(void* executable, void* stream) { return launch(executable, stream); }
int cuGraphExecDestroy(void* executable) { return destroy(executable); }
int cuGraphDestroy(void* graph) { return destroy(graph); }

// The nvcc of this folder "compiles" a file to a line of its name.
int cuModuleLoadData(void** module, const void* image) {
  const std::string line(static_cast<const char*>(image), std::strcspn(static_cast<const char*>(image), "\n"));
  count("module " + line, 0);
  return *module = &handle, SUCCESS;
}
int cuModuleLoad(void** module, const char*) { return *module = &handle, SUCCESS; }
int cuModuleUnload(void*) { return SUCCESS; }
int cuModuleGetFunction(void** function, void*, const char* name) {
  LOCKED;
  static std::map<std::string, Function> functions;
  if (!emulated::kernels().count(name) && !candle::kernels().count(name)) {
    std::fprintf(stderr, "emulated driver: there is no kernel %s\n", name);
    return NOT_FOUND;
  }
  return *function = &functions.try_emplace(name, Function{name}).first->second, SUCCESS;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared_bytes,
                   void* stream, void** parameters, void**) {
  const auto& name = static_cast<Function*>(function)->name;
  if (gx == 0 || gy == 0 || gz == 0 || gx > 0x7fffffff || gy > 65535 || gz > 65535) return INVALID_VALUE;
  if (bx * by * bz == 0 || bx * by * bz > 1024 || shared_bytes > 48 << 10) return INVALID_VALUE;
  if (const auto kernel = candle::kernels().find(name); kernel != candle::kernels().end())
    return submit(stream, [name, run = kernel->second(parameters)] {
      count("candle " + name, 0);
      if (!counting()) run();
    });
  const auto& kernel = emulated::kernels().at(name);
  uint64_t bytes = 0;
  for (const void* pointer : kernel.pointers(parameters)) bytes += bytes_at(pointer);
  return submit(stream, [=, run = kernel.bind(parameters)] {
    count(name, bytes);
    if (!counting()) emulated::run({gx, gy, gz}, {bx, by, bz}, shared_bytes, run);
  });
}

// cuBLAS: matrices are column by column.
int cublasCreate_v2(void** blas) { return *blas = new void*(nullptr), SUCCESS; }
int cublasDestroy_v2(void* blas) { return delete static_cast<void**>(blas), SUCCESS; }
int cublasSetStream_v2(void* blas, void* stream) { return *static_cast<void**>(blas) = stream, SUCCESS; }
int cublasGemmStridedBatchedEx(void* blas, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a, int a_type,
                               int lda, long long stride_a, const void* b, int b_type, int ldb, long long stride_b, const void* beta,
                               void* c, int c_type, int ldc, long long stride_c, int batch, int compute, int algorithm) {
  // CUBLAS_COMPUTE_16F has factors of its own type.
  const int scalar = compute == 64 || compute == 65 ? 2 : 0;
  if (element(alpha, scalar, 0) != 1 || element(beta, scalar, 0) != 0) EMULATED_FAIL("a product with factors");
  // CUBLAS_GEMM_DEFAULT_TENSOR_OP may compute f32 in halves.
  const std::string name = a_type == 0 && algorithm == 99 ? "product in f32 of any precision" : "product";
  const uint64_t bytes = uint64_t(batch) * (uint64_t(m) * k + uint64_t(k) * n + uint64_t(m) * n) * (a_type == 0 ? 4 : 2);
  const int status = submit(*static_cast<void**>(blas), [=] {
    count(name, bytes);
    if (counting()) return;
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
  return status == SUCCESS ? SUCCESS : 14;  // CUBLAS_STATUS_INTERNAL_ERROR
}

// cuRAND: candle makes a generator for every device.
int curandCreateGenerator(void** generator, int) { return *generator = new void*(nullptr), SUCCESS; }
int curandDestroyGenerator(void* generator) { return delete static_cast<void**>(generator), SUCCESS; }
int curandSetPseudoRandomGeneratorSeed(void*, unsigned long long) { return SUCCESS; }
int curandSetStream(void* generator, void* stream) { return *static_cast<void**>(generator) = stream, SUCCESS; }
int curandGenerateNormal(void* generator, float* values, size_t count, float mean, float deviation) {
  return submit(*static_cast<void**>(generator), [=] {
    if (counting()) return;
    for (size_t i = 0; i < count; i++) values[i] = mean + deviation * std::sin(12.9898f * i);
  });
}

// What tests ask: that the `call`-th call in a recording fails from now on (0: none), which says how far the last one asked for
// still was; that counting begins again; and what was
// counted, a line for each name: times, bytes, name.
unsigned nat_emulated_fail(unsigned call) {
  LOCKED;
  return std::exchange(failing, call);
}
void nat_emulated_reset() {
  LOCKED;
  counted().clear();
}
const char* nat_emulated_report() {
  LOCKED;
  static std::string report;
  report.clear();
  for (const auto& [name, entry] : counted())
    report += std::to_string(entry.times) + " " + std::to_string(entry.bytes) + " " + name + "\n";
  return report.c_str();
}

// With NAT_EMULATED_COUNT=1 a program tells when it ends.
__attribute__((destructor)) static void tell() {
  if (counting()) std::fputs(nat_emulated_report(), stderr);
}
}

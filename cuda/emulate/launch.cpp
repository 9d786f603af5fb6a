// The way into the emulation, as the driver's cuLaunchKernel: parameters[i] is the address of the i-th parameter.
#include "cuda.h"

extern "C" int nat_cuda_launch(const char* name, const uint32_t* grid, const uint32_t* block, size_t shared_bytes, void** parameters) {
  const auto kernel = emulated::kernels().find(name);
  if (kernel == emulated::kernels().end()) return 1;
  emulated::run({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared_bytes, kernel->second.bind(parameters));
  return 0;
}

#include "norms.cuh"

NORMS(f16, __half)

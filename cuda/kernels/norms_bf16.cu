#include "norms.cuh"

NORMS(bf16, __nv_bfloat16)

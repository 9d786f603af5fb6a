#include "norms.cuh"

NORMS(f32, float)
// 2048 channels are twice as many words in f32.
ROWS(f32, float, 16)

// The geometry of neighborhood attention (src/attention/window.rs in the words of a kernel). The positions of an axis that
// are congruent modulo the dilation form a class, an ordinary axis without dilation; its places are counted from 0.
#pragma once

struct Axis {
  int first, dilation, kernel, size;

  // Class `first` of an axis of `length` positions.
  __device__ Axis(int length, int kernel, int dilation, int first)
      : first(first), dilation(dilation), kernel(kernel), size((length - first + dilation - 1) / dilation) {}

  // Where a place lies on the whole axis.
  __device__ int position(int place) const { return first + dilation * place; }
  // First place of the window of the query at a place.
  __device__ int start(int place) const { return min(max(place - kernel / 2, 0), size - kernel); }
  // Bias index of the neighbour at place `key` of the query at place `query`.
  __device__ int bias(int query, int key) const { return key - query + kernel - 1; }
};

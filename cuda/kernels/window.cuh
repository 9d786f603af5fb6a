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
  // First and last place of the queries that have the key at a place in their windows: all between them do.
  __device__ int first_query(int key) const { return key < kernel ? 0 : key - (kernel - 1) / 2; }
  __device__ int last_query(int key) const { return key >= size - kernel ? size - 1 : key + kernel / 2; }
  // Bias index of the neighbour at place `key` of the query at place `query`.
  __device__ int bias(int query, int key) const { return key - query + kernel - 1; }
};

// The positions of an axis whose queries have a neighbour `relative` places further on. They follow one another, in all classes
// at once: those far from the middle of a window are neighbours only where it shifts, in the outermost places of each class.
struct Queries {
  int count, first;

  __device__ Queries(int length, int kernel, int dilation, int relative) {
    const int distance = abs(relative), middle = (relative < 0 ? kernel : kernel - 1) / 2;
    count = distance <= middle ? length - distance * dilation : (kernel - distance) * dilation;
    first = relative < 0 ? length - count : 0;
  }
};

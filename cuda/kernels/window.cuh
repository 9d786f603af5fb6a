// The geometry of neighborhood attention (src/attention/window.rs in the words of a kernel). The positions of an axis that
// are congruent modulo the dilation form a class, an ordinary axis without dilation; its places are counted from 0. A class
// of fewer than K positions is padded to K places.
#pragma once

// The dilation of an axis: beyond its length it changes nothing.
__device__ __forceinline__ int dilation_of(int length, int dilation) { return min(length, dilation); }

struct Axis {
  int first, dilation, kernel, size;  // size: positions; the places behind them are padded

  // Class `first` of an axis of `length` positions and at least as many as its dilation.
  __device__ Axis(int length, int kernel, int dilation, int first)
      : first(first), dilation(dilation), kernel(kernel), size((length - first + dilation - 1) / dilation) {}

  // The same where the first class, the longest one, is known to have `longest` positions.
  __device__ Axis(int length, int kernel, int dilation, int first, int longest)
      : first(first), dilation(dilation), kernel(kernel), size(longest - (first + dilation * (longest - 1) >= length)) {}

  // With the padded ones.
  __device__ int places() const { return max(size, kernel); }
  // Where a place that is not padded lies on the whole axis.
  __device__ int position(int place) const { return first + dilation * place; }
  // First place of the window of the query at a place.
  __device__ int start(int place) const { return min(max(place - kernel / 2, 0), places() - kernel); }
  // First and last place of the queries that have the key at a place in their windows: all between them do.
  __device__ int first_query(int key) const { return key < kernel ? 0 : key - (kernel - 1) / 2; }
  __device__ int last_query(int key) const { return min(key >= places() - kernel ? size - 1 : key + kernel / 2, size - 1); }
  // Bias index of the neighbour at place `key` of the query at place `query`.
  __device__ int bias(int query, int key) const { return key - query + kernel - 1; }
};

// The positions of an axis whose queries have a neighbour `relative` places further on, which may be padded. They follow one
// another, in all classes at once: those far from the middle of a window are neighbours only where it shifts, in the outermost
// places of each class.
struct Queries {
  int count, first;

  __device__ Queries(int length, int kernel, int dilation, int relative) {
    const int distance = abs(relative), middle = (relative < 0 ? kernel : kernel - 1) / 2, places = max(length, kernel * dilation);
    count = distance <= middle ? places - distance * dilation : (kernel - distance) * dilation;
    first = relative < 0 ? places - count : 0;
    count = max(min(first + count, length) - first, 0);
  }
};

// The emulated device: memory, streams, events, graphs, and a count of what it did.
//
// A stream does its work as late as it may: when somebody waits for it. So work that relies on another stream's without waiting
// for it reads memory that is still NaN, as it might on a GPU, but here every time. One lock is around everything.
//
// What a test asks of it, by the functions at the end of driver.cpp: that the n-th call in a recording fails, and which kernels
// ran, how often, over how many bytes.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <set>

#include "cuda.h"

namespace device {

using Call = std::function<void()>;

// CUresult, as far as these come from here.
enum Status { SUCCESS = 0, INVALID_VALUE = 1, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_UNMATCHED = 903 };

inline std::recursive_mutex& lock() {
  static std::recursive_mutex lock;
  return lock;
}
#define LOCKED const std::lock_guard locked(device::lock())

// With NAT_EMULATED_COUNT=1 nothing is computed: launches are counted, in seconds for any network.
inline bool counting() {
  static const bool counting = std::getenv("NAT_EMULATED_COUNT") != nullptr;
  return counting;
}

// Kernels and other work by name.
struct Counted { uint64_t times, bytes; };
inline std::map<std::string, Counted>& counted() {
  static auto& counted = *new std::map<std::string, Counted>;  // for as long as the program runs
  return counted;
}
inline void count(const std::string& name, uint64_t bytes) {
  LOCKED;
  auto& entry = counted()[name];
  entry.times++, entry.bytes += bytes;
}

// What is allocated: where and how much.
inline std::map<uintptr_t, size_t> allocated;

// Memory begins as NaN, and is aligned as on a GPU.
inline void* allocate(size_t bytes) {
  void* address = std::aligned_alloc(256, (std::max<size_t>(bytes, 1) + 255) & ~size_t(255));
  if (!counting()) std::memset(address, 0xff, bytes);
  LOCKED;
  allocated[reinterpret_cast<uintptr_t>(address)] = bytes;
  return address;
}
inline void release(void* address) {
  LOCKED;
  allocated.erase(reinterpret_cast<uintptr_t>(address));
  std::free(address);
}
// From an address to the end of what was allocated there: a tensor, for most.
inline size_t bytes_at(const void* address) {
  LOCKED;
  const auto at = reinterpret_cast<uintptr_t>(address);
  auto next = allocated.upper_bound(at);
  if (next == allocated.begin()) return 0;
  const auto [begin, bytes] = *--next;
  return at < begin + bytes ? begin + bytes - at : 0;
}

// What a stream recorded. Its memory exists for as long as it does, and is another's between two of its launches.
struct Graph {
  std::vector<Call> calls;
  std::map<void*, size_t> memory;
  std::set<void*> freed;
  bool broken = false, launched = false, frees_itself = false;

  ~Graph() {
    for (const auto& [address, bytes] : memory) owners().erase(address), release(address);
  }

  // Graphs by the memory that is theirs; none where a recording failed.
  static std::map<void*, Graph*>& owners() {
    static std::map<void*, Graph*> owners;
    return owners;
  }
};

struct Stream {
  std::deque<Call> waiting;
  uint64_t taken = 0, done = 0;  // calls so far
  std::unique_ptr<Graph> recording;

  // Does what was asked for first.
  void run_until(uint64_t count) {
    LOCKED;
    while (done < count && !waiting.empty()) {
      Call call = std::move(waiting.front());
      waiting.pop_front();
      done++;
      call();
    }
  }
  void run() { run_until(taken); }
};

inline std::set<Stream*> streams;
inline unsigned failing = 0;  // which call in a recording fails, counted from 1; 0 for none

inline Stream* stream(void* handle) {
  constexpr uintptr_t LEGACY = 1, PER_THREAD = 2;
  static Stream first;
  // Kept when its thread has ended: there may be work left.
  static thread_local Stream* own = nullptr;
  const auto number = reinterpret_cast<uintptr_t>(handle);
  if (number <= LEGACY) return &first;
  if (number != PER_THREAD) return static_cast<Stream*>(handle);
  if (!own) own = *streams.insert(new Stream).first;
  return own;
}

// Whether a call in a recording fails: the one that a test asked for, and all behind it.
inline bool fails(Stream* stream) {
  if (!stream->recording->broken && failing > 0 && --failing == 0) stream->recording->broken = true;
  return stream->recording->broken;
}

// Leaves work to a stream, or to what it records.
inline int submit(void* handle, Call call) {
  constexpr size_t MOST = 4096;  // memory that was freed is only then
  LOCKED;
  Stream* on = stream(handle);
  if (on->recording) {
    if (fails(on)) return CAPTURE_INVALIDATED;
    on->recording->calls.push_back(std::move(call));
    return SUCCESS;
  }
  on->waiting.push_back(std::move(call));
  on->taken++;
  if (on->waiting.size() > MOST || counting()) on->run();
  return SUCCESS;
}

// Waits for all that a stream was asked for.
inline int wait(void* handle) {
  LOCKED;
  Stream* on = stream(handle);
  if (on->recording) return on->recording->broken = true, CAPTURE_UNSUPPORTED;
  return on->run(), SUCCESS;
}

inline int allocate_on(void** address, size_t bytes, void* handle) {
  LOCKED;
  Stream* on = stream(handle);
  if (on->recording && fails(on)) return CAPTURE_INVALIDATED;
  *address = allocate(bytes);
  if (on->recording) on->recording->memory[*address] = bytes, Graph::owners()[*address] = on->recording.get();
  return SUCCESS;
}

inline int free_on(void* address, void* handle) {
  LOCKED;
  Stream* on = stream(handle);
  const auto& owners = Graph::owners();
  const auto owner = owners.find(address);
  if (on->recording) {
    if (owner == owners.end() || owner->second != on->recording.get())
      EMULATED_FAIL("memory of the program is freed in a recording: each launch would free it again");
    if (fails(on)) return CAPTURE_INVALIDATED;
    return on->recording->freed.insert(address), SUCCESS;
  }
  if (owner != owners.end()) return owner->second && owner->second->launched ? owner->second->freed.insert(address), SUCCESS : INVALID_VALUE;
  return submit(handle, [=] { release(address); });
}

inline int begin(void* handle) {
  LOCKED;
  if (reinterpret_cast<uintptr_t>(handle) <= 1) return CAPTURE_UNSUPPORTED;
  if (stream(handle)->recording) return INVALID_VALUE;
  return stream(handle)->recording = std::make_unique<Graph>(), SUCCESS;
}

inline int end(void* handle, void** graph) {
  LOCKED;
  *graph = nullptr;
  Stream* on = stream(handle);
  if (!on->recording) return CAPTURE_UNMATCHED;
  auto recorded = std::move(on->recording);
  if (failing > 0 && --failing == 0) recorded->broken = true;
  if (recorded->broken) {
    // What was its memory is nobody's, now and later.
    for (const auto& [address, bytes] : recorded->memory) Graph::owners()[address] = nullptr;
    recorded->memory.clear();
    return CAPTURE_INVALIDATED;
  }
  return *graph = new std::shared_ptr<Graph>(std::move(recorded)), SUCCESS;
}

using Handle = std::shared_ptr<Graph>;  // behind both CUgraph and CUgraphExec

inline int instantiate(void** executable, void* graph, uint64_t flags) {
  LOCKED;
  if (failing > 0 && --failing == 0) return INVALID_VALUE;
  auto* copy = new Handle(*static_cast<Handle*>(graph));
  (*copy)->frees_itself = flags & 1;
  return *executable = copy, SUCCESS;
}

inline int launch(void* executable, void* handle) {
  LOCKED;
  const Handle graph = *static_cast<Handle*>(executable);
  if (graph->launched && graph->freed.size() < graph->memory.size() && !graph->frees_itself) return INVALID_VALUE;
  graph->launched = true;
  return submit(handle, [graph] {
    count("graph launch", 0);
    if (!counting())
      for (const auto& [address, bytes] : graph->memory) std::memset(address, 0xff, bytes);
    for (const auto& call : graph->calls) call();
  });
}

inline int destroy(void* handle) {
  LOCKED;
  delete static_cast<Handle*>(handle);
  return SUCCESS;
}

// A place in a stream.
struct Event { Stream* stream = nullptr; uint64_t place = 0; };

}  // namespace device

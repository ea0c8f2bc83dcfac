#include "distributed/reduction.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "core/base/error.h"

namespace bireme {

namespace {

constexpr std::int64_t kBlock = 2048;  // accumulators of one block stay in the first-level cache

struct Sum {
  template <class T>
  static T apply(T a, T b) {
    return a + b;
  }
};
struct Max {
  template <class T>
  static T apply(T a, T b) {
    return a > b ? a : b;
  }
};
struct Min {
  template <class T>
  static T apply(T a, T b) {
    return a < b ? a : b;
  }
};

/// Two sources of a type that is its own accumulator: one pass, no accumulator in between.
template <class Op, class T>
void reduce_two(const T* a, const T* b, T* y, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] = Op::apply(a[i], b[i]);
}

template <class Op, class T, class Accumulator, class Load, class Store>
void reduce_many(std::span<const std::byte* const> sources, T* y, std::int64_t count, Load load,
                 Store store) {
  alignas(64) Accumulator sum[kBlock];
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t length = std::min(kBlock, count - begin);
    const T* first = reinterpret_cast<const T*>(sources[0]) + begin;
#pragma omp simd
    for (std::int64_t i = 0; i < length; ++i) sum[i] = load(first[i]);
    for (const std::byte* source : sources.subspan(1)) {
      const T* next = reinterpret_cast<const T*>(source) + begin;
#pragma omp simd
      for (std::int64_t i = 0; i < length; ++i) sum[i] = Op::apply(sum[i], load(next[i]));
    }
    // Written last: y may be one of the sources.
#pragma omp simd
    for (std::int64_t i = 0; i < length; ++i) y[begin + i] = store(sum[i]);
  }
}

template <class Op, class T>
void reduce_typed(std::span<const std::byte* const> sources, const Elements& out) {
  T* y = reinterpret_cast<T*>(out.data);
  if constexpr (std::is_same_v<T, bf16>) {
    reduce_many<Op, bf16, float>(
        sources, y, out.count, [](bf16 x) { return to_float(x); }, to_bf16);
  } else if (sources.size() == 2) {
    reduce_two<Op>(reinterpret_cast<const T*>(sources[0]), reinterpret_cast<const T*>(sources[1]), y,
                   out.count);
  } else {
    const auto same = [](T x) { return x; };
    reduce_many<Op, T, T>(sources, y, out.count, same, same);
  }
}

template <class Op>
void reduce_with(std::span<const std::byte* const> sources, const Elements& out) {
  switch (out.type) {
    case DType::f32: return reduce_typed<Op, float>(sources, out);
    case DType::bf16: return reduce_typed<Op, bf16>(sources, out);
    case DType::f64: return reduce_typed<Op, double>(sources, out);
    case DType::i32: return reduce_typed<Op, std::int32_t>(sources, out);
    case DType::i64: return reduce_typed<Op, std::int64_t>(sources, out);
    case DType::u8: break;
  }
  throw Error(ErrorKind::other, "there is no reduction over u8", "distributed", "convert to i32 first");
}

}  // namespace

const char* to_string(Reduce reduce) {
  switch (reduce) {
    case Reduce::sum: return "sum";
    case Reduce::max: return "max";
    case Reduce::min: return "min";
  }
  return "unknown";
}

void reduce_in_order(std::span<const std::byte* const> sources, const Elements& out, Reduce reduce) {
  assert(!sources.empty());
  if (sources.size() == 1) {
    if (sources[0] != out.data) std::memcpy(out.data, sources[0], static_cast<std::size_t>(out.bytes()));
    return;
  }
  switch (reduce) {
    case Reduce::sum: return reduce_with<Sum>(sources, out);
    case Reduce::max: return reduce_with<Max>(sources, out);
    case Reduce::min: return reduce_with<Min>(sources, out);
  }
}

}  // namespace bireme

#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "core/base/bf16.h"
#include "core/cuda/launch.h"

namespace bireme::cuda {

/// What a type is computed in: fp64 for itself, fp32 for the others.
template <class T>
using Lane = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
__device__ __forceinline__ Lane<T> load(const T* address) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_float(*address);
  } else {
    return static_cast<Lane<T>>(*address);
  }
}

template <class T>
__device__ __forceinline__ T rounded(Lane<T> x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(x);
  } else {
    return x;
  }
}

template <class T>
__device__ __forceinline__ void store(T* address, Lane<T> x) {
  *address = rounded<T>(x);
}

/// x as it comes back from memory of type T.
template <class T>
__device__ __forceinline__ Lane<T> stored(Lane<T> x) {
  const T y = rounded<T>(x);
  return load(&y);
}

/// Writes a contribution to a gradient, or adds it.
template <class T>
__device__ __forceinline__ void contribute(T* address, Lane<T> x, bool accumulate) {
  store(address, accumulate ? load(address) + x : x);
}

/// N numbers on their way between memory and registers.
template <class L, int N>
struct Pack {
  L v[N];
};

template <int Bytes>
struct Word;
template <>
struct Word<16> {
  using type = uint4;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<4> {
  using type = std::uint32_t;
};
template <>
struct Word<2> {
  using type = std::uint16_t;
};
template <>
struct Word<1> {
  using type = std::uint8_t;
};

/// Reads N numbers in loads of up to 128 bits. For N > 1 the address is aligned to the smaller of 16 bytes
/// and N numbers.
template <int N, class T>
__device__ __forceinline__ Pack<Lane<T>, N> load_pack(const T* address) {
  constexpr int kBytes = static_cast<int>(sizeof(T)) * N, kWord = kBytes < 16 ? kBytes : 16;
  using W = typename Word<kWord>::type;
  union Room {
    W words[kBytes / kWord];
    T values[N];
  } room;
  for (int i = 0; i < kBytes / kWord; ++i) room.words[i] = reinterpret_cast<const W*>(address)[i];
  Pack<Lane<T>, N> pack;
  for (int i = 0; i < N; ++i) pack.v[i] = load(&room.values[i]);
  return pack;
}

template <int N, class T>
__device__ __forceinline__ void store_pack(T* address, const Pack<Lane<T>, N>& pack) {
  constexpr int kBytes = static_cast<int>(sizeof(T)) * N, kWord = kBytes < 16 ? kBytes : 16;
  using W = typename Word<kWord>::type;
  union Room {
    W words[kBytes / kWord];
    T values[N];
  } room;
  for (int i = 0; i < N; ++i) store(&room.values[i], pack.v[i]);
  for (int i = 0; i < kBytes / kWord; ++i) reinterpret_cast<W*>(address)[i] = room.words[i];
}

template <int N, class T>
__device__ __forceinline__ void contribute_pack(T* address, Pack<Lane<T>, N> pack, bool accumulate) {
  if (accumulate) {
    const Pack<Lane<T>, N> before = load_pack<N>(address);
    for (int i = 0; i < N; ++i) pack.v[i] += before.v[i];
  }
  store_pack<N>(address, pack);
}

/// Numbers that fill 128 bits of the narrowest of the types.
template <class... T>
inline constexpr int kWidth = [] {
  std::size_t narrowest = 16;
  ((narrowest = sizeof(T) < narrowest ? sizeof(T) : narrowest), ...);
  return static_cast<int>(16 / narrowest);
}();

/// Whether packs of `width` numbers fit: pointers aligned (null counts as such) and rows divisible.
template <class... T>
bool fits_packs(std::int64_t row, int width, const T*... addresses) {
  return row % width == 0 && ((reinterpret_cast<std::uintptr_t>(addresses) % 16 == 0) && ...);
}

/// Calls f(constant of the numbers that a thread takes at a time): N where packs fit, else 1.
template <int N, class F>
void with_packs(bool fit, F&& f) {
  if (fit) {
    f(std::integral_constant<int, N>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline unsigned to_unsigned(std::int64_t x) { return static_cast<unsigned>(x); }

}  // namespace bireme::cuda

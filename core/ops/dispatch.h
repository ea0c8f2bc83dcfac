#pragma once

#include <cassert>
#include <type_traits>
#include <utility>

#include "core/tensor/types.h"

namespace bireme {

/// A type as a value, for lambdas of the form []<class T>(Type<T>) { … }.
template <class T>
struct Type {
  using type = T;
};

/// Calls f(Type<T>) with the C++ type of a floating-point tensor: once per kernel, never per element.
template <class F>
void dispatch_float(DType type, F&& f) {
  switch (type) {
    case DType::f32: f(Type<float>{}); return;
    case DType::bf16: f(Type<bf16>{}); return;
    case DType::f64: f(Type<double>{}); return;
    default: assert(false && "a floating-point type was promised");
  }
}

/// The same for tensors that are never stored as bf16: parameters, residuals, statistics.
template <class F>
void dispatch_lane(DType type, F&& f) {
  assert(type == DType::f32 || type == DType::f64);
  if (type == DType::f64) {
    f(Type<double>{});
  } else {
    f(Type<float>{});
  }
}

/// Two storage types that may meet in one kernel: both fp64, or neither.
template <class A, class B>
inline constexpr bool kSameLanes = std::is_same_v<A, double> == std::is_same_v<B, double>;

/// Calls f(Type<A>, Type<B>) for two floating-point types of which either both or neither are fp64.
template <class F>
void dispatch_floats(DType a, DType b, F&& f) {
  dispatch_float(a, [&]<class A>(Type<A>) {
    dispatch_float(b, [&]<class B>(Type<B>) {
      if constexpr (kSameLanes<A, B>) {
        f(Type<A>{}, Type<B>{});
      } else {
        assert(false && "fp64 meets fp64 only");
      }
    });
  });
}

}  // namespace bireme

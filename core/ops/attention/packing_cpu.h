// What attention needs of panels beyond core/cpu/panels-inl.h: rows go back. Included once for each
// instruction set, see core/cpu/simd.h.
#if defined(BIREME_CORE_OPS_ATTENTION_PACKING_CPU_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BIREME_CORE_OPS_ATTENTION_PACKING_CPU_H_
#undef BIREME_CORE_OPS_ATTENTION_PACKING_CPU_H_
#else
#define BIREME_CORE_OPS_ATTENTION_PACKING_CPU_H_
#endif

#include <cstdint>

#include "core/cpu/panels-inl.h"
#include "core/cpu/simd.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {

inline std::int64_t padded(std::int64_t n, std::int64_t lanes) { return (n + lanes - 1) / lanes * lanes; }

/// Rows of a panel to where they belong in a matrix.
template <class D, class T, class F = hn::TFromD<D>>
void unpack_rows(D d, const F* from, std::int64_t width, std::int64_t rows, std::int64_t dimension,
                 bool accumulate, T* to, std::int64_t stride) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for_vectors(d, dimension, [&](std::int64_t c, auto part) HWY_ATTR {
      put(d, hn::LoadU(d, from + i * width + c), to + i * stride + c, accumulate, part);
    });
  }
}

}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard for each instruction set

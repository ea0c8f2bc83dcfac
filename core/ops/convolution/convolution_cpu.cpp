#include <type_traits>

#include "core/cpu/cpu_kernels.h"
#include "core/cpu/parallel.h"
#include "core/ops/convolution/causal_convolution_cpu.h"
#include "core/ops/convolution/convolution_kernels.h"
#include "core/ops/dispatch.h"

namespace bireme::cpu {

namespace {

template <class T>
using Lane = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
T rounded(Lane<T> x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(x);
  } else {
    return x;
  }
}

/// Calls f(pixels, entries) for each run of `patch` neighbouring pixels of a patch: their places in images
/// and in y. Spread over the threads by rows of patches.
template <class F>
void for_runs(const Shape& images, std::int64_t patch, F f) {
  const std::int64_t channels = images[1], height = images[2], width = images[3];
  const std::int64_t down = height / patch, across = width / patch, size = channels * patch * patch;
  parallel_rows(images[0] * down, across * size * 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t picture = r / down, i = r % down;
      for (std::int64_t line = 0; line < channels * patch; ++line) {
        const std::int64_t c = line / patch, u = line % patch;
        const std::int64_t pixels = ((picture * channels + c) * height + i * patch + u) * width;
        const std::int64_t entries = r * across * size + line * patch;
        for (std::int64_t j = 0; j < across; ++j) f(pixels + j * patch, entries + j * size);
      }
    }
  });
}

class CpuConvolution final : public ConvolutionKernels {
 public:
  explicit CpuConvolution(Memory& memory) : memory_(memory) {}

  void causal_convolution(const CausalConvolutionForward& a) const override { cpu::causal_convolution(a); }
  void causal_convolution(const CausalConvolutionBackward& a) const override {
    cpu::causal_convolution(a, memory_);
  }

  void extract_patches(const ExtractPatchesForward& a) const override {
    dispatch_float(a.y.dtype(), [&]<class T>(Type<T>) {
      const Lane<T>* images = a.images.data<Lane<T>>();
      T* y = a.y.data<T>();
      for_runs(a.images.shape(), a.patch, [&](std::int64_t pixels, std::int64_t entries) {
        for (std::int64_t v = 0; v < a.patch; ++v) y[entries + v] = rounded<T>(images[pixels + v]);
      });
    });
  }

  void extract_patches(const ExtractPatchesBackward& a) const override {
    const Tensor& dimages = a.dimages.tensor;
    if (!a.dimages.accumulate) fill(dimages, 0);
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      const T* dy = a.dy.data<T>();
      Lane<T>* to = dimages.data<Lane<T>>();
      for_runs(dimages.shape(), a.patch, [&](std::int64_t pixels, std::int64_t entries) {
        for (std::int64_t v = 0; v < a.patch; ++v) to[pixels + v] += to_float(dy[entries + v]);
      });
    });
  }

 private:
  Memory& memory_;
};

}  // namespace

std::unique_ptr<ConvolutionKernels> make_convolution(Memory& memory) {
  return std::make_unique<CpuConvolution>(memory);
}

}  // namespace bireme::cpu

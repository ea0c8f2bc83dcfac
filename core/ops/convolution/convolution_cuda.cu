#include "core/cuda/column_sums.cuh"
#include "core/cuda/cuda_kernels.h"
#include "core/cuda/elementwise.cuh"
#include "core/ops/convolution/causal_convolution_cuda.cuh"
#include "core/ops/convolution/convolution_kernels.h"
#include "core/ops/dispatch.h"

namespace bireme::cuda {

namespace {

/// Where entry ((picture, i, j), (c, u, v)) of the patches lies in the pictures.
struct PatchPlaces {
  std::int64_t channels, height, width, patch, down, across;

  PatchPlaces(const Shape& images, std::int64_t p)
      : channels(images[1]),
        height(images[2]),
        width(images[3]),
        patch(p),
        down(height / p),
        across(width / p) {}

  __device__ std::int64_t pixel(std::int64_t entry) const {
    const std::int64_t v = entry % patch, u = entry / patch % patch, c = entry / patch / patch % channels;
    const std::int64_t row = entry / patch / patch / channels, j = row % across, i = row / across % down;
    return ((row / across / down * channels + c) * height + i * patch + u) * width + j * patch + v;
  }
  /// The entry that holds a pixel, or -1.
  __device__ std::int64_t entry(std::int64_t pixel) const {
    const std::int64_t x = pixel % width, y = pixel / width % height, c = pixel / width / height % channels;
    const std::int64_t picture = pixel / width / height / channels;
    if (x >= across * patch || y >= down * patch) return -1;
    const std::int64_t row = (picture * down + y / patch) * across + x / patch;
    return ((row * channels + c) * patch + y % patch) * patch + x % patch;
  }
};

template <class T>
struct ExtractOp {
  PatchPlaces places;
  const Lane<T>* images;
  T* y;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    store(y + i, images[places.pixel(i)]);
  }
};

template <class T>
struct ExtractGradientOp {
  PatchPlaces places;
  const T* dy;
  Lane<T>* dimages;
  bool accumulate;

  template <int N>
  __device__ void run(std::int64_t i) const {
    static_assert(N == 1);
    const std::int64_t entry = places.entry(i);
    contribute(dimages + i, entry < 0 ? Lane<T>{0} : load(dy + entry), accumulate);
  }
};

class CudaConvolution final : public ConvolutionKernels {
 public:
  explicit CudaConvolution(DeviceMemory& memory) : memory_(memory) {}

  void extract_patches(const ExtractPatchesForward& a) const override {
    const Tensor images = memory_.here(a.images);
    dispatch_float(a.y.dtype(), [&]<class T>(Type<T>) {
      elementwise<1>(
          memory_.stream(), a.y.elements(), false,
          ExtractOp<T>{PatchPlaces(images.shape(), a.patch), images.data<Lane<T>>(), a.y.data<T>()});
    });
  }
  void extract_patches(const ExtractPatchesBackward& a) const override {
    const Tensor& dimages = a.dimages.tensor;
    dispatch_float(a.dy.dtype(), [&]<class T>(Type<T>) {
      elementwise<1>(memory_.stream(), dimages.elements(), false,
                     ExtractGradientOp<T>{PatchPlaces(dimages.shape(), a.patch), a.dy.data<T>(),
                                          dimages.data<Lane<T>>(), a.dimages.accumulate});
    });
  }
  void causal_convolution(const CausalConvolutionForward& a) const override {
    cuda::causal_convolution(memory_, a);
  }
  void causal_convolution(const CausalConvolutionBackward& a) const override {
    cuda::causal_convolution(memory_, a);
  }

 private:
  DeviceMemory& memory_;
};

}  // namespace

std::unique_ptr<ConvolutionKernels> make_convolution(DeviceMemory& memory) {
  return std::make_unique<CudaConvolution>(memory);
}

}  // namespace bireme::cuda

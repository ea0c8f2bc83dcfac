#include "core/cuda/convert.h"
#include "core/cuda/elementwise.cuh"
#include "core/ops/dispatch.h"

namespace bireme::cuda {

namespace {

template <class A, class B>
struct ConvertOp {
  const A* from;
  B* to;

  template <int N>
  __device__ void run(std::int64_t i) const {
    const auto x = load_pack<N>(from + i);
    Pack<Lane<B>, N> y;
    for (int j = 0; j < N; ++j) y.v[j] = static_cast<Lane<B>>(x.v[j]);
    store_pack<N>(to + i, y);
  }
};

template <class T>
struct FillOp {
  T* to;
  T value;

  template <int N>
  __device__ void run(std::int64_t i) const {
    for (int j = 0; j < N; ++j) to[i + j] = value;
  }
};

template <class T>
void fill(const Tensor& tensor, T value, cudaStream_t stream) {
  elementwise<1>(stream, tensor.elements(), false, FillOp<T>{tensor.data<T>(), value});
}

}  // namespace

void convert_values(const Tensor& from, const Tensor& to, cudaStream_t stream) {
  dispatch_float(from.dtype(), [&]<class A>(Type<A>) {
    dispatch_float(to.dtype(), [&]<class B>(Type<B>) {
      const A* x = from.data<A>();
      B* y = to.data<B>();
      constexpr int kPack = kWidth<A, B>;
      elementwise<kPack>(stream, from.elements(), fits_packs(from.elements(), kPack, x, y),
                         ConvertOp<A, B>{x, y});
    });
  });
}

void fill_values(const Tensor& tensor, double value, cudaStream_t stream) {
  switch (tensor.dtype()) {
    case DType::f32: fill(tensor, static_cast<float>(value), stream); break;
    case DType::bf16: fill(tensor, to_bf16(static_cast<float>(value)), stream); break;
    case DType::f64: fill(tensor, value, stream); break;
    case DType::i32: fill(tensor, static_cast<std::int32_t>(value), stream); break;
    case DType::i64: fill(tensor, static_cast<std::int64_t>(value), stream); break;
    case DType::u8: fill(tensor, static_cast<std::uint8_t>(value), stream); break;
  }
}

}  // namespace bireme::cuda

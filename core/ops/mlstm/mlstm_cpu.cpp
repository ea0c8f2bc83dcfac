#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/mlstm/mlstm_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include "core/cpu/cpu_kernels.h"
#include "core/cpu/simd.h"
#include "core/ops/dispatch.h"
#include "core/ops/mlstm/mlstm_backward_cpu.h"
#include "core/ops/mlstm/mlstm_forward_cpu.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

/// One token of one head: a single pass over C̃, which decays, takes in k·vᵀ and is read by q.
template <class T>
void mlstm_step_head(const MlstmStep& a, std::int64_t line) {
  using F = Lane<T>;
  const Lanes<T> d;
  const std::int64_t heads = a.memory.shape()[1], keys = a.memory.shape()[2], values = a.memory.shape()[3];
  const std::int64_t width = panel_width(values), sequence = line / heads, head = line % heads;
  static thread_local std::vector<F> memory;
  const auto panels = carve_panels(memory, {width, width});
  F *const v = panels[0], *const out = panels[1];
  gather_rows(d, a.v.data<T>() + line * values, values, 1, values, F{1}, v, width);
  std::fill(out, out + width, F{0});

  const F* gates = a.gates.data<F>() + sequence * 2 * heads + head;
  F& maximum = a.maximum.data<F>()[line];
  const F carried = cpu::log_sigmoid(gates[heads]) + maximum;
  maximum = std::max(carried, gates[0]);
  const F forget = std::exp(carried - maximum), input = std::exp(gates[0] - maximum);
  const auto decay = hn::Set(d, forget);
  const F scale = 1 / std::sqrt(static_cast<F>(keys));
  F normalizer = 0;
  for (std::int64_t i = 0; i < keys; ++i) {
    const F k = input * static_cast<F>(to_float(a.k.data<T>()[line * keys + i])),
            q = scale * static_cast<F>(to_float(a.q.data<T>()[line * keys + i]));
    F& n = a.normalizer.data<F>()[line * keys + i];
    n = forget * n + k;
    normalizer += q * n;
    F* row = a.memory.data<F>() + (line * keys + i) * values;
    const auto key = hn::Set(d, k), query = hn::Set(d, q);
    for_vectors(d, values, [&](std::int64_t c, auto part) HWY_ATTR {
      const auto updated = hn::MulAdd(key, hn::LoadU(d, v + c), hn::Mul(decay, load(d, row + c, part)));
      store(d, updated, row + c, part);
      hn::StoreU(hn::MulAdd(query, updated, hn::LoadU(d, out + c)), d, out + c);
    });
  }
  const F denominator = std::max(std::abs(normalizer), std::exp(-maximum)) + static_cast<F>(a.epsilon);
  const auto factor = hn::Set(d, 1 / denominator);
  T* h = a.h.data<T>() + line * values;
  for_vectors(d, values, [&](std::int64_t c, auto part) HWY_ATTR {
    store(d, hn::Mul(factor, hn::LoadU(d, out + c)), h + c, part);
  });
}

template <class T>
void mlstm_step_heads(const MlstmStep& a) {
  const std::int64_t lines = a.maximum.elements();
  // Waking the threads costs about as much as a state of 128 KiB.
  const bool is_large = a.memory.elements() > 1 << 15;
#pragma omp parallel for schedule(static) if (is_large)
  for (std::int64_t line = 0; line < lines; ++line) mlstm_step_head<T>(a, line);
}

class CpuMlstm final : public MlstmKernels {
 public:
  explicit CpuMlstm(Memory& memory) : memory_(memory) {}

  void mlstm(const MlstmForward& a) const override {
    dispatch_float(a.q.dtype(), [&]<class T>(Type<T>) { mlstm_forward<T>(a); });
  }
  void mlstm(const MlstmBackward& a) const override {
    dispatch_float(a.q.dtype(), [&]<class T>(Type<T>) { mlstm_backward<T>(a, memory_); });
  }
  void step(const MlstmStep& a) const override {
    dispatch_float(a.q.dtype(), [&]<class T>(Type<T>) { mlstm_step_heads<T>(a); });
  }

 private:
  Memory& memory_;
};

std::unique_ptr<MlstmKernels> make_mlstm(Memory& memory) { return std::make_unique<CpuMlstm>(memory); }

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_mlstm);
std::unique_ptr<MlstmKernels> make_mlstm(Memory& memory) { return HWY_DYNAMIC_DISPATCH(make_mlstm)(memory); }

}  // namespace bireme::cpu
#endif

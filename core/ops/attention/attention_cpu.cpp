#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/attention/attention_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include "core/cpu/cpu_kernels.h"
#include "core/cpu/simd.h"
#include "core/ops/attention/attention_kernels.h"
#include "core/ops/attention/cached_attention_cpu.h"
#include "core/ops/attention/causal_attention_cpu.h"
#include "core/ops/attention/dense_attention_cpu.h"
#include "core/ops/dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

class CpuAttention final : public AttentionKernels {
 public:
  explicit CpuAttention(Memory& memory) : memory_(memory) {}

  void attention(const AttentionForward& a) const override {
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) { run_forward<T>(a); });
  }
  void attention(const AttentionBackward& a) const override {
    if (!a.dqkv) return;
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) { run_backward<T>(a); });
  }
  void weights(const AttentionWeights& a) const override {
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) { run_weights<T>(a); });
  }
  void causal_attention(const CausalAttentionForward& a) const override {
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) { run_causal_forward<T>(a); });
  }
  void causal_attention(const CausalAttentionBackward& a) const override {
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) { run_causal_backward<T>(a); });
  }
  void append(const AppendToCache& a) const override {
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) { append_columns<T>(a); });
  }
  void cached_attention(const CachedAttention& a) const override {
    dispatch_float(a.qkv.dtype(), [&]<class T>(Type<T>) { run_cached<T>(a, memory_); });
  }

 private:
  Memory& memory_;
};

std::unique_ptr<AttentionKernels> make_attention(Memory& memory) {
  return std::make_unique<CpuAttention>(memory);
}

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_attention);
std::unique_ptr<AttentionKernels> make_attention(Memory& memory) {
  return HWY_DYNAMIC_DISPATCH(make_attention)(memory);
}

}  // namespace bireme::cpu
#endif

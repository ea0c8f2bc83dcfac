#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/ops/slstm/slstm_cpu.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file again for each instruction set.
#include <vector>

#include "core/cpu/cpu_kernels.h"
#include "core/cpu/panels-inl.h"
#include "core/cpu/simd.h"
#include "core/cpu/small_products-inl.h"
#include "core/ops/dispatch.h"
#include "core/ops/slstm/slstm_cells_cpu.h"
#include "core/ops/slstm/slstm_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace bireme::cpu::HWY_NAMESPACE {
namespace {

/// Sequences that go through time together: two tiles of a product's six rows. Fixed, so that neither bits
/// nor the order of sums depend on threads.
constexpr std::int64_t kSequencesAtOnce = 12;
/// Steps whose contributions to dR are one product.
constexpr std::int64_t kStepsAtOnce = 16;

/// One head of a few sequences: the unit of work of a thread.
struct SlstmTask {
  std::int64_t head, first, count, group;
};

inline std::int64_t slstm_groups(const SlstmSizes& s) {
  return (s.sequences + kSequencesAtOnce - 1) / kSequencesAtOnce;
}

template <class F>
void for_each_slstm_task(const SlstmSizes& s, F&& f) {
  const std::int64_t groups = slstm_groups(s), tasks = s.heads * groups;
#pragma omp parallel for schedule(dynamic, 1) if (tasks > 1 && s.time > 1)
  for (std::int64_t task = 0; task < tasks; ++task) {
    const std::int64_t group = task % groups, first = group * kSequencesAtOnce;
    f(SlstmTask{task / groups, first, std::min(kSequencesAtOnce, s.sequences - first), group});
  }
}

/// Rows of a state tensor [B, H·D] in and out of a panel.
template <class D, class F>
void read_state(D d, const Tensor& from, const SlstmSizes& s, const SlstmTask& task, F* panel,
                std::int64_t width) {
  std::fill(panel, panel + task.count * width, F{0});
  if (!from.defined()) return;
  const std::int64_t stride = s.heads * s.units;
  gather_rows(d, from.data<F>() + task.first * stride + task.head * s.units, stride, task.count, s.units,
              F{1}, panel, width);
}

template <class F>
void write_state(const F* panel, std::int64_t width, const SlstmSizes& s, const SlstmTask& task,
                 const Tensor& to, bool accumulate = false) {
  for (std::int64_t b = 0; b < task.count; ++b) {
    F* row = to.data<F>() + ((task.first + b) * s.heads + task.head) * s.units;
    for (std::int64_t j = 0; j < s.units; ++j) row[j] = panel[b * width + j] + (accumulate ? row[j] : F{0});
  }
}

inline bool starts_at(const Tensor& starts, std::int64_t row) {
  return starts.defined() && starts.data<std::uint8_t>()[row] != 0;
}

template <class T, class F = Lane<T>>
void slstm_forward_task(const SlstmForward& a, const SlstmTask& task) {
  const hn::ScalableTag<F> d;
  const SlstmSizes& s = a.sizes;
  const std::int64_t D = s.units, W = panel_width(D), count = task.count;
  static thread_local std::vector<F> memory;
  const auto [recurrent, bias, pre, h, c, n, m, kept] = carve_panels(
      memory, {D * 4 * W, 4 * W, count * 4 * W, count * W, count * W, count * W, count * W, 7 * W});
  // R as the product reads it: from unit to gate and unit.
  std::fill(recurrent, recurrent + D * 4 * W, F{0});
  for (std::int64_t gate = 0; gate < 4; ++gate) {
    const F* from = a.recurrent.data<F>() + (task.head * 4 + gate) * D * D;
    for (std::int64_t unit = 0; unit < D; ++unit)
      for (std::int64_t j = 0; j < D; ++j) recurrent[j * 4 * W + gate * W + unit] = from[unit * D + j];
    gather_rows(d, a.bias.data<F>() + (gate * s.heads + task.head) * D, D, 1, D, F{1}, bias + gate * W, W);
  }
  read_state(d, a.before.h, s, task, h, W);
  read_state(d, a.before.c, s, task, c, W);
  read_state(d, a.before.n, s, task, n, W);
  read_state(d, a.before.m, s, task, m, W);

  for (std::int64_t t = 0; t < s.time; ++t) {
    for (std::int64_t b = 0; b < count; ++b) {
      const std::int64_t row = (task.first + b) * s.time + t;
      if (starts_at(a.starts, row))
        for (F* state : {h, c, n, m}) std::fill(state + b * W, state + (b + 1) * W, F{0});
      gather_rows(d, a.gates.data<F>() + (row * s.heads + task.head) * 4 * D, D, 4, D, F{1}, pre + b * 4 * W,
                  W);
      add_scaled(d, F{1}, bias, pre + b * 4 * W, 4 * W);
    }
    small_product<true>(d, count, 4 * W, D, Strided<F>{h, W, 1}, recurrent, 4 * W, pre, 4 * W);
    for (std::int64_t b = 0; b < count; ++b) {
      const std::int64_t at = ((task.first + b) * s.time + t) * s.heads + task.head;
      const SlstmUnits<F> units{
          pre + b * 4 * W, h + b * W, c + b * W, n + b * W, m + b * W, a.kept.defined() ? kept : nullptr, W};
      if (a.function == SlstmFunction::lstm) {
        slstm_cells<true>(d, units);
      } else {
        slstm_cells<false>(d, units);
      }
      for_vectors(d, D, [&](std::int64_t j, auto part) HWY_ATTR {
        const auto value = hn::LoadU(d, h + b * W + j);
        store(d, value, a.h.data<T>() + at * D + j, part);
        if (a.hidden.defined()) store(d, value, a.hidden.data<F>() + at * D + j, part);
      });
      if (!a.kept.defined()) continue;
      for (std::int64_t k = 0; k < 7; ++k)
        std::copy_n(kept + k * W, D, a.kept.data<F>() + at * s.kept() + k * D);
    }
  }
  write_state(h, W, s, task, a.after.h);
  write_state(c, W, s, task, a.after.c);
  write_state(n, W, s, task, a.after.n);
  write_state(m, W, s, task, a.after.m);
}

/// Partial sums of dR [4·W, W] and db [4·W], one for each task.
template <class F>
struct SlstmWeightGradients {
  Tensor lines;
  std::int64_t width, groups;

  SlstmWeightGradients(Memory& memory, const SlstmSizes& s)
      : lines(memory, {s.heads * slstm_groups(s), 4 * panel_width(s.units) * (panel_width(s.units) + 1)},
              TypeOf<F>::value),
        width(panel_width(s.units)),
        groups(slstm_groups(s)) {
    fill(lines, 0);
  }
  F* recurrent(std::int64_t head, std::int64_t group) const {
    return lines.data<F>() + (head * groups + group) * lines.channels();
  }
  F* bias(std::int64_t head, std::int64_t group) const { return recurrent(head, group) + 4 * width * width; }
};

template <class T, class F = Lane<T>>
void slstm_backward_task(const SlstmBackward& a, const SlstmWeightGradients<F>& sums, const SlstmTask& task) {
  const hn::ScalableTag<F> d;
  const SlstmSizes& s = a.sizes;
  const std::int64_t D = s.units, W = panel_width(D), count = task.count;
  static thread_local std::vector<F> memory;
  const auto [recurrent, above, dh, dc, dn, kept, h, c_before, n_before, dgates, h_before, first_h, first_c,
              first_n] = carve_panels(memory, {4 * W * W, W, count * W, count * W, count * W, 7 * W, W, W, W,
                                               kStepsAtOnce * count * 4 * W, kStepsAtOnce * count * W,
                                               count * W, count * W, count * W});
  std::fill(recurrent, recurrent + 4 * W * W, F{0});
  for (std::int64_t gate = 0; gate < 4; ++gate)
    gather_rows(d, a.recurrent.data<F>() + (task.head * 4 + gate) * D * D, D, D, D, F{1},
                recurrent + gate * W * W, W);
  read_state(d, a.dafter.h, s, task, dh, W);
  read_state(d, a.dafter.c, s, task, dc, W);
  read_state(d, a.dafter.n, s, task, dn, W);
  read_state(d, a.before.h, s, task, first_h, W);
  read_state(d, a.before.c, s, task, first_c, W);
  read_state(d, a.before.n, s, task, first_n, W);
  std::fill(kept, kept + 7 * W, F{1});  // the padding divides by n
  F* dbias = sums.bias(task.head, task.group);

  std::int64_t filled = 0;  // rows of dgates and h_before that are not yet in dR
  for (std::int64_t t = s.time; t-- > 0;) {
    F* step_gates = dgates + filled * 4 * W;
    for (std::int64_t b = 0; b < count; ++b) {
      const std::int64_t row = (task.first + b) * s.time + t, at = row * s.heads + task.head,
                         before = at - s.heads;
      const bool is_start = starts_at(a.starts, row);
      for (std::int64_t k = 0; k < 7; ++k)
        std::copy_n(a.kept.data<F>() + at * s.kept() + k * D, D, kept + k * W);
      gather_rows(d, a.hidden.data<F>() + at * D, D, 1, D, F{1}, h, W);
      if (a.dh.defined()) {
        gather_rows(d, a.dh.data<T>() + at * D, D, 1, D, F{1}, above, W);
        add_scaled(d, F{1}, above, dh + b * W, W);
      }
      F* h_row = h_before + (filled + b) * W;
      if (is_start) {
        for (F* panel : {h_row, c_before, n_before}) std::fill(panel, panel + W, F{0});
      } else if (t == 0) {
        std::copy_n(first_h + b * W, W, h_row);
        std::copy_n(first_c + b * W, W, c_before);
        std::copy_n(first_n + b * W, W, n_before);
      } else {
        gather_rows(d, a.hidden.data<F>() + before * D, D, 1, D, F{1}, h_row, W);
        gather_rows(d, a.kept.data<F>() + before * s.kept() + 5 * D, D, 1, D, F{1}, c_before, W);
        gather_rows(d, a.kept.data<F>() + before * s.kept() + 6 * D, D, 1, D, F{1}, n_before, W);
      }
      F* unit_gates = step_gates + b * 4 * W;
      const SlstmUnitGradients<F> units{kept,       h,          c_before,   n_before, dh + b * W,
                                        dc + b * W, dn + b * W, unit_gates, W};
      if (a.function == SlstmFunction::lstm) {
        slstm_cell_gradients<true>(d, units);
      } else {
        slstm_cell_gradients<false>(d, units);
      }
      add_scaled(d, F{1}, unit_gates, dbias, 4 * W);
      if (!a.dgates) continue;
      for (std::int64_t gate = 0; gate < 4; ++gate)
        for_vectors(d, D, [&](std::int64_t j, auto part) HWY_ATTR {
          put(d, hn::LoadU(d, unit_gates + gate * W + j), a.dgates.tensor.data<F>() + (at * 4 + gate) * D + j,
              a.dgates.accumulate, part);
        });
    }
    small_product<false>(d, count, W, 4 * W, Strided<F>{step_gates, 4 * W, 1}, recurrent, W, dh, W);
    for (std::int64_t b = 0; b < count; ++b)
      if (starts_at(a.starts, (task.first + b) * s.time + t))
        for (F* panel : {dh, dc, dn}) std::fill(panel + b * W, panel + (b + 1) * W, F{0});
    filled += count;
    if (filled + count <= kStepsAtOnce * count && t > 0) continue;
    small_product<true>(d, 4 * W, W, filled, Strided<F>{dgates, 1, 4 * W}, h_before, W,
                        sums.recurrent(task.head, task.group), W);
    filled = 0;
  }
  if (a.dbefore_h) write_state(dh, W, s, task, a.dbefore_h.tensor, a.dbefore_h.accumulate);
  if (a.dbefore_c) write_state(dc, W, s, task, a.dbefore_c.tensor, a.dbefore_c.accumulate);
  if (a.dbefore_n) write_state(dn, W, s, task, a.dbefore_n.tensor, a.dbefore_n.accumulate);
}

/// Adds the groups' sums of one head in order.
template <class F>
void slstm_weight_totals(const SlstmBackward& a, const SlstmWeightGradients<F>& sums, std::int64_t head) {
  const SlstmSizes& s = a.sizes;
  const std::int64_t D = s.units, W = sums.width;
  const auto total = [&](const auto& line, std::int64_t index) {
    F value = 0;
    for (std::int64_t group = 0; group < sums.groups; ++group) value += line(group)[index];
    return value;
  };
  const auto recurrent = [&](std::int64_t group) { return sums.recurrent(head, group); };
  const auto bias = [&](std::int64_t group) { return sums.bias(head, group); };
  for (std::int64_t gate = 0; gate < 4; ++gate)
    for (std::int64_t unit = 0; unit < D; ++unit) {
      if (a.dbias) {
        F& entry = a.dbias.tensor.data<F>()[(gate * s.heads + head) * D + unit];
        entry = total(bias, gate * W + unit) + (a.dbias.accumulate ? entry : F{0});
      }
      if (!a.drecurrent) continue;
      F* row = a.drecurrent.tensor.data<F>() + ((head * 4 + gate) * D + unit) * D;
      for (std::int64_t j = 0; j < D; ++j)
        row[j] = total(recurrent, (gate * W + unit) * W + j) + (a.drecurrent.accumulate ? row[j] : F{0});
    }
}

template <class T, class F = Lane<T>>
void slstm_backward(const SlstmBackward& a, Memory& memory) {
  const SlstmWeightGradients<F> sums(memory, a.sizes);
  for_each_slstm_task(a.sizes, [&](const SlstmTask& task) { slstm_backward_task<T>(a, sums, task); });
#pragma omp parallel for schedule(static)
  for (std::int64_t head = 0; head < a.sizes.heads; ++head) slstm_weight_totals<F>(a, sums, head);
}

class CpuSlstm final : public SlstmKernels {
 public:
  explicit CpuSlstm(Memory& memory) : memory_(memory) {}

  void slstm(const SlstmForward& a) const override {
    dispatch_float(a.h.dtype(), [&]<class T>(Type<T>) {
      for_each_slstm_task(a.sizes, [&](const SlstmTask& task) { slstm_forward_task<T>(a, task); });
    });
  }
  void slstm(const SlstmBackward& a) const override {
    dispatch_float(a.dh.defined() ? a.dh.dtype() : a.hidden.dtype(),
                   [&]<class T>(Type<T>) { slstm_backward<T>(a, memory_); });
  }

 private:
  Memory& memory_;
};

std::unique_ptr<SlstmKernels> make_slstm(Memory& memory) { return std::make_unique<CpuSlstm>(memory); }

}  // namespace
}  // namespace bireme::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bireme::cpu {

HWY_EXPORT(make_slstm);
std::unique_ptr<SlstmKernels> make_slstm(Memory& memory) { return HWY_DYNAMIC_DISPATCH(make_slstm)(memory); }

}  // namespace bireme::cpu
#endif

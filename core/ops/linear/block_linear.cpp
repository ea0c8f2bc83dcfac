#include <cmath>

#include "core/ops/lane_type.h"
#include "core/ops/linear/linear.h"
#include "core/ops/linear/linear_kernels.h"

namespace bireme {

namespace {

/// A gradient that several calls add to: cleared unless something is there already.
Tensor cleared(const Target& target) {
  if (target && !target.accumulate) fill(target.tensor, 0);
  return target.tensor;
}

}  // namespace

std::vector<Var> linear_blocks(Tape& tape, const Var& x, Parameter& weight, Parameter* bias,
                               const std::vector<std::int64_t>& rows) {
  std::int64_t outputs = 0;
  for (const std::int64_t count : rows) outputs += count;
  require_shape(("linear: weight " + weight.name()).c_str(), weight.value(), {outputs, x.value().channels()});
  const LinearKernels& kernels = tape.backend().linear();
  std::vector<Tensor> ys;
  std::int64_t begin = 0;
  for (const std::int64_t count : rows) {
    ys.push_back(tape.empty({x.value().rows(), count}, x.dtype()));
    kernels.linear({.x = x.value(),
                    .weight = weight.as(x.dtype()).slice(begin, begin + count),
                    .bias = bias != nullptr ? bias->value().slice(begin, begin + count) : Tensor(),
                    .y = ys.back()});
    begin += count;
  }
  std::vector<Source> sources{x, weight};
  if (bias != nullptr) sources.emplace_back(*bias);
  return tape.record("linear_blocks", sources, ys,
                     [&kernels, x, &weight, bias, rows](std::span<const Tensor> dy, Gradients& into) {
                       const Target dweight = into[weight], dbias = bias != nullptr ? into[*bias] : Target();
                       const auto part = [](const Target& whole, std::int64_t from, std::int64_t to) {
                         return whole ? Target{whole.tensor.slice(from, to), whole.accumulate} : Target{};
                       };
                       std::int64_t from = 0;
                       for (std::size_t i = 0; i < rows.size(); ++i) {
                         const std::int64_t to = from + rows[i];
                         const Target dw = part(dweight, from, to), db = part(dbias, from, to);
                         if (dy[i].defined()) {
                           kernels.linear({.dy = dy[i],
                                           .x = x.value(),
                                           .weight = weight.as(x.dtype()).slice(from, to),
                                           .dx = into[x],
                                           .dweight = dw,
                                           .dbias = db});
                         } else {  // nobody used this block
                           cleared(dw);
                           cleared(db);
                         }
                         from = to;
                       }
                     });
}

Var block_linear(Tape& tape, const std::vector<BlockPart>& parts, DType type) {
  const LinearKernels& kernels = tape.backend().linear();
  const Shape& weight = parts.front().weight->shape();
  const auto count = static_cast<std::int64_t>(parts.size());
  const std::int64_t rows = parts.front().x.value().rows();
  const Tensor y = tape.empty({rows, weight[0] * count * weight[1]}, type);
  std::vector<Source> sources;
  for (std::int64_t i = 0; i < count; ++i) {
    const BlockPart& part = parts[static_cast<std::size_t>(i)];
    require_shape("block_linear: x", part.x.value(), {rows, weight[0] * weight[2]});
    require_shape("block_linear: weight", part.weight->value(), weight);
    kernels.block_linear(BlockLinearForward{
        .x = part.x.value(), .weight = part.weight->value(), .y = y, .part = i, .parts = count});
    sources.emplace_back(part.x);
    sources.emplace_back(*part.weight);
  }
  return tape.record("block_linear", sources, y, [&kernels, parts, count](const Tensor& dy, Gradients& into) {
    for (std::int64_t i = 0; i < count; ++i) {
      const BlockPart& part = parts[static_cast<std::size_t>(i)];
      kernels.block_linear(BlockLinearBackward{.dy = dy,
                                               .x = part.x.value(),
                                               .weight = part.weight->value(),
                                               .part = i,
                                               .parts = count,
                                               .dx = into[part.x],
                                               .dweight = into[*part.weight]});
    }
  });
}

Var memory_product(Tape& tape, const Var& x, Parameter& memory) {
  const LinearKernels& kernels = tape.backend().linear();
  const Shape& shape = memory.shape();
  require_shape("memory_product: x", x.value(), {x.value().rows(), shape[0] * shape[1]});
  const double scale = 1 / std::sqrt(static_cast<double>(shape[1]));
  const Tensor y = tape.empty({x.value().rows(), shape[0] * shape[2]}, x.dtype());
  kernels.block_linear(BlockLinearForward{.x = x.value(),
                                          .weight = memory.value(),
                                          .y = y,
                                          .part = 0,
                                          .parts = 1,
                                          .transposed = true,
                                          .scale = scale});
  return tape.record("memory_product", {x, memory}, y,
                     [&kernels, x, &memory, scale](const Tensor& dy, Gradients& into) {
                       kernels.block_linear(BlockLinearBackward{.dy = dy,
                                                                .x = x.value(),
                                                                .weight = memory.value(),
                                                                .part = 0,
                                                                .parts = 1,
                                                                .transposed = true,
                                                                .scale = scale,
                                                                .dx = into[x],
                                                                .dweight = into[memory]});
                     });
}

Var gate_products(Tape& tape, const std::vector<Var>& xs, Parameter& a, Parameter& b) {
  const LinearKernels& kernels = tape.backend().linear();
  const std::int64_t heads = a.value().rows();
  std::int64_t channels = 0;
  std::vector<Source> sources{a, b};
  for (const Var& x : xs) {
    channels += x.value().channels();
    sources.emplace_back(x);
  }
  require_shape("gate_products: weight", a.value(), {heads, channels});
  require_shape("gate_products: weight", b.value(), {heads, channels});
  const Tensor y = tape.empty({xs.front().value().rows(), 2 * heads}, lane_type(xs.front().dtype()));
  std::int64_t first = 0;
  for (const Var& x : xs) {
    kernels.gate_products(GateProductsForward{
        .x = x.value(), .a = a.value(), .b = b.value(), .first = first, .y = y, .accumulate = first > 0});
    first += x.value().channels();
  }
  return tape.record("gate_products", sources, y, [&kernels, xs, &a, &b](const Tensor& dy, Gradients& into) {
    const Tensor da = cleared(into[a]), db = cleared(into[b]);
    std::int64_t begin = 0;
    for (const Var& x : xs) {
      kernels.gate_products(GateProductsBackward{.dy = dy,
                                                 .x = x.value(),
                                                 .a = a.value(),
                                                 .b = b.value(),
                                                 .first = begin,
                                                 .dx = into[x],
                                                 .da = da,
                                                 .db = db});
      begin += x.value().channels();
    }
  });
}

Var cap_gates(Tape& tape, const Var& g, Parameter& a, Parameter& b, std::int64_t first, double cap) {
  const LinearKernels& kernels = tape.backend().linear();
  require_shape("cap_gates: bias", b.value(), a.shape());
  const Tensor y = tape.empty({g.value().rows(), 2 * a.value().elements()}, g.dtype());
  kernels.cap_gates(
      CapGatesForward{.g = g.value(), .a = a.value(), .b = b.value(), .y = y, .first = first, .cap = cap});
  return tape.record(
      "cap_gates", {g, a, b}, y, [&kernels, g, &a, &b, y, first, cap](const Tensor& dy, Gradients& into) {
        kernels.cap_gates(CapGatesBackward{
            .dy = dy, .y = y, .first = first, .cap = cap, .dg = into[g], .da = into[a], .db = into[b]});
      });
}

}  // namespace bireme

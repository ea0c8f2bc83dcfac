#include "core/ops/embedding/embedding.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

#include "core/base/error.h"
#include "core/ops/embedding/embedding_kernels.h"
#include "core/ops/pointwise/pointwise_kernels.h"

namespace bireme {

namespace {

/// Cubic convolution (Keys 1981) with a = -0.75: weights of the taps at distances t + 1, t, 1 - t and 2 - t.
std::array<double, 4> cubic_weights(double t) {
  constexpr double a = -0.75;
  const auto near = [](double u) { return ((a + 2) * u - (a + 3)) * u * u + 1; };
  const auto far = [](double u) { return ((a * u - 5 * a) * u + 8 * a) * u - 4 * a; };
  return {far(t + 1), near(t), near(1 - t), far(2 - t)};
}

/// [size, grid]: row i holds the weights with which output i reads the grid along one axis. Clamped taps add
/// up in one entry.
Tensor axis_weights(Memory& memory, std::int64_t size, std::int64_t grid, PositionRule rule, DType type) {
  const auto g = static_cast<double>(grid), n = static_cast<double>(size);
  const double scale = rule == PositionRule::official ? (n + 0.1) / g : n / g;
  const Tensor weights(*make_host_memory(), {size, grid}, DType::f64);
  fill(weights, 0);
  for (std::int64_t i = 0; i < size; ++i) {
    const double source = (static_cast<double>(i) + 0.5) / scale - 0.5, base = std::floor(source);
    const std::array<double, 4> taps = cubic_weights(source - base);
    for (int tap = 0; tap < 4; ++tap) {
      const auto at = std::clamp<std::int64_t>(static_cast<std::int64_t>(base) + tap - 1, 0, grid - 1);
      weights.data<double>()[i * grid + at] += taps[static_cast<std::size_t>(tap)];
    }
  }
  return convert(memory, weights, type);
}

/// Adds a gradient to a parameter's, or writes it there.
void contribute(const Backend& backend, const Tensor& gradient, const Target& to) {
  if (to) backend.pointwise().add({.from = gradient, .to = to.tensor, .accumulate = to.accumulate});
}

}  // namespace

Var use(Tape& tape, Parameter& parameter) {
  const Backend& backend = tape.backend();
  return tape.record("use", {parameter}, parameter.value(),
                     [&backend, &parameter](const Tensor& dy, Gradients& into) {
                       contribute(backend, dy, into[parameter]);
                     });
}

Var look_up(Tape& tape, const Tensor& tokens, Parameter& table, std::int64_t first) {
  const EmbeddingKernels& kernels = tape.backend().embedding();
  const Tensor y = tape.empty({tokens.elements(), table.value().channels()}, table.value().dtype());
  kernels.look_up(LookUpForward{.tokens = tokens, .table = table.value(), .first = first, .y = y});
  return tape.record(
      "look_up", {table}, y, [&kernels, tokens, &table, first](const Tensor& dy, Gradients& into) {
        if (const Target dtable = into[table])
          kernels.look_up(LookUpBackward{.dy = dy, .tokens = tokens, .first = first, .dtable = dtable});
      });
}

Var gather_rows(Tape& tape, const Var& x, const Tensor& rows) {
  for (const std::int32_t row : rows.values<std::int32_t>()) {
    if (row < 0 || row >= x.value().rows())
      throw Error(ErrorKind::data, fmt::format("row {} is asked for, there are {}", row, x.value().rows()),
                  "gather_rows", "check the rows of the batch");
  }
  const EmbeddingKernels& kernels = tape.backend().embedding();
  const Tensor y = tape.empty({rows.elements(), x.value().channels()}, x.dtype());
  kernels.look_up(LookUpForward{.tokens = rows, .table = x.value(), .first = 0, .y = y});
  return tape.record("gather_rows", {x}, y, [&kernels, x, rows](const Tensor& dy, Gradients& into) {
    kernels.look_up(LookUpBackward{.dy = dy, .tokens = rows, .first = 0, .dtable = into[x]});
  });
}

Var resize_positions(Tape& tape, Parameter& positions, std::int64_t rows, std::int64_t columns,
                     PositionRule rule, bool identity) {
  const Tensor& value = positions.value();
  const std::int64_t channels = value.channels(), cells = value.rows() - 1;
  const auto grid = static_cast<std::int64_t>(std::llround(std::sqrt(static_cast<double>(cells))));
  if ((identity ? rows * columns : grid * grid) != cells) {
    throw Error(ErrorKind::data,
                fmt::format("{} position embeddings do not fit {}", cells,
                            identity ? fmt::format("{} x {} patches", rows, columns) : "a square grid"),
                positions.name(), "use weights of the model's own image_size and patch_size");
  }
  const Backend& backend = tape.backend();
  if (identity) {
    return tape.record("resize_positions", {positions}, value.reshape({cells + 1, channels}),
                       [&backend, &positions](const Tensor& dy, Gradients& into) {
                         contribute(backend, dy, into[positions]);
                       });
  }
  const Tensor row_weights = axis_weights(backend.memory(), rows, grid, rule, value.dtype());
  const Tensor column_weights = axis_weights(backend.memory(), columns, grid, rule, value.dtype());
  const Tensor y = tape.empty({rows * columns + 1, channels}, value.dtype());
  backend.pointwise().add({.from = value.view(0, {1, channels}), .to = y.slice(0, 1), .accumulate = false});
  backend.embedding().resize_grid(ResizeGridForward{.grid = value.view(channels, {cells, channels}),
                                                    .row_weights = row_weights,
                                                    .column_weights = column_weights,
                                                    .y = y.slice(1, rows * columns + 1)});
  return tape.record(
      "resize_positions", {positions}, y,
      [&backend, &positions, row_weights, column_weights, cells, channels](const Tensor& dy,
                                                                           Gradients& into) {
        const Target whole = into[positions];
        if (!whole) return;
        contribute(backend, dy.slice(0, 1), {whole.tensor.view(0, {1, channels}), whole.accumulate});
        backend.embedding().resize_grid(
            ResizeGridBackward{.dy = dy.slice(1, dy.shape().front()),
                               .row_weights = row_weights,
                               .column_weights = column_weights,
                               .dgrid = {whole.tensor.view(channels, {cells, channels}), whole.accumulate}});
      });
}

Var assemble_tokens(Tape& tape, const Var& patches, Parameter& class_token, const std::vector<Var>& positions,
                    const Segments& segments) {
  const std::int64_t channels = patches.value().channels();
  std::int64_t pictures = 0, rows = 0;
  std::vector<Source> sources = {patches, class_token};
  std::vector<Tensor> position_values;
  assert(positions.size() == segments.size());
  for (std::size_t s = 0; s < segments.size(); ++s) {
    require_shape("assemble_tokens: positions", positions[s].value(), {segments[s].length, channels});
    pictures += segments[s].count;
    rows += segments[s].count * segments[s].length;
    sources.emplace_back(positions[s]);
    position_values.push_back(positions[s].value());
  }
  require_shape("assemble_tokens: patches", patches.value(), {rows - pictures, channels});
  require_shape("assemble_tokens: class_token", class_token.value(), {1, 1, channels});
  const EmbeddingKernels& kernels = tape.backend().embedding();
  const Tensor y = tape.empty({rows, channels}, class_token.value().dtype());
  kernels.assemble_tokens(AssembleTokensForward{.patches = patches.value(),
                                                .class_token = class_token.value(),
                                                .positions = position_values,
                                                .segments = segments,
                                                .y = y});
  return tape.record(
      "assemble_tokens", sources, y,
      [&kernels, patches, &class_token, positions, segments](const Tensor& dy, Gradients& into) {
        std::vector<Target> dpositions;
        dpositions.reserve(positions.size());
        for (const Var& position : positions) dpositions.push_back(into[position]);
        kernels.assemble_tokens(AssembleTokensBackward{.dy = dy,
                                                       .segments = segments,
                                                       .dpatches = into[patches],
                                                       .dclass_token = into[class_token],
                                                       .dpositions = dpositions});
      });
}

Var select_rows(Tape& tape, const Var& x, const std::vector<std::int64_t>& rows) {
  const std::int64_t held = x.value().rows();
  for (const std::int64_t row : rows) {
    if (row < 0 || row >= held)
      throw Error(ErrorKind::data, fmt::format("row {} is asked for, there are {}", row, held), "select_rows",
                  "check the crops and sizes of the batch");
  }
  const EmbeddingKernels& kernels = tape.backend().embedding();
  const Tensor y = tape.empty({static_cast<std::int64_t>(rows.size()), x.value().channels()}, x.dtype());
  kernels.select_rows(SelectRowsForward{.x = x.value(), .rows = rows, .y = y});
  return tape.record("select_rows", {x}, y, [&kernels, x, rows](const Tensor& dy, Gradients& into) {
    kernels.select_rows(SelectRowsBackward{.dy = dy, .rows = rows, .dx = into[x]});
  });
}

}  // namespace bireme

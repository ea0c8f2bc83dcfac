#include "models/vision_transformer.h"

#include <spdlog/fmt/fmt.h>

#include <cmath>

#include "core/base/error.h"
#include "core/ops/convolution/convolution.h"
#include "core/ops/linear/linear.h"
#include "core/ops/pointwise/pointwise.h"

namespace bireme {

namespace {

EncoderBlockOptions block_options(const VisionTransformerOptions& options) {
  return {.channels = options.embed_dim,
          .hidden = options.hidden(),
          .heads = options.heads,
          .init_std = options.init_std};
}

/// Class token and positions start with a deviation of 0.02, whatever the linears do.
Initializer token_law() { return {.law = Initializer::Law::normal, .value = 0.02}; }

/// A convolution's usual law, which the official initialiser leaves as it is: uniform in ±1/√(C·p²), weight
/// and bias.
Initializer patch_law(const VisionTransformerOptions& options) {
  return {.law = Initializer::Law::uniform,
          .value = 1 / std::sqrt(static_cast<double>(options.channels) * options.patch * options.patch)};
}

}  // namespace

VisionTransformer::VisionTransformer(const VisionTransformerOptions& options, ParameterSet& parameters,
                                     std::string prefix, Communicator& tensor)
    : options_(options) {
  options.validate();
  require_tensor_degree(tensor.size(), options.heads, "attention heads", "vision transformer");
  require_tensor_degree(tensor.size(), options.hidden(), "hidden channels", "vision transformer");

  const std::int64_t dim = options.embed_dim;
  const std::int64_t pixels = std::int64_t{options.channels} * options.patch * options.patch;
  const auto add = [&](const char* name, const Shape& shape, const Initializer& law, bool decays) {
    return &parameters.add({.name = prefix + name, .shape = shape, .initial = law, .decays = decays});
  };
  class_token_ = add("cls_token", {1, 1, dim}, token_law(), true);
  positions_ =
      add("pos_embed", {1, options.grid_rows() * options.grid_columns() + 1, dim}, token_law(), true);
  patch_weight_ = add("patch_embed.proj.weight", {dim, pixels}, patch_law(options), true);
  patch_bias_ = add("patch_embed.proj.bias", {dim}, patch_law(options), false);
  for (int i = 0; i < options.depth; ++i)
    blocks_.emplace_back(parameters, fmt::format("{}blocks.{}.", prefix, i), block_options(options), tensor);
  norm_ = add_layer_norm(parameters, prefix + "norm", dim);
}

VisionTransformer::Layout VisionTransformer::layout_of(const std::vector<Var>& images) const {
  Layout layout;
  std::int64_t row = 0;
  for (const Var& image : images) {
    const Shape& shape = image.shape();
    if (shape.rank() != 4 || shape[1] != options_.channels)
      throw Error(ErrorKind::data,
                  fmt::format("pictures have the shape {}, the model takes {} channels", to_string(shape),
                              options_.channels),
                  "vision transformer", "give pictures of shape [n, channels, height, width]");
    const std::int64_t rows = shape[2] / options_.patch, columns = shape[3] / options_.patch;
    if (rows == 0 || columns == 0)
      throw Error(ErrorKind::data,
                  fmt::format("a crop of {} x {} pixels is smaller than a patch of {} x {}", shape[2],
                              shape[3], options_.patch, options_.patch),
                  "vision transformer", "choose larger crops, or a model with a smaller model.patch_size");
    const Segment segment{.count = shape[0], .length = rows * columns + 1};
    layout.segments.push_back(segment);
    layout.pictures.push_back({.count = shape[0], .length = 1});
    for (std::int64_t i = 0; i < segment.count; ++i, row += segment.length) layout.class_rows.push_back(row);
  }
  return layout;
}

Var VisionTransformer::positions(Tape& tape, std::int64_t height, std::int64_t width) const {
  const std::int64_t rows = height / options_.patch, columns = width / options_.patch;
  const std::int64_t grid_rows = options_.grid_rows(), grid_columns = options_.grid_columns();
  bool identity = rows * columns == grid_rows * grid_columns && height == width;
  if (grid_rows != grid_columns) {
    identity = rows == grid_rows && columns == grid_columns;
    if (!identity)
      throw Error(ErrorKind::data,
                  fmt::format("a picture has {} x {} patches, the model's positions are for {} x {}", rows,
                              columns, grid_rows, grid_columns),
                  "vision transformer", "resize the pictures; only square position grids are interpolated");
  }
  return resize_positions(tape, *positions_, rows, columns, options_.position_rule, identity);
}

Var VisionTransformer::embed(Tape& tape, const std::vector<Var>& images, const Layout& layout,
                             DType type) const {
  const Var patches =
      linear(tape, extract_patches(tape, images, options_.patch, type), *patch_weight_, patch_bias_);
  std::vector<Var> embeddings;
  embeddings.reserve(images.size());
  for (const Var& image : images) embeddings.push_back(positions(tape, image.shape()[2], image.shape()[3]));
  return assemble_tokens(tape, patches, *class_token_, embeddings, layout.segments);
}

Tensor VisionTransformer::factors(Tape& tape, const VisionForward& how, int block, int branch,
                                  const Segments& segments) const {
  return branch_factors(tape.backend().memory(), how.keep,
                        drop_rate(options_.drop_path, block, options_.depth), block, branch, segments,
                        class_token_->value().dtype());
}

Var VisionTransformer::norm(Tape& tape, const Var& x, const LayerNormParameters& norm, DType type) const {
  return layer_norm(tape, x, *norm.gain, *norm.bias, options_.layer_norm_epsilon, type);
}

ResidualNorm VisionTransformer::add_and_norm(Tape& tape, const Var& x, const Var& branch, const Tensor& scale,
                                             const LayerNormParameters& norm, DType type) const {
  return residual_layer_norm(tape, x, branch, scale, *norm.gain, *norm.bias, options_.layer_norm_epsilon,
                             type);
}

VisionTransformer::Stream VisionTransformer::run_block(Tape& tape, const Var& x, const Var& y, int block,
                                                       const Layout& layout, const VisionForward& how,
                                                       Rows rows) const {
  const EncoderBlock& at = blocks_[static_cast<std::size_t>(block)];
  const bool cut = rows == Rows::class_tokens && block + 1 == options_.depth;
  Var heads = at.attend(tape, y, layout.segments);
  if (cut) heads = select_rows(tape, heads, layout.class_rows);
  const Var stream = cut ? select_rows(tape, x, layout.class_rows) : x;
  const Segments& segments = cut ? layout.pictures : layout.segments;
  const ResidualNorm sum = add_and_norm(tape, stream, at.project(tape, heads),
                                        factors(tape, how, block, 0, segments), at.norm2(), how.type);
  return {.x = sum.x, .branch = at.mlp(tape, sum.y), .scale = factors(tape, how, block, 1, segments)};
}

Var VisionTransformer::encode(Tape& tape, Var x, const Layout& layout, const VisionForward& how, Rows rows,
                              std::vector<Var>* after) const {
  if (how.recompute) return encode_recomputing(tape, std::move(x), layout, how, rows, after);
  Var y = norm(tape, x, blocks_.front().norm1(), how.type);
  for (int i = 0; i < options_.depth; ++i) {
    const Stream stream = run_block(tape, x, y, i, layout, how, rows);
    const bool last = i + 1 == options_.depth;
    const LayerNormParameters& next = last ? norm_ : blocks_[static_cast<std::size_t>(i) + 1].norm1();
    const ResidualNorm sum = add_and_norm(tape, stream.x, stream.branch, stream.scale, next, how.type);
    x = sum.x;
    y = sum.y;
    if (after != nullptr) after->push_back(x);
  }
  return y;
}

Var VisionTransformer::encode_recomputing(Tape& tape, Var x, const Layout& layout, const VisionForward& how,
                                          Rows rows, std::vector<Var>* after) const {
  for (int i = 0; i < options_.depth; ++i) {
    // The block runs again during backward, after this call has returned: it takes along what it needs.
    x = tape.recompute(
        [this, i, layout, how, rows](Tape& inner, const Var& input) {
          const Var y = norm(inner, input, blocks_[static_cast<std::size_t>(i)].norm1(), how.type);
          const Stream stream = run_block(inner, input, y, i, layout, how, rows);
          return residual_add(inner, stream.x, stream.branch, stream.scale);
        },
        x);
    if (after != nullptr) after->push_back(x);
  }
  return norm(tape, x, norm_, how.type);
}

Var VisionTransformer::features(Tape& tape, const std::vector<Var>& images, const VisionForward& how) const {
  const Layout layout = layout_of(images);
  return encode(tape, embed(tape, images, layout, how.type), layout, how, Rows::class_tokens);
}

Var VisionTransformer::tokens(Tape& tape, const std::vector<Var>& images, const VisionForward& how) const {
  const Layout layout = layout_of(images);
  return encode(tape, embed(tape, images, layout, how.type), layout, how, Rows::all);
}

std::vector<Var> VisionTransformer::residuals(Tape& tape, const std::vector<Var>& images,
                                              const VisionForward& how) const {
  const Layout layout = layout_of(images);
  std::vector<Var> after{embed(tape, images, layout, how.type)};
  encode(tape, after.front(), layout, how, Rows::all, &after);
  return after;
}

std::vector<Var> VisionTransformer::intermediate(Tape& tape, const std::vector<Var>& images, int n,
                                                 const VisionForward& how) const {
  if (n < 1 || n > options_.depth)
    throw Error(
        ErrorKind::usage,
        fmt::format("tokens of the last {} blocks are asked for, the model has {}", n, options_.depth),
        "vision transformer", fmt::format("choose 1 to {}", options_.depth));
  std::vector<Var> streams = residuals(tape, images, how);
  std::vector<Var> results;
  for (std::size_t i = streams.size() - static_cast<std::size_t>(n); i < streams.size(); ++i)
    results.push_back(norm(tape, streams[i], norm_, how.type));
  return results;
}

Tensor VisionTransformer::attention(const Backend& backend, const Tensor& images, DType type) const {
  Tape tape(backend, Tape::Mode::inference);
  const std::vector<Var> streams = residuals(tape, {Var(images)}, {.type = type});
  const EncoderBlock& last = blocks_.back();
  const Var y = norm(tape, streams[streams.size() - 2], last.norm1(), type);
  const Segments segments = layout_of({Var(images)}).segments;
  return attention_weights(backend, last.queries_keys_values(tape, y).value(), last.local_heads(),
                           segments.front());
}

double VisionTransformer::flops(std::int64_t height, std::int64_t width, bool class_only) const {
  const std::int64_t grid_rows = height / options_.patch, grid_columns = width / options_.patch;
  const auto patches = static_cast<double>(grid_rows * grid_columns);
  const double rows = patches + 1, dim = static_cast<double>(options_.embed_dim),
               hidden = static_cast<double>(options_.hidden());
  const double pixels = static_cast<double>(options_.channels) * options_.patch * options_.patch;
  const double after_attention = 2 * dim * dim + 4 * dim * hidden;  // projection and MLP of one row
  const double block = rows * (6 * dim * dim + 4 * rows * dim + after_attention);
  return options_.depth * block - (class_only ? patches * after_attention : 0) + 2 * patches * pixels * dim;
}

}  // namespace bireme

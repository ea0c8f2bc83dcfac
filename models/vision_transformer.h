#pragma once

#include <string>
#include <vector>

#include "core/data/batch.h"
#include "core/ops/embedding/embedding.h"
#include "models/drop_path.h"
#include "models/encoder_block.h"

namespace bireme {

struct VisionTransformerOptions {
  std::int64_t embed_dim = 384;  ///< D, a multiple of heads
  int depth = 12;
  int heads = 6;
  int patch = 16;          ///< p, side of a patch in pixels
  int channels = 3;        ///< of a picture
  int image_size = 224;    ///< height of the pictures whose positions are trained
  int image_width = 0;     ///< 0: as the height. Otherwise pictures of other sizes are refused
  double mlp_ratio = 4;    ///< hidden width of the MLP over D
  double drop_path = 0;    ///< stochastic depth of the last block; teachers have 0
  double init_std = 0.02;  ///< of linear weights; 0: Xavier-uniform
  float layer_norm_epsilon = 1e-6f;
  PositionRule position_rule = PositionRule::official;

  std::int64_t grid_rows() const { return image_size / patch; }
  std::int64_t grid_columns() const { return (image_width == 0 ? image_size : image_width) / patch; }
  std::int64_t hidden() const;
  /// C·p²·D + D + D + (N₀ + 1)·D + depth·(4D² + 2mD² + (9 + m)·D) + 2·D, m the MLP ratio.
  std::int64_t parameter_count() const;
  /// @throws Error (usage) naming the first setting that cannot be
  void validate() const;
};

/// The published sizes: "tiny", "small" and "base" (Touvron et al. 2021), at 224 pixels and patch 16.
/// @throws Error (usage) for another name
VisionTransformerOptions vision_transformer_size(const std::string& name);

/// How a forward pass is to run.
struct VisionForward {
  DType type = DType::f32;  ///< compute type: fp32 or bf16; fp64 in checks, where the parameters are fp64 too
  KeepBranch keep = {};     ///< stochastic depth, in training
  bool recompute = false;   ///< keep the input of each block only, and run it again on the way back
};

/// Vision transformer (Dosovitskiy et al. 2021) as DINO uses it (Caron et al. 2021): pre-norm blocks, a final
/// norm, no norm before block 0, no dropout. Pictures of several sizes go through together: their tokens lie
/// one after another in one buffer, so that every linear and norm runs once over all of them, and only
/// attention knows where a picture ends. The residual stream stays in fp32 whatever the compute type.
class VisionTransformer {
 public:
  /// Registers the parameters under their official names, each preceded by `prefix`.
  /// @throws Error (usage) when an option cannot be, or the tensor degree divides neither heads nor hidden
  /// width
  VisionTransformer(const VisionTransformerOptions& options, ParameterSet& parameters, std::string prefix,
                    Communicator& tensor);

  const VisionTransformerOptions& options() const { return options_; }

  /// Features: the class token after the final norm. After the last block's attention only class tokens go
  /// on, since nothing else reaches the features: same values, and most of a block saved.
  /// @param images  each [n, C, H, W] fp32 (fp64); sides need not be multiples of p, the rest at the lower
  /// and right edge is ignored
  /// @return        [Σ n, D] in the compute type, images in order
  /// @throws Error (data) for a picture of other channels or smaller than a patch
  Var features(Tape& tape, const std::vector<Var>& images, const VisionForward& how = {}) const;

  /// All tokens after the final norm: [Σ n·(N + 1), D]; of each picture first the class token, then patches
  /// row by row.
  Var tokens(Tape& tape, const std::vector<Var>& images, const VisionForward& how = {}) const;

  /// Tokens after each of the last n blocks, in block order, the final norm applied to each.
  std::vector<Var> intermediate(Tape& tape, const std::vector<Var>& images, int n,
                                const VisionForward& how = {}) const;

  /// The residual stream: first the prepared tokens, then after each block. Each [Σ n·(N + 1), D], fp32
  /// (fp64).
  std::vector<Var> residuals(Tape& tape, const std::vector<Var>& images, const VisionForward& how = {}) const;

  /// Attention of the last block: [n, H, N + 1, N + 1] fp32, the heads held by this rank.
  Tensor attention(const Backend& backend, const Tensor& images, DType type = DType::f32) const;

  /// Position embeddings of pictures of this size, [N + 1, D].
  Var positions(Tape& tape, std::int64_t height, std::int64_t width) const;

  /// Matrix products and attention of `features` of one picture, two operations per multiply-add. With
  /// `class_only` false that of `tokens`: depth·((8 + 4m)·(N + 1)·D² + 4·(N + 1)²·D) + 2·N·C·p²·D.
  double flops(std::int64_t height, std::int64_t width, bool class_only = true) const;

 private:
  /// Where the rows of each picture lie in the packed buffer.
  struct Layout {
    Segments segments;  // one for each tensor of images
    Segments pictures;  // the same with one row a picture
    std::vector<std::int64_t> class_rows;
  };
  enum class Rows { all, class_tokens };

  Layout layout_of(const std::vector<Var>& images) const;
  Var embed(Tape& tape, const std::vector<Var>& images, const Layout& layout, DType type) const;
  /// The blocks and the final norm. Appends the residual stream after each block to `after` unless null.
  Var encode(Tape& tape, Var x, const Layout& layout, const VisionForward& how, Rows rows,
             std::vector<Var>* after = nullptr) const;
  /// The same with every block as one step of the tape; the norms between blocks are passes of their own
  /// then.
  Var encode_recomputing(Tape& tape, Var x, const Layout& layout, const VisionForward& how, Rows rows,
                         std::vector<Var>* after) const;
  /// A block up to its last addition, which is fused with whatever norm comes next: x + scale ∘ branch.
  struct Stream {
    Var x, branch;
    Tensor scale;
  };
  Stream run_block(Tape& tape, const Var& x, const Var& y, int block, const Layout& layout,
                   const VisionForward& how, Rows rows) const;
  Tensor factors(Tape& tape, const VisionForward& how, int block, int branch, const Segments& segments) const;
  ResidualNorm add_and_norm(Tape& tape, const Var& x, const Var& branch, const Tensor& scale,
                            const LayerNormParameters& norm, DType type) const;
  Var norm(Tape& tape, const Var& x, const LayerNormParameters& norm, DType type) const;

  VisionTransformerOptions options_;
  Parameter* class_token_;
  Parameter* positions_;
  Parameter* patch_weight_;  // [D, C·p²]
  Parameter* patch_bias_;
  std::vector<EncoderBlock> blocks_;
  LayerNormParameters norm_;
};

}  // namespace bireme

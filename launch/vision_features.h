#pragma once

#include <functional>
#include <vector>

#include "core/data/dataset.h"
#include "core/image/transform.h"
#include "distributed/communicator.h"
#include "models/vision_transformer.h"
#include "objectives/evaluate/nearest_neighbors.h"

namespace bireme {

/// The pictures of a dataset as a model reads them in evaluation: cropped to its size, normalised, on the
/// host.
class EvaluationPictures {
 public:
  /// @param mean, deviation  of the pixels in 0 … 1, one for each channel
  /// @throws Error (data) naming the first shard or picture that cannot be read; or that has other
  /// channels than the model
  EvaluationPictures(const Dataset& dataset, int size, int channels, const std::vector<double>& mean,
                     const std::vector<double>& deviation);

  std::int64_t records() const { return static_cast<std::int64_t>(labels_.size()); }
  const std::vector<std::int32_t>& labels() const { return labels_; }
  /// Pictures [begin, end) as [n, C, size, size] fp32.
  Tensor pixels(Memory& memory, std::int64_t begin, std::int64_t end) const;
  int size() const { return size_; }
  int channels() const { return channels_; }

 private:
  int size_, channels_;
  Normalization normalization_;
  std::vector<std::uint8_t> planes_;  // [N, C, size, size]
  std::vector<std::int32_t> labels_;
};

/// Reports how many of how many records are done.
using FeatureProgress = std::function<void(std::int64_t done, std::int64_t total)>;

/// Class-token features of all pictures, computed by shares over the ranks and then held by all. Collective.
LabeledFeatures class_token_features(const Backend& backend, Communicator& ranks,
                                     const VisionTransformer& model, const EvaluationPictures& pictures,
                                     DType type, const FeatureProgress& progress = {});

/// Class tokens of the last `blocks` blocks, oldest first: [N, blocks · D]. As above.
LabeledFeatures last_blocks_features(const Backend& backend, Communicator& ranks,
                                     const VisionTransformer& model, const EvaluationPictures& pictures,
                                     int blocks, DType type, const FeatureProgress& progress = {});

/// The pixels themselves: what any feature should be better than.
LabeledFeatures pixel_features(const Backend& backend, const EvaluationPictures& pictures);

}  // namespace bireme

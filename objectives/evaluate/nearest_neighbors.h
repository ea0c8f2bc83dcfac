#pragma once

#include <span>
#include <vector>

#include "core/ops/backend.h"
#include "distributed/communicator.h"

namespace bireme {

struct LabeledFeatures {
  Tensor features;                   ///< [N, D] fp32, host memory
  std::vector<std::int32_t> labels;  ///< [N]
};

struct KnnOptions {
  std::vector<int> neighbors{10, 20, 100, 200};  ///< k, one result each
  double temperature = 0.07;
};

struct KnnResult {
  int neighbors = 0;
  double top1 = 0, top5 = 0;              ///< shares of the test set, 0 … 1
  std::vector<std::int32_t> predictions;  ///< [test N]
};

/// The k nearest training features of each test feature by cosine: the most similar first, equal ones by
/// lower index.
struct Neighbors {
  int k = 0;
  std::vector<float> similarities;    ///< [test N, k]
  std::vector<std::int64_t> indices;  ///< [test N, k]
};
/// Each rank scans its share of the training set, and the lists are merged: the result does not depend on the
/// number of ranks. Every rank passes all features. Collective.
Neighbors nearest_neighbors(const Backend& backend, Communicator& ranks, const Tensor& train,
                            const Tensor& test, int k);

/// The weights e^(s/T) of each test record's k nearest neighbours, summed for each class: [test N, classes].
std::vector<double> knn_votes(const Neighbors& neighbors, int k, std::span<const std::int32_t> labels,
                              int classes, double temperature);

/// Weighted k-nearest-neighbour classification on frozen features (Wu et al. 2018; Caron et al. 2021,
/// section 4.1).
/// @throws Error (data) for missing labels and vectors of length 0, (usage) for k beyond the training set
std::vector<KnnResult> evaluate_knn(const Backend& backend, Communicator& ranks, const LabeledFeatures& train,
                                    const LabeledFeatures& test, const KnnOptions& options);

}  // namespace bireme

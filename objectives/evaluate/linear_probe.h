#pragma once

#include <vector>

#include "objectives/evaluate/nearest_neighbors.h"

namespace bireme {

/// Multinomial logistic regression on frozen features by SGD with momentum (v ← μ·v + g; θ ← θ - lr·v), no
/// weight decay, the learning rate following a cosine per epoch to 0 (Caron et al. 2021, section 4.1): lr_e =
/// lr · ½·(1 + cos(π·e/E)).
struct LinearProbeOptions {
  int epochs = 100;
  std::int64_t batch_size = 256;
  double momentum = 0.9;
  double learning_rate = 0.001;  ///< of every batch; the paper's rule is 0.001 · batch / 256
  std::uint64_t seed = 0;
  bool shuffled = true;  ///< the order of records changes from epoch to epoch
};

/// One linear classifier: weight [classes, F], bias [classes].
struct LinearClassifier {
  Tensor weight, bias;
};

/// Trains `classifier` in place. Returns the mean loss of every batch, in order.
std::vector<double> train_linear_probe(const Backend& backend, const LabeledFeatures& train,
                                       LinearClassifier& classifier, const LinearProbeOptions& options);

/// Share of records whose class has the largest logit.
double accuracy(const Backend& backend, const LabeledFeatures& set, const LinearClassifier& classifier);

struct ProbeResult {
  double learning_rate = 0;
  double accuracy = 0;  ///< on the test set
};
/// Trains one probe for each learning rate on standardised features (weights start normal with deviation
/// 0.01). Learning rates are spread over the ranks. Collective. Best first.
std::vector<ProbeResult> sweep_linear_probe(const Backend& backend, Communicator& ranks,
                                            const LabeledFeatures& train, const LabeledFeatures& test,
                                            const std::vector<double>& learning_rates,
                                            const LinearProbeOptions& options);

}  // namespace bireme

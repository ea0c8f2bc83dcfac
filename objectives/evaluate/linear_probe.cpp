#include "objectives/evaluate/linear_probe.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "core/base/error.h"
#include "core/ops/linear/linear_kernels.h"
#include "core/tensor/random.h"

namespace bireme {

namespace {

/// logits → softmax - one-hot, divided by the rows: the gradient of the mean cross-entropy, which is
/// returned.
double softmax_gradient(const Tensor& logits, std::span<const std::int32_t> labels) {
  const std::int64_t rows = logits.rows(), classes = logits.channels();
  double loss = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    float* row = logits.data<float>() + r * classes;
    const float largest = *std::max_element(row, row + classes);
    double sum = 0;
    for (std::int64_t c = 0; c < classes; ++c) sum += std::exp(double{row[c]} - largest);
    const std::int32_t label = labels[static_cast<std::size_t>(r)];
    loss += std::log(sum) + largest - row[label];
    for (std::int64_t c = 0; c < classes; ++c) {
      const double p = std::exp(double{row[c]} - largest) / sum;
      row[c] = static_cast<float>((p - (c == label ? 1 : 0)) / static_cast<double>(rows));
    }
  }
  return loss / static_cast<double>(rows);
}

void momentum_step(const Tensor& parameter, const Tensor& gradient, const Tensor& velocity, double momentum,
                   double rate) {
  for (std::int64_t i = 0; i < parameter.elements(); ++i) {
    float& v = velocity.data<float>()[i];
    v = static_cast<float>(momentum * v + gradient.data<float>()[i]);
    parameter.data<float>()[i] -= static_cast<float>(rate * v);
  }
}

/// The records of one epoch in their order.
std::vector<std::int64_t> epoch_order(std::int64_t records, const LinearProbeOptions& options, int epoch) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(records));
  for (std::int64_t i = 0; i < records; ++i) order[static_cast<std::size_t>(i)] = i;
  if (!options.shuffled) return order;
  RandomStream random(options.seed, static_cast<std::uint64_t>(epoch), RandomUse::permutation, 1);
  for (std::int64_t i = records; i-- > 1;)
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(random.below(i + 1))]);
  return order;
}

int classes_of(const LabeledFeatures& set) {
  if (set.labels.empty() || *std::min_element(set.labels.begin(), set.labels.end()) < 0)
    throw Error(ErrorKind::data, "the dataset has no labels", "linear probe",
                "prepare it from one folder per class");
  return *std::max_element(set.labels.begin(), set.labels.end()) + 1;
}

/// (x - mean) / deviation for each channel, with the statistics of the training set.
void standardize(const Tensor& train, const Tensor& test) {
  const std::int64_t channels = train.channels();
  for (std::int64_t c = 0; c < channels; ++c) {
    double mean = 0, square = 0;
    for (std::int64_t r = 0; r < train.rows(); ++r) mean += train.data<float>()[r * channels + c];
    mean /= static_cast<double>(train.rows());
    for (std::int64_t r = 0; r < train.rows(); ++r)
      square += std::pow(train.data<float>()[r * channels + c] - mean, 2);
    const double inverse = 1 / std::sqrt(square / static_cast<double>(train.rows()) + 1e-12);
    for (const Tensor* set : {&train, &test})
      for (std::int64_t r = 0; r < set->rows(); ++r) {
        float& x = set->data<float>()[r * channels + c];
        x = static_cast<float>((x - mean) * inverse);
      }
  }
}

}  // namespace

std::vector<double> train_linear_probe(const Backend& backend, const LabeledFeatures& train,
                                       LinearClassifier& classifier, const LinearProbeOptions& options) {
  Memory& memory = backend.memory();
  const std::int64_t records = train.features.rows(), channels = train.features.channels();
  const std::int64_t classes = classifier.weight.rows();
  const Tensor dweight(memory, {classes, channels}, DType::f32), dbias(memory, {classes}, DType::f32);
  const Tensor weight_velocity(memory, {classes, channels}, DType::f32),
      bias_velocity(memory, {classes}, DType::f32);
  fill(weight_velocity, 0);
  fill(bias_velocity, 0);
  std::vector<double> losses;
  for (int epoch = 0; epoch < options.epochs; ++epoch) {
    const double rate =
        options.learning_rate * 0.5 * (1 + std::cos(std::numbers::pi * epoch / options.epochs));
    const std::vector<std::int64_t> order = epoch_order(records, options, epoch);
    for (std::int64_t first = 0; first < records; first += options.batch_size) {
      const std::int64_t rows = std::min(options.batch_size, records - first);
      const Tensor x(memory, {rows, channels}, DType::f32), logits(memory, {rows, classes}, DType::f32);
      std::vector<std::int32_t> labels;
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t record = order[static_cast<std::size_t>(first + r)];
        copy(train.features.slice(record, record + 1), x.slice(r, r + 1));
        labels.push_back(train.labels[static_cast<std::size_t>(record)]);
      }
      backend.linear().linear({.x = x, .weight = classifier.weight, .bias = classifier.bias, .y = logits});
      losses.push_back(softmax_gradient(logits, labels));
      backend.linear().linear({.dy = logits,
                               .x = x,
                               .weight = classifier.weight,
                               .dx = {},
                               .dweight = {dweight, false},
                               .dbias = {dbias, false}});
      momentum_step(classifier.weight, dweight, weight_velocity, options.momentum, rate);
      momentum_step(classifier.bias, dbias, bias_velocity, options.momentum, rate);
    }
  }
  return losses;
}

double accuracy(const Backend& backend, const LabeledFeatures& set, const LinearClassifier& classifier) {
  const std::int64_t rows = set.features.rows(), classes = classifier.weight.rows();
  const Tensor logits(backend.memory(), {rows, classes}, DType::f32);
  backend.linear().linear(
      {.x = set.features, .weight = classifier.weight, .bias = classifier.bias, .y = logits});
  std::int64_t right = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = logits.data<float>() + r * classes;
    right += std::max_element(row, row + classes) - row == set.labels[static_cast<std::size_t>(r)] ? 1 : 0;
  }
  return static_cast<double>(right) / static_cast<double>(rows);
}

std::vector<ProbeResult> sweep_linear_probe(const Backend& backend, Communicator& ranks,
                                            const LabeledFeatures& train, const LabeledFeatures& test,
                                            const std::vector<double>& learning_rates,
                                            const LinearProbeOptions& options) {
  const int classes = std::max(classes_of(train), classes_of(test));
  Memory& memory = backend.memory();
  const LabeledFeatures own_train{clone(memory, train.features), train.labels};
  const LabeledFeatures own_test{clone(memory, test.features), test.labels};
  standardize(own_train.features, own_test.features);
  const Tensor accuracies(memory, {static_cast<std::int64_t>(learning_rates.size())}, DType::f64);
  fill(accuracies, 0);
  for (std::size_t i = static_cast<std::size_t>(ranks.rank()); i < learning_rates.size();
       i += static_cast<std::size_t>(ranks.size())) {
    LinearClassifier classifier{Tensor(memory, {classes, train.features.channels()}, DType::f32),
                                Tensor(memory, {classes}, DType::f32)};
    RandomStream random(options.seed, 0, RandomUse::initialize);
    for (float& w : classifier.weight.values<float>()) w = static_cast<float>(0.01 * random.normal());
    fill(classifier.bias, 0);
    LinearProbeOptions own = options;
    own.learning_rate = learning_rates[i];
    train_linear_probe(backend, own_train, classifier, own);
    accuracies.data<double>()[i] = accuracy(backend, own_test, classifier);
  }
  ranks.all_reduce(accuracies, Reduce::sum).wait();
  std::vector<ProbeResult> results;
  results.reserve(learning_rates.size());
  for (std::size_t i = 0; i < learning_rates.size(); ++i)
    results.push_back({learning_rates[i], accuracies.data<double>()[i]});
  std::stable_sort(results.begin(), results.end(),
                   [](const auto& a, const auto& b) { return a.accuracy > b.accuracy; });
  return results;
}

}  // namespace bireme

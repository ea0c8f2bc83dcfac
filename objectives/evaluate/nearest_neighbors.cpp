#include "objectives/evaluate/nearest_neighbors.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "core/autograd/tape.h"
#include "core/base/error.h"
#include "core/ops/linear/linear.h"

namespace bireme {

namespace {

// Similarities of this many test records at a time: 256 × 60,000 fp32 numbers are 61 MB.
constexpr std::int64_t kTestBlock = 256;

struct NeighborCandidate {
  float similarity;
  std::int64_t index;
  /// The order of neighbours: more similar first, then lower index.
  friend bool operator<(const NeighborCandidate& a, const NeighborCandidate& b) {
    return a.similarity > b.similarity || (a.similarity == b.similarity && a.index < b.index);
  }
};

Tensor unit_rows(Memory& memory, const Tensor& features, const char* name) {
  const Tensor unit = clone(memory.host(), features);
  const std::int64_t channels = unit.channels();
  for (std::int64_t r = 0; r < unit.rows(); ++r) {
    float* row = unit.data<float>() + r * channels;
    double square = 0;
    for (std::int64_t c = 0; c < channels; ++c) square += double{row[c]} * row[c];
    if (!(square > 1e-24) || !std::isfinite(square)) {
      throw Error(ErrorKind::data, "the feature of record " + std::to_string(r) + " is zero or not finite",
                  name, "check the model: its training may have diverged");
    }
    const auto inverse = static_cast<float>(1 / std::sqrt(square));
    for (std::int64_t c = 0; c < channels; ++c) row[c] *= inverse;
  }
  return on_device(memory, unit);
}

/// The k first candidates of a row of similarities, in order.
void scan(const float* similarities, std::int64_t count, std::int64_t first_index, int k,
          std::vector<NeighborCandidate>& best) {
  best.clear();  // a heap whose front is the last of the list
  for (std::int64_t i = 0; i < count; ++i) {
    const NeighborCandidate candidate{similarities[i], first_index + i};
    if (static_cast<int>(best.size()) < k) {
      best.push_back(candidate);
      std::push_heap(best.begin(), best.end());
    } else if (candidate < best.front()) {
      std::pop_heap(best.begin(), best.end());
      best.back() = candidate;
      std::push_heap(best.begin(), best.end());
    }
  }
  std::sort_heap(best.begin(), best.end());
}

/// Merges the lists that ranks found in their shares.
Neighbors merge(const Backend& backend, Communicator& ranks, const std::vector<NeighborCandidate>& own,
                std::int64_t tests, int k) {
  const Shape shape{tests * k}, all_shape{ranks.size() * tests * k};
  Memory& memory = backend.memory().host();
  const Tensor similarity(memory, shape, DType::f32), index(memory, shape, DType::i64);
  for (std::size_t i = 0; i < own.size(); ++i) {
    similarity.data<float>()[i] = own[i].similarity;
    index.data<std::int64_t>()[i] = own[i].index;
  }
  const Tensor similarities(memory, all_shape, DType::f32), indices(memory, all_shape, DType::i64);
  ranks.all_gather(similarity, similarities).wait();
  ranks.all_gather(index, indices).wait();
  Neighbors result{.k = k, .similarities = {}, .indices = {}};
  std::vector<NeighborCandidate> lists;
  for (std::int64_t test = 0; test < tests; ++test) {
    lists.clear();
    for (std::int64_t rank = 0; rank < ranks.size(); ++rank) {
      for (std::int64_t j = 0; j < k; ++j) {
        const std::int64_t at = (rank * tests + test) * k + j;
        lists.push_back({similarities.data<float>()[at], indices.data<std::int64_t>()[at]});
      }
    }
    std::partial_sort(lists.begin(), lists.begin() + k, lists.end());
    for (int j = 0; j < k; ++j) {
      result.similarities.push_back(lists[static_cast<std::size_t>(j)].similarity);
      result.indices.push_back(lists[static_cast<std::size_t>(j)].index);
    }
  }
  return result;
}

void require_labels(const LabeledFeatures& set, const char* name) {
  if (std::any_of(set.labels.begin(), set.labels.end(), [](std::int32_t label) { return label < 0; })) {
    throw Error(ErrorKind::data, "the dataset has no labels", name, "prepare it from one folder per class");
  }
}

}  // namespace

Neighbors nearest_neighbors(const Backend& backend, Communicator& ranks, const Tensor& train,
                            const Tensor& test, int k) {
  const std::int64_t total = train.rows(), tests = test.rows();
  if (k < 1 || k > total) {
    throw Error(
        ErrorKind::usage,
        "k is " + std::to_string(k) + ", but the training set has " + std::to_string(total) + " records",
        "k-NN", "choose --k from 1 to " + std::to_string(total));
  }
  const Tensor train_units = unit_rows(backend.memory(), train, "training set");
  const Tensor test_units = unit_rows(backend.memory(), test, "test set");
  const std::int64_t begin = total * ranks.rank() / ranks.size(),
                     end = total * (ranks.rank() + 1) / ranks.size();
  const Var share(train_units.slice(begin, end));
  // Lists of ranks with fewer than k records are filled up with what can never be chosen.
  std::vector<NeighborCandidate> own(static_cast<std::size_t>(tests * k), {-2.0F, total});
  for (std::int64_t first = 0; first < tests; first += kTestBlock) {
    const std::int64_t last = std::min(tests, first + kTestBlock);
    Tape tape(backend, Tape::Mode::inference);
    const Tensor similarities = on_host(linear(tape, Var(test_units.slice(first, last)), share).value());
#pragma omp parallel
    {
      std::vector<NeighborCandidate> best;
#pragma omp for
      for (std::int64_t row = first; row < last; ++row) {
        scan(similarities.data<float>() + (row - first) * (end - begin), end - begin, begin, k, best);
        std::copy(best.begin(), best.end(), own.begin() + row * k);
      }
    }
  }
  return merge(backend, ranks, own, tests, k);
}

std::vector<double> knn_votes(const Neighbors& neighbors, int k, std::span<const std::int32_t> labels,
                              int classes, double temperature) {
  const auto tests = static_cast<std::int64_t>(neighbors.indices.size()) / neighbors.k;
  std::vector<double> votes(static_cast<std::size_t>(tests * classes), 0.0);
  for (std::int64_t test = 0; test < tests; ++test) {
    for (int j = 0; j < k; ++j) {
      const auto at = static_cast<std::size_t>(test * neighbors.k + j);
      const std::int32_t label = labels[static_cast<std::size_t>(neighbors.indices[at])];
      votes[static_cast<std::size_t>(test * classes + label)] +=
          std::exp(double{neighbors.similarities[at]} / temperature);
    }
  }
  return votes;
}

std::vector<KnnResult> evaluate_knn(const Backend& backend, Communicator& ranks, const LabeledFeatures& train,
                                    const LabeledFeatures& test, const KnnOptions& options) {
  require_labels(train, "training set");
  require_labels(test, "test set");
  const int largest = *std::max_element(options.neighbors.begin(), options.neighbors.end());
  const Neighbors neighbors = nearest_neighbors(backend, ranks, train.features, test.features, largest);
  const int classes = 1 + std::max(*std::max_element(train.labels.begin(), train.labels.end()),
                                   *std::max_element(test.labels.begin(), test.labels.end()));
  const auto tests = static_cast<std::int64_t>(test.labels.size());
  std::vector<KnnResult> results;
  for (const int k : options.neighbors) {
    const std::vector<double> votes = knn_votes(neighbors, k, train.labels, classes, options.temperature);
    KnnResult result;
    result.neighbors = k;
    std::int64_t right = 0, right_of_five = 0;
    std::vector<int> order(static_cast<std::size_t>(classes));
    for (std::int64_t i = 0; i < tests; ++i) {
      const double* vote = votes.data() + i * classes;
      std::iota(order.begin(), order.end(), 0);
      const int five = std::min({5, classes, k});  // k neighbours vote for k classes at most
      std::partial_sort(order.begin(), order.begin() + five, order.end(),
                        [&](int a, int b) { return vote[a] > vote[b] || (vote[a] == vote[b] && a < b); });
      const std::int32_t label = test.labels[static_cast<std::size_t>(i)];
      result.predictions.push_back(order.front());
      right += order.front() == label ? 1 : 0;
      right_of_five += std::count(order.begin(), order.begin() + five, label);
    }
    result.top1 = static_cast<double>(right) / static_cast<double>(tests);
    result.top5 = static_cast<double>(right_of_five) / static_cast<double>(tests);
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace bireme

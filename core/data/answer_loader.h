#pragma once

#include <memory>

#include "core/data/answer_packing.h"
#include "core/data/sampler.h"

namespace bireme {

/// What a step knows of an answer beyond its tokens: fills in its reference, reward and label.
/// @param which  the number of the answer in its record
using DescribeAnswer = std::function<void(PlacedAnswer& answer, std::size_t which)>;
/// For each record of a step the one whose first answer it borrows; empty: the step has no mismatched texts.
/// @param records  record numbers of the whole step
using PairMismatched = std::function<std::vector<std::int64_t>(const std::vector<std::int64_t>& records)>;

struct AnswerLoaderOptions {
  PackingOptions packing;
  std::int64_t start_step = 0;  ///< the optimiser step whose batch comes first
  int accumulate = 1;           ///< parts that a global batch is delivered in
  int data_rank = 0, data_size = 1;
  int parts_ahead = 3;           ///< parts prepared beyond the one last delivered; bounds the memory
  DescribeAnswer describe = {};  ///< or empty; called by the loader's thread
  PairMismatched mismatch = {};  ///< or empty: a step has no mismatched texts
  DescribeAnswer describe_mismatched = {};  ///< of a borrowed answer, under the number of the borrower
};

/// Delivers this data rank's share of each global batch of prompts with answers, in order, read ahead by a
/// thread of its own. A record's answers stay together, and what a batch holds depends on the sampler and the
/// step alone, as with ImageLoader.
class AnswerLoader {
 public:
  /// @param sampler  over the records of the dataset
  /// @param dataset  must outlive the loader
  /// @param memory   where rows are put; handed out with the batch, so they may outlive the loader
  /// @throws Error (usage) when the batch does not divide into parts and ranks
  AnswerLoader(const AnswerLoaderOptions& options, const Sampler& sampler, const AnswerDataset& dataset,
               std::shared_ptr<Memory> memory);
  AnswerLoader(const AnswerLoader&) = delete;
  AnswerLoader& operator=(const AnswerLoader&) = delete;
  ~AnswerLoader();

  /// The next part. One caller at a time.
  /// @throws Error  what reading one of its records threw; the same again when called again
  AnswerBatch next();
  /// Time that next() waited: what the loader cost the training.
  double wait_seconds() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace bireme

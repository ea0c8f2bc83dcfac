#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/data/answer_dataset.h"
#include "distributed/communicator.h"
#include "objectives/answer_scores.h"

namespace bireme {

/// What a cache of reference log-probabilities belongs to. A cache of anything else is refused: sums of
/// another model, dataset or precision would train without a sign of it.
struct ReferenceIdentity {
  static constexpr int kVersion = 1;

  std::string dataset;    ///< SHA-256 of dataset.json
  std::string model;      ///< SHA-256 over the reference's tensors, see hash_of_model()
  std::string tokenizer;  ///< kind and fingerprint
  std::int64_t max_length = 0;
  std::string truncation;
  std::string precision;        ///< of the pass: fp32 or bf16
  bool has_mismatched = false;  ///< with sums of mismatched texts, for KTO

  /// Names and values, in the order in which they are compared.
  std::vector<std::pair<std::string, std::string>> fields() const;
};
ReferenceIdentity identity_of(const AnswerDataset& dataset, const std::string& model_hash, DType precision,
                              bool has_mismatched);

/// SHA-256 over the sorted names of a published folder's tensors, their types, shapes and bytes.
/// @throws Error (checkpoint)
std::string hash_of_model(const std::filesystem::path& folder);

/// The record whose answer a prompt borrows where pairs are mismatched by the order of the dataset: the one
/// before, cyclically.
inline std::int64_t record_before(std::int64_t number, std::int64_t records) {
  return (number + records - 1) % records;
}
/// The prompt of a record with the first answer of the record before it.
AnswerRecord read_mismatched(const AnswerDataset& dataset, std::int64_t number);

/// Scores answers under the reference; collective over its tensor ranks.
using ScoreReference =
    std::function<std::vector<std::vector<AnswerScore>>(std::span<const AnswerRecord> records)>;

/// Log-probabilities of a dataset's answers under a reference model, on the disk beside the dataset: computed
/// once, in shards that an interrupted pass keeps, so that no reference model need be in memory while
/// training. A folder with reference.json (written last) and shards in HDF5, each with `sum` [R, A] fp64,
/// `tokens` [R, A] i32 and, for KTO, `mismatched_sum` [R] and `mismatched_record` [R]: the record's prompt
/// with the first answer of the record before it in the dataset (cyclically).
class ReferenceCache {
 public:
  struct Options {
    /// Empty: `reference-` and a hash of the identity, in the dataset's folder.
    std::filesystem::path folder = {};
    std::int64_t shard_size = 0;  ///< records; 0: by the size of the dataset
    bool replace = false;         ///< start anew over whatever is there
    bool writes = true;           ///< one rank of each tensor group
    std::function<void(std::int64_t done, std::int64_t total)> progress = {};  ///< shards of this rank
  };

  /// Opens the cache, after computing what is missing of it, spread over `ranks`. Collective over `ranks`.
  /// @throws Error (data) naming the first field that differs, both values, and how to rebuild the cache
  static ReferenceCache prepare(const AnswerDataset& dataset, const ReferenceIdentity& identity,
                                Communicator& ranks, const ScoreReference& score, const Options& options);
  /// A cache that is whole. @throws Error (data) as prepare(), or when there is none
  static ReferenceCache open(const AnswerDataset& dataset, const ReferenceIdentity& identity,
                             const std::filesystem::path& folder = {});
  static std::filesystem::path default_folder(const AnswerDataset& dataset,
                                              const ReferenceIdentity& identity);

  const std::filesystem::path& folder() const { return folder_; }
  std::int64_t records() const { return std::ssize(sums_) / answers_; }
  /// q of an answer of a record.
  double sum(std::int64_t record, int answer = 0) const {
    return sums_[static_cast<std::size_t>(record * answers_ + answer)];
  }
  /// All of them, by record and answer.
  const std::vector<double>& sums() const { return sums_; }
  const std::vector<double>& mismatched_sums() const { return mismatched_sums_; }
  const std::vector<std::int64_t>& mismatched_records() const { return mismatched_records_; }

 private:
  std::filesystem::path folder_;
  std::int64_t answers_ = 1;
  std::vector<double> sums_, mismatched_sums_;
  std::vector<std::int64_t> mismatched_records_;
};

}  // namespace bireme

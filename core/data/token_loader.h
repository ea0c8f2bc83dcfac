#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/data/batch.h"
#include "core/data/sampler.h"
#include "core/data/token_dataset.h"
#include "core/tensor/memory.h"

namespace bireme {

/// How the stream of tokens is cut into records: record i reads tokens [i·T, i·T + T) and predicts
/// [i·T + 1, i·T + T + 1), so that each token but the first is a target once, unless the dataset marks
/// targets and not this one.
struct TokenWindows {
  std::int64_t length = 0;  ///< T
  /// A batch says where documents begin, and the first token of a document is no target: nothing that the
  /// model may look at tells of it. The document end, where there is one, is a token like others.
  bool documents_apart = false;
};

/// Records of a stream; what is left at its end, less than T + 1 tokens, is in none.
/// @throws Error (usage) when there is not even one
std::int64_t count_windows(std::int64_t tokens, const TokenWindows& windows);

/// Windows of a dataset of sequences hold one each. @param where  what set the length, for messages
/// @throws Error (usage) when they would not
void require_whole_sequences(const TokenManifest& manifest, std::int64_t length, const std::string& where);

/// Where one window goes, T numbers each.
struct TokenWindow {
  std::int32_t *tokens, *targets;
  std::uint8_t* starts;  ///< null: documents are not kept apart
};
/// @param run  the T + 1 tokens from the window's first on
void fill_window(const TokenRun& run, const TokenWindow& window);

/// These records as a batch, without epoch and global count. @throws Error (data) as TokenDataset::read()
TokenBatch read_windows(const TokenDataset& dataset, std::span<const std::int64_t> records,
                        const TokenWindows& windows, Memory& memory);

struct TokenLoaderOptions {
  TokenWindows windows;
  std::int64_t start_step = 0;  ///< the optimiser step whose batch comes first
  int accumulate = 1;           ///< parts that a global batch is delivered in
  int data_rank = 0, data_size = 1;
  int parts_ahead = 3;  ///< parts prepared beyond the one last delivered; bounds the memory
};

/// Delivers this data rank's share of each global batch of sequences, in order, read ahead by a thread of its
/// own. What a batch holds depends on the sampler and the step alone, as with ImageLoader: over all ranks and
/// parts not on their number, and the step is all that a checkpoint needs to remember.
class TokenLoader {
 public:
  /// @param sampler  over count_windows() records
  /// @param dataset  must outlive the loader
  /// @param memory   where the tokens are put; handed out with the batch, so they may outlive the loader
  /// @throws Error (usage) when the batch does not divide into parts and ranks, or parts_ahead is below 1
  TokenLoader(const TokenLoaderOptions& options, const Sampler& sampler, const TokenDataset& dataset,
              std::shared_ptr<Memory> memory);
  TokenLoader(const TokenLoader&) = delete;
  TokenLoader& operator=(const TokenLoader&) = delete;
  ~TokenLoader();

  /// The next part. One caller at a time.
  /// @throws Error  what reading one of its records threw; the same again when called again
  TokenBatch next();

  /// The step that the next part belongs to.
  std::int64_t step() const;
  /// Time that next() waited: what the loader cost the training.
  double wait_seconds() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace bireme

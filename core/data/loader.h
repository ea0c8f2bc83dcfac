#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/data/batch.h"
#include "core/data/sampler.h"
#include "core/image/decode.h"
#include "core/image/multi_crop.h"
#include "core/tensor/memory.h"

namespace bireme {

/// Where the loader gets its pictures: normally a Dataset, in tests whatever is needed.
struct PictureSource {
  /// The stored picture of a record. Called by one thread, in the order of the batches.
  std::function<EncodedPicture(std::int64_t record)> read;
  /// The record and its shard, for messages. Called by any thread.
  std::function<std::string(std::int64_t record)> name;
};

struct LoaderOptions {
  std::uint64_t seed = 0;       ///< keys the crops
  std::int64_t start_step = 0;  ///< the optimiser step whose batch comes first
  int accumulate = 1;           ///< parts that a global batch is delivered in
  int data_rank = 0, data_size = 1;
  int workers = 1;      ///< threads that decode and crop
  int parts_ahead = 3;  ///< parts prepared or in preparation beyond the one last delivered; bounds the memory
  int worker_niceness =
      10;  ///< added to the workers' nice value: computation goes first, cropping fills the gaps
};

/// What the threads of a loader have done so far.
struct LoaderStatistics {
  std::int64_t pictures = 0;  ///< decoded and cropped
  double work_seconds = 0;    ///< processor time which that took, over all workers
  double wait_seconds = 0;    ///< time that next() waited: what the loader cost the training
};

/// Delivers this data rank's share of each global batch, in order, cropped and normalised. One thread reads,
/// a pool of workers decodes and crops ahead, and both rest when enough is prepared.
///
/// Part m of step k is the m-th of `accumulate` equal parts of global batch k, and of it the rank's
/// contiguous share. What a batch holds depends on the sampler, the seed and the step alone: not on workers,
/// and over all ranks and parts not on their number. The step is therefore all that a checkpoint needs to
/// remember.
class ImageLoader {
 public:
  /// @param memory  where the crops are put; handed out with the batch, so they may outlive the loader
  /// @throws Error (usage) when the batch does not divide into parts and ranks, or workers or parts_ahead are
  /// below 1
  ImageLoader(const LoaderOptions& options, const MultiCropOptions& crops, const Sampler& sampler,
              PictureSource source, std::shared_ptr<Memory> memory);
  ImageLoader(const ImageLoader&) = delete;
  ImageLoader& operator=(const ImageLoader&) = delete;
  /// Stops and joins the threads, within the time of one picture.
  ~ImageLoader();

  /// The next part. One caller at a time.
  /// @throws Error  what reading or decoding one of its records threw, the first record's if there are
  /// several; the
  ///                same again when called again
  ImageBatch next();

  /// The step that the next part belongs to.
  std::int64_t step() const;
  LoaderStatistics statistics() const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

/// @throws Error (usage) listing what would do, when a global batch does not divide into parts × ranks equal
/// shares
void require_divisible_batch(std::int64_t batch_size, int accumulate, int data_size);

struct LoaderRate {
  double pictures_per_second = 0;       ///< of all workers together, reading included
  double microseconds_per_picture = 0;  ///< processor time of one picture with all its crops
};
/// Takes parts from a loader as fast as they come, for about the given time, and at least one.
LoaderRate measure_loader(ImageLoader& loader, double seconds = 2);

}  // namespace bireme

#include "core/data/loader.h"

#include <spdlog/fmt/fmt.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/error.h"

namespace bireme {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Processor time of the calling thread, in seconds.
double thread_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// A batch without pixels: one group for each run of crops of equal side.
std::vector<ImageGroup> make_groups(const MultiCropOptions& options, std::int64_t pictures, Memory& memory) {
  std::vector<ImageGroup> groups;
  for (int crop = 0; crop < options.crops(); ++crop) {
    if (groups.empty() || groups.back().side != options.side(crop))
      groups.push_back({.pixels = {}, .crops = 0, .side = options.side(crop)});
    ++groups.back().crops;
  }
  const auto channels = static_cast<std::int64_t>(options.mean.size());
  for (ImageGroup& group : groups)
    group.pixels = Tensor(memory, {group.crops * pictures, channels, group.side, group.side}, DType::f32);
  return groups;
}

/// Where the crops of picture `index` go: row crop · B + index of each group.
std::vector<float*> outputs_of(const ImageBatch& batch, std::int64_t index) {
  const auto pictures = static_cast<std::int64_t>(batch.records.size());
  std::vector<float*> outputs;
  for (const ImageGroup& group : batch.groups) {
    const std::int64_t picture_elements = group.pixels.elements() / group.pixels.shape().front();
    for (int crop = 0; crop < group.crops; ++crop)
      outputs.push_back(group.pixels.data<float>() + (crop * pictures + index) * picture_elements);
  }
  return outputs;
}

std::vector<std::int64_t> divisors(std::int64_t n) {
  std::vector<std::int64_t> result;
  for (std::int64_t i = 1; i <= n; ++i)
    if (n % i == 0) result.push_back(i);
  return result;
}

}  // namespace

void require_divisible_batch(std::int64_t batch_size, int accumulate, int data_size) {
  if (accumulate < 1)
    throw Error(ErrorKind::usage, fmt::format("parallel.accumulate is {}", accumulate), "section [parallel]",
                "choose 1 or more");
  const std::int64_t shares = std::int64_t{accumulate} * data_size;
  if (batch_size >= shares && batch_size % shares == 0) return;
  const std::int64_t below = batch_size / shares * shares;
  std::string remedy = "choose data.batch_size " + (below > 0 ? fmt::format("{} or ", below) : "") +
                       fmt::format("{}", below + shares);
  if (batch_size % data_size == 0 && batch_size > 0)
    remedy += fmt::format(", or parallel.accumulate {}", fmt::join(divisors(batch_size / data_size), ", "));
  throw Error(
      ErrorKind::usage,
      fmt::format(
          "data.batch_size is {}, which does not divide into {} equal shares (parallel.accumulate {} x "
          "{} data ranks)",
          batch_size, shares, accumulate, data_size),
      "sections [data] and [parallel]", remedy);
}

class ImageLoader::Implementation {
 public:
  Implementation(const LoaderOptions& options, const MultiCropOptions& crops, const Sampler& sampler,
                 PictureSource source, std::shared_ptr<Memory> memory)
      : options_(options),
        crops_(crops),
        sampler_(sampler),
        source_(std::move(source)),
        memory_(std::move(memory)),
        part_(options.start_step * options.accumulate) {
    reader_ = std::jthread([this, part = part_](const std::stop_token& stop) { read(stop, part); });
    for (int i = 0; i < options.workers; ++i)
      workers_.emplace_back([this](const std::stop_token& stop) { work(stop); });
  }

  /// All are asked first, so that they stop together.
  ~Implementation() {
    reader_.request_stop();
    for (std::jthread& worker : workers_) worker.request_stop();
  }

  ImageBatch next() {
    const auto start = Clock::now();
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return !parts_.empty() && parts_.front().remaining == 0; });
    wait_seconds_ += seconds_since(start);
    if (parts_.front().error) std::rethrow_exception(parts_.front().error);
    ImageBatch batch = std::move(parts_.front().batch);
    parts_.pop_front();
    ++part_;
    room_.notify_one();
    return batch;
  }

  std::int64_t step() const {
    const std::lock_guard lock(mutex_);
    return part_ / options_.accumulate;
  }

  LoaderStatistics statistics() const {
    const std::lock_guard lock(mutex_);
    return {.pictures = pictures_, .work_seconds = work_seconds_, .wait_seconds = wait_seconds_};
  }

 private:
  /// A part in preparation. Workers write disjoint rows of its tensors without the lock; all else is under
  /// it.
  struct Part {
    ImageBatch batch;
    std::int64_t remaining = 0;  // pictures not yet done
    std::exception_ptr error;    // of the failed picture with the lowest index
    std::int64_t error_index = std::numeric_limits<std::int64_t>::max();

    void fail(std::int64_t index, std::exception_ptr what) {
      if (index >= error_index) return;
      error = std::move(what);
      error_index = index;
    }
  };
  struct Job {
    Part* part;  // stays where it is in the deque until its last picture is done
    std::int64_t index;
    EncodedPicture picture;
  };

  Part make_part(std::int64_t number) const {
    Sampler::Share share =
        sampler_.share_of_part(number, options_.accumulate, options_.data_rank, options_.data_size);
    Part part;
    part.batch.records = std::move(share.records);
    part.batch.labels.resize(part.batch.records.size());
    part.batch.epoch = share.epoch;
    part.batch.global_count = sampler_.batch_size();
    part.remaining = static_cast<std::int64_t>(part.batch.records.size());
    part.batch.groups = make_groups(crops_, part.remaining, *memory_);
    return part;
  }

  /// The reader's thread. Ends after a failure: what follows a record that cannot be read is never delivered.
  void read(const std::stop_token& stop, std::int64_t number) {
    for (;; ++number) {
      Part* part = nullptr;
      {
        std::unique_lock lock(mutex_);
        const auto has_room = [this] {
          return parts_.size() < static_cast<std::size_t>(options_.parts_ahead);
        };
        if (!room_.wait(lock, stop, has_room) || stop.stop_requested()) return;
        part = &parts_.emplace_back();
        part->remaining = 1;  // not to be delivered before it is made
      }
      std::int64_t index = -1, pictures = 0;
      try {
        Part made = make_part(number);
        pictures = made.remaining;
        {
          const std::lock_guard lock(mutex_);
          *part = std::move(made);
        }
        for (index = 0; index < pictures && !stop.stop_requested(); ++index) {
          Job job{.part = part, .index = index, .picture = source_.read(part->batch.records[index])};
          const std::lock_guard lock(mutex_);
          jobs_.push_back(std::move(job));
          waiting_.notify_one();
        }
      } catch (...) {
        const std::lock_guard lock(mutex_);
        part->fail(index, std::current_exception());
        part->remaining -= index < 0 ? part->remaining : pictures - index;
        ready_.notify_one();
        return;
      }
    }
  }

  /// A worker's thread.
  void work(const std::stop_token& stop) {
    // Of this thread alone. Lowering one's own priority cannot be refused.
    ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()),
                  ::getpriority(PRIO_PROCESS, static_cast<id_t>(::gettid())) + options_.worker_niceness);
    MultiCrop crop(crops_);
    PictureDecoder decoder;
    std::unique_lock lock(mutex_);
    while (waiting_.wait(lock, stop, [this] { return !jobs_.empty(); })) {
      if (stop.stop_requested()) return;
      const Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      const double start = thread_seconds();
      std::exception_ptr error;
      try {
        prepare(job, crop, decoder);
      } catch (...) {
        error = std::current_exception();
      }
      const double seconds = thread_seconds() - start;
      lock.lock();
      work_seconds_ += seconds;
      ++pictures_;
      if (error) job.part->fail(job.index, error);
      if (--job.part->remaining == 0) ready_.notify_one();
    }
  }

  void prepare(const Job& job, MultiCrop& crop, PictureDecoder& decoder) const {
    ImageBatch& batch = job.part->batch;
    const std::int64_t record = batch.records[job.index];
    const std::string name = source_.name(record);
    const Picture picture = decoder.decode(job.picture, name);
    if (picture.channels != static_cast<int>(crops_.mean.size()))
      throw Error(ErrorKind::data,
                  fmt::format("the picture has {} channels, but data.mean has {} entries", picture.channels,
                              crops_.mean.size()),
                  name,
                  "give one mean and deviation per channel, and keep grey and colour pictures in datasets of "
                  "their own");
    batch.labels[job.index] = job.picture.label;
    crop(picture, {.seed = options_.seed, .record = static_cast<std::uint64_t>(record), .epoch = batch.epoch},
         outputs_of(batch, job.index));
  }

  const LoaderOptions options_;
  const MultiCropOptions crops_;
  const Sampler sampler_;
  const PictureSource source_;
  const std::shared_ptr<Memory> memory_;

  mutable std::mutex mutex_;
  std::condition_variable_any room_;     // for the reader: a part was taken
  std::condition_variable_any waiting_;  // for workers: a picture was read
  std::condition_variable_any ready_;    // for next(): a part was completed
  std::deque<Part> parts_;               // in order of delivery
  std::deque<Job> jobs_;
  std::int64_t part_;  // number of the next part to be delivered, counted over all steps
  std::int64_t pictures_ = 0;
  double work_seconds_ = 0, wait_seconds_ = 0;

  std::vector<std::jthread> workers_;  // joined first
  std::jthread reader_;
};

ImageLoader::ImageLoader(const LoaderOptions& options, const MultiCropOptions& crops, const Sampler& sampler,
                         PictureSource source, std::shared_ptr<Memory> memory) {
  require_divisible_batch(sampler.batch_size(), options.accumulate, options.data_size);
  if (options.workers < 1 || options.parts_ahead < 1)
    throw Error(ErrorKind::usage,
                fmt::format("data.workers is {}, with {} parts ahead", options.workers, options.parts_ahead),
                "section [data]", "choose at least 1 of each");
  Normalization check(crops.mean, crops.std);  // throws here rather than in a worker
  implementation_ =
      std::make_unique<Implementation>(options, crops, sampler, std::move(source), std::move(memory));
}

ImageLoader::~ImageLoader() = default;

ImageBatch ImageLoader::next() { return implementation_->next(); }
std::int64_t ImageLoader::step() const { return implementation_->step(); }
LoaderStatistics ImageLoader::statistics() const { return implementation_->statistics(); }

LoaderRate measure_loader(ImageLoader& loader, double seconds) {
  loader.next();  // threads started, weights and memory warm
  const LoaderStatistics before = loader.statistics();
  const auto start = Clock::now();
  do loader.next();
  while (seconds_since(start) < seconds);
  const LoaderStatistics after = loader.statistics();
  const auto pictures = static_cast<double>(std::max<std::int64_t>(after.pictures - before.pictures, 1));
  return {.pictures_per_second = pictures / seconds_since(start),
          .microseconds_per_picture = (after.work_seconds - before.work_seconds) / pictures * 1e6};
}

}  // namespace bireme

#include "core/data/answer_loader.h"

#include <map>

#include "core/data/loader.h"
#include "core/data/read_ahead.h"

namespace bireme {

namespace {

/// Makes the parts of a data rank.
class PartMaker {
 public:
  PartMaker(const AnswerLoaderOptions& options, const Sampler& sampler, const AnswerDataset& dataset,
            std::shared_ptr<Memory> memory)
      : options_(options), sampler_(sampler), dataset_(dataset), memory_(std::move(memory)) {}

  AnswerBatch operator()(std::int64_t part) const {
    const int ranks = options_.data_size, parts = options_.accumulate;
    const std::int64_t step = part / parts, within = part % parts;
    const std::vector<std::int64_t> whole = sampler_.share(step, 0, 1).records;
    const Sampler::Share share = sampler_.share_of_part(part, parts, options_.data_rank, ranks);
    const std::int64_t first = first_of(within);
    AnswerBatch batch;
    batch.records = share.records;
    batch.epoch = share.epoch;
    batch.global_count = std::ssize(whole);
    std::vector<AnswerRecord> records;
    records.reserve(share.records.size());
    for (const std::int64_t number : share.records) records.push_back(dataset_.read(number));
    batch.rows = pack_answers(records, options_.packing, *memory_);
    const std::int64_t answers_each = std::ssize(batch.rows.answers) / std::ssize(records);
    describe(batch.rows, first * answers_each, answers_each, prompts_of(whole));
    batch.global_answers = std::ssize(whole) * answers_each;
    for (const std::int64_t number : whole)
      batch.global_imitated += count_imitated(dataset_.lengths(number), options_.packing.imitation);
    if (options_.mismatch && within == 0) add_mismatched(batch, whole);
    return batch;
  }

 private:
  /// The place in the global batch of this rank's first record of a part.
  std::int64_t first_of(std::int64_t within) const {
    const std::int64_t shares = std::int64_t{options_.accumulate} * options_.data_size;
    return (within * options_.data_size + options_.data_rank) * sampler_.batch_size() / shares;
  }
  /// For each record of the step the place of the first one with the same prompt.
  std::vector<std::int64_t> prompts_of(const std::vector<std::int64_t>& whole) const {
    std::map<std::uint64_t, std::int64_t> places;
    std::vector<std::int64_t> prompts;
    prompts.reserve(whole.size());
    for (const std::int64_t number : whole)
      prompts.push_back(places.try_emplace(dataset_.prompt_key(number), std::ssize(prompts)).first->second);
    return prompts;
  }
  void describe(AnswerRows& rows, std::int64_t first, std::int64_t answers_each,
                const std::vector<std::int64_t>& prompts) const {
    for (std::size_t i = 0; i < rows.answers.size(); ++i) {
      rows.answers[i].position = first + static_cast<std::int64_t>(i);
      rows.answers[i].prompt = prompts[static_cast<std::size_t>(rows.answers[i].position / answers_each)];
      if (options_.describe) options_.describe(rows.answers[i], i % static_cast<std::size_t>(answers_each));
    }
  }
  /// This rank's share of the step, part by part, with borrowed answers.
  void add_mismatched(AnswerBatch& batch, const std::vector<std::int64_t>& whole) const {
    const std::vector<std::int64_t> sources = options_.mismatch(whole);
    if (sources.empty()) return;
    const std::int64_t each = sampler_.batch_size() / options_.accumulate / options_.data_size;
    for (std::int64_t part = 0; part < options_.accumulate; ++part) {
      std::vector<AnswerRecord> records;
      for (std::int64_t i = first_of(part); i < first_of(part) + each; ++i) {
        records.push_back(dataset_.read(whole[static_cast<std::size_t>(i)]));
        records.back().answers = {dataset_.read(sources[static_cast<std::size_t>(i)]).answers.front()};
      }
      batch.mismatched.push_back(
          pack_answers(records, {.share_prompts = options_.packing.share_prompts}, *memory_));
      if (!options_.describe_mismatched) continue;
      for (PlacedAnswer& answer : batch.mismatched.back().answers) options_.describe_mismatched(answer, 0);
    }
  }

  AnswerLoaderOptions options_;
  Sampler sampler_;
  const AnswerDataset& dataset_;
  std::shared_ptr<Memory> memory_;
};

}  // namespace

struct AnswerLoader::Implementation {
  Implementation(PartMaker maker, std::int64_t first, int ahead) : parts(std::move(maker), first, ahead) {}
  ReadAhead<AnswerBatch> parts;
};

AnswerLoader::AnswerLoader(const AnswerLoaderOptions& options, const Sampler& sampler,
                           const AnswerDataset& dataset, std::shared_ptr<Memory> memory) {
  require_divisible_batch(sampler.batch_size(), options.accumulate, options.data_size);
  implementation_ =
      std::make_unique<Implementation>(PartMaker(options, sampler, dataset, std::move(memory)),
                                       options.start_step * options.accumulate, options.parts_ahead);
}

AnswerLoader::~AnswerLoader() = default;

AnswerBatch AnswerLoader::next() { return implementation_->parts.next(); }
double AnswerLoader::wait_seconds() const { return implementation_->parts.wait_seconds(); }

}  // namespace bireme

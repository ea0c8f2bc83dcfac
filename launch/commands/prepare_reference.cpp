#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/json.h"
#include "distributed/agreement.h"
#include "launch/language_session.h"
#include "launch/progress.h"
#include "objectives/reference_cache.h"

namespace bireme {

int run_prepare_reference(Arguments arguments) {
  Options options("bireme prepare reference",
                  "computes what a reference model says of a dataset's answers, once for all trainings");
  LanguageSession::declare(options)
      .required("data", "DATASET", "from `bireme prepare pairs` or `feedback`")
      .value("output", "FOLDER", "of the cache; without it, a folder in the dataset's")
      .flag("mismatched", "also the prompt of each record with the answer of the record before, for KTO")
      .flag("force", "make it anew over what is there")
      .example("bireme prepare reference --model runs/sft --data data/harmless")
      .example("mpirun -n 2 bireme prepare reference --model runs/sft --data data/scored --mismatched");
  if (!options.parse(arguments)) return 0;
  return run_job([&](Communicator& world) {
    const LanguageSession session(options, world);
    const AnswerDataset data =
        AnswerDataset::open(options.path("data"), {AnswerKind::pairs, AnswerKind::feedback, AnswerKind::sft});
    session.require_vocabulary(data.manifest().vocabulary, options.text("data"));
    // One rank reads the weights for the hash; that is slower than the disk.
    const std::string hash = run_on_first(world, [&] { return hash_of_model(session.folder()); });
    std::optional<Progress> bar;
    ReferenceCache::Options how{.replace = options.flag("force")};
    if (options.has("output")) how.folder = options.path("output");
    how.progress = [&](std::int64_t done, std::int64_t total) {
      if (!bar) bar.emplace(terminal_progress("shard", total, 0, world.rank()));
      bar->update(done);
    };
    const ReferenceCache cache = ReferenceCache::prepare(
        data, identity_of(data, hash, session.type(), options.flag("mismatched")), world,
        [&](std::span<const AnswerRecord> records) {
          return score_answers(session.backend(), session.model(), records, {.type = session.type()});
        },
        how);
    bar.reset();
    if (world.rank() != 0) return 0;
    if (options.json())
      fmt::print("{}\n", json_text(nlohmann::ordered_json{{"output", cache.folder().string()},
                                                          {"records", cache.records()},
                                                          {"model_sha256", hash}}));
    else
      fmt::print("log-probabilities of {} records under {} in {}\n", cache.records(), session.folder(),
                 cache.folder().string());
    return 0;
  });
}

}  // namespace bireme

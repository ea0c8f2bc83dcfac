#include "launch/commands/evaluate.h"

#include <spdlog/fmt/fmt.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/json.h"
#include "launch/evaluation.h"
#include "launch/numbers.h"
#include "launch/options.h"
#include "objectives/evaluate/linear_probe.h"

namespace bireme {

namespace {

Options& with_datasets(Options& options) {
  return options
      .required("model", "M", "checkpoint, run or Hugging Face folder; `pixels` for the pictures themselves")
      .required("train", "DATASET", "labelled pictures to learn from")
      .required("test", "DATASET", "labelled pictures to be judged by");
}

int run_knn(Arguments arguments) {
  Options options("bireme evaluate knn", "classifies by the nearest neighbours of frozen features");
  with_datasets(options)
      .value("k", "LIST", "numbers of neighbours", "10,20,100,200")
      .value("temperature", "T", "of the votes' weights e^(similarity/T)", "0.07")
      .example("bireme evaluate knn --model runs/first --train fashion-train --test fashion-test")
      .example(
          "mpirun -n 2 bireme evaluate knn --model pixels --train fashion-train --test fashion-test --k 20 "
          "--json");
  if (!options.parse(arguments)) return 0;
  KnnOptions knn{.neighbors = {}, .temperature = options.number("temperature", 1e-3, 100)};
  for (const std::int64_t k : options.integers("k", 1, 1000000)) knn.neighbors.push_back(static_cast<int>(k));
  return run_job([&](Communicator& world) {
    const Evaluation evaluation(options.text("model"), world);
    const LabeledFeatures train = evaluation.features(options.text("train")),
                          test = evaluation.features(options.text("test"));
    const std::vector<KnnResult> results = evaluate_knn(evaluation.backend(), world, train, test, knn);
    if (world.rank() != 0) return 0;
    nlohmann::ordered_json json{{"model", options.text("model")},
                                {"train_records", train.labels.size()},
                                {"test_records", test.labels.size()},
                                {"results", nlohmann::ordered_json::array()}};
    for (const KnnResult& result : results) {
      json["results"].push_back({{"k", result.neighbors}, {"top1", result.top1}, {"top5", result.top5}});
      if (!options.json())
        fmt::print("{:>4}-NN  top-1 {:6.2f} %  top-5 {:6.2f} %\n", result.neighbors, 100 * result.top1,
                   100 * result.top5);
    }
    if (options.json()) fmt::print("{}\n", json_text(json));
    return 0;
  });
}

int run_linear(Arguments arguments) {
  Options options("bireme evaluate linear",
                  "trains linear classifiers on frozen features, one for each learning rate");
  with_datasets(options)
      .value("blocks", "N", "class tokens of the last N blocks, side by side", "4")
      .value("epochs", "N", "passes over the features", "100")
      .value("batch-size", "N", "records of a step", "256")
      .value("learning-rates", "LIST", "one probe each", "0.001,0.01,0.1")
      .example(
          "bireme evaluate linear --model runs/first --train fashion-train --test fashion-test --epochs 20")
      .example("bireme evaluate linear --model pixels --train fashion-train --test fashion-test --json");
  if (!options.parse(arguments)) return 0;
  const LinearProbeOptions probe{.epochs = static_cast<int>(options.integer("epochs", 1, 100000)),
                                 .batch_size = options.integer("batch-size", 1, 1 << 20)};
  std::vector<double> rates;
  for (const std::string& word : split_list(options.text("learning-rates"))) {
    const std::optional<double> rate = parse_number(word);
    if (!rate || *rate <= 0)
      throw Error(ErrorKind::usage, fmt::format("`{}` is no learning rate", word), "--learning-rates",
                  "give numbers above 0, such as 0.01,0.1");
    rates.push_back(*rate);
  }
  return run_job([&](Communicator& world) {
    const Evaluation evaluation(options.text("model"), world);
    const int blocks = static_cast<int>(options.integer("blocks", 1, 1000));
    const LabeledFeatures train = evaluation.last_blocks(options.text("train"), blocks);
    const LabeledFeatures test = evaluation.last_blocks(options.text("test"), blocks);
    const std::vector<ProbeResult> results =
        sweep_linear_probe(evaluation.backend(), world, train, test, rates, probe);
    if (world.rank() != 0) return 0;
    nlohmann::ordered_json json{{"model", options.text("model")},
                                {"features", train.features.channels()},
                                {"accuracy", results.front().accuracy},
                                {"results", nlohmann::ordered_json::array()}};
    for (const ProbeResult& result : results) {
      json["results"].push_back({{"learning_rate", result.learning_rate}, {"accuracy", result.accuracy}});
      if (!options.json())
        fmt::print("learning rate {:<8} accuracy {:6.2f} %\n", result.learning_rate, 100 * result.accuracy);
    }
    if (options.json()) fmt::print("{}\n", json_text(json));
    return 0;
  });
}

}  // namespace

int run_evaluate(Arguments arguments) {
  static constexpr Command list[] = {
      {"knn", "weighted nearest neighbours of class-token features", run_knn},
      {"linear", "linear probe on class-token features", run_linear},
      {"perplexity", "how well a language model predicts a text", run_perplexity},
      {"ranking", "how often a language model finds the preferred answer more likely", run_ranking},
      {"win-rate", "how often judges prefer a model's answers to another's", run_win_rate},
  };
  return dispatch("bireme evaluate", "measures what was learnt", list, arguments);
}

}  // namespace bireme

#include "launch/commands/bench.h"

#include <omp.h>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/cpu/cpu_backend.h"
#include "core/data/dataset.h"
#include "core/data/loader.h"
#include "distributed/communicator.h"
#include "launch/dino_options.h"
#include "launch/job.h"
#include "launch/matrix_peak.h"
#include "launch/options.h"
#include "launch/terminal.h"

namespace bireme {

using Json = nlohmann::ordered_json;

namespace {

struct NamedProduct {
  std::string name;
  cpu::Product product;
};

/// What a block of a vision transformer multiplies, forward and for the gradients of its weights. R rows,
/// width D.
std::vector<NamedProduct> step_products(std::int64_t r, std::int64_t d, DType type) {
  const auto forward = [&](std::int64_t n, std::int64_t k) {
    return cpu::Product{.m = r, .n = n, .k = k, .transpose_b = true, .input = type, .output = type};
  };
  const auto weight = [&](std::int64_t n, std::int64_t k) {
    return cpu::Product{.m = n, .n = k, .k = r, .transpose_a = true, .accumulate = true, .input = type};
  };
  return {{"query, key, value", forward(3 * d, d)},
          {"attention output", forward(d, d)},
          {"MLP up", forward(4 * d, d)},
          {"MLP down", forward(d, 4 * d)},
          {"MLP weight gradient", weight(4 * d, d)}};
}

int run_bench_gemm(Arguments arguments) {
  Options options(
      "bireme bench gemm",
      "measures the matrix products of a training step and a square one; the peak is the best of them");
  options.value("rows", "R", "rows: pictures times tokens", "1576")
      .value("width", "D", "channels of the model", "384")
      .value("square", "N", "side of the square product", "1536")
      .example("bireme bench gemm")
      .example("OMP_NUM_THREADS=1 bireme bench gemm --width 768 --json");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;
  const std::int64_t rows = options.integer("rows", 1, 1 << 20), width = options.integer("width", 1, 1 << 14),
                     side = options.integer("square", 64, 1 << 14);

  const std::unique_ptr<Backend> backend = make_cpu_backend(make_host_memory());
  const cpu::MatrixProducts products;
  std::vector<DType> types = {DType::f32};
  if (backend->has_fast_bf16()) types.push_back(DType::bf16);
  Json result = {{"threads", omp_get_max_threads()}, {"products", Json::array()}};
  for (const DType type : types) {
    const cpu::Product square{.m = side, .n = side, .k = side, .input = type, .output = type};
    std::vector<NamedProduct> list = {{fmt::format("square {0} x {0}", side), square}};
    for (NamedProduct& product : step_products(rows, width, type)) list.push_back(std::move(product));
    std::vector<double> rates;
    rates.reserve(list.size());
    for (const NamedProduct& product : list)
      rates.push_back(product_rate(products, product.product, backend->memory(), 0.3));
    // The best rate of any product measured here: what this machine was seen to do.
    const double peak = *std::max_element(rates.begin(), rates.end());
    for (std::size_t i = 0; i < list.size(); ++i) {
      result["products"].push_back({{"precision", type == DType::f32 ? "fp32" : "bf16"},
                                    {"name", list[i].name},
                                    {"gflops", rates[i] / 1e9},
                                    {"fraction_of_peak", rates[i] / peak}});
    }
  }
  if (options.json()) {
    fmt::print("{}\n", json_text(result));
    return 0;
  }
  fmt::print("{} threads; the peak is the best of each precision\n", omp_get_max_threads());
  for (const Json& p : result["products"])
    fmt::print("  {}  {:<22} {:8.1f} GFLOP/s  {:4.0f} % of peak\n", p["precision"].get<std::string>(),
               p["name"].get<std::string>(), p["gflops"].get<double>(),
               100 * p["fraction_of_peak"].get<double>());
  return 0;
}

int run_bench_allreduce(Arguments arguments) {
  Options options("bireme bench allreduce", "measures a sum over all ranks against the MPI library's own");
  options.value("bytes", "N", "size of the buffer, a multiple of 4", "67108864")
      .example("mpirun -n 2 bireme bench allreduce")
      .example("mpirun -n 4 bireme bench allreduce --bytes 4194304 --json");
  if (!options.parse(arguments)) return 0;
  const std::int64_t bytes = options.integer("bytes", 4, std::int64_t{1} << 36) / 4 * 4;
  return run_job([&](Communicator& world) {
    if (world.size() == 1)
      throw Error(ErrorKind::usage, "one rank has nobody to sum with", "bireme bench allreduce",
                  "start several: mpirun -n 2 bireme bench allreduce");
    const AllReduceRate rate = measure_all_reduce(world, bytes);
    if (world.rank() != 0) return 0;
    const double ratio =
        rate.library_bytes_per_second > 0 ? rate.bytes_per_second / rate.library_bytes_per_second : 0;
    if (options.json()) {
      const Json result = {{"ranks", world.size()},
                           {"bytes", bytes},
                           {"gigabytes_per_second", rate.bytes_per_second / 1e9},
                           {"mpi_gigabytes_per_second", rate.library_bytes_per_second / 1e9},
                           {"ratio", ratio}};
      fmt::print("{}\n", json_text(result));
    } else {
      fmt::print("{} over {} ranks: {:.2f} GB/s; MPI_Allreduce {:.2f} GB/s; ratio {:.2f}\n",
                 readable_bytes(bytes), world.size(), rate.bytes_per_second / 1e9,
                 rate.library_bytes_per_second / 1e9, ratio);
    }
    return 0;
  });
}

int run_bench_loader(Arguments arguments) {
  Options options("bireme bench loader",
                  "measures how fast pictures are read, decoded and cropped for training");
  options.required("data", "DATASET", "dataset of pictures")
      .value("config", "FILE", "configuration whose crops and batch size are taken")
      .value("seconds", "S", "how long to measure", "2")
      .configuration(configuration_keys())
      .example("bireme bench loader --data data/fashion-train")
      .example("bireme bench loader --data data/photos --config configs/vit_small_224.toml --data.workers 4");
  if (!options.parse(arguments)) return 0;
  if (launched_as().rank != 0) return 0;
  const std::filesystem::path file = options.has("config") ? options.path("config") : std::filesystem::path();
  const Configuration configuration = load_configuration(file, options.overrides());
  const Dataset dataset = Dataset::open(options.path("data"));
  const std::int64_t wanted = configuration.data.workers;
  const int workers = static_cast<int>(wanted > 0 ? wanted : omp_get_max_threads());
  ImageLoader loader({.workers = workers}, multi_crop_options(configuration, dataset),
                     Sampler({.records = dataset.records(),
                              .batch_size = std::min(configuration.data.batch_size, dataset.records())}),
                     {.read = [&](std::int64_t i) { return dataset.read(i); },
                      .name = [&](std::int64_t i) { return dataset.place(i); }},
                     make_host_memory());
  const LoaderRate rate = measure_loader(loader, options.number("seconds", 0.01, 3600));
  if (options.json()) {
    const Json result = {{"workers", workers},
                         {"pictures_per_second", rate.pictures_per_second},
                         {"microseconds_per_picture", rate.microseconds_per_picture}};
    fmt::print("{}\n", json_text(result));
  } else {
    fmt::print("{} workers: {:.0f} pictures/s, {:.0f} µs of processor time a picture with all its crops\n",
               workers, rate.pictures_per_second, rate.microseconds_per_picture);
  }
  return 0;
}

}  // namespace

int run_bench(Arguments arguments) {
  static constexpr Command list[] = {
      {"gemm", "matrix products of a training step", run_bench_gemm},
      {"step", "whole training steps, on made-up data", run_bench_step},
      {"decode", "writing of text, token by token", run_bench_decode},
      {"allreduce", "sum over ranks, against the MPI library's", run_bench_allreduce},
      {"loader", "reading, decoding and cropping of pictures", run_bench_loader},
  };
  return dispatch("bireme bench", "measures this machine at what training needs of it", list, arguments);
}

}  // namespace bireme

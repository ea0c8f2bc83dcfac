#include "distributed/communicator.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>

#include "core/base/log.h"
#include "distributed/mpi_communicator.h"

namespace bireme {

Work& Work::operator=(Work&& other) noexcept {
  std::swap(pending_, other.pending_);
  return *this;
}

Work::~Work() {
  if (pending_ == nullptr || std::uncaught_exceptions() > 0) return;
  log_error("nobody waited for {}", pending_->name());
  assert(!"work destroyed before wait()");
}

void Work::wait() {
  if (const auto pending = std::exchange(pending_, nullptr)) pending->wait();
}

Communicator::Communicator() : scratch_(make_host_memory()) {}

void Communicator::beat() const {
  if (const auto known = activity()) known->roster().beat();
}

double Communicator::all_reduce_value(double value, Reduce reduce) {
  const Tensor tensor(*scratch_, {1}, DType::f64);
  *tensor.data<double>() = value;
  all_reduce(tensor, reduce).wait();
  return *tensor.data<double>();
}

std::vector<std::string> Communicator::gather_text(const std::string& text) {
  const Tensor length(*scratch_, {1}, DType::i64), lengths(*scratch_, {size()}, DType::i64);
  *length.data<std::int64_t>() = static_cast<std::int64_t>(text.size());
  all_gather(length, lengths).wait();
  const auto sizes = lengths.values<std::int64_t>();
  const std::int64_t longest = *std::max_element(sizes.begin(), sizes.end());
  if (longest == 0) return std::vector<std::string>(static_cast<std::size_t>(size()));
  const Tensor own(*scratch_, {longest}, DType::u8), all(*scratch_, {size(), longest}, DType::u8);
  std::memset(own.raw(), 0, own.bytes());
  std::memcpy(own.raw(), text.data(), text.size());
  all_gather(own, all).wait();
  std::vector<std::string> texts;
  texts.reserve(sizes.size());
  for (int rank = 0; rank < size(); ++rank) {
    texts.emplace_back(reinterpret_cast<const char*>(all.raw()) + rank * longest,
                       static_cast<std::size_t>(sizes[static_cast<std::size_t>(rank)]));
  }
  return texts;
}

std::string Communicator::broadcast_text(const std::string& text, int root) {
  const Tensor length(*scratch_, {1}, DType::i64);
  *length.data<std::int64_t>() = static_cast<std::int64_t>(text.size());
  broadcast(length, root).wait();
  const std::int64_t bytes = *length.data<std::int64_t>();
  if (bytes == 0) return {};
  const Tensor characters(*scratch_, {bytes}, DType::u8);
  if (rank() == root) std::memcpy(characters.raw(), text.data(), text.size());
  broadcast(characters, root).wait();
  return {reinterpret_cast<const char*>(characters.raw()), static_cast<std::size_t>(bytes)};
}

namespace {

class SingleProcess final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  Work all_reduce(const Tensor&, Reduce) override { return {}; }
  Work reduce_scatter(const Tensor& in, const Tensor& out, Reduce) override { return move(in, out); }
  Work all_gather(const Tensor& in, const Tensor& out) override { return move(in, out); }
  Work broadcast(const Tensor&, int) override { return {}; }
  void barrier() override {}
  std::unique_ptr<Communicator> split(int, int) override { return make_single_process(); }
  Placement placement() const override {
    std::array<char, 256> host{};
    gethostname(host.data(), host.size() - 1);
    return {.host = host.data()};
  }
  [[noreturn]] void abort(int exit_code) override {
    std::fflush(nullptr);
    _exit(exit_code);
  }

 private:
  static Work move(const Tensor& in, const Tensor& out) {
    if (in.raw() != out.raw()) copy(in, out);
    return {};
  }
};

}  // namespace

std::unique_ptr<Communicator> make_single_process() { return std::make_unique<SingleProcess>(); }

std::unique_ptr<Communicator> connect(const ConnectOptions& options) {
  return is_launched_by_mpi() ? make_queued(join_mpi(options.ranks_per_host)) : make_single_process();
}

AllReduceRate measure_all_reduce(Communicator& communicator, std::int64_t bytes) {
  using Clock = std::chrono::steady_clock;
  constexpr int kWarmUp = 2, kRepeats = 10;
  const auto memory = make_host_memory();
  const Tensor tensor(*memory, {std::max<std::int64_t>(1, bytes / 4)}, DType::f32);
  fill(tensor, 0);  // the sum of zeros stays finite in any number of repeats
  AllReduceRate best;
  const auto time = [&](auto&& run, double& rate) {
    communicator.barrier();
    const auto start = Clock::now();
    run();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const double slowest = communicator.all_reduce_value(seconds, Reduce::max);
    rate = std::max(rate, static_cast<double>(tensor.bytes()) / slowest);
  };
  bool has_library = true;
  for (int i = 0; i < kWarmUp + kRepeats; ++i) {
    if (i == kWarmUp) best = {};
    time([&] { communicator.all_reduce(tensor, Reduce::sum).wait(); }, best.bytes_per_second);
    if (!has_library) continue;
    time([&] { has_library = communicator.library_all_reduce(tensor); }, best.library_bytes_per_second);
  }
  if (!has_library) best.library_bytes_per_second = 0;
  return best;
}

}  // namespace bireme

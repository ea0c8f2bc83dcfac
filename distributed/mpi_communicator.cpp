#include "distributed/mpi_communicator.h"

#include <mpi.h>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/base/owned.h"
#include "distributed/shared_memory.h"

namespace bireme {

namespace {

constexpr std::int64_t kPiece = 1 << 20;                // stays in cache between the three steps
constexpr auto kAbortBudget = std::chrono::seconds(5);  // MPI_Abort itself can hang

struct MpiCommTraits {
  using Handle = MPI_Comm;
  static Handle null() noexcept { return MPI_COMM_NULL; }
  static void close(Handle comm) noexcept { MPI_Comm_free(&comm); }
};
using MpiComm = Owned<MpiCommTraits>;

void mpi_check(int code, const char* attempt) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error(
      ErrorKind::rank_lost,
      fmt::format("MPI could not {} ({})", attempt, std::string(text, static_cast<std::size_t>(length))), "",
      "see the output of the other ranks for the first error");
}

std::optional<int> environment_number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? std::nullopt : std::optional<int>(std::atoi(text));
}

/// MPI between its start and its end.
class Session {
 public:
  Session() {
    int provided = 0;
    mpi_check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "start");
    if (provided < MPI_THREAD_MULTIPLE) {
      throw Error(ErrorKind::other, "this MPI cannot be called from several threads", "MPI_Init_thread",
                  "use an MPI built with MPI_THREAD_MULTIPLE, such as Open MPI 4");
    }
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  // A rank that finalises while others are in a collective leaves them waiting for ever; one that exits
  // without finalising is noticed by the launcher, which ends the job.
  ~Session() {
    if (std::uncaught_exceptions() == 0) MPI_Finalize();
  }
};

MpiComm split(MPI_Comm comm, int color, int key) {
  MPI_Comm part = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split(comm, color, key, &part), "split a communicator");
  if (part != MPI_COMM_NULL) MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN);
  return MpiComm(part);
}

int rank_in(MPI_Comm comm) {
  int rank = 0;
  mpi_check(MPI_Comm_rank(comm, &rank), "tell the rank");
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 0;
  mpi_check(MPI_Comm_size(comm, &size), "tell the number of ranks");
  return size;
}

/// What all communicators of a rank share.
struct Job {
  std::shared_ptr<Session> session;
  std::shared_ptr<const Roster> roster;
  int host = 0;  ///< the lowest world rank on this host
};

class MpiTransport final : public Transport {
 public:
  MpiTransport(Job job, MpiComm comm, const std::string& name);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void all_reduce(const Elements& inout, Reduce reduce) override;
  void reduce_scatter(const Elements& in, const Elements& out, Reduce reduce) override;
  void all_gather(const Elements& in, const Elements& out) override;
  void broadcast(const Elements& inout, int root) override;
  void barrier() override;
  std::unique_ptr<Transport> split(int color, int key) override;
  Placement placement() const override { return local_->placement(); }
  std::shared_ptr<const Activity> activity() const override { return local_->activity(); }
  bool library_all_reduce(const Elements& inout) override;
  [[noreturn]] void abort(int exit_code) override;

 private:
  void reduce_between_hosts(const Elements& piece, Reduce reduce);
  /// Sends share `peer` of `send_` to each peer; the shares received, in order of rank, are reduced into
  /// `out`.
  void exchange_and_reduce(MPI_Comm comm, const Elements& out, Reduce reduce);

  Job job_;  // first, so that MPI ends after all that needs it
  MpiComm comm_;
  std::string name_;
  int rank_, size_;
  MpiComm leaders_;  // the first ranks of the hosts; null on other ranks
  std::unique_ptr<SharedMemoryTransport> local_;
  int splits_ = 0;
  std::vector<std::byte> send_, receive_;
};

MpiTransport::MpiTransport(Job job, MpiComm comm, const std::string& name)
    : job_(std::move(job)),
      comm_(std::move(comm)),
      name_(name),
      rank_(rank_in(comm_.get())),
      size_(size_of(comm_.get())) {
  const MpiComm host = bireme::split(comm_.get(), job_.host, rank_);
  const int local_rank = rank_in(host.get()), local_size = size_of(host.get());
  leaders_ = bireme::split(comm_.get(), local_rank == 0 ? 0 : MPI_UNDEFINED, rank_);
  local_ = std::make_unique<SharedMemoryTransport>(
      SharedMemoryTransport::Options{.name = fmt::format("{}.host{}", name, job_.host),
                                     .rank = local_rank,
                                     .size = local_size,
                                     .roster = job_.roster,
                                     .has_other_hosts = local_size < size_});
}

void MpiTransport::all_reduce(const Elements& inout, Reduce reduce) {
  if (local_->size() == size_) return local_->all_reduce(inout, reduce);
  const std::int64_t most = kPiece / static_cast<std::int64_t>(bireme::size_of(inout.type));
  for (std::int64_t begin = 0; begin < inout.count; begin += most) {
    const Elements piece = inout.slice(begin, std::min(most, inout.count - begin));
    local_->all_reduce(piece, reduce);
    if (leaders_) reduce_between_hosts(piece, reduce);
    local_->broadcast(piece, 0);
  }
}

void MpiTransport::reduce_between_hosts(const Elements& piece, Reduce reduce) {
  const int hosts = size_of(leaders_.get());
  const std::int64_t share = (piece.count + hosts - 1) / hosts;
  const Elements own{.data = nullptr, .count = share, .type = piece.type};
  send_.resize(static_cast<std::size_t>(hosts * own.bytes()));  // the last share may be padded
  std::memcpy(send_.data(), piece.data, static_cast<std::size_t>(piece.bytes()));
  std::vector<std::byte> reduced(static_cast<std::size_t>(own.bytes()));
  exchange_and_reduce(leaders_.get(), {.data = reduced.data(), .count = share, .type = piece.type}, reduce);
  mpi_check(MPI_Allgather(reduced.data(), static_cast<int>(own.bytes()), MPI_BYTE, send_.data(),
                          static_cast<int>(own.bytes()), MPI_BYTE, leaders_.get()),
            "gather between hosts");
  std::memcpy(piece.data, send_.data(), static_cast<std::size_t>(piece.bytes()));
}

void MpiTransport::exchange_and_reduce(MPI_Comm comm, const Elements& out, Reduce reduce) {
  const int peers = size_of(comm);
  receive_.resize(send_.size());
  mpi_check(MPI_Alltoall(send_.data(), static_cast<int>(out.bytes()), MPI_BYTE, receive_.data(),
                         static_cast<int>(out.bytes()), MPI_BYTE, comm),
            "exchange pieces between ranks");
  std::vector<const std::byte*> sources;
  sources.reserve(static_cast<std::size_t>(peers));
  for (int peer = 0; peer < peers; ++peer) sources.push_back(receive_.data() + peer * out.bytes());
  reduce_in_order(sources, out, reduce);
}

void MpiTransport::reduce_scatter(const Elements& in, const Elements& out, Reduce reduce) {
  if (local_->size() == size_) return local_->reduce_scatter(in, out, reduce);
  const std::int64_t most =
      std::max<std::int64_t>(1, kPiece / static_cast<std::int64_t>(bireme::size_of(in.type)) / size_);
  for (std::int64_t begin = 0; begin < out.count; begin += most) {
    const Elements piece = out.slice(begin, std::min(most, out.count - begin));
    send_.resize(static_cast<std::size_t>(size_ * piece.bytes()));
    for (int peer = 0; peer < size_; ++peer) {
      const Elements from = in.slice(peer * out.count + begin, piece.count);
      std::memcpy(send_.data() + peer * piece.bytes(), from.data, static_cast<std::size_t>(piece.bytes()));
    }
    exchange_and_reduce(comm_.get(), piece, reduce);
  }
}

void MpiTransport::all_gather(const Elements& in, const Elements& out) {
  if (local_->size() == size_) return local_->all_gather(in, out);
  const std::int64_t most =
      std::max<std::int64_t>(1, kPiece / static_cast<std::int64_t>(bireme::size_of(in.type)) / size_);
  for (std::int64_t begin = 0; begin < in.count; begin += most) {
    const Elements piece = in.slice(begin, std::min(most, in.count - begin));
    receive_.resize(static_cast<std::size_t>(size_ * piece.bytes()));
    mpi_check(MPI_Allgather(piece.data, static_cast<int>(piece.bytes()), MPI_BYTE, receive_.data(),
                            static_cast<int>(piece.bytes()), MPI_BYTE, comm_.get()),
              "gather from all ranks");
    for (int peer = 0; peer < size_; ++peer) {
      const Elements to = out.slice(peer * in.count + begin, piece.count);
      std::memcpy(to.data, receive_.data() + peer * piece.bytes(), static_cast<std::size_t>(piece.bytes()));
    }
  }
}

void MpiTransport::broadcast(const Elements& inout, int root) {
  if (local_->size() == size_) return local_->broadcast(inout, root);
  const std::int64_t most = kPiece / static_cast<std::int64_t>(bireme::size_of(inout.type));
  for (std::int64_t begin = 0; begin < inout.count; begin += most) {
    const Elements piece = inout.slice(begin, std::min(most, inout.count - begin));
    mpi_check(MPI_Bcast(piece.data, static_cast<int>(piece.bytes()), MPI_BYTE, root, comm_.get()),
              "broadcast");
  }
}

void MpiTransport::barrier() {
  if (local_->size() == size_) return local_->barrier();
  mpi_check(MPI_Barrier(comm_.get()), "wait for all ranks");
}

std::unique_ptr<Transport> MpiTransport::split(int color, int key) {
  return std::make_unique<MpiTransport>(job_, bireme::split(comm_.get(), color, key),
                                        fmt::format("{}.{}.{}", name_, splits_++, color));
}

bool MpiTransport::library_all_reduce(const Elements& inout) {
  if (inout.type != DType::f32) return false;
  mpi_check(
      MPI_Allreduce(MPI_IN_PLACE, inout.data, static_cast<int>(inout.count), MPI_FLOAT, MPI_SUM, comm_.get()),
      "reduce over all ranks");
  return true;
}

void MpiTransport::abort(int exit_code) {
  job_.roster->announce_end();
  std::fflush(nullptr);
  std::thread([exit_code] { MPI_Abort(MPI_COMM_WORLD, exit_code); }).detach();
  std::this_thread::sleep_for(kAbortBudget);
  _exit(exit_code);
}

/// Launchers without MPI's knowledge start so many single processes, all of which would write to the same
/// folder.
void require_agreement(int size) {
  const auto launched = environment_number("OMPI_COMM_WORLD_SIZE");
  const auto expected = launched ? launched : environment_number("SLURM_STEP_NUM_TASKS");
  if (!expected || *expected == size) return;
  throw Error(ErrorKind::usage,
              fmt::format("the launcher started {} tasks, but MPI knows of {}", *expected, size),
              launched ? "OMPI_COMM_WORLD_SIZE" : "SLURM_STEP_NUM_TASKS",
              "start with mpirun of the MPI that bireme was built with, or with srun --mpi=pmix");
}

std::string draw_job_name(MPI_Comm comm) {
  std::uint64_t id = 0;
  if (rank_in(comm) == 0) {
    std::random_device random;
    id = std::uint64_t{random()} << 32 | random();
  }
  mpi_check(MPI_Bcast(&id, 1, MPI_UINT64_T, 0, comm), "agree on a name for the job");
  return fmt::format("/bireme-{:016x}", id);
}

MpiComm ranks_of_this_host(MPI_Comm comm, int ranks_per_host) {
  if (ranks_per_host > 0) return split(comm, rank_in(comm) / ranks_per_host, rank_in(comm));
  MPI_Comm host = MPI_COMM_NULL;
  mpi_check(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank_in(comm), MPI_INFO_NULL, &host),
            "find the ranks of this host");
  MPI_Comm_set_errhandler(host, MPI_ERRORS_RETURN);
  return MpiComm(host);
}

}  // namespace

bool is_launched_by_mpi() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  // SLURM_PROCID and SLURM_NTASKS are also set where Slurm starts one process only; a step's tasks are srun's
  // doing.
  const auto tasks = environment_number("SLURM_STEP_NUM_TASKS");
  if (std::getenv("SLURM_STEP_ID") == nullptr || !tasks || *tasks <= 1) return false;
  throw Error(ErrorKind::usage, fmt::format("srun started {} tasks that do not know of each other", *tasks),
              "SLURM_STEP_NUM_TASKS", "start with srun --mpi=pmix");
}

std::unique_ptr<Transport> join_mpi(int ranks_per_host) {
  Job job;
  job.session = std::make_shared<Session>();
  MpiComm world = split(MPI_COMM_WORLD, 0, rank_in(MPI_COMM_WORLD));
  require_agreement(size_of(world.get()));
  const std::string name = draw_job_name(world.get());
  const MpiComm host = ranks_of_this_host(world.get(), ranks_per_host);
  job.host = rank_in(world.get());
  mpi_check(MPI_Bcast(&job.host, 1, MPI_INT, 0, host.get()), "name this host");
  job.roster =
      std::make_shared<const Roster>(Roster::Options{.name = fmt::format("{}.roster{}", name, job.host),
                                                     .place = rank_in(host.get()),
                                                     .size = size_of(host.get()),
                                                     .world_rank = rank_in(world.get())});
  return std::make_unique<MpiTransport>(std::move(job), std::move(world), name);
}

}  // namespace bireme

#include "distributed/shared_memory.h"

#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "core/base/error.h"

namespace bireme {

namespace {

constexpr int kSlots = 3;  // one piece in each phase
// 64 MiB on 2 ranks, medians of 4 on a busy machine: 10 GB/s with 32 or 64 KiB, 13 with 128, 15 with 256 or
// 512, 14 with 1024.
constexpr std::int64_t kLargestSlot = 256 << 10;
constexpr std::int64_t kSmallestSlot = 16 << 10;
constexpr std::int64_t kSegmentBytes = 16 << 20;  // about; containers often have 64 MiB of /dev/shm in all
constexpr std::int64_t kHeaderBytes = 4096;
constexpr int kSpins = 2000;  // about 130 us on the machine measured: many times what a piece takes
constexpr int kSpinsWithoutOwnCore = 50;

std::int64_t choose_slot_bytes(int size) {
  const std::int64_t share = kSegmentBytes / (kSlots * size) / kHeaderBytes * kHeaderBytes;
  return std::clamp(share, kSmallestSlot, kLargestSlot);
}

void copy_bytes(std::byte* to, const std::byte* from, std::int64_t bytes) {
  if (to != from && bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

struct SharedMemoryTransport::Header {
  SharedCounter staged, combined, collected;
  Stamp stamp;
  std::atomic<int> place;  // in the roster
};

SharedMemoryTransport::SharedMemoryTransport(const Options& options)
    : options_(options),
      slot_bytes_(choose_slot_bytes(options.size)),
      segment_(std::make_shared<const SharedSegment>(
          SharedSegment::Options{.name = options.name,
                                 .part_bytes = static_cast<std::size_t>(kHeaderBytes + kSlots * slot_bytes_),
                                 .index = options.rank,
                                 .parts = options.size},
          [&](std::byte* part) { reinterpret_cast<Header*>(part)->place = options.roster->place(); })),
      sources_(static_cast<std::size_t>(options.size)) {
  static_assert(sizeof(Header) <= kHeaderBytes);
  std::vector<Activity::Member> members;
  members.reserve(sources_.size());
  for (int rank = 0; rank < size(); ++rank) {
    members.push_back({.rank = rank, .place = header(rank).place, .stamp = &header(rank).stamp});
  }
  activity_ = std::make_shared<const Activity>(Activity::Options{.memory = segment_,
                                                                 .roster = options.roster,
                                                                 .members = std::move(members),
                                                                 .self = options.rank,
                                                                 .has_other_hosts = options.has_other_hosts});
  spins_ = options_.roster->size() <= sysconf(_SC_NPROCESSORS_ONLN) ? kSpins : kSpinsWithoutOwnCore;
}

SharedMemoryTransport::Header& SharedMemoryTransport::header(int rank) const {
  return *reinterpret_cast<Header*>(segment_->part(rank));
}

std::byte* SharedMemoryTransport::slot(int rank, std::int64_t piece) const {
  return segment_->part(rank) + kHeaderBytes + (pieces_done_ + piece) % kSlots * slot_bytes_;
}

std::int64_t SharedMemoryTransport::elements_per_slot(DType type) const {
  return slot_bytes_ / static_cast<std::int64_t>(size_of(type));
}

void SharedMemoryTransport::wait_for_all(SharedCounter Header::*counter, std::uint32_t target) {
  for (int peer = 0; peer < size(); ++peer) {
    SharedCounter& count = header(peer).*counter;
    if (count.has_reached(target)) continue;
    count.wait(target, spins_, [&] { options_.roster->require_alive(header(peer).place); });
  }
}

void SharedMemoryTransport::run_pieces(std::int64_t pieces, const Phase& stage, const Phase& combine,
                                       const Phase& collect) {
  Header& own = header(rank());
  for (std::int64_t step = 0; step < pieces + 2; ++step) {
    const auto count = static_cast<std::uint32_t>(pieces_done_ + step);
    if (step < pieces) {
      wait_for_all(&Header::collected, count + 1 - kSlots);  // nobody reads this slot's last piece any more
      stage(step);
      own.staged.raise();
    }
    if (step >= 1 && step - 1 < pieces) {
      wait_for_all(&Header::staged, count);
      if (step == 1) activity_->require_same_operation();
      combine(step - 1);
      own.combined.raise();
    }
    if (step >= 2) {
      wait_for_all(&Header::combined, count - 1);
      collect(step - 2);
      own.collected.raise();
    }
  }
  pieces_done_ += pieces;
}

std::span<const std::byte* const> SharedMemoryTransport::sources(std::int64_t piece, std::int64_t offset,
                                                                 const std::byte* own) {
  for (int peer = 0; peer < size(); ++peer) {
    sources_[static_cast<std::size_t>(peer)] = peer == rank() ? own : slot(peer, piece) + offset;
  }
  return sources_;
}

void SharedMemoryTransport::all_reduce(const Elements& inout, Reduce reduce) {
  if (size() == 1) return;
  const std::int64_t most = elements_per_slot(inout.type);
  const auto piece_of = [&](std::int64_t piece) {
    return inout.slice(piece * most, std::min(most, inout.count - piece * most));
  };
  // Part `rank` of a piece is reduced by that rank; it has the same place in the piece and in every slot.
  const auto part_begin = [&](const Elements& piece, int part) { return piece.count * part / size(); };
  const auto part_of = [&](const Elements& piece, int part) {
    return piece.slice(part_begin(piece, part), part_begin(piece, part + 1) - part_begin(piece, part));
  };
  const auto stage = [&](std::int64_t i) {
    const Elements piece = piece_of(i), own = part_of(piece, rank());
    const std::int64_t before = own.data - piece.data, after = before + own.bytes();
    copy_bytes(slot(rank(), i), piece.data, before);
    copy_bytes(slot(rank(), i) + after, piece.data + after, piece.bytes() - after);
  };
  const auto combine = [&](std::int64_t i) {
    const Elements piece = piece_of(i), own = part_of(piece, rank());
    const std::int64_t offset = own.data - piece.data;
    reduce_in_order(sources(i, offset, own.data), own, reduce);
    copy_bytes(slot(rank(), i) + offset, own.data, own.bytes());
  };
  const auto collect = [&](std::int64_t i) {
    const Elements piece = piece_of(i);
    for (int peer = 0; peer < size(); ++peer) {
      const Elements part = part_of(piece, peer);
      if (peer != rank()) copy_bytes(part.data, slot(peer, i) + (part.data - piece.data), part.bytes());
    }
  };
  run_pieces(std::max<std::int64_t>(1, ceil_divide(inout.count, most)), stage, combine, collect);
}

void SharedMemoryTransport::reduce_scatter(const Elements& in, const Elements& out, Reduce reduce) {
  const std::int64_t most = std::max<std::int64_t>(1, elements_per_slot(in.type) / size());
  const std::int64_t stride = most * static_cast<std::int64_t>(size_of(in.type));  // of the shares in a slot
  const auto piece_of = [&](const Elements& share, std::int64_t i) {
    return share.slice(i * most, std::min(most, out.count - i * most));
  };
  const auto share_of = [&](int peer) { return in.slice(peer * out.count, out.count); };
  const auto stage = [&](std::int64_t i) {
    for (int peer = 0; peer < size(); ++peer) {
      const Elements piece = piece_of(share_of(peer), i);
      if (peer != rank()) copy_bytes(slot(rank(), i) + peer * stride, piece.data, piece.bytes());
    }
  };
  const auto combine = [&](std::int64_t i) {
    reduce_in_order(sources(i, rank() * stride, piece_of(share_of(rank()), i).data), piece_of(out, i),
                    reduce);
  };
  run_pieces(std::max<std::int64_t>(1, ceil_divide(out.count, most)), stage, combine, [](std::int64_t) {});
}

void SharedMemoryTransport::all_gather(const Elements& in, const Elements& out) {
  const std::int64_t most = elements_per_slot(in.type);
  const auto piece_of = [&](const Elements& share, std::int64_t i) {
    return share.slice(i * most, std::min(most, in.count - i * most));
  };
  const auto combine = [&](std::int64_t i) {
    const Elements piece = piece_of(in, i);
    copy_bytes(slot(rank(), i), piece.data, piece.bytes());
    copy_bytes(piece_of(out.slice(rank() * in.count, in.count), i).data, piece.data, piece.bytes());
  };
  const auto collect = [&](std::int64_t i) {
    for (int peer = 0; peer < size(); ++peer) {
      const Elements piece = piece_of(out.slice(peer * in.count, in.count), i);
      if (peer != rank()) copy_bytes(piece.data, slot(peer, i), piece.bytes());
    }
  };
  run_pieces(
      std::max<std::int64_t>(1, ceil_divide(in.count, most)), [](std::int64_t) {}, combine, collect);
}

void SharedMemoryTransport::broadcast(const Elements& inout, int root) {
  if (size() == 1) return;
  const std::int64_t most = elements_per_slot(inout.type);
  const auto piece_of = [&](std::int64_t i) {
    return inout.slice(i * most, std::min(most, inout.count - i * most));
  };
  const auto combine = [&](std::int64_t i) {
    if (rank() == root) copy_bytes(slot(root, i), piece_of(i).data, piece_of(i).bytes());
  };
  const auto collect = [&](std::int64_t i) {
    if (rank() != root) copy_bytes(piece_of(i).data, slot(root, i), piece_of(i).bytes());
  };
  run_pieces(
      std::max<std::int64_t>(1, ceil_divide(inout.count, most)), [](std::int64_t) {}, combine, collect);
}

void SharedMemoryTransport::barrier() {
  const auto nothing = [](std::int64_t) {};
  run_pieces(1, nothing, nothing, nothing);
}

std::unique_ptr<Transport> SharedMemoryTransport::split(int color, int key) {
  struct Choice {
    std::int32_t color, key;
  };
  Choice own{color, key};
  std::vector<Choice> choices(static_cast<std::size_t>(size()));
  all_gather({.data = reinterpret_cast<std::byte*>(&own), .count = 2, .type = DType::i32},
             {.data = reinterpret_cast<std::byte*>(choices.data()), .count = 2 * size(), .type = DType::i32});
  int members = 0, before = 0;
  for (int peer = 0; peer < size(); ++peer) {
    const Choice& other = choices[static_cast<std::size_t>(peer)];
    if (other.color != color) continue;
    ++members;
    if (other.key < key || (other.key == key && peer < rank())) ++before;
  }
  return std::make_unique<SharedMemoryTransport>(
      Options{.name = fmt::format("{}.{}.{}", options_.name, splits_++, color),
              .rank = before,
              .size = members,
              .roster = options_.roster});
}

Placement SharedMemoryTransport::placement() const {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return {.host = host.data(), .local_rank = options_.roster->place(), .local_size = options_.roster->size()};
}

void SharedMemoryTransport::abort(int exit_code) {
  // Nobody launched us, so nobody else ends the others: they notice the end of this process.
  std::fflush(nullptr);
  _exit(exit_code);
}

std::unique_ptr<Transport> join_shared_memory(const std::string& name, int rank, int size) {
  auto roster = std::make_shared<const Roster>(
      Roster::Options{.name = name + ".roster", .place = rank, .size = size, .world_rank = rank});
  return std::make_unique<SharedMemoryTransport>(
      SharedMemoryTransport::Options{.name = name, .rank = rank, .size = size, .roster = std::move(roster)});
}

}  // namespace bireme

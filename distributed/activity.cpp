#include "distributed/activity.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

#include "core/base/error.h"

namespace bireme {

namespace {

const char* to_string(Collective collective) {
  switch (collective) {
    case Collective::none: return "nothing";
    case Collective::all_reduce: return "all_reduce";
    case Collective::reduce_scatter: return "reduce_scatter";
    case Collective::all_gather: return "all_gather";
    case Collective::broadcast: return "broadcast";
    case Collective::barrier: return "barrier";
    case Collective::split: return "split";
  }
  return "unknown";
}

std::string bytes_text(std::int64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  if (bytes < 1 << 20) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / 1024);
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

}  // namespace

std::uint64_t Operation::packed() const {
  return std::uint64_t{static_cast<std::uint8_t>(collective)} << 56 |
         std::uint64_t{static_cast<std::uint8_t>(type)} << 48 |
         std::uint64_t{static_cast<std::uint8_t>(reduce)} << 40 |
         (static_cast<std::uint64_t>(bytes) & 0xffffffffffULL);
}

Operation Operation::unpack(std::uint64_t packed) {
  return {.collective = static_cast<Collective>(packed >> 56 & 0xff),
          .type = static_cast<DType>(packed >> 48 & 0xff),
          .reduce = static_cast<Reduce>(packed >> 40 & 0xff),
          .bytes = static_cast<std::int64_t>(packed & 0xffffffffffULL)};
}

std::string to_string(const Operation& operation) {
  switch (operation.collective) {
    case Collective::none:
    case Collective::barrier:
    case Collective::split: return to_string(operation.collective);
    case Collective::all_reduce:
    case Collective::reduce_scatter:
      return fmt::format("{} of {} ({}, {})", to_string(operation.collective), bytes_text(operation.bytes),
                         to_string(operation.type), to_string(operation.reduce));
    case Collective::all_gather:
    case Collective::broadcast:
      return fmt::format("{} of {}", to_string(operation.collective), bytes_text(operation.bytes));
  }
  return "unknown";
}

void Activity::begin(const Operation& operation) const {
  Stamp& stamp = *self().stamp;
  stamp.operation = operation.packed();
  stamp.since_seconds = steady_seconds();
  stamp.sequence.fetch_add(1);
  roster().beat();
}

void Activity::end() const {
  self().stamp->since_seconds = 0;
  roster().beat();
}

double Activity::last_news_seconds() const {
  const Stamp& own = *self().stamp;
  double news = own.since_seconds;
  for (const Member& member : members()) {
    const double arrival = member.stamp->since_seconds;
    const bool is_inside = member.stamp->sequence >= own.sequence && arrival != 0;
    news = std::max(news, is_inside ? arrival : roster().last_beat_seconds(member.place));
  }
  return news;
}

void Activity::require_same_operation() const {
  const Stamp& own = *self().stamp;
  for (const Member& member : members()) {
    if (member.stamp->operation == own.operation) continue;
    throw Error(ErrorKind::other,
                fmt::format("rank {} runs {} while rank {} runs {}", roster().world_rank(self().place),
                            to_string(Operation::unpack(own.operation)), roster().world_rank(member.place),
                            to_string(Operation::unpack(member.stamp->operation))),
                fmt::format("collective {} of this communicator", own.sequence.load()),
                "ranks took different paths, which is a fault of the program; please report it with the "
                "configuration");
  }
}

}  // namespace bireme

#pragma once

#include <cstdio>
#include <string>

namespace bireme::test {

/// One member of a ustar archive: header and padded content.
inline std::string tar_member(const std::string& name, const std::string& content, char type = '0',
                              const std::string& link = "") {
  std::string header(512, '\0');
  name.copy(header.data(), 100);
  std::snprintf(header.data() + 100, 8, "%07o", 0644);
  std::snprintf(header.data() + 124, 12, "%011zo", content.size());
  std::snprintf(header.data() + 136, 12, "%011o", 0);
  header[156] = type;
  link.copy(header.data() + 157, 100);
  std::string(
      "ustar\0"
      "00",
      8)
      .copy(header.data() + 257, 8);
  header.replace(148, 8, 8, ' ');
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  std::snprintf(header.data() + 148, 8, "%06o", sum);
  return header + content + std::string((512 - content.size() % 512) % 512, '\0');
}

inline std::string tar_end() { return std::string(1024, '\0'); }

}  // namespace bireme::test

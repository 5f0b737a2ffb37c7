// A bundle's files: read whole, and checked by SHA-256, because a .pte has no checksum of its own.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

inline std::string sha256(const std::string& data) {
  uint32_t k[64];  // the first 32 bits of the fractional parts of the cube roots of the first 64 primes
  for (unsigned n = 2, i = 0; i < 64; ++n) {
    bool prime = true;
    for (unsigned d = 2; d * d <= n; ++d) prime = prime && n % d;
    if (prime) k[i++] = static_cast<uint32_t>(std::fmod(std::cbrt(static_cast<long double>(n)), 1.0L) * 4294967296.0L);
  }
  std::array<uint32_t, 8> h{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                            0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::string padded = data + '\x80';
  padded.resize((padded.size() + 8 + 63) / 64 * 64 - 8);
  for (int shift = 56; shift >= 0; shift -= 8) padded += static_cast<char>(data.size() * 8 >> shift);
  auto turn = [](uint32_t x, int n) { return x >> n | x << (32 - n); };
  for (size_t block = 0; block < padded.size(); block += 64) {
    uint32_t w[64];
    for (int i = 0; i < 64; ++i) {
      const auto* p = reinterpret_cast<const uint8_t*>(padded.data()) + block + 4 * (i % 16);
      if (i < 16) { w[i] = uint32_t(p[0]) << 24 | p[1] << 16 | p[2] << 8 | p[3]; continue; }
      uint32_t a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
    }
    auto s = h;
    for (int i = 0; i < 64; ++i) {
      uint32_t t1 = s[7] + (turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
      uint32_t t2 = (turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
      s = {t1 + t2, s[0], s[1], s[2], s[3] + t1, s[4], s[5], s[6]};
    }
    for (int i = 0; i < 8; ++i) h[i] += s[i];
  }
  std::string found;
  char digits[9];
  for (uint32_t word : h) { std::snprintf(digits, sizeof digits, "%08x", word); found += digits; }
  return found;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::string read_checked(const std::string& path, const std::string& digest) {
  std::string data = read_file(path);
  if (sha256(data) != digest) throw std::runtime_error(path + ": is not the file of decode.json (SHA-256)");
  return data;
}

// Sha256: streaming SHA-256 by OpenSSL's EVP, whose symbols are those of the Node executable. One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace layerstore::hash {

using Sha256Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::span<const uint8_t> bytes);
  // Ends the stream; nothing but Restart() may follow.
  Sha256Digest Finish();
  // Begins another stream, which costs far less than another object where streams are short.
  void Restart();

 private:
  void* context_;  // EVP_MD_CTX
};

// 64 lower-case hex digits.
std::array<char, 64> FormatHex(const Sha256Digest& digest);

// "sha256:" and 64 lower-case hex digits.
std::string FormatDigest(const Sha256Digest& digest);

}  // namespace layerstore::hash

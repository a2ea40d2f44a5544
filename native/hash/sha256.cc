#include "hash/sha256.h"

#include <openssl/evp.h>

namespace layerstore::hash {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr);
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256::Update(std::span<const uint8_t> bytes) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), bytes.data(), bytes.size());
}

Sha256Digest Sha256::Finish() {
  Sha256Digest digest{};
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), nullptr);
  return digest;
}

void Sha256::Restart() { EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), nullptr, nullptr); }

std::array<char, 64> FormatHex(const Sha256Digest& digest) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::array<char, 64> text;
  size_t at = 0;
  for (const uint8_t byte : digest) {
    text[at++] = kHex[byte >> 4];
    text[at++] = kHex[byte & 15];
  }
  return text;
}

std::string FormatDigest(const Sha256Digest& digest) {
  const std::array<char, 64> hex = FormatHex(digest);
  return std::string("sha256:").append(hex.data(), hex.size());
}

}  // namespace layerstore::hash

#include "file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "error.h"

namespace xlstm::session {
namespace {

constexpr size_t kMostAtOnce = 1u << 30;  // what one read or write call surely takes

[[noreturn]] void fail_with(const std::string& path, const char* what, int number) {
  fail(XLSTM_FILE_ERROR, path + ": cannot be " + what + " (" + std::strerror(number) + ")");
}

// What `path` leads to, all zeros where nothing is there. stat is newer than glibc 2.28, as the
// headers of a newer system link it; statx is not.
struct statx look(const std::string& path) {
  struct statx found {};
  if (::statx(AT_FDCWD, path.c_str(), 0, STATX_TYPE | STATX_SIZE, &found) == 0) return found;
  if (errno != ENOENT && errno != ENOTDIR) fail_with(path, "read", errno);
  return {};
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int number() const { return number_; }
  // Closes it now: some file systems only then say that the disk is full.
  bool close() {
    const int number = number_;
    number_ = -1;
    return ::close(number) == 0;
  }

 private:
  int number_;
};

bool write_all(int file, const Piece& piece) {
  const char* data = static_cast<const char*>(piece.data);
  for (size_t done = 0; done < piece.bytes;) {
    const ssize_t now = ::write(file, data + done, std::min(piece.bytes - done, kMostAtOnce));
    if (now < 0 && errno != EINTR) return false;
    if (now > 0) done += static_cast<size_t>(now);
  }
  return true;
}

}  // namespace

std::string join(const std::string& folder, const std::string& name) {
  return folder.empty() || name.front() == '/' ? name : folder + "/" + name;
}

bool is_folder(const std::string& path) {
  return S_ISDIR(look(path).stx_mode);
}

bool is_file(const std::string& path) { return S_ISREG(look(path).stx_mode); }

int64_t file_size(const std::string& path) {
  const struct statx found = look(path);
  return S_ISREG(found.stx_mode) ? static_cast<int64_t>(found.stx_size) : -1;
}

std::string absolute(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> found(::realpath(path.c_str(), nullptr), std::free);
  return found ? found.get() : path;
}

std::vector<std::string> list(const std::string& folder) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> opened(::opendir(folder.c_str()), ::closedir);
  if (!opened) return names;
  while (const dirent* entry = ::readdir(opened.get())) names.emplace_back(entry->d_name);
  std::sort(names.begin(), names.end());
  return names;
}

std::string read_file(const std::string& path) {
  const mode_t mode = look(path).stx_mode;  // opening a pipe would wait for who writes to it
  if (mode != 0 && !S_ISREG(mode)) {
    fail(XLSTM_FILE_ERROR, path + ": cannot be read (it is no regular file)");
  }
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.number() < 0) fail_with(path, "read", errno);
  const int64_t size = ::lseek(file.number(), 0, SEEK_END);
  if (size < 0 || ::lseek(file.number(), 0, SEEK_SET) != 0) fail_with(path, "read", errno);
  std::string content(static_cast<size_t>(size), '\0');
  size_t done = 0;
  while (done < content.size()) {
    const size_t wanted = std::min(content.size() - done, kMostAtOnce);
    const ssize_t now = ::read(file.number(), content.data() + done, wanted);
    if (now < 0 && errno != EINTR) fail_with(path, "read", errno);
    if (now == 0) break;
    if (now > 0) done += static_cast<size_t>(now);
  }
  content.resize(done);
  return content;
}

void write_file(const std::string& path, const std::vector<Piece>& pieces) {
  static std::atomic<unsigned> count{0};
  const std::string work = path + ".partial-" + std::to_string(::getpid()) + "-" +
                           std::to_string(++count);
  Descriptor file(::open(work.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (file.number() < 0) fail_with(path, "written", errno);
  int wrong = 0;  // the first error's number
  const auto step = [&wrong](bool is_done) {
    if (!is_done && wrong == 0) wrong = errno;
    return wrong == 0;
  };
  for (const Piece& piece : pieces) {
    if (!step(write_all(file.number(), piece))) break;
  }
  if (wrong == 0) step(::fsync(file.number()) == 0);
  step(file.close());
  if (wrong == 0) step(::rename(work.c_str(), path.c_str()) == 0);
  if (wrong == 0) return;
  ::unlink(work.c_str());
  fail_with(path, "written", wrong);
}

}  // namespace xlstm::session

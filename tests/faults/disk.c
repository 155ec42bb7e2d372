/* What a process does to the files below DISK_ROOT: preloaded, it writes one line for each call that
 * changes a name, a file, or what of both is on the disk, to DISK_LOG. Fields are separated by tabs.
 *
 *   new INODE PATH      a file was made; it is linked into the folder DISK_KEEP by the number of its
 *   write INODE         inode, so that what was in it can be read when it is gone
 *   sync INODE
 *   syncdir PATH
 *   mkdir PATH
 *   name OLD NEW        the file has a second name
 *   move OLD NEW
 *   gone PATH
 *
 * A line is written after its call. So a line "syncdir" says of all names above it that they last.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int inside(const char *path) {
  const char *root = getenv("DISK_ROOT");
  size_t length = root ? strlen(root) : 0;
  return length && !strncmp(path, root, length) && (!path[length] || path[length] == '/');
}

static void note(const char *format, ...) {
  char line[3 * PATH_MAX];
  va_list values;
  va_start(values, format);
  int length = vsnprintf(line, sizeof line, format, values);
  va_end(values);
  int log = (int)syscall(SYS_openat, AT_FDCWD, getenv("DISK_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (log >= 0) {
    syscall(SYS_write, log, line, length);
    syscall(SYS_close, log);
  }
}

/* The path of an open file, "" where it has none. */
static void path_of(int file, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = syscall(SYS_readlink, link, path, PATH_MAX - 1);
  path[length > 0 ? length : 0] = 0;
}

static void path_at(int folder, const char *name, char *path) {
  if (name[0] == '/' || folder == AT_FDCWD) {
    snprintf(path, PATH_MAX, "%s", name);
  } else {
    char above[PATH_MAX];
    path_of(folder, above);
    snprintf(path, PATH_MAX, "%.2000s/%.2000s", above, name);
  }
}

static unsigned long inode(int file) {
  struct stat status;
  return fstat(file, &status) ? 0 : (unsigned long)status.st_ino;
}

static int opened(int file, int flags) {
  char path[PATH_MAX], kept[PATH_MAX], link[64];
  if (file >= 0 && (flags & O_CREAT)) {
    path_of(file, path);
    if (inside(path)) {
      snprintf(link, sizeof link, "/proc/self/fd/%d", file);
      snprintf(kept, sizeof kept, "%s/%lu", getenv("DISK_KEEP"), inode(file));
      if (!syscall(SYS_linkat, AT_FDCWD, link, AT_FDCWD, kept, AT_SYMLINK_FOLLOW)) {
        note("new\t%lu\t%s\n", inode(file), path);
      }
    }
  }
  return file;
}

#define MODE(flags, mode)              \
  unsigned mode = 0;                   \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list more;                      \
    va_start(more, flags);             \
    mode = va_arg(more, unsigned);     \
    va_end(more);                      \
  }

int open(const char *name, int flags, ...) {
  MODE(flags, mode)
  return opened((int)syscall(SYS_openat, AT_FDCWD, name, flags, mode), flags);
}

int open64(const char *name, int flags, ...) {
  MODE(flags, mode)
  return opened((int)syscall(SYS_openat, AT_FDCWD, name, flags, mode), flags);
}

int openat(int folder, const char *name, int flags, ...) {
  MODE(flags, mode)
  return opened((int)syscall(SYS_openat, folder, name, flags, mode), flags);
}

int openat64(int folder, const char *name, int flags, ...) {
  MODE(flags, mode)
  return opened((int)syscall(SYS_openat, folder, name, flags, mode), flags);
}

static ssize_t wrote(int file, ssize_t size) {
  char path[PATH_MAX];
  path_of(file, path);
  if (size > 0 && inside(path)) {
    note("write\t%lu\n", inode(file));
  }
  return size;
}

ssize_t write(int file, const void *data, size_t size) { return wrote(file, REAL(write)(file, data, size)); }

ssize_t pwrite64(int file, const void *data, size_t size, off64_t place) {
  return wrote(file, REAL(pwrite64)(file, data, size, place));
}

static int synced(int file, int code) {
  char path[PATH_MAX];
  struct stat status;
  path_of(file, path);
  if (!code && inside(path) && !fstat(file, &status)) {
    if (S_ISDIR(status.st_mode)) {
      note("syncdir\t%s\n", path);
    } else {
      note("sync\t%lu\n", (unsigned long)status.st_ino);
    }
  }
  return code;
}

int fsync(int file) { return synced(file, REAL(fsync)(file)); }

int fdatasync(int file) { return synced(file, REAL(fdatasync)(file)); }

static int changed(const char *what, int code, int from, const char *old, int to, const char *new) {
  char before[PATH_MAX], after[PATH_MAX] = "";
  path_at(from, old, before);
  if (new) {
    path_at(to, new, after);
  }
  if (!code && (inside(before) || inside(after))) {
    note(new ? "%s\t%s\t%s\n" : "%s\t%s%s\n", what, before, after);
  }
  return code;
}

int mkdir(const char *name, mode_t mode) {
  return changed("mkdir", REAL(mkdir)(name, mode), AT_FDCWD, name, 0, NULL);
}

int mkdirat(int folder, const char *name, mode_t mode) {
  return changed("mkdir", REAL(mkdirat)(folder, name, mode), folder, name, 0, NULL);
}

int rename(const char *old, const char *new) {
  return changed("move", REAL(rename)(old, new), AT_FDCWD, old, AT_FDCWD, new);
}

int renameat(int from, const char *old, int to, const char *new) {
  return changed("move", REAL(renameat)(from, old, to, new), from, old, to, new);
}

int link(const char *old, const char *new) {
  return changed("name", REAL(link)(old, new), AT_FDCWD, old, AT_FDCWD, new);
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
  return changed("name", REAL(linkat)(from, old, to, new, flags), from, old, to, new);
}

int unlink(const char *name) {
  return changed("gone", REAL(unlink)(name), AT_FDCWD, name, 0, NULL);
}

int unlinkat(int folder, const char *name, int flags) {
  return changed("gone", REAL(unlinkat)(folder, name, flags), folder, name, 0, NULL);
}

/* A disk that hangs: preloaded, a read of the first column of the file HANG_FILE never returns.
 *
 * Its footer can be read, so the file is in the snapshot, and what hangs is its split.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_COLUMN 4 /* behind "PAR1" */

ssize_t pread64(int file, void *data, size_t size, off64_t place) {
  char link[64], path[PATH_MAX];
  const char *hangs = getenv("HANG_FILE");
  if (hangs && place == FIRST_COLUMN) {
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlink, link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    while (!strcmp(path, hangs)) {
      pause();
    }
  }
  return syscall(SYS_pread64, file, data, size, place);
}

ssize_t pread(int file, void *data, size_t size, off_t place) { return pread64(file, data, size, place); }

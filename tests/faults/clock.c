/* A clock that is off: preloaded, it adds CLOCK_SHIFT_S seconds to the time of day.
 *
 * It holds no lock and keeps no state, unlike libfaketime, whose lock a process that forks beside
 * other threads may never get again. Monotonic clocks are left alone, as a wrong date does. The kernel
 * knows nothing of the shift: a wait until a time of day is moved back, or it would end at once and be
 * begun again for ever, where the clock is behind, and last a day where it is ahead.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
  const char *seconds = getenv("CLOCK_SHIFT_S");
  return seconds ? atol(seconds) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int code = (int)syscall(SYS_clock_gettime, clock, now);
  if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    now->tv_sec += shift();
  }
  return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec precise;
  int code = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return code;
}

time_t time(time_t *now) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (now) {
    *now = precise.tv_sec;
  }
  return precise.tv_sec;
}

typedef int (*timed_wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

static timed_wait kernel_wait(void) {
  /* Without a version, dlsym may give the one of old programs, with another pthread_cond_t. */
  void *found = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  return (timed_wait)(found ? found : dlsym(RTLD_NEXT, "pthread_cond_timedwait"));
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
  static timed_wait wait; /* found anew by two threads at once, it is the same */
  struct timespec there = *until;
  if (!wait) {
    wait = kernel_wait();
  }
  /* A condition may wait by the monotonic clock, which has counted no thirty years. */
  if (there.tv_sec > 1000000000) {
    there.tv_sec -= shift();
  }
  return wait(condition, mutex, &there);
}

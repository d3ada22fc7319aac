/* Loaded into Debian's adbd and the shells that it starts, to make a phone of them (see tests/phone.py):
 *
 * - sockets listen on the loopback address alone: this adbd asks nobody for authorisation;
 * - the phone's processor is an emulator: aarch64 programs are handed to /system/bin/run-arm64;
 * - its flash memory is full while the file /full is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUNNER "/system/bin/run-arm64"
enum { ELF_MACHINE = 18, AARCH64 = 183, MOST_WORDS = 64 };

int bind(int socket, const struct sockaddr *address, socklen_t size) {
  int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
  if (address->sa_family == AF_INET6) {
    static const struct in6_addr loopback = {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}}};
    ((struct sockaddr_in6 *)address)->sin6_addr = loopback;
  } else if (address->sa_family == AF_INET) {
    ((struct sockaddr_in *)address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  } else if (address->sa_family != AF_UNIX) {
    errno = EADDRNOTAVAIL;
    return -1;
  }
  return real(socket, address, size);
}

static int is_aarch64(const char *path) {
  unsigned char head[ELF_MACHINE + 1] = {0};
  int file = open(path, O_RDONLY | O_CLOEXEC);
  int whole = file >= 0 && read(file, head, sizeof head) == sizeof head;
  if (file >= 0) close(file);
  return whole && memcmp(head, "\177ELF", 4) == 0 && head[ELF_MACHINE] == AARCH64;
}

int execve(const char *path, char *const words[], char *const environment[]) {
  int (*real)(const char *, char *const[], char *const[]) = dlsym(RTLD_NEXT, "execve");
  char *runner[MOST_WORDS + 2] = {(char *)RUNNER, (char *)path};
  if (!is_aarch64(path)) return real(path, words, environment);
  for (int i = 1; words[i] && i < MOST_WORDS; i++) runner[i + 1] = words[i];
  return real(RUNNER, runner, environment);
}

ssize_t write(int file, const void *bytes, size_t size) {
  ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
  struct stat facts;
  if (access("/full", F_OK) == 0 && fstat(file, &facts) == 0 && S_ISREG(facts.st_mode)) {
    errno = ENOSPC;
    return -1;
  }
  return real(file, bytes, size);
}

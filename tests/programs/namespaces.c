/*
 * Goes from one new mount namespace to the next, as many as told, and opens a file in each. Holds on to
 * all of them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 0;
	char path[64];

	for (int i = 0; i < count; i++) {
		if (unshare(CLONE_NEWNS)) {
			perror("unshare");
			return 1;
		}
		if (syscall(SYS_openat, AT_FDCWD, "/proc/self/ns/mnt", O_RDONLY) < 0) {
			perror("/proc/self/ns/mnt");
			return 1;
		}
		snprintf(path, sizeof(path), "/within/%d", i);
		syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
	}
	return 0;
}

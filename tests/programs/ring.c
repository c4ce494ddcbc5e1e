/*
 * ring ID: opens the BPF ring buffer with this id, as whoever has CAP_SYS_ADMIN may, and moves its reader's position on.
 */
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	union bpf_attr attr;
	volatile unsigned long *position;
	int fd;

	if (argc != 2)
		return 2;
	memset(&attr, 0, sizeof(attr));
	attr.map_id = atoi(argv[1]);
	fd = syscall(SYS_bpf, BPF_MAP_GET_FD_BY_ID, &attr, sizeof(attr));
	if (fd < 0) {
		perror("BPF_MAP_GET_FD_BY_ID");
		return 1;
	}
	position = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (position == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	*position += 8;
	return 0;
}

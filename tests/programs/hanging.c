/*
 * hanging DIRECTORY FILE: mounts a file system on DIRECTORY that takes every request and answers none but the first,
 * without which there would be no others. With the second one it makes FILE.
 */
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char request[1 << 20];
	struct fuse_in_header *head = (void *)request;
	struct {
		struct fuse_out_header head;
		struct fuse_init_out init;
	} answer;
	char options[128];
	int fuse;

	if (argc != 3)
		return 2;
	mknod("/dev/fuse", S_IFCHR | 0600, makedev(10, 229));
	fuse = open("/dev/fuse", O_RDWR);
	if (fuse < 0) {
		perror("/dev/fuse");
		return 1;
	}
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fuse);
	if (mount("hanging", argv[1], "fuse", 0, options)) {
		perror("mount");
		return 1;
	}
	for (;;) {
		if (read(fuse, request, sizeof(request)) < 0) {
			perror("read");
			return 1;
		}
		if (head->opcode != FUSE_INIT) {
			close(open(argv[2], O_WRONLY | O_CREAT, 0600));
			continue;
		}
		memset(&answer, 0, sizeof(answer));
		answer.head.len = sizeof(answer);
		answer.head.unique = head->unique;
		answer.init.major = FUSE_KERNEL_VERSION;
		answer.init.minor = FUSE_KERNEL_MINOR_VERSION;
		answer.init.max_write = 1 << 16;
		if (write(fuse, &answer, sizeof(answer)) < 0) {
			perror("write");
			return 1;
		}
	}
}
